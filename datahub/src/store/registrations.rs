//! `hub.estimators`: registrations, each with a revision that is never used again.

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{BigInt, Bool, Double, Text},
};
use rovi_common::{
    name::{BatteryName, EstimatorName},
    registration::{Deregister, Register, Registration},
};

use super::{StoreError, estimator_files};

/// The most revisions that are passed over at once; a bucket further ahead was not ours.
pub const MAX_REVISION_GAP: i64 = 1_000_000;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    revision: i64,
    #[diesel(sql_type = Text)]
    definition: String,
    #[diesel(sql_type = Double)]
    valid_from: f64,
    #[diesel(sql_type = Double)]
    required_time: f64,
    /// In JSON.
    #[diesel(sql_type = Text)]
    files: String,
    #[diesel(sql_type = Bool)]
    deleted: bool,
    #[diesel(sql_type = BigInt)]
    changed: i64,
}

impl Row {
    fn registration(self, battery: &BatteryName, estimator: &EstimatorName) -> Registration {
        Registration {
            battery: battery.clone(),
            estimator: estimator.clone(),
            revision: self.revision,
            definition: self.definition,
            valid_from: self.valid_from,
            required_time: self.required_time,
            files: serde_json::from_str(&self.files).unwrap_or_default(),
            deleted: self.deleted,
            changed: self.changed,
        }
    }
}

/// Commits a registration with the contents of its files, in their order; `None` where the battery is
/// not known.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub fn register(
    conn: &mut PgConnection,
    request: &Register,
    contents: &[Vec<u8>],
) -> Result<Option<Registration>, StoreError> {
    conn.transaction(|conn| {
        let row: Option<Row> = sql_query(
            "INSERT INTO hub.estimators AS known \
               (battery_id, name, definition, valid_from, required_time) \
             SELECT id, $2, $3, $4, $5 FROM hub.batteries WHERE name = $1 \
             ON CONFLICT (battery_id, name) DO UPDATE SET \
               revision = nextval('hub.revisions'), definition = excluded.definition, \
               valid_from = excluded.valid_from, required_time = excluded.required_time, \
               deleted = false, changed = clock_timestamp() \
             RETURNING known.revision, known.definition, known.valid_from, known.required_time, \
               '[]' AS files, known.deleted, \
               (extract(epoch FROM known.changed) * 1000000)::bigint AS changed",
        )
        .bind::<Text, _>(request.battery.as_str())
        .bind::<Text, _>(request.estimator.as_str())
        .bind::<Text, _>(&request.definition)
        .bind::<Double, _>(request.valid_from)
        .bind::<Double, _>(request.required_time)
        .get_result(conn)
        .optional()?;
        let Some(row) = row else { return Ok(None) };
        let mut registration = row.registration(&request.battery, &request.estimator);
        estimator_files::replace(conn, request, contents)?;
        registration.files.clone_from(&request.files);
        Ok(Some(registration))
    })
}

/// Commits the removal of a registration; `None` where there is none.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub fn deregister(
    conn: &mut PgConnection,
    request: &Deregister,
) -> Result<Option<Registration>, StoreError> {
    conn.transaction(|conn| {
        let row: Option<Row> = sql_query(
            "UPDATE hub.estimators known SET revision = nextval('hub.revisions'), definition = '', \
               deleted = true, changed = clock_timestamp() \
             FROM hub.batteries battery \
             WHERE battery.id = known.battery_id AND battery.name = $1 AND known.name = $2 \
               AND NOT known.deleted \
             RETURNING known.revision, known.definition, known.valid_from, known.required_time, \
               '[]' AS files, known.deleted, \
               (extract(epoch FROM known.changed) * 1000000)::bigint AS changed",
        )
        .bind::<Text, _>(request.battery.as_str())
        .bind::<Text, _>(request.estimator.as_str())
        .get_result(conn)
        .optional()?;
        let Some(row) = row else { return Ok(None) };
        estimator_files::remove(conn, &request.battery, &request.estimator)?;
        Ok(Some(row.registration(&request.battery, &request.estimator)))
    })
}

/// Names a registration and its revision.
#[derive(Debug, Clone, QueryableByName)]
pub struct Listed {
    /// The battery's name.
    #[diesel(sql_type = Text)]
    pub battery: String,
    /// The estimator's name.
    #[diesel(sql_type = Text)]
    pub estimator: String,
    /// The revision.
    #[diesel(sql_type = BigInt)]
    pub revision: i64,
}

/// Lists all registrations, tombstones included.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub fn list(conn: &mut PgConnection) -> Result<Vec<Listed>, StoreError> {
    Ok(sql_query(
        "SELECT battery.name AS battery, known.name AS estimator, known.revision \
         FROM hub.estimators known JOIN hub.batteries battery ON battery.id = known.battery_id",
    )
    .load(conn)?)
}

/// Returns what the bucket must say instead of `projected`, or `None` if that is right already.
///
/// `projected` must have been read before. So if the table is behind it, the table was restored
/// from a backup: then the registration gets a revision above the bucket's.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub fn successor(
    conn: &mut PgConnection,
    battery: &BatteryName,
    estimator: &EstimatorName,
    projected: Option<&Registration>,
) -> Result<Option<Registration>, StoreError> {
    conn.transaction(|conn| {
        let row = find(conn, battery, estimator)?;
        let found = row.map(|row| row.registration(battery, estimator));
        let Some(projected) = projected else {
            return Ok(found);
        };
        let Some(found) = found else {
            return tombstone(conn, projected);
        };
        if found.revision > projected.revision {
            return Ok(Some(found));
        }
        // Another content under this revision comes from a table that is no more.
        if found.revision == projected.revision && found.changed == projected.changed {
            return Ok(None);
        }
        renew(conn, found, projected)
    })
}

fn find(
    conn: &mut PgConnection,
    battery: &BatteryName,
    estimator: &EstimatorName,
) -> Result<Option<Row>, StoreError> {
    Ok(sql_query(
        "SELECT known.revision, known.definition, known.valid_from, known.required_time, \
           coalesce((SELECT json_agg(json_build_object('name', file.name, 'digest', file.digest, \
               'bytes', octet_length(file.content)) ORDER BY file.place) \
             FROM hub.estimator_files file WHERE file.battery_id = known.battery_id \
               AND file.estimator = known.name), '[]')::text AS files, known.deleted, \
           (extract(epoch FROM known.changed) * 1000000)::bigint AS changed \
         FROM hub.estimators known JOIN hub.batteries battery ON battery.id = known.battery_id \
         WHERE battery.name = $1 AND known.name = $2 FOR UPDATE OF known",
    )
    .bind::<Text, _>(battery.as_str())
    .bind::<Text, _>(estimator.as_str())
    .get_result(conn)
    .optional()?)
}

/// Ends a registration whose battery is gone.
fn tombstone(
    conn: &mut PgConnection,
    projected: &Registration,
) -> Result<Option<Registration>, StoreError> {
    if projected.deleted {
        return Ok(None);
    }
    Ok(Some(Registration {
        revision: revision_above(conn, projected.revision)?,
        definition: String::new(),
        files: Vec::new(),
        deleted: true,
        changed: rovi_common::clock::now_us(),
        ..projected.clone()
    }))
}

/// Gives a registration a revision above the bucket's.
fn renew(
    conn: &mut PgConnection,
    found: Registration,
    projected: &Registration,
) -> Result<Option<Registration>, StoreError> {
    let revision = revision_above(conn, projected.revision)?;
    sql_query(
        "UPDATE hub.estimators known SET revision = $3 FROM hub.batteries battery \
         WHERE battery.id = known.battery_id AND battery.name = $1 AND known.name = $2",
    )
    .bind::<Text, _>(found.battery.as_str())
    .bind::<Text, _>(found.estimator.as_str())
    .bind::<BigInt, _>(revision)
    .execute(conn)?;
    tracing::warn!(
        battery.id = %found.battery,
        "the bucket has revision {} of estimator {} of {}, the table had {} (restored from a \
         backup?): now {revision}",
        projected.revision,
        found.estimator,
        found.battery,
        found.revision
    );
    Ok(Some(Registration { revision, ..found }))
}

/// Draws revisions until one is above `floor`.
fn revision_above(conn: &mut PgConnection, floor: i64) -> Result<i64, StoreError> {
    #[derive(QueryableByName)]
    struct Drawn {
        #[diesel(sql_type = BigInt)]
        revision: i64,
    }
    let draw = |conn: &mut PgConnection, count: i64| -> Result<i64, StoreError> {
        let drawn: Drawn = sql_query(
            "SELECT max(nextval('hub.revisions'))::bigint AS revision FROM generate_series(1, $1)",
        )
        .bind::<BigInt, _>(count)
        .get_result(conn)?;
        Ok(drawn.revision)
    };
    // Drawn, not set: a sequence that is set can fall back behind what others draw meanwhile.
    let drawn = draw(conn, 1)?;
    let gap = floor.saturating_sub(drawn);
    if gap < 0 {
        return Ok(drawn);
    }
    draw(conn, gap.saturating_add(1).min(MAX_REVISION_GAP))
}
