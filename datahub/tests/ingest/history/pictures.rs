//! Pictures of history, as reports take them.

use reqwest::StatusCode;
use rovi_common::testing;
use serde_json::json;

use super::{fill, get};
use crate::support::TestHub;

async fn filled() -> (testing::TestPostgres, TestHub) {
    let postgres = testing::postgres();
    let hub = TestHub::start(&postgres).await;
    let first = json!({"current": 1.0, "note": "<b>", "test_time": 0.0, "voltage": 3.7});
    let cells = "sin(n / 1000.0), '<b>', n, 3.7 + 0.1 * cos(n / 500.0)";
    fill(&hub, &postgres, &first, cells, 20_000).await;
    (postgres, hub)
}

async fn picture(hub: &TestHub, path: &str) -> (StatusCode, String, Vec<u8>) {
    let answer = reqwest::get(hub.url(path)).await.unwrap();
    let kind = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    (
        answer.status(),
        kind,
        answer.bytes().await.unwrap().to_vec(),
    )
}

#[tokio::test]
async fn history_is_drawn_as_svg_and_png_in_the_size_asked_for() {
    let (_postgres, hub) = filled().await;
    let (status, kind, svg) = picture(&hub, "/dashboard/b7/img/history.svg?width=800").await;
    let svg = String::from_utf8(svg).unwrap();
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "image/svg+xml"));
    assert!(
        svg.contains(r#"width="800""#) && svg.contains("rows 1 to 20000"),
        "{svg:.300}"
    );
    assert!(svg.contains("voltage") && svg.contains("current") && svg.contains("test time (h)"));
    assert!(!svg.contains("note"), "text has no line");
    let path = "/dashboard/b7/img/history.png?width=640&height=300&theme=dark&columns=voltage";
    let (status, kind, png) = picture(&hub, path).await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "image/png"));
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
    // Width and height stand in the header, big-endian.
    assert_eq!(png[16..24], [0, 0, 2, 128, 0, 0, 1, 44]);
}

#[tokio::test]
async fn a_picture_shows_the_range_and_signals_asked_for() {
    let (_postgres, hub) = filled().await;
    super::send(
        &hub,
        reqwest::Method::PUT,
        "/db/b7/signals/power",
        r#"{"expression": "voltage * current", "unit": "W"}"#,
    )
    .await;
    let path = "/dashboard/b7/img/history.svg?seq=100..200&columns=power&axis=seq";
    let (_, _, svg) = picture(&hub, path).await;
    let svg = String::from_utf8(svg).unwrap();
    assert!(
        svg.contains("rows 100 to 200") && svg.contains("power (W)"),
        "{svg:.500}"
    );
}

#[tokio::test]
async fn what_cannot_be_drawn_is_refused_by_name() {
    let (_postgres, hub) = filled().await;
    for (path, status, word) in [
        ("b7/img/history.gif", 404, "history.png"),
        ("b7/img/else.svg", 404, "estimates.svg"),
        ("b8/img/history.svg", 404, "b8"),
        ("b7/img/history.svg?width=9999", 400, "width=9999"),
        ("b7/img/history.svg?theme=pink", 400, "theme=pink"),
        ("b7/img/history.svg?columns=nothing", 400, "nothing"),
        ("b7/img/history.svg?pictures=1", 400, "pictures"),
    ] {
        let (got, _, body) = picture(&hub, &format!("/dashboard/{path}")).await;
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(
            got.as_u16() == status && body.contains(word),
            "{path}: {got} {body}"
        );
    }
}

#[tokio::test]
async fn a_battery_without_estimates_has_a_picture_that_says_so() {
    let (_postgres, hub) = filled().await;
    assert_eq!(get(&hub, "/db/b7/estimates").await["seq"], json!([]));
    let (status, _, svg) = picture(&hub, "/dashboard/b7/img/estimates.svg").await;
    let svg = String::from_utf8(svg).unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(svg.contains("nothing to draw"), "{svg:.500}");
}
