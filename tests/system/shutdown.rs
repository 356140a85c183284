//! SIGTERM under load: every acknowledged row is there, sockets are told, processes end in time.

use std::time::Duration;

use rovi_common::testing::eventually;
use system_tests::Stack;

use crate::cell::Cell;

#[tokio::test]
async fn both_services_end_by_sigterm_with_code_0_and_the_stream_resumes_afterwards() {
    let mut stack = Stack::start().await;
    let cell = Cell::registered(&stack, "stopped", 60_000).await;
    let mut stream = cell.stream(&stack).spawn().unwrap();
    let mut database = stack.database();
    eventually(Duration::from_mins(1), || {
        let seq = database.number("SELECT coalesce(max(last_seq), 0) AS value FROM hub.batteries");
        async move {
            if seq > 5_000 {
                Ok(())
            } else {
                Err(format!("{seq} rows are stored"))
            }
        }
    })
    .await;
    assert_eq!(
        stack.stop_hub().and_then(|status| status.code()),
        Some(0),
        "{}",
        stack.logs()
    );
    assert_eq!(
        stack.stop_twin().and_then(|status| status.code()),
        Some(0),
        "{}",
        stack.logs()
    );
    stack.start_hub();
    stack.start_twin();
    assert!(stream.wait().unwrap().success());
    assert_eq!(stack.database().dense_rows("stopped"), cell.rows);
    cell.estimated(&stack).await;
    cell.assert_estimates_are_exact(&mut stack.database());
}
