//! What another twin knows of the estimators that it runs, by NATS request: so any twin answers for
//! all batteries.
//!
//! In: batteries, on `rovi.peer.<instance>`. Out: the states of their estimators as that twin shows
//! them; an answer that would be too large ends early, and the rest is asked for again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{Message, Request};
use futures_util::{StreamExt, stream};
use rovi_common::{
    name::{BatteryName, EstimatorName},
    subjects,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::fleet::{Battery, Fleet};

/// Batteries asked for at once.
const BATTERIES_AT_ONCE: usize = 256;
/// Requests under way at the same time.
const REQUESTS: usize = 4;
/// The most bytes of states in an answer; NATS takes 1 MiB.
const ANSWER_BYTES: usize = 512 << 10;
const PATIENCE: Duration = Duration::from_secs(2);
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// States of estimators by battery and name, as they are shown.
pub(crate) type Statuses = HashMap<BatteryName, BTreeMap<EstimatorName, Box<RawValue>>>;

/// Which twin owns each partition, as far as this one heard.
#[derive(Debug, Default)]
pub struct Owners(Mutex<Arc<BTreeMap<u32, String>>>);

impl Owners {
    /// Takes what was heard.
    pub(crate) fn set(&self, owners: BTreeMap<u32, String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(owners);
    }

    /// Returns what was heard.
    pub(crate) fn get(&self) -> Arc<BTreeMap<u32, String>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Which estimators of a battery are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Which {
    All,
    /// The one whose numbers count.
    Champions,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    which: Which,
    batteries: Vec<BatteryName>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    /// So many of the batteries asked for, from the first, were looked at.
    done: usize,
    statuses: Statuses,
}

/// Returns the states of batteries' estimators, all or the champions', whichever twins run them;
/// one whose twin does not answer is left out.
pub(crate) async fn statuses(fleet: &Fleet, batteries: &[BatteryName], which: Which) -> Statuses {
    let shared = fleet.shared();
    let (owners, partitions) = (shared.owners.get(), shared.settings.bus.partitions);
    let mut found = Statuses::new();
    let mut elsewhere: BTreeMap<&str, Vec<BatteryName>> = BTreeMap::new();
    for name in batteries {
        let here = fleet.find(name);
        let here = here.map(|battery| shown(&battery, which));
        if let Some(here) = here.filter(|here| !here.is_empty()) {
            found.insert(name.clone(), here);
            continue;
        }
        let owner = owners.get(&subjects::partition_of(name, partitions));
        if let Some(owner) = owner.filter(|owner| **owner != shared.instance) {
            elsewhere.entry(owner).or_default().push(name.clone());
        }
    }
    let asks = elsewhere.into_iter().flat_map(|(owner, names)| {
        let parts: Vec<Vec<BatteryName>> =
            names.chunks(BATTERIES_AT_ONCE).map(<[_]>::to_vec).collect();
        parts.into_iter().map(move |names| (owner, names))
    });
    let asks = asks.map(|(owner, names)| ask(fleet, owner, names, which));
    let answers: Vec<Statuses> = stream::iter(asks)
        .buffer_unordered(REQUESTS)
        .collect()
        .await;
    found.extend(answers.into_iter().flatten());
    found
}

async fn ask(
    fleet: &Fleet,
    owner: &str,
    mut batteries: Vec<BatteryName>,
    which: Which,
) -> Statuses {
    let mut found = Statuses::new();
    while !batteries.is_empty() {
        let ask = Ask { which, batteries };
        let answer = match request(fleet, owner, &ask).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!("the twin {owner} does not tell of its estimators: {error}");
                return found;
            }
        };
        batteries = ask.batteries;
        batteries.drain(..answer.done.clamp(1, batteries.len()));
        found.extend(answer.statuses);
    }
    found
}

async fn request(fleet: &Fleet, owner: &str, ask: &Ask) -> Result<Answer, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let body = serde_json::to_vec(ask).map_err(|error| text(&error))?;
    let request = Request::new().payload(body.into()).timeout(Some(PATIENCE));
    let client = fleet.shared().jetstream.client();
    let answer = client.send_request(subjects::twin(owner), request).await;
    let answer = answer.map_err(|error| text(&error))?;
    serde_json::from_slice(&answer.payload).map_err(|error| text(&error))
}

/// Answers other twins until the service stops.
pub(crate) async fn answer(fleet: Arc<Fleet>, nats: async_nats::Client) {
    let shared = fleet.shared();
    while !shared.stop.is_cancelled() {
        if let Ok(mut asked) = nats.subscribe(subjects::twin(&shared.instance)).await {
            loop {
                let message = tokio::select! {
                    () = shared.stop.cancelled() => return,
                    message = asked.next() => message,
                };
                let Some(message) = message else { break };
                reply(&fleet, &nats, &message).await;
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
    }
}

/// Answers one request; one that cannot be read gets no answer.
async fn reply(fleet: &Fleet, nats: &async_nats::Client, message: &Message) {
    let (Some(to), Ok(ask)) = (
        &message.reply,
        serde_json::from_slice::<Ask>(&message.payload),
    ) else {
        return;
    };
    let (mut answer, mut bytes) = (Answer::default(), 0);
    for name in ask.batteries {
        if bytes > ANSWER_BYTES {
            break;
        }
        answer.done += 1;
        let Some(battery) = fleet.find(&name) else {
            continue;
        };
        let shown = shown(&battery, ask.which);
        let size: usize = shown.values().map(|status| status.get().len()).sum();
        // What no message holds is asked for at the twin itself.
        if !shown.is_empty() && size <= ANSWER_BYTES {
            bytes += size;
            answer.statuses.insert(name, shown);
        }
    }
    let Ok(body) = serde_json::to_vec(&answer) else {
        return;
    };
    if let Err(error) = nats.publish(to.clone(), body.into()).await {
        tracing::debug!("another twin is not answered: {error}");
    }
}

/// Shows the estimators of a battery that run here.
fn shown(battery: &Battery, which: Which) -> BTreeMap<EstimatorName, Box<RawValue>> {
    let statuses = match which {
        Which::Champions => battery
            .champion_status()
            .map(|status| (status.estimator.clone(), status))
            .into_iter()
            .collect(),
        Which::All => battery
            .statuses()
            .into_iter()
            .map(|(name, (status, _))| (name, status))
            .collect::<Vec<_>>(),
    };
    statuses
        .into_iter()
        .filter_map(|(name, status)| Some((name, serde_json::value::to_raw_value(&status).ok()?)))
        .collect()
}
