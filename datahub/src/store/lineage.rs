//! `hub.lineage`: what made the lines of `estimates."<battery>"`, and the registrations of then.

use diesel::{
    OptionalExtension, PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{BigInt, Binary, Bool, Double, Nullable, Text},
};
use rovi_common::name::{BatteryName, EstimatorName};

use super::{
    batteries::Line,
    estimates::Estimates,
    statement::{ArrayBind, Statement},
};

/// Notes what made these estimates, in one statement; call it in the transaction that stores them.
///
/// # Errors
/// As diesel's; the caller rolls back.
pub fn note<'e>(
    connection: &mut PgConnection,
    all: impl Iterator<Item = (&'e BatteryName, &'e [Estimates])>,
) -> QueryResult<usize> {
    let of_battery = |(battery, all): (&'e BatteryName, &'e [Estimates])| {
        let line = move |one: &'e Estimates| {
            let (first, last) = extent(one)?;
            Some((battery, one, one.lineage.as_ref()?, first, last))
        };
        all.iter().filter_map(line)
    };
    let lines: Vec<_> = all.flat_map(of_battery).collect();
    if lines.is_empty() {
        return Ok(0);
    }
    let longs = |of: fn(&Estimates) -> i64| ArrayBind::longs(lines.iter().map(|line| of(line.1)));
    Statement::cached()
        .sql(
            "INSERT INTO hub.lineage AS known (battery_id, estimator, epoch, revision, generation, \
               code_version, definition, horizon, rows_from, first_seq, last_seq) \
             SELECT b.id, n.estimator, n.epoch, n.revision, n.generation, n.code_version, \
               max(n.definition), max(n.horizon), min(n.rows_from), min(n.first_seq), \
               max(n.last_seq) FROM unnest(",
        )
        .array(ArrayBind::texts(lines.iter().map(|line| line.0.as_str())))
        .sql(", ")
        .array(ArrayBind::texts(
            lines.iter().map(|line| line.1.estimator.as_str()),
        ))
        .sql(", ")
        .array(longs(|one| one.epoch))
        .sql(", ")
        .array(longs(|one| one.revision))
        .sql(", ")
        .array(longs(|one| one.generation))
        .sql(", ")
        .array(ArrayBind::texts(
            lines.iter().map(|line| line.2.code_version.as_str()),
        ))
        .sql(", ")
        .array(ArrayBind::texts(
            lines.iter().map(|line| line.2.definition.as_str()),
        ))
        .sql(", ")
        .array(ArrayBind::doubles(
            lines.iter().map(|line| Some(line.2.horizon)),
        ))
        .sql(", ")
        .array(ArrayBind::longs(lines.iter().map(|line| line.2.rows_from)))
        .sql(", ")
        .array(ArrayBind::longs(lines.iter().map(|line| line.3)))
        .sql(", ")
        .array(ArrayBind::longs(lines.iter().map(|line| line.4)))
        .sql(
            ") AS n(battery, estimator, epoch, revision, generation, code_version, definition, \
               horizon, rows_from, first_seq, last_seq) \
             JOIN hub.batteries b ON b.name = n.battery AND b.epoch <= n.epoch \
             GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6 \
             ON CONFLICT (battery_id, estimator, epoch, revision, generation, code_version) \
             DO UPDATE SET first_seq = least(known.first_seq, excluded.first_seq), \
               last_seq = greatest(known.last_seq, excluded.last_seq) \
             WHERE known.first_seq > excluded.first_seq OR known.last_seq < excluded.last_seq",
        )
        .execute(connection)
}

/// Returns the first and last row of which these estimates tell.
fn extent(one: &Estimates) -> Option<(i64, i64)> {
    let ends = one.replaces.iter();
    let ends = ends.flat_map(|(first, last)| [*first, *last]);
    let seqs = one.seq.iter().copied().chain(ends);
    Some((seqs.clone().min()?, seqs.max()?))
}

/// What made estimates of some rows.
#[derive(Debug, Clone, QueryableByName, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Made {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    /// Revision of the registration.
    #[diesel(sql_type = BigInt)]
    revision: i64,
    /// 1 for the first pass over the rows; a recomputation has the moment it was decided, in µs
    /// since 1970.
    #[diesel(sql_type = BigInt)]
    generation: i64,
    /// Version of the twin.
    #[diesel(sql_type = Text)]
    code_version: String,
    /// SHA-256 of the document or script, in hexadecimal.
    #[diesel(sql_type = Text)]
    definition: String,
    /// How far rows could be late and still count, in seconds of `test_time`.
    #[diesel(sql_type = Double)]
    horizon: f64,
    /// The first row that the estimator was given; an estimate is made of the rows from here up to
    /// its own.
    #[diesel(sql_type = BigInt)]
    rows_from: i64,
    /// The first row of which it told.
    #[diesel(sql_type = BigInt)]
    first_seq: i64,
    /// The last row of which it told.
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
}

/// Names the estimator that is champion for a row; none where none was registered that could be.
///
/// # Errors
/// As diesel's.
pub(crate) fn champion(
    connection: &mut PgConnection,
    line: &Line,
    seq: i64,
) -> QueryResult<Option<String>> {
    #[derive(QueryableByName)]
    struct Named {
        #[diesel(sql_type = Nullable<Text>)]
        champion: Option<String>,
    }
    let named: Named = sql_query("SELECT hub.champion_of($1, $2, $3) AS champion")
        .bind::<Text, _>(&line.name)
        .bind::<BigInt, _>(line.epoch)
        .bind::<BigInt, _>(seq)
        .get_result(connection)?;
    Ok(named.champion)
}

/// Lists what made an estimator's estimates, the newest first; with `seq`, of the estimate of that
/// row alone.
///
/// # Errors
/// As diesel's.
pub(crate) fn list(
    connection: &mut PgConnection,
    (battery, line): (&BatteryName, &Line),
    estimator: &EstimatorName,
    seq: Option<i64>,
) -> QueryResult<Vec<Made>> {
    // Before the first estimate there is no table to look into.
    if seq.is_some() && list(connection, (battery, line), estimator, None)?.is_empty() {
        return Ok(Vec::new());
    }
    let statement = Statement::once().sql(
        "SELECT l.epoch, l.revision, l.generation, l.code_version, l.definition, l.horizon, \
             l.rows_from, l.first_seq, l.last_seq FROM hub.lineage l",
    );
    let statement = match seq {
        None => statement.sql(" WHERE true"),
        Some(seq) => statement
            .sql(" JOIN ")
            .estimates(battery)
            .sql(
                " e ON (e.estimator, e.epoch, e.revision, e.generation) \
                   = (l.estimator, l.epoch, l.revision, l.generation) \
                 AND e.seq BETWEEN l.first_seq AND l.last_seq AND e.seq = ",
            )
            .long(seq)
            .sql(" WHERE true"),
    };
    statement
        .sql(" AND l.battery_id = ")
        .long(line.id)
        .sql(" AND l.epoch = ")
        .long(line.epoch)
        .sql(" AND l.estimator = ")
        .text(estimator.as_str())
        .sql(" ORDER BY l.revision DESC, l.generation DESC, l.first_seq LIMIT 1000")
        .load(connection)
}

/// A registration as it was.
#[derive(Debug, Clone, QueryableByName, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Registered {
    /// Of this revision.
    #[diesel(sql_type = BigInt)]
    pub(crate) revision: i64,
    /// The document or script; empty where the estimator was removed.
    #[diesel(sql_type = Text)]
    definition: String,
    /// Rows with `test_time` below this, in seconds, are not used.
    #[diesel(sql_type = Double)]
    valid_from: f64,
    /// Span of history in seconds that a script's offline estimation gets.
    #[diesel(sql_type = Double)]
    required_time: f64,
    /// `{name, digest, bytes}` of each file.
    #[diesel(sql_type = diesel::sql_types::Json)]
    files: serde_json::Value,
    /// Whether the estimator was removed by it.
    #[diesel(sql_type = Bool)]
    deleted: bool,
    /// Microseconds since 1970.
    #[diesel(sql_type = BigInt)]
    changed: i64,
}

/// Lists an estimator's registrations, the newest first; with `revision`, that one alone.
///
/// # Errors
/// As diesel's.
pub(crate) fn registrations(
    connection: &mut PgConnection,
    battery_id: i64,
    estimator: &EstimatorName,
    revision: Option<i64>,
) -> QueryResult<Vec<Registered>> {
    sql_query(
        "SELECT r.revision, r.definition, r.valid_from, r.required_time, \
           coalesce((SELECT json_agg(json_build_object('name', f.name, 'digest', f.digest, \
               'bytes', octet_length(k.content)) ORDER BY f.place) \
             FROM hub.estimator_revision_files f JOIN hub.kept_files k USING (digest) \
             WHERE (f.battery_id, f.estimator, f.revision) \
               = (r.battery_id, r.estimator, r.revision)), '[]') AS files, \
           r.deleted, (extract(epoch FROM r.changed) * 1000000)::bigint AS changed \
         FROM hub.estimator_revisions r WHERE r.battery_id = $1 AND r.estimator = $2 \
           AND ($3 = 0 OR r.revision = $3) ORDER BY r.revision DESC LIMIT 100",
    )
    .bind::<BigInt, _>(battery_id)
    .bind::<Text, _>(estimator.as_str())
    .bind::<BigInt, _>(revision.unwrap_or(0))
    .load(connection)
}

/// Reads a file that a registration of the battery had.
///
/// # Errors
/// As diesel's.
pub(crate) fn file(
    connection: &mut PgConnection,
    battery_id: i64,
    digest: &str,
) -> QueryResult<Option<Vec<u8>>> {
    #[derive(QueryableByName)]
    struct Kept {
        #[diesel(sql_type = Binary)]
        content: Vec<u8>,
    }
    let kept: Option<Kept> = sql_query(
        "SELECT content FROM hub.kept_files k WHERE digest = $1 AND EXISTS (SELECT \
           FROM hub.estimator_revision_files f WHERE f.battery_id = $2 AND f.digest = k.digest)",
    )
    .bind::<Text, _>(digest)
    .bind::<BigInt, _>(battery_id)
    .get_result(connection)
    .optional()?;
    Ok(kept.map(|kept| kept.content))
}
