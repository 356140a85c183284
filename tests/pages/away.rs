//! A part of the service is away: the pages say so and go on with what there is.

use serde_json::json;
use system_tests::Stack;

use crate::browser::Browser;

/// An expression that is true where the fleet shows a stored voltage, marked as stored.
fn stored_voltage(voltage: &str) -> String {
    format!(
        "[...document.querySelectorAll('tr[data-stored] td')].some((cell) => cell.textContent === '{voltage}')"
    )
}

async fn upload(stack: &Stack, rows: i64) {
    let times = 0..rows;
    let time: Vec<i64> = times.clone().collect();
    let voltage: Vec<f64> = time
        .iter()
        .map(|&second| 3.5 + f64::from(i32::try_from(second % 100).unwrap()) / 1000.0)
        .collect();
    let current = vec![1.0; time.len()];
    let body = json!({"test_time": time, "voltage": voltage, "current": current});
    let body = rmp_serde::to_vec_named(&body).unwrap();
    let url = format!("{}/db/upload/b7", stack.hub_url());
    let request = stack
        .http()
        .post(url)
        .header("content-type", "application/msgpack");
    assert!(
        request
            .body(body)
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
}

#[tokio::test]
async fn without_the_twin_history_is_shown_and_its_silence_marked() {
    let mut stack = Stack::servers();
    stack.configure_twin("heartbeat_interval = \"300ms\"\n");
    stack.start_hub();
    stack.start_twin();
    stack.ready().await;
    upload(&stack, 3000).await;
    let browser = Browser::open(stack.hub_url()).await;
    browser.go("/status").await;
    browser
        .sees("document.querySelector('tr[data-service=twin] .badge[data-level=good]')")
        .await;

    stack.kill_twin();
    browser.reads("The Digital Twin is away").await;
    browser
        .sees("document.querySelector('tr[data-service=twin][data-stale]')")
        .await;
    browser
        .sees("document.querySelector('tr[data-service=datahub] .badge[data-level=good]')")
        .await;
    browser.keep("services-twin-away").await;

    browser.go("/").await;
    browser
        .sees("document.querySelector('td.name a')?.textContent === 'b7'")
        .await;
    browser.reads("not live").await;
    // The last stored values, marked as such.
    browser.sees(&stored_voltage("3.599")).await;
    browser
        .reads("values in italics are the last that were stored")
        .await;
    browser.keep("home-twin-away").await;
    browser.go("/dashboard/b7").await;
    browser
        .sees("document.querySelectorAll('.charts.stacked canvas').length === 2")
        .await;
    browser
        .sees("document.querySelector('[data-value=voltage]').textContent === '3.5990'")
        .await;
    browser
        .reads("The Digital Twin is away, so the estimators' state is not known")
        .await;
    browser.keep("battery-twin-away").await;

    // Values go on without the live socket, read from the hub.
    let row = json!([{"test_time": 3000.0, "voltage": 3.1234, "current": 0.0}]);
    let url = format!("{}/db/upload/b7", stack.hub_url());
    stack.http().post(url).json(&row).send().await.unwrap();
    browser
        .sees("document.querySelector('[data-value=voltage]').textContent === '3.1234'")
        .await;

    browser.go("/").await;
    browser.sees(&stored_voltage("3.123")).await;
    stack.start_twin();
    browser.sees("document.querySelector('.away').hidden").await;
    browser
        .sees("!document.querySelector('tr[data-stored]')")
        .await;
    browser
        .sees("document.querySelector('.link-state').dataset.state === 'live'")
        .await;
    browser.is_clean().await;
    browser.close().await;
}

#[tokio::test]
async fn without_nats_rows_are_stored_and_shown_and_nothing_claims_to_be_live() {
    let mut stack = Stack::start().await;
    upload(&stack, 500).await;
    stack.relayed("b7").await;
    let browser = Browser::open(stack.hub_url()).await;
    browser.go("/").await;
    let is_live = "document.querySelector('.link-state').dataset.state === 'live'";
    browser.sees(is_live).await;

    stack.nats.server.kill();
    browser.reads("The bus (NATS) is away").await;
    browser
        .sees("document.querySelector('.link-state').dataset.state === 'away'")
        .await;
    let row = json!([{"test_time": 500.0, "voltage": 3.4321, "current": 0.0}]);
    let url = format!("{}/db/upload/b7", stack.hub_url());
    let sent = stack.http().post(url).json(&row).send().await.unwrap();
    assert!(sent.status().is_success(), "{sent:?}");
    browser.sees(&stored_voltage("3.432")).await;
    browser.keep("home-nats-away").await;

    browser.go("/dashboard/b7").await;
    browser.reads("nothing can be registered").await;
    browser
        .sees("document.querySelector('[data-value=voltage]').textContent === '3.4321'")
        .await;
    browser
        .sees("document.querySelectorAll('.charts.stacked canvas').length === 2")
        .await;
    browser.keep("battery-nats-away").await;

    stack.nats.server.start_again().unwrap();
    browser.sees("document.querySelector('.away').hidden").await;
    browser.sees(is_live).await;
    browser.is_clean().await;
    browser.close().await;
}

#[tokio::test]
async fn a_page_outlives_its_hub_and_goes_on_with_the_next_one() {
    let mut stack = Stack::start().await;
    upload(&stack, 500).await;
    let browser = Browser::open(stack.hub_url()).await;
    browser.go("/dashboard/b7").await;
    let voltage = "document.querySelector('[data-value=voltage]').textContent";
    browser.sees(&format!("{voltage} === '3.5990'")).await;
    let charts = "document.querySelectorAll('.charts.stacked canvas').length === 2";
    browser.sees(charts).await;
    browser.run("window.sameWindow = true").await;

    stack.kill_hub();
    browser.reads("The Data Hub does not answer").await;
    browser.reads("not live").await;
    // What was known stays in sight.
    browser.sees(&format!("{voltage} === '3.5990'")).await;
    browser.sees(charts).await;
    browser
        .sees("document.querySelector('.charts.stacked').offsetHeight > 100")
        .await;
    browser.keep("battery-hub-away").await;

    stack.start_hub();
    stack.hub_ready().await;
    let row = json!([{"test_time": 500.0, "voltage": 3.4567, "current": 0.0}]);
    let url = format!("{}/db/upload/b7", stack.hub_url());
    let sent = stack.http().post(url).json(&row).send().await.unwrap();
    assert!(sent.status().is_success(), "{sent:?}");
    browser.sees(&format!("{voltage} === '3.4567'")).await;
    browser.sees("document.querySelector('.away').hidden").await;
    browser
        .sees("document.querySelector('.link-state').dataset.state === 'live'")
        .await;
    assert_eq!(browser.run("return window.sameWindow").await, true);
    browser.is_clean().await;
    browser.close().await;
}
