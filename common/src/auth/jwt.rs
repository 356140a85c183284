//! JWTs of an outside issuer.
//!
//! What is checked: the algorithm is one of the settings and fits the key, the signature, `iss`,
//! `aud`, `exp`, `nbf`. What its bearer may do stands in the claim `rovi_grants` (a list of grants as
//! text), or follows from the issuer's groups by the settings.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    jwks::{self, Keys},
    record::JwtIdentity,
    ring_provider,
    role::Grant,
    settings::{JwtAlgorithm, JwtSettings},
};
use crate::{error::ErrorChain, tls::Trust};

/// How far clocks may differ.
const LEEWAY_S: u64 = 30;
/// The longest JWT, in bytes.
const MAX_BYTES: usize = 16 << 10;
const GRANTS_CLAIM: &str = "rovi_grants";

/// Why a JWT does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It was good once: the signature is right.
    #[error("it has expired")]
    Expired,
    /// The issuer's keys could not be read yet, so nobody knows.
    #[error("the issuer's keys were never read")]
    Unknown,
    /// Something else; for the log, not for the caller.
    #[error("{0}")]
    Wrong(String),
}

/// Who an issuer says somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// What tells the JWT from others.
    pub jwt: JwtIdentity,
    /// What they may do.
    pub grants: Vec<Grant>,
    /// `exp` with what clocks may differ, in microseconds since 1970.
    pub expires: i64,
}

/// What is read of the claims; a claim of another type makes the token wrong.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(rename = "nbf")]
    _nbf: Option<u64>,
    jti: Option<String>,
    iat: Option<f64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Verifies JWTs of one issuer.
#[derive(Debug)]
pub struct Jwt {
    settings: JwtSettings,
    keys: Keys,
}

impl Jwt {
    /// Makes a verifier; keys are read when the first token comes.
    ///
    /// # Errors
    /// The authorities cannot be read, or the HTTP client cannot be made.
    pub fn new(settings: JwtSettings) -> Result<Self, String> {
        ring_provider::install();
        let trust = Trust::of(settings.ca_file.as_deref());
        let trust = trust.map_err(|error| format!("ca_file: {}", ErrorChain(&error)))?;
        let keys = Keys::new(settings.jwks.clone(), &trust).map_err(|error| error.to_string())?;
        Ok(Self { settings, keys })
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// See [`JwtError`].
    pub async fn verify(&self, token: &str) -> Result<Outside, JwtError> {
        let wrong = |error: &dyn std::fmt::Display| JwtError::Wrong(error.to_string());
        if token.len() > MAX_BYTES {
            return Err(JwtError::Wrong("it is too long".to_owned()));
        }
        let header = decode_header(token).map_err(|error| wrong(&error))?;
        let allowed = |known: &JwtAlgorithm| algorithm(*known) == header.alg;
        if !self.settings.algorithms.iter().any(allowed) {
            return Err(JwtError::Wrong(format!("{:?} is not allowed", header.alg)));
        }
        let key = self.keys.find(header.kid.as_deref()).await;
        let key = key.map_err(|jwks::NeverRead| JwtError::Unknown)?;
        let key = key.ok_or_else(|| JwtError::Wrong("its key is not known".to_owned()))?;
        let key = DecodingKey::from_jwk(&key).map_err(|error| wrong(&error))?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let decoded = decode::<Claims>(token, &key, &validation);
        let claims = decoded.map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::ExpiredSignature => JwtError::Expired,
            _ => wrong(&error),
        })?;
        Ok(self.outside(claims.claims))
    }

    fn outside(&self, claims: Claims) -> Outside {
        let texts = |claim: &str| -> Vec<String> {
            match claims.others.get(claim) {
                Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
                Some(Value::Array(items)) => {
                    let texts = items.iter().filter_map(Value::as_str);
                    texts.map(str::to_owned).collect()
                }
                _ => Vec::new(),
            }
        };
        // What is no grant gives nothing.
        let direct = texts(GRANTS_CLAIM);
        let direct = direct.iter().filter_map(|text| text.parse().ok());
        let mut grants: Vec<Grant> = direct.collect();
        let groups = self.settings.groups_claim.as_deref().map(texts);
        for group in groups.unwrap_or_default() {
            grants.extend(
                self.settings
                    .groups
                    .get(&group)
                    .cloned()
                    .unwrap_or_default(),
            );
        }
        let expires = claims
            .exp
            .saturating_add(LEEWAY_S)
            .saturating_mul(1_000_000);
        #[expect(clippy::cast_possible_truncation, reason = "`as` keeps within bounds")]
        let issued = claims.iat.map(|seconds| (seconds * 1e6) as i64);
        Outside {
            jwt: JwtIdentity {
                jti: claims.jti,
                subject: claims.sub,
                issued,
            },
            grants,
            expires: i64::try_from(expires).unwrap_or(i64::MAX),
        }
    }
}

fn algorithm(known: JwtAlgorithm) -> Algorithm {
    match known {
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::RS384 => Algorithm::RS384,
        JwtAlgorithm::RS512 => Algorithm::RS512,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::PS384 => Algorithm::PS384,
        JwtAlgorithm::PS512 => Algorithm::PS512,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::ES384 => Algorithm::ES384,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}
