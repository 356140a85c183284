//! Stores the rows of a file as they are read, and tells how far that is, a line at a time.
//!
//! Each line is made when the client took the one before; one that goes away ends it, and what was
//! stored stays.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, stream};
use rovi_common::{
    auth::{Flow, budget::Purse},
    http::Problem,
};
use serde_json::{Value, json};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{child::Head, reading::Reading};
use crate::{
    batch::Ending,
    hub::Hub,
    upload::{
        decode::{Encoding, Limits, decode},
        intake::Intake,
        post,
    },
};

/// A file on its way into the battery's table.
pub(super) struct Storing {
    hub: Arc<Hub>,
    reading: Reading,
    head: Head,
    // Its session has a name, so it needs not be closed.
    intake: Intake,
    /// Of whoever sent it: beyond their budget rows are taken in more slowly.
    purse: Purse,
    stage: Stage,
    /// Counts among the files that may be taken in at once.
    _permit: OwnedSemaphorePermit,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Head,
    Rows,
    Told,
}

impl Storing {
    pub(super) fn new(
        hub: Arc<Hub>,
        (reading, head): (Reading, Head),
        (intake, purse): (Intake, Purse),
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            hub,
            reading,
            head,
            intake,
            purse,
            stage: Stage::Head,
            _permit: permit,
        }
    }

    /// Does the work, and tells of it.
    pub(super) fn lines(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut storing| async {
            if storing.stage == Stage::Told {
                return None;
            }
            let line = storing.step().await.unwrap_or_else(|problem| {
                storing.stage = Stage::Told;
                json!({ "problem": problem })
            });
            Some((Ok(Bytes::from(format!("{line}\n"))), storing))
        })
    }

    async fn step(&mut self) -> Result<Value, Problem> {
        if self.stage == Stage::Head {
            self.stage = Stage::Rows;
            return Ok(self.what_is_there());
        }
        if let Some(rows) = self.reading.rows().await? {
            self.take(rows).await?;
            let stored = self.intake.progress().borrow().stored;
            return Ok(json!({ "stored": stored }));
        }
        self.stage = Stage::Told;
        in_time(&self.hub, self.intake.settled()).await?;
        let rejections = post::rejections(&self.hub, &self.intake).await?;
        let first = rejections.first;
        let first = first.map(|(position, reason)| format!("row {}: {reason}", position + 1));
        Ok(json!({
            "stored": self.intake.received(),
            "rejected": rejections.rows,
            "first_rejection": first,
            "notes": self.reading.notes,
        }))
    }

    fn what_is_there(&self) -> Value {
        let metadata = self.head.metadata.as_deref();
        let metadata = metadata.and_then(|text| serde_json::from_str::<Value>(text).ok());
        json!({
            "rows": self.head.rows,
            "columns": self.head.columns,
            "metadata": metadata.filter(Value::is_object),
            "notes": self.head.notes,
        })
    }

    /// Hands rows to the writer, in batches no larger than a group.
    async fn take(&mut self, bytes: Bytes) -> Result<(), Problem> {
        let limits = Limits::of_bodies(&self.hub.settings);
        let decoding =
            tokio::task::spawn_blocking(move || decode(&bytes, Encoding::Msgpack, &limits));
        let decoded = decoding.await.map_err(|error| Problem::internal(&error))?;
        let decoded = decoded.map_err(Problem::bad_request)?;
        self.purse.pace(Flow::Rows, decoded.sent).await;
        for piece in decoded.pieces(self.hub.settings.group_rows) {
            in_time(&self.hub, self.intake.take(piece)).await?;
        }
        Ok(())
    }
}

/// Waits for the writer as long as a `POST` does.
async fn in_time(hub: &Hub, work: impl Future<Output = Result<(), Ending>>) -> Result<(), Problem> {
    let patience = hub.settings.post_timeout;
    let done = timeout(patience, work).await.map_err(|_out_of_time| {
        Problem::unavailable(format!(
            "no rows were stored for {patience:?}; sending the file again goes on from there"
        ))
    })?;
    Ok(done?)
}
