//! What every watcher goes through, whatever way it is connected: a snapshot, the rows it missed,
//! then what is new.

use std::sync::Arc;

use bytestring::ByteString;
use rovi_common::{
    auth::{Access, Ended, Role},
    name::BatteryName,
};
use serde_json::json;

use super::{
    MESSAGE_BYTES,
    board::{Version, Watch},
    query::Query,
    resume::Missed,
    shape,
};
use crate::{filter::Position, fleet::Fleet};

/// Why a watcher gets nothing more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It went.
    Gone,
    /// It named batteries that nobody knows.
    Unknown(Vec<BatteryName>),
    /// It did not take what was sent for too long.
    TooSlow,
    /// It sent a larger message than anybody would read.
    TooLarge,
    /// It did not keep the protocol.
    Wrong(String),
    /// It may not watch any more.
    Unauthorised(Ended),
    /// The service stops.
    Stopping,
    /// All seats are taken.
    Full(usize),
}

/// A message and what a watcher could say to go on from there.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) text: ByteString,
    pub(super) place: Option<Arc<Version>>,
}

impl From<ByteString> for Outgoing {
    fn from(text: ByteString) -> Self {
        Self { text, place: None }
    }
}

/// Where messages go.
pub(super) trait Sink {
    /// Sends a message, waiting for room as long as the watcher is given.
    async fn send(&mut self, message: Outgoing) -> Result<(), End>;
}

/// Begins to watch: sends what there is, without what `knows` says the watcher has, then the rows
/// it missed.
///
/// # Errors
/// The watcher is gone, or named batteries that are not known.
pub(super) async fn begin(
    fleet: &Fleet,
    (query, access): (&Query, &Access),
    sink: &mut impl Sink,
    knows: impl Fn(&Version) -> bool,
) -> Result<Watch, End> {
    let shared = fleet.shared();
    // Watching begins with the snapshot, in one step: what comes later is newer.
    let (watch, present) = shared.board.watch(
        query.batteries.clone(),
        (Arc::clone(&query.fields), access.clone()),
    );
    let unknown = unknown(query, &present);
    if !unknown.is_empty() {
        return Err(End::Unknown(unknown));
    }
    let (missed, snapshot): (Vec<_>, Vec<_>) = present
        .into_iter()
        .partition(|version| query.since.contains_key(&version.state.battery));
    let snapshot: Vec<_> = snapshot.into_iter().filter(|one| !knows(one)).collect();
    let last = snapshot.iter().max_by_key(|version| version.place.sequence);
    let last = last.map(Arc::clone);
    for text in shape::snapshots(&snapshot, &query.fields, MESSAGE_BYTES) {
        let place = last.clone();
        sink.send(Outgoing { text, place }).await?;
    }
    shared.metrics.live.messages.inc();
    for version in missed {
        let since = query.since.get(&version.state.battery).copied();
        send_missed(fleet, (query, access), (&version, since), sink).await?;
    }
    Ok(watch)
}

fn unknown(query: &Query, present: &[Arc<Version>]) -> Vec<BatteryName> {
    let asked = query.batteries.iter().flatten().chain(query.since.keys());
    let is_known = |name: &&BatteryName| {
        let found = present.binary_search_by(|version| version.state.battery.cmp(name));
        found.is_err()
    };
    let mut unknown: Vec<_> = asked.filter(is_known).cloned().collect();
    unknown.dedup();
    unknown
}

/// Sends the rows after `since`, or says that they cannot be had, then the newest state; nothing of a
/// battery that the watcher may not see any more.
async fn send_missed(
    fleet: &Fleet,
    (query, access): (&Query, &Access),
    (newest, since): (&Arc<Version>, Option<Position>),
    sink: &mut impl Sink,
) -> Result<(), End> {
    let state = &newest.state;
    let since = since.unwrap_or(Position { epoch: 0, seq: 0 });
    if (since.epoch, since.seq) == (state.epoch, state.seq) {
        return Ok(());
    }
    let mut missed = Missed::open(fleet, state, since).await;
    loop {
        let rows = match &mut missed {
            Ok(missed) => missed.next().await,
            Err(reason) => Err(std::mem::take(reason)),
        };
        match rows {
            Ok(rows) if rows.is_empty() => break,
            Ok(rows) => {
                for version in rows {
                    if !access.may(Role::Reader, &state.battery) {
                        return Ok(());
                    }
                    let version = Arc::new(version);
                    send(fleet, query, version, sink).await?;
                }
            }
            Err(reason) => {
                tracing::debug!("{} is told anew: {reason}", state.battery);
                let detail = json!({
                    "battery": state.battery, "epoch": state.epoch, "seq": state.seq, "reason": reason,
                });
                sink.send(shape::notice("resync", detail).into()).await?;
                break;
            }
        }
    }
    // The last row comes with all that is known of it.
    send(fleet, query, Arc::clone(newest), sink).await
}

async fn send(
    fleet: &Fleet,
    query: &Query,
    version: Arc<Version>,
    sink: &mut impl Sink,
) -> Result<(), End> {
    fleet.shared().metrics.live.messages.inc();
    let text = version.message(&query.fields);
    let place = Some(version);
    sink.send(Outgoing { text, place }).await
}

/// Sends what waits for the watcher, and how many states it did not get.
///
/// # Errors
/// The watcher is gone or too slow.
pub(super) async fn pass_on(fleet: &Fleet, watch: &Watch, sink: &mut impl Sink) -> Result<(), End> {
    let metrics = &fleet.shared().metrics;
    while let Some((battery, version)) = watch.inbox.take() {
        metrics.live.messages.inc();
        let outgoing = match version {
            Some(version) => Outgoing {
                text: version.message(&watch.inbox.fields),
                place: Some(version),
            },
            None => shape::gone(&battery).into(),
        };
        sink.send(outgoing).await?;
    }
    let conflated = watch.inbox.take_conflated();
    if conflated > 0 {
        metrics.live.conflated.inc_by(conflated);
        let told = shape::notice("conflated", json!({ "states": conflated }));
        sink.send(told.into()).await?;
    }
    Ok(())
}
