//! Whom a client believes.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{TlsError, advice, pem, provider};

/// A connection that is tried again and again tells its trouble this often.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Servers of which it is known when that was told last.
const TOLD: usize = 64;

/// The authorities whose certificates count; cheap to clone.
#[derive(Debug, Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts the authorities in a file and no others, or those of the system where none is named.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn of(ca_file: Option<&Path>) -> Result<Self, TlsError> {
        match ca_file {
            Some(file) => Self::in_file(file),
            None => Ok(Self::default()),
        }
    }

    fn in_file(file: &Path) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in pem::certificates(file, &pem::read(file)?)? {
            let added = roots.add(certificate);
            added.map_err(|error| pem::unusable(file, error.to_string()))?;
        }
        Ok(Self::by(roots))
    }

    fn by(roots: RootCertStore) -> Self {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS 1.2 and 1.3 need");
        let config = match Verifier::new(roots) {
            Some(verifier) => config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier)),
            // A system without authorities: nobody is believed, and plain HTTP works.
            None => config.with_root_certificates(RootCertStore::empty()),
        };
        Self {
            config: Arc::new(config.with_no_client_auth()),
        }
    }

    /// Returns a builder of HTTP clients that believe these.
    pub fn http(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder().tls_backend_preconfigured(self.config().as_ref().clone())
    }

    /// Returns the configuration, for sockets and NATS.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// Trusts the authorities of the system.
impl Default for Trust {
    fn default() -> Self {
        let mut roots = RootCertStore::empty();
        // One that cannot be read counts for nothing; the others do.
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        Self::by(roots)
    }
}

/// Verifies as rustls does, and logs what to do about a certificate that is refused: NATS' client
/// keeps that to itself.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    told: Mutex<BTreeMap<String, Instant>>,
}

impl Verifier {
    fn new(roots: RootCertStore) -> Option<Self> {
        let built =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Some(Self {
            inner: built.ok()?,
            told: Mutex::default(),
        })
    }

    fn tell(&self, server: &ServerName<'_>, error: &Error) {
        let server = server.to_str().into_owned();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| at.elapsed() < TELL_EVERY);
        if told.contains_key(&server) || told.len() >= TOLD {
            return;
        }
        let what_to_do = advice(error).unwrap_or_else(|| error.to_string());
        tracing::warn!("{server} is not believed: {what_to_do}");
        told.insert(server, Instant::now());
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .inspect_err(|error| self.tell(server_name, error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
