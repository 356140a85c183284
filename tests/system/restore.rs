//! Restoring a backup, as docs/OPERATIONS.md tells: the bus knows rows that the tables never had.

use std::{path::Path, process::Command, sync::Arc};

use system_tests::{
    Stack,
    hub::HubProcess,
    trial::PATIENCE,
    uploader::{Acknowledged, Upload},
    verdict::{Row, frames_on_the_stream},
};
use tokio::sync::watch;
use uuid::Uuid;

/// Uploads rows in a session of their own.
async fn upload(hub: &HubProcess, rows: i64) -> Acknowledged {
    let upload = Upload {
        battery: "b7".to_owned(),
        session: Uuid::new_v4(),
        rows,
        frame_rows: 1..=50,
        window: 500,
        hubs: vec![hub.upload_url()],
        seed: 7,
    };
    let (_open, gate) = watch::channel(i64::MAX);
    let uploading = upload.run(gate, Arc::default());
    tokio::time::timeout(PATIENCE, uploading).await.unwrap()
}

/// Runs a program of PostgreSQL to its end.
fn run(stack: &Stack, program: &str, args: &[&str]) {
    let mut command = Command::new(stack.postgres.server.programs().join(program));
    let output = command.args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
}

fn restore(stack: &Stack, dump: &Path) {
    let url = stack.postgres.server.url();
    let elsewhere = url.replace("/rovi?", "/postgres?");
    let elsewhere = elsewhere
        .strip_suffix("/rovi")
        .map_or(elsewhere.clone(), |server| format!("{server}/postgres"));
    run(
        stack,
        "dropdb",
        &["--force", "--maintenance-db", &elsewhere, "rovi"],
    );
    run(stack, "createdb", &["--maintenance-db", &elsewhere, "rovi"]);
    run(
        stack,
        "pg_restore",
        &["--dbname", &url, dump.to_str().unwrap()],
    );
}

#[tokio::test]
async fn a_restored_backup_begins_a_new_epoch_and_uploads_go_on() {
    let stack = Stack::servers();
    let mut hub = HubProcess::new(&stack, 0, &[("RELAY__SWEEP_INTERVAL", "100ms")]);
    hub.start("");
    hub.ready().await;
    let kept = upload(&hub, 300).await;
    let dump = stack.folder().join("hub.dump");
    let url = stack.postgres.server.url();
    run(
        &stack,
        "pg_dump",
        &["--format=custom", "--file", dump.to_str().unwrap(), &url],
    );
    upload(&hub, 200).await;
    stack.relayed("b7").await;

    assert!(hub.stop());
    restore(&stack, &dump);
    hub.start("");
    hub.ready().await;
    let later = upload(&hub, 100).await;
    stack.relayed("b7").await;

    let mut database = stack.database();
    let table = system_tests::verdict::table_holds_what_was_acknowledged(
        &mut database,
        "b7",
        &[&kept, &later],
    );
    let table = table.unwrap();
    let epoch = "SELECT epoch AS value FROM hub.batteries WHERE name = 'b7'";
    assert_eq!(database.number(epoch), 2);
    // A reader that starts over at the new epoch has exactly the table.
    let frames = frames_on_the_stream(&stack.nats.server.url(), "b7")
        .await
        .unwrap();
    let again = frames.iter().filter(|frame| frame.epoch == 2);
    let seqs: Vec<i64> = again
        .flat_map(|frame| frame.first_seq..=frame.last_seq())
        .collect();
    let stored: Vec<i64> = table.iter().map(|Row(seq, ..)| *seq).collect();
    assert_eq!(seqs, stored);
    assert!(
        frames
            .iter()
            .is_sorted_by_key(|frame| (frame.epoch, frame.first_seq))
    );
}
