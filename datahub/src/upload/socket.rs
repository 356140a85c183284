//! Hop 1 of 7: socket → frames.
//!
//! Input: a WebSocket with rows of one battery. Output: decoded rows to the writers, and in
//! `rovi.v1` acknowledgements back. On failure: a close code that says why, after the rows that
//! came before were stored.

use std::{
    mem,
    pin::pin,
    time::{Duration, Instant},
};

use actix_ws::{AggregatedMessage, AggregatedMessageStream, ProtocolError, Session};
use futures_util::FutureExt;
use prometheus::IntCounter;
use rovi_common::auth::{Access, Flow, Role};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    alike,
    decode::{DecodeError, Encoding, Limits, decode},
    decoded::Decoded,
    intake::Intake,
    protocol::{self, End, Message},
    voice::{News, SEND_PATIENCE, Voice, in_time},
};
use crate::{config::Settings, hub::Hub};

/// Frames above this many bytes are decoded off the thread that serves sockets.
const INLINE_BYTES: usize = 64 << 10;
/// Rows of small frames that are handed over together: more would make acknowledgements wait for
/// the decoding.
const GATHERED_ROWS: usize = 256;
/// How long a client may take to answer our close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What comes from a client; none at its end.
type Frame = Option<Result<AggregatedMessage, ProtocolError>>;

/// One upload socket.
pub(super) struct Socket {
    frames: AggregatedMessageStream,
    intake: Intake,
    voice: Voice,
    settings: SocketSettings,
    stop: CancellationToken,
    heard: Instant,
    frames_refused: IntCounter,
    access: Access,
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
    greeting: protocol::Limits,
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
            greeting: protocol::Limits::of(settings),
        }
    }
}

impl Socket {
    pub(super) fn new(
        hub: &Hub,
        intake: Intake,
        speaks: bool,
        session: Session,
        frames: actix_ws::MessageStream,
    ) -> Self {
        let settings = SocketSettings::of(&hub.settings);
        let voice = Voice::new(session, &intake, speaks);
        Self {
            frames: frames
                .max_frame_size(settings.frame_bytes)
                .aggregate_continuations()
                .max_continuation_size(settings.frame_bytes),
            intake,
            voice,
            settings,
            stop: hub.stop.clone(),
            heard: Instant::now(),
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
        let (access, battery) = (self.access.clone(), self.intake.uploader.battery.clone());
        let end = tokio::select! {
            biased;
            ended = access.lost(Role::Uploader, &battery) => End::Unauthorised(ended),
            end = self.take_all() => end,
        };
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

    async fn take_all(&mut self) -> End {
        match self.greet().await {
            Ok(()) => self.receive().await,
            Err(end) => end,
        }
    }

    async fn greet(&mut self) -> Result<(), End> {
        let uploader = &self.intake.uploader;
        let hello = Message::Hello {
            battery: uploader.battery.as_str(),
            epoch: uploader.claim.newest.epoch,
            session: uploader.claim.session,
            position: uploader.claim.position,
            relayed: uploader.relayed(),
            limits: self.settings.greeting,
        };
        self.voice.say(&hello).await
    }

    /// Takes frames until something ends that.
    async fn receive(&mut self) -> End {
        let mut pings = tokio::time::interval(self.settings.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Waited for once: thousands of sockets stand in one list of those that wait.
        let token = self.stop.clone();
        let mut stopped = pin!(token.cancelled());
        loop {
            let waiting = self.intake.received() - self.voice.progress.borrow().stored;
            let window = self.settings.window_rows - waiting;
            let may_read = window > 0;
            let step = tokio::select! {
                biased;
                () = stopped.as_mut() => Err(End::Stopping),
                news = self.voice.news() => self.tell(&news).await,
                frame = self.frames.recv(), if may_read => self.take(frame, window).await,
                _ = pings.tick() => self.ping(may_read).await,
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
            if let Some(rows) = &mut gathered
                && self.append(rows, &frame)
            {
                if rows.sent < most {
                    next = self.frames.recv().now_or_never();
                }
                continue;
            }
            let ahead = gathered.as_ref().map_or(0, |rows| rows.sent);
            let end = match self.rows_of(frame, ahead).await {
                Ok(rows) => {
                    match &mut gathered {
                        Some(before) if before.goes_with(&rows) => before.append(rows),
                        Some(before) => self.hand_over(mem::replace(before, rows)).await?,
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
                let pong = self.voice.session.pong(&bytes);
                in_time(pong).await
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

    /// Hands rows to the writers; while there is no room for them, the client still hears
    /// acknowledgements, but is not read.
    async fn hand_over(&mut self, decoded: Decoded) -> Result<(), End> {
        let before = self.intake.received();
        let purse = self.access.purse();
        {
            let handing = async {
                // Whoever sends more than their budget is read more slowly.
                purse.pace(Flow::Rows, decoded.sent).await;
                self.intake.take(decoded).await
            };
            tokio::pin!(handing);
            loop {
                tokio::select! {
                    biased;
                    handed = &mut handing => break handed?,
                    () = self.stop.cancelled() => return Err(End::Stopping),
                    news = self.voice.news() => self.voice.tell(&news, before).await?,
                }
            }
        }
        // Rows that were dropped as known cause no commit that would tell of them.
        if self.intake.received() <= self.intake.uploader.claim.position {
            return self.report().await;
        }
        Ok(())
    }

    async fn tell(&mut self, news: &News) -> Result<(), End> {
        if matches!(news, News::Stored) {
            return self.report().await;
        }
        self.voice.tell(news, self.intake.received()).await
    }

    async fn report(&mut self) -> Result<(), End> {
        for (position, reason) in self.intake.uploader.take_rejects() {
            let reason = reason.as_str();
            self.voice
                .say(&Message::Reject { position, reason })
                .await?;
        }
        self.voice.report(self.intake.received()).await
    }

    async fn ping(&mut self, reading: bool) -> Result<(), End> {
        // A client that is not read cannot be heard either.
        if reading && self.heard.elapsed() > self.settings.idle_timeout {
            let patience = self.settings.idle_timeout;
            return Err(End::Refused(format!("nothing was heard for {patience:?}")));
        }
        // Who sends rows and hears of them is known to live, and knows that the hub does.
        if self.heard.elapsed().max(self.voice.silence()) < self.settings.ping_interval {
            return Ok(());
        }
        in_time(self.voice.session.ping(b"")).await
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
        loop {
            let progress = self.voice.progress.borrow_and_update().clone();
            let is_lost = end == End::Lost;
            if !is_lost && self.report().await == Err(End::Lost) {
                return End::Lost;
            }
            if progress.stored >= self.intake.received() {
                return end;
            }
            if let Some(ending) = progress.ending {
                return if is_lost { end } else { ending.into() };
            }
            tokio::select! {
                news = self.voice.news() => {
                    let told = self.tell(&news).await;
                    if !is_lost && told == Err(End::Lost) {
                        return End::Lost;
                    }
                }
                () = &mut out_of_time => return End::Stopping,
            }
        }
    }

    /// Sends the close frame and reads on until the client has it: data left unread would reset
    /// the connection before.
    async fn close(&mut self, end: &End) {
        let reason = end.close_reason();
        let _gone = timeout(
            SEND_PATIENCE,
            self.voice.session.clone().close(Some(reason)),
        )
        .await;
        let until_closed = async { while let Some(Ok(_)) = self.frames.recv().await {} };
        let _impatient = timeout(CLOSE_PATIENCE, until_closed).await;
    }
}
