//! `hub.estimator_files`: what scripts read, kept with their registration.

use diesel::{
    OptionalExtension, PgConnection, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{Binary, Integer, Text},
};
use rovi_common::{
    name::{BatteryName, EstimatorName},
    registration::Register,
};

use super::StoreError;

/// Puts the files of a registration in place of those of an earlier one; part of a transaction.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(super) fn replace(
    conn: &mut PgConnection,
    request: &Register,
    contents: &[Vec<u8>],
) -> Result<(), StoreError> {
    remove(conn, &request.battery, &request.estimator)?;
    for (place, (file, content)) in (0_i32..).zip(request.files.iter().zip(contents)) {
        sql_query(
            "INSERT INTO hub.estimator_files \
               (battery_id, estimator, place, name, digest, content) \
             SELECT id, $2, $3, $4, $5, $6 FROM hub.batteries WHERE name = $1",
        )
        .bind::<Text, _>(request.battery.as_str())
        .bind::<Text, _>(request.estimator.as_str())
        .bind::<Integer, _>(place)
        .bind::<Text, _>(&file.name)
        .bind::<Text, _>(&file.digest)
        .bind::<Binary, _>(content)
        .execute(conn)?;
    }
    Ok(())
}

/// Removes the files of an estimator; part of a transaction.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(super) fn remove(
    conn: &mut PgConnection,
    battery: &BatteryName,
    estimator: &EstimatorName,
) -> Result<(), StoreError> {
    sql_query(
        "DELETE FROM hub.estimator_files file USING hub.batteries battery \
         WHERE battery.id = file.battery_id AND battery.name = $1 AND file.estimator = $2",
    )
    .bind::<Text, _>(battery.as_str())
    .bind::<Text, _>(estimator.as_str())
    .execute(conn)?;
    Ok(())
}

/// Lists the digests of all files, each once.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub fn digests(conn: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    #[derive(QueryableByName)]
    struct Known {
        #[diesel(sql_type = Text)]
        digest: String,
    }
    let known: Vec<Known> =
        sql_query("SELECT DISTINCT digest FROM hub.estimator_files").load(conn)?;
    Ok(known.into_iter().map(|known| known.digest).collect())
}

/// Reads the file of a digest; `None` where no estimator has it any more.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub fn content(conn: &mut PgConnection, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = Binary)]
        content: Vec<u8>,
    }
    let found: Option<Found> =
        sql_query("SELECT content FROM hub.estimator_files WHERE digest = $1 LIMIT 1")
            .bind::<Text, _>(digest)
            .get_result(conn)
            .optional()?;
    Ok(found.map(|found| found.content))
}
