//! Removing old rows, a piece at a time.
//!
//! First `hub.batteries.first_seq` says that rows are gone, then they go: so nobody is told of a
//! row that is not there, and the battery's line is held for one short update only. Rows that are
//! not on the bus yet, or not in the battery's cycles, stay.

use std::time::Duration;

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    sql_query,
    sql_types::{BigInt, Bool, Integer, Json, Nullable, Text},
};
use rovi_common::name::BatteryName;
use serde::{Deserialize, Serialize};

use super::{StoreError, rollups, statement::Statement};

/// First half of the key of the advisory locks under which one hub at a time removes a battery's
/// rows: `gone` in ASCII.
const GONE_LOCK: i32 = 0x676f_6e65;

/// Which rows stay; without any bound, all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// How long ago a row may have been received.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// How many of the newest rows stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<i64>,
}

impl Rule {
    /// Tells whether any row may ever go.
    pub fn has_bound(&self) -> bool {
        self.max_age.is_some() || self.max_rows.is_some()
    }

    /// Tells whether the bounds make sense. 0 does not: many a system means "no bound" by it, and
    /// here it would remove every row.
    pub fn is_usable(&self) -> bool {
        let ages = Duration::from_nanos(1)..=Duration::from_hours(24 * 365 * 200);
        self.max_rows.is_none_or(|rows| rows > 0)
            && self.max_age.is_none_or(|age| ages.contains(&age))
    }
}

/// A battery that may have rows to remove.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct Candidate {
    #[diesel(sql_type = BigInt)]
    pub(crate) id: i64,
    #[diesel(sql_type = Text)]
    pub(crate) name: String,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    first_seq: i64,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
    /// Rows up to this are on the bus and in the cycles.
    #[diesel(sql_type = BigInt)]
    done_seq: i64,
    #[diesel(sql_type = Nullable<Json>)]
    retention: Option<serde_json::Value>,
}

impl Candidate {
    /// Returns the battery's own rule, or the default.
    pub(crate) fn rule(&self, default: Rule) -> Rule {
        let own = self.retention.clone();
        own.and_then(|own| serde_json::from_value(own).ok())
            .unwrap_or(default)
    }
}

/// Lists batteries with rows, by id after `after_id`.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn candidates(
    connection: &mut PgConnection,
    after_id: i64,
    limit: i64,
) -> Result<Vec<Candidate>, StoreError> {
    Ok(sql_query(
        "SELECT b.id, b.name, b.epoch, b.first_seq, b.last_seq, \
           least(b.relayed_seq, coalesce(c.seq, 0)) AS done_seq, b.retention \
         FROM hub.batteries b LEFT JOIN hub.cycle_cursors c ON c.battery_id = b.id \
         WHERE b.last_seq > 0 AND b.form > 0 AND b.id > $1 ORDER BY b.id LIMIT $2",
    )
    .bind::<BigInt, _>(after_id)
    .bind::<BigInt, _>(limit)
    .load(connection)?)
}

/// Removes at most `most_rows` rows that a rule lets go; returns how many went.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn remove(
    connection: &mut PgConnection,
    battery: &Candidate,
    rule: Rule,
    (now_us, most_rows): (i64, i64),
) -> Result<usize, StoreError> {
    let up_to = last_gone(connection, battery, rule, now_us)?.min(battery.done_seq);
    let piece_end = up_to.min(battery.first_seq.saturating_add(most_rows - 1));
    if piece_end >= battery.first_seq {
        let told = sql_query(
            "UPDATE hub.batteries b SET first_seq = $3, deleted_rows = deleted_rows - (SELECT count(*) \
               FROM hub.corrections c JOIN hub.corrected_rows r USING (battery_id, revision) \
               WHERE c.battery_id = $1 AND c.epoch = $2 AND c.kind = 'deleted' \
                 AND r.seq >= b.first_seq AND r.seq < $3) \
             WHERE id = $1 AND epoch = $2 AND first_seq < $3",
        )
        .bind::<BigInt, _>(battery.id)
        .bind::<BigInt, _>(battery.epoch)
        .bind::<BigInt, _>(piece_end + 1);
        told.execute(connection)?;
    }
    Ok(sweep_out(connection, battery, most_rows)?)
}

/// Returns the last row that a rule lets go; 0 if none.
fn last_gone(
    connection: &mut PgConnection,
    battery: &Candidate,
    rule: Rule,
    now_us: i64,
) -> QueryResult<i64> {
    let by_rows = rule
        .max_rows
        .map_or(0, |rows| battery.last_seq.saturating_sub(rows));
    let by_age = match rule.max_age {
        None => 0,
        Some(age) => {
            let age_us = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            last_before(connection, battery, now_us.saturating_sub(age_us))?
        }
    };
    Ok(by_rows.max(by_age))
}

/// Finds the last row received before `time_us`, by bisection over the primary key: rows are
/// received in the order of `seq`, or nearly so.
fn last_before(
    connection: &mut PgConnection,
    battery: &Candidate,
    time_us: i64,
) -> QueryResult<i64> {
    let (mut low, mut high) = (battery.first_seq, battery.last_seq + 1);
    // Mostly nothing is old enough, so the first row is looked at first.
    let mut probe = low;
    while low < high {
        if received(connection, battery, probe)?.is_some_and(|received| received >= time_us) {
            high = probe;
        } else {
            low = probe + 1;
        }
        probe = low + (high - low) / 2;
    }
    Ok(low - 1)
}

/// Reads when the first row from `seq` on was received, in microseconds since 1970.
fn received(
    connection: &mut PgConnection,
    battery: &Candidate,
    seq: i64,
) -> QueryResult<Option<i64>> {
    #[derive(QueryableByName)]
    struct Received {
        #[diesel(sql_type = BigInt)]
        at: i64,
    }
    let row: Option<Received> = Statement::once()
        .sql("SELECT (extract(epoch FROM received) * 1000000)::bigint AS at FROM ")
        .battery(&battery.name)
        .sql(" WHERE seq >= ")
        .long(seq)
        .sql(" ORDER BY seq LIMIT 1")
        .get_result(connection)
        .optional()?;
    Ok(row.map(|row| row.at))
}

/// Deletes rows that are said to be gone.
fn sweep_out(
    connection: &mut PgConnection,
    battery: &Candidate,
    most_rows: i64,
) -> QueryResult<usize> {
    #[derive(QueryableByName)]
    struct Line {
        #[diesel(sql_type = BigInt)]
        first_seq: i64,
    }
    #[derive(QueryableByName)]
    struct Turn {
        #[diesel(sql_type = Bool)]
        is_ours: bool,
    }
    connection.transaction(|connection| {
        let turn: Turn = sql_query("SELECT pg_try_advisory_xact_lock($1, $2) AS is_ours")
            .bind::<Integer, _>(GONE_LOCK)
            .bind::<Integer, _>(i32::try_from(battery.id % i64::from(i32::MAX)).unwrap_or(0))
            .get_result(connection)?;
        // Writers go on; whoever deletes the battery waits, and the next life of its name with it.
        let line: Option<Line> = sql_query(
            "SELECT first_seq FROM hub.batteries WHERE id = $1 AND epoch = $2 FOR KEY SHARE",
        )
        .bind::<BigInt, _>(battery.id)
        .bind::<BigInt, _>(battery.epoch)
        .get_result(connection)
        .optional()?;
        let Some(line) = line.filter(|_| turn.is_ours) else {
            return Ok(0);
        };
        let gone = Statement::once()
            .sql("DELETE FROM ")
            .battery(&battery.name)
            .sql(" WHERE seq IN (SELECT seq FROM ")
            .battery(&battery.name)
            .sql(" WHERE seq < ")
            .long(line.first_seq)
            .sql(" ORDER BY seq LIMIT ")
            .long(most_rows)
            .sql(")")
            .execute(connection)?;
        if gone > 0 {
            rollups::invalidate(connection, battery.id, 1..=line.first_seq - 1)?;
        }
        Ok(gone)
    })
}

/// A battery's rule, and what is gone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    /// The battery's own rule; none if that of the settings holds.
    pub(crate) own: Option<Rule>,
    /// The first row that is not gone.
    pub(crate) first_seq: i64,
    /// The newest row.
    pub(crate) last_seq: i64,
}

#[derive(QueryableByName)]
struct StandingRow {
    #[diesel(sql_type = BigInt)]
    first_seq: i64,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
    #[diesel(sql_type = Nullable<Json>)]
    retention: Option<serde_json::Value>,
}

/// Reads a battery's rule; `None` where there is no such battery.
///
/// # Errors
/// As diesel's.
pub(crate) fn read(
    connection: &mut PgConnection,
    battery: &BatteryName,
) -> QueryResult<Option<Standing>> {
    let row: Option<StandingRow> =
        sql_query("SELECT first_seq, last_seq, retention FROM hub.batteries WHERE name = $1")
            .bind::<Text, _>(battery.as_str())
            .get_result(connection)
            .optional()?;
    Ok(row.map(|row| Standing {
        own: row
            .retention
            .and_then(|own| serde_json::from_value(own).ok()),
        first_seq: row.first_seq,
        last_seq: row.last_seq,
    }))
}

/// Gives a battery a rule of its own, or takes it away; false where there is no such battery.
///
/// # Errors
/// As diesel's.
pub(crate) fn write(
    connection: &mut PgConnection,
    battery: &BatteryName,
    own: Option<Rule>,
) -> QueryResult<bool> {
    let own = own.and_then(|own| serde_json::to_value(own).ok());
    let written = sql_query("UPDATE hub.batteries SET retention = $2 WHERE name = $1")
        .bind::<Text, _>(battery.as_str())
        .bind::<Nullable<Json>, _>(own)
        .execute(connection)?;
    Ok(written > 0)
}
