//! TLS: what a service shows to its clients ([`Tls`], [`Certificate`]), and whom it believes where it
//! is a client itself ([`Trust`]).
//!
//! All of it by rustls with ring, version 1.2 or newer.

mod advice;
mod certificate;
mod listen;
mod pem;
mod settings;
mod trust;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use self::{
    advice::advice,
    certificate::Certificate,
    listen::{HANDSHAKE_WITHIN, HANDSHAKES, Tls, listen},
    settings::TlsSettings,
    trust::Trust,
};

/// Why TLS cannot be used; names the setting or file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{file} cannot be read")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else than was expected.
    #[error("{file}: {problem}")]
    Unusable {
        /// The file.
        file: String,
        /// What is wrong with it, and what it should be.
        problem: String,
    },
}

/// Returns ring as what encrypts; it becomes the process's default, too, for libraries that ask for
/// one.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    // It fails only where one is installed already.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    let installed = CryptoProvider::get_default().map(Arc::clone);
    installed.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// Makes ring what encrypts in this process, for libraries that ask for a default.
pub fn install() {
    provider();
}
