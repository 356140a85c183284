//! Commands as NATS requests: `rovi.twin.<command>`, JSON in, `{"status", "body"}` out as HTTP has
//! them. Any twin answers.

use std::{sync::Arc, time::Duration};

use async_nats::Message;
use futures_util::StreamExt;
use rovi_common::{
    files::FileRef,
    http::Problem,
    name::{BatteryName, EstimatorName},
    registration::{Action, Register},
    subjects::{TWIN_QUEUE, TWIN_REQUESTS},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{backtest, control::control};
use crate::{api::remove_estimator::remove, fleet::Fleet};

/// Requests worked on at once; further ones wait in the subscription.
const AT_ONCE: usize = 8;
const SUBSCRIBE_AGAIN: Duration = Duration::from_millis(500);

/// What every command may have; each refuses where it lacks what it needs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    battery: BatteryName,
    estimator: Option<EstimatorName>,
    id: Option<String>,
    definition: Option<String>,
    valid_from: Option<f64>,
    required_time: Option<f64>,
    /// Files of a script, which are in the object store.
    #[serde(default)]
    files: Vec<FileRef>,
    /// First and last row of a backtest.
    #[serde(default)]
    seq: (Option<i64>, Option<i64>),
}

/// Answers until the service stops; the client renews its subscription by itself.
pub(crate) async fn serve(fleet: Arc<Fleet>, nats: async_nats::Client) {
    let stop = fleet.shared().stop.clone();
    while !stop.is_cancelled() {
        let subject = format!("{TWIN_REQUESTS}.>");
        if let Ok(requests) = nats.queue_subscribe(subject, TWIN_QUEUE.to_owned()).await {
            let answers =
                requests.for_each_concurrent(AT_ONCE, |request| answer(&fleet, &nats, request));
            tokio::select! {
                () = stop.cancelled() => return,
                () = answers => {}
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SUBSCRIBE_AGAIN) => {}
        }
    }
}

async fn answer(fleet: &Arc<Fleet>, nats: &async_nats::Client, message: Message) {
    let Some(inbox) = message.reply else { return };
    let command = message.subject.strip_prefix(TWIN_REQUESTS);
    let command = command.and_then(|command| command.strip_prefix('.'));
    let done = run(fleet, command.unwrap_or_default(), &message.payload).await;
    let answer = match done {
        Ok(body) => json!({"status": 200, "body": body}),
        Err(problem) => json!({"status": problem.status.as_u16(), "body": problem}),
    };
    if let Err(error) = nats.publish(inbox, answer.to_string().into()).await {
        tracing::warn!("the answer to {} was not sent: {error}", message.subject);
    }
}

async fn run(fleet: &Arc<Fleet>, command: &str, payload: &[u8]) -> Result<Value, Problem> {
    let request: Request = serde_json::from_slice(payload)
        .map_err(|error| Problem::bad_request(format!("the request cannot be read: {error}")))?;
    let battery = request.battery.clone();
    let action = match command {
        "promote" => Some(Action::Promote),
        "pause" => Some(Action::Pause),
        "resume" => Some(Action::Resume),
        "reset" => Some(Action::Reset),
        _ => None,
    };
    if let Some(action) = action {
        let stand = control(fleet, battery, request.estimator()?, action).await?;
        return value(&stand);
    }
    match command {
        "remove" => value(&remove(fleet, battery, request.estimator()?).await?),
        "backtest.start" => value(&start(fleet, request).await?),
        "backtest.list" => value(&backtest::list(fleet, &battery).await?),
        "backtest.get" => value(&backtest::show(fleet, &battery, request.id()?).await?),
        "backtest.end" => value(&backtest::end(fleet, &battery, request.id()?).await?),
        "backtest.promote" => {
            let named = request.estimator.clone();
            value(&backtest::promote(fleet, (&battery, request.id()?), named).await?)
        }
        _ => Err(Problem::not_found(format!(
            "there is no command `{command}`; there are promote, pause, resume, reset, remove, \
             backtest.start, backtest.list, backtest.get, backtest.end and backtest.promote"
        ))),
    }
}

async fn start(fleet: &Arc<Fleet>, request: Request) -> Result<crate::backtest::Backtest, Problem> {
    let seq = request.seq;
    let Some(definition) = request.definition.clone() else {
        let of = (&request.battery, &request.estimator()?);
        return backtest::of_registered(fleet, of, seq).await;
    };
    let files = backtest::read_files(fleet, &request.files).await?;
    let is_named = request.estimator.is_some();
    let candidate = Register {
        battery: request.battery,
        estimator: request.estimator.unwrap_or_default(),
        definition,
        valid_from: request.valid_from.unwrap_or_default(),
        required_time: request.required_time.unwrap_or_default().max(0.0),
        files: Vec::new(),
    };
    backtest::of_definition(fleet, (candidate, is_named), files, seq).await
}

impl Request {
    fn estimator(&self) -> Result<EstimatorName, Problem> {
        let missing = || Problem::bad_request("the request lacks `estimator`").at("estimator");
        self.estimator.clone().ok_or_else(missing)
    }

    fn id(&self) -> Result<&str, Problem> {
        let missing = || Problem::bad_request("the request lacks `id`").at("id");
        self.id.as_deref().ok_or_else(missing)
    }
}

fn value(body: &impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(body).map_err(|error| Problem::internal(&error))
}
