//! Deletion: one step for the database, and nothing left of it in sockets or on the bus.

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use rovi_common::{
    frame::{EstimateFrame, FRAME_VERSION},
    rows::{Column, Columns},
    streams::{self, BusSettings},
    subjects,
    testing::eventually,
};
use serde_json::json;
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::{
    hub::Hub,
    support::{PATIENCE, Servers},
};

async fn register(hub: &Hub, name: &str) {
    let answer = reqwest::Client::new()
        .post(hub.url("/db/register"))
        .json(&json!({"name": name}))
        .send();
    assert_eq!(answer.await.unwrap().status(), 200);
}

async fn delete(hub: &Hub, battery: &str, more: &str) -> (u16, serde_json::Value) {
    let path = format!("/db/{battery}?confirm={battery}{more}");
    hub.ask(Method::DELETE, &path).await
}

/// Waits until the stream has no rows of the battery below an epoch.
async fn stream_has_only(servers: &Servers, battery: &str, epoch: i64) {
    eventually(PATIENCE, async || {
        let frames = servers.frames(battery).await;
        let old = frames.iter().filter(|frame| frame.epoch < epoch).count();
        if old == 0 {
            Ok(())
        } else {
            Err(format!("{old} old frames"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_name_once_more_nothing_is_deleted_and_what_would_be_is_told() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    hub.upload("b7", 0..30).await;
    register(&hub, "b7").await;
    for path in ["/db/b7", "/db/b7?confirm=b8", "/db/b7?drop=true"] {
        let (status, problem) = hub.ask(Method::DELETE, path).await;
        assert_eq!(
            (status, &problem["field"]),
            (409, &json!("confirm")),
            "{path}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("30 rows, 0 estimates, 1 versions of metadata"),
            "{detail}"
        );
    }
    assert_eq!(
        servers.number("SELECT count(*) AS value FROM battery.b7"),
        30
    );
    assert_eq!(
        hub.ask(Method::DELETE, "/db/nobody?confirm=nobody").await.0,
        404
    );
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_comes_back_begins_a_greater_epoch_and_the_old_table_stays_readable() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    hub.upload("b7", 0..300).await;
    register(&hub, "b7").await;
    servers.stream_equals_table("b7").await;
    let (status, deleted) = delete(&hub, "b7", "").await;
    assert_eq!(status, 200, "{deleted}");
    assert_eq!(
        deleted,
        json!({"battery": "b7", "epoch": 1, "kept_as": ["battery.\"b7@1\""]})
    );
    assert_eq!(hub.ask(Method::GET, "/db/b7/rows").await.0, 404);
    assert_eq!(hub.ask(Method::GET, "/db/b7/metadata").await.0, 404);
    stream_has_only(&servers, "b7", 2).await;

    hub.upload("b7", 0..10).await;
    eventually(PATIENCE, async || {
        let frames = servers.frames("b7").await;
        let seen: Vec<_> = frames
            .iter()
            .map(|frame| (frame.epoch, frame.last_seq()))
            .collect();
        if seen == [(2, 10)] {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    let (_, rows) = hub.ask(Method::GET, "/db/b7/rows?columns=test_time").await;
    assert_eq!((&rows["epoch"], &rows["last_seq"]), (&json!(2), &json!(10)));
    assert_eq!(
        servers.number("SELECT count(*) AS value FROM battery.\"b7@1\""),
        300
    );
    let journal = "SELECT count(*) AS value FROM hub.deleted_batteries d, \
                   json_array_elements(d.journal) j WHERE j->>'change' = 'table made' \
                   AND d.rows_table = 'b7@1' AND d.metadata->>'name' = 'b7' AND last_seq = 300";
    assert_eq!(servers.number(journal), 1);

    let (_, deleted) = delete(&hub, "b7", "&drop=true").await;
    assert_eq!(deleted, json!({"battery": "b7", "epoch": 2, "kept_as": []}));
    let tables = "SELECT count(*) AS value FROM pg_tables WHERE schemaname = 'battery'";
    assert_eq!(servers.number(tables), 1);
    register(&hub, "b7").await;
    let epoch = "SELECT epoch AS value FROM hub.batteries WHERE name = 'b7'";
    assert_eq!(servers.number(epoch), 3);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_uploads_of_every_hub_end_with_the_reason_and_write_nothing_more() {
    let servers = Servers::start();
    let hubs = [Hub::start(&servers).await, Hub::start(&servers).await];
    let mut sockets = Vec::new();
    for hub in &hubs {
        let (mut socket, _) = connect_async(hub.socket_url("/db/upload/b7"))
            .await
            .unwrap();
        let row = Message::text(r#"{"test_time": 1, "voltage": 3.5, "note": "x"}"#);
        socket.send(row).await.unwrap();
        sockets.push(socket);
    }
    // Both writers know the table now.
    eventually(PATIENCE, async || {
        match servers.try_number("SELECT count(*) AS value FROM battery.b7") {
            Ok(2) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(delete(&hubs[0], "b7", "").await.0, 200);
    for mut socket in sockets {
        let closed = tokio::time::timeout(PATIENCE, async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return frame,
                    Some(Ok(_)) => {}
                    other => panic!("no close frame: {other:?}"),
                }
            }
        });
        let frame = closed.await.unwrap();
        assert_eq!(u16::from(frame.code), 1008);
        assert_eq!(frame.reason.as_str(), "the battery b7 was deleted");
    }
    for (hub, rows) in hubs.iter().zip([0..3, 3..5]) {
        hub.upload("b7", rows).await;
    }
    assert_eq!(
        servers.number("SELECT count(*) AS value FROM battery.\"b7@1\""),
        2
    );
    assert_eq!(
        servers.number("SELECT count(*) AS value FROM battery.b7"),
        5
    );
    for hub in hubs {
        hub.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_reads_keeps_its_battery_whole() {
    use diesel::connection::SimpleConnection;
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    hub.upload("b7", 0..3).await;
    let mut reader = servers.conn();
    reader
        .batch_execute("BEGIN; LOCK TABLE battery.b7 IN ACCESS SHARE MODE")
        .unwrap();
    let (status, problem) = delete(&hub, "b7", "").await;
    assert_eq!(status, 503, "{problem}");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("nothing was deleted")
    );
    reader.batch_execute("COMMIT").unwrap();
    hub.upload("b7", 3..5).await;
    assert_eq!(
        servers.number("SELECT count(*) AS value FROM battery.b7"),
        5
    );
    assert_eq!(delete(&hub, "b7", "").await.0, 200);
    hub.stop().await;
}

fn estimates(epoch: i64, seq: i64) -> EstimateFrame {
    let soc = ("soc".to_owned(), Column::Float(vec![Some(0.5)]));
    EstimateFrame {
        v: FRAME_VERSION,
        battery: "b7".parse().unwrap(),
        estimator: "default".parse().unwrap(),
        revision: 1,
        generation: 1,
        epoch,
        seq: vec![seq],
        test_time: vec![1.0],
        columns: Columns::new(vec![soc]).unwrap(),
        replaces: None,
        lineage: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn estimators_end_with_their_battery_and_late_estimates_never_show_in_the_next() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    hub.upload("b7", 0..3).await;
    let nats = async_nats::connect(servers.nats.server.url())
        .await
        .unwrap();
    let jetstream = async_nats::jetstream::new(nats.clone());
    let request = json!({"battery": "b7", "estimator": "default", "definition": "{}",
        "valid_from": 0.0});
    let asked = nats.request(subjects::REGISTER, request.to_string().into());
    assert!(String::from_utf8_lossy(&asked.await.unwrap().payload).contains("revision"));
    let subject = "rovi.estimates.b7.default";
    let publish = async |frame: EstimateFrame| {
        let sent = jetstream.publish(subject, frame.encode()).await.unwrap();
        sent.await.unwrap();
    };
    let seqs = async |sql: &str, expected: i64| {
        eventually(PATIENCE, async || match servers.try_number(sql) {
            Ok(found) if found == expected => Ok(()),
            other => Err(format!("{sql}: {other:?}")),
        })
        .await;
    };
    publish(estimates(1, 3)).await;
    seqs("SELECT max(seq) AS value FROM estimates.b7", 3).await;

    let (_, deleted) = delete(&hub, "b7", "").await;
    let kept = json!(["battery.\"b7@1\"", "estimates.\"b7@1\""]);
    assert_eq!(deleted["kept_as"], kept);
    eventually(PATIENCE, async || {
        let bucket = jetstream
            .get_key_value(subjects::ESTIMATORS_BUCKET)
            .await
            .unwrap();
        let entry = bucket.get("b7.default").await.unwrap().unwrap_or_default();
        let text = String::from_utf8_lossy(&entry).into_owned();
        if text.contains("\"deleted\":true") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;

    // What a twin still had in hand comes after the name is in use again.
    hub.upload("b7", 0..2).await;
    publish(estimates(1, 2)).await;
    publish(estimates(2, 1)).await;
    seqs("SELECT max(epoch) AS value FROM estimates.b7", 2).await;
    seqs("SELECT count(*) AS value FROM estimates.b7", 1).await;
    seqs("SELECT count(*) AS value FROM estimates.\"b7@1\"", 1).await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_a_deleted_battery_hears_that_it_is_no_more() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    hub.upload("b7", 0..10).await;
    let client = async_nats::connect(servers.nats.server.url())
        .await
        .unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let states = streams::ensure_states(&jetstream, &BusSettings::default())
        .await
        .unwrap();
    let subject = subjects::state_of(&"b7".parse().unwrap());
    let state = json!({
        "v": 1, "battery": "b7", "epoch": 1, "seq": 10, "segment": 1, "received": 0,
        "row": {}, "omitted": 0, "estimators": {}, "by": "twin",
    });
    let published = jetstream.publish(subject.clone(), state.to_string().into());
    published.await.unwrap().await.unwrap();
    assert_eq!(delete(&hub, "b7", "").await.0, 200);
    eventually(PATIENCE, async || {
        let last = states.get_last_raw_message_by_subject(&subject).await;
        match last.unwrap().payload {
            payload if payload.is_empty() => Ok(()),
            payload => Err(format!("{payload:?}")),
        }
    })
    .await;
    hub.stop().await;
}
