//! Which rows and columns are answered.

use std::time::Duration;

use diesel::{Connection, PgConnection, connection::SimpleConnection};
use reqwest::Method;
use rovi_common::testing;
use serde_json::{Value, json};

use super::{get, post, send};
use crate::support::{TestHub, execute, postgres, query};

/// Five rows, a minute apart, the newest taken now; `time` as the battery's own clock has it.
async fn five(hub: &TestHub, postgres: &testing::TestPostgres, time: &str) {
    let rows: Vec<Value> = (1..=5).map(|n| json!({"n": n, "time": 0.5})).collect();
    post(hub, &Value::Array(rows)).await;
    execute(
        postgres,
        &format!(
            r#"UPDATE battery."b7" SET received = now() - (5 - seq) * interval '1 minute',
               "time" = {time}"#
        ),
    );
}

async fn seqs(hub: &TestHub, query: &str) -> Value {
    get(hub, &format!("/db/b7/rows?columns=n&{query}")).await["seq"].take()
}

#[tokio::test]
async fn relative_times_are_of_the_batterys_clock_where_it_has_one() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    // The battery's clock is a day behind.
    five(
        &hub,
        &postgres,
        "extract(epoch FROM now()) - (5 - seq) * 60 - 86400",
    )
    .await;
    assert_eq!(seqs(&hub, "time=-5h..").await, json!([]));
    assert_eq!(seqs(&hub, "from=-5h").await, json!([]));
    assert_eq!(
        seqs(&hub, "from=-150s&axis=received").await,
        json!([3, 4, 5])
    );
    assert_eq!(seqs(&hub, "received=-210s..-90s").await, json!([2, 3]));
    assert_eq!(seqs(&hub, "received=..-210s").await, json!([1]));
    assert_eq!(
        seqs(&hub, "from=-1446m&to=-1441.5m").await,
        json!([1, 2, 3])
    );
    assert_eq!(seqs(&hub, "from=2&to=3&axis=seq").await, json!([2, 3]));
    assert_eq!(seqs(&hub, "received=now..").await, json!([]));
}

#[tokio::test]
async fn moments_are_inclusive_and_may_be_dates_or_numbers() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    five(&hub, &postgres, "1700000000 + seq + 0.1234567").await;
    assert_eq!(
        seqs(&hub, "time=1700000002.1234567..1700000004.1234567").await,
        json!([2, 3, 4])
    );
    assert_eq!(
        seqs(
            &hub,
            "time=2023-11-14T22:13:23Z..2023-11-14T23:13:24.5%2B01:00"
        )
        .await,
        json!([3, 4])
    );
    let received = get(&hub, "/db/b7/rows?seq=4..4").await["received"][0]
        .as_i64()
        .unwrap();
    assert_eq!(
        seqs(&hub, &format!("received={received}..{received}")).await,
        json!([4])
    );
    assert_eq!(seqs(&hub, "order=desc&limit=2").await, json!([5, 4]));
    execute(
        &postgres,
        r#"ALTER TABLE battery."b7" ALTER "time" TYPE timestamptz USING to_timestamp("time")"#,
    );
    assert_eq!(
        seqs(&hub, "time=1700000002.123..1700000003.124").await,
        json!([2, 3])
    );
}

#[tokio::test]
async fn names_of_columns_may_have_commas() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, &json!([{"a,b": 1, "a": 2, "\"c\" d": 3}])).await;
    let columns =
        async |query: &str| get(&hub, &format!("/db/b7/rows?{query}")).await["columns"].take();
    assert_eq!(
        columns("column=a,b&column=%22c%22%20d").await,
        json!({"a,b": [1], "\"c\" d": [3]})
    );
    assert_eq!(
        columns("columns=a&column=a,b&column=a").await,
        json!({"a": [2], "a,b": [1]})
    );
    assert_eq!(columns("columns=").await, json!({}));
}

#[tokio::test]
async fn the_form_follows_accept_or_is_refused() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, &json!([{"a": 1}])).await;
    let ask = async |accept: &str| {
        let request = reqwest::Client::new().get(hub.url("/db/b7/rows"));
        let answer = request.header("Accept", accept).send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.headers()["Content-Type"]
                .to_str()
                .unwrap()
                .to_owned(),
        )
    };
    assert_eq!(
        ask("text/csv;q=0.5, application/x-ndjson").await,
        (200, "application/x-ndjson".into())
    );
    assert_eq!(
        ask("text/html, */*;q=0.8").await,
        (200, "application/json".into())
    );
    assert_eq!(
        ask("image/png").await,
        (406, "application/problem+json".into())
    );
}

#[tokio::test]
async fn estimates_are_read_as_rows_are_with_the_times_of_their_rows() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    assert_eq!(get(&hub, "/db/stats").await, json!({}));
    five(&hub, &postgres, "1700000000 + seq").await;
    assert_eq!(
        get(&hub, "/db/b7/estimates").await["seq"],
        json!([]),
        "there are none yet"
    );
    execute(
        &postgres,
        r#"CREATE TABLE estimates."b7" AS SELECT e AS estimator, p AS epoch, seq::bigint AS seq, 1::bigint AS revision,
           0::bigint AS generation, seq * 10.0::double precision AS test_time,
           (seq * p * length(e))::double precision AS soc
           FROM generate_series(1, 5) seq, unnest(ARRAY['default', 'b']) e, unnest(ARRAY[1, 2]::bigint[]) p"#,
    );
    let body = get(
        &hub,
        "/db/b7/estimates?columns=soc&time=1700000002..&test_time=..40",
    )
    .await;
    assert_eq!(body["seq"], json!([2, 3, 4]));
    assert_eq!(body["columns"], json!({"soc": [14.0, 21.0, 28.0]}));
    assert!(
        body["received"][0].as_i64().unwrap() > 1_700_000_000_000_000,
        "{body}"
    );
    let body = get(&hub, "/db/b7/estimates?estimator=b&order=desc&limit=1").await;
    assert_eq!(
        body["columns"],
        json!({"revision": [1], "generation": [0], "test_time": [50.0], "soc": [5.0]})
    );
    execute(&postgres, r#"DELETE FROM battery."b7" WHERE seq = 1"#);
    let body = get(&hub, "/db/b7/estimates?seq=..2&columns=soc").await;
    assert_eq!(
        (&body["seq"], &body["received"][0]),
        (&json!([1, 2]), &Value::Null)
    );
    let body = get(
        &hub,
        "/db/b7/estimates?columns=soc&max_points=4&axis=test_time",
    )
    .await;
    assert_eq!(body["seq"], json!([1, 5]));
    let export = reqwest::get(hub.url("/db/b7/estimates/export?format=csv&columns=soc&seq=5.."))
        .await
        .unwrap();
    let export = export.text().await.unwrap();
    assert!(
        export.starts_with("seq,received,segment,soc\n5,") && export.ends_with(",1,35.0\n"),
        "{export}"
    );
}

#[tokio::test]
async fn wrong_questions_are_answered_with_what_is_wrong() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, &json!([{"a": 1}])).await;
    for (path, status, told) in [
        (
            "/db/b7/rows?seq=5..2",
            400,
            "seq=5..2 ends before it begins",
        ),
        (
            "/db/b7/rows?time=-5h..",
            400,
            "no column `time`; ask by received=",
        ),
        ("/db/b7/rows?received=soon..", 400, "`soon`"),
        ("/db/b7/rows?from=-5h&axis=seq", 400, "whole numbers"),
        ("/db/b7/rows?axis=x", 400, "axis=x"),
        ("/db/b7/rows?limit=1&limit=2", 400, "limit stands twice"),
        ("/db/b7/rows?order=up", 400, "order=up"),
        (
            "/db/b7/rows?order=desc&format=msgpack",
            400,
            "another format",
        ),
        ("/db/b7/rows?max_points=3", 400, "at least 4"),
        ("/db/b7/rows?reduce=mean", 400, "reduce=mean"),
        (
            "/db/b7/rows/export?format=xml",
            400,
            "csv, ndjson, json, msgpack, parquet, h5",
        ),
        ("/db/b7/statistics", 400, "every= is missing"),
        (
            "/db/b7/statistics?every=5",
            400,
            "every=5 is not an interval",
        ),
        (
            "/db/b7/statistics?every=5s&axis=seq",
            400,
            "does not go with axis=seq",
        ),
        ("/db/b7/histogram?bins=1", 400, "bins=1 is outside 2 to 200"),
        ("/db/b7/estimates?estimator=a.b", 400, "'.' at byte 1"),
    ] {
        let (found, problem) = send(&hub, Method::GET, path, "").await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            found == status && detail.contains(told),
            "{path}: {found} {detail}"
        );
    }
}

#[tokio::test]
async fn rows_of_a_table_that_is_being_rewritten_are_waited_for_and_found() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, &json!([{"n": 1}, {"n": 2}, {"n": 3}])).await;
    let mut rewrite = PgConnection::establish(&postgres.server.url()).unwrap();
    rewrite
        .batch_execute(r#"BEGIN; ALTER TABLE battery."b7" ALTER COLUMN n TYPE double precision"#)
        .unwrap();
    let path = hub.url("/db/b7/rows?format=csv");
    let asked = async { reqwest::get(path).await.unwrap().text().await.unwrap() };
    let commits = async {
        until_somebody_waits(&postgres).await;
        rewrite.batch_execute("COMMIT").unwrap();
    };
    let (csv, ()) = tokio::join!(asked, commits);
    assert_eq!(csv.lines().count(), 4, "{csv}");
}

#[tokio::test]
async fn a_page_tells_of_rows_that_went_while_it_was_asked_for() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, &json!([{"n": 1}, {"n": 2}, {"n": 3}])).await;
    let mut retention = PgConnection::establish(&postgres.server.url()).unwrap();
    retention
        .batch_execute(r#"BEGIN; LOCK TABLE battery."b7" IN ACCESS EXCLUSIVE MODE"#)
        .unwrap();
    let path = hub.url("/db/b7/rows");
    let asked = async { reqwest::get(path).await.unwrap() };
    let goes = async {
        until_somebody_waits(&postgres).await;
        retention
            .batch_execute(
                r#"UPDATE hub.batteries SET first_seq = 3;
                   DELETE FROM battery."b7" WHERE seq < 3; COMMIT"#,
            )
            .unwrap();
    };
    let (answer, ()) = tokio::join!(asked, goes);
    assert_eq!(answer.headers()["Rovi-First-Seq"], "3");
    let page: Value = answer.json().await.unwrap();
    assert_eq!((&page["first_seq"], &page["seq"]), (&json!(3), &json!([3])));
}

/// Waits until a query waits for a table that is locked.
async fn until_somebody_waits(postgres: &testing::TestPostgres) {
    let waits = "SELECT count(*) AS count FROM pg_locks WHERE NOT granted";
    testing::eventually(Duration::from_secs(20), || {
        let waiting = query(postgres, waits);
        async move {
            if waiting[0]["count"].as_i64() > Some(0) {
                Ok(())
            } else {
                Err(format!("nobody waits for the table: {waiting}"))
            }
        }
    })
    .await;
}
