//! A script through the whole stack: registered, fed, killed with its twin, and exact in the end.

use std::time::Duration;

use rovi_common::testing::eventually;
use system_tests::Stack;

use crate::cell::Cell;

const PATIENCE: Duration = Duration::from_mins(2);
const ROWS: u32 = 6_000;

/// Counts its rows, and tells its process by a name that only this test uses.
const COUNTING: &str = "
from start import FIRST

class Counting:
    state_names = ['n']
    def __init__(self):
        self.n = FIRST
    def step(self, inputs, outputs):
        self.n += 1.0
    @property
    def state(self):
        return self
    def get_mean(self):
        return [self.n]
    def get_covariance(self):
        return [[1.0]]

estimator = Counting()
";

/// Counts the confined interpreters whose parent is gone or is `twin`, by the folders of this test.
fn interpreters(folder: &std::path::Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let folders =
        processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
    folders.filter(|cwd| cwd.starts_with(folder)).count()
}

#[tokio::test]
async fn a_script_killed_with_its_twin_takes_each_row_once_and_leaves_no_process() {
    let mut stack = Stack::start().await;
    let scripts = stack.folder().join("scripts");
    std::fs::create_dir(&scripts).unwrap();
    let scripts = scripts.canonicalize().unwrap();
    let settings = format!("[python]\nfolder = {:?}\n", scripts.display().to_string());
    stack.configure_twin(&settings);
    stack.stop_twin();
    stack.start_twin();
    stack.ready().await;

    let cell = Cell::simulated(&stack, "counted", ROWS.into()).await;
    std::fs::write(stack.folder().join("counting.py"), COUNTING).unwrap();
    std::fs::write(stack.folder().join("start.py"), "FIRST = 1000.0\n").unwrap();
    assert!(cell.stream(&stack).status().unwrap().success());
    let register = ["register", "counted", "0.", "counting.py", "start.py"];
    let told = stack.run_rovicli(&register).await;
    assert!(told.contains("Python script"), "{told}");

    let reached = async |stack: &Stack, seq: i64| {
        eventually(PATIENCE, || async {
            let status = stack.get("/online/status").await?;
            let at = status["counted"]["seq"].as_i64().unwrap_or(0);
            if at >= seq {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
        .await
    };
    reached(&stack, 500).await;
    assert!(interpreters(&scripts) > 0);
    stack.kill_twin();
    eventually(PATIENCE, || async {
        match interpreters(&scripts) {
            0 => Ok(()),
            left => Err(format!("{left} interpreters outlive their twin")),
        }
    })
    .await;
    stack.start_twin();
    let status = reached(&stack, cell.rows).await;
    let expected = f64::from(ROWS) - 1.0 + 1000.0;
    assert_eq!(status["counted"]["mean"][0], expected, "{status}");
    let wrong = "SELECT count(*) AS value FROM estimates.\"counted\" WHERE n <> seq + 999";
    let all = "SELECT count(*) AS value FROM estimates.\"counted\"";
    let mut database = stack.database();
    eventually(PATIENCE, || {
        let found = database.number(all);
        async move {
            if found == i64::from(ROWS) - 1 {
                Ok(())
            } else {
                Err(found.to_string())
            }
        }
    })
    .await;
    assert_eq!(database.number(wrong), 0);
}
