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

#[tokio::test]
async fn a_battdat_file_is_stored_from_the_page_with_its_units_and_metadata() {
    let mut stack = Stack::servers();
    stack.start_hub();
    stack.hub_ready().await;
    let simulate = ["simulate", "cell.h5", "--rows", "30000", "--seed", "1"];
    stack.run_rovicli(&simulate).await;
    let file = stack.folder().join("cell.h5");
    let browser = Browser::open(stack.hub_url()).await;
    browser.go("/register?battery=b7").await;
    // Twice: the second time nothing is stored anew.
    for _ in 0..2 {
        browser
            .types("#rows input[type=file]", file.to_str().unwrap())
            .await;
        browser
            .sees("document.querySelector('[data-file] p').textContent.includes('30\u{202f}000 rows stored.')")
            .await;
    }
    browser.keep("register-battdat").await;
    browser.is_accessible().await;
    assert_eq!(stack.database().dense_rows("b7"), 30_000);
    let metadata = stack.get("/db/b7/metadata").await.unwrap();
    assert!(metadata["battery"]["nominal_capacity"].is_number());
    let newest = stack.get("/db/b7/rows?limit=1&order=desc").await.unwrap();
    assert_eq!(newest["units"]["voltage"], "V");

    // What is no such file is refused in words.
    let other = stack.folder().join("text.h5");
    std::fs::write(&other, "no HDF5").unwrap();
    browser
        .types("#rows input[type=file]", other.to_str().unwrap())
        .await;
    browser.reads("the file is not an HDF5 file").await;
    browser.is_clean().await;
    browser.close().await;
}
