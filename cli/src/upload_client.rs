//! An upload client that loses no row and doubles none: the example for others to read.
//!
//! The wire is the subprotocol `rovi.v1` of `GET /db/upload/{battery}` (`docs/PROTOCOL.md`):
//! 1. **Connect** with a session id of your own. The greeting tells the limits and the
//!    **position**: how many rows of this session are durable already.
//! 2. **Send** columnar msgpack frames, the first row being the one at that position. Keep every
//!    frame until an acknowledgement says `stored` beyond its last row, and keep at most
//!    `window_rows` rows waiting.
//! 3. **Lost the connection**, or closed with 1012 or 1013? Connect again with the same session,
//!    drop what the greeting says is durable and send the rest again. 1007 and 1008 tell that
//!    sending again cannot help.
//! 4. **Finish** by waiting for `stored` to reach the last row; then close. Who wants to know that
//!    twins have been told of the rows waits for `relayed` before closing; rows are safe without.
//!
//! ```no_run
//! # use rovicli::upload_client::{Target, UploadClient, UploadError};
//! # use rovi_common::rows::Columns;
//! # async fn example(batches: Vec<Columns>) -> Result<(), UploadError> {
//! let target = Target {
//!     hub: "http://127.0.0.1:8000".parse().expect("this is a URL"),
//!     battery: "b7".parse().expect("this is a name"),
//!     session: uuid::Uuid::now_v7(),
//!     new_segment: true,
//!     token: None,
//!     trust: Default::default(),
//! };
//! let mut client = UploadClient::connect(target, Box::new(|event| println!("{event}"))).await?;
//! for batch in batches {
//!     client.send(batch).await?;
//! }
//! println!("{} rows are durable", client.finish().await?.stored);
//! # Ok(())
//! # }
//! ```

mod connection;
mod error;
mod event;

use std::{collections::VecDeque, fmt, time::Duration};

use bytes::Bytes;
use rovi_common::{
    auth::secret::Token,
    name::BatteryName,
    rows::{Column, Columns, Value},
    tls::Trust,
};
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use self::{
    connection::{Connection, Notice, open},
    error::Broken,
};
pub use self::{
    connection::{Greeting, Limits},
    error::UploadError,
    event::{Event, EventSink},
};

/// The first pause before connecting again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause before connecting again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a hub may be away before the client gives up.
const PATIENCE: Duration = Duration::from_hours(1);

/// Where rows go.
#[derive(Debug, Clone)]
pub struct Target {
    /// The hub's URL, `http://host:port` or `https://host:port`.
    pub hub: Url,
    /// The battery.
    pub battery: BatteryName,
    /// Names this upload: the same rows sent under the same id are stored once.
    pub session: Uuid,
    /// Whether the first row of the session begins a new segment (test).
    pub new_segment: bool,
    /// What the hub is shown, where it asks who one is.
    pub token: Option<Token>,
    /// Whose certificates count, where the hub speaks TLS.
    pub trust: Trust,
}

/// How far an upload got; all are positions in the session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows below this were durable when the client first connected.
    pub resumed_at: u64,
    /// Rows below this were handed to the client.
    pub given: u64,
    /// Rows below this are durable, in the battery's table or in `hub.rejected_rows`.
    pub stored: u64,
    /// Rows below this are on the bus, too, where twins hear of them.
    pub relayed: u64,
    /// Rows of this run that the hub kept in `hub.rejected_rows`.
    pub rejected: u64,
}

/// Rows that are not known to be durable, as sent.
struct Frame {
    first: u64,
    rows: u64,
    bytes: Bytes,
}

impl Frame {
    fn end(&self) -> u64 {
        self.first + self.rows
    }
}

/// An upload session over any number of connections; see the module's documentation.
pub struct UploadClient {
    target: Target,
    /// `None` while the connection is being made anew.
    connection: Option<Connection>,
    greeting: Greeting,
    /// Frames not known to be durable, oldest first.
    waiting: VecDeque<Frame>,
    /// How many of `waiting` went out on the present connection.
    sent: usize,
    progress: Progress,
    /// The pause before connecting again next time.
    pause: Duration,
    /// Since when no row became durable for want of a connection.
    away_since: Option<Instant>,
    on_event: EventSink,
}

impl fmt::Debug for UploadClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadClient")
            .field("target", &self.target)
            .field("waiting", &self.waiting.len())
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl UploadClient {
    /// Opens or resumes the session; the first row to send is the one at [`Self::position`].
    ///
    /// # Errors
    /// See [`UploadError`]; a hub that is away is an error here, not waited for.
    pub async fn connect(target: Target, on_event: EventSink) -> Result<Self, UploadError> {
        let connection = open(&target, 0, &|position| position)
            .await
            .map_err(|broken| broken.giving_up(&target.hub))?;
        let greeting = connection.greeting().clone();
        let (position, relayed) = (greeting.position, greeting.relayed);
        Ok(Self {
            target,
            connection: Some(connection),
            greeting,
            waiting: VecDeque::new(),
            sent: 0,
            progress: Progress {
                resumed_at: position,
                given: position,
                stored: position,
                relayed,
                rejected: 0,
            },
            pause: FIRST_PAUSE,
            away_since: None,
            on_event,
        })
    }

    /// Returns the position of the next row to be given to [`Self::send`].
    pub fn position(&self) -> u64 {
        self.progress.given
    }

    /// Tells how far the upload got.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Returns what the hub said when the present connection was made.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Takes rows and returns when they are written to the socket, within the hub's window.
    ///
    /// Batches above the hub's limits are cut. Dropping the future loses nothing: rows that were
    /// taken go out with the next call.
    ///
    /// # Errors
    /// See [`UploadError`]; what [`Self::progress`] calls stored is durable all the same.
    pub async fn send(&mut self, rows: Columns) -> Result<(), UploadError> {
        let rows = self.emptied(rows);
        self.take(rows)?;
        while self.sent < self.waiting.len() || self.is_unflushed() {
            self.advance(None).await?;
        }
        Ok(())
    }

    /// Listens to the hub until `deadline`, so that the connection lives while there is nothing to send.
    ///
    /// # Errors
    /// See [`UploadError`].
    pub async fn listen_until(&mut self, deadline: Instant) -> Result<(), UploadError> {
        while Instant::now() < deadline {
            self.advance(Some(deadline)).await?;
        }
        Ok(())
    }

    /// Waits until every row given is durable.
    ///
    /// # Errors
    /// See [`UploadError`].
    pub async fn flush(&mut self) -> Result<(), UploadError> {
        while !self.waiting.is_empty() {
            self.advance(None).await?;
        }
        Ok(())
    }

    /// Waits until every row given is on the bus; a bus that is away is waited for.
    ///
    /// # Errors
    /// See [`UploadError`].
    pub async fn relayed(&mut self) -> Result<(), UploadError> {
        while self.progress.relayed < self.progress.given {
            self.advance(None).await?;
        }
        Ok(())
    }

    /// Waits until every row given is durable and closes the connection.
    ///
    /// # Errors
    /// See [`UploadError`].
    pub async fn finish(mut self) -> Result<Progress, UploadError> {
        self.flush().await?;
        Ok(self.close().await)
    }

    /// Closes the connection without waiting for rows on their way.
    pub async fn close(self) -> Progress {
        if let Some(connection) = self.connection {
            connection.close().await;
        }
        self.progress
    }

    /// Whether something may still stand in a buffer of this process.
    fn is_unflushed(&self) -> bool {
        self.connection
            .as_ref()
            .is_none_or(Connection::is_unflushed)
    }

    /// Empties cells that no column can hold; their rows' other cells are sent all the same.
    fn emptied(&mut self, rows: Columns) -> Columns {
        let is_refused = |value: &Value| matches!(value, Value::Refused(_));
        let has_refused = |column: &Column| match column {
            Column::Mixed(values) => values.iter().any(is_refused),
            _ => false,
        };
        if !rows.iter().any(|(_, column)| has_refused(column)) {
            return rows;
        }
        let mut columns = rows.into_vec();
        for (name, column) in &mut columns {
            let Column::Mixed(values) = column else {
                continue;
            };
            for (position, value) in (self.progress.given..).zip(values) {
                if let Value::Refused(reason) = value {
                    (self.on_event)(Event::Emptied {
                        position,
                        column: name.clone(),
                        reason: reason.to_string(),
                    });
                    *value = Value::Null;
                }
            }
        }
        Columns::new(columns).expect("names and lengths are as they were")
    }

    /// Encodes rows into frames within the hub's limits and queues them.
    fn take(&mut self, mut rows: Columns) -> Result<(), UploadError> {
        let limits = self.greeting().limits;
        let most = limits.rows_per_frame.min(limits.window_rows).max(1);
        while rows.rows() > most {
            let rest = rows.split_off(most);
            self.take(rows)?;
            rows = rest;
        }
        if rows.rows() == 0 {
            return Ok(());
        }
        let bytes = rmp_serde::to_vec_named(&rows).map_err(UploadError::Encode)?;
        if bytes.len() > limits.frame_bytes && rows.rows() > 1 {
            let rest = rows.split_off(rows.rows() / 2);
            self.take(rows)?;
            return self.take(rest);
        }
        let frame = Frame {
            first: self.progress.given,
            rows: rows.rows() as u64,
            bytes: bytes.into(),
        };
        self.progress.given = frame.end();
        self.waiting.push_back(frame);
        Ok(())
    }

    /// Does the next thing there is to do: write a frame if the window has room, or read.
    async fn advance(&mut self, deadline: Option<Instant>) -> Result<(), UploadError> {
        let window = self.greeting().limits.window_rows as u64;
        let next = self
            .waiting
            .get(self.sent)
            .filter(|frame| frame.end() <= self.progress.stored + window)
            .map(|frame| frame.bytes.clone());
        let exchanged = match &mut self.connection {
            Some(connection) => connection.exchange(next, deadline).await,
            // A call that was making it anew was broken off.
            None => Err(Broken::Lost("not connected".to_owned())),
        };
        match exchanged {
            Ok(Notice::Written) => self.sent += 1,
            Ok(Notice::Acknowledged { stored, relayed }) => {
                self.progress.relayed = self.progress.relayed.max(relayed);
                self.stored(stored);
            }
            Ok(Notice::Waiting(reason)) => (self.on_event)(Event::Waiting { reason }),
            Ok(Notice::Rejected { position, reason }) => {
                self.progress.rejected += 1;
                (self.on_event)(Event::Rejected { position, reason });
            }
            Ok(Notice::Nothing) => {}
            Err(broken) => self.reconnect(broken).await?,
        }
        Ok(())
    }

    /// Forgets frames that are durable.
    fn stored(&mut self, stored: u64) {
        if stored > self.progress.stored {
            self.progress.stored = stored;
            self.pause = FIRST_PAUSE;
            self.away_since = None;
            (self.on_event)(Event::Stored { position: stored });
        }
        while let Some(frame) = self.waiting.front()
            && frame.end() <= stored
        {
            self.waiting.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// Connects again until it works; everything not durable is sent again.
    async fn reconnect(&mut self, mut broken: Broken) -> Result<(), UploadError> {
        let since = *self.away_since.get_or_insert_with(Instant::now);
        // From here on no frame counts as sent, even if this future is dropped.
        self.sent = 0;
        // A hub that stops waits for its close to be answered.
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
        loop {
            let Broken::Lost(reason) = broken else {
                return Err(broken.giving_up(&self.target.hub));
            };
            if since.elapsed() > PATIENCE {
                return Err(Broken::Lost(reason).giving_up(&self.target.hub));
            }
            let pause = self.pause;
            self.pause = (pause * 2).min(LONGEST_PAUSE);
            (self.on_event)(Event::Lost { reason, pause });
            tokio::time::sleep(pause).await;
            let first_to_send = |position: u64| {
                let oldest = self.waiting.iter().find(|frame| frame.end() > position);
                oldest.map_or(position, |frame| frame.first)
            };
            match open(&self.target, self.progress.stored, &first_to_send).await {
                Ok(connection) => {
                    self.greeting = connection.greeting().clone();
                    let position = self.greeting.position;
                    self.progress.relayed = self.progress.relayed.max(self.greeting.relayed);
                    self.connection = Some(connection);
                    self.stored(position);
                    if self.waiting.is_empty() {
                        self.away_since = None;
                    }
                    (self.on_event)(Event::Resumed { position });
                    return Ok(());
                }
                Err(error) => broken = error,
            }
        }
    }
}
