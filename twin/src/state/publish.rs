//! Sends the states of batteries that have something to say.

use std::sync::Arc;

use async_nats::jetstream::{
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
};
use bytes::Bytes;
use futures_util::future::join_all;
use rovi_common::{
    clock,
    name::BatteryName,
    news::{BatteryState, EstimatorChange, Event, Happening, NEWS_VERSION},
    subjects,
};
use tokio::time::{Duration, Instant, sleep_until};

use super::{Newest, TRY_AGAIN, join::join, newest::put_row};
use crate::{
    fleet::{Fleet, Shared},
    live::{Place, Version},
    subscribe::decode,
};

/// States sent together; the next ones wait for their acknowledgements.
const AT_ONCE: usize = 256;
/// How soon a battery is looked at again for which another twin spoke meanwhile.
const AFTER_CONFLICT: Duration = Duration::from_millis(50);

/// Sends states until the service stops.
pub(crate) async fn publish(fleet: Arc<Fleet>) {
    let shared = fleet.shared();
    let stopped = shared.stop.cancelled();
    tokio::pin!(stopped);
    loop {
        let (due, next) = shared.outlet.take_due(AT_ONCE);
        if due.is_empty() {
            let next = next.unwrap_or_else(|| Instant::now() + TRY_AGAIN);
            tokio::select! {
                () = &mut stopped => return,
                () = shared.outlet.wake.notified() => {}
                () = sleep_until(next) => {}
            }
            continue;
        }
        let sent = join_all(
            due.into_iter()
                .map(|(battery, newest)| speak(&fleet, battery, newest)),
        );
        tokio::select! {
            () = &mut stopped => return,
            _ = sent => {}
        }
    }
}

/// Sends the state of one battery, if this twin knows more than the bus.
async fn speak(fleet: &Fleet, battery: BatteryName, newest: Option<Newest>) {
    let shared = fleet.shared();
    let Some(life) = shared.board.life() else {
        return shared.outlet.retry(&battery, newest, TRY_AGAIN);
    };
    let said = shared.board.newest(&battery);
    let Some((state, sequence)) =
        next_state(fleet, &battery, newest.as_ref(), said.as_deref(), life)
    else {
        return;
    };
    let payload = Bytes::from(state.encode());
    match send(shared, &battery, payload.clone(), sequence).await {
        Ok(sequence) => {
            tell_tenant(shared, &battery, payload).await;
            tell_troubles(shared, said.as_deref().map(|said| &said.state), &state);
            shared.metrics.live.states.inc();
            shared.board.offer(state, Place { life, sequence });
        }
        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
            shared.outlet.retry(&battery, newest, AFTER_CONFLICT);
        }
        Err(error) => {
            tracing::debug!("the state of {battery} is tried again: {error}");
            shared.outlet.retry(&battery, newest, TRY_AGAIN);
        }
    }
}

/// Joins what was said with what is known; nothing where that says no more.
fn next_state(
    fleet: &Fleet,
    battery: &BatteryName,
    newest: Option<&Newest>,
    said: Option<&Version>,
    life: i128,
) -> Option<(BatteryState, u64)> {
    // A stream that was made anew lacks what was said in its earlier life.
    let is_lost = said.is_some_and(|said| said.place.life != life);
    let sequence = said.map_or(0, |said| if is_lost { 0 } else { said.place.sequence });
    let mut state = said.map_or_else(
        || BatteryState::unknown(battery.clone()),
        |said| said.state.clone(),
    );
    let mut says_more = is_lost;
    if let Some(newest) = newest
        && (newest.last.epoch, newest.last.seq) > (state.epoch, state.seq)
        // A frame that cannot be read was told of where it came in.
        && let Ok(frame) = decode(battery, &newest.payload)
    {
        put_row(&mut state, &frame);
        says_more = true;
    }
    let instance = &fleet.shared().instance;
    if let Some(known) = fleet.find(battery) {
        says_more |= join(&mut state, known.known(), instance);
    }
    // A battery that never had a row has no state: there would be nothing to show.
    if !says_more || state.seq == 0 {
        return None;
    }
    state.by.clone_from(instance);
    Some((state, sequence))
}

async fn send(
    shared: &Shared,
    battery: &BatteryName,
    payload: Bytes,
    sequence: u64,
) -> Result<u64, PublishError> {
    let message = PublishMessage::build()
        .payload(payload)
        .expected_last_subject_sequence(sequence);
    let subject = subjects::state_of(battery);
    let acknowledged = shared.jetstream.send_publish(subject, message).await?;
    Ok(acknowledged.await?.sequence)
}

/// Says a state, once it is that of the battery, to those who may hear of its tenant alone. They
/// hear what comes while they listen; who listens late hears the next one.
async fn tell_tenant(shared: &Shared, battery: &BatteryName, payload: Bytes) {
    let Some(tenant) = shared.access.tenant_of(battery) else {
        return;
    };
    let subject = subjects::tenant_state_of(&tenant, battery);
    if let Err(error) = shared.jetstream.client().publish(subject, payload).await {
        tracing::debug!("the tenant {tenant} does not hear of {battery}: {error}");
    }
}

/// Tells as events which estimators came into trouble or out of it, once: only the twin whose state
/// was taken does.
fn tell_troubles(shared: &Shared, before: Option<&BatteryState>, after: &BatteryState) {
    for (name, now) in &after.estimators {
        let known = before.and_then(|before| before.estimators.get(name));
        let was_failing = known.is_some_and(|known| known.error.is_some());
        if was_failing == now.error.is_some() {
            continue;
        }
        let change = EstimatorChange {
            estimator: name.clone(),
            revision: now.revision,
            reason: now.error.clone(),
        };
        let happening = match now.error {
            Some(_) => Happening::EstimatorFailed(change),
            None => Happening::EstimatorRecovered(change),
        };
        let at = clock::now_us();
        let event = Event {
            v: NEWS_VERSION,
            id: format!("{}.{name}.{at}", after.battery),
            battery: after.battery.clone(),
            at,
            happening,
        };
        shared.events.tell(event);
    }
}
