//! `GET /db/stats`: which batteries there are, and what is known of them.

use std::collections::BTreeMap;

use actix_web::web;
use diesel::{PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_query, sql_types};
use rovi_common::http::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    hub::Hub,
    store::columns::{self, Meaning},
};

/// What is known of one battery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct BatteryStats {
    has_metadata: bool,
    has_data: bool,
    has_estimator: bool,
    data_stats: Option<DataStats>,
}

/// What is known of a battery's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct DataStats {
    rows: i64,
    /// PostgreSQL's types by column.
    columns: BTreeMap<String, String>,
    /// Units by column, where one is known.
    units: BTreeMap<String, String>,
    /// Descriptions by column, where one is known.
    descriptions: BTreeMap<String, String>,
}

impl DataStats {
    fn new(
        rows: i64,
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
            rows,
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
    rows: i64,
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
    hub: web::Data<Hub>,
) -> Result<web::Json<BTreeMap<String, BatteryStats>>, Problem> {
    let stats = hub.pool.run(|connection| Ok(stats(connection)?)).await?;
    Ok(web::Json(stats))
}

fn stats(connection: &mut PgConnection) -> QueryResult<BTreeMap<String, BatteryStats>> {
    let batteries: Vec<Battery> = sql_query(
        "SELECT b.name, b.last_seq AS rows, m.battery_id IS NOT NULL AS has_metadata, \
         EXISTS (SELECT FROM hub.estimators e WHERE e.battery_id = b.id AND NOT e.deleted) \
         AS has_estimator \
         FROM hub.batteries b LEFT JOIN hub.metadata m ON m.battery_id = b.id",
    )
    .load(connection)?;
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
    let stats = |battery: Battery| {
        let columns = by_battery.remove(&battery.name);
        let data_stats = columns
            .filter(|_| battery.rows > 0)
            .map(|columns| DataStats::new(battery.rows, columns, given.get(&battery.name)));
        let stats = BatteryStats {
            has_metadata: battery.has_metadata,
            has_data: battery.rows > 0,
            has_estimator: battery.has_estimator,
            data_stats,
        };
        (battery.name, stats)
    };
    Ok(batteries.into_iter().map(stats).collect())
}
