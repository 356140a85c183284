//! Bodies of `POST`: packed, keyed, and what their answers tell.

use std::io::Write;

use reqwest::{Response, StatusCode, header::HeaderMap};
use rovi_common::testing::eventually;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{PATIENCE, TestHub, postgres, query};

async fn post(hub: &TestHub, headers: &[(&'static str, &str)], body: Vec<u8>) -> Response {
    let mut request = reqwest::Client::new()
        .post(hub.url("/db/upload/b7"))
        .body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn packed_bodies_of_every_form_are_stored() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let msgpack = rmp_serde::to_vec(&json!({"a": [7, 8]})).unwrap();
    let bodies: [(&str, &[u8]); 4] = [
        ("application/json", b"[{\"a\": 1}, {\"a\": 2}]"),
        ("application/x-ndjson", b"{\"a\": 3}\n{\"a\": 4}\n"),
        ("text/csv", b"a\n5\n6\n"),
        ("application/msgpack", &msgpack),
    ];
    for (kind, body) in bodies {
        let packed = [
            ("gzip", gzip(body)),
            ("zstd", zstd::encode_all(body, 3).unwrap()),
        ];
        for (encoding, packed) in packed {
            let headers = [("Content-Type", kind), ("Content-Encoding", encoding)];
            let answer = post(&hub, &headers, packed).await;
            assert_eq!(answer.text().await.unwrap(), "2", "{kind} {encoding}");
        }
    }
    assert_eq!(
        query(
            &postgres,
            r#"SELECT array_agg(a ORDER BY seq) AS a FROM battery."b7""#
        ),
        json!([{"a": [1, 2, 1, 2, 3, 4, 3, 4, 5, 6, 5, 6, 7, 8, 7, 8]}])
    );
    let answer = post(&hub, &[("Content-Encoding", "br")], b"[]".to_vec()).await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(answer.text().await.unwrap().contains("gzip or zstd"));
    let answer = post(&hub, &[("Content-Encoding", "gzip")], b"[]".to_vec()).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_body_that_grows_beyond_the_limit_is_refused_with_it() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| settings.body_bytes = 100_000).await;
    let spaces = [vec![b' '; 10_000_000], b"[]".to_vec()].concat();
    for (encoding, packed) in [
        ("gzip", gzip(&spaces)),
        ("zstd", zstd::encode_all(spaces.as_slice(), 3).unwrap()),
        ("identity", spaces.clone()),
    ] {
        let answer = post(&hub, &[("Content-Encoding", encoding)], packed).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{encoding}");
        assert!(answer.text().await.unwrap().contains("100000 bytes"));
    }
}

#[tokio::test]
async fn the_answer_tells_how_many_rows_were_rejected_and_why() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let answer = post(&hub, &[], br#"[{"a": 1}]"#.to_vec()).await;
    assert_eq!(header(answer.headers(), "Rovi-Rows-Rejected"), Some("0"));
    assert_eq!(header(answer.headers(), "Rovi-First-Rejection"), None);
    let body = r#"[{"a": 2}, {"a": "ä"}, {"a": {}}, {"a": 18446744073709551617}]"#;
    // Sent again under its key, a body is answered as at first.
    for _ in 0..2 {
        let answer = post(&hub, &[("Idempotency-Key", "k")], body.into()).await;
        let headers = answer.headers();
        assert_eq!(header(headers, "Rovi-Rows-Rejected"), Some("3"));
        assert_eq!(
            header(headers, "Rovi-First-Rejection"),
            Some(r#"position 1: column `a` is integer, the row has text "\u{e4}""#)
        );
        assert_eq!(answer.text().await.unwrap(), "4");
    }
    assert_eq!(
        query(
            &postgres,
            "SELECT count(*), max(reason) LIKE '%18446744073709551617%' AS kept \
             FROM hub.rejected_rows WHERE position = 3"
        ),
        json!([{"count": 1, "kept": true}])
    );
}

#[tokio::test]
async fn a_body_may_begin_a_segment_and_a_wrong_query_stores_nothing() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let send = async |asked: &str| {
        let path = format!("/db/upload/b7{asked}");
        let (status, answer) = hub.ask("POST", &path, json!([{"a": 1}, {"a": 2}])).await;
        (status, answer.to_string())
    };
    for asked in ["", "?segment=new", ""] {
        assert_eq!(send(asked).await, (200, "2".to_owned()), "{asked}");
    }
    for (asked, told) in [
        ("?segment=old", "say segment=new"),
        (
            "?session=00000000-0000-0000-0000-000000000000",
            "unknown field `session`",
        ),
    ] {
        let (status, problem) = send(asked).await;
        assert_eq!(status, 400, "{problem}");
        assert!(problem.contains(told), "{problem}");
    }
    let segments = r#"SELECT array_agg(segment ORDER BY seq) AS of FROM battery."b7""#;
    assert_eq!(
        query(&postgres, segments),
        json!([{"of": [1, 1, 2, 2, 2, 2]}])
    );
}

#[tokio::test]
async fn a_key_used_for_another_body_is_refused() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let key = ("Idempotency-Key", "k1");
    let body = br#"[{"a": 1}, {"a": 2}]"#;
    let same = [
        post(&hub, &[key], body.to_vec()).await,
        post(&hub, &[key, ("Content-Encoding", "gzip")], gzip(body)).await,
    ];
    for answer in same {
        assert_eq!(answer.text().await.unwrap(), "2");
    }
    for other in [r#"[{"a": 3}, {"a": 4}]"#, r#"[{"a": 3}]"#] {
        let answer = post(&hub, &[key], other.into()).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT);
        let problem = answer.text().await.unwrap();
        assert!(problem.contains("another body"), "{problem}");
        assert!(
            problem.contains(r#""field":"Idempotency-Key""#),
            "{problem}"
        );
    }
    assert_eq!(
        query(&postgres, r#"SELECT a FROM battery."b7" ORDER BY seq"#),
        json!([{"a": 1}, {"a": 2}])
    );
}

/// Begins a body of JSON and leaves the rest of it to come.
async fn begin_body(hub: &TestHub, battery: &str, body: &[u8], sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(hub.address).await.unwrap();
    let head = format!(
        "POST /db/upload/{battery} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        hub.address,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body[..sent]).await.unwrap();
    stream
}

#[tokio::test]
async fn many_large_bodies_at_once_are_refused_and_small_ones_are_not() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| {
        settings.body_bytes = 100_000;
        settings.bodies_bytes = 400_000;
    })
    .await;
    let mut large = b"{\"a\": [1]".to_vec();
    large.resize(99_999, b' ');
    large.push(b'}');
    let mut waiting = [
        begin_body(&hub, "slow1", &large, 90_000).await,
        begin_body(&hub, "slow2", &large, 90_000).await,
    ];
    eventually(PATIENCE, async || {
        let came = hub.metric("datahub_body_bytes").await;
        if came == 180_000 { Ok(()) } else { Err(came) }
    })
    .await;
    let refused = post(&hub, &[], large.clone()).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(refused.headers(), "retry-after"), Some("2"));
    let why = refused.text().await.unwrap();
    assert!(why.contains("bodies_bytes"), "{why}");
    let small = post(&hub, &[], b"[{\"a\": 1}]".to_vec()).await;
    assert_eq!(small.status(), StatusCode::OK);
    let mut packed = vec![b' '; 50_000];
    packed.extend(b"[]");
    let packed = post(&hub, &[("Content-Encoding", "gzip")], gzip(&packed)).await;
    assert_eq!(packed.status(), StatusCode::SERVICE_UNAVAILABLE);
    // Those that were under way end well, and then there is room again.
    for stream in &mut waiting {
        stream.write_all(&large[90_000..]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(post(&hub, &[], large).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_rows_of_another_table_may_come_packed() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, &[], b"[{\"a\": 1}]".to_vec()).await;
    let put = |packing: &str, body: Vec<u8>| {
        let table = hub.url("/db/b7/tables/eis_data");
        let request = reqwest::Client::new().put(table).body(body);
        request.header("Content-Encoding", packing).send()
    };
    let stored = put("gzip", gzip(b"{\"z\": [1.5, 2.5]}")).await.unwrap();
    assert_eq!(stored.text().await.unwrap(), "2");
    let refused = put("br", Vec::new()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_body_of_too_many_empty_rows_is_refused_with_the_limit_before_any_is_stored() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| settings.body_rows = 5000).await;
    let rows = [b"a,b\n".to_vec(), b",\n".repeat(5001)].concat();
    let packed = [("Content-Type", "text/csv"), ("Content-Encoding", "gzip")];
    let refused = post(&hub, &packed, gzip(&rows)).await;
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let why = refused.text().await.unwrap();
    assert!(why.contains("more than 5000 rows (body_rows)"), "{why}");
    let batteries = "SELECT name FROM hub.batteries";
    assert_eq!(query(&postgres, batteries), json!([]));
}

#[tokio::test]
async fn a_cyclers_file_with_units_and_decimal_commas_becomes_columns_of_numbers() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let file = "test_time;voltage;step;note\ns;V;;\n0,25;3,71;1;hold\n0,5;OVL;1;\n0,75;3,73;2;1,5\n1,5;3,74;2;\n";
    let stored = post(&hub, &[("Content-Type", "text/csv")], file.into()).await;
    let headers = stored.headers().clone();
    assert_eq!(stored.text().await.unwrap(), "5");
    assert_eq!(header(&headers, "rovi-rows-rejected"), Some("2"));
    assert_eq!(
        query(
            &postgres,
            r#"SELECT test_time, voltage, step, note FROM battery."b7" ORDER BY seq"#
        ),
        json!([
            {"test_time": 0.25, "voltage": 3.71, "step": 1, "note": "hold"},
            {"test_time": 0.75, "voltage": 3.73, "step": 2, "note": "1,5"},
            {"test_time": 1.5, "voltage": 3.74, "step": 2, "note": null},
        ])
    );
    let (_, listed) = hub.ask("GET", "/db/b7/rejected", json!(null)).await;
    let row = &listed["rejected"][1];
    let sent = json!({"test_time": 0.5, "voltage": "OVL", "step": 1, "note": null});
    assert_eq!(row["row"], sent, "{listed}");
    assert!(
        row["reason"].as_str().unwrap().contains("`voltage`"),
        "{row}"
    );
}

#[tokio::test]
async fn a_cell_of_csv_that_does_not_fit_costs_only_its_row() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let csv = [("Content-Type", "text/csv")];
    let first = post(&hub, &csv, b"v,note\n3.5,hi\n".to_vec()).await;
    assert_eq!(first.status(), StatusCode::OK);
    let second = post(&hub, &csv, b"v,note\n3.6,7\nx,8\n3.8,9\n".to_vec()).await;
    assert_eq!(header(second.headers(), "rovi-rows-rejected"), Some("1"));
    assert_eq!(
        query(
            &postgres,
            r#"SELECT v, note FROM battery."b7" ORDER BY seq"#
        ),
        json!([{"v": 3.5, "note": "hi"}, {"v": 3.6, "note": "7"}, {"v": 3.8, "note": "9"}])
    );
}
