//! The keys of an issuer: read again when a token names an unknown one, and now and then.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse};
use tokio::sync::Mutex;
use url::Url;

use crate::tls::{Trust, advice};

/// Tokens with made-up keys make nobody ask the issuer more often than this.
const READ_AT_MOST_EVERY: Duration = Duration::from_secs(2);
/// After this long the keys are read again, so that one that was taken back stops counting.
const READ_EVERY: Duration = Duration::from_mins(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The most bytes of a set of keys.
const MAX_BYTES: usize = 256 << 10;

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct Keys {
    place: Url,
    http: reqwest::Client,
    present: RwLock<Arc<Vec<Jwk>>>,
    /// When they were last asked for, and whether an answer came.
    asked: Mutex<Option<(Instant, bool)>>,
}

impl Keys {
    /// Makes a set that is read when it is first needed.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub(super) fn new(place: Url, trust: &Trust) -> Result<Self, reqwest::Error> {
        let http = trust
            .http()
            .timeout(ANSWER_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self {
            place,
            http,
            present: RwLock::default(),
            asked: Mutex::new(None),
        })
    }

    /// Finds the key of a name, or the only one where there is no name.
    pub(super) async fn find(&self, id: Option<&str>) -> Option<Jwk> {
        self.read_if_old(READ_EVERY).await;
        if let Some(key) = self.known(id) {
            return Some(key);
        }
        self.read_if_old(READ_AT_MOST_EVERY).await;
        self.known(id)
    }

    fn known(&self, id: Option<&str>) -> Option<Jwk> {
        let keys = Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner));
        match id {
            Some(id) => {
                let named = |key: &&Jwk| key.common.key_id.as_deref() == Some(id);
                keys.iter().find(named).cloned()
            }
            None => match keys.as_slice() {
                [only] => Some(only.clone()),
                _ => None,
            },
        }
    }

    async fn read_if_old(&self, age: Duration) {
        let mut asked = self.asked.lock().await;
        let patience = |answered| if answered { age } else { READ_AT_MOST_EVERY };
        if asked.is_some_and(|(at, answered)| at.elapsed() < patience(answered)) {
            return;
        }
        let read = self.read().await;
        *asked = Some((Instant::now(), read.is_ok()));
        match read {
            Ok(keys) => {
                let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
                *present = Arc::new(keys);
            }
            // Keys that were known go on to count.
            Err(problem) => tracing::warn!("the issuer's keys at {}: {problem}", self.place),
        }
    }

    async fn read(&self) -> Result<Vec<Jwk>, String> {
        let bytes = if self.place.scheme() == "file" {
            let path = self.place.to_file_path();
            let path = path.map_err(|()| "it is no path of a file".to_owned())?;
            tokio::fs::read(path)
                .await
                .map_err(|error| error.to_string())?
        } else {
            let answer = self.http.get(self.place.clone()).send().await;
            let answer = answer.and_then(reqwest::Response::error_for_status);
            let mut answer =
                answer.map_err(|error| advice(&error).unwrap_or_else(|| error.to_string()))?;
            let mut bytes = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(|error| error.to_string())? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > MAX_BYTES {
                    return Err(format!("more than {MAX_BYTES} bytes"));
                }
            }
            bytes
        };
        let set: JwkSet = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        Ok(set.keys.into_iter().filter(verifies).collect())
    }
}

/// Whether a key is for signatures.
fn verifies(key: &Jwk) -> bool {
    let is_for_signatures = key
        .common
        .public_key_use
        .as_ref()
        .is_none_or(|of| *of == PublicKeyUse::Signature);
    let may_verify = key
        .common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    is_for_signatures && may_verify
}
