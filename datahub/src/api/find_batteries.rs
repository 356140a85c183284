//! `GET /db/batteries`: batteries by what their metadata say.

use actix_web::web;
use rovi_common::{
    auth::{Access, Role, known::Visible},
    filter::Filter,
    http::Problem,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    hub::Hub,
    store::find::{self, Found, Search},
};

const DEFAULT_LIMIT: usize = 100;
const MOST_BATTERIES: usize = 1000;
/// The longest text to look for, in bytes.
const MAX_TEXT_BYTES: usize = 1024;

/// Which batteries.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatteriesQuery {
    /// Clauses such as `battery.cathode.name = NMC532 and rows > 0`, joined by `and`.
    #[serde(rename = "where")]
    #[param(example = "cathode = NMC532")]
    condition: Option<String>,
    /// A text that name or metadata hold, whatever the case.
    q: Option<String>,
    /// Most batteries: 100 if not given, at most 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only batteries whose names come after this one.
    after: Option<String>,
}

/// Batteries in the order of their names.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct BatteriesBody {
    batteries: Vec<FoundBattery>,
    /// What `after` must be to go on; null at the end. A page may be short, or empty, before.
    next: Option<String>,
}

/// A battery that was found.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct FoundBattery {
    name: String,
    /// The name in its metadata.
    title: Option<String>,
    epoch: i64,
    rows: i64,
    first_seq: i64,
    last_seq: i64,
    /// Revision of its metadata; null where it has none.
    metadata_revision: Option<i64>,
    /// What was found at the paths of `where`.
    fields: Map<String, Value>,
}

/// Lists batteries, all or those that meet a condition.
#[utoipa::path(
    get,
    path = "/db/batteries",
    tag = "batteries",
    params(BatteriesQuery),
    responses(
        (status = 200, body = BatteriesBody), (status = 400, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn find_batteries(
    access: Access,
    query: web::Query<BatteriesQuery>,
    hub: web::Data<Hub>,
) -> Result<web::Json<BatteriesBody>, Problem> {
    let mut search = search(query.into_inner())?;
    search.visible = access.visible(Role::Reader);
    let filter = search.filter.clone();
    let answer = hub
        .pool
        .run(move |connection| find::find(connection, &search));
    let answer = answer.await?;
    let shown = |battery| show(&filter, battery);
    Ok(web::Json(BatteriesBody {
        batteries: answer.found.into_iter().map(shown).collect(),
        next: answer.next,
    }))
}

fn search(query: BatteriesQuery) -> Result<Search, Problem> {
    let filter = query.condition.unwrap_or_default().parse::<Filter>();
    let filter = filter.map_err(|error| Problem::bad_request(error).at("where"))?;
    let has_nul = |text: &String| text.contains('\0');
    if let Some(clause) = filter
        .clauses
        .iter()
        .find(|clause| clause.path.iter().any(has_nul))
    {
        let detail = format!("the path {:?} holds a NUL character", clause.path.join("."));
        return Err(Problem::bad_request(detail).at("where"));
    }
    for (field, text) in [("q", &query.q), ("after", &query.after)] {
        if text
            .as_ref()
            .is_some_and(|text| text.len() > MAX_TEXT_BYTES || has_nul(text))
        {
            let detail = format!("{field} must have at most {MAX_TEXT_BYTES} bytes, none a NUL");
            return Err(Problem::bad_request(detail).at(field));
        }
    }
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MOST_BATTERIES).contains(&limit) {
        let detail = format!("limit={limit} is outside 1 to {MOST_BATTERIES}");
        return Err(Problem::bad_request(detail).at("limit"));
    }
    Ok(Search {
        filter,
        text: query.q.filter(|text| !text.is_empty()),
        limit,
        after: query.after.unwrap_or_default(),
        visible: Visible::default(),
    })
}

fn show(filter: &Filter, battery: Found) -> FoundBattery {
    let values = battery.fields.as_array().cloned().unwrap_or_default();
    let paths = filter.clauses.iter().map(|clause| clause.path.join("."));
    FoundBattery {
        name: battery.name,
        title: battery.title,
        epoch: battery.epoch,
        rows: battery.last_seq - battery.first_seq + 1 - battery.deleted_rows,
        first_seq: battery.first_seq,
        last_seq: battery.last_seq,
        metadata_revision: battery.revision,
        fields: paths.zip(values).collect(),
    }
}
