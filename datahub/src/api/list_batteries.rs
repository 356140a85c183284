//! `GET /db/stats`: which batteries there are, and what is known of them.

use std::collections::BTreeMap;

use actix_web::web;
use diesel::{PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_query, sql_types};
use rovi_common::{
    auth::{Access, Role},
    http::Problem,
    name::BatteryName,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    hub::Hub,
    relay::lag,
    store::columns::{self, Meaning},
};

/// What is known of one battery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct BatteryStats {
    has_metadata: bool,
    has_data: bool,
    has_estimator: bool,
    data_stats: Option<DataStats>,
    relay_stats: Option<RelayStats>,
}

/// How far the bus is behind a battery's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct RelayStats {
    /// Rows up to this `seq` are known to be on the bus.
    relayed_seq: i64,
    rows_behind: i64,
    /// Age of the oldest row that the bus lacks, in seconds; looked up for the twenty batteries
    /// that are furthest behind.
    oldest_s: Option<i64>,
}

/// What is known of a battery's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct DataStats {
    /// Rows that are not gone.
    rows: i64,
    /// The first of them.
    first_seq: i64,
    /// The newest.
    last_seq: i64,
    /// PostgreSQL's types by column.
    columns: BTreeMap<String, String>,
    /// Units by column, where one is known.
    units: BTreeMap<String, String>,
    /// Descriptions by column, where one is known.
    descriptions: BTreeMap<String, String>,
}

impl DataStats {
    fn new(
        battery: &Battery,
        columns: BTreeMap<String, String>,
        given: Option<&BTreeMap<String, Meaning>>,
    ) -> Self {
        let mut units = BTreeMap::new();
        let mut descriptions = BTreeMap::new();
        let names = columns.keys().map(String::as_str);
        for (name, meaning) in columns::meanings(given, names) {
            units.extend(meaning.unit.map(|unit| (name.clone(), unit)));
            descriptions.extend(meaning.description.map(|text| (name, text)));
        }
        Self {
            rows: battery.last_seq - battery.first_seq + 1 - battery.deleted_rows,
            first_seq: battery.first_seq,
            last_seq: battery.last_seq,
            columns,
            units,
            descriptions,
        }
    }
}

#[derive(QueryableByName)]
struct Battery {
    #[diesel(sql_type = sql_types::Text)]
    name: String,
    #[diesel(sql_type = sql_types::BigInt)]
    first_seq: i64,
    #[diesel(sql_type = sql_types::BigInt)]
    last_seq: i64,
    #[diesel(sql_type = sql_types::BigInt)]
    deleted_rows: i64,
    #[diesel(sql_type = sql_types::BigInt)]
    relayed_seq: i64,
    #[diesel(sql_type = sql_types::Bool)]
    has_metadata: bool,
    #[diesel(sql_type = sql_types::Bool)]
    has_estimator: bool,
}

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = sql_types::Text)]
    battery: String,
    #[diesel(sql_type = sql_types::Text)]
    name: String,
    #[diesel(sql_type = sql_types::Text)]
    kind: String,
}

/// Lists the batteries with what is known of them.
#[utoipa::path(
    get,
    path = "/db/stats",
    tag = "batteries",
    responses(
        (status = 200, body = BTreeMap<String, BatteryStats>), (status = 503, body = Problem),
    )
)]
pub(crate) async fn list_batteries(
    access: Access,
    hub: web::Data<Hub>,
) -> Result<web::Json<BTreeMap<String, BatteryStats>>, Problem> {
    let may_see = move |battery: &Battery| {
        let name = battery.name.parse::<BatteryName>();
        access.is_everyone() || name.is_ok_and(|name| access.may(Role::Reader, &name))
    };
    let stats = move |connection: &mut PgConnection| Ok(stats(connection, &may_see)?);
    let stats = hub.pool.run(stats).await?;
    Ok(web::Json(stats))
}

fn stats(
    connection: &mut PgConnection,
    may_see: &dyn Fn(&Battery) -> bool,
) -> QueryResult<BTreeMap<String, BatteryStats>> {
    let mut batteries: Vec<Battery> = sql_query(
        "SELECT b.name, b.first_seq, b.last_seq, b.deleted_rows, b.relayed_seq, \
         m.battery_id IS NOT NULL AS has_metadata, \
         EXISTS (SELECT FROM hub.estimators e WHERE e.battery_id = b.id AND NOT e.deleted) \
         AS has_estimator \
         FROM hub.batteries b LEFT JOIN hub.metadata m ON m.battery_id = b.id",
    )
    .load(connection)?;
    batteries.retain(may_see);
    let columns: Vec<Column> = sql_query(
        "SELECT c.relname::text AS battery, a.attname::text AS name, \
         format_type(a.atttypid, NULL) AS kind FROM pg_attribute a \
         JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' \
         JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'battery' \
         WHERE a.attnum > 0 AND NOT a.attisdropped",
    )
    .load(connection)?;
    let given = columns::given(connection, None)?;
    let mut by_battery: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for column in columns {
        let columns = by_battery.entry(column.battery).or_default();
        columns.insert(column.name, column.kind);
    }
    let oldest_s = oldest(connection, &batteries);
    let stats = |battery: Battery| {
        let columns = by_battery.remove(&battery.name);
        let data_stats = columns
            .filter(|_| battery.last_seq > 0)
            .map(|columns| DataStats::new(&battery, columns, given.get(&battery.name)));
        let stats = BatteryStats {
            has_metadata: battery.has_metadata,
            has_data: battery.last_seq > 0,
            has_estimator: battery.has_estimator,
            relay_stats: relay_stats(&battery, &oldest_s),
            data_stats,
        };
        (battery.name, stats)
    };
    Ok(batteries.into_iter().map(stats).collect())
}

/// Returns the age in seconds of the oldest row that the bus lacks, by battery.
fn oldest(connection: &mut PgConnection, batteries: &[Battery]) -> BTreeMap<String, i64> {
    let rows_behind = |battery: &Battery| battery.last_seq - battery.relayed_seq;
    let mut behind: Vec<&Battery> = batteries.iter().filter(|b| rows_behind(b) > 0).collect();
    behind.sort_by_key(|battery| std::cmp::Reverse(rows_behind(battery)));
    behind.truncate(usize::try_from(lag::LOOKED_AT).unwrap_or_default());
    let mut ages = BTreeMap::new();
    for battery in behind {
        // A table that somebody dropped has no oldest row.
        let received = lag::received_after(connection, &battery.name, battery.relayed_seq);
        if let Some(received) = received.ok().flatten() {
            ages.insert(battery.name.clone(), lag::age_s(received));
        }
    }
    ages
}

fn relay_stats(battery: &Battery, oldest_s: &BTreeMap<String, i64>) -> Option<RelayStats> {
    (battery.last_seq > 0).then(|| RelayStats {
        relayed_seq: battery.relayed_seq,
        rows_behind: (battery.last_seq - battery.relayed_seq).max(0),
        oldest_s: oldest_s.get(&battery.name).copied(),
    })
}
