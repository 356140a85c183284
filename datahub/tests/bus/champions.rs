//! Which estimator counts from which row on: settled with every change, and told to twins whatever
//! happens to the bus.

use rovi_common::{
    registration::{Register, Registration, Reply},
    subjects,
};
use serde_json::{Value, json};

use crate::{
    registrations::{ask, bucket_has, done, start},
    support::{Parts, Servers},
};

async fn register(parts: &Parts, estimator: &str) -> Registration {
    let request = Register {
        battery: "b7".parse().unwrap(),
        estimator: estimator.parse().unwrap(),
        definition: "a document".to_owned(),
        valid_from: 0.0,
        required_time: 0.0,
        files: Vec::new(),
    };
    let request = serde_json::to_value(request).unwrap();
    done(ask(parts, subjects::REGISTER, request).await)
}

async fn control(parts: &Parts, estimator: &str, action: &str) -> Reply {
    let request = json!({"battery": "b7", "estimator": estimator, "action": action});
    ask(parts, subjects::CONTROL, request).await
}

/// Asserts who is champion of the rows `1..=last`, in runs of `(estimator, rows)`.
#[track_caller]
fn assert_champions(servers: &Servers, expected: &[(&str, i64)]) {
    let mut first = 1;
    for &(name, rows) in expected {
        let count = format!(
            "SELECT count(*) AS value FROM generate_series({first}, {}) AS seq \
             WHERE hub.champion_of('b7', 1, seq) = '{name}'",
            first + rows - 1
        );
        assert_eq!(servers.number(&count), rows, "{name} from row {first}");
        first += rows;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_has_one_champion_whatever_is_promoted_and_removed() {
    let servers = Servers::start();
    servers.battery("b7");
    let parts = start(&servers).await;
    let stored = |rows: i64| {
        servers.sql(&format!("UPDATE hub.batteries SET last_seq = {rows}"));
    };
    let first = register(&parts, "default").await;
    assert_eq!(first.standing.champion.unwrap().from_seq, 1);
    let second = register(&parts, "second").await;
    stored(40);
    let promoted = done(control(&parts, "second", "promote").await);
    assert_eq!(promoted.revision, second.revision, "it runs on");
    assert!(promoted.version() > second.version());
    let champion = promoted.standing.champion.clone().unwrap();
    assert_eq!(
        (champion.from_seq, champion.estimator.unwrap().as_str()),
        (41, "second")
    );
    let again = done(control(&parts, "second", "promote").await);
    assert_eq!(again, promoted, "what is so stays so");
    assert_champions(&servers, &[("default", 40), ("second", 60)]);

    // No row came in between: the later word counts.
    done(control(&parts, "default", "promote").await);
    assert_champions(&servers, &[("default", 100)]);
    done(control(&parts, "second", "promote").await);
    stored(70);
    let request = json!({"battery": "b7", "estimator": "second"});
    let removed = done(ask(&parts, subjects::DEREGISTER, request).await);
    let champion = removed.standing.champion.clone().unwrap();
    assert_eq!(champion.estimator.unwrap().as_str(), "default");
    assert_champions(
        &servers,
        &[("default", 40), ("second", 30), ("default", 30)],
    );
    bucket_has(&parts, "b7.second", |found| *found == removed).await;
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_and_resets_are_committed_and_survive_a_wiped_bus() {
    let mut servers = Servers::start();
    servers.battery("b7");
    let parts = start(&servers).await;
    register(&parts, "default").await;
    let second = register(&parts, "second").await;
    let promoted = done(control(&parts, "second", "promote").await);
    let paused = done(control(&parts, "default", "pause").await);
    assert!(paused.standing.paused);
    let refused = control(&parts, "default", "promote").await;
    assert!(matches!(refused, Reply::Conflict { .. }), "{refused:?}");
    let reset = done(control(&parts, "second", "reset").await);
    assert!(reset.revision > second.revision);
    assert_eq!(reset.definition, second.definition);

    servers.nats.server.wipe().unwrap();
    servers.nats.server.start_again().unwrap();
    bucket_has(&parts, "b7.default", |found| found.standing.paused).await;
    let told = bucket_has(&parts, "b7.second", |found| {
        found.revision == reset.revision
    })
    .await;
    assert_eq!(told.standing.champion, promoted.standing.champion);
    assert!(
        !done(control(&parts, "default", "resume").await)
            .standing
            .paused
    );
    bucket_has(&parts, "b7.default", |found| !found.standing.paused).await;
    for (estimator, action) in [("nobody", "pause"), ("nobody", "promote")] {
        let answer = control(&parts, estimator, action).await;
        assert!(matches!(answer, Reply::NotFound { .. }), "{answer:?}");
    }
    let odd: Value = json!({"battery": "b7", "estimator": "default", "action": "explode"});
    let refused = ask(&parts, subjects::CONTROL, odd).await;
    assert!(matches!(refused, Reply::Refused { .. }), "{refused:?}");
    parts.stop().await;
}
