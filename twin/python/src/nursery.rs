//! Starts processes from a thread that lives as long as they do.
//!
//! The kernel ends a confined process when the thread that started it ends (`PR_SET_PDEATHSIG`), so that none
//! outlives a service that was killed. Threads of a pool come and go; this one stays.

use std::{
    io,
    process::{Child, Command},
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

/// Processes that may wait to be started.
const ORDERS: usize = 16;

struct Order {
    command: Command,
    started: SyncSender<io::Result<Child>>,
}

/// The thread that starts processes; what it started ends with it.
#[derive(Debug)]
pub(crate) struct Nursery {
    orders: SyncSender<Order>,
}

impl Nursery {
    pub(crate) fn new() -> io::Result<Self> {
        let (orders, taken) = sync_channel::<Order>(ORDERS);
        thread::Builder::new()
            .name("python-nursery".to_owned())
            .spawn(move || {
                for mut order in taken {
                    // Whoever asked may have given up.
                    let _given_up = order.started.send(order.command.spawn()).is_err();
                }
            })?;
        Ok(Self { orders })
    }

    pub(crate) fn start(&self, command: Command) -> io::Result<Child> {
        let (started, child) = sync_channel(1);
        let gone = || io::Error::other("the thread that starts scripts has ended");
        let sent = self.orders.send(Order { command, started });
        sent.map_err(|_ended| gone())?;
        child.recv().map_err(|_ended| gone())?
    }
}
