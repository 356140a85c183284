//! Who did what: an entry for each call that may change something, each with the digest of the one
//! before it, so that a change of the past shows.

use std::{fmt, future::Future, pin::Pin, sync::OnceLock};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::secret::hex;

/// What comes before the first entry.
pub const FIRST: &str = "";

/// What somebody did, or tried to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was answered, in microseconds since 1970.
    pub at: i64,
    /// The service that answered.
    pub service: String,
    /// Who asked.
    pub who: String,
    /// The address that it came from, as the service saw it.
    pub source: String,
    /// The method and the path of the route.
    pub action: String,
    /// The path itself, without its query.
    pub path: String,
    /// What it was done to, in words: batteries, estimators and their revisions, tokens.
    pub subject: String,
    /// The HTTP status of the answer; 0 where the caller went away before it.
    pub status: i32,
}

/// An entry in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chained {
    /// Its number, from 1 without gaps.
    pub id: i64,
    /// The digest of the entry before.
    pub previous: String,
    /// The digest of this one.
    pub digest: String,
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
}

impl Chained {
    /// Puts an entry behind another.
    pub fn after(id: i64, previous: String, entry: Entry) -> Self {
        let digest = digest(id, &previous, &entry);
        Self {
            id,
            previous,
            digest,
            entry,
        }
    }

    /// Tells what is wrong with an entry that should stand behind `(id, digest)`, if something is.
    pub fn problem(&self, (id, digest_before): (i64, &str)) -> Option<String> {
        if self.id != id + 1 {
            return Some(format!(
                "entry {} follows entry {id}: some are missing",
                self.id
            ));
        }
        if self.previous != digest_before {
            return Some(format!("entry {} does not continue entry {id}", self.id));
        }
        let is_right = self.digest == digest(self.id, &self.previous, &self.entry);
        (!is_right).then(|| format!("entry {} was changed", self.id))
    }
}

fn digest(id: i64, previous: &str, entry: &Entry) -> String {
    // An array of JSON: nothing of one field can pass for a part of another.
    let fields = serde_json::json!([
        id,
        previous,
        entry.at,
        entry.service,
        entry.who,
        entry.source,
        entry.action,
        entry.path,
        entry.subject,
        entry.status,
    ]);
    hex(&Sha256::digest(fields.to_string()))
}

type Recording = Pin<Box<dyn Future<Output = ()> + Send>>;
type Record = Box<dyn Fn(Entry) -> Recording + Send + Sync>;

/// Where entries go; nowhere until somebody says so.
#[derive(Default)]
pub struct Recorder(OnceLock<Record>);

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

impl Recorder {
    /// Says where entries go, once.
    pub fn go_to(&self, record: impl Fn(Entry) -> Recording + Send + Sync + 'static) {
        let set_before = self.0.set(Box::new(record));
        debug_assert!(set_before.is_ok(), "entries go to one place");
    }

    /// Records an entry; returns when it is durable, or is held until it can be.
    pub async fn record(&self, entry: Entry) {
        if let Some(record) = self.0.get() {
            record(entry).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Vec<Chained> {
        let mut chain: Vec<Chained> = Vec::new();
        for id in 1..=3 {
            let entry = Entry {
                at: id,
                service: "datahub".to_owned(),
                who: "ada".to_owned(),
                source: "127.0.0.1".to_owned(),
                action: "DELETE /db/{battery}".to_owned(),
                path: "/db/b7".to_owned(),
                subject: "b7".to_owned(),
                status: 200,
            };
            let previous = chain
                .last()
                .map_or(FIRST.to_owned(), |last| last.digest.clone());
            chain.push(Chained::after(id, previous, entry));
        }
        chain
    }

    fn first_problem(chain: &[Chained]) -> Option<String> {
        let mut before = (0, FIRST.to_owned());
        for one in chain {
            if let Some(problem) = one.problem((before.0, &before.1)) {
                return Some(problem);
            }
            before = (one.id, one.digest.clone());
        }
        None
    }

    #[test]
    fn whatever_is_changed_or_taken_out_shows() {
        assert_eq!(first_problem(&chain()), None);
        let mut changed = chain();
        changed[1].entry.who = "eve".to_owned();
        assert_eq!(first_problem(&changed).unwrap(), "entry 2 was changed");
        let mut hidden = changed;
        hidden[1] = Chained::after(2, hidden[0].digest.clone(), hidden[1].entry.clone());
        assert_eq!(
            first_problem(&hidden).unwrap(),
            "entry 3 does not continue entry 2"
        );
        let mut shorter = chain();
        shorter.remove(0);
        assert!(first_problem(&shorter).unwrap().contains("missing"));
    }
}
