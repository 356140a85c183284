//! What sockets and posts share: a session on one side, the writers on the other.

use std::sync::Arc;

use rovi_common::{
    auth::{Flow, budget::Purse},
    clock,
    http::Problem,
    name::BatteryName,
};
use tokio::sync::watch;
use uuid::Uuid;

use super::{decoded::Decoded, marks::Marks, room::Notice};
use crate::{
    batch::{Batch, Ending, Progress, Uploader},
    hub::Hub,
    store::sessions::{self, SessionError},
    writer::Closed,
};

/// Fingerprint of a body that a session was opened for.
pub type BodyHash = [u8; 32];

/// What a connection asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose rows these are.
    pub battery: BatteryName,
    /// The client's session, if it has one.
    pub session: Option<Uuid>,
    /// Position of the first row that the connection sends.
    pub from: i64,
    /// Whether the session's first row begins a segment.
    pub begins_segment: bool,
    /// Whether the client hears anything but close codes.
    pub speaks: bool,
    /// The one body that the session is for, if it is for one.
    pub body: Option<BodyHash>,
}

/// Takes in the rows of one connection.
#[derive(Debug)]
pub struct Intake {
    hub: Arc<Hub>,
    /// The connection as the writers see it.
    pub uploader: Arc<Uploader>,
    begins_segment: bool,
    is_nameless: bool,
    next: i64,
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Refused(why) => Self::conflict(why).at("session"),
            SessionError::Busy => Self::unavailable(error),
            SessionError::Store(error) => error.into(),
        }
    }
}

impl Intake {
    /// Opens the session for somebody with a budget of batteries.
    ///
    /// # Errors
    /// As [`Intake::open`]; 429 where it would make one too many.
    pub async fn open_within(
        hub: Arc<Hub>,
        request: Request,
        purse: &Purse,
    ) -> Result<Self, Problem> {
        if purse.budget().batteries_per_hour > 0 && !hub.knows(&request.battery).await? {
            purse.take_one(Flow::Batteries)?;
        }
        Self::open(hub, request).await
    }

    /// Opens the session.
    ///
    /// # Errors
    /// 400 or 409 for a session that cannot be used, 503 while PostgreSQL is away or the battery's
    /// table is being changed.
    pub async fn open(hub: Arc<Hub>, request: Request) -> Result<Self, Problem> {
        let is_nameless = request.session.is_none() && !request.speaks;
        let session = request.session.unwrap_or_else(Uuid::now_v7);
        let name = request.battery.to_string();
        let (place, body) = ((session, request.from), request.body);
        let settings = hub.settings.sessions;
        let opened = hub.pool.run(move |connection| {
            match sessions::open(connection, &name, place, body.as_ref(), &settings) {
                Err(SessionError::Store(error)) => Err(error),
                opened => Ok(opened),
            }
        });
        let claim = opened.await?.map_err(Problem::from)?;
        let room = hub.rooms.of(claim.battery_id);
        let marks = request.speaks.then(|| {
            let follower = hub.board.follow(claim.battery_id, claim.relayed);
            Marks::new(follower, claim.position, claim.newest)
        });
        let uploader = Arc::new(Uploader::new(claim, request.battery, room, marks));
        hub.uploads.add(&uploader);
        Ok(Self {
            hub,
            uploader,
            begins_segment: request.begins_segment,
            is_nameless,
            next: request.from,
        })
    }

    /// Goes on where the session ends, whatever was asked for.
    #[must_use]
    pub fn at_the_end(self) -> Self {
        Self {
            next: self.uploader.claim.position,
            ..self
        }
    }

    /// Returns the position of the next row.
    pub fn received(&self) -> i64 {
        self.next
    }

    /// Takes rows in; waits while there is no room for them.
    ///
    /// Rows below the session's position are counted and dropped. Where this is given up half-way,
    /// the rows were not taken.
    ///
    /// # Errors
    /// Nothing more of this connection is stored.
    pub async fn take(&mut self, decoded: Decoded) -> Result<(), Ending> {
        self.replay(decoded, Vec::new()).await
    }

    /// Takes rows in that come from these lines of `hub.rejected_rows`, which they leave in the
    /// transaction that stores them.
    ///
    /// # Errors
    /// As [`Intake::take`].
    pub async fn replay(&mut self, mut decoded: Decoded, replayed: Vec<i64>) -> Result<(), Ending> {
        let metrics = &self.hub.metrics;
        metrics.rows_received.inc_by(decoded.sent as u64);
        let sent = i64::try_from(decoded.sent).unwrap_or(i64::MAX);
        let known = (self.uploader.claim.position - self.next).clamp(0, sent);
        decoded.skip(usize::try_from(known).unwrap_or_default());
        let position = self.next + known;
        if decoded.sent == 0 {
            self.next += sent;
            return Ok(());
        }
        let weight = decoded.weight();
        let room = self.uploader.room().take(weight).await;
        if let Some(ending) = self.uploader.ending() {
            return Err(ending);
        }
        let stops = || Ending::Unavailable("the service stops".to_owned());
        let room = room.ok_or_else(stops)?;
        let rows = i64::try_from(decoded.sent).unwrap_or_default();
        let batch = Batch {
            uploader: Arc::clone(&self.uploader),
            position,
            received: clock::now_us(),
            begins_segment: self.begins_segment && position == 0,
            decoded,
            weight,
            seat: room,
            replayed,
        };
        let handed = self.hub.writers.send(batch).await;
        handed.map_err(|Closed| stops())?;
        metrics.rows_waiting.add(rows);
        self.next += sent;
        Ok(())
    }

    /// Says that somebody waits for the rows taken before doing anything else.
    pub async fn hurry(&self) {
        let claim = self.uploader.claim;
        self.hub.writers.hurry(claim.battery_id).await;
    }

    /// Waits until every row taken is durable.
    ///
    /// # Errors
    /// Nothing more of this connection is stored.
    pub async fn settled(&self) -> Result<(), Ending> {
        self.hurry().await;
        let mut progress = self.uploader.progress();
        let received = self.received();
        let is_settled =
            |progress: &Progress| progress.stored >= received || progress.ending.is_some();
        // The sender is `self`'s own.
        let settled = progress.wait_for(is_settled).await;
        let ending = match settled.as_deref() {
            Ok(Progress { stored, .. }) if *stored >= received => None,
            Ok(Progress { ending, .. }) => ending.clone(),
            Err(_) => None,
        };
        ending.map_or(Ok(()), Err)
    }

    /// Returns why the battery is set aside, while it is.
    pub fn notice(&self) -> watch::Receiver<Option<Notice>> {
        self.uploader.room().notice()
    }

    /// Returns a view of the progress that can be waited for.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.uploader.progress()
    }

    /// Ends the connection's part: a session that nobody can name again is forgotten.
    pub async fn close(self) {
        if !self.is_nameless {
            return;
        }
        let session = self.uploader.claim.session;
        let forgotten = self
            .hub
            .pool
            .run(move |connection| Ok(sessions::forget(connection, session)?));
        if let Err(error) = forgotten.await {
            tracing::debug!("the session {session} was left behind: {error}");
        }
    }
}
