//! Between the fleet and one worker: what the worker is told, and what it last said.
//!
//! All of it stands behind one lock with one waker, since there may be thousands of workers, most of
//! which wait. What was told stands until the worker takes it, so none of it is lost by a worker
//! that stops waiting for one thing in order to wait for another.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rovi_common::registration::Registration;
use tokio::sync::Notify;

use crate::{fleet::Delivery, status::Report, worker::End};

/// What a worker is told, and what it last said.
#[derive(Debug)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    wake: Notify,
    /// Frames that may wait.
    most_frames: usize,
}

#[derive(Debug)]
struct Inner {
    /// The registration in force, or nothing when it is removed.
    registration: Option<Arc<Registration>>,
    is_replaced: bool,
    /// The fleet has the worker no more: after what was said last it stops as it does when the
    /// service stops.
    is_dismissed: bool,
    frames: VecDeque<Arc<Delivery>>,
    unheard: Unheard,
    report: Arc<Report>,
}

/// What stands until a worker that takes rows hears it.
#[derive(Debug, Default)]
struct Unheard {
    has_fallen_behind: bool,
    is_corrected: bool,
}

/// What a worker that takes rows finds in its mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has to stop what it does.
    End(End),
    /// Frames have come.
    Delivered,
    /// It gets no frames until it is live again.
    FellBehind,
    /// Stored rows of the battery were corrected or deleted.
    Corrected,
}

impl Mailbox {
    /// Returns an empty mailbox for so many frames.
    pub fn new(registration: Arc<Registration>, most_frames: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                registration: Some(registration),
                is_replaced: false,
                is_dismissed: false,
                frames: VecDeque::new(),
                unheard: Unheard::default(),
                report: Arc::default(),
            }),
            wake: Notify::new(),
            most_frames,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner());
        self.wake.notify_one();
    }

    /// Puts a registration into force, or none.
    pub fn replace(&self, registration: Option<Arc<Registration>>) {
        self.tell(|inner| {
            inner.registration = registration;
            inner.is_replaced = true;
        });
    }

    /// Has the worker stop; the registration stands.
    pub fn dismiss(&self) {
        self.tell(|inner| inner.is_dismissed = true);
    }

    /// Hands a frame over; answers `false` where there is no room for it.
    pub fn deliver(&self, delivery: &Arc<Delivery>) -> bool {
        let mut inner = self.inner();
        if inner.frames.len() >= self.most_frames || inner.is_dismissed {
            return false;
        }
        inner.frames.push_back(Arc::clone(delivery));
        drop(inner);
        self.wake.notify_one();
        true
    }

    /// Tells that rows went past the worker.
    pub fn fall_behind(&self) {
        self.tell(|inner| inner.unheard.has_fallen_behind = true);
    }

    /// Tells that stored rows were corrected.
    pub fn correct(&self) {
        self.tell(|inner| inner.unheard.is_corrected = true);
    }

    /// Returns what the worker last said.
    pub fn report(&self) -> Arc<Report> {
        Arc::clone(&self.inner().report)
    }

    /// Changes what the worker says.
    pub(crate) fn say(&self, change: impl FnOnce(&mut Report)) {
        change(Arc::make_mut(&mut self.inner().report));
    }

    /// Returns the registration in force.
    pub(crate) fn registration(&self) -> Option<Arc<Registration>> {
        self.inner().registration.clone()
    }

    /// Returns the registration in force, from which the worker goes on.
    pub(crate) fn take_registration(&self) -> Option<Arc<Registration>> {
        let mut inner = self.inner();
        inner.is_replaced = false;
        inner.registration.clone()
    }

    /// Returns when the worker has to stop what it does.
    pub(crate) async fn interrupted(&self) -> End {
        loop {
            if let Some(end) = self.inner().end() {
                return end;
            }
            self.wake.notified().await;
        }
    }

    /// Returns what was told next; frames go into `deliveries`, at most `most` at once.
    pub(crate) async fn told(&self, deliveries: &mut Vec<Arc<Delivery>>, most: usize) -> Told {
        loop {
            if let Some(told) = self.inner().take(deliveries, most) {
                return told;
            }
            self.wake.notified().await;
        }
    }

    /// Takes frames that are there, at most `most`.
    pub(crate) fn take_frames(&self, most: usize) -> Vec<Arc<Delivery>> {
        let mut deliveries = Vec::new();
        self.inner().take_frames(&mut deliveries, most);
        deliveries
    }
}

impl Inner {
    fn end(&self) -> Option<End> {
        if self.is_replaced {
            return Some(End::Replaced);
        }
        self.is_dismissed.then_some(End::Stopped)
    }

    fn take(&mut self, deliveries: &mut Vec<Arc<Delivery>>, most: usize) -> Option<Told> {
        if let Some(end) = self.end() {
            return Some(Told::End(end));
        }
        if !self.frames.is_empty() {
            self.take_frames(deliveries, most);
            return Some(Told::Delivered);
        }
        if mem::take(&mut self.unheard.has_fallen_behind) {
            return Some(Told::FellBehind);
        }
        mem::take(&mut self.unheard.is_corrected).then_some(Told::Corrected)
    }

    fn take_frames(&mut self, deliveries: &mut Vec<Arc<Delivery>>, most: usize) {
        let count = most.min(self.frames.len());
        deliveries.extend(self.frames.drain(..count));
        if self.frames.is_empty() {
            // One that waits keeps no room for a burst of the past.
            self.frames = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use rovi_common::registration::Standing;

    use super::*;

    fn mailbox() -> Mailbox {
        let registration = Registration {
            battery: "b7".parse().unwrap(),
            estimator: "default".parse().unwrap(),
            revision: 1,
            definition: "{}".into(),
            valid_from: 0.0,
            required_time: 0.0,
            files: Vec::new(),
            deleted: false,
            changed: 0,
            standing: Standing::default(),
        };
        Mailbox::new(Arc::new(registration), 4)
    }

    fn told(mailbox: &Mailbox) -> Option<Told> {
        mailbox.told(&mut Vec::new(), 16).now_or_never()
    }

    #[test]
    fn what_is_told_while_the_worker_waits_for_an_end_is_heard_afterwards() {
        let mailbox = mailbox();
        mailbox.correct();
        mailbox.fall_behind();
        // The waker's word goes to whoever waits, what was told stays.
        assert_eq!(mailbox.interrupted().now_or_never(), None);
        assert_eq!(told(&mailbox), Some(Told::FellBehind));
        assert_eq!(mailbox.interrupted().now_or_never(), None);
        assert_eq!(told(&mailbox), Some(Told::Corrected));
        assert_eq!(told(&mailbox), None);
    }

    #[test]
    fn a_correction_told_while_another_is_heeded_is_heard_again() {
        let mailbox = mailbox();
        mailbox.correct();
        assert_eq!(told(&mailbox), Some(Told::Corrected));
        mailbox.correct();
        mailbox.correct();
        assert_eq!(told(&mailbox), Some(Told::Corrected));
        assert_eq!(told(&mailbox), None);
    }

    #[test]
    fn a_removal_is_heard_before_the_worker_is_dismissed() {
        let mailbox = mailbox();
        mailbox.replace(None);
        mailbox.dismiss();
        assert_eq!(told(&mailbox), Some(Told::End(End::Replaced)));
        assert!(mailbox.take_registration().is_none());
        assert_eq!(told(&mailbox), Some(Told::End(End::Stopped)));
    }

    #[test]
    fn a_new_registration_interrupts_until_it_is_taken() {
        let mailbox = mailbox();
        let next = Registration {
            revision: 2,
            ..(*mailbox.take_registration().unwrap()).clone()
        };
        assert_eq!(mailbox.interrupted().now_or_never(), None);
        mailbox.replace(Some(Arc::new(next)));
        for _ in 0..2 {
            assert_eq!(mailbox.interrupted().now_or_never(), Some(End::Replaced));
        }
        assert_eq!(mailbox.take_registration().unwrap().revision, 2);
        assert_eq!(mailbox.interrupted().now_or_never(), None);
    }
}
