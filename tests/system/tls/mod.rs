//! Services, sockets and the bus over TLS: who is believed, who is refused, and what a renewed
//! certificate changes.

mod database;
mod everything;
mod handshakes;
mod refusals;
mod renewal;

use system_tests::{Secured, Stack};

/// A hub alone that speaks TLS, on a bus that is away.
async fn hub() -> Stack {
    let mut stack = Stack::servers();
    stack.encrypt();
    stack.start_hub_without_bus().await;
    stack
}

fn secured(stack: &Stack) -> &Secured {
    stack.secured().unwrap()
}

/// Returns the address of the hub, for sockets without TLS.
fn address(stack: &Stack) -> String {
    stack.hub_url().replace("https://", "")
}
