//! The battery and its table, looked up for a question.

use std::sync::Arc;

use diesel::Connection;
use rovi_common::{http::Problem, name::BatteryName};

use crate::{
    history::pages::ReadError,
    hub::Hub,
    store::{
        StoreError, durable,
        signals::{self, Signal},
        source::{Of, Source, SourceError},
    },
};

/// Looks a battery's table up, and its signals where rows are asked for.
///
/// # Errors
/// 404 where there is no such battery or table, 409 where `epoch` is over, 503.
pub(super) async fn open(
    hub: &Hub,
    battery: &BatteryName,
    of: Of,
    epoch: Option<i64>,
) -> Result<(Arc<Source>, Vec<Signal>), Problem> {
    let name = battery.clone();
    let opened = hub.pool.run(move |connection| {
        let opened = connection.transaction(|connection| {
            let source = match Source::open(connection, &name, &of) {
                Ok(source) => source,
                Err(SourceError::Store(error)) => return Err(error),
                Err(error) => return Ok(Err(Problem::not_found(error).at("battery"))),
            };
            let signals = match of {
                Of::Rows => signals::list(connection, source.line.id)?,
                Of::Estimates(_) => Vec::new(),
            };
            Ok::<_, StoreError>(Ok((source, signals)))
        })?;
        // Pages end where the battery's line stood.
        if matches!(of, Of::Rows) {
            durable::settle(connection)?;
        }
        Ok(opened)
    });
    let (source, signals) = opened.await??;
    if let Some(epoch) = epoch.filter(|epoch| *epoch != source.line.epoch) {
        let present = source.line.epoch;
        let detail = format!("epoch={epoch} was asked for, {battery} is in epoch {present}");
        return Err(Problem::conflict(detail).at("epoch"));
    }
    Ok((Arc::new(source), signals))
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Gone(_) => Self::conflict(format!("{error}; ask again")),
            ReadError::Stopped => Self::unavailable(format!("{error}; try again soon")),
        }
    }
}
