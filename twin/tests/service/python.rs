//! Estimators that are scripts, in real processes that the twin's own binary confines.

use std::{collections::BTreeMap, time::Duration};

use reqwest::multipart::{Form, Part};
use rovi_common::registration::Registration;
use serde_json::Value;

use crate::{
    bus::Bus,
    hub::{HubOfRows, commit_registrations, take_requests},
    live::{hear_until, open},
    rows::{DOCUMENT, drive, frames},
    twin::{Twin, settings},
};

/// Counts rows and adds their voltages up; `FAULT` is put into each step.
pub(crate) const COUNTING: &str = "
import os, time
class Counting:
    state_names = ['n', 'sum']
    def __init__(self):
        self.values, self.lives = [0.0, 0.0], 1
    def __setstate__(self, state):
        self.__dict__.update(state)
        self.lives += 1
    def step(self, inputs, outputs):
        n = self.values[0] + 1
        FAULT
        self.values = [n, self.values[1] + outputs.terminal_voltage]
    @property
    def state(self):
        return self
    def get_mean(self):
        return self.values
    def get_covariance(self):
        return [[1.0, 0.0], [0.0, 0.25]]
estimator = Counting()
";

fn counting(fault: &str) -> String {
    COUNTING.replace("FAULT", fault)
}

pub(crate) fn registration(estimator: &str, revision: i64, definition: &str) -> Registration {
    Registration {
        battery: "b7".parse().unwrap(),
        estimator: estimator.parse().unwrap(),
        revision,
        definition: definition.into(),
        valid_from: 0.0,
        required_time: 0.0,
        files: Vec::new(),
        deleted: false,
        changed: 0,
        standing: rovi_common::registration::Standing::default(),
    }
}

/// The sum of the voltages of all rows but the first.
fn sum(rows: u32) -> f64 {
    drive(rows).iter().skip(1).map(|row| row[2]).sum()
}

#[track_caller]
fn assert_counted(status: &Value, rows: u32) {
    assert_eq!(status["mean"][0], f64::from(rows - 1), "{status}");
    let difference = status["mean"][1].as_f64().unwrap() - sum(rows);
    assert!(difference.abs() < 1e-9, "{status}");
}

async fn register(twin: &Twin, form: Form) -> (u16, Value) {
    let url = format!("{}/online/register", twin.url);
    let sent = reqwest::Client::new().post(url).multipart(form).send();
    let answer = sent.await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Runs a test while a hub commits registrations.
async fn with_hub(bus: &Bus, test: impl Future<Output = ()>) {
    let requests = take_requests(bus).await;
    tokio::select! {
        () = commit_registrations(bus, requests) => panic!("the hub ended"),
        () = test => {}
    }
}

#[tokio::test]
async fn a_script_registers_with_its_files_and_estimates_each_row() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("nats").await;
    let script = format!("from offset import OFFSET\n{}", counting("")).replace(
        "outputs.terminal_voltage",
        "outputs.terminal_voltage + OFFSET",
    );
    with_hub(&bus, async {
        let form = |file: &str| {
            let part = Part::bytes(b"OFFSET = 0.5\n".to_vec()).file_name(file.to_owned());
            Form::new()
                .text("name", "b7")
                .text("definition", script.clone())
                .part("files", part)
        };
        let (status, problem) = register(&twin, form("../offset.py")).await;
        assert_eq!(
            (status, &problem["field"]),
            (400, &Value::from("files")),
            "{problem}"
        );
        let (status, words) = register(&twin, form("offset.py")).await;
        assert_eq!(status, 200, "{words}");
        assert_eq!(words, "Python script `default` of `b7`, revision 1: n, sum");

        bus.publish(&frames("b7", &drive(300), 1, 100)).await;
        let status = twin.reached("b7", 300).await;
        assert_eq!(status["state_names"], serde_json::json!(["n", "sum"]));
        assert_eq!(status["covariance"][1][1], 0.25);
        let expected = sum(300) + 0.5 * 299.0;
        assert!(
            (status["mean"][1].as_f64().unwrap() - expected).abs() < 1e-9,
            "{status}"
        );
        bus.all_acknowledged().await;
    })
    .await;
    assert!(twin.stop());
    let estimates = bus.estimates().await;
    assert_eq!(estimates.len(), 299);
    assert_eq!(estimates[&(1, 300)]["n"], 299.0_f64.to_bits());
    assert_eq!(estimates[&(1, 300)]["sum__std"], 0.5_f64.to_bits());
}

#[tokio::test]
async fn a_script_that_cannot_be_used_is_refused_with_its_traceback() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("nats").await;
    let form = Form::new()
        .text("name", "b7")
        .text("definition", "import numpie");
    let (status, problem) = register(&twin, form).await;
    assert_eq!(
        (status, &problem["field"]),
        (400, &Value::from("definition"))
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("No module named 'numpie'") && detail.contains("line 1"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_twin_without_an_interpreter_says_what_is_missing() {
    let bus = Bus::start().await;
    let mut settings = settings(&bus);
    settings.python.interpreter = "no-such-python".into();
    let twin = Twin::start(settings);
    twin.ready("nats").await;
    let form = Form::new()
        .text("name", "b7")
        .text("definition", counting(""));
    let (status, problem) = register(&twin, form).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        status == 501 && detail.contains("no-such-python"),
        "{detail}"
    );
    bus.put(&registration("default", 1, &counting(""))).await;
    bus.publish(&frames("b7", &drive(10), 1, 10)).await;
    let status = twin
        .status("b7", |status| status["phase"] == "broken")
        .await;
    let error = status["last_error"].as_str().unwrap();
    assert!(error.contains("python.interpreter"), "{error}");
}

#[tokio::test]
async fn a_script_that_hangs_delays_no_other_estimator_and_says_so() {
    let bus = Bus::start().await;
    let mut settings = settings(&bus);
    settings.python.limits.batch_timeout = Duration::from_secs(2);
    bus.put(&registration("default", 1, DOCUMENT)).await;
    let hanging = counting("if n == 20: print('I hang', flush=True); time.sleep(1000)");
    bus.put(&registration("hanging", 2, &hanging)).await;
    bus.put(&registration("third", 3, &counting(""))).await;
    let twin = Twin::start(settings);
    bus.publish(&frames("b7", &drive(100), 1, 10)).await;
    twin.reached("b7", 100).await;
    let all = rovi_common::testing::eventually(crate::twin::PATIENCE, async || {
        let all = twin.get("/online/b7").await;
        let (hanging, third) = (&all["estimators"]["hanging"], &all["estimators"]["third"]);
        let error = hanging["last_error"].as_str().unwrap_or_default();
        let is_told = error.contains("I hang") && third["seq"] == 100;
        if is_told { Ok(all) } else { Err(all) }
    })
    .await;
    let error = all["estimators"]["hanging"]["last_error"].as_str().unwrap();
    assert!(
        error.contains("longer than 2s") && error.contains("I hang"),
        "{error}"
    );
    assert!(
        twin.text("/metrics")
            .await
            .contains("twin_script_failures_total")
    );
}

#[tokio::test]
async fn a_row_that_a_script_refuses_costs_only_itself() {
    let bus = Bus::start().await;
    bus.put(&registration(
        "default",
        1,
        &counting("if inputs.time == 30.0: 1 / 0"),
    ))
    .await;
    let twin = Twin::start(settings(&bus));
    bus.publish(&frames("b7", &drive(100), 1, 10)).await;
    let status = twin.reached("b7", 100).await;
    assert_eq!(status["skipped"]["refused"], 1, "{status}");
    assert_eq!(status["mean"][0], 98.0, "{status}");
    let error = status["last_error"].as_str().unwrap();
    assert!(
        error.contains("row 30") && error.contains("ZeroDivisionError"),
        "{error}"
    );
}

#[tokio::test]
async fn a_script_that_refuses_row_after_row_is_shown_as_failing_until_it_takes_one() {
    let bus = Bus::start().await;
    let refusing = counting("if 20.0 <= inputs.time < 60.0: 1 / 0");
    bus.put(&registration("default", 1, &refusing)).await;
    let twin = Twin::start(settings(&bus));
    let mut socket = open(&twin, "").await;
    let rows = frames("b7", &drive(100), 1, 10);
    bus.publish(&rows[..5]).await;
    let error = |told: &Value| told["estimator_error"].as_str().map(ToOwned::to_owned);
    let told = hear_until(&mut socket, "b7", |told| error(told).is_some()).await;
    assert!(
        error(&told).unwrap().contains("ZeroDivisionError"),
        "{told}"
    );
    bus.publish(&rows[5..]).await;
    hear_until(&mut socket, "b7", |told| error(told).is_none()).await;
}

#[tokio::test]
async fn a_killed_script_goes_on_from_its_last_saved_state() {
    let bus = Bus::start().await;
    // It dies once, in its first life, behind the rows of the checkpoint.
    let dying = counting("if n == 120 and self.lives == 1: os._exit(9)");
    bus.put(&registration("default", 1, &dying)).await;
    let twin = Twin::start(settings(&bus));
    let rows = frames("b7", &drive(200), 1, 10);
    bus.publish(&rows[..6]).await;
    twin.reached("b7", 60).await;
    bus.all_acknowledged().await;
    bus.publish(&rows[6..]).await;
    let status = twin.reached("b7", 200).await;
    assert_counted(&status, 200);
    // Rows that were estimated twice were estimated alike.
    assert_eq!(bus.estimates().await.len(), 199);
}

#[tokio::test]
async fn a_twin_killed_and_started_again_takes_each_row_once() {
    let bus = Bus::start().await;
    bus.put(&registration("default", 1, &counting(""))).await;
    let rows = frames("b7", &drive(400), 1, 10);
    for part in [&rows[..10], &rows[10..20]] {
        let twin = Twin::start(settings(&bus));
        bus.publish(part).await;
        let last = part.last().unwrap().last_seq();
        twin.reached("b7", last).await;
        twin.kill();
    }
    let twin = Twin::start(settings(&bus));
    bus.publish(&rows[20..]).await;
    let status = twin.reached("b7", 400).await;
    assert_counted(&status, 400);
    assert!(twin.stop());
    let twin = Twin::start(settings(&bus));
    let status = twin.reached("b7", 400).await;
    assert_counted(&status, 400);
    assert_eq!(bus.estimates().await.len(), 399);
}

#[tokio::test]
async fn a_script_without_a_state_to_save_begins_anew_and_ends_the_same() {
    let bus = Bus::start().await;
    let unsaved = counting("self.never = lambda: 0");
    bus.put(&registration("default", 1, &unsaved)).await;
    bus.publish(&frames("b7", &drive(100), 1, 10)).await;
    let twin = Twin::start(settings(&bus));
    let status = twin
        .status("b7", |status| {
            status["warnings"][0].is_string() && status["seq"] == 100
        })
        .await;
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(warning.contains("cannot be pickled"), "{warning}");
    twin.kill();
    let twin = Twin::start(settings(&bus));
    assert_counted(&twin.reached("b7", 100).await, 100);
}

#[tokio::test]
async fn offline_estimation_gets_the_history_and_its_rows_are_estimated_then() {
    let bus = Bus::start().await;
    let hub = HubOfRows::start(frames("b7", &drive(1), 1, 1));
    let functions = "
def perform_offline_estimation(dataset):
    return len(dataset.raw_data['test_time']), None
def make_estimator(count, _):
    made = Counting()
    made.values[1] = 1000.0 * count
    return made
";
    let mut script = registration("default", 1, &format!("{}{functions}", counting("")));
    script.definition = script
        .definition
        .replace("estimator = Counting()", "")
        .into();
    script.required_time = 50.0;
    bus.put(&script).await;
    let mut settings = settings(&bus);
    settings.hub_url = hub.url.clone();
    let twin = Twin::start(settings);
    let rows = frames("b7", &drive(120), 1, 20);
    bus.publish(&rows[..2]).await;
    let status = twin.status("b7", |status| status["seq"] == 40).await;
    assert_eq!(status["is_ready"], false);
    bus.all_acknowledged().await;
    bus.publish(&rows[2..]).await;
    let status = twin.reached("b7", 120).await;
    // The history ends with the row at 51 s, 50 s after the first.
    let expected = 51_000.0 + sum(120);
    assert!(
        (status["mean"][1].as_f64().unwrap() - expected).abs() < 1e-9,
        "{status}"
    );
    let seqs: Vec<i64> = bus
        .estimates()
        .await
        .into_keys()
        .map(|(_, seq)| seq)
        .collect();
    assert_eq!(seqs, (2..=120).collect::<Vec<_>>());
}

#[tokio::test]
async fn scripts_beyond_the_limit_wait_and_say_so() {
    let bus = Bus::start().await;
    for (revision, name) in [(1, "one"), (2, "two")] {
        bus.put(&registration(name, revision, &counting(""))).await;
    }
    let mut settings = settings(&bus);
    settings.python_estimators = std::num::NonZeroUsize::MIN;
    let twin = Twin::start(settings);
    bus.publish(&frames("b7", &drive(10), 1, 10)).await;
    rovi_common::testing::eventually(crate::twin::PATIENCE, async || {
        let all = twin.get("/online/b7").await;
        let shown: BTreeMap<String, Value> =
            serde_json::from_value(all["estimators"].clone()).unwrap_or_default();
        let runs = shown.values().filter(|one| one["seq"] == 10).count();
        let waits = |one: &&Value| {
            let error = one["last_error"].as_str().unwrap_or_default();
            error.contains("python_estimators")
        };
        let waits = shown.values().filter(waits).count();
        if (runs, waits) == (1, 1) {
            Ok(())
        } else {
            Err(all)
        }
    })
    .await;
}

#[tokio::test]
async fn a_state_that_cannot_be_read_again_costs_time_and_no_row() {
    let bus = Bus::start().await;
    let unreadable = counting("").replace("self.lives += 1", "raise ValueError('another version')");
    bus.put(&registration("default", 1, &unreadable)).await;
    bus.publish(&frames("b7", &drive(100), 1, 10)).await;
    let twin = Twin::start(settings(&bus));
    twin.reached("b7", 100).await;
    bus.all_acknowledged().await;
    assert!(twin.stop());
    let twin = Twin::start(settings(&bus));
    assert_counted(&twin.reached("b7", 100).await, 100);
}
