//! `rovicli reproduce`: an estimate computed anew from the table is the stored one to the last bit, as
//! long as nobody changed either by hand.

use std::{ops::Range, time::Duration};

use rovi_common::{rows::Columns, testing::eventually};
use rovicli::{
    simulation::{self, Plan, Simulation},
    upload_client::{Target, UploadClient},
};
use serde_json::{Value, json};
use system_tests::Stack;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_mins(2);
const ROWS: usize = 600;
const SECOND: i64 = 2;
const LAST: i64 = 600;

/// Sums up the current from where a file says.
const COUNTING: &str = "
from start import FIRST

class Counting:
    state_names = ['charge']
    def __init__(self):
        self.charge = FIRST
    def step(self, inputs, outputs):
        self.charge += inputs.current / 3.0
    @property
    def state(self):
        return self
    def get_mean(self):
        return [self.charge]
    def get_covariance(self):
        return [[0.1]]

estimator = Counting()
";

fn plan() -> Plan {
    Plan {
        rows: ROWS,
        seed: 5,
        ..Plan::default()
    }
}

/// Uploads parts of a simulated cell one after another, in any order; the first session begins the
/// segment.
async fn upload(stack: &Stack, battery: &str, (session, parts): (u128, &[Range<usize>])) {
    let target = Target {
        hub: stack.hub_url().parse().unwrap(),
        battery: battery.parse().unwrap(),
        session: Uuid::from_u128(session),
        new_segment: session == 1,
        token: None,
        trust: rovi_common::tls::Trust::default(),
    };
    let all: Columns = Simulation::new(plan()).take_rows(ROWS).unwrap();
    let mut client = UploadClient::connect(target, Box::new(|_event| {}))
        .await
        .unwrap();
    for part in parts {
        let mut rows = all.clone();
        drop(rows.split_off(part.end));
        client.send(rows.split_off(part.start)).await.unwrap();
        client.flush().await.unwrap();
    }
    client.finish().await.unwrap();
}

async fn register(stack: &Stack, battery: &str) {
    let document = simulation::estimator_document(&plan()).to_string();
    std::fs::write(stack.folder().join("estimator.json"), document).unwrap();
    let args = ["register", battery, "0", "estimator.json"];
    stack.run_rovicli(&args).await;
}

/// Waits until an estimator has dealt with all rows as a correction made them, and the table has the
/// estimate of the last one.
async fn estimated(stack: &Stack, battery: &str, correction: i64) -> Value {
    eventually(PATIENCE, || async {
        let status = stack.get("/online/status").await?[battery].clone();
        let lineage = format!("/db/{battery}/estimates/lineage?seq={LAST}");
        let lineage = stack.get(&lineage).await?;
        let is_all = status["seq"] == LAST && status["phase"] == "live";
        let is_heeded = status["corrections"].as_i64().unwrap_or(0) == correction;
        let is_stored = lineage["lineage"][0]["generation"] == status["generation"];
        if is_all && is_heeded && is_stored {
            Ok(status)
        } else {
            Err(format!("{status} {lineage}"))
        }
    })
    .await
}

/// Runs `rovicli reproduce`; returns its exit code and all that it said.
fn reproduce(stack: &Stack, battery: &str, seq: i64) -> (Option<i32>, String) {
    let seq = seq.to_string();
    let mut command = stack.rovicli(&["reproduce", battery, "--seq", &seq]);
    let output = tokio::task::block_in_place(|| command.output()).unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

fn assert_equal(stack: &Stack, battery: &str, seqs: &[i64]) {
    for &seq in seqs {
        let (code, said) = reproduce(stack, battery, seq);
        assert_eq!(code, Some(0), "row {seq}: {said}");
        assert!(said.contains("to the last bit"), "row {seq}: {said}");
    }
}

fn assert_different(stack: &Stack, battery: &str, seq: i64, value: &str) {
    let (code, said) = reproduce(stack, battery, seq);
    assert_eq!(code, Some(2), "row {seq}: {said}");
    assert!(
        said.contains(&format!("different: {value}")),
        "row {seq}: {said}"
    );
}

/// Returns a column of the table of estimates.
async fn first_value(stack: &Stack, battery: &str) -> String {
    let path = format!("/db/{battery}/estimates?seq={LAST}..{LAST}&format=json");
    let page = stack.get(&path).await.unwrap();
    let columns = page["columns"].as_object().unwrap().iter();
    let own = ["received", "revision", "generation", "test_time"];
    let mut names = columns.filter(|(name, cells)| {
        !own.contains(&name.as_str()) && cells[0].as_f64().is_some_and(|cell| cell != 0.0)
    });
    names.next().unwrap().0.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_documents_estimate_is_reproduced_until_its_table_is_changed_by_hand() {
    let stack = Stack::start().await;
    upload(&stack, "cell", (1, &[0..300, 300..ROWS])).await;
    register(&stack, "cell").await;
    estimated(&stack, "cell", 0).await;
    assert_equal(&stack, "cell", &[SECOND, 300, LAST]);
    let (code, said) = reproduce(&stack, "cell", 1);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no estimate of row 1"), "{said}");

    let value = first_value(&stack, "cell").await;
    let mut database = stack.database();
    // The smallest change that there is.
    database.run(&format!(
        r#"UPDATE estimates.cell SET "{value}" = "{value}" * (1 + 2.3e-16) WHERE seq = {LAST}"#
    ));
    assert_different(&stack, "cell", LAST, &value);
    database.run("UPDATE battery.cell SET voltage = voltage + 1e-9 WHERE seq = 200");
    let (code, said) = reproduce(&stack, "cell", 300);
    assert_eq!(code, Some(2), "{said}");
    assert_equal(&stack, "cell", &[199]);
}

#[tokio::test(flavor = "multi_thread")]
async fn estimates_of_late_corrected_and_deleted_rows_are_reproduced_as_the_newest_generation() {
    let stack = Stack::start().await;
    // Registered first, so that late rows make it go back.
    upload(&stack, "cell", (1, &[0..100, 102..200])).await;
    register(&stack, "cell").await;
    eventually(PATIENCE, || async {
        let status = stack.get("/online/status").await?;
        (status["cell"]["seq"] == 198)
            .then_some(())
            .ok_or(status.to_string())
    })
    .await;
    upload(&stack, "cell", (2, &[100..102, 200..ROWS])).await;
    let late = estimated(&stack, "cell", 0).await;
    assert_eq!(late["recomputation"]["reason"], "late_rows", "{late}");
    assert_equal(&stack, "cell", &[150, 199, 200, LAST]);

    let http = stack.http();
    let url = format!("{}/db/cell/rows", stack.hub_url());
    let corrected = http.put(format!("{url}/50")).json(&json!({"voltage": 3.9}));
    assert!(corrected.send().await.unwrap().status().is_success());
    let deleted = http.delete(format!("{url}?seq=300..320&confirm=cell"));
    assert!(deleted.send().await.unwrap().status().is_success());
    // The first row is only where it begins.
    let deleted = http.delete(format!("{url}?seq=1..1&confirm=cell"));
    assert!(deleted.send().await.unwrap().status().is_success());
    let status = estimated(&stack, "cell", 3).await;
    assert!(status["generation"].as_i64() > late["generation"].as_i64());
    assert_equal(&stack, "cell", &[3, 50, 199, 321, LAST]);
    let (code, said) = reproduce(&stack, "cell", 310);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("row 310"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scripts_estimate_is_reproduced_with_the_file_that_it_was_registered_with() {
    let stack = Stack::start().await;
    upload(&stack, "cell", (1, std::slice::from_ref(&(0..ROWS)))).await;
    let write = |name: &str, text: &str| std::fs::write(stack.folder().join(name), text).unwrap();
    write("counting.py", COUNTING);
    write("start.py", "FIRST = 1000.1\n");
    let register = ["register", "cell", "0", "counting.py", "start.py"];
    stack.run_rovicli(&register).await;
    estimated(&stack, "cell", 0).await;
    // What lies in the folder now is another file.
    write("start.py", "FIRST = 7.0\n");
    assert_equal(&stack, "cell", &[SECOND, LAST]);
    let mut database = stack.database();
    database.run("UPDATE estimates.cell SET charge = charge + 1e-9 WHERE seq = 2");
    assert_different(&stack, "cell", SECOND, "charge");
}
