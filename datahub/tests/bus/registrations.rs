//! Registrations over real servers: durable, and told to twins whatever happens to the bus.

use std::sync::Arc;

use datahub::registrations::Registrations;
use rovi_common::{
    files::{FileRef, Files},
    registration::{Register, Registration, Reply},
    streams::{self, BusSettings},
    subjects,
    testing::eventually,
};

use crate::support::{PATIENCE, Parts, Servers};

pub(crate) async fn start(servers: &Servers) -> Parts {
    let parts = servers.parts(BusSettings::default()).await;
    let bus = Arc::clone(&parts.bus);
    Registrations::new(bus, servers.pool.clone(), &parts.metrics).start(&parts.lifecycle);
    parts
}

pub(crate) async fn ask(parts: &Parts, subject: &'static str, request: serde_json::Value) -> Reply {
    let client = parts.bus.client();
    let body = serde_json::to_vec(&request).unwrap();
    let answer = eventually(PATIENCE, || async {
        let asked = client.request(subject, body.clone().into()).await;
        asked.map_err(|error| error.to_string())
    })
    .await;
    serde_json::from_slice(&answer.payload).unwrap()
}

async fn register(parts: &Parts, battery: &str, definition: &str) -> Reply {
    let request = Register {
        battery: battery.parse().unwrap(),
        estimator: "default".parse().unwrap(),
        definition: definition.to_owned(),
        valid_from: 0.1,
        required_time: 0.0,
        files: Vec::new(),
    };
    ask(
        parts,
        subjects::REGISTER,
        serde_json::to_value(request).unwrap(),
    )
    .await
}

pub(crate) fn done(reply: Reply) -> Registration {
    match reply {
        Reply::Done(registration) => *registration,
        other => panic!("{other:?}"),
    }
}

/// Waits until the bucket has a registration of this kind under the key.
pub(crate) async fn bucket_has(
    parts: &Parts,
    key: &str,
    is_right: impl Fn(&Registration) -> bool,
) -> Registration {
    eventually(PATIENCE, || async {
        let bucket = streams::bucket(
            parts.bus.jetstream(),
            subjects::ESTIMATORS_BUCKET,
            parts.bus.settings(),
        );
        let bucket = bucket.await.map_err(|error| error.to_string())?;
        let value = bucket.get(key).await.map_err(|error| error.to_string())?;
        let found: Option<Registration> =
            value.and_then(|value| serde_json::from_slice(&value).ok());
        match found {
            Some(found) if is_right(&found) => Ok(found),
            other => Err(format!("{key}: {other:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_is_committed_answered_told_and_removed() {
    let servers = Servers::start();
    servers.battery("b7");
    let parts = start(&servers).await;
    let first = done(register(&parts, "b7", "one").await);
    let second = done(register(&parts, "b7", "two").await);
    assert!(second.revision > first.revision);
    let told = bucket_has(&parts, "b7.default", |found| *found.definition == *"two").await;
    assert_eq!(told, second);
    let kept = "SELECT revision AS value FROM hub.estimators WHERE definition = 'two'";
    assert_eq!(servers.number(kept), second.revision);

    let request = serde_json::json!({"battery": "b7", "estimator": "default"});
    let removed = done(ask(&parts, subjects::DEREGISTER, request.clone()).await);
    assert!(removed.deleted && removed.revision > second.revision && removed.definition.is_empty());
    bucket_has(&parts, "b7.default", |found| found.deleted).await;
    let again = ask(&parts, subjects::DEREGISTER, request).await;
    assert!(matches!(again, Reply::NotFound { .. }), "{again:?}");
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_registered_is_answered_with_the_reason() {
    let servers = Servers::start();
    servers.battery("b7");
    let parts = start(&servers).await;
    match register(&parts, "nobody", "x").await {
        Reply::NotFound { detail } => assert!(detail.contains("`nobody`"), "{detail}"),
        other => panic!("{other:?}"),
    }
    match register(&parts, "b7", "a\0b").await {
        Reply::Refused { detail } => assert!(detail.contains("NUL"), "{detail}"),
        other => panic!("{other:?}"),
    }
    match ask(
        &parts,
        subjects::REGISTER,
        serde_json::json!({"battery": "a.b"}),
    )
    .await
    {
        Reply::Refused { detail } => assert!(detail.contains("'.'"), "{detail}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        parts.metric("datahub_registrations_total{result=\"refused\"}"),
        2
    );
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_survive_a_wiped_bus_and_hubs_that_were_away() {
    let mut servers = Servers::start();
    servers.battery("b7");
    let parts = start(&servers).await;
    let registration = done(register(&parts, "b7", "kept").await);
    servers.nats.server.wipe().unwrap();
    servers.nats.server.start_again().unwrap();
    let told = bucket_has(&parts, "b7.default", |found| *found.definition == *"kept").await;
    assert_eq!(told, registration);
    parts.stop().await;

    // Committed by a hub that died before it told the bucket.
    servers.sql(
        "INSERT INTO hub.estimators (battery_id, name, definition) SELECT id, 'other', 'late' \
         FROM hub.batteries",
    );
    let parts = start(&servers).await;
    bucket_has(&parts, "b7.other", |found| *found.definition == *"late").await;
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_restoring_an_older_database_the_bucket_follows_it_with_new_revisions() {
    let servers = Servers::start();
    servers.battery("b7");
    servers.battery("gone");
    let parts = start(&servers).await;
    done(register(&parts, "b7", "old").await);
    done(register(&parts, "gone", "old").await);
    servers.sql("CREATE TABLE backup AS SELECT * FROM hub.estimators");
    for definition in ["newer", "newest"] {
        done(register(&parts, "b7", definition).await);
    }
    let before = bucket_has(&parts, "b7.default", |found| *found.definition == *"newest").await;
    parts.stop().await;
    servers.sql(
        "DELETE FROM hub.estimators; INSERT INTO hub.estimators SELECT * FROM backup; \
         SELECT setval('hub.revisions', (SELECT max(revision) FROM backup)); \
         DELETE FROM hub.batteries WHERE name = 'gone'",
    );
    let parts = start(&servers).await;
    let after = bucket_has(&parts, "b7.default", |found| *found.definition == *"old").await;
    assert!(after.revision > before.revision);
    bucket_has(&parts, "gone.default", |found| found.deleted).await;
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn companion_files_are_kept_and_put_back_after_a_wipe() {
    let mut servers = Servers::start();
    servers.battery("b7");
    let parts = start(&servers).await;
    let content = b"0.1,0.2".repeat(40_000);
    let named = FileRef::new("start.csv".to_owned(), &content);
    let request = |files: &[FileRef]| {
        let request = Register {
            battery: "b7".parse().unwrap(),
            estimator: "default".parse().unwrap(),
            definition: "estimator = 1".to_owned(),
            valid_from: 0.0,
            required_time: 60.0,
            files: files.to_vec(),
        };
        serde_json::to_value(request).unwrap()
    };
    let asked = request(std::slice::from_ref(&named));
    match ask(&parts, subjects::REGISTER, asked.clone()).await {
        Reply::Unavailable { detail } => assert!(detail.contains("start.csv"), "{detail}"),
        other => panic!("a file that nobody sent: {other:?}"),
    }
    let open = || Files::open(parts.bus.jetstream(), parts.bus.settings());
    open().await.unwrap().put(&content).await.unwrap();
    let registration = done(ask(&parts, subjects::REGISTER, asked).await);
    assert_eq!(
        (registration.required_time, &registration.files[..]),
        (60.0, &[named.clone()][..])
    );

    servers.nats.server.wipe().unwrap();
    servers.nats.server.start_again().unwrap();
    bucket_has(&parts, "b7.default", |found| *found == registration).await;
    let back = open().await.unwrap().get(&named).await.unwrap();
    assert_eq!(
        back, content,
        "a twin that reads the registration finds its files"
    );

    // Lost without a new life of the bus, so that what is told next is all that mends them.
    let jetstream = parts.bus.jetstream();
    let lost = jetstream.delete_key_value(subjects::ESTIMATORS_BUCKET);
    lost.await.unwrap();
    let lost = jetstream.delete_object_store(subjects::FILES_STORE);
    lost.await.unwrap();
    let pause = serde_json::json!({"battery": "b7", "estimator": "default", "action": "pause"});
    let paused = done(ask(&parts, subjects::CONTROL, pause).await);
    bucket_has(&parts, "b7.default", |found| *found == paused).await;
    let back = open().await.unwrap().get(&named).await.unwrap();
    assert_eq!(back, content, "files are put before what names them");

    let many = FileRef {
        bytes: 1 << 30,
        ..named
    };
    match ask(&parts, subjects::REGISTER, request(&[many])).await {
        Reply::Refused { detail } => assert!(detail.contains("more than"), "{detail}"),
        other => panic!("{other:?}"),
    }
    done(ask(&parts, subjects::REGISTER, request(&[])).await);
    assert_eq!(
        servers.number("SELECT count(*) AS value FROM hub.estimator_files"),
        0
    );
    parts.stop().await;
}
