//! The server's side of the conversation on an upload socket: acknowledgements and what else a
//! client should know. A silent client hears nothing of it.

use std::{
    future::{Future, pending},
    sync::Arc,
    time::{Duration, Instant},
};

use actix_ws::Session;
use rovi_common::fault;
use tokio::{
    sync::watch,
    time::{sleep_until, timeout},
};

use super::{
    intake::Intake,
    protocol::{End, Message},
    room::Notice,
};
use crate::{
    batch::{Progress, Uploader},
    relayed::Place,
};

/// How long a client may leave our messages unread before it counts as gone.
pub(super) const SEND_PATIENCE: Duration = Duration::from_secs(10);
/// How often a client hears of rows that got onto the bus, where it hears of nothing else: frames
/// on the bus are many and small. One that hears of stored rows now and then hears of it with the
/// next of them, which saves thousands of clients every second message, or after
/// [`RELAYED_WITHIN`].
const RELAYED_EVERY: Duration = Duration::from_millis(20);
const RELAYED_WITHIN: Duration = Duration::from_secs(4);
/// How long a battery may be set aside before its clients hear of it: most locks are short.
const WAITING_AFTER: Duration = Duration::from_secs(1);

/// The server's side of the conversation.
pub(super) struct Voice {
    pub(super) session: Session,
    speaks: bool,
    pub(super) progress: watch::Receiver<Progress>,
    uploader: Arc<Uploader>,
    relayed: Option<watch::Receiver<Place>>,
    notice: watch::Receiver<Option<Notice>>,
    /// `received`, `stored` and `relayed` as last told.
    acknowledged: (i64, i64, i64),
    acknowledged_at: Instant,
    /// When the client last heard of stored rows, and how long after the time before that was.
    stored_at: Option<Instant>,
    stored_every: Duration,
    /// When the client is to hear of rows that got onto the bus.
    relayed_at: Option<Instant>,
    /// When the client is to hear that its battery is set aside.
    waiting_at: Option<Instant>,
}

/// What the server may have to say of itself.
pub(super) enum News {
    /// Rows are stored, or nothing more will be.
    Stored,
    /// Rows are on the bus.
    Relayed,
    /// The battery was set aside, or is no more.
    Notice,
    /// It is set aside for so long that the client should know.
    Waiting,
}

impl Voice {
    pub(super) fn new(session: Session, intake: &Intake, speaks: bool) -> Self {
        let notice = intake.notice();
        let waiting_at = waiting_at(notice.borrow().as_ref());
        Self {
            session,
            speaks,
            progress: intake.progress(),
            uploader: Arc::clone(&intake.uploader),
            relayed: intake.uploader.watch_relayed(),
            waiting_at,
            notice,
            acknowledged: (-1, -1, -1),
            acknowledged_at: Instant::now(),
            stored_at: None,
            stored_every: Duration::ZERO,
            relayed_at: None,
        }
    }

    /// Returns for how long the client has heard of no rows; one that does not listen never does.
    pub(super) fn silence(&self) -> Duration {
        if self.speaks {
            self.acknowledged_at.elapsed()
        } else {
            Duration::MAX
        }
    }

    /// Says something, if the client listens.
    pub(super) async fn say(&mut self, message: &Message<'_>) -> Result<(), End> {
        if !self.speaks {
            return Ok(());
        }
        let text = serde_json::to_string(message)
            .map_err(|error| End::Defect(format!("a message cannot be written: {error}")))?;
        in_time(self.session.text(text)).await
    }

    /// Waits until there is something to tell; nothing is missed where this is given up.
    pub(super) async fn news(&mut self) -> News {
        loop {
            tokio::select! {
                biased;
                _ = self.progress.changed() => return News::Stored,
                _ = self.notice.changed() => return News::Notice,
                () = changed(&mut self.relayed), if self.relayed_at.is_none() => {
                    let patience = self.stored_every * 3 / 2;
                    let patience = patience.clamp(RELAYED_EVERY, RELAYED_WITHIN);
                    self.relayed_at = Some(self.acknowledged_at + patience);
                }
                () = at(self.relayed_at) => return News::Relayed,
                () = at(self.waiting_at) => return News::Waiting,
            }
        }
    }

    /// Tells what there is to tell; the socket tells of rejected rows.
    pub(super) async fn tell(&mut self, news: &News, received: i64) -> Result<(), End> {
        match news {
            News::Stored | News::Relayed => self.report(received).await,
            News::Notice => {
                self.waiting_at = waiting_at(self.notice.borrow_and_update().as_ref());
                Ok(())
            }
            News::Waiting => {
                self.waiting_at = None;
                let notice = self.notice.borrow().clone();
                match notice {
                    Some(Notice { reason, .. }) => {
                        self.say(&Message::Waiting { reason: &reason }).await
                    }
                    None => Ok(()),
                }
            }
        }
    }

    /// Acknowledges, if there is something new; ends where nothing more will be stored.
    pub(super) async fn report(&mut self, received: i64) -> Result<(), End> {
        let (stored, ending) = {
            let progress = self.progress.borrow_and_update();
            (progress.stored, progress.ending.clone())
        };
        self.relayed_at = None;
        let relayed = self.uploader.relayed();
        if self.acknowledged != (received, stored, relayed) {
            let now = Instant::now();
            if stored > self.acknowledged.1 {
                let before = self.stored_at.replace(now);
                self.stored_every = before.map_or(Duration::ZERO, |before| now - before);
            }
            self.acknowledged = (received, stored, relayed);
            self.acknowledged_at = now;
            let ack = Message::Ack {
                received,
                stored,
                relayed,
            };
            fault::passed("hub.before_acknowledgement");
            self.say(&ack).await?;
            fault::passed("hub.after_acknowledgement");
        }
        ending.map_or(Ok(()), |ending| Err(ending.into()))
    }
}

/// Says when the client is to hear that its battery is set aside.
fn waiting_at(notice: Option<&Notice>) -> Option<Instant> {
    notice.map(|notice| notice.since + WAITING_AFTER)
}

/// Waits for a moment, if there is one.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => pending().await,
    }
}

/// Waits for a change, if there is something to look at; its sender lives as long as the uploader.
async fn changed(view: &mut Option<watch::Receiver<Place>>) {
    match view {
        Some(view) => _ = view.changed().await,
        None => pending().await,
    }
}

/// Sends, or finds that the client is gone.
pub(super) async fn in_time(
    sending: impl Future<Output = Result<(), actix_ws::Closed>>,
) -> Result<(), End> {
    match timeout(SEND_PATIENCE, sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Lost),
    }
}
