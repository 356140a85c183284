//! The half of an upload socket that speaks: acknowledgements and what else a client should know.
//! A silent client hears nothing but pings and the close.
//!
//! It is the response's body, so that the task that holds the connection asks it for what there is
//! to say, whenever it is woken for it. The half that listens is a task of its own
//! (`upload/socket.rs`), which an acknowledgement does not wake; both share a [`Wire`]. What is said
//! is always the newest: a client that does not read has nothing waiting for it.

use std::{
    cell::{Cell, RefCell},
    future::pending,
    io, mem,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_http::ws::{self, Codec};
use actix_web::body::{BodyStream, BoxBody, MessageBody};
use actix_ws::CloseReason;
use bytes::{Bytes, BytesMut};
use futures_util::{
    FutureExt, StreamExt,
    future::LocalBoxFuture,
    stream::{self, FuturesUnordered},
};
use rovi_common::fault;
use tokio::{
    sync::{Notify, watch},
    time::sleep_until,
};
use tokio_util::codec::Encoder;

use super::{
    intake::Intake,
    protocol::{self, End, Message},
    room::Notice,
};
use crate::{
    batch::{Progress, Uploader},
    relayed::Place,
};

/// How often a client hears of rows that got onto the bus, where it hears of nothing else: frames
/// on the bus are many and small. One that hears of stored rows now and then hears of it with the
/// next of them, which saves thousands of clients every second message, or after
/// [`RELAYED_WITHIN`].
const RELAYED_EVERY: Duration = Duration::from_millis(20);
const RELAYED_WITHIN: Duration = Duration::from_secs(4);
/// How long a battery may be set aside before its clients hear of it: most locks are short.
const WAITING_AFTER: Duration = Duration::from_secs(1);

/// Rejected rows that are told in one go: there may be as many as the window is wide.
const REJECTS_AT_ONCE: usize = 1000;

/// What the two halves of a socket tell each other. They live on one thread.
#[derive(Debug)]
pub(super) struct Wire {
    /// All rows below this position have come.
    received: Cell<i64>,
    /// Rows of which the client heard that they are stored.
    told: Cell<i64>,
    /// When the client last heard of rows.
    told_at: Cell<Instant>,
    /// What the half that listens wants to have said.
    wanted: RefCell<Wanted>,
    /// Wakes the half that speaks.
    voice: Notify,
    /// Why no more rows are stored, once the client heard of all that are.
    ended: RefCell<Option<End>>,
    /// Nothing more is said: the close frame is, or the connection is gone.
    is_silent: Cell<bool>,
    /// Wakes the half that listens, at the end.
    ear: Notify,
    /// Wakes it where it waits for the client to hear of rows: else acknowledgements leave it asleep.
    hearing: Notify,
}

/// What is to be said besides what becomes of rows.
#[derive(Debug, Default)]
struct Wanted {
    /// What rows were rejected or known already is said, even if nothing becomes of other rows.
    report: bool,
    ping: bool,
    /// Only the newest ping is answered, as RFC 6455 allows (5.5.3).
    pong: Option<Bytes>,
    close: Option<CloseReason>,
    /// Nobody listens any more.
    hang_up: bool,
}

impl Wire {
    pub(super) fn new(intake: &Intake) -> Rc<Self> {
        Rc::new(Self {
            received: Cell::new(intake.received()),
            told: Cell::new(intake.uploader.claim.position),
            told_at: Cell::new(Instant::now()),
            wanted: RefCell::default(),
            voice: Notify::new(),
            ended: RefCell::new(None),
            is_silent: Cell::new(false),
            ear: Notify::new(),
            hearing: Notify::new(),
        })
    }

    /// Notes how many rows have come, which is told with the next news of them.
    pub(super) fn received(&self, position: i64) {
        self.received.set(position);
    }

    /// Returns for how long the client has heard of no rows.
    pub(super) fn silence(&self) -> Duration {
        self.told_at.get().elapsed()
    }

    /// Returns up to which position the client heard that rows are stored.
    pub(super) fn told(&self) -> i64 {
        self.told.get()
    }

    /// Has the client told how far its rows are, though nothing new becomes of them.
    pub(super) fn report(&self) {
        self.want(|wanted| wanted.report = true);
    }

    pub(super) fn ping(&self) {
        self.want(|wanted| wanted.ping = true);
    }

    pub(super) fn pong(&self, ping: Bytes) {
        self.want(|wanted| wanted.pong = Some(ping));
    }

    /// Says why the connection ends, after all else.
    pub(super) fn close(&self, reason: CloseReason) {
        self.want(|wanted| wanted.close = Some(reason));
    }

    /// Ends the connection without a word.
    pub(super) fn hang_up(&self) {
        self.want(|wanted| wanted.hang_up = true);
    }

    fn want(&self, note: impl FnOnce(&mut Wanted)) {
        note(&mut self.wanted.borrow_mut());
        self.voice.notify_one();
    }

    /// Waits until no more rows are stored, and the client knows how far they are.
    pub(super) async fn ended(&self) -> End {
        loop {
            if let Some(end) = self.ended.borrow().clone() {
                return end;
            }
            self.ear.notified().await;
        }
    }

    /// Waits until the client heard of more rows than those below `position`.
    ///
    /// # Errors
    /// It hears nothing any more.
    pub(super) async fn told_more(&self, position: i64) -> Result<(), End> {
        loop {
            if self.is_silent.get() {
                return Err(End::Lost);
            }
            if self.told.get() > position {
                return Ok(());
            }
            self.hearing.notified().await;
        }
    }

    /// Waits until nothing more is said.
    pub(super) async fn silent(&self) {
        while !self.is_silent.get() {
            self.ear.notified().await;
        }
    }
}

/// The half that speaks.
struct Voice {
    wire: Rc<Wire>,
    speaks: bool,
    codec: Codec,
    greeting: Option<protocol::Limits>,
    progress: watch::Receiver<Progress>,
    uploader: Arc<Uploader>,
    /// Changes more rarely than rows are stored, and is looked at only when it did.
    seldom: FuturesUnordered<LocalBoxFuture<'static, Seldom>>,
    notice: watch::Receiver<Option<Notice>>,
    /// How far the battery is on the bus, while nobody waits for a change of that.
    relayed: Option<watch::Receiver<Place>>,
    /// `received`, `stored` and `relayed` as last told.
    acknowledged: (i64, i64, i64),
    /// When the client last heard of stored rows, and how long after the time before that was.
    stored_at: Option<Instant>,
    stored_every: Duration,
    /// When the client is to hear of rows that got onto the bus.
    relayed_at: Option<Instant>,
    /// When the client is to hear that its battery is set aside.
    waiting_at: Option<Instant>,
    /// What `actix_ws` would have sent: it takes a connection for closed when this is dropped.
    _body: BoxBody,
}

/// Makes the body that says all there is to say; `body` is the one of the handshake.
pub(super) fn body(
    wire: Rc<Wire>,
    intake: &Intake,
    greeting: Option<protocol::Limits>,
    body: BoxBody,
) -> BoxBody {
    let mut notice = intake.notice();
    let waiting_at = waiting_at(notice.borrow_and_update().as_ref());
    let seldom = FuturesUnordered::new();
    seldom.push(noticed(notice.clone()).boxed_local());
    let voice = Voice {
        wire,
        speaks: greeting.is_some(),
        codec: Codec::new(),
        greeting,
        progress: intake.progress(),
        uploader: Arc::clone(&intake.uploader),
        seldom,
        notice,
        relayed: intake.uploader.watch_relayed(),
        waiting_at,
        acknowledged: (-1, -1, -1),
        stored_at: None,
        stored_every: Duration::ZERO,
        relayed_at: None,
        _body: body,
    };
    let said = stream::try_unfold(voice, async |mut voice| {
        let bytes = voice.next().await?;
        io::Result::Ok(bytes.map(|bytes| (bytes, voice)))
    });
    BodyStream::new(Box::pin(said)).boxed()
}

/// What changed, with the view of it.
enum Seldom {
    Relayed(watch::Receiver<Place>),
    Notice(watch::Receiver<Option<Notice>>),
}

/// What the server may have to say of itself.
enum News {
    /// Rows are stored, or nothing more will be.
    Stored,
    /// Rows are on the bus.
    Relayed,
    /// The battery was set aside, or is no more.
    Notice,
    /// It is set aside for so long that the client should know.
    Waiting,
    /// The half that listens wants something said.
    Wanted,
}

impl Voice {
    /// Waits for something to say; none at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut out = BytesMut::new();
        if let Some(limits) = self.greeting.take() {
            self.greet(limits, &mut out)?;
        }
        while out.is_empty() {
            if self.wire.is_silent.get() {
                return Ok(None);
            }
            match self.news().await {
                News::Stored | News::Relayed => {
                    self.report(&mut out)?;
                }
                News::Notice => {
                    self.waiting_at = waiting_at(self.notice.borrow().as_ref());
                }
                News::Waiting => self.tell_waiting(&mut out)?,
                News::Wanted => self.say_wanted(&mut out)?,
            }
        }
        Ok(Some(out.freeze()))
    }

    fn greet(&mut self, limits: protocol::Limits, out: &mut BytesMut) -> io::Result<()> {
        let uploader = Arc::clone(&self.uploader);
        let hello = Message::Hello {
            battery: uploader.battery.as_str(),
            epoch: uploader.claim.newest.epoch,
            session: uploader.claim.session,
            position: uploader.claim.position,
            relayed: uploader.relayed(),
            limits,
        };
        self.say(&hello, out)
    }

    /// Says something, if the client listens.
    fn say(&mut self, message: &Message<'_>, out: &mut BytesMut) -> io::Result<()> {
        if !self.speaks {
            return Ok(());
        }
        let text = serde_json::to_string(message)?;
        self.send(ws::Message::Text(text.into()), out)
    }

    fn send(&mut self, message: ws::Message, out: &mut BytesMut) -> io::Result<()> {
        self.codec.encode(message, out).map_err(io::Error::other)
    }

    /// Waits until there is something to tell; nothing is missed where this is given up.
    async fn news(&mut self) -> News {
        loop {
            if self.relayed_at.is_none()
                && let Some(view) = self.relayed.take()
            {
                self.seldom.push(got_on(view).boxed_local());
            }
            tokio::select! {
                biased;
                () = self.wire.voice.notified() => return News::Wanted,
                _ = self.progress.changed() => return News::Stored,
                Some(seldom) = self.seldom.next() => match seldom {
                    Seldom::Notice(view) => {
                        self.seldom.push(noticed(view).boxed_local());
                        return News::Notice;
                    }
                    Seldom::Relayed(view) => {
                        self.relayed = Some(view);
                        let patience = self.stored_every * 3 / 2;
                        let patience = patience.clamp(RELAYED_EVERY, RELAYED_WITHIN);
                        self.relayed_at = Some(self.wire.told_at.get() + patience);
                    }
                },
                () = at(self.relayed_at) => return News::Relayed,
                () = at(self.waiting_at) => return News::Waiting,
            }
        }
    }

    /// Tells that the battery is set aside, if it still is.
    fn tell_waiting(&mut self, out: &mut BytesMut) -> io::Result<()> {
        self.waiting_at = None;
        let notice = self.notice.borrow().clone();
        match notice {
            Some(Notice { reason, .. }) => self.say(&Message::Waiting { reason: &reason }, out),
            None => Ok(()),
        }
    }

    fn say_wanted(&mut self, out: &mut BytesMut) -> io::Result<()> {
        let wanted = mem::take(&mut *self.wire.wanted.borrow_mut());
        if wanted.hang_up {
            self.wire.fall_silent();
            return Ok(());
        }
        if let Some(ping) = wanted.pong {
            self.send(ws::Message::Pong(ping), out)?;
        }
        if wanted.ping {
            self.send(ws::Message::Ping(Bytes::new()), out)?;
        }
        let has_said_all = !(wanted.report || wanted.close.is_some()) || self.report(out)?;
        if !has_said_all {
            self.wire.wanted.borrow_mut().close = wanted.close;
        } else if let Some(reason) = wanted.close {
            self.send(ws::Message::Close(Some(cut(reason))), out)?;
            self.wire.fall_silent();
        }
        Ok(())
    }

    /// Tells of some rejected rows; tells whether these are all.
    fn reject(&mut self, out: &mut BytesMut) -> io::Result<bool> {
        let (rejects, are_all) = self.uploader.take_rejects(REJECTS_AT_ONCE);
        for (position, reason) in rejects {
            let reason = reason.as_str();
            self.say(&Message::Reject { position, reason }, out)?;
        }
        Ok(are_all)
    }

    /// Tells of rejected rows, and acknowledges, if there is something new; tells whether that is
    /// all for now. If not, it is wanted to go on.
    fn report(&mut self, out: &mut BytesMut) -> io::Result<bool> {
        let (stored, ending, has_rejects) = {
            let progress = self.progress.borrow_and_update();
            let has_rejects = progress.has_rejects();
            (progress.stored, progress.ending.clone(), has_rejects)
        };
        if has_rejects && !self.reject(out)? {
            self.wire.report();
            return Ok(false);
        }
        self.relayed_at = None;
        let (received, relayed) = (self.wire.received.get(), self.uploader.relayed());
        if self.acknowledged != (received, stored, relayed) {
            let now = Instant::now();
            if stored > self.acknowledged.1 {
                let before = self.stored_at.replace(now);
                self.stored_every = before.map_or(Duration::ZERO, |before| now - before);
            }
            self.acknowledged = (received, stored, relayed);
            let ack = Message::Ack {
                received,
                stored,
                relayed,
            };
            fault::passed("hub.before_acknowledgement");
            self.say(&ack, out)?;
            fault::passed("hub.after_acknowledgement");
            self.wire.told.set(stored);
            self.wire.told_at.set(now);
            self.wire.hearing.notify_waiters();
        }
        if let Some(ending) = ending {
            self.wire.ended.borrow_mut().get_or_insert(ending.into());
            self.wire.ear.notify_waiters();
        }
        Ok(true)
    }
}

impl Wire {
    fn fall_silent(&self) {
        self.is_silent.set(true);
        self.ear.notify_waiters();
        self.hearing.notify_waiters();
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.wire.fall_silent();
    }
}

/// Cuts a reason to what fits into a close frame.
fn cut(reason: CloseReason) -> CloseReason {
    const MOST_BYTES: usize = 123;
    let description = reason.description.map(|mut description| {
        description.truncate(description.floor_char_boundary(MOST_BYTES));
        description
    });
    CloseReason {
        description,
        ..reason
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

/// Waits until the battery is set aside, or not any more. Senders of both views are the uploader's.
async fn noticed(mut view: watch::Receiver<Option<Notice>>) -> Seldom {
    match view.changed().await {
        Ok(()) => Seldom::Notice(view),
        Err(_) => pending().await,
    }
}

/// Waits until more of the battery's rows are on the bus.
async fn got_on(mut view: watch::Receiver<Place>) -> Seldom {
    match view.changed().await {
        Ok(()) => Seldom::Relayed(view),
        Err(_) => pending().await,
    }
}
