//! `hub.alert_rules`: rules of alerts, each with a revision that is never used again.

use diesel::{
    OptionalExtension, PgConnection, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{BigInt, Nullable, Text},
};
use rovi_common::{
    alerts::{AlertRule, DeleteAlertRule, PutAlertRule},
    name::EstimatorName,
};

use super::StoreError;

const COLUMNS: &str = "name, revision, definition::text AS definition, \
     (extract(epoch FROM changed) * 1000000)::bigint AS changed";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    revision: i64,
    #[diesel(sql_type = Nullable<Text>)]
    definition: Option<String>,
    #[diesel(sql_type = BigInt)]
    changed: i64,
}

impl Row {
    /// `None` for a line that somebody else wrote and nobody can read.
    fn rule(self) -> Option<AlertRule> {
        let rule: EstimatorName = self.name.parse().ok()?;
        let definition = self.definition.map(|text| serde_json::from_str(&text));
        let definition = definition.transpose();
        let definition = definition
            .inspect_err(|error| tracing::error!("alert rule {rule} cannot be read: {error}"))
            .ok()?;
        Some(AlertRule {
            rule,
            revision: self.revision,
            definition,
            changed: self.changed,
        })
    }
}

/// Commits a rule in place of one of its name.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub fn put(
    conn: &mut PgConnection,
    request: &PutAlertRule,
) -> Result<Option<AlertRule>, StoreError> {
    let definition = serde_json::to_string(&request.definition).unwrap_or_default();
    let statement = format!(
        "INSERT INTO hub.alert_rules (name, definition) VALUES ($1, $2::json) \
         ON CONFLICT (name) DO UPDATE SET revision = nextval('hub.revisions'), \
           definition = excluded.definition, changed = clock_timestamp() \
         RETURNING {COLUMNS}"
    );
    let row: Row = sql_query(statement)
        .bind::<Text, _>(request.rule.as_str())
        .bind::<Text, _>(definition)
        .get_result(conn)?;
    Ok(row.rule())
}

/// Commits the removal of a rule; `None` where there is none.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub fn delete(
    conn: &mut PgConnection,
    request: &DeleteAlertRule,
) -> Result<Option<AlertRule>, StoreError> {
    let statement = format!(
        "UPDATE hub.alert_rules SET revision = nextval('hub.revisions'), definition = NULL, \
           changed = clock_timestamp() \
         WHERE name = $1 AND definition IS NOT NULL RETURNING {COLUMNS}"
    );
    let row: Option<Row> = sql_query(statement)
        .bind::<Text, _>(request.rule.as_str())
        .get_result(conn)
        .optional()?;
    Ok(row.and_then(Row::rule))
}

/// Lists all rules, tombstones included.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub fn list(conn: &mut PgConnection) -> Result<Vec<AlertRule>, StoreError> {
    let rows: Vec<Row> = sql_query(format!("SELECT {COLUMNS} FROM hub.alert_rules")).load(conn)?;
    Ok(rows.into_iter().filter_map(Row::rule).collect())
}
