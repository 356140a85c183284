//! Corrections, deletions and late rows while something else happens to the estimator.

use std::time::Duration;

use rovi_common::{frame::RowFrame, testing};
use serde_json::{Value, json};
use twin::config::Settings;

use crate::{
    bus::Bus,
    http::{register, with_hub},
    hub::HubOfRows,
    python::{COUNTING, registration},
    rows::{DOCUMENT, Estimates, Row, drive, frame, frames, uninterrupted},
    shadows::post,
    twin::{PATIENCE, Twin, assert_same_state, settings},
};

pub(crate) fn at(bus: &Bus, hub: &HubOfRows) -> Settings {
    Settings {
        hub_url: hub.url.clone(),
        ..settings(bus)
    }
}

/// Rows of b7, a hub that has them, and what was changed of them.
pub(crate) struct History {
    pub(crate) hub: HubOfRows,
    rows: Vec<Option<Row>>,
    corrected: Vec<(i64, i64)>,
}

impl History {
    pub(crate) fn new(rows: &[Row]) -> Self {
        Self {
            hub: HubOfRows::start(frames("b7", rows, 1, 1)),
            rows: rows.iter().copied().map(Some).collect(),
            corrected: Vec::new(),
        }
    }

    /// Raises the voltage of a row.
    pub(crate) async fn correct(&mut self, bus: &Bus, seq: usize) {
        let row = self.rows[seq - 1].as_mut().unwrap();
        row[2] += 0.02;
        let seq = i64::try_from(seq).unwrap();
        let row = frame("b7", (1, 1), seq, &[*row]);
        self.hub.correct(seq, Some(row));
        self.tell(bus, (seq, seq)).await;
    }

    pub(crate) async fn delete(&mut self, bus: &Bus, first: usize, last: usize) {
        for seq in first..=last {
            self.rows[seq - 1] = None;
            self.hub.correct(i64::try_from(seq).unwrap(), None);
        }
        let range = (i64::try_from(first).unwrap(), i64::try_from(last).unwrap());
        self.tell(bus, range).await;
    }

    async fn tell(&mut self, bus: &Bus, range: (i64, i64)) {
        self.corrected.push(range);
        bus.correct("b7", &self.corrected).await;
    }

    fn revision(&self) -> i64 {
        i64::try_from(self.corrected.len()).unwrap()
    }

    /// The rows as they are now, each in a frame of its own.
    pub(crate) fn frames(&self) -> Vec<RowFrame> {
        let rows = self.rows.iter().zip(1..);
        rows.filter_map(|(row, seq)| Some(frame("b7", (1, 1), seq, &[(*row)?])))
            .collect()
    }
}

/// Waits until an estimator of b7 has dealt with all rows as the newest correction made them.
pub(crate) async fn heeded(twin: &Twin, name: &str, history: &History) -> Value {
    estimator(twin, name, |shown| {
        shown["corrections"] == history.revision()
            && shown["seq"] == history.rows.len()
            && shown["phase"] == "live"
    })
    .await
}

pub(crate) async fn estimator(
    twin: &Twin,
    name: &str,
    condition: impl Fn(&Value) -> bool,
) -> Value {
    testing::eventually(PATIENCE, async || {
        let shown = twin.get("/online/b7").await["estimators"][name].clone();
        if condition(&shown) {
            Ok(shown)
        } else {
            Err(shown.to_string())
        }
    })
    .await
}

/// Estimates without what the metadata tell of the cell, which a registration takes up.
pub(crate) fn beliefs(mut estimates: Estimates) -> Estimates {
    for bits in estimates.values_mut() {
        bits.retain(|name, _| {
            !name.starts_with("state_of_health")
                && !["equivalent_full_cycles", "trust"].contains(&name.as_str())
        });
    }
    estimates
}

pub(crate) async fn register_both(twin: &Twin) {
    for name in ["default", "second"] {
        let fields = [
            ("name", "b7"),
            ("definition", DOCUMENT),
            ("estimator", name),
        ];
        assert_eq!(register(twin, &fields).await.0, 200);
    }
}

#[tokio::test]
async fn a_shadow_promoted_between_two_corrections_ends_with_the_same_numbers() {
    let bus = Bus::start().await;
    let all = drive(3000);
    let mut history = History::new(&all);
    let twin = Twin::start(at(&bus, &history.hub));
    twin.ready("nats").await;
    with_hub(&bus, async {
        register_both(&twin).await;
        bus.publish(&frames("b7", &all, 1, 100)).await;
        for name in ["default", "second"] {
            estimator(&twin, name, |shown| shown["seq"] == 3000).await;
        }
        history.correct(&bus, 2).await;
        // Behind its rows, as while it goes back, an estimator is not promoted.
        testing::eventually(PATIENCE, async || {
            match post(&twin, "/online/b7/second/promote").await {
                (200, _) => Ok(()),
                (_, refused) => Err(refused),
            }
        })
        .await;
        history.delete(&bus, 1, 1).await;
        let expected = uninterrupted(&history.frames());
        for name in ["default", "second"] {
            assert_same_state(&heeded(&twin, name, &history).await, &expected);
        }
        let status = twin
            .status("b7", |status| status["estimator"] == "second")
            .await;
        assert_same_state(&status, &expected);
        assert!(twin.stop());
        for name in ["default", "second"] {
            let found = bus.newest_estimates_of(name).await;
            assert_eq!(beliefs(found), beliefs(expected.estimates.clone()));
        }
    })
    .await;
}

#[tokio::test]
async fn rows_deleted_while_no_checkpoint_tells_of_their_estimates_leave_none_behind() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let all = drive(300);
    let mut history = History::new(&all);
    let seldom = Settings {
        checkpoint_interval: Duration::from_secs(15),
        ..at(&bus, &history.hub)
    };
    let twin = Twin::start(seldom);
    bus.publish(&frames("b7", &all, 1, 50)).await;
    twin.reached("b7", 300).await;
    testing::eventually(PATIENCE, async || {
        match bus.newest_estimates().await.len() {
            299 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    twin.kill();
    history.delete(&bus, 101, 110).await;
    let twin = Twin::start(at(&bus, &history.hub));
    let status = heeded(&twin, "default", &history).await;
    let expected = uninterrupted(&history.frames());
    assert_same_state(&status, &expected);
    assert!(twin.stop());
    assert_eq!(bus.newest_estimates().await, expected.estimates);
}

#[tokio::test]
async fn a_backtest_deals_with_late_and_deleted_rows_as_the_champion_does() {
    let bus = Bus::start().await;
    let mut all = drive(1500);
    for (place, to) in [(100, 104), (200, 700), (1100, 1490)] {
        let moved = all.remove(place);
        all.insert(to, moved);
    }
    let mut history = History::new(&all);
    let twin = Twin::start(at(&bus, &history.hub));
    twin.ready("nats").await;
    with_hub(&bus, async {
        let fields = [("name", "b7"), ("definition", DOCUMENT)];
        assert_eq!(register(&twin, &fields).await.0, 200);
        bus.publish(&frames("b7", &all, 1, 50)).await;
        history.delete(&bus, 1, 3).await;
        history.delete(&bus, 300, 420).await;
        let left: usize = history
            .frames()
            .iter()
            .map(|frame| frame.received.len())
            .sum();
        let status = estimator(&twin, "default", |shown| {
            shown["corrections"] == history.revision() && shown["steps"] == left - 1
        })
        .await;

        let url = format!("{}/online/b7/backtest", twin.url);
        let sent = reqwest::Client::new()
            .post(url)
            .form(&[("definition", DOCUMENT)]);
        let started: Value = sent.send().await.unwrap().json().await.unwrap();
        let path = format!("/online/b7/backtest/{}", started["id"].as_str().unwrap());
        let done = testing::eventually(PATIENCE, async || {
            let shown = twin.get(&path).await;
            if shown["state"] == "done" {
                Ok(shown)
            } else {
                Err(shown.to_string())
            }
        })
        .await;
        let names = status["state_names"].as_array().unwrap().iter();
        for side in ["candidate", "champion"] {
            let side = &done["result"][side];
            assert_eq!(
                (&side["steps"], &side["skipped"]),
                (&status["steps"], &json!({}))
            );
            for (name, mean) in names.clone().zip(status["mean"].as_array().unwrap()) {
                let end = &side["end"][name.as_str().unwrap()]["mean"];
                assert_eq!(end, mean, "{name}");
            }
        }
        assert_eq!(done["result"]["rows_compared"], status["steps"]);
    })
    .await;
}

/// Runs a script over rows that are corrected and deleted; returns how it is shown in the end.
async fn script_goes_back(script: &str) -> Value {
    let bus = Bus::start().await;
    bus.put(&registration("default", 1, script)).await;
    let all = drive(1000);
    let mut history = History::new(&all);
    let twin = Twin::start(at(&bus, &history.hub));
    for (part, first) in all.chunks(300).zip((1..).step_by(300)) {
        bus.publish(&frames("b7", part, first, 50)).await;
        let last = first + i64::try_from(part.len()).unwrap() - 1;
        twin.reached("b7", last).await;
        // Only a checkpoint acknowledges.
        bus.all_acknowledged().await;
    }
    history.correct(&bus, 700).await;
    heeded(&twin, "default", &history).await;
    history.delete(&bus, 800, 809).await;
    let status = heeded(&twin, "default", &history).await;
    assert_eq!(status["mean"][0], 989.0, "{status}");
    let voltages = history.rows.iter().skip(1).flatten().map(|row| row[2]);
    // In the same order as the script added them up.
    let sum = voltages.fold(0.0, |sum, voltage| sum + voltage);
    assert_eq!(status["mean"][1].as_f64(), Some(sum), "{status}");
    assert!(twin.stop());
    let estimates = bus.newest_estimates().await;
    let seqs: Vec<i64> = estimates.keys().map(|(_, seq)| *seq).collect();
    let expected: Vec<i64> = (2..=1000)
        .filter(|seq| !(800..=809).contains(seq))
        .collect();
    assert_eq!(seqs, expected);
    assert_eq!(estimates[&(1, 1000)]["sum"], sum.to_bits());
    assert_eq!(estimates[&(1, 810)]["n"], 799.0_f64.to_bits());
    status
}

#[tokio::test]
async fn a_script_with_a_state_beside_the_bucket_goes_back_to_one_of_them() {
    let large = "[0.0, 0.0], 1\n        self.noise = os.urandom(1 << 20)";
    let script = COUNTING
        .replace("FAULT", "")
        .replace("[0.0, 0.0], 1", large);
    let status = script_goes_back(&script).await;
    let from = status["recomputation"]["from_seq"].as_i64().unwrap();
    assert!((301..=800).contains(&from), "{status}");
}

#[tokio::test]
async fn a_script_that_cannot_save_its_state_goes_back_to_the_first_row() {
    let script = COUNTING
        .replace("FAULT", "")
        .replace("[0.0, 0.0], 1", "[0.0, 0.0], (lambda: 1)");
    let status = script_goes_back(&script).await;
    assert_eq!(status["recomputation"]["from_seq"], 1, "{status}");
}
