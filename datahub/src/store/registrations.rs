//! `hub.estimators`: registrations, each with a revision that is never used again.

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{BigInt, Bool, Double, Text},
};
use rovi_common::{
    name::{BatteryName, EstimatorName},
    registration::{Action, Champion, Control, Deregister, Register, Registration, Standing},
};

use super::{
    StoreError,
    champions::{self, Held},
    estimator_files,
};

/// The most revisions that are passed over at once; a bucket further ahead was not ours.
pub const MAX_REVISION_GAP: i64 = 1_000_000;

/// The columns of a [`Row`] of `hub.estimators known`, the files apart.
macro_rules! columns {
    () => {
        "known.revision, known.definition, known.valid_from, known.required_time, known.deleted, \
         known.version, known.paused, known.change, \
         (extract(epoch FROM known.changed) * 1000000)::bigint AS changed"
    };
}

/// The files of `hub.estimators known` in JSON.
macro_rules! files {
    () => {
        "coalesce((SELECT json_agg(json_build_object('name', file.name, 'digest', file.digest, \
             'bytes', octet_length(file.content)) ORDER BY file.place) \
           FROM hub.estimator_files file WHERE file.battery_id = known.battery_id \
             AND file.estimator = known.name), '[]')::text AS files"
    };
}

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
    version: i64,
    #[diesel(sql_type = Bool)]
    paused: bool,
    #[diesel(sql_type = Text)]
    change: String,
    #[diesel(sql_type = BigInt)]
    changed: i64,
}

/// What became of a request to control an estimator.
#[derive(Debug)]
pub enum Controlled {
    /// It is so, whether it was before or not.
    Done(Box<Registration>),
    /// There is no such battery or estimator.
    NotFound,
    /// It cannot be, and why.
    Conflict(String),
}

impl Row {
    fn registration(self, battery: &BatteryName, estimator: &EstimatorName) -> Registration {
        Registration {
            battery: battery.clone(),
            estimator: estimator.clone(),
            revision: self.revision,
            definition: self.definition.into(),
            valid_from: self.valid_from,
            required_time: self.required_time,
            files: serde_json::from_str(&self.files).unwrap_or_default(),
            deleted: self.deleted,
            changed: self.changed,
            standing: Standing {
                version: self.version,
                paused: self.paused,
                change: self.change,
                champion: None,
            },
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
        let Some(held) = champions::hold(conn, &request.battery)? else {
            return Ok(None);
        };
        let row: Option<Row> = sql_query(concat!(
            "INSERT INTO hub.estimators AS known \
               (battery_id, name, definition, valid_from, required_time) \
             SELECT id, $2, $3, $4, $5 FROM hub.batteries WHERE name = $1 \
             ON CONFLICT (battery_id, name) DO UPDATE SET \
               revision = nextval('hub.revisions'), definition = excluded.definition, \
               valid_from = excluded.valid_from, required_time = excluded.required_time, \
               version = nextval('hub.revisions'), paused = false, \
               change = CASE WHEN known.deleted THEN 'registered' ELSE 'replaced' END, \
               deleted = false, changed = clock_timestamp() \
             RETURNING '[]' AS files, ",
            columns!()
        ))
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
        registration.standing.champion = champions::settle(conn, (&request.battery, &held), None)?;
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
        let Some(held) = champions::hold(conn, &request.battery)? else {
            return Ok(None);
        };
        let row: Option<Row> = sql_query(concat!(
            "UPDATE hub.estimators known SET revision = nextval('hub.revisions'), definition = '', \
               version = nextval('hub.revisions'), paused = false, change = 'removed', \
               deleted = true, changed = clock_timestamp() \
             FROM hub.batteries battery \
             WHERE battery.id = known.battery_id AND battery.name = $1 AND known.name = $2 \
               AND NOT known.deleted \
             RETURNING '[]' AS files, ",
            columns!()
        ))
        .bind::<Text, _>(request.battery.as_str())
        .bind::<Text, _>(request.estimator.as_str())
        .get_result(conn)
        .optional()?;
        let Some(row) = row else { return Ok(None) };
        estimator_files::remove(conn, &request.battery, &request.estimator)?;
        let mut tombstone = row.registration(&request.battery, &request.estimator);
        tombstone.standing.champion = champions::settle(conn, (&request.battery, &held), None)?;
        Ok(Some(tombstone))
    })
}

/// Commits that an estimator is promoted, paused, resumed or reset; what is so already stays.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub fn control(conn: &mut PgConnection, request: &Control) -> Result<Controlled, StoreError> {
    let (battery, estimator) = (&request.battery, &request.estimator);
    conn.transaction(|conn| {
        let Some(held) = champions::hold(conn, battery)? else {
            return Ok(Controlled::NotFound);
        };
        let known = find(conn, battery, estimator)?;
        let Some(known) = known.filter(|known| !known.deleted) else {
            return Ok(Controlled::NotFound);
        };
        let is_so = match request.action {
            Action::Promote if known.standing.paused => {
                return Ok(Controlled::Conflict(format!(
                    "estimator `{estimator}` of `{battery}` is paused: resume it before it is promoted"
                )));
            }
            Action::Promote => {
                let champion = known.standing.champion.as_ref();
                champion.is_some_and(|champion| champion.estimator.as_ref() == Some(estimator))
            }
            Action::Pause => known.standing.paused,
            Action::Resume => !known.standing.paused,
            Action::Reset => false,
        };
        if !is_so {
            change(conn, request, &held)?;
        }
        let now = find(conn, battery, estimator)?.unwrap_or(known);
        Ok(Controlled::Done(Box::new(now)))
    })
}

fn change(conn: &mut PgConnection, request: &Control, held: &Held) -> Result<(), StoreError> {
    let (battery, estimator) = (&request.battery, &request.estimator);
    let (change, promoted) = match request.action {
        Action::Promote => ("promoted", Some(estimator)),
        Action::Pause => ("paused", None),
        Action::Resume => ("resumed", None),
        Action::Reset => ("reset", None),
    };
    champions::settle(conn, (battery, held), promoted)?;
    sql_query(
        "UPDATE hub.estimators known SET version = nextval('hub.revisions'), \
           revision = CASE WHEN $3 = 'reset' THEN nextval('hub.revisions') ELSE known.revision END, \
           paused = CASE $3 WHEN 'paused' THEN true WHEN 'resumed' THEN false \
             ELSE known.paused END, \
           change = $3, changed = clock_timestamp() \
         FROM hub.batteries battery \
         WHERE battery.id = known.battery_id AND battery.name = $1 AND known.name = $2",
    )
    .bind::<Text, _>(battery.as_str())
    .bind::<Text, _>(estimator.as_str())
    .bind::<Text, _>(change)
    .execute(conn)?;
    Ok(())
}

/// Names a registration and its version.
#[derive(Debug, Clone, QueryableByName)]
pub struct Listed {
    /// The battery's name.
    #[diesel(sql_type = Text)]
    pub battery: String,
    /// The estimator's name.
    #[diesel(sql_type = Text)]
    pub estimator: String,
    /// The version.
    #[diesel(sql_type = BigInt)]
    pub version: i64,
}

/// Lists all registrations, tombstones included.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub fn list(conn: &mut PgConnection) -> Result<Vec<Listed>, StoreError> {
    Ok(sql_query(
        "SELECT battery.name AS battery, known.name AS estimator, \
           greatest(known.version, known.revision) AS version \
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
        let found = find(conn, battery, estimator)?;
        let Some(projected) = projected else {
            return Ok(found);
        };
        let Some(found) = found else {
            return tombstone(conn, projected);
        };
        if found.version() > projected.version() {
            return Ok(Some(found));
        }
        // Another content under this version comes from a table that is no more.
        if found.version() == projected.version() && found.changed == projected.changed {
            return Ok(None);
        }
        renew(conn, &found, projected)
    })
}

fn find(
    conn: &mut PgConnection,
    battery: &BatteryName,
    estimator: &EstimatorName,
) -> Result<Option<Registration>, StoreError> {
    let row: Option<Row> = sql_query(concat!(
        "SELECT ",
        files!(),
        ", ",
        columns!(),
        " FROM hub.estimators known JOIN hub.batteries battery ON battery.id = known.battery_id \
         WHERE battery.name = $1 AND known.name = $2 FOR UPDATE OF known",
    ))
    .bind::<Text, _>(battery.as_str())
    .bind::<Text, _>(estimator.as_str())
    .get_result(conn)
    .optional()?;
    let Some(row) = row else { return Ok(None) };
    let mut found = row.registration(battery, estimator);
    found.standing.champion = champions::newest(conn, battery)?;
    Ok(Some(found))
}

/// Ends a registration whose battery is gone.
fn tombstone(
    conn: &mut PgConnection,
    projected: &Registration,
) -> Result<Option<Registration>, StoreError> {
    if projected.deleted {
        return Ok(None);
    }
    let revision = revision_above(conn, projected.version())?;
    Ok(Some(Registration {
        revision,
        definition: "".into(),
        files: Vec::new(),
        deleted: true,
        changed: rovi_common::clock::now_us(),
        standing: Standing {
            version: revision,
            paused: false,
            change: "removed".to_owned(),
            // Else twins would remember that of the name's last life in its next one.
            champion: Some(Champion {
                era: revision,
                estimator: None,
                epoch: 0,
                from_seq: 0,
            }),
        },
        ..projected.clone()
    }))
}

/// Gives a registration revision and version above the bucket's, and so its battery's champion.
fn renew(
    conn: &mut PgConnection,
    found: &Registration,
    projected: &Registration,
) -> Result<Option<Registration>, StoreError> {
    let revision = revision_above(conn, projected.version())?;
    sql_query(
        "UPDATE hub.estimators known SET revision = $3, version = $3 FROM hub.batteries battery \
         WHERE battery.id = known.battery_id AND battery.name = $1 AND known.name = $2",
    )
    .bind::<Text, _>(found.battery.as_str())
    .bind::<Text, _>(found.estimator.as_str())
    .bind::<BigInt, _>(revision)
    .execute(conn)?;
    champions::renew(conn, &found.battery)?;
    tracing::warn!(
        battery.id = %found.battery,
        "the bucket has version {} of estimator {} of {}, the table had {} (restored from a \
         backup?): now {revision}",
        projected.version(),
        found.estimator,
        found.battery,
        found.version()
    );
    find(conn, &found.battery, &found.estimator)
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
