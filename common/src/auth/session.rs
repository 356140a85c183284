//! Sessions of browsers: a cookie that holds the credential itself.
//!
//! So nothing is kept here, both services check it as they check what stands in `Authorization`, and
//! it ends when the token or JWT does. Scripts of pages cannot read it (`HttpOnly`), browsers send it
//! from our own site alone (`SameSite=Strict`), and it counts only for what our own pages ask.

use actix_web::{
    HttpRequest, HttpResponse,
    dev::ServiceRequest,
    http::{
        StatusCode,
        header::{self, HeaderMap},
    },
    web,
};

use super::{
    access::Access,
    guard,
    ticket::{self, PREFIX},
};
use crate::{clock, http::Problem};

/// The cookie's name.
pub const COOKIE: &str = "rovi_session";
/// How long a browser keeps it, where its credential does not end before.
pub const SESSION_S: i64 = 12 * 3600;
/// The longest credential: browsers drop cookies of more than 4096 bytes, attributes included.
const MOST_BYTES: usize = 3900;
/// What browsers say of the page that asks.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Adds `/auth/session`.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    let session = web::resource("/auth/session").route(web::post().to(start));
    config.service(session.route(web::delete().to(end)));
}

/// Makes the credential of `Authorization`, which the guard has found right, a cookie.
async fn start(access: Access, request: HttpRequest) -> Result<HttpResponse, Problem> {
    if access.is_everyone() {
        let detail = "nobody has to sign in here: auth.required is not set";
        return Err(Problem::conflict(detail));
    }
    let shown = guard::bearer(request.headers()).unwrap_or_default();
    check_fits(&shown)?;
    let left = access.expires().map(|expires| {
        let us = expires.saturating_sub(clock::now_us());
        us / 1_000_000
    });
    let seconds = left.map_or(SESSION_S, |left| left.clamp(0, SESSION_S));
    access.note("signed in");
    Ok(answer(&request, &shown, seconds))
}

/// Has the browser forget the cookie; what it held goes on to count elsewhere.
async fn end(request: HttpRequest) -> HttpResponse {
    answer(&request, "", 0)
}

fn answer(request: &HttpRequest, value: &str, seconds: i64) -> HttpResponse {
    let secure = if is_encrypted(request) {
        "; Secure"
    } else {
        ""
    };
    let cookie =
        format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HttpResponse::NoContent()
        .insert_header((header::SET_COOKIE, cookie))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}

/// # Errors
/// 400 where a browser would not keep the credential, or it would not last.
fn check_fits(shown: &str) -> Result<(), Problem> {
    let problem = |detail: String| Err(Problem::bad_request(detail).at("Authorization"));
    if shown.starts_with(PREFIX) {
        let lasts = ticket::TICKET_S;
        return problem(format!(
            "a ticket counts once, within {lasts} s: sign in with a token"
        ));
    }
    if shown.len() > MOST_BYTES {
        return problem(format!(
            "this token has {} bytes, and browsers keep no more than {MOST_BYTES} of it: sign in \
             with a token of `rovicli token create`",
            shown.len()
        ));
    }
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
    if !shown.bytes().all(fits) {
        return problem("this token has characters that a cookie cannot hold".to_owned());
    }
    Ok(())
}

/// Whether the browser's way here is encrypted: to us, or to a proxy before us that says so.
fn is_encrypted(request: &HttpRequest) -> bool {
    let origin = text(request.headers(), header::ORIGIN.as_str());
    request.connection_info().scheme() == "https"
        || origin.is_some_and(|origin| origin.starts_with("https://"))
}

/// Takes the credential out of the cookies; no handler sees any of them.
pub(super) fn take(request: &mut ServiceRequest) -> Option<String> {
    let headers = request.headers_mut();
    let cookies = headers.get_all(header::COOKIE);
    let found = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|one| one.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then(|| value.to_owned()));
    headers.remove(header::COOKIE);
    found.filter(|value| !value.is_empty())
}

/// Asks that one of our own pages sent a request, as far as its browser tells.
///
/// # Errors
/// 403: a page of another site or port asks, or nothing tells who wants to change something.
pub(super) fn check_own_page(request: &ServiceRequest) -> Result<(), Problem> {
    let headers = request.headers();
    let is_read = request.method().is_safe() && !headers.contains_key(header::UPGRADE);
    let is_own = match text(headers, SEC_FETCH_SITE) {
        Some("same-origin") => true,
        // Somebody typed the address.
        Some("none") => is_read,
        Some(_) => false,
        // `same_origin` has looked at what the header says.
        None => is_read || headers.contains_key(header::ORIGIN),
    };
    if is_own {
        return Ok(());
    }
    let detail = "a session of a browser counts for this service's own pages alone, as `Origin` or \
                  `Sec-Fetch-Site` tell; programs show `Authorization: Bearer <token>`";
    Err(Problem::new(StatusCode::FORBIDDEN, detail).at("Cookie"))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use actix_web::{http::Method, test::TestRequest};

    use super::*;

    fn asks(method: Method, headers: &[(&'static str, &'static str)]) -> bool {
        let request = TestRequest::default().method(method);
        let request = headers
            .iter()
            .fold(request, |request, header| request.insert_header(*header));
        check_own_page(&request.to_srv_request()).is_ok()
    }

    #[test]
    fn only_own_pages_change_something_by_a_cookie() {
        assert!(asks(Method::DELETE, &[("sec-fetch-site", "same-origin")]));
        assert!(asks(Method::DELETE, &[("origin", "http://localhost:8000")]));
        assert!(!asks(Method::DELETE, &[]));
        assert!(!asks(Method::DELETE, &[("sec-fetch-site", "none")]));
        for site in ["same-site", "cross-site"] {
            let headers = [
                ("sec-fetch-site", site),
                ("origin", "http://localhost:8000"),
            ];
            assert!(!asks(Method::DELETE, &headers), "{site}");
            assert!(!asks(Method::GET, &headers), "{site}");
        }
        assert!(asks(Method::GET, &[]));
        assert!(!asks(Method::GET, &[("upgrade", "websocket")]));
    }

    #[test]
    fn the_cookie_is_found_among_others_and_none_goes_further() {
        let mut request = TestRequest::default()
            .insert_header(("cookie", "theme=a=b; rovi_session=rovi_1_2"))
            .to_srv_request();
        assert_eq!(take(&mut request).as_deref(), Some("rovi_1_2"));
        assert!(!request.headers().contains_key("cookie"));
        assert_eq!(take(&mut request), None);
    }

    #[test]
    fn what_a_cookie_cannot_hold_is_told() {
        assert!(check_fits("rovi_0123_abc").is_ok());
        for shown in [
            "a;b",
            "a b",
            "ü",
            "a\"",
            &"x".repeat(4000),
            "rovi-ticket.1.2",
        ] {
            assert!(check_fits(shown).is_err(), "{shown}");
        }
    }

    #[test]
    fn a_cookie_is_secure_wherever_the_way_is_encrypted() {
        let cookie = |headers: &[(&'static str, &'static str)]| {
            let request = headers
                .iter()
                .fold(TestRequest::default(), |request, header| {
                    request.insert_header(*header)
                });
            let answer = answer(&request.to_http_request(), "x", 60);
            let cookie = answer.headers().get("set-cookie");
            cookie.unwrap().to_str().unwrap().to_owned()
        };
        let plain = "rovi_session=x; Path=/; Max-Age=60; HttpOnly; SameSite=Strict";
        assert_eq!(cookie(&[]), plain);
        for header in [
            ("x-forwarded-proto", "https"),
            ("forwarded", "proto=https"),
            ("origin", "https://hub.example"),
        ] {
            assert_eq!(cookie(&[header]), format!("{plain}; Secure"));
        }
    }
}
