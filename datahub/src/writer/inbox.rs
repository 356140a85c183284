//! What reaches a writer: it waits for something to do, takes in what came, and makes groups of it.

use std::{
    future::ready,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{Order, aside::Ended, thread::Writer};
use crate::batch::Batch;

/// Why a writer goes on.
pub(super) enum Wake {
    /// Rows came, or a parked battery's time has come.
    Look,
    /// A battery was tried aside.
    Tried(Ended),
    /// The writers are closed, and everything that came is written.
    End,
}

impl Writer {
    /// Waits for something to do.
    pub(super) fn wait(&mut self) -> Wake {
        let next_try = self.parking.next_retry().filter(|_| self.asides.has_room());
        let patience = next_try.map(|at| at.saturating_duration_since(Instant::now()));
        let patience = patience.unwrap_or(Duration::from_hours(1));
        let has_work = !self.waiting.is_empty();
        let closing = self.wiring.closing.clone();
        let (inbox, is_closing) = (&mut self.inbox, &mut self.is_closing);
        let asides = &mut self.asides;
        let woken = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = closing.cancelled(), if !*is_closing => {
                    *is_closing = true;
                    inbox.close();
                    Err(Wake::Look)
                }
                ended = asides.ended(), if !*is_closing => Err(Wake::Tried(ended)),
                () = ready(()), if has_work => Err(Wake::Look),
                received = inbox.recv() => Ok(received),
                () = sleep(patience), if !*is_closing => Err(Wake::Look),
            }
        });
        match woken {
            Ok(Some(order)) => {
                self.take(order);
                Wake::Look
            }
            Ok(None) => Wake::End,
            Err(wake) => wake,
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Write(batch) => self.waiting.push(*batch),
            Order::Hurry(battery) => self.waiting.hurry(battery),
        }
    }

    /// Takes in what arrived meanwhile, up to the bound of what may wait; returns how much that was.
    pub(super) fn take_in(&mut self) -> usize {
        let mut came = 0;
        while !self.is_full()
            && let Ok(order) = self.inbox.try_recv()
        {
            self.take(order);
            came += 1;
        }
        came
    }

    /// Tells whether no more batches may wait.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= self.wiring.queue_frames
    }

    /// Makes a group of what is there, up to its bounds.
    pub(super) fn collect(&mut self) -> Vec<Batch> {
        self.take_in();
        let mut group = Vec::new();
        for batch in self.waiting.take(self.wiring.group) {
            let Some(batch) = self.parking.append(batch) else {
                continue;
            };
            if batch.uploader.has_ended() {
                self.refuse(vec![batch]);
            } else {
                group.push(batch);
            }
        }
        group
    }
}
