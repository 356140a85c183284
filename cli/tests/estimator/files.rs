//! Checking and comparing, native documents and scripts.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use rovi_common::testing::reference_folder;

const PLAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../twin/python/tests/plain.py");
const GOLDEN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/golden/joint_held_current"
);

fn golden(kind: &str) -> String {
    format!("{GOLDEN}.{kind}")
}

/// Runs `rovicli estimator`; returns whether it succeeded and all that it printed.
fn rovicli(args: &[&str]) -> (bool, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_rovicli"))
        .arg("estimator")
        .args(args)
        .output()
        .unwrap();
    let printed = [run.stdout, run.stderr].concat();
    (run.status.success(), String::from_utf8(printed).unwrap())
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let (is_done, printed) = rovicli(args);
    assert!(is_done, "{printed}");
    printed
}

#[track_caller]
fn fails(args: &[&str]) -> String {
    let (is_done, printed) = rovicli(args);
    assert!(!is_done, "{printed}");
    printed
}

/// A CSV file as its head and its cells.
fn table(text: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let split = |line: &str| line.split(',').map(str::to_owned).collect();
    let mut lines = text.lines();
    let head = split(lines.next().unwrap());
    (head, lines.map(split).collect())
}

fn number(cell: &str) -> f64 {
    cell.parse().unwrap()
}

#[test]
fn check_shows_end_values_and_whether_the_filter_knows_its_errors() {
    let printed = succeeds(&["check", &golden("json"), "--data", &golden("csv")]);
    for expected in [
        "steps",
        "chi-square, 95 %",
        "rmse of predicted voltage",
        "q_t.base_values",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
}

#[test]
fn a_script_is_checked_in_the_sandbox() {
    let printed = succeeds(&["check", PLAIN, "--data", &golden("csv"), "--rows", "50"]);
    assert!(printed.contains("plain.py: 50 rows"), "{printed}");
    assert!(
        printed.contains("v_mean") && printed.contains("no voltage is predicted"),
        "{printed}"
    );
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("curious.py");
    fs::write(&script, "print(open('/etc/hostname').read())").unwrap();
    let script = script.to_str().unwrap();
    let printed = fails(&["check", script, "--data", &golden("csv")]);
    assert!(printed.contains("PermissionError"), "{printed}");
}

#[test]
fn a_dump_has_every_digit_and_goes_in_again_as_data() {
    let folder = tempfile::tempdir().unwrap();
    let dump = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (first, second) = (dump("first.csv"), dump("second.csv"));
    succeeds(&[
        "check",
        &golden("json"),
        "--data",
        &golden("csv"),
        "--dump",
        &first,
    ]);
    succeeds(&[
        "check",
        &golden("json"),
        "--data",
        &first,
        "--dump",
        &second,
    ]);
    let written = fs::read_to_string(&first).unwrap();
    assert_eq!(written, fs::read_to_string(&second).unwrap());
    let (head, rows) = table(&written);
    let expected = "row,test_time,current,voltage,temperature,v_pred,v_pred_var,mean[soc]";
    assert!(head.join(",").starts_with(expected), "{head:?}");
    assert_eq!(rows[0][0], "0");
    assert_eq!(rows[0][5], "", "the first row only starts");
    assert!(rows.iter().all(|row| row.len() == head.len()));
}

#[test]
fn an_estimator_compared_with_itself_is_nowhere_apart() {
    let (document, data) = (golden("json"), golden("csv"));
    let printed = succeeds(&[
        "compare", &document, &document, "--data", &data, "--rows", "40",
    ]);
    assert!(printed.contains("40 rows were compared"), "{printed}");
    let soc = printed
        .lines()
        .find(|line| line.starts_with("soc "))
        .unwrap();
    assert!(soc.ends_with("0.00e0"), "{soc}");
    let printed = succeeds(&["compare", &document, PLAIN, "--data", &data]);
    assert!(printed.contains("v_mean"), "{printed}");
}

#[test]
fn what_cannot_be_run_is_named() {
    let printed = fails(&["check", "no-such.json", "--data", &golden("csv")]);
    assert!(printed.contains("cannot read no-such.json"), "{printed}");
    let printed = fails(&["check", &golden("json"), "--data", PLAIN]);
    assert!(printed.contains("plain.py"), "{printed}");
    let python = ["--python", "no-such-python"];
    let args = [
        "check",
        PLAIN,
        "--data",
        &golden("csv"),
        python[0],
        python[1],
    ];
    let printed = fails(&args);
    assert!(printed.contains("no-such-python"), "{printed}");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("rows.csv");
    fs::write(&data, "time,current\n1,2\n").unwrap();
    let printed = fails(&["check", PLAIN, "--data", data.to_str().unwrap()]);
    assert!(
        printed.contains("no column `test_time`, only time, current"),
        "{printed}"
    );
}

/// Writes a reference trajectory and the document that it was made with, in our form.
fn reference(folder: &Path, name: &str, place: &Path) -> (PathBuf, PathBuf) {
    let packed = fs::File::open(folder.join(format!("trajectories/{name}.csv.gz"))).unwrap();
    let mut rows = String::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut rows)
        .unwrap();
    let text = fs::read_to_string(folder.join(format!("trajectories/{name}.json"))).unwrap();
    let mut document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).unwrap();
    // The rest of the file tells where it comes from.
    let known = [
        "kind",
        "current_behavior",
        "normalize_asoh",
        "asoh",
        "initial_transients",
        "initial_inputs",
        "covariance_transient",
        "covariance_asoh",
        "transient_process_noise",
        "asoh_process_noise",
        "sensor_noise",
        "ukf",
    ];
    document.retain(|key, _| known.contains(&key.as_str()));
    document.insert("compat".to_owned(), "moirae-0.3".into());
    let (data, definition) = (place.join("reference.csv"), place.join("document.json"));
    fs::write(&data, rows).unwrap();
    fs::write(&definition, serde_json::to_string(&document).unwrap()).unwrap();
    (data, definition)
}

#[test]
fn a_dump_equals_the_reference_trajectory_of_the_same_document() {
    let Some(folder) = reference_folder() else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let (data, definition) = reference(&folder, "i_joint_camp", place.path());
    let dump = place.path().join("dump.csv");
    let paths = [&definition, &data, &dump].map(|path| path.to_str().unwrap());
    succeeds(&[
        "check", paths[0], "--data", paths[1], "--dump", paths[2], "--rows", "1000",
    ]);
    let (head, expected) = table(&fs::read_to_string(&data).unwrap());
    let (own_head, rows) = table(&fs::read_to_string(&dump).unwrap());
    assert_eq!(own_head, head);
    assert_eq!(rows.len(), 1000);
    let states = head.iter().filter(|name| name.starts_with("mean[")).count();
    for (row, expected) in rows.iter().zip(&expected).skip(1) {
        assert_eq!(
            row[..5],
            expected[..5],
            "what was measured is written as it was read"
        );
        assert!(
            (number(&row[5]) - number(&expected[5])).abs() < 1e-9,
            "{row:?}"
        );
        for state in 0..states {
            let deviation = number(&expected[7 + states + state * (states + 1)]).sqrt();
            let apart = (number(&row[7 + state]) - number(&expected[7 + state])).abs();
            assert!(
                apart < 1e-7 * deviation,
                "row {}, {}",
                row[0],
                head[7 + state]
            );
        }
    }
}
