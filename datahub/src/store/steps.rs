//! The sessions of a group: each moves from before its first batch to after its last.

use std::collections::{HashMap, HashSet};

use diesel::PgConnection;
use uuid::Uuid;

use super::{
    batteries::Line,
    group::{ByBattery, Failure, Outcome, Outcomes},
    sessions::{self, Step},
};
use crate::{batch::Batch, relayed::Place};

/// Moves the sessions over their batches; batches that may not be stored, or were before, leave
/// `by_battery`.
pub(super) fn take(
    connection: &mut PgConnection,
    batches: &[Batch],
    lines: &[Line],
    by_battery: &mut ByBattery,
    outcomes: &mut Outcomes,
) -> Result<(), Failure> {
    let steps = joined(batches, by_battery);
    if steps.is_empty() {
        return Ok(());
    }
    let moved = sessions::advance(connection, &steps)?;
    if moved.len() == steps.len() {
        return Ok(());
    }
    // Some did not stand where their connections believe them to be: look, and move those whose
    // first batches were stored before.
    // An older connection of a session that moved is one of them: its step is not the session's.
    let moved: HashSet<(Uuid, i64)> = moved.into_iter().collect();
    let others = steps.iter().filter(|step| !moved.contains(&step.key()));
    let others: Vec<Uuid> = others.map(|step| step.session).collect();
    let held = sessions::hold(connection, &others)?;
    let held: HashMap<Uuid, (i64, i64)> = held
        .into_iter()
        .map(|(id, attempt, position)| (id, (attempt, position)))
        .collect();
    by_battery.retain(|id, places| {
        let newest = newest(lines, *id);
        places.retain(|&place| {
            let Some(batch) = batches.get(place) else {
                return false;
            };
            if moved.contains(&key(batch)) {
                return true;
            }
            let verdict = judge(batch, &held, newest);
            verdict
                .map(|outcome| outcomes.set(place, outcome))
                .is_none()
        });
        !places.is_empty()
    });
    let left: Vec<Step> = joined(batches, by_battery)
        .into_iter()
        .filter(|step| !moved.contains(&step.key()))
        .collect();
    let moved_now = sessions::advance(connection, &left)?;
    if moved_now.len() == left.len() {
        return Ok(());
    }
    // Positions are held; only a hole between batches of one connection can bring us here.
    let moved_now: HashSet<(Uuid, i64)> = moved_now.into_iter().collect();
    let stuck = |place: &usize| {
        let key = batches.get(*place).map(key);
        key.is_none_or(|key| !moved.contains(&key) && !moved_now.contains(&key))
    };
    by_battery.retain(|_, places| {
        let refused = places.extract_if(.., |place| stuck(place)).collect();
        outcomes.set_all(Some(refused), || Outcome::Superseded);
        !places.is_empty()
    });
    Ok(())
}

/// Names the connection of a batch: its session, and which connection of that.
fn key(batch: &Batch) -> (Uuid, i64) {
    let claim = &batch.uploader.claim;
    (claim.session, claim.attempt)
}

/// Joins the batches of each connection into one step.
pub(super) fn joined(batches: &[Batch], by_battery: &ByBattery) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut known: HashMap<(Uuid, i64), usize> = HashMap::new();
    for batch in by_battery
        .values()
        .flatten()
        .filter_map(|&place| batches.get(place))
    {
        let claim = &batch.uploader.claim;
        let key = key(batch);
        let step = known.get(&key).and_then(|&at| steps.get_mut(at));
        if let Some(step) = step {
            step.to = batch.end();
            continue;
        }
        known.insert(key, steps.len());
        steps.push(Step {
            battery: claim.battery_id,
            session: claim.session,
            attempt: claim.attempt,
            from: batch.position,
            to: batch.end(),
        });
    }
    steps
}

/// Says why a batch whose session did not move is not written; none if it still can be.
fn judge(batch: &Batch, held: &HashMap<Uuid, (i64, i64)>, newest: Place) -> Option<Outcome> {
    let claim = &batch.uploader.claim;
    match held.get(&claim.session) {
        Some(&(attempt, position)) if attempt == claim.attempt => {
            (batch.end() <= position).then_some(Outcome::Before(newest))
        }
        _ => Some(Outcome::Superseded),
    }
}

/// Returns the newest row of a battery.
fn newest(lines: &[Line], id: i64) -> Place {
    let line = lines.iter().find(|line| line.id == id);
    line.map_or_else(Place::default, |line| Place {
        epoch: line.epoch,
        seq: line.last_seq,
    })
}
