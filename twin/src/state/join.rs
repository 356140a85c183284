//! What the bus says of a battery and what this twin knows, joined: the larger of each.
//!
//! Rows are ordered by `(epoch, seq)`, estimators by revision, generation and the row they have
//! dealt with. So joining gives the same in any order and on any twin.

use std::collections::BTreeMap;

use rovi_common::{
    name::EstimatorName,
    news::{BatteryState, EstimatorState},
    registration::Champion,
};

use super::values_of;
use crate::{fleet::Link, status::Phase};

/// What this twin knows of the estimators of a battery.
#[derive(Debug, Default)]
pub struct Known {
    /// Those that run here.
    pub running: BTreeMap<EstimatorName, EstimatorState>,
    /// Those that were removed, by the revision of their removal.
    pub removed: BTreeMap<EstimatorName, i64>,
    /// The champion, as the hub said.
    pub champion: Option<Champion>,
}

/// The order of two states of one estimator.
fn order(state: &EstimatorState) -> (i64, i64, i64, i64) {
    (state.revision, state.generation, state.epoch, state.seq)
}

/// A twin that is further on its way at the same row knows more; whether it is in trouble is its
/// own affair.
fn rank(state: &EstimatorState) -> u8 {
    match state.phase.as_str() {
        "starting" => 0,
        "catching_up" => 1,
        _ => 2,
    }
}

/// Joins what is known here into what the bus says; tells whether the state says more now.
///
/// At the same row the twin that spoke last may correct itself; another one may only go on.
pub(super) fn join(state: &mut BatteryState, known: Known, instance: &str) -> bool {
    let is_own = state.by == instance;
    let era = |champion: &Option<Champion>| champion.as_ref().map(|champion| champion.era);
    let mut says_more = era(&known.champion) > era(&state.champion);
    if says_more {
        state.champion = known.champion;
    }
    for (name, ours) in known.running {
        let theirs = state.estimators.get(&name);
        let may_speak = theirs.is_none_or(|theirs| {
            let (old, new) = (order(theirs), order(&ours));
            new > old || (new == old && (is_own || rank(&ours) > rank(theirs)))
        });
        if may_speak && theirs != Some(&ours) {
            state.estimators.insert(name, ours);
            says_more = true;
        }
    }
    for (name, revision) in known.removed {
        let is_older = |theirs: &EstimatorState| theirs.revision < revision;
        if state.estimators.get(&name).is_some_and(is_older) {
            state.estimators.remove(&name);
            says_more = true;
        }
    }
    says_more
}

/// What the worker behind a link last said, in the form for the bus.
pub(crate) fn state_of(link: &Link) -> EstimatorState {
    let report = link.report();
    let position = report.position;
    let belief = (&*report.mean, &*report.covariance);
    let is_failing = report.is_troubled || report.phase == Phase::Broken;
    EstimatorState {
        revision: link.registration.revision,
        generation: report.generation,
        epoch: position.map_or(0, |position| position.epoch),
        seq: position.map_or(0, |position| position.seq),
        test_time: report.latest_time,
        phase: report.phase.as_str().to_owned(),
        values: values_of(&report.state_names, belief, report.health.as_ref()),
        error: report.last_error.clone().filter(|_| is_failing),
        trust: report
            .trust
            .as_ref()
            .map(|trust| trust.state.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(revision: i64, seq: i64, phase: &str) -> EstimatorState {
        EstimatorState {
            revision,
            seq,
            phase: phase.to_owned(),
            ..EstimatorState::default()
        }
    }

    fn known(state: EstimatorState) -> Known {
        Known {
            running: [(EstimatorName::default(), state)].into(),
            ..Known::default()
        }
    }

    fn bus(state: EstimatorState) -> BatteryState {
        BatteryState {
            estimators: [(EstimatorName::default(), state)].into_iter().collect(),
            by: "one".to_owned(),
            ..BatteryState::unknown("b7".parse().unwrap())
        }
    }

    #[test]
    fn a_twin_that_is_behind_has_nothing_to_say() {
        let mut state = bus(at(3, 40, "live"));
        assert!(!join(&mut state, known(at(3, 39, "live")), "two"));
        assert!(!join(&mut state, known(at(2, 90, "live")), "two"));
        assert!(join(&mut state, known(at(3, 41, "live")), "two"));
        assert_eq!(state.estimators[&EstimatorName::default()].seq, 41);
    }

    #[test]
    fn at_the_same_row_two_twins_do_not_contradict_each_other_for_ever() {
        let failing = EstimatorState {
            error: Some("the hub is away".to_owned()),
            ..at(3, 40, "live")
        };
        let mut state = bus(at(3, 40, "live"));
        assert!(!join(&mut state, known(failing.clone()), "two"));
        assert!(join(&mut state, known(failing), "one"));
    }

    #[test]
    fn a_twin_that_takes_over_may_say_that_it_caught_up() {
        let mut state = bus(at(3, 40, "catching_up"));
        assert!(join(&mut state, known(at(3, 40, "live")), "two"));
    }

    #[test]
    fn a_twin_that_heard_of_a_promotion_is_not_contradicted_by_one_that_did_not() {
        let crowned = |era, name: &str| Known {
            champion: Some(Champion {
                era,
                estimator: name.parse().ok(),
                epoch: 1,
                from_seq: era,
            }),
            ..Known::default()
        };
        let mut state = bus(at(3, 40, "live"));
        assert_eq!(state.champion(), EstimatorName::default());
        assert!(join(&mut state, crowned(8, "second"), "two"));
        assert!(!join(&mut state, crowned(7, "default"), "one"));
        assert!(!join(&mut state, Known::default(), "one"));
        assert_eq!(state.champion().as_str(), "second");
    }

    #[test]
    fn a_removed_estimator_goes_and_one_registered_later_stays() {
        let removed = |revision| Known {
            removed: [(EstimatorName::default(), revision)].into(),
            ..Known::default()
        };
        let mut state = bus(at(3, 40, "live"));
        assert!(!join(&mut state, removed(2), "two"));
        assert!(join(&mut state, removed(4), "two"));
        assert!(state.estimators.is_empty());
    }
}
