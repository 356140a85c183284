//! The keys of an issuer: read again when a token names an unknown one, and now and then.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse};
use tokio::sync::{Mutex, MutexGuard};
use url::Url;

use crate::tls::{Trust, advice};

/// Tokens with made-up keys make nobody ask the issuer more often than this.
const READ_AT_MOST_EVERY: Duration = Duration::from_secs(2);
/// After this long the keys are read again, so that one that was taken back stops counting.
const READ_EVERY: Duration = Duration::from_mins(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The most bytes of a set of keys.
const MAX_BYTES: usize = 256 << 10;

/// The issuer's keys were never read, so nobody knows which there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NeverRead;

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct Keys {
    place: Url,
    http: reqwest::Client,
    present: RwLock<Present>,
    /// When they were last asked for, and whether an answer came.
    asked: Mutex<Option<(Instant, bool)>>,
}

/// The keys as they were read last.
#[derive(Debug, Default)]
struct Present {
    keys: Arc<Vec<Jwk>>,
    read: Option<Instant>,
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
    ///
    /// Whoever shows a key that is known waits for nobody who shows another one.
    ///
    /// # Errors
    /// The issuer never answered.
    pub(super) async fn find(&self, id: Option<&str>) -> Result<Option<Jwk>, NeverRead> {
        if let Some(key) = self.known(id) {
            if !self.are_old() {
                return Ok(Some(key));
            }
            // One of those who come reads them again.
            let Ok(asked) = self.asked.try_lock() else {
                return Ok(Some(key));
            };
            self.read_if_old(asked, READ_EVERY).await;
        } else {
            let asked = self.asked.lock().await;
            self.read_if_old(asked, READ_AT_MOST_EVERY).await;
        }
        match self.known(id) {
            None if self.present().read.is_none() => Err(NeverRead),
            key => Ok(key),
        }
    }

    fn known(&self, id: Option<&str>) -> Option<Jwk> {
        let keys = Arc::clone(&self.present().keys);
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

    fn are_old(&self) -> bool {
        let read = self.present().read;
        read.is_none_or(|at| at.elapsed() >= READ_EVERY)
    }

    fn present(&self) -> RwLockReadGuard<'_, Present> {
        self.present.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_if_old(&self, mut asked: MutexGuard<'_, Option<(Instant, bool)>>, age: Duration) {
        let patience = |answered| if answered { age } else { READ_AT_MOST_EVERY };
        if asked.is_some_and(|(at, answered)| at.elapsed() < patience(answered)) {
            return;
        }
        let read = self.read().await;
        let now = Instant::now();
        *asked = Some((now, read.is_ok()));
        match read {
            Ok(keys) => {
                let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
                (present.keys, present.read) = (Arc::new(keys), Some(now));
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use serde_json::json;

    use super::*;

    fn keys(place: &str) -> Keys {
        Keys::new(place.parse().unwrap(), &Trust::default()).unwrap()
    }

    fn published(folder: &tempfile::TempDir) -> Keys {
        let file = folder.path().join("jwks.json");
        let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "AA"});
        std::fs::write(&file, json!({"keys": [key]}).to_string()).unwrap();
        keys(&format!("file://{}", file.display()))
    }

    #[tokio::test]
    async fn whoever_shows_a_known_key_waits_for_nobody_who_shows_another() {
        let folder = tempfile::tempdir().unwrap();
        let keys = published(&folder);
        assert!(keys.find(Some("one")).await.unwrap().is_some());
        // As while the issuer takes its time over somebody's unknown key.
        let reads = keys.asked.lock().await;
        let found = tokio::time::timeout(Duration::from_secs(10), keys.find(Some("one")));
        assert!(found.await.unwrap().unwrap().is_some());
        drop(reads);
        assert!(keys.find(Some("two")).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_issuer_that_never_answered_is_told_apart_from_a_key_that_it_does_not_have() {
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let place = format!("http://{}/jwks", nobody.local_addr().unwrap());
        drop(nobody);
        assert_eq!(keys(&place).find(Some("one")).await.err(), Some(NeverRead));
    }
}
