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
mod link;
mod parked;
mod thread;

use std::{fmt, sync::Arc, time::Duration};

use rovi_common::{config::ServiceUrl, lifecycle::Lifecycle};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    batch::Batch, config::Settings, metrics::HubMetrics, store::group::Rules, stored::StoredSender,
};

/// What a writer needs.
#[derive(Debug, Clone)]
struct Wiring {
    url: ServiceUrl,
    rules: Rules,
    lock_timeout: Duration,
    group_rows: usize,
    group_bytes: usize,
    group_tables: usize,
    stored: Option<StoredSender>,
    metrics: HubMetrics,
    closing: CancellationToken,
    give_up: CancellationToken,
}

/// The writer threads.
#[derive(Clone)]
pub struct Writers {
    senders: Arc<[mpsc::Sender<Batch>]>,
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
    /// Committed rows go to `stored` where it has room.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        settings: &Settings,
        lifecycle: &Lifecycle,
        stored: Option<StoredSender>,
        metrics: &HubMetrics,
    ) -> std::io::Result<Self> {
        let wiring = Wiring {
            url: settings.database_url.clone(),
            rules: Rules {
                horizon_s: settings.segment_horizon_s,
                columns: settings.columns,
                alone_lock_ms: (settings.lock_timeout / 4).as_millis().max(1),
            },
            lock_timeout: settings.lock_timeout,
            group_rows: settings.group_rows,
            group_bytes: settings.group_bytes,
            group_tables: settings.group_tables,
            stored,
            metrics: metrics.clone(),
            closing: CancellationToken::new(),
            give_up: CancellationToken::new(),
        };
        let mut senders = Vec::with_capacity(settings.writers);
        for number in 0..settings.writers {
            let (sender, inbox) = mpsc::channel(settings.queue_frames);
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
    /// The writers were closed; the batch comes back.
    pub async fn send(&self, batch: Batch) -> Result<(), Box<Batch>> {
        let thread = usize::try_from(batch.battery_id().unsigned_abs()).unwrap_or_default();
        match self.senders.get(thread % self.senders.len().max(1)) {
            Some(sender) => sender.send(batch).await.map_err(|error| Box::new(error.0)),
            None => Err(Box::new(batch)),
        }
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
    inbox: mpsc::Receiver<Batch>,
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
