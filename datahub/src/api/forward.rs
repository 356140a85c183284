//! `/online/*`, `/prognosis/*` and `/events` belong to the twin: the hub passes them on, so that clients
//! need one URL.
//!
//! Bodies stream both ways, untouched and unread; headers of the connection itself stay behind.

use std::{io, pin::pin, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    future::{Either, select},
    stream,
};
use reqwest::Client;
use rovi_common::{
    http::Problem,
    tls::{self, Trust},
};
use tokio::sync::mpsc;
use tokio_tungstenite::Connector;
use url::Url;

use super::forward_socket::forward_socket;

/// How long the twin has to take a connection; how long it thinks is its own affair.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Pieces of a request's body between the two connections.
const PIECES: usize = 4;
/// Paths that are the twin's.
const PREFIXES: [&str; 3] = ["/online", "/prognosis", "/events"];
/// The twin's socket, which goes another way.
const SOCKET: &str = "/ws";
/// Headers of a connection, not of what goes over it (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The way to the twin.
#[derive(Debug, Clone)]
pub(crate) struct TwinProxy {
    client: Client,
    url: Url,
    trust: Trust,
}

impl TwinProxy {
    /// Makes the way to the twin at `url`; nothing is sent.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub(crate) fn new(url: Url, trust: &Trust) -> Result<Self, reqwest::Error> {
        let client = trust
            .http()
            .connect_timeout(CONNECT_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let trust = trust.clone();
        Ok(Self { client, url, trust })
    }

    /// Returns how a socket to the twin is encrypted, where its URL asks for it.
    pub(super) fn connector(&self) -> Connector {
        Connector::Rustls(self.trust.config())
    }

    /// Adds the routes; a [`TwinProxy`] must be among the application's data.
    pub(crate) fn routes(config: &mut web::ServiceConfig) {
        config.route(SOCKET, web::get().to(forward_socket));
        for prefix in PREFIXES {
            config.service(web::scope(prefix).default_service(web::route().to(forward)));
        }
    }

    /// Returns the twin's URL for a path and query of ours; `None` for a path that leaves its
    /// prefix by `..`.
    pub(super) fn target(&self, request: &HttpRequest) -> Option<Url> {
        let mut target = self.url.clone();
        target.set_path(request.path());
        let query = request.query_string();
        target.set_query((!query.is_empty()).then_some(query));
        let stays = PREFIXES.iter().chain([&SOCKET]).any(|prefix| {
            let rest = target.path().strip_prefix(prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        stays.then_some(target)
    }
}

async fn forward(
    request: HttpRequest,
    body: web::Payload,
    twin: web::Data<TwinProxy>,
) -> Result<HttpResponse, Problem> {
    let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes())
        .map_err(Problem::bad_request)?;
    let target = twin.target(&request);
    let target = target.ok_or_else(|| Problem::not_found("the path leaves what is forwarded"))?;
    let mut outgoing = twin.client.request(method, target);
    for (name, value) in passing(request.headers()) {
        outgoing = outgoing.header(name, value);
    }
    // Behind those that the request came through, for twins that trust this hub to say so.
    if let Some(peer) = request.peer_addr() {
        outgoing = outgoing.header("x-forwarded-for", peer.ip().to_string());
    }
    let answer = if has_body(&request) {
        let (pieces, mut inbox) = mpsc::channel(PIECES);
        let stream = stream::poll_fn(move |context| inbox.poll_recv(context));
        let answer = pin!(outgoing.body(reqwest::Body::wrap_stream(stream)).send());
        // The twin may answer before it has read everything.
        match select(answer, pin!(pump(body, pieces))).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), answer)) => answer.await,
        }
    } else {
        outgoing.send().await
    };
    answer
        .map(respond)
        .map_err(|error| unreachable(&twin, &error))
}

/// Hands the body over piece by piece; a body that breaks off breaks off there, too.
async fn pump(mut body: web::Payload, pieces: mpsc::Sender<io::Result<Bytes>>) {
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(io::Error::other);
        let is_broken = piece.is_err();
        if pieces.send(piece).await.is_err() || is_broken {
            return;
        }
    }
}

fn respond(answer: reqwest::Response) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status().as_u16());
    let mut response = HttpResponse::build(status.unwrap_or(StatusCode::BAD_GATEWAY));
    let connection = named_by_connection(
        answer
            .headers()
            .get_all("connection")
            .iter()
            .filter_map(|value| value.to_str().ok()),
    );
    for (name, value) in answer.headers() {
        if !stays_behind(name.as_str(), &connection) && name != "content-length" {
            response.append_header((name.as_str(), value.as_bytes()));
        }
    }
    let length = answer.content_length();
    let body = answer.bytes_stream().map_err(io::Error::other);
    if let Some(length) = length {
        response.no_chunking(length);
    }
    response.streaming(body)
}

fn unreachable(twin: &TwinProxy, error: &reqwest::Error) -> Problem {
    // Not the whole URL: it may have a password.
    let place = twin.url.origin().ascii_serialization();
    let reason = tls::advice(error).unwrap_or_else(|| error.to_string());
    tracing::info!("the twin at {place} did not answer: {reason}");
    Problem::unavailable("the Digital Twin, which answers this, is away; try again soon")
}

fn has_body(request: &HttpRequest) -> bool {
    let headers = request.headers();
    headers.contains_key(header::TRANSFER_ENCODING)
        || (headers.get(header::CONTENT_LENGTH)).is_some_and(|length| length != "0")
}

/// Returns the headers that go on to the twin.
///
/// `Origin` was checked here, where the page came from; `Host` is the twin's own.
fn passing(headers: &header::HeaderMap) -> Vec<(&str, &[u8])> {
    let connection = named_by_connection(
        headers
            .get_all(header::CONNECTION)
            .filter_map(|value| value.to_str().ok()),
    );
    let passing = headers.iter().filter(|(name, _)| {
        let is_ours = matches!(name.as_str(), "host" | "origin");
        !is_ours && !stays_behind(name.as_str(), &connection)
    });
    passing
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

fn stays_behind(name: &str, named_by_connection: &[String]) -> bool {
    HOP_BY_HOP.contains(&name) || named_by_connection.iter().any(|named| named == name)
}

/// Lists the headers that `Connection` declares to be the connection's.
fn named_by_connection<'a>(values: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names = values.flat_map(|value| value.split(','));
    names.map(|name| name.trim().to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use actix_web::{App, HttpServer, test::TestRequest};

    use super::*;

    fn proxy(twin: &str) -> TwinProxy {
        TwinProxy::new(twin.parse().unwrap(), &Trust::default()).unwrap()
    }

    #[test]
    fn path_and_query_go_on_as_they_came() {
        let twin = proxy("http://127.0.0.1:8001");
        let request = TestRequest::with_uri("/online/b%207?a=1&b=%20").to_http_request();
        assert_eq!(
            twin.target(&request).unwrap().as_str(),
            "http://127.0.0.1:8001/online/b%207?a=1&b=%20"
        );
    }

    #[test]
    fn a_path_cannot_leave_what_is_forwarded() {
        let twin = proxy("http://127.0.0.1:8001");
        for path in ["/online/../metrics", "/online/%2e%2e/metrics"] {
            let request = TestRequest::with_uri(path).to_http_request();
            assert_eq!(twin.target(&request), None, "{path}");
        }
    }

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let request = TestRequest::get()
            .insert_header(("connection", "keep-alive, X-Secret"))
            .insert_header(("x-secret", "1"))
            .insert_header(("transfer-encoding", "chunked"))
            .insert_header(("host", "hub"))
            .insert_header(("content-type", "multipart/form-data; boundary=x"))
            .to_http_request();
        let passed = passing(request.headers());
        assert_eq!(
            passed,
            [(
                "content-type",
                b"multipart/form-data; boundary=x".as_slice()
            )]
        );
    }

    /// Starts a server on a free port of loopback and returns its URL.
    fn serve(configure: fn(&mut web::ServiceConfig), data: Option<TwinProxy>) -> String {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let data = data.map(web::Data::new);
        let server = HttpServer::new(move || {
            let app = App::new().configure(configure);
            match data.clone() {
                Some(data) => app.app_data(data),
                None => app,
            }
        });
        let server = server
            .workers(1)
            .disable_signals()
            .listen(listener)
            .unwrap()
            .run();
        actix_web::rt::spawn(server);
        url
    }

    /// A twin that tells what it was asked.
    fn twin(config: &mut web::ServiceConfig) {
        async fn echo(request: HttpRequest, body: Bytes) -> HttpResponse {
            let header = |name: &str| {
                let value = request
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok());
                value.unwrap_or("-").to_owned()
            };
            HttpResponse::Conflict()
                .insert_header(("x-twin", "yes"))
                .json(serde_json::json!({
                    "method": request.method().as_str(),
                    "uri": request.uri().to_string(),
                    "type": header("content-type"),
                    "origin": header("origin"),
                    "bytes": body.len(),
                    "sum": body.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
                }))
        }
        config
            .app_data(web::PayloadConfig::new(16 << 20))
            .default_service(web::route().to(echo));
    }

    fn hub_before(twin: &str) -> String {
        serve(TwinProxy::routes, Some(proxy(twin)))
    }

    #[actix_web::test]
    async fn requests_and_answers_pass_through_untouched() {
        let hub = hub_before(&serve(twin, None));
        let body: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
        let client = Client::new();
        let part = reqwest::multipart::Part::bytes(body.clone());
        let form = reqwest::multipart::Form::new().part("files", part);
        let kind = format!("multipart/form-data; boundary={}", form.boundary());
        let answer = client
            .post(format!("{hub}/online/register?name=b%207"))
            .header("origin", &hub)
            .multipart(form)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), 409);
        assert_eq!(answer.headers()["x-twin"], "yes");
        let told: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(told["uri"], "/online/register?name=b%207");
        assert_eq!(
            (&told["type"], &told["origin"]),
            (&kind.into(), &"-".into())
        );
        assert!(told["bytes"].as_u64().unwrap() > 5_000_000);

        let answer = client
            .post(format!("{hub}/prognosis/register"))
            .body(body)
            .send()
            .await
            .unwrap();
        let told: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(told["sum"], sum);
        let answer = client
            .delete(format!("{hub}/online/b7"))
            .send()
            .await
            .unwrap();
        let told: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(
            (&told["method"], &told["bytes"]),
            (&"DELETE".into(), &0.into())
        );
    }

    #[actix_web::test]
    async fn a_twin_that_is_away_is_told_with_a_time_to_try_again() {
        let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let hub = hub_before(&format!("http://{}", nobody.local_addr().unwrap()));
        drop(nobody);
        let client = Client::new();
        let form = [("name", "b7")];
        for request in [
            client.get(format!("{hub}/online/status")),
            client.post(format!("{hub}/online/register")).form(&form),
        ] {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 503);
            assert!(answer.headers().contains_key("retry-after"));
            let problem: serde_json::Value = answer.json().await.unwrap();
            assert!(problem["detail"].as_str().unwrap().contains("Digital Twin"));
        }
    }
}
