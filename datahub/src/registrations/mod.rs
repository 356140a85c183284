//! Registrations of estimators: twins ask, the hub commits, the bucket tells all twins.
//!
//! In: requests on `rovi.hub.register`, `rovi.hub.deregister` and `rovi.hub.control`. Out: lines of
//! `hub.estimators`, `hub.estimator_files` and `hub.champions`, an answer once they are durable, and then the bucket
//! `rovi_estimators` (`projection`). A bucket or object store that was wiped, or an update that was lost, is made good from the
//! table.

mod files;
mod projection;

use std::sync::Arc;

use async_nats::Message;
use futures_util::StreamExt;
use prometheus::IntCounterVec;
use rovi_common::{
    error::ErrorChain,
    lifecycle::Lifecycle,
    name::{BatteryName, EstimatorName},
    registration::{Control, Deregister, Register, Registration, Reply},
    subjects,
    telemetry::Metrics,
};
use serde::de::DeserializeOwned;

use self::projection::Projection;
use crate::{
    bus::{Bus, BusError},
    store::{
        Pool, StoreError,
        registrations::{self, Controlled},
    },
};

/// Requests worked on at once; each uses a connection of the pool.
const REQUESTS_AT_ONCE: usize = 2;
/// What a message has besides the registration, at most, in bytes.
const MESSAGE_OVERHEAD: usize = 1024;

/// Answers twins about registrations.
#[derive(Debug, Clone)]
pub struct Registrations {
    bus: Arc<Bus>,
    pool: Pool,
    projection: Arc<Projection>,
    answered: IntCounterVec,
}

impl Registrations {
    /// Makes the service; nothing is answered until [`Registrations::start`].
    pub fn new(bus: Arc<Bus>, pool: Pool, metrics: &Metrics) -> Self {
        let answered = metrics.counters(
            "datahub_registrations_total",
            "Requests to register, remove or control an estimator, by answer.",
            &["result"],
        );
        for result in ["done", "not_found", "refused", "conflict", "unavailable"] {
            answered.with_label_values(&[result]);
        }
        let projection = Arc::new(Projection::new(Arc::clone(&bus), pool.clone()));
        Self {
            bus,
            pool,
            projection,
            answered,
        }
    }

    /// Starts answering and keeping the bucket, until the service stops.
    pub fn start(self, lifecycle: &Lifecycle) {
        let stop = lifecycle.stop_token();
        let projection = Arc::clone(&self.projection);
        lifecycle.supervise("registrations.projection", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = projection.keep() => {}
            }
        });
        let stop = lifecycle.stop_token();
        lifecycle.supervise("registrations", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.serve() => {}
            }
        });
    }

    /// Makes the bucket say of an estimator what the table says; failing that, it is done later.
    pub(crate) async fn tell_of(&self, battery: &BatteryName, estimator: &EstimatorName) {
        self.projection.tell(battery, estimator).await;
    }

    /// Answers requests; the client renews its subscriptions by itself after it lost the bus.
    async fn serve(self) {
        while self.bus.ready().await.is_some() {
            match self.subscribe().await {
                Ok(requests) => {
                    let answers = requests
                        .for_each_concurrent(REQUESTS_AT_ONCE, |request| self.answer(request));
                    answers.await;
                }
                Err(error) => {
                    tracing::warn!("registrations cannot be served: {}", ErrorChain(&error));
                    self.bus.doubt();
                }
            }
            tokio::time::sleep(projection::RETRY_AFTER).await;
        }
    }

    async fn subscribe(&self) -> Result<impl StreamExt<Item = Message> + use<>, BusError> {
        let client = self.bus.client();
        let what = "take a subscription";
        let queue = || subjects::HUB_QUEUE.to_owned();
        let register = client.queue_subscribe(subjects::REGISTER, queue());
        let register = register.await.map_err(BusError::request(what))?;
        let deregister = client.queue_subscribe(subjects::DEREGISTER, queue());
        let deregister = deregister.await.map_err(BusError::request(what))?;
        let control = client.queue_subscribe(subjects::CONTROL, queue());
        let control = control.await.map_err(BusError::request(what))?;
        let changes = futures_util::stream::select(deregister, control);
        Ok(futures_util::stream::select(register, changes))
    }

    async fn answer(&self, request: Message) {
        let reply = match request.subject.as_str() {
            subjects::REGISTER => self.register(&request.payload).await,
            subjects::CONTROL => self.control(&request.payload).await,
            _ => self.deregister(&request.payload).await,
        };
        self.count(&request.subject, &reply);
        if let Some(inbox) = request.reply {
            let body = serde_json::to_vec(&reply).unwrap_or_default();
            if let Err(error) = self.bus.client().publish(inbox, body.into()).await {
                tracing::warn!("an answer about a registration was not sent: {error}");
            }
        }
        if let Reply::Done(registration) = reply {
            self.tell_of(&registration.battery, &registration.estimator)
                .await;
        }
    }

    fn count(&self, subject: &str, reply: &Reply) {
        let (label, told) = match reply {
            Reply::Done(_) => ("done", ""),
            Reply::NotFound { detail } => ("not_found", detail.as_str()),
            Reply::Refused { detail } => ("refused", detail.as_str()),
            Reply::Conflict { detail } => ("conflict", detail.as_str()),
            Reply::Unavailable { detail } => ("unavailable", detail.as_str()),
        };
        self.answered.with_label_values(&[label]).inc();
        tracing::info!("a request on {subject} is {label}: {told}");
    }

    async fn register(&self, payload: &[u8]) -> Reply {
        let request: Register = match parse(payload) {
            Ok(request) => request,
            Err(refused) => return refused,
        };
        if request.definition.contains('\0') {
            let detail = "the definition holds a NUL character".to_owned();
            return Reply::Refused { detail };
        }
        let most = self.bus.client().server_info().max_payload;
        let most = most.saturating_sub(MESSAGE_OVERHEAD);
        if payload.len() > most {
            let bytes = payload.len();
            let detail = format!("the registration has {bytes} bytes, the limit is {most}");
            return Reply::Refused { detail };
        }
        let contents = match files::read(&self.bus, &request.files).await {
            Ok(contents) => contents,
            Err(reply) => return reply,
        };
        let detail = format!("there is no battery `{}`", request.battery);
        let commit = move |conn: &mut _| registrations::register(conn, &request, &contents);
        answer_of(self.pool.run(commit).await, detail)
    }

    async fn deregister(&self, payload: &[u8]) -> Reply {
        let request: Deregister = match parse(payload) {
            Ok(request) => request,
            Err(refused) => return refused,
        };
        let (battery, estimator) = (&request.battery, &request.estimator);
        let detail = format!("battery `{battery}` has no estimator `{estimator}`");
        let commit = move |conn: &mut _| registrations::deregister(conn, &request);
        answer_of(self.pool.run(commit).await, detail)
    }

    async fn control(&self, payload: &[u8]) -> Reply {
        let request: Control = match parse(payload) {
            Ok(request) => request,
            Err(refused) => return refused,
        };
        let (battery, estimator) = (&request.battery, &request.estimator);
        let not_found = format!("battery `{battery}` has no estimator `{estimator}`");
        let commit = move |conn: &mut _| registrations::control(conn, &request);
        match self.pool.run(commit).await {
            Ok(Controlled::Done(registration)) => Reply::Done(registration),
            Ok(Controlled::NotFound) => Reply::NotFound { detail: not_found },
            Ok(Controlled::Conflict(detail)) => Reply::Conflict { detail },
            Err(error) => Reply::Unavailable {
                detail: ErrorChain(&error).to_string(),
            },
        }
    }
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Reply> {
    serde_json::from_slice(payload).map_err(|error| Reply::Refused {
        detail: format!("the request is not of the form that the hub knows: {error}"),
    })
}

fn answer_of(committed: Result<Option<Registration>, StoreError>, not_found: String) -> Reply {
    match committed {
        Ok(Some(registration)) => Reply::Done(Box::new(registration)),
        Ok(None) => Reply::NotFound { detail: not_found },
        Err(error) => Reply::Unavailable {
            detail: ErrorChain(&error).to_string(),
        },
    }
}
