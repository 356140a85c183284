//! Finding batteries whose rows are in the table and not on the bus, whoever stored them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rovi_common::error::ErrorChain;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    READY_RELAY, Shared, hints,
    lag::{self, Furthest},
    table::{self, Behind, Lag},
};
use crate::{bus::BusLife, store::StoreError};

/// Batteries read at once.
const PAGE: usize = 2000;
/// How long rows of a fleet may be on their way: what is relayed of it is marked with its next rows,
/// or after some seconds, and only the hub that relayed it knows before.
const FLEET_PATIENCE: Duration = Duration::from_secs(10);

/// Sweeps for as long as the service runs.
pub(super) async fn run(shared: Arc<Shared>, found: mpsc::Sender<Behind>, stop: CancellationToken) {
    let sweeps = async {
        let mut sweep = Sweep {
            shared: Arc::clone(&shared),
            found,
            before: None,
        };
        let mut states = shared.bus.watch();
        loop {
            states.mark_unchanged();
            match shared.bus.life() {
                Some(life) if sweep.is_early(life) => sweep.count_on_its_way().await,
                Some(life) => sweep.once(life).await,
                None => sweep.count().await,
            }
            // A changed life of the bus is no reason to wait.
            let _changed_or_not = timeout(shared.settings.sweep_interval, states.changed()).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = sweeps => {}
    }
}

struct Sweep {
    shared: Arc<Shared>,
    found: mpsc::Sender<Behind>,
    before: Option<Seen>,
}

/// What a sweep saw.
struct Seen {
    at: Instant,
    /// The bus of then.
    life: BusLife,
    /// The batteries that were behind, with `(epoch, last_seq)` of then.
    behind: HashMap<i64, (i64, i64)>,
}

impl Sweep {
    /// Tells whether the rows that were missing at the last look may still be on their way.
    fn is_early(&self, life: BusLife) -> bool {
        let before = self.before.as_ref().filter(|before| before.life == life);
        let is_on_its_way = |before: &Seen| before.at.elapsed() < before.patience();
        before.is_some_and(is_on_its_way) && !self.shared.has_trouble()
    }

    /// Looks at all batteries and tells the relay of those that need it.
    ///
    /// Rows stored a moment ago are on their way. So a battery needs help if it lacks rows that
    /// it lacked at the sweep before; on a new or a newly connected bus all need it.
    async fn once(&mut self, life: BusLife) {
        let at = Instant::now();
        let before = self.before.take().filter(|before| before.life == life);
        let mut behind = HashMap::new();
        let mut lag = Lag::default();
        let mut missing = Furthest::default();
        let mut after_id = i64::MIN;
        loop {
            let page = match self.page(after_id).await {
                Ok(page) => page,
                Err(error) => {
                    let problem = format!("looking for rows to relay: {}", ErrorChain(&error));
                    return self.shared.readiness.set(READY_RELAY, Some(problem));
                }
            };
            let last_page = page.len() < PAGE;
            for battery in page {
                after_id = battery.id;
                lag.rows += battery.last_seq - battery.relayed_seq;
                lag.batteries += 1;
                behind.insert(battery.id, (battery.epoch, battery.last_seq));
                // What the bus has, though it is not marked yet, is not missing.
                let unmarked = self.shared.hints.unmarked_seq(life.epoch, &battery);
                let relayed_seq = battery.relayed_seq.max(unmarked);
                let lacks = |before: &Seen| before.lacked(&battery, relayed_seq);
                if before.as_ref().is_none_or(lacks) {
                    missing.note(&battery);
                    if self.found.send(battery).await.is_err() {
                        return;
                    }
                }
            }
            if last_page {
                break;
            }
        }
        // Trouble before the first sweep was that of a bus that is gone.
        let is_first = before.is_none();
        let trouble = self.shared.take_trouble().filter(|_| !is_first);
        self.shared.readiness.set(READY_RELAY, trouble);
        self.tell(lag, missing.into_vec()).await;
        self.before = Some(Seen { at, life, behind });
    }

    /// Tells how far behind the bus is while it is away.
    async fn count(&self) {
        let counted = self.shared.pool.run(|conn| {
            let furthest = table::furthest_behind(conn, lag::LOOKED_AT)?;
            Ok((table::lag(conn)?, furthest))
        });
        if let Ok((lag, furthest)) = counted.await {
            self.tell(lag, furthest).await;
        }
    }

    /// Tells how much is on its way, between two looks at a fleet.
    async fn count_on_its_way(&self) {
        if let Ok(lag) = self.shared.pool.run(table::lag).await {
            self.shared.readiness.set(READY_RELAY, None);
            self.tell_lag(lag);
        }
    }

    /// Shows how far behind the bus is.
    async fn tell(&self, lag: Lag, missing: Vec<Behind>) {
        self.tell_lag(lag);
        let metrics = &self.shared.metrics;
        let look = move |conn: &mut _| Ok(lag::oldest_received(conn, &missing));
        if let Ok(received) = self.shared.pool.run(look).await {
            metrics.oldest_s.set(received.map_or(0, lag::age_s));
        }
    }

    fn tell_lag(&self, lag: Lag) {
        self.shared.metrics.behind.set(lag.rows);
        self.shared.metrics.batteries_behind.set(lag.batteries);
    }

    async fn page(&self, after_id: i64) -> Result<Vec<Behind>, StoreError> {
        let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let read = move |conn: &mut _| table::behind(conn, after_id, limit);
        self.shared.pool.run(read).await
    }
}

impl Seen {
    /// Returns how much later it shows whether what was missing then is missing still.
    fn patience(&self) -> Duration {
        if self.behind.len() > hints::FEW {
            FLEET_PATIENCE
        } else {
            Duration::ZERO
        }
    }

    /// Whether a battery whose rows are on the bus up to `relayed_seq` still lacks rows that it
    /// lacked then.
    fn lacked(&self, battery: &Behind, relayed_seq: i64) -> bool {
        let then = self.behind.get(&battery.id);
        then.is_some_and(|&(epoch, last_seq)| epoch != battery.epoch || relayed_seq < last_seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(behind: &[(i64, (i64, i64))]) -> Seen {
        let life = BusLife {
            connection: 1,
            epoch: uuid::Uuid::nil(),
        };
        let behind = behind.iter().copied().collect();
        let at = Instant::now();
        Seen { at, life, behind }
    }

    fn battery(last_seq: i64, relayed_seq: i64) -> Behind {
        Behind {
            id: 1,
            name: "b7".to_owned(),
            epoch: 1,
            last_seq,
            relayed_seq,
        }
    }

    #[test]
    fn rows_on_their_way_are_left_alone() {
        assert!(!seen(&[]).lacked(&battery(20, 10), 10));
        assert!(!seen(&[(1, (1, 10))]).lacked(&battery(20, 10), 10));
        assert!(!seen(&[(1, (1, 10))]).lacked(&battery(20, 9), 10));
    }

    #[test]
    fn a_fleet_is_given_time_to_have_its_rows_marked() {
        let fleet: Vec<_> = (0..300).map(|id| (id, (1, 10))).collect();
        assert_eq!(seen(&fleet).patience(), FLEET_PATIENCE);
        assert_eq!(seen(&fleet[..100]).patience(), Duration::ZERO);
    }

    #[test]
    fn rows_missing_since_the_last_sweep_are_sent() {
        assert!(seen(&[(1, (1, 10))]).lacked(&battery(20, 9), 9));
        assert!(seen(&[(1, (0, 5))]).lacked(&battery(20, 9), 9));
    }
}
