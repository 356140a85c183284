//! Middleware: asks the table of [`routes`](super::routes) before any handler runs.

use std::{net::IpAddr, sync::Arc};

use actix_web::{
    HttpMessage,
    body::{BoxBody, MessageBody},
    dev::{Path, ResourceDef, ServiceRequest, ServiceResponse},
    http::{
        StatusCode, Uri,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};

use super::{
    access::Access,
    audit::Entry,
    gate::Gate,
    lasting::{self, Needed},
    routes::{FORWARDED, Need, Service},
    session, source,
};
use crate::{clock, http::Problem, name::BatteryName};

/// What a browser's socket puts before its token among the subprotocols.
const SUBPROTOCOL: &str = "rovi.bearer.";
/// The query parameter with a ticket.
const TICKET: &str = "ticket";
/// For answers to callers who said who they are.
const PRIVATE: &str = "private, no-cache";
/// The status in the audit where the caller went away before the answer.
const UNANSWERED: i32 = 0;
/// The most characters of a text in the audit.
const MOST_CHARS: usize = 1000;

/// Lets a request through to its handler if the caller may make it.
///
/// Whatever way a credential came, behind this it stands in `Authorization`, and nowhere else.
///
/// # Errors
/// 401 where the caller is not known, 403 or 404 where the caller may not; else what the handler says.
pub async fn guard(
    gate: web::Data<Gate>,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    take_from_subprotocols(&mut request);
    take_from_query(&mut request)?;
    let cookie = session::take(&mut request);
    let wanted = wanted(gate.service(), &request);
    if gate.is_required() && wanted.need == Some(Need::Nothing) {
        return next
            .call(request)
            .await
            .map(ServiceResponse::map_into_boxed_body);
    }
    if let Some(cookie) = cookie
        && gate.is_required()
        && !request.headers().contains_key(header::AUTHORIZATION)
    {
        session::check_own_page(&request)?;
        authorise(&mut request, &cookie);
    }
    let shown = bearer(request.headers());
    let source = source::of(&request, &gate.settings().trusted_proxies);
    let access = gate.check(shown.as_deref(), source).await;
    let access = access.map_err(Problem::from)?;
    if access.is_everyone() {
        request.extensions_mut().insert(access);
        return next
            .call(request)
            .await
            .map(ServiceResponse::map_into_boxed_body);
    }
    let pending = wanted.changes().then(|| Pending {
        entry: Some(wanted.entry((&request, source), &access)),
        gate: gate.clone(),
        access: access.clone(),
    });
    let answer = match wanted.ask(&access) {
        Ok(()) => {
            let needed = wanted.needed();
            lasting::incoming(&mut request, &access, &needed);
            request.extensions_mut().insert(access.clone());
            let answer = next.call(request).await;
            answer.map(|answer| keep_private(lasting::outgoing(answer, &access, &needed)))
        }
        Err(problem) => Err(problem.into()),
    };
    if let Some(pending) = pending {
        let status = match &answer {
            Ok(answer) => answer.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        pending.keep(i32::from(status.as_u16())).await;
    }
    answer
}

/// Has nobody keep an answer for others: a cookie leaves no mark on it by which caches would know.
fn keep_private(mut answer: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let headers = answer.headers_mut();
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(PRIVATE));
    }
    answer
}

/// Has an entry kept once, also where the caller goes away before the answer.
struct Pending {
    entry: Option<Entry>,
    gate: web::Data<Gate>,
    access: Access,
}

impl Pending {
    async fn keep(mut self, status: i32) {
        if let Some(entry) = self.take(status) {
            self.gate.audit().record(entry).await;
        }
    }

    fn take(&mut self, status: i32) -> Option<Entry> {
        let mut entry = self.entry.take()?;
        entry.at = clock::now_us();
        entry.status = status;
        entry.subject = plain(&self.access.notes());
        Some(entry)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(entry) = self.take(UNANSWERED) {
            let gate = self.gate.clone();
            actix_web::rt::spawn(async move { gate.audit().record(entry).await });
        }
    }
}

/// What a request asks for.
#[derive(Debug)]
struct Wanted {
    service: Service,
    method: String,
    /// The route as the router knows it, where it knows one.
    pattern: Option<String>,
    need: Option<Need>,
    battery: Option<String>,
}

fn wanted(service: Service, request: &ServiceRequest) -> Wanted {
    // The router, too, goes by this form of the path, in which needless escapes are undone.
    let path = request.match_info().unprocessed();
    let pattern = request.resource_map().match_pattern(path);
    let method = request.method().as_str().to_owned();
    let need = match &pattern {
        Some(pattern) => service.need(&method, pattern),
        None if service == Service::Hub && is_forwarded(path) => Some(Need::Forwarded),
        None => None,
    };
    let battery = pattern.as_deref().and_then(|pattern| {
        let mut captured = Path::new(path.to_owned());
        ResourceDef::new(pattern).capture_match_info(&mut captured);
        captured.get("battery").map(str::to_owned)
    });
    Wanted {
        service,
        method,
        pattern,
        need,
        battery,
    }
}

/// Cuts a text to what fits a line of the audit.
fn plain(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control());
    plain.take(MOST_CHARS).collect()
}

fn is_forwarded(path: &str) -> bool {
    FORWARDED.iter().any(|prefix| {
        let rest = path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

impl Wanted {
    /// Asks whether a known caller may have it.
    fn ask(&self, access: &Access) -> Result<(), Problem> {
        match self.need {
            // What a handler asks by itself is asked there.
            Some(
                Need::Nothing | Need::Known | Need::Listed(_) | Need::Named(_) | Need::Forwarded,
            ) => Ok(()),
            Some(Need::All(role)) => access.need_all(role),
            Some(Need::Battery(role)) => {
                let name = self.battery.as_deref().unwrap_or_default();
                let battery = name.parse::<BatteryName>();
                let battery = battery.map_err(|error| Problem::bad_request(error).at("battery"))?;
                access.need(role, &battery)
            }
            None => self.undecided(),
        }
    }

    /// What a body needs until its end.
    fn needed(&self) -> Needed {
        let Some(Need::Battery(role)) = self.need else {
            return None;
        };
        let battery = self.battery.as_deref()?.parse().ok()?;
        Some((role, battery))
    }

    /// Whether it is kept who asked for it: whatever may change something, but for rows, of which
    /// the tables tell, and what the twin keeps itself.
    fn changes(&self) -> bool {
        let is_upload = self.pattern.as_deref() == Some("/db/upload/{battery}");
        let is_read = matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        !is_read && !is_upload && self.need != Some(Need::Forwarded)
    }

    fn entry(
        &self,
        (request, source): (&ServiceRequest, Option<IpAddr>),
        access: &Access,
    ) -> Entry {
        let service = match self.service {
            Service::Hub => "datahub",
            Service::Twin => "twin",
        };
        let source = source.map(|address| address.to_string());
        let pattern = self.pattern.as_deref().unwrap_or("(no route)");
        Entry {
            at: 0,
            service: service.to_owned(),
            who: plain(&access.name()),
            source: source.unwrap_or_default(),
            action: format!("{} {pattern}", self.method),
            path: plain(request.path()),
            subject: String::new(),
            status: 0,
        }
    }

    /// Answers where the table has no line: never by the handler, if there might be one.
    fn undecided(&self) -> Result<(), Problem> {
        let Some(pattern) = &self.pattern else {
            // The router knows no such path either, and says so.
            return Ok(());
        };
        let method = &self.method;
        let known = self.service.methods(pattern);
        if known.is_empty() {
            tracing::error!("{method} {pattern} has no line in the table of routes: it is refused");
            let detail = "nobody has said who may call this; so nobody may";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        let detail = format!("there is no {method} {pattern}, only {}", known.join(", "));
        Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail))
    }
}

/// Returns the credential of `Authorization`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    // Something that is no bearer's is as good as a wrong token.
    Some(if scheme.eq_ignore_ascii_case("bearer") {
        token.trim().to_owned()
    } else {
        String::new()
    })
}

fn authorise(request: &mut ServiceRequest, token: &str) {
    if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}")) {
        value.set_sensitive(true);
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, value);
    }
}

/// Takes a token out of the subprotocols, of which it is none.
fn take_from_subprotocols(request: &mut ServiceRequest) {
    const PROTOCOLS: HeaderName = header::SEC_WEBSOCKET_PROTOCOL;
    let offered: Vec<String> = request
        .headers()
        .get_all(PROTOCOLS)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().to_owned())
        .collect();
    let Some(token) = offered.iter().find_map(|one| one.strip_prefix(SUBPROTOCOL)) else {
        return;
    };
    let others = offered.iter().filter(|one| !one.starts_with(SUBPROTOCOL));
    let others: Vec<&str> = others.map(String::as_str).collect();
    let others = HeaderValue::from_str(&others.join(", "));
    authorise(request, token);
    let headers = request.headers_mut();
    headers.remove(PROTOCOLS);
    if let Ok(others) = others
        && !others.is_empty()
    {
        headers.insert(PROTOCOLS, others);
    }
}

/// Takes a ticket out of the query, which is logged more often than headers are.
fn take_from_query(request: &mut ServiceRequest) -> Result<(), Problem> {
    let query = request.query_string();
    let is_ticket = |pair: &&str| pair.split('=').next() == Some(TICKET);
    let Some(ticket) = query.split('&').find(is_ticket) else {
        return Ok(());
    };
    let ticket = ticket
        .split_once('=')
        .map_or("", |(_, ticket)| ticket)
        .to_owned();
    let others: Vec<&str> = query.split('&').filter(|pair| !is_ticket(pair)).collect();
    let path = request.uri().path();
    let rest = if others.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", others.join("&"))
    };
    let rest: Uri = rest.parse().map_err(Problem::bad_request)?;
    authorise(request, &ticket);
    request.match_info_mut().get_mut().update(&rest);
    request.head_mut().uri = rest;
    Ok(())
}

/// Adds the guard's data; `wrap` the guard itself with [`actix_web::middleware::from_fn`].
pub fn data(gate: &Arc<Gate>) -> web::Data<Gate> {
    web::Data::from(Arc::clone(gate))
}
