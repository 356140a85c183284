//! `/db/{battery}/metadata`: the present version, those before, and changes that never overwrite
//! what the caller has not seen.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use diesel::PgConnection;
use rovi_common::{
    auth::{Access, Role},
    http::Problem,
    name::BatteryName,
};
use serde::{Deserialize, Serialize};

use super::{battery_name, no_such_battery};
use crate::{
    hub::Hub,
    metadata::{MergePatch, Metadata, too_large},
    store::{
        StoreError,
        metadata::{self, Changed, Version},
    },
};

/// What a patch is called.
const MERGE_PATCH: &str = "application/merge-patch+json";
/// The longest name of an author, in bytes.
const MAX_AUTHOR_BYTES: usize = 255;
/// Versions listed at once.
const MOST_LISTED: i64 = 1000;

/// Which version.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionQuery {
    /// A version of before; else the present one.
    #[param(minimum = 1)]
    revision: Option<i64>,
}

/// Which versions are listed.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionsQuery {
    /// Only those before this one; the last one listed continues the list.
    before: Option<i64>,
}

/// One version of a battery's metadata.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct VersionInfo {
    revision: i64,
    /// Microseconds since 1970.
    changed: i64,
    /// As the request's header `From` said.
    author: Option<String>,
    bytes: i64,
}

/// Returns a battery's metadata, as they were sent.
#[utoipa::path(
    get,
    path = "/db/{battery}/metadata",
    tag = "metadata",
    params(
        ("battery" = String, Path, description = "Name of the battery"), VersionQuery,
        ("If-None-Match" = Option<String>, Header, description = "304 while this is the ETag"),
    ),
    responses(
        (status = 200, body = Object, headers(("ETag" = String, description = "The version"))),
        (status = 304, description = "The caller has this version"),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_metadata(
    request: HttpRequest,
    battery: web::Path<String>,
    query: web::Query<VersionQuery>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    let name = battery.to_string();
    let revision = query.revision;
    let find = move |connection: &mut PgConnection| -> Result<_, StoreError> {
        let Some(holder) = metadata::find(connection, &name)? else {
            return Ok(None);
        };
        let version = match revision {
            Some(revision) => metadata::version(connection, &holder, revision)?,
            None => holder.version,
        };
        Ok(Some(version))
    };
    let version = hub.pool.run(find).await?;
    let version = version.ok_or_else(|| no_such_battery(&battery))?;
    let version = version.ok_or_else(|| missing(&battery, revision))?;
    let etag = version.etag();
    if condition(&request, &header::IF_NONE_MATCH).is_some_and(|tags| lists(tags, &etag)) {
        let mut response = HttpResponse::NotModified();
        return Ok(response.insert_header((header::ETAG, etag)).finish());
    }
    Ok(HttpResponse::Ok()
        .insert_header((header::ETAG, etag))
        .content_type("application/json")
        .body(version.body))
}

fn missing(battery: &BatteryName, revision: Option<i64>) -> Problem {
    match revision {
        Some(revision) => {
            let detail = format!(
                "{battery} has no metadata of revision {revision}; \
                 /db/{battery}/metadata/revisions lists them"
            );
            Problem::not_found(detail).at("revision")
        }
        None => Problem::not_found(format!(
            "{battery} has rows but no metadata; POST /db/register adds them"
        )),
    }
}

/// Lists the versions of a battery's metadata, newest first, at most 1000 at once.
#[utoipa::path(
    get,
    path = "/db/{battery}/metadata/revisions",
    tag = "metadata",
    params(("battery" = String, Path, description = "Name of the battery"), VersionsQuery),
    responses(
        (status = 200, body = Vec<VersionInfo>), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn list_versions(
    battery: web::Path<String>,
    query: web::Query<VersionsQuery>,
    hub: web::Data<Hub>,
) -> Result<web::Json<Vec<VersionInfo>>, Problem> {
    let battery = battery_name(&battery)?;
    let name = battery.to_string();
    let before = query.before.unwrap_or(i64::MAX);
    let list = move |connection: &mut PgConnection| -> Result<_, StoreError> {
        let Some(holder) = metadata::find(connection, &name)? else {
            return Ok(None);
        };
        Ok(Some(metadata::versions(
            connection,
            &holder,
            before,
            MOST_LISTED,
        )?))
    };
    let listed = hub.pool.run(list).await?;
    let listed = listed.ok_or_else(|| no_such_battery(&battery))?.into_iter();
    let info = |one: metadata::Listed| VersionInfo {
        revision: one.revision,
        changed: one.changed,
        author: one.author,
        bytes: one.bytes,
    };
    Ok(web::Json(listed.map(info).collect()))
}

/// Replaces a battery's metadata; the battery must exist.
#[utoipa::path(
    put,
    path = "/db/{battery}/metadata",
    tag = "metadata",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("If-Match" = Option<String>, Header, description = "412 unless this is the ETag"),
        ("From" = Option<String>, Header, description = "Who makes this version"),
    ),
    request_body(content = Object, description = "battdat's `BatteryMetadata`; kept as sent"),
    responses(
        (status = 200, body = Object, headers(("ETag" = String, description = "The version"))),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 412, body = Problem),
        (status = 413, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn replace_metadata(
    request: HttpRequest,
    access: Access,
    body: Result<web::Bytes, actix_web::Error>,
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let given = Metadata::parse(&bytes_of(body)?)?;
    change((&request, access), &battery, &hub, move |_| Ok(given)).await
}

/// Changes a battery's metadata by a JSON merge patch (RFC 7396): null removes a key.
#[utoipa::path(
    patch,
    path = "/db/{battery}/metadata",
    tag = "metadata",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("If-Match" = Option<String>, Header, description = "412 unless this is the ETag"),
        ("From" = Option<String>, Header, description = "Who makes this version"),
    ),
    request_body(content = Object, content_type = "application/merge-patch+json"),
    responses(
        (status = 200, body = Object, headers(("ETag" = String, description = "The version"))),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 412, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn patch_metadata(
    request: HttpRequest,
    access: Access,
    body: Result<web::Bytes, actix_web::Error>,
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().unwrap_or_default().trim() != MERGE_PATCH {
        let detail = format!("a patch has the content type {MERGE_PATCH}, this has {kind:?}");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, detail).at("Content-Type"));
    }
    let patch = MergePatch::parse(&bytes_of(body)?)?;
    let patched =
        move |present: Option<&Version>| patch.apply(present.map(|version| version.body.as_str()));
    change((&request, access), &battery, &hub, patched).await
}

/// Changes metadata where the caller's conditions hold, and answers the new version.
async fn change(
    (request, access): (&HttpRequest, Access),
    battery: &str,
    hub: &Hub,
    change: impl FnOnce(Option<&Version>) -> Result<Metadata, Problem> + Send + 'static,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(battery)?;
    let author = author(request)?;
    let conditions = [header::IF_MATCH, header::IF_NONE_MATCH]
        .map(|name| condition(request, &name).map(str::to_owned));
    let name = battery.clone();
    let checked = move |present: Option<&Version>| {
        check_conditions(&conditions, present)?;
        change(present)
    };
    let may_see = move |name: &str| {
        let name = name.parse::<BatteryName>();
        access.is_everyone() || name.is_ok_and(|name| access.may(Role::Reader, &name))
    };
    let work = move |connection: &mut PgConnection| {
        metadata::change(connection, &name, (author.as_deref(), &may_see), checked)
    };
    match hub.pool.run(work).await? {
        Changed::Done(version) => {
            let revision = version.revision;
            tracing::info!(battery.id = %battery, "metadata of {battery} are of revision {revision}");
            Ok(HttpResponse::Ok()
                .insert_header((header::ETAG, version.etag()))
                .content_type("application/json")
                .body(version.body))
        }
        Changed::NoBattery => Err(no_such_battery(&battery)),
        Changed::Taken(title) => {
            let detail = format!("another battery has the metadata of name {title:?}");
            Err(Problem::conflict(detail).at("name"))
        }
        Changed::Refused(problem) => Err(problem),
    }
}

fn check_conditions(
    [matching, none_matching]: &[Option<String>; 2],
    present: Option<&Version>,
) -> Result<(), Problem> {
    let etag = present.map(Version::etag);
    let failed = |detail: String| Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail));
    if let Some(tags) = matching
        && !etag.as_deref().is_some_and(|etag| lists(tags, etag))
    {
        let now = etag.unwrap_or_else(|| "none".to_owned());
        return failed(format!(
            "the metadata changed: their ETag is {now}, If-Match says {tags}; read them again"
        ));
    }
    match (none_matching, &etag) {
        (Some(tags), Some(etag)) if lists(tags, etag) => {
            failed(format!("there are metadata of ETag {etag}"))
        }
        _ => Ok(()),
    }
}

pub(super) fn condition<'r>(
    request: &'r HttpRequest,
    name: &header::HeaderName,
) -> Option<&'r str> {
    request.headers().get(name)?.to_str().ok()
}

/// Tells whether a header's validators name `etag`.
pub(super) fn lists(tags: &str, etag: &str) -> bool {
    let one = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag;
    tags.split(',').map(str::trim).any(one)
}

/// Reads who makes a change.
pub(super) fn author(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let Some(author) = request.headers().get(header::FROM) else {
        return Ok(None);
    };
    match str::from_utf8(author.as_bytes()) {
        Ok(author) if author.len() <= MAX_AUTHOR_BYTES => Ok(Some(author.to_owned())),
        _ => {
            let detail = format!("From must be UTF-8 of at most {MAX_AUTHOR_BYTES} bytes");
            Err(Problem::bad_request(detail).at("From"))
        }
    }
}

/// Takes the body, or says why it was not read.
pub(super) fn bytes_of(body: Result<web::Bytes, actix_web::Error>) -> Result<web::Bytes, Problem> {
    body.map_err(|error| {
        if error.as_response_error().status_code() == StatusCode::PAYLOAD_TOO_LARGE {
            return too_large();
        }
        Problem::bad_request(format!("the body broke off: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validators_are_listed_weak_or_for_any() {
        for tags in ["\"1-2\"", "*", "\"x\", W/\"1-2\""] {
            assert!(lists(tags, "\"1-2\""), "{tags}");
        }
        assert!(!lists("\"1-20\"", "\"1-2\""));
    }
}
