//! Ten thousand batteries on one page.

use async_nats::jetstream;
use rovi_common::{
    clock,
    news::{BatteryState, Estimated, EstimatorState},
    subjects,
};
use system_tests::Stack;

use crate::browser::Browser;

const BATTERIES: u32 = 10_000;
const FIRST: &str = "document.querySelector('td.name a')?.textContent";
/// Goes through the list in steps of a hundred lines; returns the most changes that one of them made.
const SCROLL: &str = "
    const fleet = document.querySelector('.fleet');
    const changes = new MutationObserver(() => {});
    changes.observe(fleet, {subtree: true, childList: true, characterData: true, attributes: true});
    let most = 0;
    for (let at = 0; at < 300000; at += 3000) {
        fleet.scrollTop = at;
        fleet.dispatchEvent(new Event('scroll'));
        most = Math.max(most, changes.takeRecords().length);
    }
    changes.disconnect();
    return most";
/// The key Tab, as `WebDriver` names it.
const TAB: &str = "\u{e004}";

/// A state as a twin would say it, so that no tables have to be made.
fn state(number: u32) -> BatteryState {
    let mut state = BatteryState::unknown(format!("cell-{number:05}").parse().unwrap());
    (state.epoch, state.seq, state.segment) = (1, i64::from(number) + 1, 1);
    state.received = clock::now_us();
    let share = f64::from(number % 100) / 100.0;
    for (column, value) in [
        ("voltage", 3.0 + share),
        ("current", share - 0.5),
        ("temperature", 20.0 + 10.0 * share),
    ] {
        state.row.insert(column.to_owned(), value.into());
    }
    let estimator = EstimatorState {
        phase: if number.is_multiple_of(997) {
            "broken"
        } else {
            "live"
        }
        .to_owned(),
        error: (number.is_multiple_of(997)).then(|| "the voltage is stuck".to_owned()),
        values: [
            ("state_of_charge".to_owned(), Estimated::new(share, 0.01)),
            (
                "state_of_health".to_owned(),
                Estimated::new(1.0 - share / 5.0, 0.008),
            ),
        ]
        .into_iter()
        .collect(),
        ..EstimatorState::default()
    };
    state
        .estimators
        .insert("default".parse().unwrap(), estimator);
    state
}

#[tokio::test]
async fn ten_thousand_batteries_are_scrolled_sorted_and_searched() {
    let stack = Stack::start().await;
    let nats = async_nats::connect(stack.nats.server.url()).await.unwrap();
    let bus = jetstream::new(nats);
    for number in 0..BATTERIES {
        say(&bus, &state(number)).await;
    }
    let browser = Browser::open(stack.hub_url()).await;
    browser.go("/").await;
    browser.reads("10\u{202f}000 batteries").await;
    // Who needs somebody comes first, with the reason.
    browser.reads("Broken 11").await;
    browser
        .sees("document.querySelectorAll('td.name a')[10].textContent === 'cell-09970'")
        .await;
    browser
        .sees("document.querySelector('td.attention').textContent.includes('the voltage is stuck')")
        .await;
    browser.keep("fleet").await;
    browser.is_accessible().await;

    go_by_tab(&browser).await;
    browser.press("Battery").await;
    scroll(&browser).await;
    browser.press("Health ± 2σ").await;
    browser
        .sees("document.querySelector('th[aria-sort=descending]').textContent.includes('Health')")
        .await;
    browser.sees(&format!("{FIRST} === 'cell-00000'")).await;
    browser.press("Broken 11").await;
    browser.reads("11 of 10\u{202f}000").await;
    browser.keep("fleet-broken").await;
    browser.press("All").await;
    browser.types("input[type=search]", "0777").await;
    let found = "document.querySelectorAll('td.name a').length === 11";
    browser.sees(found).await;

    let mut newest = state(7770);
    newest.seq = 1_000_000;
    newest.row.insert("voltage".to_owned(), 2.222.into());
    say(&bus, &newest).await;
    browser.reads("2.222").await;
    browser.is_clean().await;
    browser.close().await;
}

async fn say(bus: &jetstream::Context, state: &BatteryState) {
    let subject = subjects::state_of(&state.battery);
    // Without waiting for each to be stored: what is lost shows in the count on the page.
    bus.publish(subject, state.encode().into()).await.unwrap();
}

async fn scroll(browser: &Browser) {
    browser
        .run("document.querySelector('.fleet').scrollTop = 1e9")
        .await;
    browser
        .sees("[...document.querySelectorAll('td.name a')].some((a) => a.textContent === 'cell-09999')")
        .await;
    let lines = browser
        .run("return document.querySelectorAll('.fleet tr').length")
        .await;
    assert!(lines.as_u64().unwrap() < 100, "{lines} lines are there");
    let most = browser.run(SCROLL).await.as_u64().unwrap();
    assert!(most < 5000, "a step of scrolling changed {most} nodes");
    browser
        .run("document.querySelector('.fleet').scrollTop = 0")
        .await;
}

/// Whoever uses the keyboard alone gets from battery to battery, however far down.
async fn go_by_tab(browser: &Browser) {
    browser
        .run("document.querySelector('td.name a').focus()")
        .await;
    for line in 1..40_u32 {
        browser.types("td.name a:focus", TAB).await;
        // Both broken ones and the others are in the order of their names.
        let name = if line < 11 { line * 997 } else { line - 10 };
        let name = format!("document.activeElement.textContent === 'cell-{name:05}'");
        browser.sees(&name).await;
        // Lines below it are there before it goes on.
        browser.sees("document.activeElement.closest('tr').nextElementSibling.nextElementSibling.querySelector('a')").await;
    }
}
