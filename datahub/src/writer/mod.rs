//! Hop 3 of 7: batches → rows with `(epoch, seq)`, in groups.
//!
//! Input: [`Batch`]es over bounded channels, a battery always to the same thread. Output: progress
//! to each connection, [`StoredRows`](crate::stored::StoredRows) to the relay.
//! On failure: PostgreSQL away, the thread connects again and writes the same group; a battery
//! whose table cannot be written, or is large and must change, is parked with its own queue and
//! tried on a thread of its own, the others go on; rows that PostgreSQL refuses cost only
//! themselves.

mod ahead;
mod answer;
mod aside;
mod inbox;
mod link;
mod parked;
mod rest;
mod thread;
mod waiting;

use std::{fmt, sync::Arc, time::Duration};

use rovi_common::{config::ServiceUrl, lifecycle::Lifecycle};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::waiting::Bounds;
use crate::{
    batch::Batch,
    config::Settings,
    metrics::HubMetrics,
    store::{group::Rules, neighbours::Neighbours},
    stored::{StoredSender, ToRelay},
};

/// Orders that are on their way to a writer, which takes them in while it has room for their rows.
const ON_THEIR_WAY: usize = 1024;

/// What a writer is told.
#[derive(Debug)]
enum Order {
    /// To write these rows.
    Write(Box<Batch>),
    /// To write what it has of a battery before all else.
    Hurry(i64),
}

/// What a writer needs.
#[derive(Debug, Clone)]
struct Wiring {
    url: ServiceUrl,
    rules: Rules,
    lock_timeout: Duration,
    group: Bounds,
    group_wait: Duration,
    queue_frames: usize,
    stored: Option<StoredSender>,
    metrics: HubMetrics,
    closing: CancellationToken,
    give_up: CancellationToken,
}

/// The writers take no more rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// The writer threads.
#[derive(Clone)]
pub struct Writers {
    senders: Arc<[mpsc::Sender<Order>]>,
    closing: CancellationToken,
    give_up: CancellationToken,
}

impl fmt::Debug for Writers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = self.senders.len();
        f.debug_struct("Writers")
            .field("threads", &threads)
            .finish_non_exhaustive()
    }
}

impl Writers {
    /// Starts the threads; one that ends on its own stops the service.
    ///
    /// Committed rows go to the relay where it has room.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(
        settings: &Settings,
        lifecycle: &Lifecycle,
        relay: Option<ToRelay>,
        metrics: &HubMetrics,
    ) -> std::io::Result<Self> {
        let wiring = Wiring {
            url: settings.database_url.clone(),
            rules: Rules {
                horizon_s: settings.segment_horizon_s,
                columns: settings.columns,
                alone_lock_ms: (settings.lock_timeout / 4).as_millis().max(1),
                neighbours: Neighbours::of_writers(settings.writers),
                hints: relay.as_ref().map(|relay| Arc::clone(&relay.hints)),
            },
            lock_timeout: settings.lock_timeout,
            group: Bounds {
                rows: settings.group_rows,
                bytes: settings.group_bytes,
                tables: settings.group_tables,
            },
            group_wait: settings.group_wait,
            queue_frames: settings.queue_frames,
            stored: relay.map(|relay| relay.stored),
            metrics: metrics.clone(),
            closing: CancellationToken::new(),
            give_up: CancellationToken::new(),
        };
        let mut senders = Vec::with_capacity(settings.writers);
        for number in 0..settings.writers {
            let (sender, inbox) = mpsc::channel(settings.queue_frames.min(ON_THEIR_WAY));
            senders.push(sender);
            start_thread(number, wiring.clone(), inbox, lifecycle)?;
        }
        Ok(Self {
            senders: senders.into(),
            closing: wiring.closing,
            give_up: wiring.give_up,
        })
    }

    /// Hands a batch to its battery's thread; waits where its queue is full.
    ///
    /// # Errors
    /// The writers were closed: the batch is not written.
    pub async fn send(&self, batch: Batch) -> Result<(), Closed> {
        let thread = self.of(batch.battery_id()).ok_or(Closed)?;
        let order = Order::Write(Box::new(batch));
        thread.send(order).await.map_err(|_order| Closed)
    }

    /// Has the rows of a battery that were handed over written as soon as can be: somebody waits
    /// for them before doing anything else.
    pub async fn hurry(&self, battery_id: i64) {
        if let Some(thread) = self.of(battery_id) {
            // Closed writers hurry anyway.
            let _closed = thread.send(Order::Hurry(battery_id)).await;
        }
    }

    fn of(&self, battery_id: i64) -> Option<&mpsc::Sender<Order>> {
        let thread = usize::try_from(battery_id.unsigned_abs()).unwrap_or_default();
        self.senders.get(thread % self.senders.len().max(1))
    }

    /// Takes no more batches; the threads write what they have and end.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Ends the threads even where PostgreSQL is away; what they hold is not stored.
    pub fn give_up(&self) {
        self.closing.cancel();
        self.give_up.cancel();
    }
}

fn start_thread(
    number: usize,
    wiring: Wiring,
    inbox: mpsc::Receiver<Order>,
    lifecycle: &Lifecycle,
) -> std::io::Result<()> {
    let (alive, ended) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    std::thread::Builder::new()
        .name(format!("writer-{number}"))
        .spawn(move || {
            // Dropped when the thread ends, also by a panic.
            let _alive = alive;
            thread::Writer::new(wiring, inbox, runtime).run();
        })?;
    let stop = lifecycle.stop_token();
    lifecycle.supervise("writer", async move {
        let _dropped = ended.await;
        if !stop.is_cancelled() {
            tracing::error!("writer thread {number} ended");
        }
    });
    Ok(())
}
