//! Form fields, urlencoded or multipart.

use actix_multipart::{Field, Multipart};
use actix_web::{HttpRequest, http::header, mime, web};
use futures_util::TryStreamExt;
use rovi_common::http::Problem;

use rovi_common::files::{MAX_FILE_BYTES, MAX_FILES, MAX_FILES_BYTES};
use rovi_python::{MAX_DEFINITION_BYTES, ScriptFile};

/// The most bytes of all text fields together.
const MAX_TEXT_BYTES: usize = MAX_DEFINITION_BYTES + 64 * 1024;
/// The most bytes of one urlencoded form: `%XX` trebles a byte.
const MAX_ENCODED_BYTES: usize = 3 * MAX_TEXT_BYTES;
const FILES: &str = "files";

/// The fields of `POST /online/register`, as text.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Form {
    pub(super) name: Option<String>,
    pub(super) definition: Option<String>,
    pub(super) estimator: Option<String>,
    pub(super) valid_from: Option<String>,
    pub(super) required_time: Option<String>,
    pub(super) start_time: Option<String>,
    pub(super) files: Vec<ScriptFile>,
}

impl Form {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// 400, 413 or 415 that names the field at fault.
    pub(super) async fn read(request: &HttpRequest, body: web::Payload) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()?.parse::<mime::Mime>().ok());
        let kind = kind.as_ref().map(|kind| (kind.type_(), kind.subtype()));
        match kind {
            Some((mime::MULTIPART, mime::FORM_DATA)) => {
                Self::read_multipart(Multipart::new(request.headers(), body)).await
            }
            Some((mime::APPLICATION, mime::WWW_FORM_URLENCODED)) => {
                Self::read_urlencoded(body).await
            }
            _ => {
                let status = actix_web::http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
                let detail =
                    "send a form: multipart/form-data or application/x-www-form-urlencoded";
                Err(Problem::new(status, detail).at("Content-Type"))
            }
        }
    }

    async fn read_urlencoded(body: web::Payload) -> Result<Self, Problem> {
        let body = body.to_bytes_limited(MAX_ENCODED_BYTES).await;
        let body = body
            .map_err(|_too_large| too_large(MAX_ENCODED_BYTES))?
            .map_err(|error| Problem::bad_request(format!("the form cannot be read: {error}")))?;
        let mut form = Self::default();
        for (field, value) in url::form_urlencoded::parse(&body) {
            if field == FILES {
                let detail = "files are sent as parts of multipart/form-data";
                return Err(Problem::bad_request(detail).at(FILES));
            }
            form.set(&field, value.into_owned())?;
        }
        Ok(form)
    }

    async fn read_multipart(mut parts: Multipart) -> Result<Self, Problem> {
        let mut form = Self::default();
        let (mut text_bytes, mut file_bytes) = (0, 0);
        while let Some(mut part) = parts.try_next().await.map_err(|error| unreadable(&error))? {
            let field = part.name().unwrap_or_default().to_owned();
            if field == FILES {
                if form.files.len() >= MAX_FILES {
                    let detail = format!("more than {MAX_FILES} files are attached");
                    return Err(Problem::too_large(detail).at(FILES));
                }
                form.files
                    .push(read_file(&mut part, &mut file_bytes).await?);
                continue;
            }
            let bytes = read_text(&mut part, &mut text_bytes).await?;
            let text = String::from_utf8(bytes);
            let text = text.map_err(|_invalid| {
                Problem::bad_request("the field is not UTF-8 text").at(&field)
            })?;
            form.set(&field, text)?;
        }
        Ok(form)
    }

    fn set(&mut self, field: &str, value: String) -> Result<(), Problem> {
        let place = match field {
            "name" => &mut self.name,
            "definition" => &mut self.definition,
            "estimator" => &mut self.estimator,
            "valid_from" => &mut self.valid_from,
            "required_time" => &mut self.required_time,
            "start_time" => &mut self.start_time,
            _ => {
                let detail = format!(
                    "the form has an unknown field `{field}`; known are name, definition, \
                     estimator, valid_from, required_time, start_time and files"
                );
                return Err(Problem::bad_request(detail).at(field));
            }
        };
        if place.replace(value).is_some() {
            let detail = format!("the field `{field}` stands twice");
            return Err(Problem::bad_request(detail).at(field));
        }
        Ok(())
    }
}

/// Reads a field of time in seconds; an empty one is as good as none.
///
/// # Errors
/// 400 that names the field.
pub(super) fn seconds(field: &str, text: Option<&str>) -> Result<Option<f64>, Problem> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => Ok(Some(seconds)),
        _ => {
            let detail = format!("`{field}` is {text:?}, it must be a number of seconds");
            Err(Problem::bad_request(detail).at(field))
        }
    }
}

async fn read_text(part: &mut Field, sum: &mut usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = part.try_next().await.map_err(|error| unreadable(&error))? {
        *sum += chunk.len();
        if *sum > MAX_TEXT_BYTES {
            return Err(too_large(MAX_TEXT_BYTES));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn read_file(part: &mut Field, sum: &mut usize) -> Result<ScriptFile, Problem> {
    let named = part
        .content_disposition()
        .and_then(|named| named.get_filename());
    let name = named
        .map(ToOwned::to_owned)
        .ok_or_else(|| Problem::bad_request("an attached file has no file name").at(FILES))?;
    let mut content = Vec::new();
    while let Some(chunk) = part.try_next().await.map_err(|error| unreadable(&error))? {
        *sum += chunk.len();
        content.extend_from_slice(&chunk);
        if content.len() > MAX_FILE_BYTES || *sum > MAX_FILES_BYTES {
            let detail = format!(
                "the attached files are too large: {MAX_FILE_BYTES} bytes are the most of one, \
                 {MAX_FILES_BYTES} of all"
            );
            return Err(Problem::too_large(detail).at(FILES));
        }
    }
    let content = content.into();
    Ok(ScriptFile { name, content })
}

fn unreadable(error: &actix_multipart::MultipartError) -> Problem {
    Problem::bad_request(format!("the form cannot be read: {error}"))
}

fn too_large(limit: usize) -> Problem {
    Problem::too_large(format!("the form is larger than {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let problem = Form::default().set("defintion", String::new()).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("defintion"));
    }

    #[test]
    fn a_time_that_is_none_is_refused_by_name() {
        assert_eq!(seconds("valid_from", Some(" 12.5 ")).unwrap(), Some(12.5));
        assert_eq!(seconds("valid_from", Some("")).unwrap(), None);
        let problem = seconds("valid_from", Some("NaN")).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("valid_from"));
    }
}
