//! Handshakes that never end.

use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    thread::available_parallelism,
    time::Duration,
};

use rovi_common::testing::eventually;
use system_tests::Stack;

use super::{address, hub};

const PATIENCE: Duration = Duration::from_mins(1);
/// What the library lets be under way on a thread of HTTP where it is not told otherwise.
const BY_DEFAULT: usize = 256;

#[tokio::test]
async fn half_open_handshakes_hold_up_nobody_and_are_ended() {
    let stack = hub().await;
    let threads = available_parallelism().unwrap().get();
    // On a busy machine they may end before the answer comes; then it tells nothing.
    let half_open = eventually(PATIENCE, || async {
        let half_open = open(&stack, BY_DEFAULT * (threads + 1));
        let health = format!("{}/health", stack.hub_url());
        let answer = stack.http().get(health).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let open = half_open.iter().filter(|socket| is_open(socket)).count();
        let is_shown = answer.status().is_success() && open > BY_DEFAULT * threads;
        is_shown
            .then_some(half_open)
            .ok_or(format!("{open} were half open when the answer came"))
    })
    .await;
    eventually(PATIENCE, || async {
        let open = half_open.iter().filter(|socket| is_open(socket)).count();
        (open == 0).then_some(()).ok_or(format!("{open} are open"))
    })
    .await;
}

fn open(stack: &Stack, number: usize) -> Vec<TcpStream> {
    let connect = |_| {
        let socket = TcpStream::connect(address(stack)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    (0..number).map(connect).collect()
}

/// Whether the hub has left a connection open, on which it says nothing.
fn is_open(mut socket: &TcpStream) -> bool {
    let read = socket.read(&mut [0]);
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
