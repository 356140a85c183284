//! Hop 1 of 7: socket → frames.
//!
//! Input: a WebSocket with rows of one battery. Output: decoded rows to the writers; what becomes
//! of them is told by the half of the socket that speaks (`upload/voice.rs`). On failure: a close
//! code that says why, after the rows that came before were stored.

use std::{
    mem,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_ws::{AggregatedMessage, AggregatedMessageStream, ProtocolError};
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use prometheus::IntCounter;
use rovi_common::{
    auth::{Access, Flow, Role},
    rows::{Columns, SharedNames},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    alike,
    decode::{DecodeError, Encoding, Limits, decode},
    decoded::Decoded,
    intake::Intake,
    protocol::End,
    voice::Wire,
};
use crate::{batch::Progress, config::Settings, hub::Hub};

/// Frames above this many bytes are decoded off the thread that serves sockets.
const INLINE_BYTES: usize = 64 << 10;
/// Rows of small frames that are handed over together: more would make acknowledgements wait for
/// the decoding.
const GATHERED_ROWS: usize = 256;
/// How long a client may leave our messages unread before it counts as gone.
const SEND_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take to answer our close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What comes from a client; none at its end.
type Frame = Option<Result<AggregatedMessage, ProtocolError>>;

/// What ends a socket from without. It is looked at only when it happens: thousands of sockets that
/// ask at every frame whether the hub stops are in each other's way.
type Ends = FuturesUnordered<LocalBoxFuture<'static, End>>;

/// The half of an upload socket that listens.
pub(super) struct Socket {
    frames: AggregatedMessageStream,
    intake: Intake,
    wire: Rc<Wire>,
    /// Whether the client is told what becomes of its rows.
    speaks: bool,
    progress: watch::Receiver<Progress>,
    settings: SocketSettings,
    stop: CancellationToken,
    ends: Ends,
    heard: Instant,
    /// The form of the last row that came by itself.
    form: Columns,
    names: Arc<SharedNames>,
    /// What the client had heard of its rows when it seemed to read nothing, and when that was.
    unread: Option<(i64, Instant)>,
    frames_refused: IntCounter,
    access: Access,
}

/// Ends what is said when nobody listens any more, whyever that is.
struct HangUp(Rc<Wire>);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

/// The settings of sockets.
#[derive(Debug, Clone)]
struct SocketSettings {
    limits: Limits,
    frame_bytes: usize,
    window_rows: i64,
    ping_interval: Duration,
    idle_timeout: Duration,
    flush_timeout: Duration,
}

impl SocketSettings {
    fn of(settings: &Settings) -> Self {
        Self {
            limits: Limits::of_frames(settings),
            frame_bytes: settings.frame_bytes,
            window_rows: i64::try_from(settings.window_rows).unwrap_or(i64::MAX),
            ping_interval: settings.ping_interval,
            idle_timeout: settings.idle_timeout,
            // The rest of the shutdown belongs to the writers.
            flush_timeout: settings.shutdown_timeout / 4,
        }
    }
}

impl Socket {
    pub(super) fn new(
        hub: &Hub,
        intake: Intake,
        (wire, speaks): (Rc<Wire>, bool),
        frames: actix_ws::MessageStream,
    ) -> Self {
        let settings = SocketSettings::of(&hub.settings);
        Self {
            frames: frames
                .max_frame_size(settings.frame_bytes)
                .aggregate_continuations()
                .max_continuation_size(settings.frame_bytes),
            wire,
            speaks,
            progress: intake.progress(),
            intake,
            settings,
            stop: hub.stop.clone(),
            ends: Ends::new(),
            heard: Instant::now(),
            form: Columns::default(),
            names: Arc::clone(&hub.names),
            unread: None,
            frames_refused: hub.metrics.frames_refused.clone(),
            access: Access::everyone(),
        }
    }

    /// Says who sends, so that the socket ends when they may not any more.
    pub(super) fn of(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// Serves the socket to its end.
    pub(super) async fn serve(mut self) {
        let _silenced = HangUp(Rc::clone(&self.wire));
        self.ends = self.ends();
        let end = self.receive().await;
        let end = self.flush(end).await;
        tracing::info!(
            battery.id = %self.intake.uploader.battery,
            "upload of {} ends at position {}: {end:?}",
            self.intake.uploader.battery,
            self.intake.received()
        );
        if end != End::Lost {
            self.close(&end).await;
        }
        self.intake.close().await;
    }

    fn ends(&self) -> Ends {
        let (access, battery) = (self.access.clone(), self.intake.uploader.battery.clone());
        let (stop, wire) = (self.stop.clone(), Rc::clone(&self.wire));
        let lost = async move { End::Unauthorised(access.lost(Role::Uploader, &battery).await) };
        let stopped = async move {
            stop.cancelled_owned().await;
            End::Stopping
        };
        let ended = async move { wire.ended().await };
        [
            lost.boxed_local(),
            stopped.boxed_local(),
            ended.boxed_local(),
        ]
        .into_iter()
        .collect()
    }

    /// Takes frames until something ends that.
    async fn receive(&mut self) -> End {
        let mut pings = tokio::time::interval(self.settings.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wire = Rc::clone(&self.wire);
        loop {
            // Who does not hear of rows gets no more of them in.
            let told = self.wire.told();
            let window = self.settings.window_rows - (self.intake.received() - told);
            let may_read = window > 0;
            let step = tokio::select! {
                biased;
                Some(end) = self.ends.next() => Err(end),
                frame = self.frames.recv(), if may_read => self.take(frame, window).await,
                told = wire.told_more(told), if !may_read => told,
                _ = pings.tick() => self.ping(may_read),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Takes a frame, and with it those that are already here: clients that send row by row send
    /// many, and each batch has its price.
    async fn take(&mut self, frame: Frame, window: i64) -> Result<(), End> {
        self.heard = Instant::now();
        let most = usize::try_from(window)
            .unwrap_or_default()
            .min(GATHERED_ROWS);
        let mut gathered: Option<Decoded> = None;
        let mut next = Some(frame);
        while let Some(frame) = next.take() {
            let mut rows = gathered.take().unwrap_or_else(|| self.no_rows());
            let is_appended = self.append(&mut rows, &frame);
            gathered = Some(rows).filter(|rows| rows.sent > 0);
            if is_appended {
                if gathered.as_ref().is_some_and(|rows| rows.sent < most) {
                    next = self.frames.recv().now_or_never();
                }
                continue;
            }
            let ahead = gathered.as_ref().map_or(0, |rows| rows.sent);
            let end = match self.rows_of(frame, ahead).await {
                Ok(rows) => {
                    self.note_form(&rows);
                    match &mut gathered {
                        Some(before) if before.goes_with(&rows) => before.append(rows),
                        Some(before) => {
                            self.hand_over(mem::replace(before, rows)).await?;
                            // What ends or limits a connection is looked at before more is read.
                            continue;
                        }
                        None => gathered = Some(rows),
                    }
                    if gathered.as_ref().is_some_and(|rows| rows.sent < most) {
                        next = self.frames.recv().now_or_never();
                    }
                    continue;
                }
                Err(end) => end,
            };
            if let Some(rows) = gathered {
                self.hand_over(rows).await?;
            }
            return end;
        }
        match gathered {
            Some(rows) => self.hand_over(rows).await,
            None => Ok(()),
        }
    }

    /// Returns no rows of the form that the next is expected to have.
    fn no_rows(&self) -> Decoded {
        Decoded {
            columns: self.form.form(),
            ..Decoded::default()
        }
    }

    /// Keeps in mind what rows look like that come one by one.
    fn note_form(&mut self, rows: &Decoded) {
        let comes_alone = rows.sent == 1 && rows.rejected.is_empty();
        self.form = Columns::default();
        if comes_alone {
            self.form = rows.columns.form();
            self.names.share(&mut self.form);
        }
    }

    /// Appends the row of a frame to rows of the same form; tells whether it did.
    fn append(&self, rows: &mut Decoded, frame: &Frame) -> bool {
        let (bytes, encoding) = match frame {
            Some(Ok(AggregatedMessage::Binary(bytes))) => (bytes.as_ref(), Encoding::Msgpack),
            Some(Ok(AggregatedMessage::Text(text))) => (text.as_bytes().as_ref(), Encoding::Json),
            _ => return false,
        };
        bytes.len() <= INLINE_BYTES && alike::append(rows, bytes, encoding, &self.settings.limits)
    }

    /// Decodes the rows of a frame that comes after `ahead` rows; what is no rows is answered, or
    /// tells how the connection ends.
    async fn rows_of(&mut self, frame: Frame, ahead: usize) -> Result<Decoded, Result<(), End>> {
        Err(match frame {
            Some(Ok(AggregatedMessage::Binary(bytes))) => {
                let decoded = self.decode(bytes, Encoding::Msgpack, ahead).await;
                return decoded.map_err(Err);
            }
            Some(Ok(AggregatedMessage::Text(text))) => {
                let decoded = self.decode(text.into_bytes(), Encoding::Json, ahead).await;
                return decoded.map_err(Err);
            }
            Some(Ok(AggregatedMessage::Ping(bytes))) => {
                self.wire.pong(bytes);
                Ok(())
            }
            Some(Ok(AggregatedMessage::Pong(_))) => Ok(()),
            Some(Ok(AggregatedMessage::Close(_))) => Err(End::Done),
            Some(Err(error)) => Err(self.end_of(&error, ahead)),
            None => Err(End::Lost),
        })
    }

    async fn decode(
        &self,
        bytes: bytes::Bytes,
        encoding: Encoding,
        ahead: usize,
    ) -> Result<Decoded, End> {
        let limits = self.settings.limits;
        let decoded = if bytes.len() <= INLINE_BYTES {
            decode(&bytes, encoding, &limits)
        } else {
            let task = tokio::task::spawn_blocking(move || decode(&bytes, encoding, &limits));
            let panicked = |_| End::Defect("decoding failed".to_owned());
            task.await.map_err(panicked)?
        };
        decoded.map_err(|error| {
            self.frames_refused.inc();
            let position = self.position(ahead);
            match error {
                DecodeError::Undecodable(reason) => End::Undecodable { position, reason },
                error => End::Refused(format!("the frame at position {position}: {error}")),
            }
        })
    }

    /// Returns the position of a frame that comes after `ahead` rows that are not handed over.
    fn position(&self, ahead: usize) -> i64 {
        let ahead = i64::try_from(ahead).unwrap_or(i64::MAX);
        self.intake.received().saturating_add(ahead)
    }

    /// Hands rows to the writers; while there is no room for them, the client is not read.
    async fn hand_over(&mut self, decoded: Decoded) -> Result<(), End> {
        let Self {
            access,
            intake,
            ends,
            ..
        } = self;
        let handing = async {
            // Whoever sends more than their budget is read more slowly.
            access.purse().pace(Flow::Rows, decoded.sent).await;
            intake.take(decoded).await
        };
        tokio::select! {
            biased;
            handed = handing => handed?,
            Some(end) = ends.next() => return Err(end),
        }
        self.wire.received(self.intake.received());
        // Rows that were dropped as known cause no commit that would tell of them.
        if self.intake.received() <= self.intake.uploader.claim.position {
            self.wire.report();
        }
        Ok(())
    }

    fn ping(&mut self, reading: bool) -> Result<(), End> {
        self.find_unread()?;
        // A client that is not read cannot be heard either.
        if reading && self.heard.elapsed() > self.settings.idle_timeout {
            let patience = self.settings.idle_timeout;
            return Err(End::Refused(format!("nothing was heard for {patience:?}")));
        }
        // Who sends rows and hears of them is known to live, and knows that the hub does.
        let silence = self.wire.silence();
        let is_in_touch = self.speaks && silence < self.settings.ping_interval;
        if !is_in_touch || self.heard.elapsed() >= self.settings.ping_interval {
            self.wire.ping();
        }
        Ok(())
    }

    /// Finds out whether the client leaves unread what it is told of its rows.
    fn find_unread(&mut self) -> Result<(), End> {
        let told = self.wire.told();
        let (stored, has_ended) = {
            let progress = self.progress.borrow();
            (progress.stored, progress.ending.is_some())
        };
        if told >= stored && !has_ended {
            self.unread = None;
            return Ok(());
        }
        let now = Instant::now();
        let (before, since) = *self.unread.get_or_insert((told, now));
        if before != told {
            self.unread = Some((told, now));
        } else if since.elapsed() > SEND_PATIENCE {
            return Err(End::Lost);
        }
        Ok(())
    }

    fn end_of(&self, error: &ProtocolError, ahead: usize) -> End {
        let limit = self.settings.frame_bytes;
        match error {
            ProtocolError::Overflow => End::TooLarge { limit },
            ProtocolError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                End::Undecodable {
                    position: self.position(ahead),
                    reason: "a text frame that is not UTF-8".to_owned(),
                }
            }
            ProtocolError::Io(error) if error.to_string().contains("continuation size") => {
                End::TooLarge { limit }
            }
            ProtocolError::Io(_) => End::Lost,
            error => End::Refused(format!("the WebSocket protocol is not kept: {error}")),
        }
    }

    /// Waits until the rows taken so far are stored, whatever the end.
    ///
    /// Only a stop of the service bounds the waiting: rows that a silent client sent are nowhere
    /// else.
    async fn flush(&mut self, end: End) -> End {
        let stop = self.stop.clone();
        let patience = self.settings.flush_timeout;
        let out_of_time = async {
            stop.cancelled().await;
            tokio::time::sleep(patience).await;
        };
        tokio::pin!(out_of_time);
        if end != End::Lost {
            tokio::select! {
                biased;
                () = self.intake.hurry() => {}
                // The writers have more than they can take in: they do not rest.
                () = stop.cancelled() => {}
            }
        }
        let received = self.intake.received();
        let is_settled =
            |progress: &Progress| progress.stored >= received || progress.ending.is_some();
        let settled = tokio::select! {
            settled = self.progress.wait_for(is_settled) => settled,
            () = &mut out_of_time => return End::Stopping,
        };
        // The sender is the uploader's, which is here.
        match settled.as_deref() {
            Ok(Progress {
                stored,
                ending: Some(ending),
                ..
            }) if *stored < received && end != End::Lost => ending.clone().into(),
            _ => end,
        }
    }

    /// Sends the close frame and reads on until the client has it: data left unread would reset
    /// the connection before.
    async fn close(&mut self, end: &End) {
        self.wire.close(end.close_reason());
        let _gone = timeout(SEND_PATIENCE, self.wire.silent()).await;
        let until_closed = async { while let Some(Ok(_)) = self.frames.recv().await {} };
        let _impatient = timeout(CLOSE_PATIENCE, until_closed).await;
    }
}
