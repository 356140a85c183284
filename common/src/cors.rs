//! Pages of other origins: none may read or change anything, unless their origin is listed.
//!
//! Those show a token as programs do: a browser's session counts for our own pages alone, so nothing
//! here ever allows credentials that a browser adds by itself.

use actix_web::{
    HttpResponse,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{
        Method,
        header::{self, HeaderMap, HeaderValue},
    },
    middleware::Next,
    web,
};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::http;

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const HEADERS: &str = "authorization, content-type, content-encoding, accept, from, \
     idempotency-key, if-match, if-none-match, last-event-id";
/// What pages may read of answers besides what every page may.
const EXPOSED: &str = "etag, retry-after, ratelimit, www-authenticate, link, \
     content-disposition, rovi-epoch, rovi-first-seq, rovi-last-seq, rovi-deleted, \
     rovi-rows-rejected, rovi-first-rejection";
/// For how long a browser need not ask again.
const MAX_AGE_S: &str = "600";

/// Which pages of other origins may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorsSettings {
    /// Origins such as `https://lab.example`, exactly as browsers send them; none if empty.
    pub origins: Vec<String>,
}

impl CorsSettings {
    /// Tells everything that is wrong with the settings.
    pub fn problems(&self) -> Vec<String> {
        let wrong = self.origins.iter().filter(|origin| {
            let url = origin.parse::<Url>();
            !url.is_ok_and(|url| {
                url.origin().is_tuple() && url.origin().ascii_serialization() == **origin
            })
        });
        wrong
            .map(|origin| {
                format!(
                    "cors.origins: {origin:?} is no origin: it looks like https://lab.example or \
                     http://localhost:5173, without a path, and each is listed (no `*`)"
                )
            })
            .collect()
    }

    /// Returns the origin of the page that asks, if it is listed.
    pub(crate) fn listed<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let is_listed = self
            .origins
            .iter()
            .any(|one| one.as_bytes() == origin.as_bytes());
        is_listed.then_some(origin)
    }
}

/// Middleware: tells browsers which pages may read answers. It stands before all others, so that
/// refusals can be read, too.
///
/// # Errors
/// What the handler says.
pub async fn cors(
    settings: web::Data<CorsSettings>,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody>>, actix_web::Error> {
    let is_ours = http::origin_is_ours(request.request(), true);
    let listed = settings.listed(request.headers()).filter(|_| !is_ours);
    let Some(origin) = listed.cloned() else {
        let answer = next.call(request).await?.map_into_left_body();
        return Ok(answer);
    };
    // What a browser adds by itself does not count for pages of others.
    request.headers_mut().remove(header::COOKIE);
    let asks_first = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if asks_first {
        let mut allowed = HttpResponse::NoContent()
            .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS))
            .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS))
            .insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S))
            .finish();
        allow(allowed.headers_mut(), origin);
        return Ok(request.into_response(allowed).map_into_right_body());
    }
    match next.call(request).await {
        Ok(mut answer) => {
            allow(answer.headers_mut(), origin);
            Ok(answer.map_into_left_body())
        }
        Err(error) => {
            let mut refusal = error.error_response();
            allow(refusal.headers_mut(), origin);
            Err(InternalError::from_response(error, refusal).into())
        }
    }
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let exposed = HeaderValue::from_static(EXPOSED);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
}

#[cfg(test)]
mod tests {
    use actix_web::{App, http::StatusCode, middleware::from_fn, test};

    use super::*;
    use crate::http::{Problem, same_origin};

    const PAGE: &str = "https://lab.example";

    async fn ask(method: Method, origin: &str, asks_first: bool) -> (StatusCode, HeaderMap) {
        let settings = CorsSettings {
            origins: vec![PAGE.to_owned()],
        };
        let app = App::new()
            .wrap(from_fn(same_origin))
            .wrap(from_fn(cors))
            .app_data(web::Data::new(settings))
            .route("/good", web::post().to(HttpResponse::Ok))
            .default_service(web::to(async || {
                Err::<String, _>(Problem::not_found("none"))
            }));
        let app = test::init_service(app).await;
        let path = if method == Method::GET {
            "/none"
        } else {
            "/good"
        };
        let mut request = test::TestRequest::with_uri(path)
            .method(method)
            .insert_header((header::HOST, "127.0.0.1:8000"))
            .insert_header((header::ORIGIN, origin.to_owned()));
        if asks_first {
            request = request.insert_header((header::ACCESS_CONTROL_REQUEST_METHOD, "POST"));
        }
        match test::try_call_service(&app, request.to_request()).await {
            Ok(answer) => (answer.status(), answer.headers().clone()),
            Err(error) => {
                let refusal = error.error_response();
                (refusal.status(), refusal.headers().clone())
            }
        }
    }

    #[actix_web::test]
    async fn a_listed_page_may_ask_and_read_refusals_too() {
        for (method, asks_first, status) in [
            (Method::OPTIONS, true, StatusCode::NO_CONTENT),
            (Method::POST, false, StatusCode::OK),
            (Method::GET, false, StatusCode::NOT_FOUND),
        ] {
            let (answered, headers) = ask(method, PAGE, asks_first).await;
            assert_eq!(answered, status);
            assert_eq!(headers.get("access-control-allow-origin").unwrap(), PAGE);
            assert_eq!(headers.get("vary").unwrap(), "Origin");
            assert!(!headers.contains_key("access-control-allow-credentials"));
        }
    }

    #[actix_web::test]
    async fn any_other_page_may_not() {
        for origin in ["https://lab.example:444", "http://lab.example", "null", "*"] {
            let (status, headers) = ask(Method::POST, origin, false).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{origin}");
            assert!(!headers.contains_key("access-control-allow-origin"));
            let (_, headers) = ask(Method::OPTIONS, origin, true).await;
            assert!(!headers.contains_key("access-control-allow-origin"));
        }
    }

    #[::core::prelude::v1::test]
    fn only_whole_origins_can_be_listed() {
        let problems = |origin: &str| {
            let origins = vec![origin.to_owned()];
            CorsSettings { origins }.problems().len()
        };
        assert_eq!(problems(PAGE) + problems("http://localhost:5173"), 0);
        for wrong in [
            "*",
            "null",
            "lab.example",
            "https://lab.example/",
            "https://Lab.example",
        ] {
            assert_eq!(problems(wrong), 1, "{wrong}");
        }
    }
}
