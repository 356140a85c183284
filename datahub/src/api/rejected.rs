//! `/db/{battery}/rejected`: rows that no table took, to be looked at, sent again or dropped.

use std::{ops::RangeInclusive, sync::Arc};

use actix_web::{HttpResponse, web};
use diesel::PgConnection;
use rovi_common::{http::Problem, name::BatteryName};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use uuid::Uuid;

use super::{battery_name, no_such_battery};
use crate::{
    batch::Ending,
    hub::Hub,
    store::{
        batteries, durable,
        rejected::{self, Ids, KeptRow, Reason},
        sessions,
    },
    upload::{
        decode::{Limits, decode_kept},
        intake::{Intake, Request},
    },
};

const DEFAULT_LIMIT: i64 = 100;
const MOST_ROWS: i64 = 1000;
/// Reasons that are told with their numbers of rows.
const MOST_REASONS: i64 = 20;
/// Rows that are sent again together: at most as many rows as this are in memory, each bounded.
const REPLAYED_TOGETHER: i64 = 200;
/// Namespace of the sessions of replays.
const REPLAYS: Uuid = Uuid::from_u128(0x5e1c_9f5a_0d6b_4f0e_8a3e_726f_7669_7270);

/// Which rejected rows.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct RejectedQuery {
    /// Ids: numbers and inclusive ranges `a..b`, separated by commas; all if not given.
    #[param(example = "3,7..9")]
    id: Option<String>,
    /// Only rows with larger ids: the last `id` of the page before.
    after: Option<i64>,
    /// Most rows: 100 if not given, at most 1,000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// Which rejected rows to send again or to drop.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdsQuery {
    /// Ids: numbers and inclusive ranges `a..b`, separated by commas.
    #[param(example = "3,7..9")]
    id: Option<String>,
}

/// Rejected rows of a battery.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RejectedBody {
    battery: String,
    /// Rows kept in all.
    count: i64,
    /// The commonest reasons.
    reasons: Vec<Reason>,
    rejected: Vec<KeptRow>,
    /// Whether the limit left rows out.
    more: bool,
}

/// What became of rows that were sent again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ReplayBody {
    /// Rows sent again.
    replayed: u64,
    /// Rows that are in the table now.
    stored: u64,
    /// Rows that stay, with the reason of now.
    rejected: u64,
}

/// Lists rows that no table took, with the reasons and as they were sent.
#[utoipa::path(
    get,
    path = "/db/{battery}/rejected",
    tag = "rejected rows",
    params(("battery" = String, Path, description = "Name of the battery"), RejectedQuery),
    responses(
        (status = 200, body = RejectedBody), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn list_rejected(
    battery: web::Path<String>,
    query: web::Query<RejectedQuery>,
    hub: web::Data<Hub>,
) -> Result<web::Json<RejectedBody>, Problem> {
    let battery = battery_name(&battery)?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MOST_ROWS).contains(&limit) {
        let detail = format!("limit={limit} is outside 1 to {MOST_ROWS}");
        return Err(Problem::bad_request(detail).at("limit"));
    }
    let ids = ids_of(query.id.as_deref())?;
    let after = query.after.unwrap_or(i64::MIN);
    let name = battery.to_string();
    let read = move |connection: &mut PgConnection| {
        let Some(line) = batteries::find(connection, &name)? else {
            return Ok(None);
        };
        let mut rejected = rejected::read(connection, line.id, &ids, after, limit + 1)?;
        // They are dropped and replayed by what is told of them here.
        durable::settle(connection)?;
        let most = usize::try_from(limit).unwrap_or_default();
        let more = rejected.len() > most;
        rejected.truncate(most);
        Ok(Some(RejectedBody {
            battery: name,
            count: rejected::count(connection, line.id)?,
            reasons: rejected::reasons(connection, line.id, MOST_REASONS)?,
            rejected,
            more,
        }))
    };
    let body = hub.pool.run(read).await?;
    body.map(web::Json).ok_or_else(|| no_such_battery(&battery))
}

/// Sends rejected rows again, as if they came anew; those that fit now leave the list in the
/// transaction that stores them, the others stay with the reason of now.
#[utoipa::path(
    post,
    path = "/db/{battery}/rejected/replay",
    tag = "rejected rows",
    params(("battery" = String, Path, description = "Name of the battery"), IdsQuery),
    responses(
        (status = 200, body = ReplayBody), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn replay_rejected(
    battery: web::Path<String>,
    query: web::Query<IdsQuery>,
    hub: web::Data<Hub>,
) -> Result<web::Json<ReplayBody>, Problem> {
    let battery = battery_name(&battery)?;
    let ids = ids_of(query.id.as_deref())?;
    let hub = hub.into_inner();
    let mut intake = open(&hub, &battery).await?;
    let patience = hub.settings.post_timeout;
    let replaying = replay(&hub, &mut intake, &ids);
    let replayed = timeout(patience, replaying).await;
    let rejected = intake.progress().borrow().rejected;
    match replayed {
        Ok(replayed) => {
            let replayed = replayed?;
            Ok(web::Json(ReplayBody {
                replayed,
                stored: replayed.saturating_sub(rejected),
                rejected,
            }))
        }
        Err(_out_of_time) => Err(Problem::unavailable(format!(
            "not all rows were stored within {patience:?}; those that were have left the list, \
             ask again for the others"
        ))),
    }
}

/// Opens the battery's session of replays, after which no earlier replay stores anything more: so
/// what is in the list then is all that is to be sent, and each row is stored once.
async fn open(hub: &Arc<Hub>, battery: &BatteryName) -> Result<Intake, Problem> {
    let name = battery.to_string();
    let days = hub.settings.sessions.days;
    let found = hub.pool.run(move |connection| {
        let Some(line) = batteries::find(connection, &name)? else {
            return Ok(None);
        };
        let session = Uuid::new_v5(&REPLAYS, &line.id.to_be_bytes());
        sessions::forget_ended(connection, session, days)?;
        Ok(Some(session))
    });
    let session = found.await?.ok_or_else(|| no_such_battery(battery))?;
    let request = Request {
        battery: battery.clone(),
        session: Some(session),
        from: 0,
        begins_segment: false,
        speaks: false,
        body: None,
    };
    Ok(Intake::open(Arc::clone(hub), request).await?.at_the_end())
}

/// Sends the rows and waits until all are settled; returns their number.
async fn replay(hub: &Hub, intake: &mut Intake, ids: &Ids) -> Result<u64, Problem> {
    let battery_id = intake.uploader.claim.battery_id;
    let limits = Limits::of_bodies(&hub.settings);
    let mut after = i64::MIN;
    let mut replayed = 0;
    loop {
        let ids = ids.clone();
        let read = move |connection: &mut PgConnection| {
            let together = REPLAYED_TOGETHER;
            let rows = rejected::read(connection, battery_id, &ids, after, together)?;
            // A crash might take the lines, and give others their ids.
            durable::settle(connection)?;
            Ok(rows)
        };
        let rows = hub.pool.run(read).await?;
        let Some(last) = rows.last() else {
            break;
        };
        after = last.id;
        let (ids, kept): (Vec<i64>, Vec<_>) = rows.into_iter().map(|row| (row.id, row.row)).unzip();
        replayed += ids.len() as u64;
        let decoded = decode_kept(kept, &limits);
        intake.replay(decoded, ids).await?;
    }
    let settled: Result<(), Ending> = intake.settled().await;
    settled?;
    Ok(replayed)
}

/// Drops rejected rows for good; answers their number.
#[utoipa::path(
    delete,
    path = "/db/{battery}/rejected",
    tag = "rejected rows",
    params(("battery" = String, Path, description = "Name of the battery"), IdsQuery),
    responses(
        (status = 200, body = u64), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn drop_rejected(
    battery: web::Path<String>,
    query: web::Query<IdsQuery>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    if query.id.is_none() {
        let detail = "say which rows to drop: id=7, id=3,7..9, or id=.. for all";
        return Err(Problem::bad_request(detail).at("id"));
    }
    let ids = ids_of(query.id.as_deref())?;
    let name = battery.to_string();
    let drop = move |connection: &mut PgConnection| {
        let Some(line) = batteries::find(connection, &name)? else {
            return Ok(None);
        };
        Ok(Some(rejected::drop_rows(connection, line.id, &ids)?))
    };
    let dropped = hub.pool.run(drop).await?;
    let dropped = dropped.ok_or_else(|| no_such_battery(&battery))?;
    tracing::info!(battery.id = %battery, "{dropped} rejected rows of {battery} dropped");
    Ok(HttpResponse::Ok().json(dropped))
}

/// Reads numbers and ranges; all where nothing is said.
fn ids_of(text: Option<&str>) -> Result<Ids, Problem> {
    let Some(text) = text else {
        return Ok(Ids(vec![i64::MIN..=i64::MAX]));
    };
    let wrong = || {
        let detail = "id must be numbers and ranges a..b that do not end before they begin, \
                      separated by commas, such as 3,7..9";
        Problem::bad_request(detail).at("id")
    };
    let bound = |text: &str, open| match text.trim() {
        "" => Ok(open),
        text => text.parse::<i64>().map_err(|_no_number| wrong()),
    };
    let range = |part: &str| -> Result<RangeInclusive<i64>, Problem> {
        match part.split_once("..") {
            Some((first, last)) => {
                let (first, last) = (bound(first, i64::MIN)?, bound(last, i64::MAX)?);
                (first <= last).then_some(first..=last).ok_or_else(wrong)
            }
            None if part.trim().is_empty() => Err(wrong()),
            None => bound(part, 0).map(|id| id..=id),
        }
    };
    text.split(',')
        .map(range)
        .collect::<Result<_, _>>()
        .map(Ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_and_ranges() {
        let ids = |text: &str| ids_of(Some(text)).map(|ids| ids.0);
        assert_eq!(ids("3,7..9").unwrap(), [3..=3, 7..=9]);
        assert_eq!(ids("..").unwrap(), [i64::MIN..=i64::MAX]);
        for wrong in ["", "a", "1,,2", "1..b", "9..7"] {
            assert_eq!(ids(wrong).unwrap_err().status.as_u16(), 400, "{wrong}");
        }
    }
}
