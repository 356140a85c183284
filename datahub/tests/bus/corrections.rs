//! Rows corrected and deleted after they were stored: the table, its journal, what readers are told,
//! and what the bus says.

use std::time::Duration;

use async_nats::jetstream;
use rovi_common::{
    corrections::Corrections,
    frame::{EstimateFrame, FRAME_VERSION, Lineage},
    rows::{Column, Columns},
    subjects,
    testing::eventually,
};
use serde_json::{Value, json};

use crate::{
    hub::Hub,
    support::{PATIENCE, Servers},
};

async fn ask(hub: &Hub, method: &str, path: &str, body: &Value) -> (u16, String, Value) {
    let client = reqwest::Client::new();
    let request = client.request(method.parse().unwrap(), hub.url(path));
    let request = match body {
        Value::Null => request,
        body => request.json(body),
    };
    let answer = request.header("From", "ann").send().await.unwrap();
    let header = |name| {
        answer
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let told = header("etag")
        .or(header("rovi-deleted"))
        .unwrap_or_default();
    (
        answer.status().as_u16(),
        told,
        answer.json().await.unwrap_or_default(),
    )
}

async fn upload(hub: &Hub, rows: std::ops::RangeInclusive<i32>) {
    let row = |n: i32| json!({"test_time": f64::from(n), "voltage": 3.5, "current": -1.0, "n": n});
    let rows: Vec<Value> = rows.map(row).collect();
    let (status, _, answer) = ask(hub, "POST", "/db/upload/b7", &rows.into()).await;
    assert_eq!(status, 200, "{answer}");
}

/// Waits for what the bucket says of a battery.
async fn told(servers: &Servers, revision: i64) -> Corrections {
    let client = async_nats::connect(servers.nats.server.url())
        .await
        .unwrap();
    let jetstream = jetstream::new(client);
    eventually(PATIENCE, async || {
        let bucket = jetstream.get_key_value(subjects::CORRECTIONS_BUCKET).await;
        let bucket = bucket.map_err(|error| error.to_string())?;
        let value = bucket.get("b7").await.map_err(|error| error.to_string())?;
        let told: Option<Corrections> = value.map(|value| serde_json::from_slice(&value).unwrap());
        match told {
            Some(told) if told.revision == revision => Ok(told),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_corrected_by_column_under_conditions_and_the_old_values_stay_readable() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    upload(&hub, 1..=20).await;
    let (status, etag, row) = ask(&hub, "GET", "/db/b7/rows/7", &Value::Null).await;
    assert_eq!((status, etag.as_str()), (200, "\"1-0\""));
    assert_eq!(
        (&row["row"]["voltage"], &row["revision"]),
        (&3.5.into(), &0.into())
    );

    let (status, etag, answer) = ask(&hub, "PUT", "/db/b7/rows/7", &json!({"voltage": 3.75})).await;
    assert_eq!((status, etag.as_str()), (200, "\"1-1\""), "{answer}");
    // The same again is no other correction.
    let (status, etag, _) = ask(&hub, "PUT", "/db/b7/rows/7", &json!({"voltage": 3.75})).await;
    assert_eq!((status, etag.as_str()), (200, "\"1-1\""));
    let (_, _, row) = ask(&hub, "GET", "/db/b7/rows/7", &Value::Null).await;
    assert_eq!(
        (&row["row"]["voltage"], &row["row"]["n"]),
        (&3.75.into(), &7.into())
    );

    let (_, _, journal) = ask(&hub, "GET", "/db/b7/corrections", &Value::Null).await;
    let line = &journal["corrections"][0];
    assert_eq!(
        (&line["kind"], &line["author"]),
        (&"corrected".into(), &"ann".into())
    );
    let (_, _, before) = ask(&hub, "GET", "/db/b7/corrections/1", &Value::Null).await;
    assert_eq!(before["rows"][0]["before"]["voltage"], 3.5);
    let told = told(&servers, 1).await;
    assert_eq!((told.ranges[0].first, told.ranges[0].last), (7, 7));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_that_does_not_fit_is_refused_with_the_reason() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    upload(&hub, 1..=20).await;
    ask(&hub, "PUT", "/db/b7/rows/7", &json!({"voltage": 3.75})).await;
    let stale = reqwest::Client::new().put(hub.url("/db/b7/rows/7"));
    let stale = stale
        .header("If-Match", "\"1-0\"")
        .json(&json!({"voltage": 4}));
    assert_eq!(stale.send().await.unwrap().status(), 412);
    for (path, body, status, says) in [
        (
            "/db/b7/rows/7",
            json!({"voltage": "x"}),
            400,
            "column `voltage` is float",
        ),
        ("/db/b7/rows/7", json!({"seq": 3}), 400, "no column `seq_`"),
        (
            "/db/b7/rows/7",
            json!([{"voltage": 1}, {"voltage": 2}]),
            400,
            "2 rows",
        ),
        (
            "/db/b7/rows/21",
            json!({"voltage": 1}),
            404,
            "its newest is 20",
        ),
        (
            "/db/b8/rows/1",
            json!({"voltage": 1}),
            404,
            "No such dataset",
        ),
    ] {
        let (found, _, problem) = ask(&hub, "PUT", path, &body).await;
        assert_eq!(found, status, "{problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(says),
            "{problem}"
        );
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_that_changes_nothing_leaves_the_table_as_it_was() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    upload(&hub, 1..=20).await;
    let path = "/db/b7/rows/7";
    let (status, _, problem) = ask(&hub, "PUT", path, &json!({"n": 7.5, "voltage": "x"})).await;
    assert_eq!(status, 400, "{problem}");
    let (status, etag, answer) = ask(&hub, "PUT", path, &json!({"n": 7.0})).await;
    assert_eq!((status, etag.as_str()), (200, "\"1-0\""), "{answer}");
    let (_, _, changes) = ask(&hub, "GET", "/db/b7/changes", &Value::Null).await;
    let told = changes.to_string();
    assert!(!told.contains("widened"), "{told}");
    let (status, _, answer) = ask(&hub, "PUT", path, &json!({"n": 7.5})).await;
    assert_eq!(status, 200, "{answer}");
    let (_, _, row) = ask(&hub, "GET", path, &Value::Null).await;
    assert_eq!(row["row"]["n"], 7.5);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_rows_are_gone_when_confirmed_and_every_reader_is_told() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    upload(&hub, 1..=300).await;
    let (status, _, problem) = ask(&hub, "DELETE", "/db/b7/rows?seq=5..7", &Value::Null).await;
    assert_eq!(status, 409);
    assert!(
        problem["detail"].as_str().unwrap().contains("has 3 rows"),
        "{problem}"
    );
    for range in ["5..7", "7..9", "299..400"] {
        let path = format!("/db/b7/rows?seq={range}&confirm=b7");
        let (status, _, answer) = ask(&hub, "DELETE", &path, &Value::Null).await;
        assert_eq!(status, 200, "{answer}");
    }
    let (_, header, page) = ask(&hub, "GET", "/db/b7/rows?seq=4..", &Value::Null).await;
    assert_eq!(header, "5-9,299-300");
    assert_eq!(page["deleted"], json!([[5, 9], [299, 300]]));
    assert_eq!((&page["seq"][0], &page["seq"][1]), (&4.into(), &10.into()));
    let (_, header, _) = ask(
        &hub,
        "GET",
        "/db/b7/rows?seq=6..8&format=msgpack",
        &Value::Null,
    )
    .await;
    assert_eq!(header, "6-8", "a page without rows tells why");
    let (status, _, problem) = ask(&hub, "GET", "/db/b7/rows/6", &Value::Null).await;
    assert_eq!(status, 404);
    assert!(
        problem["detail"].as_str().unwrap().contains("was deleted"),
        "{problem}"
    );
    let (_, _, all) = ask(&hub, "GET", "/db/stats", &Value::Null).await;
    assert_eq!(all["b7"]["data_stats"]["rows"], 293);

    // Numbers go on, and the bus ends with what the table has.
    upload(&hub, 301..=310).await;
    let told = told(&servers, 3).await;
    assert!(
        told.touch(1, 300, 300) && !told.touch(1, 301, 400),
        "rows to come are not deleted"
    );
    eventually(PATIENCE, async || {
        let behind = "SELECT last_seq - relayed_seq AS value FROM hub.batteries";
        match servers.number(behind) {
            0 => Ok(()),
            behind => Err(behind),
        }
    })
    .await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_deleted_before_they_were_relayed_leave_nothing_behind() {
    let servers = Servers::start();
    servers.battery("b7");
    servers.store("b7", 100);
    servers.sql(
        "DELETE FROM battery.b7 WHERE seq > 90; \
         UPDATE hub.batteries SET corrections = 1, deleted_rows = 10; \
         INSERT INTO hub.corrections (battery_id, revision, epoch, kind, first_seq, last_seq, \"rows\") \
           SELECT id, 1, epoch, 'deleted', 91, 100, 10 FROM hub.batteries",
    );
    let hub = Hub::start(&servers).await;
    eventually(PATIENCE, async || {
        match servers.number("SELECT relayed_seq AS value FROM hub.batteries") {
            100 => Ok(()),
            seq => Err(seq),
        }
    })
    .await;
    assert_eq!(told(&servers, 1).await.ranges[0].last, 100);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_knows_of_corrections_which_the_table_lost_has_them_estimated_anew() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    upload(&hub, 1..=20).await;
    for seq in [3, 9] {
        let path = format!("/db/b7/rows/{seq}");
        ask(&hub, "PUT", &path, &json!({"voltage": 3.75})).await;
    }
    told(&servers, 2).await;
    hub.stop().await;
    // As a backup of before the second one.
    servers.sql(
        "DELETE FROM hub.corrections WHERE revision = 2; UPDATE hub.batteries SET corrections = 1",
    );
    let hub = Hub::start(&servers).await;
    let told = told(&servers, 3).await;
    let newest: Vec<(i64, i64)> = told.since(2).map(|one| (one.first, one.last)).collect();
    assert_eq!(newest, [(9, 9)]);
    hub.stop().await;
}

fn estimates(generation: i64, seq: &[i64], replaces: Option<(i64, i64)>) -> EstimateFrame {
    let soc = Column::Float(seq.iter().map(|_| Some(0.5)).collect());
    EstimateFrame {
        v: FRAME_VERSION,
        battery: "b7".parse().unwrap(),
        estimator: "default".parse().unwrap(),
        revision: 1,
        generation,
        epoch: 1,
        seq: seq.to_vec(),
        test_time: vec![1.0; seq.len()],
        columns: Columns::new(vec![("soc".to_owned(), soc)]).unwrap(),
        replaces,
        lineage: Some(Lineage {
            code_version: "0.1.0".to_owned(),
            definition: "abc".to_owned(),
            horizon: 3600.0,
            rows_from: 1,
        }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_generation_has_nothing_to_say_of_is_gone_in_whatever_order_frames_come() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    upload(&hub, 1..=20).await;
    let client = async_nats::connect(servers.nats.server.url())
        .await
        .unwrap();
    let jetstream = jetstream::new(client);
    let publish = async |frame: EstimateFrame| {
        let subject = subjects::estimates_of(&frame.battery, &frame.estimator);
        jetstream
            .publish(subject, frame.encode())
            .await
            .unwrap()
            .await
            .unwrap();
    };
    let unknown = "/db/b7/estimates/lineage?seq=5";
    let (status, _, _) = ask(&hub, "GET", unknown, &Value::Null).await;
    assert_eq!(status, 404, "nothing was estimated yet");
    publish(estimates(1, &[1, 2, 3, 4, 5, 6], None)).await;
    publish(estimates(9, &[4, 6], Some((3, 6)))).await;
    publish(estimates(9, &[], Some((7, 8)))).await;
    // A frame of the older generation that was late on its way.
    publish(estimates(1, &[5, 7, 9], None)).await;
    let table = "SELECT sum(seq * 100 + generation)::bigint AS value FROM estimates.b7";
    // 1 and 2 as before, 4 and 6 anew, 9 where the newer one has not come yet.
    let expected = 101 + 201 + 409 + 609 + 901;
    eventually(PATIENCE, async || match servers.try_number(table) {
        Ok(found) if found == expected => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    let path = "/db/b7/estimates/lineage?seq=4";
    let (_, _, made) = ask(&hub, "GET", path, &Value::Null).await;
    let made = &made["lineage"][0];
    assert_eq!(
        (&made["generation"], &made["first_seq"]),
        (&9.into(), &3.into())
    );
    assert_eq!(
        (&made["code_version"], &made["rows_from"]),
        (&"0.1.0".into(), &1.into())
    );
    assert_eq!(ask(&hub, "GET", unknown, &Value::Null).await.0, 404);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_is_named_the_lineage_is_that_of_the_champion_of_the_row() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    upload(&hub, 1..=20).await;
    servers.sql(
        "INSERT INTO hub.champions (battery_id, epoch, from_seq, estimator) \
           SELECT id, epoch, c.from_seq, c.name FROM hub.batteries, \
             (VALUES (1, 'first'), (5, 'second')) AS c(from_seq, name)",
    );
    for (asked, champion) in [
        ("?seq=4", "first of b7 has no estimate of row 4"),
        ("?seq=5", "second of b7 has no estimate of row 5"),
        (
            "?seq=5&estimator=first",
            "first of b7 has no estimate of row 5",
        ),
        ("", r#""estimator":"second""#),
    ] {
        let path = format!("/db/b7/estimates/lineage{asked}");
        let (_, _, told) = ask(&hub, "GET", &path, &Value::Null).await;
        assert!(told.to_string().contains(champion), "{asked}: {told}");
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_of_before_stay_readable_with_their_files() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    upload(&hub, 1..=2).await;
    servers.sql(
        "INSERT INTO hub.estimators (battery_id, name, definition) \
           SELECT id, 'default', 'first' FROM hub.batteries; \
         INSERT INTO hub.estimator_files SELECT id, 'default', 0, 'a.csv', 'd1', 'content' \
           FROM hub.batteries; \
         UPDATE hub.estimators SET revision = nextval('hub.revisions'), definition = 'second', \
           changed = clock_timestamp(); \
         DELETE FROM hub.estimator_files",
    );
    let path = "/db/b7/estimators/default/revisions";
    let (_, _, listed) = ask(&hub, "GET", path, &Value::Null).await;
    let revisions = listed["revisions"].as_array().unwrap();
    assert_eq!(revisions.len(), 2, "{listed}");
    assert_eq!(
        (&revisions[0]["definition"], &revisions[0]["files"]),
        (&"second".into(), &json!([]))
    );
    let revision = revisions[1]["revision"].as_i64().unwrap();
    let (_, _, first) = ask(&hub, "GET", &format!("{path}/{revision}"), &Value::Null).await;
    assert_eq!(
        (&first["definition"], &first["files"][0]["digest"]),
        (&"first".into(), &"d1".into())
    );
    let file = reqwest::get(hub.url("/db/b7/estimators/default/files/d1"))
        .await
        .unwrap();
    assert_eq!(file.text().await.unwrap(), "content");
    hub.stop().await;
}

/// A correction is told by whatever hub lives, though the one that committed it died at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_correction_of_a_hub_that_died_is_told_by_the_next() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    upload(&hub, 1..=5).await;
    servers.sql(
        "UPDATE hub.batteries SET corrections = 1; \
         INSERT INTO hub.corrections (battery_id, revision, epoch, kind, first_seq, last_seq, \"rows\") \
           SELECT id, 1, epoch, 'corrected', 2, 2, 1 FROM hub.batteries",
    );
    let told = tokio::time::timeout(Duration::from_secs(20), told(&servers, 1)).await;
    assert_eq!(told.unwrap().ranges[0].first, 2);
    hub.stop().await;
}
