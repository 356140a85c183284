//! The pages that people look at: `/`, `/dashboard/{name}`, `/login`, `/register`,
//! `/status`.
//!
//! One document serves all of them and asks the hub's interface for the rest (`web/`). Its files
//! are embedded, already compressed; their names change with their content, so a browser asks for
//! each once. Nothing is fetched from elsewhere, and the policy sent along sees to it.

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::header::{self, AcceptEncoding, ContentEncoding, Encoding, Header},
    web,
};
use rovi_common::http::Problem;

const PAGES: [&str; 5] = ["/", "/dashboard/{name}", "/login", "/register", "/status"];
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'";
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const NOT_BUILT: &str = "This hub was built without its pages. `make build` builds both. \
     Batteries: /db/stats. How to ask for more: /docs/. State: /ready.\n";

/// A file of the pages in its three forms.
struct File {
    name: &'static str,
    etag: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
    brotli: &'static [u8],
}

static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// Adds the pages and their files.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    for path in PAGES {
        let page = web::resource(path).route(web::get().to(page));
        config.service(page.route(web::head().to(self::page)));
    }
    let file = web::resource("/assets/{file}").route(web::get().to(asset));
    config.service(file.route(web::head().to(asset)));
}

async fn page(request: HttpRequest) -> HttpResponse {
    match find("index.html") {
        Some(file) => send(&request, file, "no-cache"),
        None => HttpResponse::Ok()
            .content_type("text/plain; charset=utf-8")
            .body(NOT_BUILT),
    }
}

async fn asset(request: HttpRequest, name: web::Path<String>) -> Result<HttpResponse, Problem> {
    let file = find(&format!("assets/{name}"));
    let file = file.ok_or_else(|| {
        Problem::not_found(format!(
            "there is no file {name}; reload the page, it was replaced"
        ))
    })?;
    // Only names with a hash change with their content.
    let caching = if name.contains('-') {
        FOR_EVER
    } else {
        "no-cache"
    };
    Ok(send(&request, file, caching))
}

fn find(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

fn send(request: &HttpRequest, file: &'static File, caching: &str) -> HttpResponse {
    let known = request.headers().get(header::IF_NONE_MATCH);
    let known = known
        .and_then(|known| known.to_str().ok())
        .unwrap_or_default();
    let is_known = known
        .split(',')
        .any(|one| one.trim().trim_start_matches("W/") == file.etag);
    if is_known {
        return with_headers(HttpResponse::NotModified(), file, caching).finish();
    }
    let mut response = with_headers(HttpResponse::Ok(), file, caching);
    response.content_type(content_type(file.name));
    match encoding(request) {
        ContentEncoding::Brotli => response
            .insert_header(ContentEncoding::Brotli)
            .body(file.brotli),
        ContentEncoding::Gzip => response
            .insert_header(ContentEncoding::Gzip)
            .body(file.gzip),
        _ => response.body(file.plain),
    }
}

fn with_headers(
    mut response: HttpResponseBuilder,
    file: &File,
    caching: &str,
) -> HttpResponseBuilder {
    response
        .insert_header((header::ETAG, file.etag))
        .insert_header((header::CACHE_CONTROL, caching))
        .insert_header((header::VARY, "Accept-Encoding"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "same-origin"));
    response
}

/// Returns the form that the browser likes best.
fn encoding(request: &HttpRequest) -> ContentEncoding {
    let forms = [Encoding::brotli(), Encoding::gzip(), Encoding::identity()];
    let accepted = AcceptEncoding::parse(request).ok();
    let chosen = accepted.and_then(|accepted| accepted.negotiate(forms.iter()));
    match chosen {
        Some(Encoding::Known(encoding)) => encoding,
        _ => ContentEncoding::Identity,
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn chosen(accepted: &str) -> ContentEncoding {
        let request = TestRequest::get().insert_header((header::ACCEPT_ENCODING, accepted));
        encoding(&request.to_http_request())
    }

    #[test]
    fn the_smallest_form_that_the_browser_takes_is_sent() {
        assert_eq!(chosen("gzip, deflate, br, zstd"), ContentEncoding::Brotli);
        assert_eq!(chosen("gzip"), ContentEncoding::Gzip);
        assert_eq!(chosen("br;q=0, gzip;q=0"), ContentEncoding::Identity);
        assert_eq!(
            encoding(&TestRequest::get().to_http_request()),
            ContentEncoding::Identity
        );
    }

    #[test]
    fn the_policy_lets_nothing_come_from_elsewhere() {
        assert!(POLICY.contains("default-src 'none'"));
        assert!(
            !POLICY.contains("http") && !POLICY.contains("unsafe"),
            "{POLICY}"
        );
    }
}
