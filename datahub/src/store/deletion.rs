//! The end of a battery: one transaction, after which its name is free and nothing of it is found
//! under that name.
//!
//! Its tables are renamed to `<name>@<epoch>`, or dropped; its line of `hub.batteries` goes, and
//! with it whatever refers to it. So writers that still hold rows of it find no line to lock, and
//! other hubs need not be told before. What must outlive it stands in `hub.deleted_batteries`, from
//! where the next life of the name takes its epoch.

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    connection::SimpleConnection,
    sql_query,
    sql_types::{Array, BigInt, Nullable, Text},
};
use rovi_common::name::{BatteryName, MAX_NAME_BYTES};

use super::{StoreError, is_away, statement::Statement};

/// Schemas that may hold a table named like the battery.
const SCHEMAS: [&str; 2] = ["battery", "estimates"];
/// How far estimates are counted.
const COUNTED_ESTIMATES: i64 = 1_000_000;

/// What there is of a battery.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Extent {
    /// The life of the name.
    pub(crate) epoch: i64,
    /// Rows in its table.
    pub(crate) rows: i64,
    /// Lines in the table of its estimates, counted up to 1,000,000.
    pub(crate) estimates: i64,
    /// Versions of its metadata.
    pub(crate) metadata_revisions: i64,
    /// Names of its estimators.
    pub(crate) estimators: Vec<String>,
    /// Names of its other tables.
    pub(crate) tables: Vec<String>,
}

/// A battery that is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deleted {
    /// What its id was.
    pub(crate) id: i64,
    /// The life of the name that is over.
    pub(crate) epoch: i64,
    /// Where its tables are kept; none if they were dropped.
    pub(crate) kept_as: Vec<String>,
}

/// Why a battery was not deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeleteError {
    /// Somebody holds one of its tables.
    #[error("a table of the battery is in use")]
    Busy(#[source] StoreError),
    /// PostgreSQL is away or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<diesel::result::Error> for DeleteError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

fn busy(error: diesel::result::Error) -> DeleteError {
    if is_away(&error) {
        return error.into();
    }
    DeleteError::Busy(error.into())
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = BigInt)]
    revisions: i64,
    #[diesel(sql_type = Array<Text>)]
    estimators: Vec<String>,
    #[diesel(sql_type = Array<Text>)]
    tables: Vec<String>,
}

/// Tells what there is of a battery; `None` where there is no such battery.
///
/// # Errors
/// As diesel's.
pub(crate) fn extent(
    connection: &mut PgConnection,
    battery: &BatteryName,
) -> QueryResult<Option<Extent>> {
    #[derive(QueryableByName)]
    struct Counted {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    connection.transaction(|connection| {
        let Some(line) = line(connection, battery, false)? else {
            return Ok(None);
        };
        let mut estimates = 0;
        if has_table(connection, "estimates", battery.as_str())? {
            let counted: Counted = Statement::once()
                .sql("SELECT count(*) AS count FROM (SELECT FROM ")
                .estimates(battery)
                .sql(" LIMIT ")
                .long(COUNTED_ESTIMATES)
                .sql(") AS first")
                .get_result(connection)?;
            estimates = counted.count;
        }
        Ok(Some(Extent {
            epoch: line.epoch,
            rows: line.rows,
            estimates,
            metadata_revisions: line.revisions,
            estimators: line.estimators,
            tables: line.tables,
        }))
    })
}

/// Reads a battery's line; with `holds`, keeps everybody from it until the transaction ends.
fn line(
    connection: &mut PgConnection,
    battery: &BatteryName,
    holds: bool,
) -> QueryResult<Option<Line>> {
    if holds {
        let hold = sql_query("SELECT FROM hub.batteries WHERE name = $1 FOR UPDATE");
        hold.bind::<Text, _>(battery.as_str()).execute(connection)?;
    }
    sql_query(
        "SELECT b.id, b.epoch, b.last_seq - b.first_seq + 1 - b.deleted_rows AS rows, \
           (SELECT count(*) FROM hub.metadata_revisions m WHERE m.battery_id = b.id) AS revisions, \
           ARRAY(SELECT e.name FROM hub.estimators e WHERE e.battery_id = b.id AND NOT e.deleted \
             ORDER BY e.name) AS estimators, \
           ARRAY(SELECT t.name FROM hub.tables t WHERE t.battery_id = b.id ORDER BY t.name) \
             AS tables \
         FROM hub.batteries b WHERE b.name = $1",
    )
    .bind::<Text, _>(battery.as_str())
    .get_result(connection)
    .optional()
}

/// Deletes a battery; `None` where there is no such battery.
///
/// # Errors
/// - `Busy`: a table is locked; nothing was changed.
/// - `Store`: PostgreSQL is away or refuses; nothing was changed, or the answer was lost.
pub(crate) fn delete(
    connection: &mut PgConnection,
    battery: &BatteryName,
    drops: bool,
) -> Result<Option<Deleted>, DeleteError> {
    connection.transaction(|connection| {
        // The battery's writers wait as long.
        connection.batch_execute("SET LOCAL lock_timeout = '2s'")?;
        // Whoever begins the name anew waits for this; see hub.begin_epoch().
        sql_query("SELECT pg_advisory_xact_lock(hashtextextended('hub.batteries.' || $1, 0))")
            .bind::<Text, _>(battery.as_str())
            .execute(connection)?;
        let Some(line) = line(connection, battery, true)? else {
            return Ok(None);
        };
        let name = archived_name(battery, &line, "");
        let mut kept_as = Vec::new();
        let mut kept: [Option<&str>; 2] = [None, None];
        for (schema, kept) in SCHEMAS.into_iter().zip(&mut kept) {
            if has_table(connection, schema, battery.as_str())? {
                put_away(
                    connection,
                    schema,
                    battery.as_str(),
                    (!drops).then_some(&name),
                )?;
                if !drops {
                    kept_as.push(format!("{schema}.\"{name}\""));
                    *kept = Some(&name);
                }
            }
        }
        for (table, sql_name) in other_tables(connection, line.id)? {
            let name = archived_name(battery, &line, &format!("/{table}"));
            put_away(connection, "tables", &sql_name, (!drops).then_some(&name))?;
            if !drops {
                kept_as.push(format!("tables.\"{name}\""));
            }
        }
        record(connection, &line, kept)?;
        sql_query("DELETE FROM hub.batteries WHERE id = $1")
            .bind::<BigInt, _>(line.id)
            .execute(connection)?;
        Ok(Some(Deleted {
            id: line.id,
            epoch: line.epoch,
            kept_as,
        }))
    })
}

/// Returns `<name>@<epoch><rest>`, where a name too long for that is cut and told apart by its id.
fn archived_name(battery: &BatteryName, line: &Line, rest: &str) -> String {
    let suffix = format!("@{}{rest}", line.epoch);
    if battery.as_str().len() + suffix.len() <= MAX_NAME_BYTES {
        return format!("{battery}{suffix}");
    }
    let suffix = format!("~{}{suffix}", line.id);
    let room = MAX_NAME_BYTES.saturating_sub(suffix.len());
    let start: String = battery.as_str().chars().take(room).collect();
    start + &suffix
}

fn has_table(connection: &mut PgConnection, schema: &str, name: &str) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = diesel::sql_types::Bool)]
        found: bool,
    }
    let found: Found = sql_query(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'r') AS found",
    )
    .bind::<Text, _>(schema)
    .bind::<Text, _>(name)
    .get_result(connection)?;
    Ok(found.found)
}

fn other_tables(
    connection: &mut PgConnection,
    battery_id: i64,
) -> QueryResult<Vec<(String, String)>> {
    use super::schema::tables::dsl;
    use diesel::{ExpressionMethods, QueryDsl};
    dsl::tables
        .filter(dsl::battery_id.eq(battery_id))
        .order(dsl::name)
        .select((dsl::name, dsl::sql_name))
        .load(connection)
}

/// Renames a table, or drops it where there is no new name.
fn put_away(
    connection: &mut PgConnection,
    schema: &'static str,
    name: &str,
    new_name: Option<&String>,
) -> Result<(), DeleteError> {
    let table = |verb| {
        Statement::once()
            .sql(verb)
            .sql(schema)
            .sql(".")
            .identifier(name)
    };
    // Waiting here, and only here, is waiting for somebody who reads or writes the table.
    let lock = table("LOCK TABLE ").sql(" IN ACCESS EXCLUSIVE MODE");
    lock.execute(connection).map_err(busy)?;
    match new_name {
        Some(new_name) => {
            table("COMMENT ON TABLE ")
                .sql(" IS 'Of a battery that was deleted; see hub.deleted_batteries.'")
                .execute(connection)?;
            let rename = table("ALTER TABLE ")
                .sql(" RENAME TO ")
                .identifier(new_name);
            rename.execute(connection)?;
        }
        None => {
            table("DROP TABLE ").execute(connection)?;
        }
    }
    Ok(())
}

fn record(
    connection: &mut PgConnection,
    line: &Line,
    [rows, estimates]: [Option<&str>; 2],
) -> QueryResult<()> {
    sql_query(
        "INSERT INTO hub.deleted_batteries (id, name, title, epoch, first_seq, last_seq, \
           rows_table, estimates_table, metadata, estimators, journal) \
         SELECT b.id, b.name, b.title, b.epoch, b.first_seq, b.last_seq, $2, $3, \
           (SELECT m.body FROM hub.metadata m WHERE m.battery_id = b.id), $4, \
           (SELECT coalesce(json_agg(json_build_object('epoch', c.epoch, 'at', c.at, \
             'after_seq', c.after_seq, 'change', c.change) ORDER BY c.id), '[]') \
             FROM hub.table_changes c WHERE c.battery_id = b.id) \
         FROM hub.batteries b WHERE b.id = $1",
    )
    .bind::<BigInt, _>(line.id)
    .bind::<Nullable<Text>, _>(rows)
    .bind::<Nullable<Text>, _>(estimates)
    .bind::<Array<Text>, _>(&line.estimators)
    .execute(connection)
    .map(drop)
}

/// A deleted battery of which something may be left on the bus or in open sockets.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct Remains {
    /// What its id was.
    #[diesel(sql_type = BigInt)]
    pub(crate) id: i64,
    /// Its name.
    #[diesel(sql_type = Text)]
    pub(crate) name: String,
    /// The life of the name that is over.
    #[diesel(sql_type = BigInt)]
    pub(crate) epoch: i64,
    /// Names of its estimators.
    #[diesel(sql_type = Array<Text>)]
    pub(crate) estimators: Vec<String>,
    /// Seconds since it was deleted.
    #[diesel(sql_type = diesel::sql_types::Double)]
    pub(crate) age_s: f64,
}

/// Lists deleted batteries that are not cleaned up, at most 1000.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn remains(connection: &mut PgConnection) -> Result<Vec<Remains>, StoreError> {
    Ok(sql_query(
        "SELECT id, name, epoch, estimators, \
           extract(epoch FROM clock_timestamp() - deleted)::double precision AS age_s \
         FROM hub.deleted_batteries WHERE cleaned IS NULL ORDER BY id LIMIT 1000",
    )
    .load(connection)?)
}

/// Notes that nothing is left of a deleted battery.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn set_cleaned(connection: &mut PgConnection, id: i64) -> Result<(), StoreError> {
    sql_query("UPDATE hub.deleted_batteries SET cleaned = now() WHERE id = $1")
        .bind::<BigInt, _>(id)
        .execute(connection)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archived(battery: &str, rest: &str) -> String {
        let line = Line {
            id: 7,
            epoch: 2,
            rows: 0,
            revisions: 0,
            estimators: Vec::new(),
            tables: Vec::new(),
        };
        archived_name(&battery.parse().unwrap(), &line, rest)
    }

    #[test]
    fn an_archived_table_is_named_for_battery_and_epoch() {
        assert_eq!(archived("b7", ""), "b7@2");
        assert_eq!(archived("b7", "/eis_data"), "b7@2/eis_data");
        assert_eq!(
            archived(&"a".repeat(61), ""),
            format!("{}@2", "a".repeat(61))
        );
    }

    #[test]
    fn a_name_too_long_for_its_epoch_is_cut_and_told_apart_by_id() {
        let name = archived(&"a".repeat(63), "/eis_data");
        assert!(
            name.len() == 63 && name.ends_with("aa~7@2/eis_data"),
            "{name}"
        );
    }
}
