//! The fleet through the hub's port: found by estimates and metadata, sorted, paged.

use std::time::Duration;

use rovi_common::testing::eventually;
use rovicli::simulation::{Plan, estimator_document};
use serde_json::{Value, json};
use system_tests::Stack;

const PATIENCE: Duration = Duration::from_secs(30);

async fn battery(stack: &Stack, name: &str, cathode: &str, voltage: f64) {
    let metadata = json!({"name": name, "battery": {"cathode": {"name": cathode}}});
    let register = stack
        .http()
        .post(format!("{}/db/register", stack.hub_url()));
    let answer = register.json(&metadata).send().await.unwrap();
    assert!(answer.status().is_success());
    let document = estimator_document(&Plan::default()).to_string();
    let form = [("name", name), ("definition", document.as_str())];
    let url = format!("{}/online/register", stack.hub_url());
    let answer = stack.http().post(url).form(&form).send().await.unwrap();
    assert!(answer.status().is_success());
    let row =
        |time| json!({"test_time": time, "current": -0.1, "voltage": voltage, "temperature": 25.0});
    let rows: Vec<Value> = [1.0, 2.0, 3.0].map(row).into();
    let url = format!("{}/db/upload/{name}", stack.hub_url());
    let answer = stack.http().post(url).json(&rows).send().await.unwrap();
    assert!(answer.status().is_success());
}

async fn names(stack: &Stack, query: &str) -> Vec<String> {
    let page = stack.get(&format!("/online/status?{query}")).await.unwrap();
    let batteries = page["batteries"].as_array().unwrap().iter();
    batteries
        .map(|one| one["battery"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn batteries_are_found_by_estimates_and_metadata_together() {
    let stack = Stack::start().await;
    for (name, cathode, voltage) in [
        ("a", "NMC532", 3.6),
        ("b", "LFP", 3.7),
        ("c", "NMC532", 3.8),
    ] {
        battery(&stack, name, cathode, voltage).await;
    }
    eventually(PATIENCE, || async {
        let page = stack
            .get("/online/status?where=phase = live and estimated_seq = 3")
            .await?;
        (page["total"] == 3).then_some(()).ok_or(page.to_string())
    })
    .await;

    assert_eq!(names(&stack, "where=cathode = NMC532").await, ["a", "c"]);
    let both = "where=soh < 2 and voltage > 3.7 and cathode = NMC532";
    assert_eq!(names(&stack, both).await, ["c"]);
    assert!(names(&stack, "where=soh > 2").await.is_empty());
    assert_eq!(names(&stack, "q=lfp").await, ["b"]);
    assert_eq!(names(&stack, "sort=-voltage").await, ["c", "b", "a"]);
    assert_eq!(names(&stack, "sort=cathode").await, ["b", "a", "c"]);
    assert_eq!(names(&stack, "where=battery = a").await, ["a"]);

    let page = stack
        .get("/online/status?limit=2&fields=voltage,soc,cathode")
        .await
        .unwrap();
    assert_eq!((&page["total"], &page["next"]), (&json!(3), &json!(2)));
    let first = &page["batteries"][0];
    assert_eq!(
        (&first["voltage"], &first["cathode"]),
        (&json!(3.6), &json!("NMC532"))
    );
    assert!(
        first["soc"].is_f64() && first.get("seq").is_none(),
        "{first}"
    );
    assert_eq!(names(&stack, "limit=2&offset=2").await, ["c"]);

    let origins = stack.get("/online/status").await.unwrap();
    assert_eq!(origins["b"]["is_ready"], true);
    let states = origins["b"]["state_names"].as_array().unwrap().len();
    assert_eq!(origins["b"]["covariance"].as_array().unwrap().len(), states);

    for (query, field) in [
        ("where=soh <", "where"),
        ("limit=0", "limit"),
        ("sort=a b", "sort"),
    ] {
        let url = format!("{}/online/status?{query}", stack.hub_url());
        let answer = stack.http().get(url).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 400, "{query}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["field"], field);
    }
    unchanged_is_not_sent_again(&stack).await;
}

async fn unchanged_is_not_sent_again(stack: &Stack) {
    for path in ["/online/status", "/online/status?sort=soh"] {
        let url = format!("{}{path}", stack.hub_url());
        let first = stack.http().get(&url).send().await.unwrap();
        let tag = first.headers()["etag"].clone();
        let again = stack.http().get(&url).header("if-none-match", &tag);
        assert_eq!(again.send().await.unwrap().status().as_u16(), 304);
        let other = stack.http().get(&url).header("if-none-match", "\"other\"");
        assert_eq!(other.send().await.unwrap().status().as_u16(), 200);
    }
}
