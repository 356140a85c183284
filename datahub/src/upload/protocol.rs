//! The wire forms of `rovi.v1` and the close codes; see `docs/PROTOCOL.md`.

use actix_ws::{CloseCode, CloseReason};
use rovi_common::auth::{Ended, access::CLOSE_CODE};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    batch::Ending,
    config::{MAX_COLUMN_NAME_BYTES, Settings},
};

/// The subprotocol in which the server speaks.
pub const SUBPROTOCOL: &str = "rovi.v1";

/// What the server sends in `rovi.v1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Message<'a> {
    /// The greeting.
    Hello {
        /// Whose rows are taken.
        battery: &'a str,
        /// The life of the name.
        epoch: i64,
        /// The session to resume with.
        session: Uuid,
        /// The first row that is not stored yet.
        position: i64,
        /// Rows below this are known to be on the bus.
        relayed: i64,
        /// What a client must keep to.
        limits: Limits,
    },
    /// Rows below `received` have come, those below `stored` are durable, those below `relayed`
    /// are on the bus.
    Ack {
        /// Position.
        received: i64,
        /// Position.
        stored: i64,
        /// Position.
        relayed: i64,
    },
    /// The battery's table cannot be written now; its rows wait.
    Waiting {
        /// Why.
        reason: &'a str,
    },
    /// A row is in `hub.rejected_rows`.
    Reject {
        /// Its position in the session.
        position: i64,
        /// Why.
        reason: &'a str,
    },
}

/// The limits in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    frame_bytes: usize,
    rows_per_frame: usize,
    row_bytes: usize,
    columns: usize,
    column_name_bytes: usize,
    window_rows: usize,
    queue_bytes: u32,
    group_wait_ms: u128,
    idle_timeout_s: u64,
    session_days: u32,
    session_memory_days: u32,
}

impl Limits {
    /// Returns the limits in force.
    pub fn of(settings: &Settings) -> Self {
        Self {
            frame_bytes: settings.frame_bytes,
            rows_per_frame: settings.rows_per_frame,
            row_bytes: settings.row_bytes,
            columns: settings.columns,
            column_name_bytes: MAX_COLUMN_NAME_BYTES,
            window_rows: settings.window_rows,
            queue_bytes: settings.battery_queue_bytes,
            group_wait_ms: settings.group_wait.as_millis(),
            idle_timeout_s: settings.idle_timeout.as_secs(),
            session_days: settings.sessions.days,
            session_memory_days: settings.sessions.memory_days,
        }
    }
}

/// Why a socket ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The client closed it, and every row is stored.
    Done,
    /// The connection is gone; nobody hears a close code.
    Lost,
    /// A frame cannot be decoded.
    Undecodable {
        /// Position of the frame's first row.
        position: i64,
        /// Why.
        reason: String,
    },
    /// A limit or a session is not kept.
    Refused(String),
    /// A frame is too large.
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Who sends may not any more, for the reason given.
    Unauthorised(Ended),
    /// The service stops.
    Stopping,
    /// Rows cannot be stored now, and why.
    Unavailable(String),
    /// A defect of the service.
    Defect(String),
}

impl From<Ending> for End {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Refused(reason) => Self::Refused(reason),
            Ending::Unavailable(reason) => Self::Unavailable(reason),
            Ending::Defect(reason) => Self::Defect(reason),
        }
    }
}

impl End {
    /// Returns the close frame, whose reason is cut to what fits.
    pub fn close_reason(&self) -> CloseReason {
        let (code, reason) = match self {
            Self::Done | Self::Lost => (CloseCode::Normal, "all rows are stored".to_owned()),
            Self::Undecodable { position, reason } => (
                CloseCode::Invalid,
                format!("the frame at position {position} is refused: {reason}"),
            ),
            Self::Refused(reason) => (CloseCode::Policy, reason.clone()),
            Self::TooLarge { limit } => (
                CloseCode::Size,
                format!("a frame is larger than {limit} bytes; cut it"),
            ),
            Self::Unauthorised(ended) => (CloseCode::Other(CLOSE_CODE), ended.to_string()),
            Self::Stopping => (
                CloseCode::Restart,
                "the service stops; connect again and resume".to_owned(),
            ),
            Self::Unavailable(reason) => (
                CloseCode::Again,
                format!("rows cannot be stored now; connect again and resume: {reason}"),
            ),
            Self::Defect(reason) => (CloseCode::Error, reason.clone()),
        };
        CloseReason {
            code,
            description: Some(reason),
        }
    }
}
