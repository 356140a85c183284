//! A file of battery-data-toolkit as the body of a request.

use std::{fs, path::Path};

use reqwest::StatusCode;
use serde_json::Value;
use system_tests::Stack;

async fn hub(settings: &[(&str, &str)]) -> Stack {
    let mut stack = Stack::servers();
    for (name, value) in settings {
        stack.set(name, value);
    }
    stack.start_hub();
    stack.hub_ready().await;
    stack
}

/// Sends a file; returns the status and the lines of the answer.
async fn send(stack: &Stack, path: &str, file: Vec<u8>) -> (StatusCode, Vec<Value>) {
    let url = format!("{}/db/upload/{path}", stack.hub_url());
    let answer = stack.http().post(url).body(file).send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (status, lines.collect())
}

async fn simulated(stack: &Stack, rows: &str) -> Vec<u8> {
    stack
        .run_rovicli(&["simulate", "cell.h5", "--rows", rows, "--seed", "1"])
        .await;
    fs::read(stack.folder().join("cell.h5")).unwrap()
}

fn temporary_files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn a_file_is_stored_once_whoever_sends_it_and_leaves_nothing_on_the_disk() {
    let spool = tempfile::tempdir().unwrap();
    let mut stack = Stack::servers();
    stack.set_variable("TMPDIR", spool.path().to_str().unwrap());
    stack.start_hub();
    stack.hub_ready().await;
    let file = simulated(&stack, "20000").await;
    let (status, lines) = send(&stack, "b7/battdat", file.clone()).await;
    assert_eq!(status, 200, "{lines:?}");
    assert_eq!(lines[0]["rows"], 20_000);
    assert_eq!(lines[0]["columns"]["voltage"]["unit"], "V");
    assert!(lines[0]["metadata"].is_object());
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["stored"], &last["rejected"]),
        (&20_000.into(), &0.into())
    );

    let (_, again) = send(&stack, "b7/battdat", file).await;
    assert_eq!(again.last().unwrap()["stored"], 20_000);
    stack
        .run_rovicli(&["stream", "cell.h5", "--name", "b7", "--speedup", "max"])
        .await;
    assert_eq!(stack.database().dense_rows("b7"), 20_000);
    assert_eq!(temporary_files(spool.path()), 0);
}

#[tokio::test]
async fn what_is_no_battdat_file_is_refused_in_words_and_the_hub_lives_on() {
    let stack = hub(&[("FILE_BYTES", "3000000")]).await;
    let whole = simulated(&stack, "20000").await;
    let (status, told) = send(&stack, "b7/battdat", b"hello".to_vec()).await;
    assert_eq!(status, 400);
    let detail = told[0]["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("the file is not an HDF5 file"),
        "{detail}"
    );
    let (status, told) = send(&stack, "b7/battdat", vec![0; 3_000_001]).await;
    assert_eq!(status, 413, "{told:?}");
    let (status, told) = send(&stack, "b7/battdat?prefix=x", whole.clone()).await;
    assert_eq!(
        (status.as_u16(), &told[0]["field"]),
        (400, &"prefix".into())
    );

    // Cells that no table can hold are told.
    if let Some(reference) = rovi_common::testing::reference_folder() {
        let unusual = fs::read(reference.join("../data/unusual_columns.h5")).unwrap();
        let (_, told) = send(&stack, "unusual/battdat", unusual).await;
        let last = told.last().unwrap();
        assert_eq!(last["stored"], 12, "{told:?}");
        assert!(last["notes"][0].as_str().unwrap().contains("as null"));
    }

    // Cut off or with other bytes in it, a file is refused, or read as far as it goes.
    for at in (0..whole.len()).step_by(whole.len() / 12) {
        let cut = whole[..at].to_vec();
        let (status, told) = send(&stack, "cut/battdat", cut).await;
        assert_eq!(status, 400, "cut at {at}: {told:?}");
        let mut other = whole.clone();
        other[at..]
            .iter_mut()
            .take(64)
            .for_each(|byte| *byte ^= 0x5a);
        let (status, told) = send(&stack, "odd/battdat", other).await;
        assert!(status == 200 || status == 400, "changed at {at}: {told:?}");
    }
    let (status, _) = send(&stack, "b7/battdat", whole).await;
    assert_eq!(status, 200);
    assert_eq!(stack.database().dense_rows("b7"), 20_000);
}
