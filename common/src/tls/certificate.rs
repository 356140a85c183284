//! The certificate that clients are shown. It is read again when its files change, so that it can be
//! renewed without a restart: new handshakes get the new one, open connections stay.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use prometheus::IntGauge;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;
use x509_cert::der::Decode;

use super::{TlsError, pem, provider};
use crate::{clock, error::ErrorChain};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const DAY_S: i64 = 86_400;

/// A certificate and its files.
#[derive(Debug)]
pub struct Certificate {
    cert_file: PathBuf,
    key_file: PathBuf,
    shown: RwLock<Shown>,
    /// What the files held when they were last tried, or why they could not be read.
    tried: Mutex<Tried>,
}

#[derive(Debug, Clone)]
struct Shown {
    key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    expires_s: i64,
}

/// What was found in the files. It has no `Debug`, since it holds the key.
#[derive(PartialEq, Eq)]
struct Tried(Result<(Vec<u8>, Vec<u8>), String>);

impl std::fmt::Debug for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tried")
    }
}

impl Certificate {
    /// Reads a certificate and its key.
    ///
    /// One that has expired is shown all the same: it can be renewed while the service runs.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(cert_file: PathBuf, key_file: PathBuf) -> Result<Self, TlsError> {
        let files = (pem::read(&cert_file)?, pem::read(&key_file)?);
        let shown = parse((&cert_file, &files.0), (&key_file, &files.1))?;
        let certificate = Self {
            cert_file,
            key_file,
            shown: RwLock::new(shown),
            tried: Mutex::new(Tried(Ok(files))),
        };
        certificate.warn_if_expired();
        Ok(certificate)
    }

    /// Returns for how many seconds it counts; below 0 it has expired.
    pub fn expires_in_s(&self) -> i64 {
        self.now_shown().expires_s - clock::now_us() / 1_000_000
    }

    /// Reads the files again and again and tells `expires` for how long the certificate counts.
    pub async fn keep_fresh(self: Arc<Self>, expires: IntGauge, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {}
            }
            let own = Arc::clone(&self);
            // A folder of the network may let one wait.
            let read = tokio::task::spawn_blocking(move || own.read_if_changed());
            if let Ok(Err(problem)) = read.await {
                let left = self.expires_in_s() / DAY_S;
                tracing::error!(
                    "the new certificate is not used, the old one counts for {left} more days: {}",
                    ErrorChain(&problem)
                );
            }
            expires.set(self.expires_in_s());
        }
    }

    /// Shows what the files hold, where that is new and usable.
    ///
    /// # Errors
    /// What is wrong with it, once for each change of the files.
    fn read_if_changed(&self) -> Result<(), TlsError> {
        let read =
            pem::read(&self.cert_file).and_then(|cert| Ok((cert, pem::read(&self.key_file)?)));
        let found = Tried(match &read {
            Ok(files) => Ok(files.clone()),
            Err(problem) => Err(ErrorChain(problem).to_string()),
        });
        {
            let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            if *tried == found {
                return Ok(());
            }
            *tried = found;
        }
        let (cert, key) = read?;
        let new = parse((&self.cert_file, &cert), (&self.key_file, &key))?;
        if new.expires_s <= clock::now_us() / 1_000_000 {
            return Err(pem::unusable(&self.cert_file, "it has expired".to_owned()));
        }
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = new;
        let (file, days) = (self.cert_file.display(), self.expires_in_s() / DAY_S);
        tracing::info!("the certificate {file} was read again; it counts for {days} days");
        Ok(())
    }

    fn now_shown(&self) -> Shown {
        self.shown
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn warn_if_expired(&self) {
        if self.expires_in_s() <= 0 {
            tracing::error!(
                "the certificate {} has expired: clients refuse it; put a new one in its place",
                self.cert_file.display()
            );
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now_shown().key)
    }
}

/// A file's path and content.
type Found<'a> = (&'a PathBuf, &'a [u8]);

/// Makes of two files what handshakes need.
///
/// # Errors
/// They are no certificate and its key.
fn parse((cert_file, cert): Found<'_>, (key_file, key): Found<'_>) -> Result<Shown, TlsError> {
    let chain = pem::certificates(cert_file, cert)?;
    let key = pem::key(key_file, key)?;
    let expires_s = match chain.first() {
        Some(own) => expiry(own).map_err(|problem| pem::unusable(cert_file, problem))?,
        None => 0,
    };
    let made = CertifiedKey::from_der(chain, key, &provider());
    let made = made.map_err(|error| {
        let other = cert_file.display();
        pem::unusable(key_file, format!("no key that fits {other}: {error}"))
    })?;
    Ok(Shown {
        key: Arc::new(made),
        expires_s,
    })
}

/// Reads until when a certificate counts, in seconds since 1970.
fn expiry(certificate: &[u8]) -> Result<i64, String> {
    let read = x509_cert::Certificate::from_der(certificate);
    let read = read.map_err(|error| format!("the first certificate is damaged: {error}"))?;
    let end = read.tbs_certificate.validity.not_after;
    Ok(i64::try_from(end.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// Writes a certificate that counts for this many seconds from now.
    fn write(folder: &Path, seconds: i64) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join("hub.pem"), folder.join("hub.key"));
        let mut params = CertificateParams::new(["hub.example".to_owned()]).unwrap();
        let end = time::OffsetDateTime::from_unix_timestamp(clock::now_us() / 1_000_000 + seconds);
        params.not_after = end.unwrap();
        let pair = KeyPair::generate().unwrap();
        fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        (cert, key)
    }

    #[test]
    fn what_is_in_the_files_is_shown_as_soon_as_it_is_usable() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = write(folder.path(), 100);
        let certificate = Certificate::open(cert.clone(), key).unwrap();
        assert!((90..=100).contains(&certificate.expires_in_s()));
        assert!(certificate.read_if_changed().is_ok());
        let before = Arc::as_ptr(&certificate.now_shown().key);

        // A key that is of another certificate, an expired certificate, none at all: told once each.
        let right = fs::read(&cert).unwrap();
        let problem = |certificate: &Certificate| {
            let problem = certificate.read_if_changed().unwrap_err();
            assert!(certificate.read_if_changed().is_ok(), "told twice");
            ErrorChain(&problem).to_string()
        };
        write(folder.path(), 1000);
        fs::write(&cert, &right).unwrap();
        assert!(problem(&certificate).contains("no key that fits"));
        write(folder.path(), -1);
        assert!(problem(&certificate).contains("expired"));
        fs::remove_file(&cert).unwrap();
        assert!(problem(&certificate).contains("hub.pem cannot be read"));
        assert_eq!(Arc::as_ptr(&certificate.now_shown().key), before);

        write(folder.path(), 1000);
        certificate.read_if_changed().unwrap();
        assert!(certificate.expires_in_s() > 900);
    }

    #[test]
    fn files_that_hold_something_else_are_told_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = write(folder.path(), 100);
        let swapped = Certificate::open(key.clone(), cert.clone()).unwrap_err();
        assert!(
            swapped
                .to_string()
                .contains("hub.key: it has no certificate")
        );
        let no_key = Certificate::open(cert.clone(), cert).unwrap_err();
        assert!(no_key.to_string().contains("no private key"), "{no_key}");
    }
}
