//! All batteries that the twin knows of, and the workers of their estimators.
//!
//! A frame goes into the mailbox of each live worker of its battery. A worker whose mailbox is full
//! gets no more of them: it reads on from the stream by itself, so it holds up neither its partition
//! nor its neighbours. A battery without estimators costs an entry in a table.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_nats::jetstream::{self, message::Acker};
use rovi_common::{
    frame::RowFrame,
    name::{BatteryName, EstimatorName},
    registration::Registration,
    services::Services,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    alerts::{Alerts, Hooks},
    checkpoint::{Checkpoints, Origin},
    config::Settings,
    events::Events,
    filter::Position,
    hub::Hub,
    live::{Board, Watchers},
    metrics::TwinMetrics,
    state::{
        Outlet,
        join::{Known, state_of},
    },
    status::{EstimatorStatus, Report},
    worker::{self, Worker},
};

/// What every worker uses.
#[derive(Debug)]
pub struct Shared {
    /// The settings of the service.
    pub settings: Settings,
    /// The bus.
    pub jetstream: jetstream::Context,
    /// The hub.
    pub hub: Hub,
    /// The checkpoints.
    pub checkpoints: Checkpoints,
    /// The metrics.
    pub metrics: TwinMetrics,
    /// Cancelled when the service stops.
    pub stop: CancellationToken,
    /// What runs scripts.
    pub python: Arc<rovi_python::Python>,
    /// Bounds how many scripts run at the same time.
    pub scripts: Arc<Semaphore>,
    /// Bounds how many scripts are checked at the same time.
    pub script_checks: Semaphore,
    /// The name of this run of the service.
    pub instance: String,
    /// Batteries whose state has to be sent.
    pub outlet: Outlet,
    /// The newest state of every battery, as the bus has it.
    pub board: Arc<Board>,
    /// How many watch it.
    pub watchers: Watchers,
    /// The services that live.
    pub services: Arc<Services>,
    /// What happened, on its way to the bus.
    pub events: Events,
    /// Rules of alerts, and what they found.
    pub alerts: Alerts,
    /// The way to those who are told of alerts.
    pub hooks: Hooks,
    /// Bounds how many estimators read past rows at the same time.
    pub catch_ups: Semaphore,
}

/// Acknowledges a frame once everybody who was handed it is done with it.
pub struct Receipt {
    holders: AtomicUsize,
    acker: Acker,
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holders = &self.holders;
        f.debug_struct("Receipt")
            .field("holders", holders)
            .finish_non_exhaustive()
    }
}

impl Receipt {
    /// Returns a receipt with one holder.
    pub fn new(acker: Acker) -> Arc<Self> {
        Arc::new(Self {
            holders: AtomicUsize::new(1),
            acker,
        })
    }

    fn add_holder(&self) {
        self.holders.fetch_add(1, Ordering::AcqRel);
    }

    /// Tells that one holder is done. A receipt that is dropped without this is not acknowledged:
    /// the frame comes again.
    pub async fn done(&self) {
        if self.holders.fetch_sub(1, Ordering::AcqRel) == 1
            && let Err(error) = self.acker.ack().await
        {
            tracing::debug!("a frame is not acknowledged and will come again: {error}");
        }
    }
}

/// A frame on its way to a worker.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The rows.
    pub frame: Arc<RowFrame>,
    /// Where they stand in the stream.
    pub origin: Origin,
    /// Acknowledges the frame.
    pub receipt: Arc<Receipt>,
}

/// How the fleet reaches a worker.
#[derive(Debug)]
pub struct Link {
    /// The registration in force.
    pub registration: Arc<Registration>,
    /// What the worker last said.
    pub report: watch::Receiver<Arc<Report>>,
    is_live: bool,
    mailbox: mpsc::Sender<Delivery>,
    fell_behind: Arc<Notify>,
    registrations: watch::Sender<Option<Arc<Registration>>>,
}

/// One battery: its newest known row and the links to its workers.
#[derive(Debug)]
pub struct Battery {
    /// The name.
    pub name: BatteryName,
    state: Mutex<BatteryState>,
}

#[derive(Debug, Default)]
struct BatteryState {
    newest: Option<Position>,
    links: BTreeMap<EstimatorName, Link>,
    removed: BTreeMap<EstimatorName, i64>,
}

impl Battery {
    fn new(name: BatteryName) -> Self {
        Self {
            name,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, BatteryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a row exists; tells whether a worker waits for frames.
    pub fn note(&self, newest: Position) -> bool {
        let mut state = self.state();
        state.newest = state.newest.max(Some(newest));
        state.links.values().any(|link| link.is_live)
    }

    /// Returns the newest known row.
    pub fn newest(&self) -> Option<Position> {
        self.state().newest
    }

    /// Hands a frame to every live worker.
    pub fn deliver(&self, delivery: &Delivery) {
        let frame = &delivery.frame;
        let mut state = self.state();
        state.newest = state.newest.max(Some(Position {
            epoch: frame.epoch,
            seq: frame.last_seq(),
        }));
        for link in state.links.values_mut().filter(|link| link.is_live) {
            match link.mailbox.try_reserve() {
                Ok(place) => {
                    delivery.receipt.add_holder();
                    place.send(delivery.clone());
                }
                Err(_full_or_gone) => {
                    link.is_live = false;
                    link.fell_behind.notify_one();
                }
            }
        }
    }

    /// From now on the worker gets every frame; returns the newest row known at that moment.
    pub fn go_live(&self, estimator: &EstimatorName) -> Option<Position> {
        let mut state = self.state();
        if let Some(link) = state.links.get_mut(estimator) {
            link.is_live = true;
        }
        state.newest
    }

    /// From now on the worker gets no frames.
    pub fn hold_back(&self, estimator: &EstimatorName) {
        if let Some(link) = self.state().links.get_mut(estimator) {
            link.is_live = false;
        }
    }

    /// Shows an estimator.
    pub fn status(&self, estimator: &EstimatorName) -> Option<EstimatorStatus> {
        let state = self.state();
        let link = state.links.get(estimator)?;
        Some(EstimatorStatus::of(estimator, link, state.newest))
    }

    /// Shows every estimator with its definition.
    pub fn statuses(&self) -> BTreeMap<EstimatorName, (EstimatorStatus, Arc<Registration>)> {
        let state = self.state();
        let shown = |(name, link): (&EstimatorName, &Link)| {
            let status = EstimatorStatus::of(name, link, state.newest);
            (name.clone(), (status, Arc::clone(&link.registration)))
        };
        state.links.iter().map(shown).collect()
    }

    /// Returns what is known here of the estimators, in the form for the bus.
    pub fn known(&self) -> Known {
        let state = self.state();
        let links = state.links.iter();
        Known {
            running: links
                .map(|(name, link)| (name.clone(), state_of(link)))
                .collect(),
            removed: state.removed.clone(),
        }
    }

    /// Returns what the workers last said.
    pub fn reports(&self) -> (Option<Position>, Vec<Arc<Report>>) {
        let state = self.state();
        let links = state.links.values();
        let reports = links
            .map(|link| Arc::clone(&link.report.borrow()))
            .collect();
        (state.newest, reports)
    }
}

/// All batteries.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    batteries: Mutex<HashMap<BatteryName, Arc<Battery>>>,
    workers: TaskTracker,
    /// Workers never run on the threads of the HTTP server, which may be what starts them.
    runtime: Handle,
}

impl Fleet {
    /// Returns a fleet without batteries whose workers run on the present runtime.
    ///
    /// # Panics
    /// There is no runtime.
    pub fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            batteries: Mutex::default(),
            workers: TaskTracker::new(),
            runtime: Handle::current(),
        })
    }

    /// Returns what every worker uses.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn batteries(&self) -> MutexGuard<'_, HashMap<BatteryName, Arc<Battery>>> {
        self.batteries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a battery, which need not have been seen before.
    pub fn battery(&self, name: &BatteryName) -> Arc<Battery> {
        let mut batteries = self.batteries();
        if let Some(known) = batteries.get(name) {
            return Arc::clone(known);
        }
        let battery = Arc::new(Battery::new(name.clone()));
        batteries.insert(name.clone(), Arc::clone(&battery));
        battery
    }

    /// Returns a battery that was seen before.
    pub fn find(&self, name: &BatteryName) -> Option<Arc<Battery>> {
        self.batteries().get(name).map(Arc::clone)
    }

    /// Returns every known battery, in the order of names.
    pub fn all(&self) -> Vec<Arc<Battery>> {
        let mut all: Vec<_> = self.batteries().values().map(Arc::clone).collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Puts a registration or a tombstone into force; one that is not newer changes nothing.
    pub fn apply(&self, registration: Registration) {
        let battery = self.battery(&registration.battery);
        let mut state = battery.state();
        let known = state.links.get_mut(&registration.estimator);
        let known_revision = known.as_ref().map(|link| link.registration.revision);
        if known_revision.is_some_and(|known| known >= registration.revision) {
            return;
        }
        let Registration {
            battery: name,
            estimator,
            revision,
            ..
        } = &registration;
        self.shared
            .events
            .tell_registration(&registration, known.is_some());
        if registration.deleted {
            state.removed.insert(estimator.clone(), *revision);
            self.shared.outlet.touch(name);
            if let Some(link) = state.links.remove(estimator) {
                tracing::info!("estimator {estimator} of {name} is removed by revision {revision}");
                link.registrations.send_replace(None);
                self.shared.metrics.estimators.dec();
            }
            return;
        }
        tracing::info!("estimator {estimator} of {name} runs from revision {revision}");
        let registration = Arc::new(registration);
        if let Some(link) = known {
            link.is_live = false;
            link.registration = Arc::clone(&registration);
            link.registrations.send_replace(Some(registration));
        } else {
            let link = self.start_worker(Arc::clone(&battery), &registration);
            state.links.insert(registration.estimator.clone(), link);
            self.shared.metrics.estimators.inc();
        }
    }

    /// Removes an estimator whose entry vanished from the bucket.
    pub fn forget(&self, battery: &BatteryName, estimator: &EstimatorName) {
        if let Some(link) = self.battery(battery).state().links.remove(estimator) {
            tracing::info!("estimator {estimator} of {battery} is removed");
            link.registrations.send_replace(None);
            self.shared.metrics.estimators.dec();
        }
    }

    fn start_worker(&self, battery: Arc<Battery>, registration: &Arc<Registration>) -> Link {
        let (sender, mailbox) = mpsc::channel(self.shared.settings.mailbox_frames.get());
        let (registrations, changes) = watch::channel(Some(Arc::clone(registration)));
        let (reports, report) = watch::channel(Arc::default());
        let fell_behind = Arc::new(Notify::new());
        let worker = Worker {
            shared: Arc::clone(&self.shared),
            battery,
            estimator: registration.estimator.clone(),
            mailbox,
            fell_behind: Arc::clone(&fell_behind),
            registrations: changes,
            reports,
        };
        self.workers.spawn_on(worker::run(worker), &self.runtime);
        Link {
            registration: Arc::clone(registration),
            report,
            is_live: false,
            mailbox: sender,
            fell_behind,
            registrations,
        }
    }

    /// Returns when every worker has ended, which they do when the service stops.
    pub async fn ended(&self) {
        self.workers.close();
        self.workers.wait().await;
    }
}
