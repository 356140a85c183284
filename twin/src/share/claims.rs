//! The bucket in which twins say that they live and which partitions they own.
//!
//! Entries end by themselves unless they are written again in time; the server judges that, so no
//! clock of a twin counts. A claim is written by compare-and-set: two twins never hold one.

use std::{collections::BTreeMap, time::Duration};

use async_nats::jetstream::{
    self,
    context::{PublishError, PublishErrorKind},
    kv::{Entry, Operation, Store},
    message::PublishMessage,
};
use rovi_common::{
    streams::{self, BusSettings},
    subjects,
};

const TWIN: &str = "twin.";
const PARTITION: &str = "partition.";
/// How long it is told that something was given up.
const MARKER: Duration = Duration::from_mins(1);

/// The bucket, as one twin uses it.
#[derive(Debug)]
pub(super) struct Claims {
    jetstream: jetstream::Context,
    pub(super) bucket: Store,
    instance: String,
    lasting: Duration,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It stands, under this revision of the bucket.
    Held(u64),
    /// Another twin has the partition.
    Taken,
}

impl Claims {
    /// Opens the bucket.
    pub(super) async fn open(
        jetstream: &jetstream::Context,
        bus: &BusSettings,
        (instance, lasting): (&str, Duration),
    ) -> Result<Self, String> {
        let bucket = streams::shares_bucket(jetstream, bus).await;
        let bucket = bucket.map_err(|error| {
            let name = subjects::SHARES_BUCKET;
            format!("the bucket {name}, by which twins share the work, is away: {error}")
        })?;
        Ok(Self {
            jetstream: jetstream.clone(),
            bucket,
            instance: instance.to_owned(),
            lasting,
        })
    }

    /// Says that this twin lives; returns the entry's revision.
    pub(super) async fn live(&self) -> Result<u64, String> {
        let key = format!("{TWIN}{}", self.instance);
        let said = self.put(&key, None).await;
        said.map_err(|error| format!("it cannot be said that this twin lives: {error}"))
    }

    /// Claims a partition, or holds on to the claim written under `revision`.
    pub(super) async fn hold(&self, partition: u32, revision: u64) -> Result<Claim, String> {
        let key = format!("{PARTITION}{partition}");
        let text = |error: &dyn std::error::Error| format!("{key} cannot be claimed: {error}");
        match self.put(&key, Some(revision)).await {
            Ok(revision) => return Ok(Claim::Held(revision)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {}
            Err(error) => return Err(text(&error)),
        }
        // An answer was lost, the claim ended, the bucket was wiped, or another twin was faster.
        let found = self.bucket.entry(&key).await.map_err(|e| text(&e))?;
        let known = found.as_ref().map_or(0, |entry| entry.revision);
        if found.is_some_and(|entry| is_put(&entry) && entry.value != self.instance.as_bytes()) {
            return Ok(Claim::Taken);
        }
        match self.put(&key, Some(known)).await {
            Ok(revision) => Ok(Claim::Held(revision)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(Claim::Taken),
            Err(error) => Err(text(&error)),
        }
    }

    /// Gives a claim up.
    pub(super) async fn release(&self, partition: u32, revision: u64) {
        let key = format!("{PARTITION}{partition}");
        self.remove(&key, Some(revision)).await;
    }

    /// Says that this twin is no more.
    pub(super) async fn end(&self) {
        self.remove(&format!("{TWIN}{}", self.instance), None).await;
    }

    async fn put(&self, key: &str, expected: Option<u64>) -> Result<u64, PublishError> {
        let message = PublishMessage::build()
            .payload(self.instance.clone().into())
            .ttl(self.lasting);
        self.send(key, message, expected).await
    }

    /// What is not removed ends by itself.
    async fn remove(&self, key: &str, expected: Option<u64>) {
        let message = PublishMessage::build()
            .header("KV-Operation", "DEL")
            .ttl(MARKER);
        if let Err(error) = self.send(key, message, expected).await {
            tracing::debug!("{key} is not given up: {error}");
        }
    }

    async fn send(
        &self,
        key: &str,
        message: PublishMessage,
        expected: Option<u64>,
    ) -> Result<u64, PublishError> {
        let subject = format!("{}{key}", self.bucket.prefix);
        let message = match expected {
            Some(revision) => message.expected_last_subject_sequence(revision),
            None => message,
        };
        let sent = self.jetstream.send_publish(subject, message).await?;
        Ok(sent.await?.sequence)
    }
}

fn is_put(entry: &Entry) -> bool {
    entry.operation == Operation::Put
}

/// What the bucket says.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The twins that live.
    twins: BTreeMap<String, u64>,
    /// Who owns each partition, and since which revision.
    owners: BTreeMap<u32, (String, u64)>,
}

impl View {
    /// Takes a change of the bucket.
    pub(super) fn apply(&mut self, entry: &Entry) {
        let revision = entry.revision;
        if let Some(twin) = entry.key.strip_prefix(TWIN) {
            if is_put(entry) {
                self.twins.insert(twin.to_owned(), revision);
            } else {
                self.twins.remove(twin);
            }
        }
        let partition = entry.key.strip_prefix(PARTITION);
        if let Some(partition) = partition.and_then(|number| number.parse().ok()) {
            let owner = String::from_utf8_lossy(&entry.value).into_owned();
            if is_put(entry) {
                self.owners.insert(partition, (owner, revision));
            } else {
                self.owners.remove(&partition);
            }
        }
    }

    /// Tells whether everything up to what a twin said last was seen.
    pub(super) fn is_current(&self, instance: &str, said: u64) -> bool {
        self.twins.get(instance).is_some_and(|seen| *seen >= said)
    }

    /// Returns who owns a partition.
    pub(super) fn owner(&self, partition: u32) -> Option<&str> {
        self.owners.get(&partition).map(|(owner, _)| owner.as_str())
    }

    /// Returns who owns what.
    pub(super) fn owners(&self) -> BTreeMap<u32, String> {
        let owners = self.owners.iter();
        owners
            .map(|(partition, (owner, _))| (*partition, owner.clone()))
            .collect()
    }

    /// Tells whether another twin claimed a partition after `revision`.
    pub(super) fn is_lost(&self, partition: u32, revision: u64, instance: &str) -> bool {
        let owner = self.owners.get(&partition);
        owner.is_some_and(|(owner, since)| *since > revision && owner != instance)
    }

    /// Counts the partitions of each living twin but `own`, for which `held` counts.
    pub(super) fn held(&self, own: &str, held: usize) -> BTreeMap<String, u32> {
        let mut counts: BTreeMap<String, u32> =
            self.twins.keys().map(|twin| (twin.clone(), 0)).collect();
        for (owner, _) in self.owners.values() {
            if let Some(count) = counts.get_mut(owner) {
                *count += 1;
            }
        }
        counts.insert(own.to_owned(), u32::try_from(held).unwrap_or(u32::MAX));
        counts
    }
}
