//! Metadata: checked, kept as sent, in versions, found by what they say.

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{TestHub, execute, postgres};

struct Answer {
    status: StatusCode,
    etag: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }
}

async fn ask(
    hub: &TestHub,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Client::new()
        .request(method, hub.url(path))
        .body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let etag = answer.headers().get("etag");
    let etag = etag.map(|etag| etag.to_str().unwrap().to_owned());
    Answer {
        status: answer.status(),
        etag: etag.unwrap_or_default(),
        text: answer.text().await.unwrap(),
    }
}

async fn register(hub: &TestHub, metadata: &Value) -> String {
    let text = metadata.to_string();
    let answer = ask(hub, Method::POST, "/db/register", &[], &text).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json().as_str().unwrap().to_owned()
}

const PATCH: (&str, &str) = ("content-type", "application/merge-patch+json");

#[tokio::test]
async fn metadata_that_do_not_fit_the_schema_are_refused_with_the_path() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let body = r#"{"name": "b7", "battery": {"electrolyte": {"name": "E", "additives": [{}]}}}"#;
    let answer = ask(&hub, Method::POST, "/db/register", &[], body).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json()["field"],
        "battery.electrolyte.additives[0].name"
    );
    let answer = ask(&hub, Method::GET, "/db/b7/metadata", &[], "").await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn every_version_can_be_read_with_who_made_it() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let first = r#"{ "name":"b7",  "site": "ü" }"#;
    ask(
        &hub,
        Method::POST,
        "/db/register",
        &[("from", "ada@lab")],
        first,
    )
    .await;
    // The same again is no new version.
    ask(&hub, Method::POST, "/db/register", &[], first).await;
    let path = "/db/b7/metadata";
    let second = r#"{"name": "b7", "source": "lab"}"#;
    let answer = ask(&hub, Method::PUT, path, &[("from", "bob")], second).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text.as_str()),
        (200, second)
    );
    let change = r#"{"source": null, "battery": {"mass": 0.5}}"#;
    let answer = ask(&hub, Method::PATCH, path, &[PATCH], change).await;
    let third = json!({"name": "b7", "battery": {"mass": 0.5}});
    assert_eq!(answer.json(), third);

    let read = async |path: &str| ask(&hub, Method::GET, path, &[], "").await;
    assert_eq!(read("/db/b7/metadata?revision=1").await.text, first);
    assert_eq!(read("/db/b7/metadata?revision=2").await.text, second);
    assert_eq!(read(path).await.json(), third);
    assert_eq!(read("/db/b7/metadata?revision=4").await.status, 404);
    let listed = read("/db/b7/metadata/revisions").await.json();
    let versions: Vec<_> = listed.as_array().unwrap().iter().collect();
    let named: Vec<_> = versions
        .iter()
        .map(|one| (one["revision"].as_i64().unwrap(), one["author"].as_str()))
        .collect();
    assert_eq!(named, [(3, None), (2, Some("bob")), (1, Some("ada@lab"))]);
    let rest = read("/db/b7/metadata/revisions?before=2").await.json();
    assert_eq!(rest[0], *versions[2]);
}

#[tokio::test]
async fn a_change_never_overwrites_what_its_author_has_not_seen() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    register(&hub, &json!({"name": "b7"})).await;
    let path = "/db/b7/metadata";
    let seen = ask(&hub, Method::GET, path, &[], "").await.etag;
    let if_match = [PATCH, ("if-match", seen.as_str())];
    let answer = ask(
        &hub,
        Method::PATCH,
        path,
        &if_match,
        r#"{"comments": "mine"}"#,
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = ask(
        &hub,
        Method::PATCH,
        path,
        &if_match,
        r#"{"comments": "late"}"#,
    )
    .await;
    assert_eq!(answer.status, 412, "{}", answer.text);
    let answer = ask(&hub, Method::PUT, path, &[("if-none-match", "*")], "{}").await;
    assert_eq!(answer.status, 412);

    let now = ask(&hub, Method::GET, path, &[], "").await;
    assert_eq!(now.json()["comments"], "mine");
    let unchanged = ask(&hub, Method::GET, path, &[("if-none-match", &now.etag)], "").await;
    assert_eq!(
        (unchanged.status.as_u16(), unchanged.text.as_str()),
        (304, "")
    );
    let changed = ask(&hub, Method::GET, path, &[("if-none-match", &seen)], "").await;
    assert_eq!(changed.status, 200);
}

#[tokio::test]
async fn a_change_that_cannot_be_made_changes_nothing() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    register(&hub, &json!({"name": "b7"})).await;
    register(&hub, &json!({"name": "b8"})).await;
    let path = "/db/b7/metadata";
    for (method, path, header, body, status, field) in [
        (Method::PATCH, path, PATCH, r#"{"name": 5}"#, 400, "name"),
        (Method::PATCH, path, PATCH, "[]", 400, ""),
        (
            Method::PATCH,
            path,
            ("content-type", "text/plain"),
            "{}",
            415,
            "Content-Type",
        ),
        (
            Method::PUT,
            path,
            ("a", "b"),
            r#"{"name": "b8"}"#,
            409,
            "name",
        ),
        (
            Method::PUT,
            "/db/b9/metadata",
            ("a", "b"),
            "{}",
            404,
            "battery",
        ),
    ] {
        let answer = ask(&hub, method, path, &[header], body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        assert_eq!(
            answer.json()["field"].as_str().unwrap_or_default(),
            field,
            "{body}"
        );
    }
    let revisions = ask(&hub, Method::GET, "/db/b7/metadata/revisions", &[], "").await;
    assert_eq!(revisions.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn metadata_that_come_after_the_rows_take_the_battery_of_their_slug() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let row = r#"[{"a": 1}]"#;
    ask(&hub, Method::POST, "/db/upload/Cell-3-A", &[], row).await;
    assert_eq!(
        register(&hub, &json!({"name": "Cell #3 (A)"})).await,
        "Cell-3-A"
    );
    // It has its title now: another text of the same slug is another battery.
    assert_eq!(
        register(&hub, &json!({"name": "Cell 3 A"})).await,
        "Cell-3-A-2"
    );
    assert_eq!(
        register(&hub, &json!({"name": "Cell #3 (A)"})).await,
        "Cell-3-A"
    );
    ask(&hub, Method::POST, "/db/upload/a--b", &[], row).await;
    assert_eq!(register(&hub, &json!({"name": "a--b"})).await, "a--b");
}

async fn found(hub: &TestHub, query: &[(&str, &str)]) -> (Vec<String>, Value) {
    let request = Client::new().get(hub.url("/db/batteries")).query(query);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    let names = answer["batteries"].as_array().unwrap().iter();
    let names = names.map(|battery| battery["name"].as_str().unwrap().to_owned());
    (names.collect(), answer)
}

#[tokio::test]
async fn batteries_are_found_by_what_their_metadata_say() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    for (name, cathode, capacity) in [
        ("a", "NMC532", 1.5),
        ("b", "LFP", 2.0),
        ("c", "NMC532", 3.0),
    ] {
        let battery = json!({"cathode": {"name": cathode}, "nominal_capacity": capacity});
        register(
            &hub,
            &json!({"name": name, "battery": battery, "source": "Lab 5"}),
        )
        .await;
    }
    ask(&hub, Method::POST, "/db/upload/d", &[], r#"[{"x": 1}]"#).await;
    for (condition, expected) in [
        ("battery.cathode.name = NMC532", vec!["a", "c"]),
        ("cathode = NMC532 and nominal_capacity > 2", vec!["c"]),
        ("cathode != NMC532", vec!["b", "d"]),
        (
            "source ~ \"lab 5\" and nominal_capacity <= 2.0",
            vec!["a", "b"],
        ),
        ("rows > 0", vec!["d"]),
        ("", vec!["a", "b", "c", "d"]),
    ] {
        assert_eq!(
            found(&hub, &[("where", condition)]).await.0,
            expected,
            "{condition}"
        );
    }
    let (_, answer) = found(&hub, &[("where", "cathode = LFP")]).await;
    assert_eq!(answer["batteries"][0]["fields"], json!({"cathode": "LFP"}));
    assert_eq!(found(&hub, &[("q", "LFP")]).await.0, ["b"]);
    assert_eq!(
        found(&hub, &[("q", "lab 5"), ("limit", "2")]).await.0,
        ["a", "b"]
    );
    let wrong = ask(&hub, Method::GET, "/db/batteries?where=soh", &[], "").await;
    assert_eq!(
        (wrong.status.as_u16(), &wrong.json()["field"]),
        (400, &json!("where"))
    );
}

#[tokio::test]
async fn ten_thousand_batteries_are_searched_page_by_page() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    execute(
        &postgres,
        "WITH made AS (INSERT INTO hub.batteries (name) \
           SELECT 'b' || lpad(n::text, 5, '0') FROM generate_series(1, 10000) n \
           RETURNING id, name) \
         INSERT INTO hub.metadata (battery_id, body, fields) \
           SELECT id, '{}', jsonb_build_object('n', right(name, 5)::int) FROM made",
    );
    let mut names = Vec::new();
    let mut after = Some(String::new());
    while let Some(from) = after {
        let query = [("where", "n > 8500"), ("limit", "1000"), ("after", &from)];
        let (more, answer) = found(&hub, &query).await;
        assert!(more.len() <= 1000);
        names.extend(more);
        after = answer["next"].as_str().map(str::to_owned);
    }
    assert_eq!(names.len(), 1500);
    assert!(names.is_sorted() && names[0] == "b08501");
}
