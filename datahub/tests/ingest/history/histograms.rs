//! Distributions of columns.

use serde_json::{Value, json};

use super::{fill, get};
use crate::support::{TestHub, postgres};

#[tokio::test]
async fn a_histogram_counts_every_row_of_its_range_beyond_one_page() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    // Columns stand in the order of their names: a note, then the voltage.
    let first = json!({"note": "text", "voltage": 0.001});
    fill(
        &hub,
        &postgres,
        &first,
        "'text', (n % 4000) / 1000.0",
        20_000,
    )
    .await;
    let found = get(&hub, "/db/b7/histogram?bins=40&seq=1..19999").await;
    let columns = found["columns"].as_object().unwrap();
    assert_eq!(columns.keys().collect::<Vec<_>>(), ["voltage"]);
    let voltage = &columns["voltage"];
    assert_eq!(
        (&voltage["from"], &voltage["left_out"]),
        (&json!(0.0), &json!(0))
    );
    let counts = voltage["counts"].as_array().unwrap();
    let sum: u64 = counts.iter().filter_map(Value::as_u64).sum();
    assert_eq!((sum, counts.len()), (19_999, 32));
    assert_eq!(
        (&voltage["width"], &counts[3]),
        (&json!(0.125), &json!(625))
    );
}
