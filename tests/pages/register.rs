//! A battery made from the page alone: metadata, a file of rows, an estimator by form.

use std::fmt::Write as _;

use system_tests::Stack;

use crate::browser::Browser;

/// Rows of CSV for three requests of the page.
fn rows() -> (u32, String) {
    let mut text = "test_time,voltage,current,temperature\n".to_owned();
    let rows = 60_000_u32;
    for second in 0..rows {
        writeln!(
            text,
            "{second}.0,{:.12},-0.100000000001,25.0000000",
            3.7 - f64::from(second) * 1e-6
        )
        .unwrap();
    }
    (rows, text)
}

#[tokio::test]
async fn metadata_rows_and_an_estimator_are_registered_from_the_page() {
    let stack = Stack::start().await;
    let browser = Browser::open(stack.hub_url()).await;
    browser.go("/register").await;
    browser
        .types(
            "#metadata textarea",
            r#"{"name": "Cell #7", "battery": {"nominal_capacity": 2.5}}"#,
        )
        .await;
    browser.click("#metadata button").await;
    browser.reads("Saved for Cell-7").await;

    let (count, text) = rows();
    let file = stack.folder().join("rows.csv");
    std::fs::write(&file, text).unwrap();
    browser
        .types("#rows input[type=file]", file.to_str().unwrap())
        .await;
    browser.reads("60\u{202f}000 rows stored.").await;
    assert_eq!(stack.database().dense_rows("Cell-7"), i64::from(count));

    // What is wrong is told at its field.
    let capacity = "[data-path='asoh.q_t.base_values'] input";
    browser.run(&format!("const input = document.querySelector(\"{capacity}\"); input.value = ''; input.dispatchEvent(new Event('input'))")).await;
    browser.click("#estimator button[type=submit]").await;
    browser
        .sees("document.querySelector(\"[data-path='asoh.q_t.base_values'] .wrong\")")
        .await;
    browser.keep("register").await;
    browser.types(capacity, "2.5").await;
    browser.click("#estimator button[type=submit]").await;
    browser.reads("joint UKF `default` of `Cell-7`").await;
    browser.reads("Look at the battery").await;

    browser.go("/dashboard/Cell-7").await;
    browser
        .sees("document.querySelector('[data-value=state] .badge')?.textContent === 'live'")
        .await;
    browser.reads("Cell #7").await;
    browser.is_clean().await;
    browser.close().await;
}
