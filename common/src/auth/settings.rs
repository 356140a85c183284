//! The settings of authentication, the same for both services.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

use super::{budget::BudgetSettings, lockout::LockoutSettings, role::Grant};
use crate::network::Network;

/// Who has to say who they are, and how that is checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSettings {
    /// Whether every caller has to show a credential. Without it everybody who reaches the service
    /// may do everything.
    pub required: bool,
    /// The file with the token by which the services know each other, the same for all of them. It
    /// may read everything, and signs tickets.
    pub service_token_file: Option<PathBuf>,
    /// The file with a token that may do everything, for the first start; the same for all.
    pub admin_token_file: Option<PathBuf>,
    /// The issuer of JWTs that are taken besides.
    pub jwt: Option<JwtSettings>,
    /// Proxies before the service whose `X-Forwarded-For` is believed. One too many, and whoever is
    /// behind it can pass for any address; one too few, and all behind it are one address.
    pub trusted_proxies: Vec<Network>,
    /// How often an address may show wrong credentials.
    pub lockout: LockoutSettings,
    /// How much each principal may ask for.
    pub budgets: BudgetSettings,
}

/// An issuer of JWTs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtSettings {
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must hold.
    pub audience: String,
    /// Where the issuer's keys are (JWKS): `https://…`, `http://` on loopback, or `file:///…`.
    pub jwks: Url,
    /// Certificates of the authorities that count for `jwks`; without it those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The algorithms that count.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<JwtAlgorithm>,
    /// The claim with groups of the issuer; see `groups`.
    #[serde(default)]
    pub groups_claim: Option<String>,
    /// What each group may do. Groups that are not named here may nothing.
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<Grant>>,
}

fn default_algorithms() -> Vec<JwtAlgorithm> {
    use JwtAlgorithm::{ES256, EdDSA, RS256};
    vec![RS256, ES256, EdDSA]
}

/// An algorithm of signatures with a private and a public key: there are no others here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "RFC 7518 and 8037 name them")]
pub enum JwtAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl AuthSettings {
    /// Tells everything that is wrong with the settings.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.required && self.service_token_file.is_none() {
            problems.push(
                "auth.service_token_file: missing; with auth.required the services know each other \
                 by it (`rovicli token new-file <FILE>` makes one)"
                    .to_owned(),
            );
        }
        let Some(jwt) = &self.jwt else {
            return problems;
        };
        if jwt.issuer.is_empty() || jwt.audience.is_empty() {
            problems.push("auth.jwt.issuer and auth.jwt.audience must not be empty".to_owned());
        }
        if jwt.algorithms.is_empty() {
            problems.push("auth.jwt.algorithms must not be empty".to_owned());
        }
        let is_usable = match jwt.jwks.scheme() {
            "https" | "file" => true,
            "http" => is_loopback(&jwt.jwks),
            _ => false,
        };
        if !is_usable {
            problems.push(format!(
                "auth.jwt.jwks: {} must be https, http on loopback, or file",
                jwt.jwks
            ));
        }
        problems
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_an_issuer_come_by_a_way_that_nobody_can_change() {
        let with = |jwks: &str| {
            let jwt = serde_json::json!({"issuer": "i", "audience": "a", "jwks": jwks});
            AuthSettings {
                jwt: Some(serde_json::from_value(jwt).unwrap()),
                ..AuthSettings::default()
            }
            .problems()
        };
        assert!(with("https://issuer.example/jwks").is_empty());
        assert!(with("http://127.0.0.1:1/jwks").is_empty());
        assert!(with("http://issuer.example/jwks")[0].contains("auth.jwt.jwks"));
    }

    #[test]
    fn symmetric_algorithms_cannot_be_set() {
        for name in ["HS256", "none"] {
            assert!(serde_json::from_value::<JwtAlgorithm>(name.into()).is_err());
        }
    }
}
