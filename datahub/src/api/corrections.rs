//! `GET /db/{battery}/corrections`: the journal of rows that were corrected or deleted.

use actix_web::web;
use diesel::PgConnection;
use rovi_common::http::Problem;
use serde::{Deserialize, Serialize};

use super::{battery_name, no_such_battery};
use crate::{
    hub::Hub,
    store::{
        batteries,
        corrections::{self, Before, JournalLine},
    },
};

const DEFAULT_LIMIT: i64 = 100;
const MOST: i64 = 1000;

/// Which part of the journal.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournalQuery {
    /// Only what comes after: the last `revision`, or `seq`, of the page before.
    after: Option<i64>,
    /// Most lines: 100 if not given, at most 1,000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// Corrections of a battery, oldest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CorrectionsBody {
    battery: String,
    corrections: Vec<JournalLine>,
    /// Whether the limit left corrections out.
    more: bool,
}

/// Rows as they were before a correction, in the order of `seq`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct BeforeBody {
    battery: String,
    revision: i64,
    rows: Vec<Before>,
    /// Whether the limit left rows out.
    more: bool,
}

impl JournalQuery {
    fn bounds(&self) -> Result<(i64, i64), Problem> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MOST).contains(&limit) {
            let detail = format!("limit={limit} is outside 1 to {MOST}");
            return Err(Problem::bad_request(detail).at("limit"));
        }
        Ok((self.after.unwrap_or(0), limit))
    }
}

/// Lists corrections and deletions of a battery's rows, oldest first.
#[utoipa::path(
    get,
    path = "/db/{battery}/corrections",
    tag = "corrections",
    params(("battery" = String, Path, description = "Name of the battery"), JournalQuery),
    responses(
        (status = 200, body = CorrectionsBody), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn list_corrections(
    battery: web::Path<String>,
    query: web::Query<JournalQuery>,
    hub: web::Data<Hub>,
) -> Result<web::Json<CorrectionsBody>, Problem> {
    let battery = battery_name(&battery)?;
    let (after, limit) = query.bounds()?;
    let name = battery.to_string();
    let read = move |connection: &mut PgConnection| {
        let Some(line) = batteries::find(connection, &name)? else {
            return Ok(None);
        };
        let listed = corrections::list(connection, line.id, after, limit + 1)?;
        let (corrections, more) = page(listed, limit);
        Ok(Some(CorrectionsBody {
            battery: name,
            corrections,
            more,
        }))
    };
    let body = hub.pool.run(read).await?;
    body.map(web::Json).ok_or_else(|| no_such_battery(&battery))
}

/// Reads rows as they were before a correction.
#[utoipa::path(
    get,
    path = "/db/{battery}/corrections/{revision}",
    tag = "corrections",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("revision" = i64, Path, description = "The correction"), JournalQuery,
    ),
    responses(
        (status = 200, body = BeforeBody), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_before(
    path: web::Path<(String, String)>,
    query: web::Query<JournalQuery>,
    hub: web::Data<Hub>,
) -> Result<web::Json<BeforeBody>, Problem> {
    let (battery, revision) = path.into_inner();
    let battery = battery_name(&battery)?;
    let revision: i64 = revision.parse().map_err(|_no_number| {
        Problem::bad_request(format!("`{revision}` is no number of a correction")).at("revision")
    })?;
    let (after, limit) = query.bounds()?;
    let name = battery.to_string();
    let read = move |connection: &mut PgConnection| {
        let Some(line) = batteries::find(connection, &name)? else {
            return Ok(None);
        };
        let rows = corrections::before(connection, (line.id, revision), after, limit + 1)?;
        let (rows, more) = page(rows, limit);
        Ok(Some(BeforeBody {
            battery: name,
            revision,
            rows,
            more,
        }))
    };
    let body = hub.pool.run(read).await?;
    body.map(web::Json).ok_or_else(|| no_such_battery(&battery))
}

/// Cuts what is beyond a limit.
fn page<T>(mut found: Vec<T>, limit: i64) -> (Vec<T>, bool) {
    let most = usize::try_from(limit).unwrap_or_default();
    let more = found.len() > most;
    found.truncate(most);
    (found, more)
}
