//! What an upload client tells while it works.

use std::{fmt, time::Duration};

/// What a client tells while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The connection was lost; the client connects again after a pause.
    Lost {
        /// Why.
        reason: String,
        /// The pause.
        pause: Duration,
    },
    /// The connection stands again.
    Resumed {
        /// The first row that is not durable yet.
        position: u64,
    },
    /// More rows are durable.
    Stored {
        /// Rows of the session below this are durable.
        position: u64,
    },
    /// The hub cannot store the battery's rows now; they wait there and here.
    Waiting {
        /// Why.
        reason: String,
    },
    /// A cell holds what no column can hold; it is sent as null.
    Emptied {
        /// The row's position in the session.
        position: u64,
        /// The column.
        column: String,
        /// Why, with the value.
        reason: String,
    },
    /// The hub refused one row and kept it in `hub.rejected_rows`.
    Rejected {
        /// The row's position in the session.
        position: u64,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { reason, pause } => {
                write!(
                    f,
                    "{reason}; connecting again in {:.1} s",
                    pause.as_secs_f64()
                )
            }
            Self::Resumed { position } => write!(f, "connected again, going on at row {position}"),
            Self::Stored { position } => write!(f, "{position} rows are durable"),
            Self::Waiting { reason } => write!(f, "the hub waits to store rows: {reason}"),
            Self::Emptied {
                position,
                column,
                reason,
            } => {
                write!(
                    f,
                    "row {position}, column `{column}`: {reason}; it is sent as null"
                )
            }
            Self::Rejected { position, reason } => write!(f, "row {position} refused: {reason}"),
        }
    }
}

/// Takes events while [`UploadClient`](super::UploadClient) works; must not block.
pub type EventSink = Box<dyn FnMut(Event) + Send>;
