//! Certificates and keys as they stand in files.

use std::path::Path;

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::TlsError;

/// Reads a file.
///
/// # Errors
/// [`TlsError::Unreadable`].
pub(super) fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|source| TlsError::Unreadable {
        file: file.display().to_string(),
        source,
    })
}

/// Finds the certificates in a file's text.
///
/// # Errors
/// [`TlsError::Unusable`]: there is none, or one is damaged.
pub(super) fn certificates(
    file: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| unusable(file, format!("no certificate in PEM: {error}")))?;
    if found.is_empty() {
        let problem = "it has no certificate in PEM (`-----BEGIN CERTIFICATE-----`)";
        return Err(unusable(file, problem.to_owned()));
    }
    Ok(found)
}

/// Finds the private key in a file's text.
///
/// # Errors
/// [`TlsError::Unusable`]: there is none.
pub(super) fn key(file: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        let problem = format!("it has no private key in PEM (PKCS #8, PKCS #1 or SEC 1): {error}");
        unusable(file, problem)
    })
}

/// Names what is wrong with a file.
pub(super) fn unusable(file: &Path, problem: String) -> TlsError {
    TlsError::Unusable {
        file: file.display().to_string(),
        problem,
    }
}
