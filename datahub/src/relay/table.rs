//! What the relay reads and writes in PostgreSQL.

use std::collections::HashSet;

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{Array, BigInt, Nullable, Text, Uuid as SqlUuid},
};
use rovi_common::{fault, name::BatteryName};
use uuid::Uuid;

use super::stream::{LastMessage, LastRow};
use crate::{
    store::{StoreError, derived, durable, rows},
    stored::StoredRows,
};

/// Where a battery's next frame goes: after this message, beginning after this row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    /// Place of the battery's last message in the stream; 0 if there is none.
    pub(super) stream_seq: u64,
    /// The life of the battery's name.
    pub(super) epoch: i64,
    /// The last row that the stream has, or need not have.
    pub(super) last_seq: i64,
}

/// What is known of a battery's end of the stream, to be compared with its table.
#[derive(Debug, Clone)]
pub(super) struct StreamEnd {
    /// The battery's line in `hub.batteries`.
    pub(super) battery_id: i64,
    /// Its name.
    pub(super) battery: BatteryName,
    /// Its newest message.
    pub(super) last: Option<LastMessage>,
    /// The stream's bus epoch, read after `last` was missing.
    pub(super) bus_epoch: Option<Uuid>,
    /// Rows received before this, in microseconds since 1970, the stream would forget at once.
    pub(super) window_begin: i64,
    /// The first row that is about to be sent, where it need not be read from the table.
    pub(super) in_hand: Option<LastRow>,
}

impl StreamEnd {
    /// Tells whether a row is the one in hand, and belongs to the stream's window.
    fn has_in_hand(&self, epoch: i64, seq: i64) -> bool {
        self.in_hand.is_some_and(|row| {
            (row.epoch, row.seq) == (epoch, seq) && row.received >= self.window_begin
        })
    }
}

/// What comparing stream and table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Frames can be sent after this.
    Continue(Tail),
    /// The battery does not exist any more.
    NoBattery,
    /// The bus was wiped and the table does not know it yet.
    BusChanged,
}

/// A battery of which the stream may lack rows.
#[derive(Debug, Clone, QueryableByName)]
pub(super) struct Behind {
    /// The battery's line in `hub.batteries`.
    #[diesel(sql_type = BigInt)]
    pub(super) id: i64,
    /// Its name.
    #[diesel(sql_type = Text)]
    pub(super) name: String,
    /// The life of the name.
    #[diesel(sql_type = BigInt)]
    pub(super) epoch: i64,
    /// Its newest row.
    #[diesel(sql_type = BigInt)]
    pub(super) last_seq: i64,
    /// The newest row known to be on the stream.
    #[diesel(sql_type = BigInt)]
    pub(super) relayed_seq: i64,
}

/// That the stream has a battery's rows up to `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relayed {
    /// The battery's line in `hub.batteries`.
    pub(super) battery_id: i64,
    /// The life of the name.
    pub(super) epoch: i64,
    /// The newest row on the stream.
    pub(super) seq: i64,
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
    #[diesel(sql_type = BigInt)]
    relayed_seq: i64,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    bus_epoch: Option<Uuid>,
}

fn line(conn: &mut PgConnection, battery_id: i64) -> Result<Option<Line>, StoreError> {
    let line = sql_query(
        "SELECT epoch, last_seq, relayed_seq, (SELECT epoch FROM hub.bus) AS bus_epoch \
         FROM hub.batteries WHERE id = $1",
    )
    .bind::<BigInt, _>(battery_id);
    Ok(line.get_result(conn).optional()?)
}

/// Finds out where a battery's next frame goes.
///
/// The stream must have been read before, so that a table that lacks the stream's last row, or
/// has another one there, is a table restored from a backup: then a new epoch begins.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub(super) fn standing(conn: &mut PgConnection, end: &StreamEnd) -> Result<Standing, StoreError> {
    let Some(line) = line(conn, end.battery_id)? else {
        return Ok(Standing::NoBattery);
    };
    let Some((stream_seq, row)) = end.last.map(|last| (last.stream_seq, last.row)) else {
        return begin_without_rows(conn, end, &line, 0);
    };
    let Some(row) = row else {
        return begin_without_rows(conn, end, &line, stream_seq);
    };
    let tail = |epoch, last_seq| {
        Ok(Standing::Continue(Tail {
            stream_seq,
            epoch,
            last_seq,
        }))
    };
    if row.epoch < line.epoch {
        return tail(line.epoch, 0);
    }
    let same_history = row.seq <= line.last_seq && {
        let known = rows::read(conn, &end.battery, row.seq..=row.seq, 1)?;
        let received = known.first().and_then(|rows| rows.received.first());
        // Where retention removed the row, its place is all there is to compare.
        received.is_none_or(|received| *received == row.received)
    };
    if row.epoch == line.epoch && same_history {
        return tail(line.epoch, row.seq);
    }
    begin_epoch(conn, end, &line, row)?;
    tail(row.epoch + 1, 0)
}

/// Without a frame on the stream, begins where its window does, after what was relayed before.
fn begin_without_rows(
    conn: &mut PgConnection,
    end: &StreamEnd,
    line: &Line,
    stream_seq: u64,
) -> Result<Standing, StoreError> {
    // What counts as relayed went to the bus that the table knows.
    if end.bus_epoch.is_none() || end.bus_epoch != line.bus_epoch {
        return Ok(Standing::BusChanged);
    }
    let next = line.relayed_seq + 1;
    let first = if end.has_in_hand(line.epoch, next) {
        next
    } else {
        first_within(conn, end, next, line.last_seq)?
    };
    Ok(Standing::Continue(Tail {
        stream_seq,
        epoch: line.epoch,
        last_seq: first - 1,
    }))
}

/// Finds the first row of `low..=last` that belongs to the stream's window, by bisection over
/// the primary key: rows are received in the order of `seq`, or nearly so.
fn first_within(
    conn: &mut PgConnection,
    end: &StreamEnd,
    mut low: i64,
    last: i64,
) -> Result<i64, StoreError> {
    let mut high = last + 1;
    // Mostly all of it does, so that is looked at first.
    let mut probe = low;
    while low < high {
        let found = rows::read(conn, &end.battery, probe..=last, 1)?;
        let received = found.first().and_then(|rows| rows.received.first());
        if received.is_some_and(|received| *received >= end.window_begin) {
            high = probe;
        } else {
            low = probe + 1;
        }
        probe = low + (high - low) / 2;
    }
    Ok(low)
}

/// Begins a new epoch of a battery whose table was restored, unless somebody else just did.
fn begin_epoch(
    conn: &mut PgConnection,
    end: &StreamEnd,
    line: &Line,
    row: LastRow,
) -> Result<(), StoreError> {
    let change = format!(
        "the bus has row {} of epoch {}, which this table never had: restored from a backup? \
         All rows go out again as epoch {}",
        row.seq,
        row.epoch,
        row.epoch + 1
    );
    let begun = conn.transaction(|conn| {
        let begun = sql_query(
            "UPDATE hub.batteries SET epoch = $3, relayed_seq = 0 WHERE id = $1 AND epoch = $2",
        )
        .bind::<BigInt, _>(end.battery_id)
        .bind::<BigInt, _>(line.epoch)
        .bind::<BigInt, _>(row.epoch + 1)
        .execute(conn)?;
        if begun > 0 {
            // They are the same rows, with the same gaps.
            sql_query("UPDATE hub.corrections SET epoch = $3 WHERE battery_id = $1 AND epoch = $2")
                .bind::<BigInt, _>(end.battery_id)
                .bind::<BigInt, _>(line.epoch)
                .bind::<BigInt, _>(row.epoch + 1)
                .execute(conn)?;
            sql_query(
                "INSERT INTO hub.table_changes (battery_id, epoch, after_seq, change) \
                 SELECT id, epoch, last_seq, $2 FROM hub.batteries WHERE id = $1",
            )
            .bind::<BigInt, _>(end.battery_id)
            .bind::<Text, _>(&change)
            .execute(conn)?;
        }
        Ok::<_, StoreError>(begun)
    })?;
    if begun > 0 {
        tracing::warn!(battery.id = %end.battery, "{}: {change}", end.battery);
    }
    Ok(())
}

/// Rows read after a [`Tail`].
#[derive(Debug)]
pub(super) struct Chunk {
    /// The rows, cut at segments.
    pub(super) rows: Vec<StoredRows>,
    /// The battery's newest row when they were read.
    pub(super) last_seq: i64,
}

/// Reads up to `limit` rows after `tail`; `None` where the epoch is over.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(super) fn rows_after(
    conn: &mut PgConnection,
    battery_id: i64,
    battery: &BatteryName,
    tail: Tail,
    limit: i64,
) -> Result<Option<Chunk>, StoreError> {
    let Some(before) = line(conn, battery_id)?.filter(|line| line.epoch == tail.epoch) else {
        return Ok(None);
    };
    let last_seq = before.last_seq;
    let mut found = Vec::new();
    if tail.last_seq < last_seq {
        durable::settle(conn)?;
        found = rows::read(conn, battery, tail.last_seq + 1..=last_seq, limit)?;
    }
    for rows in &mut found {
        (rows.battery_id, rows.epoch) = (battery_id, tail.epoch);
    }
    // A deletion renames the table and raises the epoch at once: so the epoch before and after
    // tells whose rows these are.
    let after = line(conn, battery_id)?;
    let is_same = after.is_some_and(|line| line.epoch == tail.epoch);
    Ok(is_same.then_some(Chunk {
        rows: found,
        last_seq,
    }))
}

/// Lists batteries of which the stream may lack rows, by id.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(super) fn behind(
    conn: &mut PgConnection,
    after_id: i64,
    limit: i64,
) -> Result<Vec<Behind>, StoreError> {
    let query = sql_query(
        "SELECT id, name, epoch, last_seq, relayed_seq FROM hub.batteries \
         WHERE relayed_seq < last_seq AND id > $1 ORDER BY id LIMIT $2",
    );
    Ok(query
        .bind::<BigInt, _>(after_id)
        .bind::<BigInt, _>(limit)
        .load(conn)?)
}

/// How far the bus is behind the tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, QueryableByName)]
pub(super) struct Lag {
    /// Rows that are not marked as relayed.
    #[diesel(sql_type = BigInt)]
    pub(super) rows: i64,
    /// Batteries that have such rows.
    #[diesel(sql_type = BigInt)]
    pub(super) batteries: i64,
}

/// Counts the rows that are not marked as relayed.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(super) fn lag(conn: &mut PgConnection) -> Result<Lag, StoreError> {
    let counted = sql_query(
        "SELECT coalesce(sum(last_seq - relayed_seq), 0)::bigint AS rows, \
         count(*) AS batteries FROM hub.batteries WHERE relayed_seq < last_seq",
    );
    Ok(counted.get_result(conn)?)
}

/// Lists the batteries with the most rows that are not marked as relayed.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(super) fn furthest_behind(
    conn: &mut PgConnection,
    limit: i64,
) -> Result<Vec<Behind>, StoreError> {
    let query = sql_query(
        "SELECT id, name, epoch, last_seq, relayed_seq FROM hub.batteries \
         WHERE relayed_seq < last_seq ORDER BY last_seq - relayed_seq DESC LIMIT $1",
    );
    Ok(query.bind::<BigInt, _>(limit).load(conn)?)
}

/// Moves `relayed_seq` of many batteries forward, if the bus is still the one of `bus_epoch`;
/// returns which batteries moved.
///
/// Lines that a writer holds are passed over: the hint must not make anybody wait.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was moved.
pub(super) fn mark_relayed(
    conn: &mut PgConnection,
    bus_epoch: Uuid,
    relayed: &[Relayed],
) -> Result<HashSet<i64>, StoreError> {
    let ids: Vec<i64> = relayed.iter().map(|one| one.battery_id).collect();
    let epochs: Vec<i64> = relayed.iter().map(|one| one.epoch).collect();
    let seqs: Vec<i64> = relayed.iter().map(|one| one.seq).collect();
    derived(conn, |conn| {
        #[derive(QueryableByName)]
        struct Known {
            #[diesel(sql_type = SqlUuid)]
            epoch: Uuid,
        }
        #[derive(QueryableByName)]
        struct Moved {
            #[diesel(sql_type = BigInt)]
            id: i64,
        }
        // Held until the end, so that a wiped bus is noticed before or after, never between.
        let known: Option<Known> = sql_query("SELECT epoch FROM hub.bus FOR SHARE")
            .get_result(conn)
            .optional()?;
        if known.is_none_or(|known| known.epoch != bus_epoch) {
            return Ok(HashSet::new());
        }
        let moved: Vec<Moved> = sql_query(
            "UPDATE hub.batteries battery SET relayed_seq = free.seq FROM ( \
               SELECT known.id, hint.seq FROM hub.batteries known \
               JOIN unnest($1, $2, $3) AS hint(id, epoch, seq) \
                 ON hint.id = known.id AND hint.epoch = known.epoch \
               WHERE known.relayed_seq < hint.seq \
               ORDER BY known.id FOR NO KEY UPDATE OF known SKIP LOCKED \
             ) AS free WHERE battery.id = free.id RETURNING battery.id",
        )
        .bind::<Array<BigInt>, _>(ids)
        .bind::<Array<BigInt>, _>(epochs)
        .bind::<Array<BigInt>, _>(seqs)
        .load(conn)?;
        fault::passed("hub.mark_relayed");
        Ok(moved.into_iter().map(|moved| moved.id).collect())
    })
}

/// A battery by its line and name.
#[derive(Debug, Clone, QueryableByName)]
pub(super) struct Named {
    /// The battery's line in `hub.batteries`.
    #[diesel(sql_type = BigInt)]
    pub(super) id: i64,
    /// Its name.
    #[diesel(sql_type = Text)]
    pub(super) name: String,
}

/// Lists the batteries that have rows, by name.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(super) fn with_rows(conn: &mut PgConnection) -> Result<Vec<Named>, StoreError> {
    let query = sql_query("SELECT id, name FROM hub.batteries WHERE last_seq > 0 ORDER BY name");
    Ok(query.load(conn)?)
}

/// Moves `relayed_seq` of a battery back: what comes after goes out anew.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was moved.
pub(super) fn lower_relayed(conn: &mut PgConnection, to: Relayed) -> Result<usize, StoreError> {
    let moved = sql_query(
        "UPDATE hub.batteries SET relayed_seq = $3 \
         WHERE id = $1 AND epoch = $2 AND relayed_seq > $3",
    )
    .bind::<BigInt, _>(to.battery_id)
    .bind::<BigInt, _>(to.epoch)
    .bind::<BigInt, _>(to.seq)
    .execute(conn)?;
    Ok(moved)
}
