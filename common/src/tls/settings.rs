//! The settings of TLS, the same for both services.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::auth::AuthSettings;

/// What a service shows to its clients, and whom it believes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// The certificate that clients are shown, in PEM, followed by those between it and its authority.
    /// With it the service speaks TLS and nothing else. Read again when it changes.
    pub cert_file: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    pub key_file: Option<PathBuf>,
    /// Certificates of the authorities that count where this service is the client: of the other
    /// service and of NATS. Without it those of the system count. Read at the start.
    pub ca_file: Option<PathBuf>,
}

impl TlsSettings {
    /// Whether clients have to speak TLS.
    pub fn is_on(&self) -> bool {
        self.cert_file.is_some()
    }

    /// Tells everything that is wrong with the settings.
    pub fn problems(&self) -> Vec<String> {
        let problem = match (&self.cert_file, &self.key_file) {
            (Some(_), None) => "tls.key_file: missing; a certificate needs its private key",
            (None, Some(_)) => "tls.cert_file: missing; a private key needs its certificate",
            _ => return Vec::new(),
        };
        vec![problem.to_owned()]
    }

    /// Refuses to listen beyond loopback where nobody is asked who they are, or where what is said can
    /// be read on the way.
    ///
    /// # Errors
    /// The text says what to do.
    pub fn check_listen(
        &self,
        auth: &AuthSettings,
        (address, insecure): (SocketAddr, bool),
    ) -> Result<(), String> {
        if address.ip().is_loopback() || insecure || (auth.required && self.is_on()) {
            return Ok(());
        }
        let mut missing = Vec::new();
        if !auth.required {
            missing.push("nobody is asked who they are (set auth.required)");
        }
        if !self.is_on() {
            missing.push(
                "tokens and rows can be read on the way (set tls.cert_file and tls.key_file; \
                 `rovicli tls` makes them)",
            );
        }
        Err(format!(
            "{address} is not a loopback address, and {}; or listen on 127.0.0.1, or say \
             --insecure-listen on a network you trust or behind a proxy that speaks TLS",
            missing.join(", and ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls() -> TlsSettings {
        TlsSettings {
            cert_file: Some("hub.pem".into()),
            key_file: Some("hub.key".into()),
            ca_file: None,
        }
    }

    #[test]
    fn listening_beyond_loopback_needs_authentication_and_tls_or_a_word() {
        let open = "0.0.0.0:8000".parse().unwrap();
        let (asks, trusts) = (
            AuthSettings {
                required: true,
                ..AuthSettings::default()
            },
            AuthSettings::default(),
        );
        let plain = TlsSettings::default();
        let error = plain.check_listen(&trusts, (open, false)).unwrap_err();
        for word in ["auth.required", "tls.cert_file", "--insecure-listen"] {
            assert!(error.contains(word), "{error}");
        }
        let error = tls().check_listen(&trusts, (open, false)).unwrap_err();
        assert!(!error.contains("tls.cert_file"), "{error}");
        let error = plain.check_listen(&asks, (open, false)).unwrap_err();
        assert!(!error.contains("auth.required"), "{error}");
        assert_eq!(plain.check_listen(&trusts, (open, true)), Ok(()));
        assert_eq!(tls().check_listen(&asks, (open, false)), Ok(()));
        let loopback = "[::1]:1".parse().unwrap();
        assert_eq!(plain.check_listen(&trusts, (loopback, false)), Ok(()));
    }

    #[test]
    fn a_certificate_without_its_key_is_told() {
        let settings = TlsSettings {
            key_file: None,
            ..tls()
        };
        assert!(settings.problems()[0].contains("tls.key_file"));
        assert!(tls().problems().is_empty());
    }
}
