//! What must hold after any fault: the log of acknowledgements against the tables and the stream.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream;
use futures_util::StreamExt;
use rovi_common::{
    frame::RowFrame,
    rows::{Columns, Value},
    subjects,
};
use serde::Deserialize;

use crate::{Database, uploader::Acknowledged, uploader::is_misfit};

/// A row as the uploader knows it: `seq`, label of the session, position there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Row(pub i64, pub String, pub i64);

/// Compares what uploaders were told with a battery's table and with its rejected rows.
///
/// # Errors
/// What does not hold, and where.
pub fn table_holds_what_was_acknowledged(
    database: &mut Database,
    battery: &str,
    logs: &[&Acknowledged],
) -> Result<Vec<Row>> {
    let rows = rows_of(database, battery)?;
    for (row, place) in rows.iter().zip(1..) {
        ensure!(row.0 == place, "row {place} of {battery} has seq {}", row.0);
    }
    let mut by_label: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for row in &rows {
        by_label.entry(&row.1).or_default().push(row.2);
    }
    for log in logs {
        let label = log.session.simple().to_string();
        let stored = by_label.remove(label.as_str()).unwrap_or_default();
        ensure!(
            stored.is_sorted_by(|a, b| a < b),
            "rows of session {label} are doubled or out of order in {battery}"
        );
        let stored: BTreeSet<i64> = stored.into_iter().collect();
        let rejected = rejected(database, log)?;
        for position in 0..log.stored {
            match (stored.contains(&position), rejected.contains(&position)) {
                (true, false) if !is_misfit(position) => {}
                (false, true) if is_misfit(position) => {}
                (false, false) => bail!("row {position} of {label} was acknowledged and is lost"),
                (is_stored, is_rejected) => bail!(
                    "row {position} of {label}: stored {is_stored}, rejected {is_rejected}, \
                     a misfit {}",
                    is_misfit(position)
                ),
            }
        }
        let beyond = stored.iter().chain(&rejected).filter(|n| **n >= log.stored);
        let beyond = beyond.count();
        ensure!(beyond == 0, "{beyond} rows of {label} come after the last");
        let unknown = log.rejected.keys().find(|n| !rejected.contains(n));
        ensure!(unknown.is_none(), "row {unknown:?} of {label} is not kept");
    }
    ensure!(by_label.is_empty(), "rows of nobody: {:?}", by_label.keys());
    Ok(rows)
}

fn rows_of(database: &mut Database, battery: &str) -> Result<Vec<Row>> {
    let sql = format!(
        r#"SELECT coalesce(json_agg(json_build_array(seq, label, n) ORDER BY seq), '[]')::text
           AS value FROM battery."{battery}""#
    );
    let json = database.texts(&sql).into_iter().next().unwrap_or_default();
    serde_json::from_str(&json).context("the rows have the uploaders' columns")
}

fn rejected(database: &mut Database, log: &Acknowledged) -> Result<BTreeSet<i64>> {
    let sql = format!(
        "SELECT position::text AS value FROM hub.rejected_rows WHERE session = '{}'",
        log.session
    );
    let positions = database.texts(&sql);
    let mut rejected = BTreeSet::new();
    for position in &positions {
        let position = position.parse().context("a position is a number")?;
        ensure!(
            rejected.insert(position),
            "row {position} was rejected twice"
        );
    }
    Ok(rejected)
}

/// Tells why the stream does not carry exactly the rows of the table, each once and in order.
///
/// # Errors
/// What differs.
pub async fn stream_equals_table(nats: &str, battery: &str, table: &[Row]) -> Result<()> {
    let sent = rows_on_the_stream(nats, battery).await?;
    if sent == table {
        return Ok(());
    }
    let place = sent.iter().zip(table).position(|(sent, row)| sent != row);
    bail!(
        "{} rows of {battery} on the stream, {} in the table, first difference at {place:?}",
        sent.len(),
        table.len()
    )
}

/// Reads every row of a battery from the stream, in its order.
///
/// # Errors
/// NATS does not answer.
pub async fn rows_on_the_stream(nats: &str, battery: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for frame in frames_on_the_stream(nats, battery).await? {
        for (row, seq) in (frame.first_seq..=frame.last_seq()).enumerate() {
            rows.push(row_of(&frame.columns, row, seq).context("a frame has our columns")?);
        }
    }
    Ok(rows)
}

fn row_of(columns: &Columns, row: usize, seq: i64) -> Option<Row> {
    let Value::Text(label) = columns.get("label")?.get(row) else {
        return None;
    };
    let Value::Int(n) = columns.get("n")?.get(row) else {
        return None;
    };
    Some(Row(seq, label, n))
}

/// Reads every frame of a battery from the stream, in its order.
///
/// # Errors
/// NATS does not answer.
pub async fn frames_on_the_stream(nats: &str, battery: &str) -> Result<Vec<RowFrame>> {
    let client = async_nats::connect(nats).await?;
    let stream = jetstream::new(client)
        .get_stream(subjects::ROWS_STREAM)
        .await?;
    let config = jetstream::consumer::pull::OrderedConfig {
        filter_subject: subjects::stored_rows_of(&battery.parse()?),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut left = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await?;
    let mut frames = Vec::new();
    while left > 0 {
        let message = messages.next().await.context("the stream ends early")??;
        frames.push(RowFrame::decode(&message.payload)?);
        left -= 1;
    }
    Ok(frames)
}
