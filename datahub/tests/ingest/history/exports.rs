//! Exports: whole, in every form, and visibly broken where they break.

use std::time::Duration;

use ::parquet::{
    basic::LogicalType,
    file::reader::{FileReader, SerializedFileReader},
    record::RowAccessor,
};
use rovi_battdat::{BattdatFile, ColumnKind};
use rovi_common::{frame::RowFrame, rows::Value as Cell};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{fill, get, post};
use crate::support::{PATIENCE, TestHub, execute, postgres};

const ROWS: i64 = 20_000;

async fn export(hub: &TestHub, query: &str) -> Vec<u8> {
    let answer = reqwest::get(hub.url(&format!("/db/b7/rows/export?{query}")))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{query}");
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn every_form_holds_all_rows_beyond_the_limit_of_pages() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    fill(
        &hub,
        &postgres,
        &json!({"v": 0.5, "s": "a", "b": true}),
        "n % 2 = 0, 'x', n / 2.0",
        ROWS,
    )
    .await;
    let last = usize::try_from(ROWS).unwrap();

    let csv = String::from_utf8(export(&hub, "format=csv").await).unwrap();
    assert_eq!(csv.lines().count(), last + 1);
    assert_eq!(csv.lines().nth(2), Some("2,1700000002000000,1,true,x,1.0"));

    let ndjson = String::from_utf8(export(&hub, "format=ndjson&seq=2..").await).unwrap();
    let line: Value = serde_json::from_str(ndjson.lines().last().unwrap()).unwrap();
    assert_eq!(ndjson.lines().count(), last - 1);
    assert_eq!(
        line,
        json!({"seq": ROWS, "received": 1_700_020_000_000_000_i64, "segment": 1, "v": 10_000.0, "s": "x", "b": true})
    );

    let json: Value = serde_json::from_slice(&export(&hub, "format=json&seq=2..").await).unwrap();
    let rows = json.as_array().unwrap();
    assert_eq!((rows.len(), rows.last()), (last - 1, Some(&line)));
    assert_eq!(export(&hub, "format=json&seq=0..0").await, b"[]\n");

    let frames = export(&hub, "format=msgpack").await;
    let (mut rest, mut next) = (frames.as_slice(), 1);
    while !rest.is_empty() {
        let frame = RowFrame::deserialize(&mut rmp_serde::Deserializer::new(&mut rest)).unwrap();
        assert_eq!(frame.first_seq, next);
        next = frame.last_seq() + 1;
    }
    assert_eq!(next, ROWS + 1);
}

#[tokio::test]
async fn parquet_holds_types_nulls_and_metadata() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    fill(
        &hub,
        &postgres,
        &json!({"v": 0.5, "s": "Ω", "b": true, "n": 9_007_199_254_740_993_i64}),
        "n % 2 = 0, n, NULL, nullif(n, 3) / 2.0",
        ROWS,
    )
    .await;
    let metadata = r#"{"name": "b7", "is_measurement": true}"#;
    let answer = reqwest::Client::new()
        .post(hub.url("/db/register"))
        .body(metadata)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let file = export(&hub, "format=parquet").await;
    let reader = SerializedFileReader::new(bytes::Bytes::from(file)).unwrap();
    let meta = reader.metadata().file_metadata();
    assert_eq!(meta.num_rows(), ROWS);
    let key = |key: &str| {
        let found = meta
            .key_value_metadata()
            .unwrap()
            .iter()
            .find(|entry| entry.key == key);
        found.unwrap().value.clone().unwrap()
    };
    assert_eq!(key("battery_metadata"), metadata);
    assert!(key("table_metadata").contains("extra_columns"));
    let received = meta.schema_descr().column(1);
    assert!(
        matches!(
            received.logical_type_ref(),
            Some(LogicalType::Timestamp { .. })
        ),
        "{received:?}"
    );
    let rows: Vec<_> = reader
        .get_row_iter(None)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows.len(), 20_000);
    assert_eq!(rows[0].get_string(5).unwrap(), "Ω");
    assert_eq!(rows[0].get_long(4).unwrap(), 9_007_199_254_740_993);
    assert!(rows[2].is_null(5).unwrap() && rows[2].is_null(6).unwrap());
    assert_eq!(
        (
            rows[19_999].get_long(0).unwrap(),
            rows[19_999].get_bool(3).unwrap()
        ),
        (ROWS, true)
    );
}

#[tokio::test]
async fn a_battdat_file_holds_the_columns_alone_with_the_batterys_metadata() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    fill(&hub, &postgres, &json!({"test_time": 0.5, "cycle_number": 1, "vec[0]": 0.0, "vec[1]": 0.0, "state": "rest"}),
        "n, 'charging', n / 2.0, n, -n", ROWS).await;
    let (status, _) = super::send(
        &hub,
        reqwest::Method::PUT,
        "/db/b7/signals/double",
        r#"{"expression": "test_time * 2", "unit": "s/2"}"#,
    )
    .await;
    assert_eq!(status, 201);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b7.h5");
    let columns = "test_time,cycle_number,vec[0],vec[1],state,double";
    std::fs::write(
        &path,
        export(&hub, &format!("format=h5&columns={columns}")).await,
    )
    .unwrap();
    let file = BattdatFile::open(&path).unwrap();
    assert!(file.problems().is_empty(), "{:?}", file.problems());
    assert_eq!(file.metadata_json(), Some(r#"{"name":"b7"}"#));
    let table = file.table(None, "raw_data").unwrap();
    let kinds: Vec<_> = table
        .columns()
        .iter()
        .map(|column| (column.name.as_str(), column.kind, column.unit.as_deref()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("test_time", ColumnKind::Float, Some("s")),
            ("cycle_number", ColumnKind::Int, None),
            ("vec[0]", ColumnKind::Float, None),
            ("vec[1]", ColumnKind::Float, None),
            ("state", ColumnKind::Text, None),
            ("double", ColumnKind::Float, Some("s/2")),
        ]
    );
    assert_eq!(table.columns()[3].expanded_from.as_deref(), Some("vec"));
    let rows = table.read(0..usize::MAX).unwrap();
    assert_eq!(rows.rows(), 20_000);
    assert_eq!(rows.get("state").unwrap().get(0), Cell::Text("rest".into()));
    assert_eq!(rows.get("double").unwrap().number(19_999), Some(20_000.0));
}

#[tokio::test]
async fn what_hdf5_cannot_hold_is_refused_in_words() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(
        &hub,
        &json!([{"n": 9_007_199_254_740_993_i64}, {"n": null}]),
    )
    .await;
    let answer = reqwest::get(hub.url("/db/b7/rows/export?format=h5"))
        .await
        .unwrap();
    assert_eq!(answer.status(), 409);
    let problem = answer.text().await.unwrap();
    assert!(
        problem.contains("column `n`, row 0") && !problem.contains("/tmp"),
        "{problem}"
    );
}

/// Rows that fill more than what sockets buffer.
async fn large(hub: &TestHub, postgres: &rovi_common::testing::TestPostgres) {
    fill(
        hub,
        postgres,
        &json!({"s": "a"}),
        "repeat('x', 2000)",
        30_000,
    )
    .await;
}

#[tokio::test]
async fn an_export_that_breaks_off_never_ends_as_if_it_were_whole() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    large(&hub, &postgres).await;
    let mut answer = reqwest::get(hub.url("/db/b7/rows/export?format=csv"))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.chunk().await.unwrap().is_some());
    execute(&postgres, "UPDATE hub.batteries SET epoch = 2");
    let end = timeout(PATIENCE, async {
        loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    });
    assert!(
        end.await.unwrap().is_err(),
        "a cut file must not look whole"
    );
}

#[tokio::test]
async fn slow_readers_hold_no_connection_and_too_many_are_refused() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| {
        settings.pool_size = 2;
        settings.exports = 3;
    })
    .await;
    large(&hub, &postgres).await;
    let path = "/db/b7/rows/export?format=csv";
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut answer = reqwest::get(hub.url(path)).await.unwrap();
        assert!(answer.chunk().await.unwrap().is_some());
        slow.push(answer);
    }
    let refused = reqwest::get(hub.url(path)).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(
        refused
            .text()
            .await
            .unwrap()
            .contains("3 exports run already")
    );
    let body = get(&hub, "/db/b7/rows?limit=1&columns=").await;
    assert_eq!(body["last_seq"], 30_000);
    drop(slow);
    rovi_common::testing::eventually(PATIENCE, async || {
        let again = reqwest::get(hub.url("/db/b7/rows/export?format=csv&seq=..1"))
            .await
            .unwrap();
        if again.status() == 200 {
            Ok(())
        } else {
            Err(again.status())
        }
    })
    .await;
    assert!(
        timeout(PATIENCE + Duration::from_secs(1), hub.stop())
            .await
            .unwrap()
    );
}
