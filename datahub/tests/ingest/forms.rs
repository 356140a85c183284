//! What a frame may look like, and what the table looks like then.

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, TestHub, execute, postgres, query};

#[tokio::test]
async fn the_three_forms_of_frames_are_stored_in_order() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let mut client = hub.silent("b7").await;
    client
        .send(&json!({"test_time": 0.5, "state": "rest", "cycle": 1}))
        .await;
    client
        .send(&json!({"test_time": [1.5, 2.5], "cycle": [1, 2], "state": ["hold", null]}))
        .await;
    client
        .send_text(r#"[{"test_time": 3.5, "state": "rest"}, {"cycle": 4}]"#)
        .await;
    assert_eq!(client.close().await.0, 1000);
    let rows = query(
        &postgres,
        r#"SELECT seq, segment, test_time, state, cycle FROM battery."b7" ORDER BY seq"#,
    );
    assert_eq!(
        rows,
        json!([
            {"seq": 1, "segment": 1, "test_time": 0.5, "state": "rest", "cycle": 1},
            {"seq": 2, "segment": 1, "test_time": 1.5, "state": "hold", "cycle": 1},
            {"seq": 3, "segment": 1, "test_time": 2.5, "state": null, "cycle": 2},
            {"seq": 4, "segment": 1, "test_time": 3.5, "state": "rest", "cycle": null},
            {"seq": 5, "segment": 1, "test_time": null, "state": null, "cycle": 4},
        ])
    );
    assert!(hub.stop().await);
}

#[tokio::test]
async fn an_integer_column_that_meets_floats_is_widened() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b7").await;
    client
        .send(&json!({"a": [1, 2], "late": [null, null]}))
        .await;
    client.until_stored(2).await;
    client
        .send(&json!([{"a": 0.5, "late": "now"}, {"a": 3}]))
        .await;
    assert_eq!(client.until_stored(4).await, Vec::<Value>::new());
    assert_eq!(
        query(
            &postgres,
            r#"SELECT a, late FROM battery."b7" ORDER BY seq"#
        ),
        json!([
            {"a": 1, "late": null}, {"a": 2, "late": null},
            {"a": 0.5, "late": "now"}, {"a": 3, "late": null},
        ])
    );
    assert_eq!(
        query(
            &postgres,
            "SELECT after_seq, change FROM hub.table_changes ORDER BY id"
        ),
        json!([
            {"after_seq": 0, "change": "table made"},
            {"after_seq": 0, "change": "column \"a\" added as bigint"},
            {"after_seq": 2, "change": "column \"a\" widened to double precision"},
            {"after_seq": 2, "change": "column \"late\" added as text"},
        ])
    );
}

#[tokio::test]
async fn a_column_is_not_widened_where_a_stored_value_would_lose_digits() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b7").await;
    client.send(&json!({"a": 9_007_199_254_740_993_i64})).await;
    client.send(&json!({"a": [0.5, 5]})).await;
    let rejects = client.until_stored(3).await;
    assert_eq!(rejects[0]["position"], 1);
    let reason = rejects[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("column `a` is integer and cannot become float"),
        "{reason}"
    );
    assert_eq!(
        query(&postgres, r#"SELECT seq, a FROM battery."b7" ORDER BY seq"#),
        json!([{"seq": 1, "a": 9_007_199_254_740_993_i64}, {"seq": 2, "a": 5}])
    );
}

#[tokio::test]
async fn a_row_that_does_not_fit_is_kept_with_its_reason_and_its_neighbours_are_stored() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, hello) = hub.speaking("b7").await;
    client.send(&json!({"voltage": 3.5, "cycle": 1})).await;
    client
        .send(&json!([{"voltage": 3.6}, {"voltage": "x", "cycle": 2}, {"voltage": 3.7}]))
        .await;
    client
        .send(&json!([{"voltage": {"deep": [1]}}, {"voltage": 4}]))
        .await;
    let rejects = client.until_stored(6).await;
    let positions: Vec<_> = rejects.iter().map(|reject| &reject["position"]).collect();
    assert_eq!(positions, [2, 4]);
    assert_eq!(
        query(
            &postgres,
            r#"SELECT seq, voltage, cycle FROM battery."b7" ORDER BY seq"#
        ),
        json!([
            {"seq": 1, "voltage": 3.5, "cycle": 1}, {"seq": 2, "voltage": 3.6, "cycle": null},
            {"seq": 3, "voltage": 3.7, "cycle": null}, {"seq": 4, "voltage": 4, "cycle": null},
        ])
    );
    assert_eq!(
        query(
            &postgres,
            "SELECT session, position, reason, body FROM hub.rejected_rows ORDER BY position"
        ),
        json!([
            {
                "session": hello["session"], "position": 2,
                "reason": "column `voltage` is float, the row has text \"x\"",
                "body": {"voltage": "x", "cycle": 2},
            },
            {
                "session": hello["session"], "position": 4,
                "reason": "column `voltage`: a nested map cannot be stored in a column",
                "body": {"voltage": {"deep": [1]}},
            },
        ])
    );
    assert!(
        hub.metric("datahub_rows_rejected_total{refused_by=\"type\"}")
            .await
            > 0
    );
}

#[tokio::test]
async fn a_row_that_postgresql_refuses_costs_only_itself() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b7?segment=new").await;
    client.send(&json!({"a": 1})).await;
    client.until_stored(1).await;
    execute(&postgres, r#"ALTER TABLE battery."b7" ADD CHECK (a < 100)"#);
    client.send(&json!({"a": [2, 200, 3, 4, 300, 5]})).await;
    let rejects = client.until_stored(7).await;
    let positions: Vec<_> = rejects.iter().map(|reject| &reject["position"]).collect();
    assert_eq!(positions, [2, 5]);
    assert!(
        rejects[0]["reason"]
            .as_str()
            .unwrap()
            .contains("check constraint")
    );
    assert_eq!(
        query(&postgres, r#"SELECT seq, a FROM battery."b7" ORDER BY seq"#),
        json!([
            {"seq": 1, "a": 1}, {"seq": 2, "a": 2}, {"seq": 3, "a": 3}, {"seq": 4, "a": 4},
            {"seq": 5, "a": 5},
        ])
    );
}

#[tokio::test]
async fn a_frame_that_cannot_be_decoded_closes_with_1007_and_its_position() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    for (frame, reason) in [
        (
            r#"{"a": [1, 2], "b": [1]}"#,
            "column `b` has 1 values where `a` has 2",
        ),
        (r#"{"a": [1], "b": 1}"#, "the map mixes single values"),
        ("{", "no JSON rows"),
        ("5", "no JSON rows"),
    ] {
        let (mut client, _) = hub.speaking("b7").await;
        client.send(&json!([{"a": 1}, {"a": 2}])).await;
        client.send_text(frame).await;
        let (code, told) = client.closed().await;
        assert_eq!(code, 1007, "{told}");
        assert!(
            told.starts_with("the frame at position 2 is refused: "),
            "{told}"
        );
        assert!(told.contains(reason), "{told}");
    }
    let rows = query(&postgres, r#"SELECT count(*) FROM battery."b7""#);
    assert_eq!(
        rows,
        json!([{"count": 8}]),
        "rows before the frame are stored"
    );
}

#[tokio::test]
async fn a_frame_above_the_limit_closes_with_1009_after_what_came_before_is_stored() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let mut client = hub.silent("b7").await;
    client.send(&json!({"a": 1})).await;
    let large = "x".repeat(5 << 20);
    let (code, told) = client
        .send_and_hear_close(&json!({"a": 1, "b": large}))
        .await;
    assert_eq!(code, 1009, "{told}");
    assert!(told.contains("4194304 bytes"), "{told}");
    assert_eq!(
        query(&postgres, r#"SELECT count(*) FROM battery."b7""#),
        json!([{"count": 1}])
    );
}

#[tokio::test]
async fn names_of_batteries_and_columns_are_never_taken_for_sql() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let evil = r#"a"; DROP SCHEMA hub CASCADE; --"#;
    let (mut client, _) = hub.speaking("Select-1_x").await;
    let mut row = serde_json::Map::new();
    for name in [evil, "select", "Ü mV", "seq", "ctid", "a'b"] {
        row.insert(name.to_owned(), json!(1));
    }
    client.send(&Value::Object(row)).await;
    client.send(&json!({"seq": 2, "x".repeat(64): 1})).await;
    let rejects = client.until_stored(2).await;
    assert!(
        rejects[0]["reason"]
            .as_str()
            .unwrap()
            .contains("64 bytes, the limit is 63")
    );
    let table = query(&postgres, r#"SELECT * FROM battery."Select-1_x""#);
    for name in [evil, "select", "Ü mV", "seq_", "ctid_", "a'b", "seq"] {
        assert_eq!(table[0][name], 1, "{name} in {table}");
    }
    let error = Client::connect(hub.address, "a%22b", true)
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("400"), "{error}");
}

#[tokio::test]
async fn a_table_takes_800_columns_and_says_so_beyond() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b7").await;
    let wide = |from: usize, to: usize| -> Value {
        let cells = (from..to).map(|n| (format!("c{n}"), json!(0.5)));
        Value::Object(cells.collect())
    };
    client.send(&wide(0, 800)).await;
    client.send(&json!([{"c0": 1.5}, {"more": 1}])).await;
    client.send(&wide(0, 801)).await;
    let rejects = client.until_stored(4).await;
    assert!(
        rejects[0]["reason"]
            .as_str()
            .unwrap()
            .contains("the table has 800 columns")
    );
    assert!(
        rejects[1]["reason"]
            .as_str()
            .unwrap()
            .contains("801 columns, the limit is 800")
    );
    assert_eq!(
        query(
            &postgres,
            r#"SELECT seq, c0, c799 FROM battery."b7" ORDER BY seq"#
        ),
        json!([{"seq": 1, "c0": 0.5, "c799": 0.5}, {"seq": 2, "c0": 1.5, "c799": null}])
    );
}

#[tokio::test]
async fn segments_begin_when_asked_for_and_when_test_time_falls() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b7").await;
    client
        .send(&json!({"test_time": [0, 7200, 3700, 0, 10]}))
        .await;
    client.until_stored(5).await;
    client.close().await;
    let (mut client, _) = hub.speaking("b7?segment=new").await;
    client.send(&json!({"test_time": [20, 30]})).await;
    client.until_stored(2).await;
    assert_eq!(
        query(
            &postgres,
            r#"SELECT array_agg(segment ORDER BY seq) AS s FROM battery."b7""#
        ),
        json!([{"s": [1, 1, 1, 2, 2, 3, 3]}])
    );
}

#[tokio::test]
async fn times_text_from_bytes_and_odd_floats_come_back_as_they_were() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b7").await;
    // {"t": timestamp 5 s, "s": bin "hold", "f": NaN, "b": true}
    let mut frame = vec![
        0x84, 0xa1, b't', 0xd6, 0xff, 0, 0, 0, 5, 0xa1, b's', 0xc4, 4,
    ];
    frame.extend(b"hold");
    frame.extend([0xa1, b'f', 0xca, 0x7f, 0xc0, 0, 0, 0xa1, b'b', 0xc3]);
    client.socket.send(Message::binary(frame)).await.unwrap();
    client.until_stored(1).await;
    assert_eq!(
        query(
            &postgres,
            r#"SELECT extract(epoch FROM t)::int AS t, s, f::text, b FROM battery."b7""#
        ),
        json!([{"t": 5, "s": "hold", "f": "NaN", "b": true}])
    );
}
