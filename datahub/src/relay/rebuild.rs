//! `datahub relay rebuild`: every row of a battery goes out anew, from the first that its table
//! has, while hubs run, rows come and readers read.
//!
//! The rebuilt frames are appended after the battery's last message by the same compare-and-set
//! that hubs use: the first of them tells every hub, by refusing its next frame, that the stream
//! now stands at that row, and from there hubs and rebuild go on together. Then what stood before
//! it is purged. So at no moment two writers disagree about what comes next, and an interruption
//! leaves a stream that hubs complete; running it again begins anew.

use std::{sync::Arc, time::Duration};

use prometheus::IntCounter;
use rovi_common::{
    error::ErrorChain,
    http::Readiness,
    lifecycle::Lifecycle,
    name::BatteryName,
    streams, subjects,
    telemetry::Metrics,
    tls::{TlsError, Trust},
};
use tokio::sync::mpsc;

use super::{
    READY_RELAY, Relay, RelayError, RelayParts,
    battery::{FIRST_CHUNK_ROWS, Lane, Outcome},
    frames::Frames,
    table::{self, Named, Relayed, Tail},
};
use crate::{
    bus::{Bus, BusError, READY_NATS},
    config::Settings,
    store::Pool,
};

/// How often a battery at which other hubs were faster is begun again.
const TRIES: usize = 20;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Why batteries were not rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// A setting is unusable.
    #[error("the settings are wrong: {0}")]
    Settings(String),
    /// The URL of NATS is unusable.
    #[error("the URL of NATS is unusable")]
    Nats(#[source] async_nats::ConnectError),
    /// The file of authorities is unusable.
    #[error("TLS cannot be used")]
    Tls(#[from] TlsError),
    /// PostgreSQL does not answer.
    #[error("the batteries cannot be listed")]
    Store(#[source] crate::store::StoreError),
    /// There is no such battery.
    #[error("there is no battery `{0}`")]
    NoBattery(BatteryName),
    /// The service's own way to the bus ended.
    #[error("the bus is not checked any more")]
    Stopped,
    /// Some batteries failed; each was told.
    #[error("{0} batteries were not rebuilt; run it again")]
    Failed(usize),
}

/// Rebuilds one battery, or all; tells `progress` a line for each.
///
/// # Errors
/// See [`RebuildError`]; batteries that were told to be done are done.
pub async fn run(
    settings: &Settings,
    only: Option<BatteryName>,
    mut progress: impl FnMut(&str),
) -> Result<(), RebuildError> {
    let pool = Pool::new(&settings.database_url, settings.pool_size);
    // The hub that runs, or ran, made the tables.
    pool.set_prepared();
    let trust = Trust::of(settings.tls.ca_file.as_deref())?;
    let seed = settings.nats_seed().map_err(RebuildError::Settings)?;
    let name = "datahub relay rebuild";
    let client = streams::connect_as(&settings.nats_url, name, &trust, seed.as_ref());
    let client = client.await.map_err(RebuildError::Nats)?;
    let lifecycle = Lifecycle::new();
    let readiness = Readiness::new(&[READY_NATS, READY_RELAY]);
    let bus = Arc::new(Bus::new(client, settings.bus.clone()));
    let checks =
        Arc::clone(&bus).keep_checking(pool.clone(), readiness.clone(), lifecycle.stop_token());
    lifecycle.supervise("bus", checks);
    let parts = RelayParts {
        bus: Arc::clone(&bus),
        pool: pool.clone(),
        settings: settings.relay.clone(),
        readiness,
    };
    let metrics = Metrics::new();
    let relay = Relay::new(parts, &metrics);
    progress("waiting for PostgreSQL and NATS");
    bus.ready().await.ok_or(RebuildError::Stopped)?;
    let rebuilt = rebuild(&relay, &pool, only, &mut progress).await;
    lifecycle.stop();
    lifecycle.drained(Duration::from_secs(5)).await;
    rebuilt
}

async fn rebuild(
    relay: &Relay,
    pool: &Pool,
    only: Option<BatteryName>,
    progress: &mut impl FnMut(&str),
) -> Result<(), RebuildError> {
    let named = pool.run(table::with_rows).await;
    let mut batteries = named.map_err(RebuildError::Store)?;
    if let Some(only) = only {
        batteries.retain(|battery| battery.name == only.as_str());
        if batteries.is_empty() {
            return Err(RebuildError::NoBattery(only));
        }
    }
    let (all, mut failed) = (batteries.len(), 0);
    for (battery, number) in batteries.into_iter().zip(1..) {
        let name = battery.name.clone();
        match again_until_done(relay, battery).await {
            Ok(rows) => progress(&format!("{number} of {all}: {name}, {rows} rows")),
            Err(error) => {
                failed += 1;
                progress(&format!(
                    "{number} of {all}: {name} failed: {}",
                    ErrorChain(&error)
                ));
            }
        }
    }
    if failed == 0 {
        return Ok(());
    }
    Err(RebuildError::Failed(failed))
}

async fn again_until_done(relay: &Relay, battery: Named) -> Result<u64, RelayError> {
    let mut tries = 0;
    loop {
        let (_no_work, inbox) = mpsc::channel(1);
        let name = (battery.name.parse()).map_err(|_no_name| RelayError::NoBattery)?;
        let lane = Lane::new(Arc::clone(&relay.shared), battery.id, name, inbox);
        tries += 1;
        match lane.rebuild(&relay.shared.metrics.rows).await {
            Err(RelayError::NoBattery) => return Ok(0),
            Err(error) if tries == TRIES => return Err(error),
            Err(_passing) => tokio::time::sleep(TRY_AGAIN_AFTER).await,
            done => return done,
        }
    }
}

impl Lane {
    /// Sends every row of the battery anew; returns how many this process sent.
    async fn rebuild(mut self, sent: &IntCounter) -> Result<u64, RelayError> {
        let before = sent.get();
        let Some(first) = self.begin_anew().await? else {
            return Ok(0);
        };
        self.purge_before(first).await?;
        let mut tries = 0;
        // Hubs send the same rows; whoever is faster, what is missing goes out.
        while let Err(error) = self.catch_up().await {
            tries += 1;
            if matches!(error, RelayError::NoBattery) || tries == TRIES {
                return Err(error);
            }
            self.tail = None;
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
        if let Some(life) = self.shared.bus.life() {
            let shared = Arc::clone(&self.shared);
            shared.hints.flush(&shared.pool, life.epoch).await;
        }
        Ok(sent.get() - before)
    }

    /// Appends the first frame of all; returns its place, none where there are no rows.
    async fn begin_anew(&mut self) -> Result<Option<u64>, RelayError> {
        let tail = Tail {
            last_seq: 0,
            ..self.located().await?
        };
        let chunk = self.rows_after(tail, FIRST_CHUNK_ROWS).await?;
        let rows = chunk.and_then(|chunk| chunk.rows.into_iter().next());
        let Some(frame) = rows.and_then(|rows| Frames::of(rows).next()) else {
            return Ok(None);
        };
        if self.send_frame(&frame).await? == Outcome::Refused {
            return Err(RelayError::Contended);
        }
        let place = self.tail.map(|(_, tail)| tail.stream_seq);
        let relayed = Relayed {
            battery_id: self.battery_id,
            epoch: frame.epoch,
            seq: frame.last_seq,
        };
        // Should this end here, hubs see that the battery is behind and go on.
        let lower = move |conn: &mut _| table::lower_relayed(conn, relayed);
        let lowered = self.shared.pool.run(lower).await;
        lowered.map_err(RelayError::Store)?;
        Ok(place)
    }

    /// Removes the battery's messages before a place of the stream.
    async fn purge_before(&self, place: u64) -> Result<(), RelayError> {
        let what = "purge old frames of a battery";
        let stream = self.shared.bus.jetstream();
        let stream = stream.get_stream_no_info(subjects::ROWS_STREAM).await;
        let stream = stream
            .map_err(BusError::request(what))
            .map_err(RelayError::Bus)?;
        let purge = stream
            .purge()
            .filter(subjects::stored_rows_of(&self.battery))
            .sequence(place);
        let purged = purge.await.map_err(BusError::request(what));
        let purged = purged.map_err(RelayError::Bus)?;
        tracing::debug!(
            battery.id = %self.battery,
            "{} frames of {} were purged",
            purged.purged,
            self.battery
        );
        Ok(())
    }
}
