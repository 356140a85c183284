//! Listening, with TLS where it is on.

use std::{fmt, io, net::TcpListener, sync::Arc, time::Duration};

use actix_http::Request;
use actix_service::IntoServiceFactory;
use actix_web::{
    Error, HttpServer,
    body::MessageBody,
    dev::{AppConfig, Response, Service, ServiceFactory},
};
use rustls::ServerConfig;

use super::{Certificate, TlsError, TlsSettings, provider};
use crate::{lifecycle::Lifecycle, telemetry::Metrics};

/// How long a handshake may take.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(3);
/// Handshakes that one thread has under way. Beyond that connections wait to be taken.
pub const HANDSHAKES: usize = 4096;
const EXPIRES: &str = "rovi_tls_certificate_expires_seconds";

/// What a service needs to speak TLS with its clients.
#[derive(Debug)]
pub struct Tls {
    certificate: Arc<Certificate>,
    config: ServerConfig,
}

impl Tls {
    /// Reads the certificate; `None` where TLS is off.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(settings: &TlsSettings) -> Result<Option<Self>, TlsError> {
        let (Some(cert_file), Some(key_file)) = (&settings.cert_file, &settings.key_file) else {
            return Ok(None);
        };
        let certificate = Arc::new(Certificate::open(cert_file.clone(), key_file.clone())?);
        let shown = Arc::clone(&certificate);
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| super::pem::unusable(cert_file, error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(shown);
        Ok(Some(Self {
            certificate,
            config,
        }))
    }

    /// Keeps the certificate as its files are, and tells in the metrics for how long it counts.
    pub fn start(&self, lifecycle: &Lifecycle, metrics: &Metrics) {
        let help = "Seconds until the certificate that clients are shown expires.";
        let expires = metrics.gauge(EXPIRES, help);
        expires.set(self.certificate.expires_in_s());
        let certificate = Arc::clone(&self.certificate);
        let kept = certificate.keep_fresh(expires, lifecycle.stop_token());
        lifecycle.supervise("certificate", kept);
    }
}

/// Has a server listen, with TLS if there is one: then with nothing else on that port.
///
/// # Errors
/// The system gives no thread or socket.
pub fn listen<F, I, S, B>(
    server: HttpServer<F, I, S, B>,
    listener: TcpListener,
    tls: Option<&Tls>,
) -> io::Result<HttpServer<F, I, S, B>>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let Some(tls) = tls else {
        return server.listen(listener);
    };
    server
        .tls_handshake_timeout(HANDSHAKE_WITHIN)
        .max_connection_rate(HANDSHAKES)
        .listen_rustls_0_23(listener, tls.config.clone())
}
