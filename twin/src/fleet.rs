//! All batteries that the twin knows of, and the workers of their estimators.
//!
//! A frame goes into the mailbox of each live worker of its battery. A worker whose mailbox is full
//! gets no more of them: it reads on from the stream by itself, so it holds up neither its partition
//! nor its neighbours. A battery without estimators costs an entry in a table.
//!
//! Workers run for the batteries of the partitions that this twin owns ([`share`](crate::share)); of
//! the others only the registrations are kept, so that they can start at once.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_nats::jetstream::{self, message::Acker};
use litemap::LiteMap;
use rovi_common::{
    corrections::Corrections,
    fault,
    frame::RowFrame,
    name::{BatteryName, EstimatorName},
    registration::{Champion, Registration},
    services::Services,
    subjects,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    alerts::{Alerts, Hooks},
    ask::Owners,
    backtest::Backtests,
    checkpoint::{Checkpoints, Origin},
    config::Settings,
    documents::Documents,
    events::Events,
    filter::Position,
    hub::Hub,
    live::{Board, Watchers},
    mailbox::Mailbox,
    metrics::TwinMetrics,
    overview::MetadataAnswers,
    state::{
        Outlet,
        join::{Known, state_of},
    },
    status::{EstimatorStatus, Report, Role},
    subscribe::RowsStream,
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
    /// Which twin owns each partition.
    pub owners: Owners,
    /// The stream of rows.
    pub rows_stream: RowsStream,
    /// Documents in use.
    pub documents: Documents,
    /// What the hub said of metadata.
    pub metadata_answers: MetadataAnswers,
    /// What happened, on its way to the bus.
    pub events: Events,
    /// Rules of alerts, and what they found.
    pub alerts: Alerts,
    /// The way to those who are told of alerts.
    pub hooks: Hooks,
    /// Candidates over stored history.
    pub backtests: Backtests,
    /// Bounds how many estimators read past rows at the same time.
    pub catch_ups: Semaphore,
    /// Whether it is known which stored rows were corrected.
    pub knows_corrections: watch::Sender<bool>,
    /// What is known of tokens, and of the tenants of batteries.
    pub access: Arc<rovi_common::auth::Known>,
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

    /// The fleet that delivers holds the receipt meanwhile: this is never the last one.
    fn drop_holder(&self) {
        self.holders.fetch_sub(1, Ordering::AcqRel);
    }

    /// Tells that one holder is done. A receipt that is dropped without this is not acknowledged:
    /// the frame comes again.
    pub async fn done(&self) {
        if self.holders.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        fault::passed("twin.before_acknowledgement");
        if let Err(error) = self.acker.ack().await {
            tracing::debug!("a frame is not acknowledged and will come again: {error}");
        }
        fault::passed("twin.after_acknowledgement");
    }
}

/// A frame on its way to workers.
#[derive(Debug)]
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
    is_live: bool,
    mailbox: Arc<Mailbox>,
}

impl Link {
    /// Returns what the worker last said of the registration in force. While it still says what it
    /// did under an earlier one, nothing is known: numbers are shown only under the revision that
    /// made them.
    pub fn report(&self) -> Arc<Report> {
        let said = self.mailbox.report();
        if said.revision == self.registration.revision {
            return said;
        }
        Arc::default()
    }

    /// Has the worker read on by itself.
    fn fall_behind(&mut self) {
        self.is_live = false;
        self.mailbox.fall_behind();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.mailbox.dismiss();
    }
}

/// One battery: its newest known row and the links to its workers.
#[derive(Debug)]
pub struct Battery {
    /// The name.
    pub name: BatteryName,
    state: Mutex<BatteryState>,
}

#[derive(Debug)]
struct BatteryState {
    corrections: Arc<Corrections>,
    newest: Option<Position>,
    links: LiteMap<EstimatorName, Box<Link>>,
    /// Registered, and run by the twin that owns the battery's partition.
    elsewhere: BTreeMap<EstimatorName, Arc<Registration>>,
    removed: BTreeMap<EstimatorName, i64>,
    champion: Option<Champion>,
}

impl BatteryState {
    fn new(battery: &BatteryName) -> Self {
        Self {
            corrections: Arc::new(Corrections::none(battery.clone())),
            newest: None,
            links: LiteMap::new(),
            elsewhere: BTreeMap::new(),
            removed: BTreeMap::new(),
            champion: None,
        }
    }

    /// Takes the hub's word on the champion, unless a later one is known; tells whether it is news.
    fn crown(&mut self, said: Option<&Champion>) -> bool {
        let era = |champion: &Champion| champion.era;
        let is_news = said.map(era) > self.champion.as_ref().map(era);
        if is_news {
            self.champion = said.cloned();
        }
        is_news
    }

    fn champion(&self) -> EstimatorName {
        let champion = self.champion.as_ref();
        let named = champion.and_then(|champion| champion.estimator.clone());
        named.unwrap_or_default()
    }

    fn status(&self, estimator: &EstimatorName) -> Option<EstimatorStatus> {
        let link = self.links.get(estimator)?;
        let role = self.role(estimator);
        Some(EstimatorStatus::of(estimator, (link, role), self.newest))
    }

    fn role(&self, estimator: &EstimatorName) -> Role {
        Role::of(*estimator == self.champion())
    }

    fn registration(&self, estimator: &EstimatorName) -> Option<&Arc<Registration>> {
        let here = self.links.get(estimator).map(|link| &link.registration);
        here.or_else(|| self.elsewhere.get(estimator))
    }
}

impl Battery {
    fn new(name: BatteryName) -> Self {
        Self {
            state: Mutex::new(BatteryState::new(&name)),
            name,
        }
    }

    /// Returns which stored rows were corrected, as far as it is known.
    pub fn corrections(&self) -> Arc<Corrections> {
        Arc::clone(&self.state().corrections)
    }

    /// Tells the workers of corrections that are newer than those they know.
    pub fn correct(&self, told: Corrections) {
        let mut state = self.state();
        if told.supersedes(&state.corrections) {
            state.corrections = Arc::new(told);
            for link in state.links.values() {
                link.mailbox.correct();
            }
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
    pub fn deliver(&self, delivery: &Arc<Delivery>) {
        let frame = &delivery.frame;
        let mut state = self.state();
        state.newest = state.newest.max(Some(Position {
            epoch: frame.epoch,
            seq: frame.last_seq(),
        }));
        for (_, link) in state.links.iter_mut().filter(|(_, link)| link.is_live) {
            delivery.receipt.add_holder();
            if !link.mailbox.deliver(delivery) {
                delivery.receipt.drop_holder();
                link.fall_behind();
            }
        }
    }

    /// Has live workers look whether rows went past them.
    fn look_again(&self) {
        let mut state = self.state();
        for (_, link) in state.links.iter_mut().filter(|(_, link)| link.is_live) {
            link.fall_behind();
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
        self.state().status(estimator)
    }

    /// Shows the estimator whose numbers count.
    pub fn champion_status(&self) -> Option<EstimatorStatus> {
        let state = self.state();
        state.status(&state.champion())
    }

    /// Returns which estimator is the champion, from which row on, as the hub said.
    pub fn champion(&self) -> Option<Champion> {
        self.state().champion.clone()
    }

    /// Tells whether an estimator's numbers count.
    pub fn role(&self, estimator: &EstimatorName) -> Role {
        self.state().role(estimator)
    }

    /// Returns the registration of the estimator whose numbers count, whichever twin runs it.
    pub fn champion_registration(&self) -> Option<Arc<Registration>> {
        let state = self.state();
        state.registration(&state.champion()).map(Arc::clone)
    }

    /// Shows every estimator with its definition.
    pub fn statuses(&self) -> BTreeMap<EstimatorName, (EstimatorStatus, Arc<Registration>)> {
        let state = self.state();
        let links = state.links.iter();
        let shown = links.filter_map(|(name, link)| {
            let status = state.status(name)?;
            Some((name.clone(), (status, Arc::clone(&link.registration))))
        });
        shown.collect()
    }

    /// Returns an estimator's registration, whichever twin runs it.
    pub fn registration(&self, estimator: &EstimatorName) -> Option<Arc<Registration>> {
        self.state().registration(estimator).map(Arc::clone)
    }

    /// Returns every estimator that is registered, whichever twin runs it.
    pub fn registrations(&self) -> BTreeMap<EstimatorName, Arc<Registration>> {
        let state = self.state();
        let here = state.links.iter();
        let here = here.map(|(name, link)| (name.clone(), Arc::clone(&link.registration)));
        here.chain(state.elsewhere.clone()).collect()
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
            champion: state.champion.clone(),
        }
    }

    /// Returns what the workers last said.
    pub fn reports(&self) -> (Option<Position>, Vec<Arc<Report>>) {
        let state = self.state();
        let links = state.links.values();
        (state.newest, links.map(|link| link.report()).collect())
    }
}

/// All batteries.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    batteries: Mutex<HashMap<BatteryName, Arc<Battery>>>,
    /// The partitions that this twin owns, each with its workers.
    owned: Mutex<HashMap<u32, TaskTracker>>,
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
            owned: Mutex::default(),
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
    ///
    /// Where it leaves the revision as it was, as a promotion does, the estimator runs on.
    pub fn apply(&self, mut registration: Registration) {
        registration.definition = self.shared.documents.share(registration.definition);
        let battery = self.battery(&registration.battery);
        let mut state = battery.state();
        if state.crown(registration.standing.champion.as_ref()) {
            self.shared.outlet.touch(&registration.battery);
        }
        let known = state.registration(&registration.estimator);
        let known_version = known.map(|known| known.version());
        if known_version.is_some_and(|known| known >= registration.version()) {
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
            .tell_registration(&registration, known_version.is_some());
        if registration.deleted {
            state.removed.insert(estimator.clone(), *revision);
            state.elsewhere.remove(estimator);
            self.shared.outlet.touch(name);
            if let Some(link) = state.links.remove(estimator) {
                tracing::info!("estimator {estimator} of {name} is removed by revision {revision}");
                link.mailbox.replace(None);
                self.shared.metrics.estimators.dec();
            }
            return;
        }
        tracing::info!("estimator {estimator} of {name} is registered by revision {revision}");
        let registration = Arc::new(registration);
        if let Some(link) = state.links.get_mut(&registration.estimator) {
            let before = mem::replace(&mut link.registration, Arc::clone(&registration));
            if before.runs_like(&registration) {
                return;
            }
            link.is_live = false;
            link.mailbox.replace(Some(registration));
        } else {
            self.place(&battery, &mut state, registration);
        }
    }

    /// Runs an estimator here, if this twin owns its battery's partition.
    fn place(
        &self,
        battery: &Arc<Battery>,
        state: &mut BatteryState,
        registration: Arc<Registration>,
    ) {
        let estimator = registration.estimator.clone();
        match self.workers_of(battery) {
            Some(workers) => {
                let link = self.start_worker(Arc::clone(battery), &registration, &workers);
                state.elsewhere.remove(&estimator);
                state.links.insert(estimator, Box::new(link));
                self.shared.metrics.estimators.inc();
            }
            None => {
                state.elsewhere.insert(estimator, registration);
            }
        }
    }

    /// Begins to run the estimators of a partition.
    pub fn enter(&self, partition: u32) {
        self.owned().insert(partition, TaskTracker::new());
        self.shared.metrics.partitions.inc();
        for battery in self.of_partition(partition) {
            let mut state = battery.state();
            for registration in mem::take(&mut state.elsewhere).into_values() {
                self.place(&battery, &mut state, registration);
            }
        }
    }

    /// Ends the estimators of a partition; returns when they have saved what they know.
    pub async fn leave(&self, partition: u32) {
        let Some(workers) = self.owned().remove(&partition) else {
            return;
        };
        self.shared.metrics.partitions.dec();
        for battery in self.of_partition(partition) {
            let mut state = battery.state();
            // A worker whose link is gone stops as it does when the service stops.
            let links = mem::replace(&mut state.links, LiteMap::new());
            for (estimator, link) in links {
                self.shared.metrics.estimators.dec();
                let registration = Arc::clone(&link.registration);
                state.elsewhere.insert(estimator, registration);
            }
        }
        workers.close();
        workers.wait().await;
    }

    /// Has the estimators of a partition look whether rows went past them: another twin may have
    /// had its frames for a while.
    pub fn look_again(&self, partition: u32) {
        for battery in self.of_partition(partition) {
            battery.look_again();
        }
    }

    fn of_partition(&self, partition: u32) -> Vec<Arc<Battery>> {
        let partitions = self.shared.settings.bus.partitions;
        let batteries = self.batteries();
        let all = batteries.values().map(Arc::clone);
        all.filter(|battery| subjects::partition_of(&battery.name, partitions) == partition)
            .collect()
    }

    fn workers_of(&self, battery: &Battery) -> Option<TaskTracker> {
        let partitions = self.shared.settings.bus.partitions;
        let partition = subjects::partition_of(&battery.name, partitions);
        self.owned().get(&partition).cloned()
    }

    fn owned(&self) -> MutexGuard<'_, HashMap<u32, TaskTracker>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes an estimator whose entry vanished from the bucket.
    pub fn forget(&self, battery: &BatteryName, estimator: &EstimatorName) {
        let battery = self.battery(battery);
        let mut state = battery.state();
        state.elsewhere.remove(estimator);
        if let Some(link) = state.links.remove(estimator) {
            tracing::info!("estimator {estimator} of {} is removed", battery.name);
            link.mailbox.replace(None);
            self.shared.metrics.estimators.dec();
        }
    }

    fn start_worker(
        &self,
        battery: Arc<Battery>,
        registration: &Arc<Registration>,
        workers: &TaskTracker,
    ) -> Link {
        let most_frames = self.shared.settings.mailbox_frames.get();
        let mailbox = Arc::new(Mailbox::new(Arc::clone(registration), most_frames));
        let worker = Worker {
            shared: Arc::clone(&self.shared),
            battery,
            estimator: registration.estimator.clone(),
            mailbox: Arc::clone(&mailbox),
        };
        let running = workers.track_future(worker::run(worker));
        self.workers.spawn_on(running, &self.runtime);
        Link {
            registration: Arc::clone(registration),
            is_live: false,
            mailbox,
        }
    }

    /// Runs a task beside the workers, never on the threads of the HTTP server; it has to end when
    /// the service stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.workers.spawn_on(task, &self.runtime);
    }

    /// Returns when every worker has ended, which they do when the service stops.
    pub async fn ended(&self) {
        self.workers.close();
        self.workers.wait().await;
    }
}
