//! What both services' HTTP interfaces share: problem documents, operation routes, the page with
//! the API's documentation, and the guard against pages of another origin.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    net::IpAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    body::MessageBody,
    dev::{Server, ServerHandle, ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{self, HeaderMap, HeaderValue},
    },
    middleware::Next,
    web::{self, Bytes},
};
use serde::Serialize;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{
    auth::Gate, cors::CorsSettings, error::ErrorChain, lifecycle::Lifecycle, news::ASYNC_API,
    telemetry::Metrics,
};

/// Within this time the head of a request has to come; slower clients are cut.
pub const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// The most bytes of the head of a request, its path and query among them.
pub const HEAD_BYTES: usize = 128 << 10;
/// Connections that each thread of a server takes at once; the others wait to be accepted.
pub const CONNECTIONS: usize = 16_384;

/// Runs a server beside a service's other tasks; returns what stops it.
pub fn supervise(server: Server, lifecycle: &Lifecycle) -> ServerHandle {
    let handle = server.handle();
    lifecycle.supervise("http", async move {
        if let Err(error) = server.await {
            tracing::error!("the HTTP server failed: {error}");
        }
    });
    handle
}

/// An RFC 9457 problem document.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// A short name of the kind of problem.
    pub title: String,
    /// The HTTP status.
    #[serde(serialize_with = "status_number")]
    #[schema(value_type = u16)]
    pub status: StatusCode,
    /// What was wrong, where, and what to do.
    pub detail: String,
    /// The field that was wrong, where one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    #[serde(skip)]
    retry_after_s: Option<u32>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn status_number<S: serde::Serializer>(status: &StatusCode, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u16(status.as_u16())
}

impl Problem {
    /// Makes a problem of any status.
    pub fn new(status: StatusCode, detail: impl fmt::Display) -> Self {
        let title = status.canonical_reason().unwrap_or("Problem").to_owned();
        Self {
            title,
            status,
            detail: detail.to_string(),
            field: None,
            retry_after_s: None,
        }
    }

    /// 400: the request is wrong.
    pub fn bad_request(detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409: the request does not fit the state of things.
    pub fn conflict(detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 413: the request is larger than a limit.
    pub fn too_large(detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// 429 with `Retry-After`: a limit is reached, for so long.
    pub fn too_many(detail: impl fmt::Display, wait: Duration) -> Self {
        let seconds = wait.as_secs_f64().ceil().clamp(1.0, f64::from(u32::MAX));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is clamped"
        )]
        let seconds = seconds as u32;
        Self {
            retry_after_s: Some(seconds),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }

    /// How long to wait before asking again, where that is told.
    pub fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// 503 with `Retry-After`: PostgreSQL, NATS or the other service is away.
    pub fn unavailable(detail: impl fmt::Display) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        Self {
            retry_after_s: Some(2),
            ..problem
        }
    }

    /// 500: our bug; the cause is logged here and not shown.
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!("internal error: {}", ErrorChain(error));
        let detail = "this is a defect of the service; its log has the cause";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// Names the field that was wrong.
    #[must_use]
    pub fn at(self, field: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {}",
            self.status.as_u16(),
            self.title,
            self.detail
        )
    }
}

impl Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((header::RETRY_AFTER, seconds));
            if self.status == StatusCode::TOO_MANY_REQUESTS {
                let limit = self.field.as_deref().unwrap_or("credentials");
                let told = format!("\"{limit}\";r=0;t={seconds}");
                response.insert_header(("RateLimit", told));
            }
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        let body = serde_json::to_string(self).unwrap_or_default();
        let mut response = response.content_type("application/problem+json").body(body);
        // Middleware that refuses a request ends it before headers are added to its answer.
        add_careful(response.headers_mut(), DATA_POLICY);
        response
    }
}

/// What a service needs before it is ready, each with its present problem.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    checks: Arc<RwLock<BTreeMap<&'static str, Option<String>>>>,
}

impl Readiness {
    /// Returns a readiness whose `parts` have not answered yet.
    pub fn new(parts: &[&'static str]) -> Self {
        let waiting = |&part| (part, Some("not checked yet".to_owned()));
        Self {
            checks: Arc::new(RwLock::new(parts.iter().map(waiting).collect())),
        }
    }

    /// Sets what is wrong with a part, or that nothing is; logs a change.
    pub fn set(&self, part: &'static str, problem: Option<String>) {
        let Ok(mut checks) = self.checks.write() else {
            return;
        };
        if checks.get(part) != Some(&problem) {
            if let Some(problem) = &problem {
                tracing::warn!("{part} is not ready: {problem}");
            } else {
                tracing::info!("{part} is ready");
            }
            checks.insert(part, problem);
        }
    }

    /// Returns the problems by part; empty when ready.
    pub fn problems(&self) -> BTreeMap<&'static str, String> {
        let Ok(checks) = self.checks.read() else {
            return BTreeMap::new();
        };
        checks
            .iter()
            .filter_map(|(part, problem)| Some((*part, problem.clone()?)))
            .collect()
    }
}

/// Adds `/health`, `/ready` and `/metrics`.
pub fn operations(
    service: &'static str,
    readiness: Readiness,
    metrics: Metrics,
) -> impl FnOnce(&mut web::ServiceConfig) {
    let health = move || async move {
        let version = env!("CARGO_PKG_VERSION");
        web::Json(serde_json::json!({"status": "ok", "service": service, "version": version}))
    };
    let ready = move |gate: Option<web::Data<Gate>>| {
        let mut problems = readiness.problems();
        if let Some(gate) = gate.filter(|gate| gate.is_required()) {
            // Why something is away tells of addresses; where everybody is asked, that is for the log.
            for problem in problems.values_mut() {
                "not ready; the log of the service says why".clone_into(problem);
            }
            if !gate.known().is_complete() {
                problems.insert("tokens", "not all are known yet".to_owned());
            }
        }
        async move {
            if problems.is_empty() {
                return HttpResponse::Ok().json(serde_json::json!({"status": "ready"}));
            }
            let body = serde_json::json!({"status": "waiting", "problems": problems});
            HttpResponse::ServiceUnavailable()
                .insert_header((header::RETRY_AFTER, 2))
                .json(body)
        }
    };
    let metrics = move || {
        let text = metrics.render();
        async move {
            HttpResponse::Ok()
                .content_type("text/plain; version=0.0.4")
                .body(text)
        }
    };
    move |config| {
        config
            .route("/health", web::get().to(health))
            .route("/ready", web::get().to(ready))
            .route("/metrics", web::get().to(metrics));
    }
}

/// Writes the document of an API once, for all threads that serve it: as a tree each would take some
/// megabytes of its own.
///
/// # Panics
/// Never: JSON can say what a document of an API holds.
pub fn written(api: &utoipa::openapi::OpenApi) -> Bytes {
    let text = api.to_json();
    text.expect("names and numbers alone, which JSON can say")
        .into()
}

/// Adds `/openapi.json`, `/asyncapi.json` and the page `/docs/` (from `/docs`), which needs nothing from elsewhere.
pub fn docs(openapi: Bytes) -> impl FnOnce(&mut web::ServiceConfig) {
    let api = move || {
        let document = openapi.clone();
        async {
            HttpResponse::Ok()
                .content_type("application/json")
                .body(document)
        }
    };
    let async_api = || async {
        HttpResponse::Ok()
            .content_type("application/json")
            .body(ASYNC_API)
    };
    move |config| {
        let page = SwaggerUi::new("/docs/{_:.*}").config(Config::from("/openapi.json"));
        config
            .route("/openapi.json", web::get().to(api))
            .route("/asyncapi.json", web::get().to(async_api))
            .service(web::redirect("/docs", "/docs/"))
            .service(page);
    }
}

/// What may come of an answer that is no page: nothing, should a browser ever take it for one.
const DATA_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";
/// Browsers that were here once come by https alone, for a year.
const STRICT_TRANSPORT: &str = "max-age=31536000";
/// The page with the API's documentation sets styles by itself and has pictures in its style sheet.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; \
     style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Middleware: headers by which browsers keep what is answered to themselves; those that an answer
/// has stay.
///
/// # Errors
/// What the handler says.
pub async fn careful_headers(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let is_docs = request.path().starts_with("/docs/");
    let stays_encrypted = is_encrypted(&request);
    let mut answer = next.call(request).await?;
    let policy = if is_docs { DOCS_POLICY } else { DATA_POLICY };
    add_careful(answer.headers_mut(), policy);
    if stays_encrypted {
        let value = HeaderValue::from_static(STRICT_TRANSPORT);
        let headers = answer.headers_mut();
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    Ok(answer)
}

/// Whether we speak TLS under a name that a browser may keep that of: `localhost` is everybody's.
fn is_encrypted(request: &ServiceRequest) -> bool {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.split(':').next().unwrap_or_default();
    request.app_config().secure() && !name.eq_ignore_ascii_case("localhost")
}

fn add_careful(headers: &mut HeaderMap, policy: &'static str) {
    let careful = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in careful {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

/// Middleware: refuses state-changing calls and sockets from a page of another origin, unless it is
/// listed ([`CorsSettings`]).
///
/// Programs other than browsers send no `Origin` and pass.
///
/// # Errors
/// 403 for a foreign origin; else what the handler says.
pub async fn same_origin(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let is_read = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    let is_socket = request.headers().contains_key(header::UPGRADE);
    // Where everybody has to show a token, no page can act in somebody's name without it.
    let gate = request.app_data::<web::Data<Gate>>();
    let may_be_named = gate.is_some_and(|gate| gate.is_required());
    let cors = request.app_data::<web::Data<CorsSettings>>();
    let is_listed = cors.is_some_and(|cors| cors.listed(request.headers()).is_some());
    let is_known = is_listed || origin_is_ours(request.request(), may_be_named);
    if (!is_read || is_socket) && !is_known {
        let detail = "state-changing calls and sockets from a page of another origin are refused";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail)
            .at("Origin")
            .into());
    }
    next.call(request).await
}

/// Whether the page that asks, if one does, was served by us.
///
/// A host name other than `localhost` is refused even where it equals `Host`, unless it `may_be_named`:
/// a foreign page can make its own name resolve to this machine.
pub(crate) fn origin_is_ours(request: &HttpRequest, may_be_named: bool) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else {
        return true;
    };
    let Some(host) = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return false;
    };
    let Some(origin) = origin
        .to_str()
        .ok()
        .and_then(|origin| url::Url::parse(origin).ok())
    else {
        return false;
    };
    let authority = match (origin.host_str(), origin.port()) {
        (Some(name), Some(port)) => format!("{name}:{port}"),
        (Some(name), None) => name.to_owned(),
        (None, _) => return false,
    };
    let is_fixed = match origin.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.parse::<IpAddr>().is_ok(),
        Some(_) => true,
        None => false,
    };
    (is_fixed || may_be_named) && authority.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn ours(origin: &str, host: &str) -> bool {
        let request = TestRequest::get()
            .insert_header((header::ORIGIN, origin))
            .insert_header((header::HOST, host));
        origin_is_ours(&request.to_http_request(), false)
    }

    #[test]
    fn only_pages_from_our_own_address_are_ours() {
        assert!(ours("http://127.0.0.1:8000", "127.0.0.1:8000"));
        assert!(ours("http://localhost:8000", "localhost:8000"));
        assert!(!ours("http://localhost:8001", "localhost:8000"));
        assert!(!ours("http://evil.example", "127.0.0.1:8000"));
        assert!(!ours("null", "127.0.0.1:8000"));
    }

    #[test]
    fn a_name_that_points_to_us_is_not_ours() {
        assert!(!ours("http://evil.example:8000", "evil.example:8000"));
    }

    #[test]
    fn a_problem_names_status_detail_and_field() {
        let problem = Problem::bad_request("`every` is 0, it must be 1 or more").at("every");
        assert_eq!(
            serde_json::to_value(problem).unwrap(),
            serde_json::json!({
                "title": "Bad Request",
                "status": 400,
                "detail": "`every` is 0, it must be 1 or more",
                "field": "every",
            })
        );
    }
}
