//! `hub.cycles`: brought up to the newest rows, a piece at a time, each row once.
//!
//! The cursor moves in the transaction that writes the cycles, with the state of the cycle that is
//! going on: so whatever happens in between, the result is that of one pass over all rows.

use std::ops::RangeInclusive;

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    sql_query,
    sql_types::{BigInt, Binary, Bool, Double, Integer, Nullable, Text},
};
use rovi_common::name::BatteryName;

use super::{
    StoreError,
    batteries::{self, Line},
    derived,
    samples::{Samples, Which},
};
use crate::cycles::{
    fold::Going,
    integral::{Cycle, Sample},
};

/// Rows of one piece.
const PIECE_ROWS: usize = 2_000;
/// Cycles computed anew in one piece.
const MOST_STALE: usize = 16;

/// A battery whose cycles are behind.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct Behind {
    #[diesel(sql_type = BigInt)]
    pub(crate) id: i64,
    #[diesel(sql_type = Text)]
    pub(crate) name: String,
}

/// Lists batteries whose cycles are behind their rows, by id.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn behind(
    connection: &mut PgConnection,
    after_id: i64,
    limit: i64,
) -> Result<Vec<Behind>, StoreError> {
    Ok(sql_query(
        "SELECT b.id, b.name FROM hub.batteries b \
         LEFT JOIN hub.cycle_cursors c ON c.battery_id = b.id \
         WHERE b.id > $1 AND b.form > 0 AND (b.last_seq > coalesce(c.seq, 0) \
           OR EXISTS (SELECT FROM hub.cycles s WHERE s.battery = b.name AND s.is_stale)) \
         ORDER BY b.id LIMIT $2",
    )
    .bind::<BigInt, _>(after_id)
    .bind::<BigInt, _>(limit)
    .load(connection)?)
}

/// What a piece of work came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    /// Rows taken.
    pub(crate) rows: usize,
    /// Whether there was more to do.
    pub(crate) more: bool,
}

#[derive(QueryableByName)]
struct Cursor {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Nullable<Binary>)]
    state: Option<Vec<u8>>,
}

/// Takes a battery's next rows; `None` where another hub does, or the battery is gone.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub(crate) fn advance(
    connection: &mut PgConnection,
    battery: &str,
) -> Result<Option<Done>, StoreError> {
    derived(connection, |connection| {
        // Whoever deletes the battery waits for this.
        sql_query("SELECT FROM hub.batteries WHERE name = $1 FOR KEY SHARE")
            .bind::<Text, _>(battery)
            .execute(connection)?;
        let Some(line) = batteries::find(connection, battery)? else {
            return Ok(None);
        };
        let Some(cursor) = cursor(connection, line.id)? else {
            return Ok(None);
        };
        let Some(samples) = Samples::of(connection, &line)? else {
            move_cursor(connection, line.id, line.last_seq, None)?;
            return Ok(Some(Done {
                rows: 0,
                more: false,
            }));
        };
        // A state of another version of this program begins anew with the next cycle.
        let state = cursor
            .state
            .and_then(|state| rmp_serde::from_slice(&state).ok());
        let mut going: Going = state.unwrap_or_default();
        let rows = samples.read(connection, Which::After(cursor.seq, PIECE_ROWS))?;
        let folded = going.take(&rows, |segment, number| {
            is_known(connection, battery, segment, number)
        })?;
        for cycle in folded.ended.iter().chain(&going.cycle) {
            write(connection, battery, cycle)?;
        }
        for (segment, number, late) in folded.late {
            set_late(connection, battery, (segment, number), late)?;
        }
        let end = rows
            .last()
            .map_or(line.last_seq, |row| row.seq)
            .max(cursor.seq);
        // Late rows that come without end would have their cycle computed anew after every piece.
        let is_behind = rows.len() >= PIECE_ROWS;
        let has_stale =
            !is_behind && recompute(connection, &line, &samples, &mut going)? >= MOST_STALE;
        move_cursor(connection, line.id, end, Some(&going))?;
        let more = is_behind || has_stale;
        Ok(Some(Done {
            rows: rows.len(),
            more,
        }))
    })
}

/// Says that rows of a range of `seq` were changed: their cycles are computed anew.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub fn invalidate(
    connection: &mut PgConnection,
    battery: &BatteryName,
    seq: RangeInclusive<i64>,
) -> Result<usize, StoreError> {
    Ok(sql_query(
        "UPDATE hub.cycles SET is_stale = true \
         WHERE battery = $1 AND first_seq <= $3 AND last_seq >= $2",
    )
    .bind::<Text, _>(battery.as_str())
    .bind::<BigInt, _>(seq.start())
    .bind::<BigInt, _>(seq.end())
    .execute(connection)?)
}

/// Says that a row was given another `cycle_number`: the cycle that it is of now is computed anew,
/// and begun where there is none yet.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn row_moved(
    connection: &mut PgConnection,
    battery: &BatteryName,
    seq: i64,
) -> Result<(), StoreError> {
    let Some(line) = batteries::find(connection, battery.as_str())? else {
        return Ok(());
    };
    let Some(samples) = Samples::of(connection, &line)? else {
        return Ok(());
    };
    let rows = samples.read(connection, Which::Range(seq, seq))?;
    let Some((segment, number)) = rows.first().and_then(|row| Some((row.segment, row.cycle?)))
    else {
        return Ok(());
    };
    // Rows that are not counted yet find their cycle by themselves.
    sql_query(
        "INSERT INTO hub.cycles (battery, first_seq, last_seq, segment, cycle_number, \"rows\", \
           is_complete, is_stale) \
         SELECT $1, $2, $2, $3, $4, 0, true, true FROM hub.cycle_cursors c \
         WHERE c.battery_id = $5 AND c.seq >= $2 AND NOT EXISTS (SELECT FROM hub.cycles known \
           WHERE known.battery = $1 AND known.segment = $3 AND known.cycle_number = $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind::<Text, _>(battery.as_str())
    .bind::<BigInt, _>(seq)
    .bind::<Integer, _>(segment)
    .bind::<BigInt, _>(number)
    .bind::<BigInt, _>(line.id)
    .execute(connection)?;
    Ok(set_late(
        connection,
        battery.as_str(),
        (segment, number),
        seq,
    )?)
}

/// Reads the cursor and holds it; `None` while another hub does.
fn cursor(connection: &mut PgConnection, battery_id: i64) -> QueryResult<Option<Cursor>> {
    sql_query("INSERT INTO hub.cycle_cursors (battery_id) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind::<BigInt, _>(battery_id)
        .execute(connection)?;
    sql_query(
        "SELECT seq, state FROM hub.cycle_cursors WHERE battery_id = $1 FOR UPDATE SKIP LOCKED",
    )
    .bind::<BigInt, _>(battery_id)
    .get_result(connection)
    .optional()
}

fn move_cursor(
    connection: &mut PgConnection,
    battery_id: i64,
    seq: i64,
    going: Option<&Going>,
) -> QueryResult<()> {
    let state = going.and_then(|going| rmp_serde::to_vec(going).ok());
    sql_query("UPDATE hub.cycle_cursors SET seq = $2, state = $3 WHERE battery_id = $1")
        .bind::<BigInt, _>(battery_id)
        .bind::<BigInt, _>(seq)
        .bind::<Nullable<Binary>, _>(state)
        .execute(connection)
        .map(drop)
}

fn is_known(
    connection: &mut PgConnection,
    battery: &str,
    segment: i32,
    number: i64,
) -> QueryResult<bool> {
    sql_query(
        "SELECT FROM hub.cycles WHERE battery = $1 AND segment = $2 AND cycle_number = $3 LIMIT 1",
    )
    .bind::<Text, _>(battery)
    .bind::<Integer, _>(segment)
    .bind::<BigInt, _>(number)
    .execute(connection)
    .map(|found| found > 0)
}

fn set_late(
    connection: &mut PgConnection,
    battery: &str,
    (segment, number): (i32, i64),
    seq: i64,
) -> QueryResult<()> {
    sql_query(
        "UPDATE hub.cycles SET is_stale = true, last_seq = greatest(last_seq, $4) \
         WHERE battery = $1 AND segment = $2 AND cycle_number = $3",
    )
    .bind::<Text, _>(battery)
    .bind::<Integer, _>(segment)
    .bind::<BigInt, _>(number)
    .bind::<BigInt, _>(seq)
    .execute(connection)
    .map(drop)
}

/// Writes a cycle as it is now.
fn write(connection: &mut PgConnection, battery: &str, cycle: &Cycle) -> QueryResult<()> {
    let capacity = cycle.capacity();
    let (voltages, temperatures) = (cycle.voltages(), cycle.temperatures());
    sql_query(
        "INSERT INTO hub.cycles (battery, first_seq, last_seq, segment, cycle_number, \"rows\", \
           is_complete, is_stale, cycle_start, cycle_duration, capacity_discharge, \
           energy_discharge, capacity_charge, energy_charge, \"V_minimum\", \"V_maximum\", \
           temperature_minimum, temperature_maximum) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) \
         ON CONFLICT (battery, first_seq) DO UPDATE SET last_seq = excluded.last_seq, \
           cycle_number = excluded.cycle_number, \"rows\" = excluded.\"rows\", \
           is_complete = excluded.is_complete, is_stale = excluded.is_stale, \
           cycle_start = excluded.cycle_start, cycle_duration = excluded.cycle_duration, \
           capacity_discharge = excluded.capacity_discharge, \
           energy_discharge = excluded.energy_discharge, \
           capacity_charge = excluded.capacity_charge, energy_charge = excluded.energy_charge, \
           \"V_minimum\" = excluded.\"V_minimum\", \"V_maximum\" = excluded.\"V_maximum\", \
           temperature_minimum = excluded.temperature_minimum, \
           temperature_maximum = excluded.temperature_maximum",
    )
    .bind::<Text, _>(battery)
    .bind::<BigInt, _>(cycle.first_seq)
    .bind::<BigInt, _>(cycle.last_seq)
    .bind::<Integer, _>(cycle.segment)
    .bind::<Nullable<BigInt>, _>(cycle.number)
    .bind::<BigInt, _>(i64::try_from(cycle.rows).unwrap_or(i64::MAX))
    .bind::<Bool, _>(cycle.is_complete)
    .bind::<Bool, _>(cycle.is_stale)
    .bind::<Nullable<Double>, _>(cycle.start())
    .bind::<Nullable<Double>, _>(cycle.duration())
    .bind::<Nullable<Double>, _>(capacity.map(|capacity| capacity.discharged))
    .bind::<Nullable<Double>, _>(capacity.map(|capacity| capacity.energy_out))
    .bind::<Nullable<Double>, _>(capacity.map(|capacity| capacity.charged))
    .bind::<Nullable<Double>, _>(capacity.map(|capacity| capacity.energy_in))
    .bind::<Nullable<Double>, _>(voltages.map(|(lowest, _)| lowest))
    .bind::<Nullable<Double>, _>(voltages.map(|(_, highest)| highest))
    .bind::<Nullable<Double>, _>(temperatures.map(|(lowest, _)| lowest))
    .bind::<Nullable<Double>, _>(temperatures.map(|(_, highest)| highest))
    .execute(connection)
    .map(drop)
}

#[derive(QueryableByName)]
struct Stale {
    #[diesel(sql_type = BigInt)]
    first_seq: i64,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
    #[diesel(sql_type = Integer)]
    segment: i32,
    #[diesel(sql_type = Nullable<BigInt>)]
    cycle_number: Option<i64>,
    /// First row of the cycle that followed in the segment.
    #[diesel(sql_type = Nullable<BigInt>)]
    next_seq: Option<i64>,
    #[diesel(sql_type = Bool)]
    is_complete: bool,
}

/// Computes stale cycles anew from the table, in the order of time; returns how many.
///
/// A cycle that has lost rows to retention stays as it was.
fn recompute(
    connection: &mut PgConnection,
    line: &Line,
    samples: &Samples,
    going: &mut Going,
) -> QueryResult<usize> {
    let stale: Vec<Stale> = sql_query(
        "SELECT first_seq, last_seq, segment, cycle_number, is_complete, \
           (SELECT min(n.first_seq) FROM hub.cycles n WHERE n.battery = c.battery \
             AND n.segment = c.segment AND n.first_seq > c.first_seq) AS next_seq \
         FROM hub.cycles c WHERE battery = $1 AND is_stale ORDER BY first_seq LIMIT $2",
    )
    .bind::<Text, _>(&line.name)
    .bind::<BigInt, _>(i64::try_from(MOST_STALE).unwrap_or(i64::MAX))
    .load(connection)?;
    for one in &stale {
        if one.first_seq < line.first_seq {
            sql_query(
                "UPDATE hub.cycles SET is_stale = false WHERE battery = $1 AND first_seq = $2",
            )
            .bind::<Text, _>(&line.name)
            .bind::<BigInt, _>(one.first_seq)
            .execute(connection)?;
            continue;
        }
        let mut cycle = compute(connection, samples, one)?;
        let is_going = |going: &Cycle| going.first_seq == one.first_seq;
        if going.cycle.as_ref().is_some_and(is_going) {
            going.cycle.clone_from(&cycle);
        } else if let (Some(cycle), true) = (&mut cycle, one.is_complete) {
            let next = one
                .next_seq
                .map(|seq| samples.read(connection, Which::Range(seq, seq)));
            let next: Option<Sample> = next.transpose()?.and_then(|rows| rows.first().copied());
            cycle.end(next.as_ref());
        }
        match cycle {
            Some(cycle) => write(connection, &line.name, &cycle)?,
            None => forget(connection, &line.name, one.first_seq)?,
        }
    }
    Ok(stale.len())
}

/// Removes a cycle of which no row is left.
fn forget(connection: &mut PgConnection, battery: &str, first_seq: i64) -> QueryResult<()> {
    sql_query("DELETE FROM hub.cycles WHERE battery = $1 AND first_seq = $2")
        .bind::<Text, _>(battery)
        .bind::<BigInt, _>(first_seq)
        .execute(connection)
        .map(drop)
}

fn compute(
    connection: &mut PgConnection,
    samples: &Samples,
    stale: &Stale,
) -> QueryResult<Option<Cycle>> {
    let which = Which::OfCycle {
        range: (stale.first_seq, stale.last_seq),
        segment: stale.segment,
        number: stale.cycle_number,
    };
    let mut cycle: Option<Cycle> = None;
    samples.each(connection, which, |sample| match &mut cycle {
        Some(cycle) => cycle.add(&sample),
        None => cycle = Some(Cycle::begin(&sample)),
    })?;
    // The line keeps its key, even where its first row was taken away.
    if let Some(cycle) = &mut cycle {
        cycle.first_seq = stale.first_seq;
        cycle.last_seq = stale.last_seq;
    }
    Ok(cycle)
}

/// A cycle as it is shown.
#[derive(Debug, Clone, PartialEq, QueryableByName, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Listed {
    /// The first row.
    #[diesel(sql_type = BigInt)]
    pub(crate) first_seq: i64,
    /// The newest row.
    #[diesel(sql_type = BigInt)]
    pub(crate) last_seq: i64,
    /// The test.
    #[diesel(sql_type = Integer)]
    pub(crate) segment: i32,
    /// Null where rows are not numbered: then a segment is one cycle.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub(crate) cycle_number: Option<i64>,
    /// Whether the next cycle began.
    #[diesel(sql_type = Bool)]
    pub(crate) is_complete: bool,
    /// Whether it is about to be computed anew.
    #[diesel(sql_type = Bool)]
    pub(crate) is_stale: bool,
    /// Rows with time, current and voltage.
    #[diesel(sql_type = BigInt)]
    pub(crate) rows: i64,
    /// s
    #[diesel(sql_type = Nullable<Double>)]
    pub(crate) cycle_start: Option<f64>,
    /// s
    #[diesel(sql_type = Nullable<Double>)]
    pub(crate) cycle_duration: Option<f64>,
    /// A·h
    #[diesel(sql_type = Nullable<Double>)]
    pub(crate) capacity_discharge: Option<f64>,
    /// W·h
    #[diesel(sql_type = Nullable<Double>)]
    pub(crate) energy_discharge: Option<f64>,
    /// A·h
    #[diesel(sql_type = Nullable<Double>)]
    pub(crate) capacity_charge: Option<f64>,
    /// W·h
    #[diesel(sql_type = Nullable<Double>)]
    pub(crate) energy_charge: Option<f64>,
    /// V
    #[diesel(sql_type = Nullable<Double>, column_name = "V_maximum")]
    #[serde(rename = "V_maximum")]
    pub(crate) voltage_maximum: Option<f64>,
    /// V
    #[diesel(sql_type = Nullable<Double>, column_name = "V_minimum")]
    #[serde(rename = "V_minimum")]
    pub(crate) voltage_minimum: Option<f64>,
    /// °C
    #[diesel(sql_type = Nullable<Double>)]
    pub(crate) temperature_minimum: Option<f64>,
    /// °C
    #[diesel(sql_type = Nullable<Double>)]
    pub(crate) temperature_maximum: Option<f64>,
}

/// Cycles of a battery and how far they are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cycles {
    /// The life of the name.
    pub(crate) epoch: i64,
    /// Rows up to this are counted.
    pub(crate) up_to_seq: i64,
    /// In the order of `first_seq`.
    pub(crate) listed: Vec<Listed>,
}

/// Reads up to `limit` cycles that begin after a row; `None` where there is no such battery.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn list(
    connection: &mut PgConnection,
    battery: &BatteryName,
    (after_seq, limit): (i64, i64),
) -> Result<Option<Cycles>, StoreError> {
    #[derive(QueryableByName)]
    struct Standing {
        #[diesel(sql_type = BigInt)]
        epoch: i64,
        #[diesel(sql_type = BigInt)]
        seq: i64,
    }
    connection.transaction(|connection| {
        let standing: Option<Standing> = sql_query(
            "SELECT b.epoch, coalesce(c.seq, 0) AS seq FROM hub.batteries b \
             LEFT JOIN hub.cycle_cursors c ON c.battery_id = b.id WHERE b.name = $1",
        )
        .bind::<Text, _>(battery.as_str())
        .get_result(connection)
        .optional()?;
        let Some(standing) = standing else {
            return Ok(None);
        };
        let listed = sql_query(
            "SELECT * FROM hub.cycles WHERE battery = $1 AND first_seq > $2 \
             ORDER BY first_seq LIMIT $3",
        )
        .bind::<Text, _>(battery.as_str())
        .bind::<BigInt, _>(after_seq)
        .bind::<BigInt, _>(limit)
        .load(connection)?;
        Ok(Some(Cycles {
            epoch: standing.epoch,
            up_to_seq: standing.seq,
            listed,
        }))
    })
}
