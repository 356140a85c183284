//! What a new user clicks through: nothing, a first battery, its life, live values, a zoom.

use serde_json::{Value, json};
use system_tests::Stack;

use crate::browser::Browser;

const MARKUP: &str = "<img src=x onerror='window.broken=1'>";

async fn upload(stack: &Stack, battery: &str, rows: Value) {
    let url = format!("{}/db/upload/{battery}", stack.hub_url());
    let answer = stack.http().post(url).json(&rows).send().await.unwrap();
    assert!(
        answer.status().is_success(),
        "{}",
        answer.text().await.unwrap()
    );
}

async fn simulate(stack: &Stack) {
    let simulate = [
        "simulate",
        "cell.h5",
        "--rows",
        "8000",
        "--seed",
        "1",
        "--estimator",
        "cell.json",
    ];
    for command in [
        &simulate[..],
        &["metadata", "cell.h5", "--name", "cell"],
        &["register", "cell", "0", "cell.json"],
        &["stream", "cell.h5", "--name", "cell", "--speedup", "max"],
    ] {
        stack.run_rovicli(command).await;
    }
}

/// Counts charts that have something drawn in them.
const DRAWN: &str = "[...document.querySelectorAll('.chart canvas')].filter((canvas) => {
    const pen = canvas.getContext('2d');
    return canvas.width > 0 && pen.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
}).length";

#[tokio::test]
async fn the_demo_is_clicked_through_live_and_with_a_zoom_that_stays() {
    let stack = Stack::start().await;
    let browser = Browser::open(stack.hub_url()).await;
    browser.go("/").await;
    browser.reads("No batteries yet").await;
    browser.reads("rovicli simulate").await;
    browser.keep("home-empty").await;

    simulate(&stack).await;
    browser
        .sees("document.querySelector('td.name a')?.textContent === 'cell'")
        .await;
    browser
        .sees("document.querySelector('tbody .badge')?.textContent === 'live'")
        .await;
    browser.click("td.name a").await;
    browser
        .sees("location.pathname === '/dashboard/cell'")
        .await;
    browser.sees(&format!("{DRAWN} >= 12")).await;
    browser.reads("nominal_capacity").await;
    browser.reads("normalised innovation squared").await;
    // Health in words, for whoever reads no charts.
    browser.reads("of its nominal 2.50 A h").await;
    browser.reads("The estimator can be believed").await;
    for (theme, width) in [("light", 1440), ("dark", 1440), ("light", 420)] {
        browser.theme(theme).await;
        browser.size(width, 900).await;
        browser.keep(&format!("battery-{theme}-{width}")).await;
        browser.is_accessible().await;
    }
    browser.size(1440, 900).await;

    the_zoom_stays_while_rows_come(&stack, &browser).await;
    all_charts_take_a_live_row_at_once(&stack, &browser).await;
    metadata_are_text(&stack, &browser).await;
    the_services_are_told(&browser).await;
    browser.is_clean().await;
    browser.close().await;
}

async fn the_zoom_stays_while_rows_come(stack: &Stack, browser: &Browser) {
    browser.types(".chart", "++").await;
    browser
        .sees("new URLSearchParams(location.search).has('from')")
        .await;
    let zoomed = browser.run("return location.search").await;
    browser.run("window.sameWindow = true").await;
    let row = json!([{"test_time": 8001.0, "current": 0.5, "voltage": 3.2109, "temperature": 21.5, "cycle_number": 0}]);
    upload(stack, "cell", row).await;
    let voltage = "document.querySelector('[data-value=voltage]').textContent";
    browser.sees(&format!("{voltage} === '3.2109'")).await;
    browser.reads("1 newer row").await;
    let state = browser
        .run("return [location.search, window.sameWindow]")
        .await;
    assert_eq!(state, json!([zoomed, true]));
    browser.keep("battery-zoomed").await;

    browser.types(".chart", "0").await;
    browser
        .sees("!new URLSearchParams(location.search).has('from')")
        .await;
    // The newest row is drawn, without a request of the user's.
    browser
        .sees("document.querySelector('.chart .reading').textContent.includes('3.211')")
        .await;
    let exported = browser
        .run("return document.querySelector('a[download]').getAttribute('href')")
        .await;
    assert_eq!(exported, "/db/cell/rows/export?axis=test_time&format=csv");
}

async fn all_charts_take_a_live_row_at_once(stack: &Stack, browser: &Browser) {
    // Looked at after each change, before anything else happens in the page.
    browser
        .run(
            "const read = (at) => document.querySelectorAll('.charts.stacked .reading')[at].textContent;
             const look = () => {
                 const [voltage, current] = [read(0) === '3.333', read(1) === '0.2500'];
                 if (voltage || current) window.together ??= voltage && current;
             };
             const options = {subtree: true, childList: true, characterData: true};
             new MutationObserver(look).observe(document.querySelector('.charts.stacked'), options)",
        )
        .await;
    let row = json!([{"test_time": 8002.0, "current": 0.25, "voltage": 3.333, "temperature": 21.5, "cycle_number": 0}]);
    upload(stack, "cell", row).await;
    browser.sees("'together' in window").await;
    assert_eq!(browser.run("return window.together").await, true);
}

async fn metadata_are_text(stack: &Stack, browser: &Browser) {
    let metadata =
        json!({"name": MARKUP, "comments": MARKUP, "battery": {"cathode": {"name": MARKUP}}});
    let url = format!("{}/db/odd/metadata", stack.hub_url());
    upload(stack, "odd", json!([{"voltage": 3.5, MARKUP: 1.0}])).await;
    let put = stack.http().put(url).json(&metadata).send().await.unwrap();
    assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    browser.go("/").await;
    browser
        .sees("document.querySelectorAll('td.name a').length === 2")
        .await;
    browser.go("/dashboard/odd").await;
    browser.reads(MARKUP).await;
    let harm = browser
        .run("return [document.images.length, window.broken ?? null]")
        .await;
    assert_eq!(harm, json!([0, null]));
}

async fn the_services_are_told(browser: &Browser) {
    browser.go("/status").await;
    browser
        .sees("document.querySelectorAll('tr[data-service] .badge[data-level=good]').length === 2")
        .await;
    browser.keep("services").await;
    browser.is_accessible().await;
}

#[tokio::test]
async fn pages_come_small_from_one_origin_and_are_kept_by_the_browser() {
    let mut stack = Stack::servers();
    stack.start_hub();
    stack.hub_ready().await;
    let get = |path: String, headers: [(&'static str, String); 2]| {
        let request = stack.http().get(format!("{}{path}", stack.hub_url()));
        let request = headers.into_iter().fold(request, |request, (name, value)| {
            request.header(name, value)
        });
        async { request.send().await.unwrap() }
    };
    let plain = || {
        [
            ("accept-encoding", "gzip".to_owned()),
            ("accept", "*/*".to_owned()),
        ]
    };
    let shell = get("/".to_owned(), plain()).await;
    assert_eq!(
        shell.headers()["content-encoding"],
        "gzip",
        "the pages were not built: make pages"
    );
    let policy = shell.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let etag = shell.headers()["etag"].to_str().unwrap().to_owned();
    let again = [
        ("accept-encoding", "gzip".to_owned()),
        ("if-none-match", etag),
    ];
    assert_eq!(get("/status".to_owned(), again).await.status(), 304);

    let shell = get(
        "/".to_owned(),
        [
            ("accept-encoding", "identity".to_owned()),
            ("accept", "*/*".to_owned()),
        ],
    )
    .await;
    let shell = shell.text().await.unwrap();
    assert!(
        !shell.contains("http"),
        "something comes from elsewhere: {shell}"
    );
    let assets: Vec<&str> = shell
        .split('"')
        .filter(|part| part.starts_with("/assets/"))
        .collect();
    assert!(assets.len() >= 3, "{shell}");
    let mut bytes = shell.len();
    for asset in assets {
        let answer = get(asset.to_owned(), plain()).await;
        let caching = answer.headers()["cache-control"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            caching.contains("immutable"),
            asset.contains('-'),
            "{asset}: {caching}"
        );
        bytes += answer.bytes().await.unwrap().len();
    }
    assert!(bytes < 200_000, "{bytes} bytes before the first view");
    assert_eq!(
        get("/assets/none-1.js".to_owned(), plain()).await.status(),
        404
    );
}
