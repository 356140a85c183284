//! Start and stop of a service: one token that everything watches, one tracker of all tasks.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of a service and the order to stop.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    stop: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<AtomicBool>,
}

impl Lifecycle {
    /// Returns a lifecycle without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the token that is cancelled when the service shall stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks every task to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Returns the tracker, for tasks that need not live as long as the service.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Starts a task whose end, by return or panic, stops the service unless a stop was asked for.
    pub fn supervise(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let guard = Guard {
            lifecycle: self.clone(),
            name,
        };
        self.tasks.spawn(async move {
            let _stops_the_rest = guard;
            task.await;
        });
    }

    /// Returns when SIGTERM or SIGINT arrives or the service stops of itself.
    pub async fn stop_requested(&self) {
        let (Ok(mut terminate), Ok(mut interrupt)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            return self.stop.cancelled().await;
        };
        let reason = tokio::select! {
            () = self.stop.cancelled() => "asked to",
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!("stopping: {reason}");
        self.stop.cancel();
    }

    /// Waits for every task to end; tells whether all did, in time and without failure.
    pub async fn drained(&self, within: Duration) -> bool {
        self.tasks.close();
        let in_time = tokio::time::timeout(within, self.tasks.wait())
            .await
            .is_ok();
        if !in_time {
            tracing::error!("{} tasks did not stop within {within:?}", self.tasks.len());
        }
        in_time && !self.failed.load(Ordering::Relaxed)
    }
}

struct Guard {
    lifecycle: Lifecycle,
    name: &'static str,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.lifecycle.stop.is_cancelled() {
            tracing::error!(
                task.name = self.name,
                "task {} ended on its own: stopping",
                self.name
            );
            self.lifecycle.failed.store(true, Ordering::Relaxed);
            self.lifecycle.stop.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_stops_the_service_and_is_told() {
        let lifecycle = Lifecycle::new();
        lifecycle.supervise("bad", async { panic!("on purpose") });
        lifecycle.stop_requested().await;
        assert!(!lifecycle.drained(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn tasks_that_stop_when_asked_are_a_clean_end() {
        let lifecycle = Lifecycle::new();
        let stop = lifecycle.stop_token();
        lifecycle.supervise("good", async move { stop.cancelled().await });
        lifecycle.stop();
        assert!(lifecycle.drained(Duration::from_secs(5)).await);
    }
}
