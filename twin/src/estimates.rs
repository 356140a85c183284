//! Estimates on their way to the bus: gathered into frames, sent with several in flight, sent again
//! until the stream has them.

use std::{
    collections::VecDeque,
    future::IntoFuture,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::context::{PublishAckFuture, PublishError};
use bytes::Bytes;
use rovi_common::{
    fault,
    frame::{
        EstimateFrame, FRAME_VERSION, Lineage, MAX_FRAME_BYTES, deviation_column, estimate_column,
    },
    name::{BatteryName, EstimatorName},
    rows::{Column, Columns},
    streams, subjects,
};
use rovi_estimation::{Estimator, Step, TrustState};

use crate::fleet::Shared;

/// Frames sent and not yet acknowledged.
const IN_FLIGHT: usize = 64;
/// By then the stream has answered, unless something is wrong.
const ANSWERED: Duration = Duration::from_millis(500);
/// Estimates of one frame: of rows that pour in, four frames' make one, which costs the bus hardly
/// more than each of them.
const MOST_ESTIMATES: usize = 1024;
/// How soon frames that could not be sent are tried again, at first.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The most bytes of a float in msgpack.
const FLOAT_BYTES: usize = 9;
const INNOVATION: &str = "innovation";
/// Columns behind the states and the innovation.
const HEALTH: [&str; 5] = [
    "state_of_health",
    "state_of_health__std",
    "equivalent_full_cycles",
    "energy_throughput",
    "trust",
];

/// Whose estimates these are.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The battery.
    pub battery: BatteryName,
    /// Its estimator.
    pub estimator: EstimatorName,
    /// The revision of the registration.
    pub revision: i64,
    /// Raised whenever rows already estimated are estimated anew.
    pub generation: i64,
}

/// What a step showed of the voltage, for those who compare estimators.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shown {
    /// The row.
    pub(crate) seq: i64,
    /// Measured less predicted voltage, V.
    pub(crate) innovation: f64,
    /// Standard deviation of the prediction, V.
    pub(crate) deviation: f64,
}

/// Estimates in the making: an open frame and the encoded ones.
#[derive(Debug)]
pub struct Outbox {
    sender: Sender,
    states: Arc<[String]>,
    /// Whether health and trust are told, too.
    has_health: bool,
    epoch: i64,
    seq: Vec<i64>,
    test_time: Vec<f64>,
    /// By column; none while the open frame is empty.
    cells: Vec<Vec<Option<f64>>>,
    frames: Vec<Bytes>,
    estimates: u64,
    lineage: Option<Arc<Lineage>>,
    rows_from: i64,
    /// Rows that older generations told of and that are yet to be estimated anew.
    to_replace: Option<(i64, i64)>,
    replaced: Option<(i64, i64)>,
    /// Where it stands, what steps showed goes there and no frames are made.
    tap: Option<Vec<Shown>>,
}

impl Outbox {
    /// Returns an outbox that keeps only what each step showed.
    pub(crate) fn tap(sender: Sender) -> Self {
        Self {
            tap: Some(Vec::new()),
            ..Self::new(sender, Arc::default())
        }
    }

    /// Whether each row counts, and not only those that are published.
    pub(crate) fn is_tap(&self) -> bool {
        self.tap.is_some()
    }

    /// Takes what steps showed since this was last asked.
    pub(crate) fn take_shown(&mut self) -> Vec<Shown> {
        self.tap.as_mut().map(mem::take).unwrap_or_default()
    }

    /// Returns an empty outbox for an estimator of these states.
    pub fn new(sender: Sender, states: Arc<[String]>) -> Self {
        Self {
            sender,
            states,
            has_health: false,
            epoch: 0,
            seq: Vec::new(),
            test_time: Vec::new(),
            cells: Vec::new(),
            frames: Vec::new(),
            estimates: 0,
            tap: None,
            lineage: None,
            rows_from: 0,
            to_replace: None,
            replaced: None,
        }
    }

    /// Returns an empty outbox for a native estimator, which tells of health and trust, too.
    pub fn with_health(sender: Sender, states: Arc<[String]>) -> Self {
        Self {
            has_health: true,
            ..Self::new(sender, states)
        }
    }

    /// The columns of an estimate: means, standard deviations, what the newest row showed, and
    /// health. They are named when a frame is written: between frames an outbox is next to nothing.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.states.iter().map(|one| estimate_column(one)).collect();
        names.extend(self.states.iter().map(|state| deviation_column(state)));
        names.extend([INNOVATION.to_owned(), deviation_column(INNOVATION)]);
        if self.has_health {
            names.extend(HEALTH.map(str::to_owned));
        }
        names
    }

    fn columns(&self) -> usize {
        let health = if self.has_health { HEALTH.len() } else { 0 };
        2 * self.states.len() + 2 + health
    }

    fn most_rows(&self) -> usize {
        let row_bytes = FLOAT_BYTES * (self.columns() + 2);
        (MAX_FRAME_BYTES / 2 / row_bytes).clamp(1, MOST_ESTIMATES)
    }

    /// Says of all that follows what made it.
    #[must_use]
    pub fn made_by(mut self, lineage: Arc<Lineage>) -> Self {
        self.lineage = Some(lineage);
        self
    }

    /// Says of all that follows that older generations told of these rows.
    #[must_use]
    pub fn replacing(mut self, rows: Option<(i64, i64)>) -> Self {
        self.to_replace = rows.filter(|(first, last)| first <= last);
        self
    }

    /// Says of all that follows which row was the first that it is made of.
    pub(crate) fn made_from(&mut self, seq: i64) {
        self.rows_from = seq;
    }

    /// Notes that every row up to `seq` of `epoch` was dealt with, so that what older generations
    /// said of them is over.
    pub(crate) fn reached(&mut self, (epoch, seq): (i64, i64)) {
        if let Some((first, last)) = self.to_replace
            && first <= seq
        {
            let until = seq.min(last);
            self.epoch = epoch;
            // What was reached before and is not said yet: rows that were deleted, for example.
            let from = self.replaced.map_or(first, |(from, _)| from);
            self.replaced = Some((from, until));
            self.to_replace = (until < last).then_some((until + 1, last));
        }
    }

    /// Adds the estimate after row `seq` with `test_time` in seconds.
    pub(crate) fn push(
        &mut self,
        (epoch, seq, test_time): (i64, i64, f64),
        estimator: &Estimator,
        step: &Step,
    ) {
        let innovation = (step.innovation, step.predicted_variance.sqrt());
        if self.show(seq, Some(innovation)) {
            return;
        }
        let belief = (estimator.mean(), estimator.covariance());
        let place = (epoch, seq, test_time);
        self.push_row(place, belief, Some(innovation), health(estimator));
    }

    /// Adds mean and covariance (row-major) after row `seq`, and the innovation with its standard
    /// deviation, in volts, where it is known.
    pub(crate) fn push_belief(
        &mut self,
        place: (i64, i64, f64),
        belief: (&[f64], &[f64]),
        innovation: Option<(f64, f64)>,
    ) {
        if !self.show(place.1, innovation) {
            self.push_row(place, belief, innovation, []);
        }
    }

    /// Keeps what a step showed, if that is all that is wanted; tells whether it is.
    fn show(&mut self, seq: i64, innovation: Option<(f64, f64)>) -> bool {
        let Some(tap) = &mut self.tap else {
            return false;
        };
        tap.extend(innovation.map(|(innovation, deviation)| Shown {
            seq,
            innovation,
            deviation,
        }));
        true
    }

    fn push_row<const N: usize>(
        &mut self,
        (epoch, seq, test_time): (i64, i64, f64),
        (mean, covariance): (&[f64], &[f64]),
        innovation: Option<(f64, f64)>,
        health: [Option<f64>; N],
    ) {
        let is_behind = self.seq.last().is_some_and(|last| *last >= seq);
        if self.epoch != epoch || is_behind || self.seq.len() >= self.most_rows() {
            self.close();
            self.epoch = epoch;
        }
        self.seq.push(seq);
        self.test_time.push(test_time);
        let variances = covariance.iter().step_by(mean.len() + 1);
        let innovation = [innovation.map(|one| one.0), innovation.map(|one| one.1)];
        let values = mean.iter().copied().map(Some);
        let values = values.chain(variances.map(|variance| Some(variance.sqrt())));
        let values = values.chain(innovation).chain(health);
        self.cells.resize_with(self.columns(), Vec::new);
        for (column, value) in self.cells.iter_mut().zip(values) {
            column.push(value);
        }
    }

    /// Names the states of the estimates that follow, where a script told them only now.
    pub(crate) fn name_states(&mut self, states: &[String]) {
        if self.tap.is_none() && *self.states != *states {
            self.close();
            self.states = states.into();
        }
    }

    /// Returns the last row of which something is said that was not taken yet.
    pub(crate) fn last_row(&self) -> Option<i64> {
        let replaced = self.replaced.map(|(_, last)| last);
        self.seq.last().copied().max(replaced)
    }

    /// Closes the open frame and returns the encoded frames and the number of estimates in them.
    pub fn take(&mut self) -> (Vec<Bytes>, u64) {
        let replaced = self.replaced.take();
        if replaced.is_some() || !self.seq.is_empty() {
            self.encode_open(replaced);
        }
        (mem::take(&mut self.frames), mem::take(&mut self.estimates))
    }

    fn close(&mut self) {
        if !self.seq.is_empty() {
            self.encode_open(None);
        }
    }

    fn encode_open(&mut self, replaces: Option<(i64, i64)>) {
        self.estimates += u64::try_from(self.seq.len()).unwrap_or_default();
        let mut cells = mem::take(&mut self.cells);
        cells.resize_with(self.columns(), Vec::new);
        let cells = cells.into_iter().map(Column::Float);
        let columns = self.names().into_iter().zip(cells).collect();
        let lineage = self.lineage.as_deref().map(|made_by| Lineage {
            rows_from: self.rows_from,
            ..made_by.clone()
        });
        let frame = EstimateFrame {
            v: FRAME_VERSION,
            battery: self.sender.battery.clone(),
            estimator: self.sender.estimator.clone(),
            revision: self.sender.revision,
            generation: self.sender.generation,
            epoch: self.epoch,
            seq: mem::take(&mut self.seq),
            test_time: mem::take(&mut self.test_time),
            columns: Columns::new(columns)
                .expect("each state's name stands once and each row fills every column"),
            replaces,
            lineage,
        };
        self.frames.push(frame.encode());
    }
}

/// The number that stands for a state in estimates.
pub(crate) fn trust_number(state: TrustState) -> f64 {
    match state {
        TrustState::Healthy => 0.0,
        TrustState::Suspect => 1.0,
        TrustState::Diverged => 2.0,
    }
}

/// The values of [`HEALTH`].
fn health(estimator: &Estimator) -> [Option<f64>; 5] {
    let health = estimator.health();
    [
        Some(health.state_of_health.value),
        health.state_of_health.deviation,
        Some(health.equivalent_full_cycles),
        Some(health.charged_wh + health.discharged_wh),
        Some(trust_number(estimator.trust().state)),
    ]
}

/// The service stopped before the bus took everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the service stops while estimates wait for the bus")]
pub struct Stopped;

/// Sends the frames of one estimator, in order.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    subject: String,
    in_flight: VecDeque<Sent>,
}

/// A frame whose acknowledgement was not looked at yet.
#[derive(Debug)]
struct Sent {
    frame: Bytes,
    acknowledged: PublishAckFuture,
    at: Instant,
}

impl Publisher {
    /// Returns a publisher for an estimator of a battery.
    pub fn new(shared: Arc<Shared>, sender: &Sender) -> Self {
        Self {
            shared,
            subject: subjects::estimates_of(&sender.battery, &sender.estimator),
            in_flight: VecDeque::new(),
        }
    }

    /// Sends a frame; waits only where many are unacknowledged.
    ///
    /// # Errors
    /// [`Stopped`]: the bus is away and the service stops.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), Stopped> {
        while let Some(oldest) = self.in_flight.front()
            && (self.in_flight.len() >= IN_FLIGHT || oldest.at.elapsed() >= ANSWERED)
        {
            self.settle_oldest().await?;
        }
        fault::passed("twin.before_publish");
        match self
            .shared
            .jetstream
            .publish(self.subject.clone(), frame.clone())
            .await
        {
            Ok(acknowledged) => {
                self.in_flight.push_back(Sent {
                    frame,
                    acknowledged,
                    at: Instant::now(),
                });
                Ok(())
            }
            Err(error) => Box::pin(self.send_again(None, Some(frame), &error)).await,
        }
    }

    /// Returns when the stream has every frame sent so far.
    ///
    /// # Errors
    /// [`Stopped`]: the bus is away and the service stops.
    pub async fn settle(&mut self) -> Result<(), Stopped> {
        while !self.in_flight.is_empty() {
            self.settle_oldest().await?;
        }
        // One that waits keeps no room for a burst of the past.
        self.in_flight = VecDeque::new();
        Ok(())
    }

    async fn settle_oldest(&mut self) -> Result<(), Stopped> {
        let Some(Sent {
            frame,
            acknowledged,
            ..
        }) = self.in_flight.pop_front()
        else {
            return Ok(());
        };
        match acknowledged.into_future().await {
            Ok(_) => {
                fault::passed("twin.after_publish");
                Ok(())
            }
            Err(error) => Box::pin(self.send_again(Some(frame), None, &error)).await,
        }
    }

    /// Sends what is in flight again, before it `oldest` or after it `newest`.
    async fn send_again(
        &mut self,
        oldest: Option<Bytes>,
        newest: Option<Bytes>,
        error: &PublishError,
    ) -> Result<(), Stopped> {
        let in_flight = mem::take(&mut self.in_flight);
        let between = in_flight.into_iter().map(|sent| sent.frame);
        let frames: Vec<Bytes> = oldest.into_iter().chain(between).chain(newest).collect();
        let subject = &self.subject;
        tracing::warn!("{subject}: {} frames are sent again: {error}", frames.len());
        self.send_one_by_one(frames).await
    }

    /// Sends frames one by one until each is in the stream; sending one twice changes nothing,
    /// since the hub keeps estimates by their key.
    async fn send_one_by_one(&self, frames: Vec<Bytes>) -> Result<(), Stopped> {
        let mut wait = FIRST_WAIT;
        for frame in frames {
            while let Err(problem) = self.try_once(frame.clone()).await {
                self.tell_of(&problem, wait == FIRST_WAIT);
                tokio::select! {
                    () = self.shared.stop.cancelled() => return Err(Stopped),
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(Duration::from_secs(2));
            }
        }
        Ok(())
    }

    /// Says why frames wait; the first time so that it is seen.
    fn tell_of(&self, problem: &str, is_first: bool) {
        let subject = &self.subject;
        if is_first {
            tracing::warn!("{subject}: estimates wait until they can be sent: {problem}");
        } else {
            tracing::debug!("{subject}: still not sent: {problem}");
        }
    }

    async fn try_once(&self, frame: Bytes) -> Result<(), String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let jetstream = &self.shared.jetstream;
        let made = streams::ensure_estimates(jetstream, &self.shared.settings.bus).await;
        made.map_err(|error| text(&error))?;
        let sent = jetstream.publish(self.subject.clone(), frame).await;
        let acknowledged = sent.map_err(|error| text(&error))?;
        acknowledged.await.map(drop).map_err(|error| text(&error))
    }
}
