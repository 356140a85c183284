//! Large checkpoints: beside the bucket, fenced like small ones, and gone when they are replaced.

use std::{collections::BTreeMap, time::Duration};

use rovi_common::{
    streams,
    subjects::{CHECKPOINTS_BUCKET, CHECKPOINTS_STORE},
    testing,
};
use twin::{
    checkpoint::{
        CHECKPOINT_VERSION, Checkpoint, CheckpointError, Checkpoints, Entry, MAX_ENTRY_BYTES,
        Origin,
    },
    filter::{Position, Progress},
    python::PythonState,
    runner::Saved,
};

use crate::{
    bus::Bus,
    python::{COUNTING, registration},
    rows::{drive, frames},
    twin::{PATIENCE, Twin, settings},
};

const KEY: &str = "b7.default";

fn checkpoints(bus: &Bus) -> Checkpoints {
    Checkpoints::new(bus.jetstream.clone(), bus.settings.clone())
}

/// A checkpoint after row `seq` with a state of so many bytes.
fn checkpoint(seq: i64, bytes: usize) -> Checkpoint {
    let state = serde_json::json!({
        "pickled": vec![u8::try_from(seq).unwrap(); bytes], "latest_time": 1.0, "is_new_segment": false,
    });
    let state: PythonState = serde_json::from_value(state).unwrap();
    Checkpoint {
        v: CHECKPOINT_VERSION,
        revision: 1,
        generation: 1,
        by: String::new(),
        origin: Origin::default(),
        corrections: 0,
        late: twin::order::Late::default(),
        ring: twin::ring::Ring::default(),
        recomputation: None,
        progress: Progress {
            position: Position { epoch: 1, seq },
            segment: Some(1),
            largest_test_time: None,
            rows: 0,
            steps: 0,
            skipped: BTreeMap::new(),
            innovation: None,
            first_step: None,
            last_refusal: None,
            refused_since_step: 0,
            found: None,
            first_seq: None,
        },
        snapshot: Saved::Python(state),
    }
}

/// Messages in the store of large checkpoints: what was removed has left none.
async fn messages(bus: &Bus) -> u64 {
    let name = format!("OBJ_{CHECKPOINTS_STORE}");
    match bus.jetstream.get_stream(name).await {
        Ok(stream) => stream.cached_info().state.messages,
        Err(_) => 0,
    }
}

#[tokio::test]
async fn a_large_checkpoint_is_read_as_written_and_leaves_nothing_when_it_is_replaced() {
    let bus = Bus::start().await;
    let checkpoints = checkpoints(&bus);
    let large = 3 * MAX_ENTRY_BYTES;
    let mut entry = Entry::default();
    let mut counts = Vec::new();
    for seq in 1..=4 {
        let written = checkpoint(seq, large);
        entry = checkpoints.write(KEY, &written, &entry).await.unwrap();
        let found = checkpoints.read(KEY).await.unwrap();
        assert_eq!((found.checkpoint, &found.entry), (Some(written), &entry));
        counts.push(messages(&bus).await);
    }
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    let small = checkpoint(5, 10);
    let entry = checkpoints.write(KEY, &small, &entry).await.unwrap();
    assert_eq!(messages(&bus).await, 0);
    assert_eq!(checkpoints.read(KEY).await.unwrap().checkpoint, Some(small));
    let entry = checkpoints
        .write(KEY, &checkpoint(6, large), &entry)
        .await
        .unwrap();
    checkpoints.remove(KEY, &entry).await.unwrap();
    assert_eq!(messages(&bus).await, 0);
    assert_eq!(checkpoints.read(KEY).await.unwrap().checkpoint, None);
}

#[tokio::test]
async fn whoever_lost_the_battery_cannot_touch_the_new_owners_large_checkpoint() {
    let bus = Bus::start().await;
    let (owner, zombie) = (checkpoints(&bus), checkpoints(&bus));
    let large = 2 * MAX_ENTRY_BYTES;
    let first = checkpoint(1, large);
    let known = zombie.write(KEY, &first, &Entry::default()).await.unwrap();
    let theirs = checkpoint(2, large);
    owner.write(KEY, &theirs, &known).await.unwrap();
    let held = messages(&bus).await;
    let refused = zombie.write(KEY, &checkpoint(3, large), &known).await;
    assert!(
        matches!(refused, Err(CheckpointError::Conflict)),
        "{refused:?}"
    );
    assert_eq!(owner.read(KEY).await.unwrap().checkpoint, Some(theirs));
    assert_eq!(messages(&bus).await, held);
}

#[tokio::test]
async fn what_a_crash_left_is_swept_and_what_counts_stays() {
    let bus = Bus::start().await;
    let checkpoints = checkpoints(&bus);
    let large = 2 * MAX_ENTRY_BYTES;
    let counts = checkpoint(1, large);
    checkpoints
        .write(KEY, &counts, &Entry::default())
        .await
        .unwrap();
    let held = messages(&bus).await;
    // The entry goes, the object stays: as if the twin had died between the two.
    let lost = checkpoint(1, large);
    checkpoints
        .write("b8.default", &lost, &Entry::default())
        .await
        .unwrap();
    let bucket = streams::bucket(&bus.jetstream, CHECKPOINTS_BUCKET, &bus.settings).await;
    bucket.unwrap().purge("b8.default").await.unwrap();
    // The first part of another is there, the rest never came.
    let part = format!("$O.{CHECKPOINTS_STORE}.C.unfinished");
    let sent = bus.jetstream.publish(part, "part".into()).await.unwrap();
    sent.await.unwrap();
    assert_eq!(
        checkpoints.sweep(Duration::from_hours(1)).await.unwrap(),
        0,
        "it is too young"
    );
    assert_eq!(checkpoints.sweep(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(messages(&bus).await, held);
    assert_eq!(
        checkpoints.read(KEY).await.unwrap().checkpoint,
        Some(counts)
    );
}

#[tokio::test]
async fn a_lost_object_costs_time_alone() {
    let bus = Bus::start().await;
    let checkpoints = checkpoints(&bus);
    let entry = checkpoints
        .write(KEY, &checkpoint(1, MAX_ENTRY_BYTES), &Entry::default())
        .await
        .unwrap();
    let name = format!("OBJ_{CHECKPOINTS_STORE}");
    bus.jetstream.delete_stream(name).await.unwrap();
    let found = checkpoints.read(KEY).await.unwrap();
    assert_eq!((found.checkpoint, &found.entry), (None, &entry));
    let again = checkpoint(2, MAX_ENTRY_BYTES);
    checkpoints.write(KEY, &again, &entry).await.unwrap();
    assert_eq!(checkpoints.read(KEY).await.unwrap().checkpoint, Some(again));
}

#[tokio::test]
async fn a_script_with_megabytes_of_state_goes_on_from_it_after_a_crash() {
    let bus = Bus::start().await;
    // The second state counts its lives: a run that begins anew would show 1.
    let script = COUNTING
        .replace("FAULT", "")
        .replace(
            "[0.0, 0.0], 1",
            "[0.0, 0.0], 1\n        self.noise = os.urandom(3 << 20)",
        )
        .replace("return self.values", "return [self.values[0], self.lives]");
    bus.put(&registration("default", 1, &script)).await;
    let rows = frames("b7", &drive(200), 1, 10);
    let twin = Twin::start(settings(&bus));
    bus.publish(&rows[..10]).await;
    let status = twin.reached("b7", 100).await;
    assert_eq!(status["mean"], serde_json::json!([99.0, 1.0]));
    let saved = checkpoints(&bus);
    testing::eventually(PATIENCE, async || {
        let found = saved.read(KEY).await.unwrap().checkpoint;
        let seq = found.map(|checkpoint| checkpoint.progress.position.seq);
        if seq == Some(100) {
            Ok(())
        } else {
            Err(format!("{seq:?}"))
        }
    })
    .await;
    twin.kill();
    let twin = Twin::start(settings(&bus));
    bus.publish(&rows[10..]).await;
    let status = twin.reached("b7", 200).await;
    assert_eq!(status["mean"], serde_json::json!([199.0, 2.0]));
    assert_eq!(status["warnings"], serde_json::json!([]));
    assert!(messages(&bus).await > 20);

    let mut removed = registration("default", 2, "");
    removed.deleted = true;
    bus.put(&removed).await;
    testing::eventually(PATIENCE, async || match messages(&bus).await {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
}
