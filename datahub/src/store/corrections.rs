//! `hub.corrections`: rows changed or deleted after they were stored, what they were before, and
//! the known gaps that deletions leave.
//!
//! A correction is one transaction under the battery's line: the row, its journal, and whatever is
//! computed from rows. `seq` of the others stays as it is.

use std::ops::RangeInclusive;

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    sql_query,
    sql_types::{BigInt, Json, Nullable, Text},
};
use rovi_common::{
    corrections::{CORRECTIONS_VERSION, CorrectedRange, Corrections, MAX_RANGES},
    fault,
    name::BatteryName,
    rows::Columns,
};

use super::{
    StoreError,
    batteries::{self, Line},
    cell::CellBind,
    cycles, fit, insert, rollups,
    statement::Statement,
    tables::{self, ColumnType, Table},
};

/// How long a correction waits for a table that somebody holds.
const LOCK_MS: u128 = 2000;
/// Rows of one deletion: it holds the battery's line while it keeps them in the journal.
pub(crate) const MOST_DELETED: i64 = 100_000;
/// Newest rows among which the largest `test_time` of a segment is looked for.
const LOOKED_AT: i64 = 100_000;

/// What became of a correction.
#[derive(Debug)]
pub(crate) enum Corrected {
    /// The row is as asked for, by the correction of this revision: an older one where nothing
    /// had to change.
    Done { epoch: i64, revision: i64 },
    /// There is no such battery.
    NoBattery,
    /// There is no such row; why, in words.
    NoRow(String),
    /// The row was changed meanwhile: its revision of now.
    Changed { epoch: i64, revision: i64 },
    /// The values do not fit the table.
    Refused(String),
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deleted {
    /// The battery's epoch.
    pub(crate) epoch: i64,
    /// The correction; the newest of before where there was nothing to delete.
    pub(crate) revision: i64,
    /// Rows that were deleted.
    pub(crate) rows: i64,
}

/// A row as it stands in the table.
#[derive(Debug, QueryableByName)]
pub(crate) struct Row {
    /// All columns, in JSON.
    #[diesel(sql_type = Text)]
    pub(crate) cells: String,
    /// The correction that made it what it is; 0 where there was none.
    #[diesel(sql_type = BigInt)]
    pub(crate) revision: i64,
}

/// Why a correction leaves everything as it was, its transaction rolled back.
enum Undone {
    As(Corrected),
    By(StoreError),
}

impl From<StoreError> for Undone {
    fn from(error: StoreError) -> Self {
        Self::By(error)
    }
}

impl From<diesel::result::Error> for Undone {
    fn from(error: diesel::result::Error) -> Self {
        Self::By(error.into())
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Changes the given columns of a row; `expected` are the revisions that it may have.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed, or the answer was lost.
pub(crate) fn correct(
    connection: &mut PgConnection,
    (battery, seq): (&BatteryName, i64),
    given: &Columns,
    author: Option<&str>,
    is_expected: impl FnOnce(i64, i64) -> bool,
) -> Result<Corrected, StoreError> {
    let corrected = connection.transaction(|connection| {
        insert::set_lock_timeout(connection, LOCK_MS)?;
        let Some(mut line) = batteries::find_and_lock(connection, battery.as_str())? else {
            return Ok(Corrected::NoBattery);
        };
        let Some(before) = read(connection, &line, seq)? else {
            return Ok(Corrected::NoRow(why_missing(connection, &line, seq)?));
        };
        let (epoch, revision) = (line.epoch, before.revision);
        if !is_expected(epoch, revision) {
            return Ok(Corrected::Changed { epoch, revision });
        }
        let mut table = tables::load(connection, &line)?;
        let unknown = |(name, _): &(&str, _)| !table.columns().iter().any(|known| known.0 == *name);
        if let Some((name, _)) = given.iter().find(unknown) {
            let detail = format!("{battery} has no column `{name}`; a correction adds none");
            return Ok(Corrected::Refused(detail));
        }
        let wanted = fit::wanted(given, &mut table.clone(), 0);
        tables::change(connection, &mut line, &mut table, &wanted)?;
        let fitted = fit::fit(given, &table);
        if let Some((_, reason)) = fitted.rejected.into_iter().next() {
            return Err(Undone::As(Corrected::Refused(reason)));
        }
        if update(connection, &line, (seq, &table), &fitted.columns)? == 0 {
            return Err(Undone::As(Corrected::Done { epoch, revision }));
        }
        let change = Change {
            kind: "corrected",
            seqs: seq..=seq,
            rows: 1,
            author,
        };
        let revision = journalize(connection, &line, &change)?;
        keep(connection, &line, revision, (seq, &before.cells))?;
        if given.get("cycle_number").is_some() {
            cycles::row_moved(connection, battery, seq)?;
        }
        follow(connection, battery, &line, seq..=seq)?;
        fault::point("hub.correct.before_commit").map_err(away)?;
        Ok(Corrected::Done { epoch, revision })
    });
    match corrected {
        Ok(corrected) | Err(Undone::As(corrected)) => Ok(corrected),
        Err(Undone::By(error)) => Err(error),
    }
}

/// Deletes the rows of a range; `None` where there is no such battery.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed, or the answer was lost.
pub(crate) fn delete(
    connection: &mut PgConnection,
    battery: &BatteryName,
    seqs: &RangeInclusive<i64>,
    author: Option<&str>,
) -> Result<Option<Deleted>, StoreError> {
    connection.transaction(|connection| {
        insert::set_lock_timeout(connection, LOCK_MS)?;
        let Some(line) = batteries::find_and_lock(connection, battery.as_str())? else {
            return Ok(None);
        };
        let seqs = within(&line, seqs);
        let rows = count(connection, &line, &seqs)?;
        if rows == 0 {
            return Ok(Some(Deleted {
                epoch: line.epoch,
                revision: newest_revision(connection, &line)?,
                rows,
            }));
        }
        let change = Change {
            kind: "deleted",
            seqs: seqs.clone(),
            rows,
            author,
        };
        let revision = journalize(connection, &line, &change)?;
        Statement::once()
            .sql("WITH gone AS (DELETE FROM ")
            .battery(&line.name)
            .sql(" own WHERE seq BETWEEN ")
            .long(*seqs.start())
            .sql(" AND ")
            .long(*seqs.end())
            .sql(" RETURNING own.seq, row_to_json(own) AS before) INSERT INTO hub.corrected_rows SELECT ")
            .long(line.id)
            .sql(", ")
            .long(revision)
            .sql(", seq, before FROM gone")
            .execute(connection)?;
        sql_query("UPDATE hub.batteries SET deleted_rows = deleted_rows + $2 WHERE id = $1")
            .bind::<BigInt, _>(line.id)
            .bind::<BigInt, _>(rows)
            .execute(connection)?;
        follow(connection, battery, &line, seqs)?;
        fault::point("hub.correct.before_commit").map_err(away)?;
        Ok(Some(Deleted {
            epoch: line.epoch,
            revision,
            rows,
        }))
    })
}

/// Counts the rows of a range that are there; `None` where there is no such battery.
///
/// # Errors
/// As diesel's.
pub(crate) fn extent(
    connection: &mut PgConnection,
    battery: &BatteryName,
    seqs: &RangeInclusive<i64>,
) -> QueryResult<Option<i64>> {
    let Some(line) = batteries::find(connection, battery.as_str())? else {
        return Ok(None);
    };
    let seqs = within(&line, seqs);
    count(connection, &line, &seqs).map(Some)
}

/// Reads one row: the line of its battery, and the row or why it is missing.
///
/// # Errors
/// As diesel's.
pub(crate) fn find_row(
    connection: &mut PgConnection,
    battery: &BatteryName,
    seq: i64,
) -> QueryResult<Option<(Line, Result<Row, String>)>> {
    let Some(line) = batteries::find(connection, battery.as_str())? else {
        return Ok(None);
    };
    let found = match read(connection, &line, seq)? {
        Some(row) => Ok(row),
        None => Err(why_missing(connection, &line, seq)?),
    };
    Ok(Some((line, found)))
}

/// Returns the known gaps within a range, in order, at most `limit`.
///
/// Ask after the rows were read: then each hole among them is told.
///
/// # Errors
/// As diesel's.
pub(crate) fn gaps(
    connection: &mut PgConnection,
    line: &Line,
    seqs: &RangeInclusive<i64>,
    limit: i64,
) -> QueryResult<Vec<(i64, i64)>> {
    #[derive(QueryableByName)]
    struct Gap {
        #[diesel(sql_type = BigInt)]
        first: i64,
        #[diesel(sql_type = BigInt)]
        last: i64,
    }
    let gaps: Vec<Gap> = sql_query(
        "SELECT greatest(lower(gap), $3) AS first, least(upper(gap) - 1, $4) AS last \
         FROM unnest((SELECT range_agg(int8range(first_seq, last_seq, '[]')) \
           FROM hub.corrections WHERE battery_id = $1 AND epoch = $2 AND kind = 'deleted' \
             AND last_seq >= $3 AND first_seq <= $4)) AS gap ORDER BY first LIMIT $5",
    )
    .bind::<BigInt, _>(line.id)
    .bind::<BigInt, _>(line.epoch)
    .bind::<BigInt, _>(*seqs.start())
    .bind::<BigInt, _>(*seqs.end())
    .bind::<BigInt, _>(limit)
    .load(connection)?;
    Ok(gaps.into_iter().map(|gap| (gap.first, gap.last)).collect())
}

/// Lists what every corrected battery's entry of the bucket has to say.
///
/// # Errors
/// As diesel's.
pub(crate) fn revisions(connection: &mut PgConnection) -> QueryResult<Vec<Standing>> {
    sql_query(
        "SELECT id, name, epoch, corrections AS revision FROM hub.batteries WHERE corrections > 0",
    )
    .load(connection)
}

/// How far a battery's corrections are.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub(crate) struct Standing {
    #[diesel(sql_type = BigInt)]
    pub(crate) id: i64,
    #[diesel(sql_type = Text)]
    pub(crate) name: String,
    #[diesel(sql_type = BigInt)]
    pub(crate) epoch: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) revision: i64,
}

/// Returns what the bucket has to say of a battery instead of `told`; `None` where it has no
/// corrections.
///
/// `told` must have been read before. So if it is ahead of the table, the table was restored from a
/// backup and lacks corrections: their rows are told once more.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn to_tell(
    connection: &mut PgConnection,
    battery: &BatteryName,
    told: Option<&Corrections>,
) -> Result<Option<Corrections>, StoreError> {
    connection.transaction(|connection| {
        let Some(line) = batteries::find_and_lock(connection, battery.as_str())? else {
            return Ok(None);
        };
        let known = newest_revision(connection, &line)?;
        if let Some(told) = told.filter(|told| told.epoch == line.epoch && told.revision > known) {
            restore(connection, &line, known, told)?;
        }
        let revision = newest_revision(connection, &line)?;
        Ok((revision > 0).then_some(Corrections {
            v: CORRECTIONS_VERSION,
            battery: battery.clone(),
            epoch: line.epoch,
            revision,
            ranges: ranges(connection, &line)?,
        }))
    })
}

/// Journals that the bus knew of corrections which this table lacks.
fn restore(
    connection: &mut PgConnection,
    line: &Line,
    known: i64,
    told: &Corrections,
) -> QueryResult<()> {
    let missing: Vec<&CorrectedRange> = told.since(known).collect();
    let (Some(first), Some(last)) = (
        missing.iter().map(|range| range.first).min(),
        missing.iter().map(|range| range.last).max(),
    ) else {
        return Ok(());
    };
    sql_query("UPDATE hub.batteries SET corrections = $2 WHERE id = $1")
        .bind::<BigInt, _>(line.id)
        .bind::<BigInt, _>(told.revision)
        .execute(connection)?;
    let change = Change {
        kind: "restored",
        seqs: first..=last,
        rows: 0,
        author: None,
    };
    journalize(connection, line, &change)?;
    tracing::warn!(
        battery.id = line.name,
        "the bus knows of corrections of {} that the table lacks (restored from a backup?): rows \
         {first} to {last} are estimated anew",
        line.name
    );
    Ok(())
}

fn ranges(connection: &mut PgConnection, line: &Line) -> QueryResult<Vec<CorrectedRange>> {
    #[derive(QueryableByName)]
    struct Range {
        #[diesel(sql_type = BigInt)]
        first: i64,
        #[diesel(sql_type = BigInt)]
        last: i64,
        #[diesel(sql_type = BigInt)]
        revision: i64,
    }
    let most = i64::try_from(MAX_RANGES).unwrap_or(i64::MAX);
    // The newest ones each, all before them as one.
    let ranges: Vec<Range> = sql_query(
        "WITH numbered AS (SELECT first_seq, last_seq, revision, \
             row_number() OVER (ORDER BY revision DESC) AS age \
           FROM hub.corrections WHERE battery_id = $1 AND epoch = $2) \
         SELECT min(first_seq) AS first, max(last_seq) AS last, max(revision) AS revision \
         FROM numbered GROUP BY least(age, $3) ORDER BY revision",
    )
    .bind::<BigInt, _>(line.id)
    .bind::<BigInt, _>(line.epoch)
    .bind::<BigInt, _>(most)
    .load(connection)?;
    let range = |range: Range| CorrectedRange {
        first: range.first,
        last: range.last,
        revision: range.revision,
    };
    Ok(ranges.into_iter().map(range).collect())
}

/// Clamps a range to rows that were stored and are not gone: rows to come are nobody's to delete.
fn within(line: &Line, seqs: &RangeInclusive<i64>) -> RangeInclusive<i64> {
    (*seqs.start()).max(line.first_seq)..=(*seqs.end()).min(line.last_seq)
}

fn count(
    connection: &mut PgConnection,
    line: &Line,
    seqs: &RangeInclusive<i64>,
) -> QueryResult<i64> {
    if line.form == 0 || seqs.is_empty() {
        return Ok(0);
    }
    let counted: Number = Statement::once()
        .sql("SELECT count(*) AS number FROM ")
        .battery(&line.name)
        .sql(" WHERE seq BETWEEN ")
        .long(*seqs.start())
        .sql(" AND ")
        .long(*seqs.end())
        .get_result(connection)?;
    Ok(counted.number)
}

fn read(connection: &mut PgConnection, line: &Line, seq: i64) -> QueryResult<Option<Row>> {
    if line.form == 0 || seq < line.first_seq {
        return Ok(None);
    }
    Statement::once()
        .sql(
            "SELECT row_to_json(own)::text AS cells, coalesce((SELECT max(c.revision) \
              FROM hub.corrected_rows c WHERE c.battery_id = ",
        )
        .long(line.id)
        .sql(" AND c.seq = own.seq), 0) AS revision FROM ")
        .battery(&line.name)
        .sql(" own WHERE own.seq = ")
        .long(seq)
        .get_result(connection)
        .optional()
}

/// Says why there is no row of this number.
fn why_missing(connection: &mut PgConnection, line: &Line, seq: i64) -> QueryResult<String> {
    let name = &line.name;
    if seq > line.last_seq || seq < 1 {
        return Ok(format!(
            "{name} has no row {seq}; its newest is {}",
            line.last_seq
        ));
    }
    if seq < line.first_seq {
        return Ok(format!(
            "row {seq} of {name} is gone; the first that is kept is {}",
            line.first_seq
        ));
    }
    let is_known = !gaps(connection, line, &(seq..=seq), 1)?.is_empty();
    Ok(if is_known {
        format!(
            "row {seq} of {name} was deleted; /db/{name}/corrections tells when and what it was"
        )
    } else {
        format!("row {seq} of {name} is missing in its table, and nobody deleted it here")
    })
}

/// Writes cells that differ; returns whether there were any.
fn update(
    connection: &mut PgConnection,
    line: &Line,
    (seq, table): (i64, &Table),
    columns: &Columns,
) -> QueryResult<usize> {
    let typed = columns.iter().filter_map(|(name, column)| {
        let (_, kind) = table.columns().iter().find(|(known, _)| known == name)?;
        Some((name, column, kind))
    });
    let typed: Vec<_> = typed.collect();
    if typed.is_empty() {
        return Ok(0);
    }
    let cell = |statement: Statement, (column, kind): (_, &ColumnType)| {
        statement.cell(CellBind::of(kind.element(), Some(column), 0))
    };
    let mut statement = Statement::once()
        .sql("UPDATE ")
        .battery(&line.name)
        .sql(" SET ");
    let mut separator = "";
    for (name, column, kind) in &typed {
        statement = statement.sql(separator).identifier(name).sql(" = ");
        statement = cell(statement, (*column, kind));
        separator = ", ";
    }
    statement = statement.sql(" WHERE seq = ").long(seq).sql(" AND (");
    separator = "";
    for (name, column, kind) in &typed {
        statement = statement
            .sql(separator)
            .identifier(name)
            .sql(" IS DISTINCT FROM ");
        statement = cell(statement, (*column, kind));
        separator = " OR ";
    }
    statement.sql(")").execute(connection)
}

/// A line of the journal.
struct Change<'a> {
    kind: &'static str,
    seqs: RangeInclusive<i64>,
    rows: i64,
    author: Option<&'a str>,
}

/// Writes the journal; returns the correction's revision.
fn journalize(connection: &mut PgConnection, line: &Line, change: &Change<'_>) -> QueryResult<i64> {
    let (first, last) = (*change.seqs.start(), *change.seqs.end());
    let drawn: Number = sql_query(
        "UPDATE hub.batteries SET corrections = corrections + 1 WHERE id = $1 \
         RETURNING corrections AS number",
    )
    .bind::<BigInt, _>(line.id)
    .get_result(connection)?;
    sql_query(
        "INSERT INTO hub.corrections \
           (battery_id, revision, epoch, kind, first_seq, last_seq, \"rows\", author) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind::<BigInt, _>(line.id)
    .bind::<BigInt, _>(drawn.number)
    .bind::<BigInt, _>(line.epoch)
    .bind::<Text, _>(change.kind)
    .bind::<BigInt, _>(first)
    .bind::<BigInt, _>(last)
    .bind::<BigInt, _>(change.rows)
    .bind::<Nullable<Text>, _>(change.author)
    .execute(connection)?;
    let kind = change.kind;
    let told = if first == last {
        format!("row {first} {kind} (correction {})", drawn.number)
    } else {
        format!(
            "rows {first} to {last} {kind} (correction {})",
            drawn.number
        )
    };
    tables::journalize(connection, line, &[told])?;
    Ok(drawn.number)
}

fn keep(
    connection: &mut PgConnection,
    line: &Line,
    revision: i64,
    (seq, before): (i64, &str),
) -> QueryResult<()> {
    sql_query("INSERT INTO hub.corrected_rows VALUES ($1, $2, $3, $4::text::json)")
        .bind::<BigInt, _>(line.id)
        .bind::<BigInt, _>(revision)
        .bind::<BigInt, _>(seq)
        .bind::<Text, _>(before)
        .execute(connection)
        .map(drop)
}

fn newest_revision(connection: &mut PgConnection, line: &Line) -> QueryResult<i64> {
    let found: Number = sql_query("SELECT corrections AS number FROM hub.batteries WHERE id = $1")
        .bind::<BigInt, _>(line.id)
        .get_result(connection)?;
    Ok(found.number)
}

/// Has everything follow that is computed from rows.
fn follow(
    connection: &mut PgConnection,
    battery: &BatteryName,
    line: &Line,
    seqs: RangeInclusive<i64>,
) -> Result<(), StoreError> {
    rollups::invalidate(connection, line.id, seqs.clone())?;
    // The cycle before ends where a changed row begins the next.
    cycles::invalidate(connection, battery, *seqs.start() - 1..=*seqs.end())?;
    let table = tables::load(connection, line)?;
    let is_time = |(name, kind): &(String, ColumnType)| {
        name == "test_time" && matches!(kind, ColumnType::Int | ColumnType::Float)
    };
    if table.columns().iter().any(is_time) {
        // What is largest decides which of the rows to come are late and where a segment begins.
        Statement::once()
            .sql(
                "UPDATE hub.batteries SET latest_test_time = (SELECT max(newest.test_time) FROM \
                 (SELECT test_time::double precision, segment FROM ",
            )
            .battery(&line.name)
            .sql(" ORDER BY seq DESC LIMIT ")
            .long(LOOKED_AT)
            .sql(") newest WHERE newest.segment = ")
            .long(line.segment.into())
            .sql(
                " AND newest.test_time < 'Infinity' AND newest.test_time > '-Infinity') WHERE id = ",
            )
            .long(line.id)
            .execute(connection)?;
    }
    Ok(())
}

/// An injected fault is as if the connection was lost.
fn away(fault: fault::InjectedFault) -> StoreError {
    StoreError::Away(fault.into())
}

/// A line of the journal, as it is shown.
#[derive(Debug, QueryableByName, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct JournalLine {
    /// Counts the corrections of the battery from 1.
    #[diesel(sql_type = BigInt)]
    pub(crate) revision: i64,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    /// `corrected`, `deleted` or `restored`.
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = BigInt)]
    first_seq: i64,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
    /// Rows that were there to be changed.
    #[diesel(sql_type = BigInt)]
    rows: i64,
    /// Who did it, as the request's header `From` said.
    #[diesel(sql_type = Nullable<Text>)]
    author: Option<String>,
    /// Microseconds since 1970.
    #[diesel(sql_type = BigInt)]
    at: i64,
}

/// Lists corrections of a battery after a revision.
///
/// # Errors
/// As diesel's.
pub(crate) fn list(
    connection: &mut PgConnection,
    battery_id: i64,
    after: i64,
    limit: i64,
) -> QueryResult<Vec<JournalLine>> {
    sql_query(
        "SELECT revision, epoch, kind, first_seq, last_seq, \"rows\", author, \
           (extract(epoch FROM at) * 1000000)::bigint AS at \
         FROM hub.corrections WHERE battery_id = $1 AND revision > $2 ORDER BY revision LIMIT $3",
    )
    .bind::<BigInt, _>(battery_id)
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(limit)
    .load(connection)
}

/// A row as it was before a correction.
#[derive(Debug, QueryableByName, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Before {
    #[diesel(sql_type = BigInt)]
    pub(crate) seq: i64,
    /// The whole row as it stood in the table.
    #[diesel(sql_type = Json)]
    before: serde_json::Value,
}

/// Lists rows as they were before a correction, after a `seq`.
///
/// # Errors
/// As diesel's.
pub(crate) fn before(
    connection: &mut PgConnection,
    (battery_id, revision): (i64, i64),
    after: i64,
    limit: i64,
) -> QueryResult<Vec<Before>> {
    sql_query(
        "SELECT seq, before FROM hub.corrected_rows \
         WHERE battery_id = $1 AND revision = $2 AND seq > $3 ORDER BY seq LIMIT $4",
    )
    .bind::<BigInt, _>(battery_id)
    .bind::<BigInt, _>(revision)
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(limit)
    .load(connection)
}
