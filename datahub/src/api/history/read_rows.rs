//! `GET /db/{battery}/rows` and `/estimates`: a page of history, or a reduction of all of it.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use rovi_common::{
    auth::{Access, Flow},
    http::Problem,
    name::{BatteryName, EstimatorName},
    rows::Columns,
};
use serde::Serialize;

use super::{
    answer_of,
    gaps::{self, Gaps},
    pairs::Pairs,
    question::{Question, QuestionParams},
};
use crate::{
    api::battery_name,
    history::{
        files::{self, WriteError},
        format::Format,
        pages::{self, Pages, ReadError},
        picks::Picks,
        reduce,
    },
    hub::Hub,
    store::{
        rows::{self, PageLimits, Selected, Selection},
        source::{Of, Source},
        times,
    },
};

const DEFAULT_LIMIT: usize = 10_000;
const MOST_ROWS: usize = 100_000;
/// Bytes of cells after which a page ends, whatever its limit.
const PAGE_BYTES: usize = 64 << 20;

/// How much, and in which form.
#[expect(dead_code, reason = "documents the query; `Form::take` reads it")]
#[derive(Debug, utoipa::IntoParams)]
pub(crate) struct PageParams {
    /// Most rows: 10,000 if not given, at most 100,000.
    #[param(minimum = 1, maximum = 100_000)]
    limit: Option<usize>,
    /// `asc` or `desc`: the newest row first.
    order: Option<String>,
    /// Reduces the range to at most this many rows, which keep the smallest and largest value of
    /// each column in each part of the range.
    #[param(minimum = 2, maximum = 100_000)]
    max_points: Option<usize>,
    /// How rows are reduced: `minmax` is all there is.
    reduce: Option<String>,
    /// `json`, `csv`, `msgpack` or `ndjson`; else what `Accept` asks for.
    format: Option<String>,
}

/// Rows as columns.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RowsBody<'a> {
    battery: &'a str,
    epoch: i64,
    /// The first row that is not gone.
    first_seq: i64,
    /// `seq` of the battery's newest row.
    last_seq: i64,
    /// Whether a limit left rows out.
    more: bool,
    /// First and last `seq` of each known gap between them: rows that were deleted by hand.
    deleted: &'a [(i64, i64)],
    seq: &'a [i64],
    /// Microseconds since 1970; null where estimates outlive their rows.
    received: &'a [Option<i64>],
    segment: &'a [Option<i32>],
    #[schema(value_type = Object)]
    columns: &'a Columns,
    /// Units by column, where one is known.
    units: BTreeMap<&'a str, &'a str>,
}

/// Reads rows of a battery, by ranges of number and time.
#[utoipa::path(
    get,
    path = "/db/{battery}/rows",
    tag = "history",
    params(("battery" = String, Path, description = "Name of the battery"), QuestionParams, PageParams),
    responses(
        (status = 200, description = "The rows in the order of seq", content(
            (RowsBody = "application/json"), (String = "text/csv"), (String = "application/x-ndjson"),
            (Vec<u8> = "application/msgpack"),
        )),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 409, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_rows(
    request: HttpRequest,
    access: Access,
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let asked = (battery_name(&battery)?, Of::Rows);
    answer((&request, &access), Pairs::of(&request), &hub, asked).await
}

/// Reads what an estimator of a battery said, as rows are read.
#[utoipa::path(
    get,
    path = "/db/{battery}/estimates",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("estimator" = Option<String>, Query, description = "Which estimator; else `default`"),
        QuestionParams, PageParams,
    ),
    responses(
        (status = 200, description = "Estimates in the order of seq", content(
            (RowsBody = "application/json"), (String = "text/csv"), (String = "application/x-ndjson"),
            (Vec<u8> = "application/msgpack"),
        )),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 409, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_estimates(
    request: HttpRequest,
    access: Access,
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    let mut pairs = Pairs::of(&request);
    let of = Of::Estimates(estimator(&mut pairs)?);
    answer((&request, &access), pairs, &hub, (battery, of)).await
}

/// Takes the name of an estimator.
pub(super) fn estimator(pairs: &mut Pairs) -> Result<EstimatorName, Problem> {
    let named = pairs.take("estimator")?;
    let name = named.as_deref().unwrap_or("default");
    name.parse()
        .map_err(|error| Problem::bad_request(error).at("estimator"))
}

struct Form {
    format: Format,
    limits: PageLimits,
    max_points: Option<usize>,
}

impl Form {
    fn take(pairs: &mut Pairs, request: &HttpRequest) -> Result<Self, Problem> {
        let format = Format::choose(Format::PAGES, pairs.take("format")?.as_deref(), request)?;
        let limit = pairs.number("limit")?.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MOST_ROWS).contains(&limit) {
            let detail = format!("limit={limit} is outside 1 to {MOST_ROWS}");
            return Err(Problem::bad_request(detail).at("limit"));
        }
        let descending = match pairs.take("order")?.as_deref() {
            None | Some("asc") => false,
            Some("desc") if format == Format::Msgpack => {
                let detail =
                    "frames hold rows in ascending order; take order=desc with another format";
                return Err(Problem::bad_request(detail).at("order"));
            }
            Some("desc") => true,
            Some(other) => {
                let detail = format!("order={other} is not known; there are asc and desc");
                return Err(Problem::bad_request(detail).at("order"));
            }
        };
        if let Some(other) = pairs.take("reduce")?.filter(|kind| kind != "minmax") {
            let detail = format!("reduce={other} is not known; there is minmax");
            return Err(Problem::bad_request(detail).at("reduce"));
        }
        let max_points = pairs.number("max_points")?;
        if let Some(points) = max_points.filter(|points| !(2..=MOST_ROWS).contains(points)) {
            let detail = format!("max_points={points} is outside 2 to {MOST_ROWS}");
            return Err(Problem::bad_request(detail).at("max_points"));
        }
        Ok(Self {
            format,
            limits: PageLimits {
                rows: limit,
                bytes: PAGE_BYTES,
                descending,
            },
            max_points,
        })
    }
}

async fn answer(
    (request, access): (&HttpRequest, &Access),
    mut pairs: Pairs,
    hub: &web::Data<Hub>,
    (battery, of): (BatteryName, Of),
) -> Result<HttpResponse, Problem> {
    let purse = access.purse();
    purse.check(Flow::RowsRead)?;
    let mut question = Question::take(&mut pairs)?;
    let form = Form::take(&mut pairs, request)?;
    pairs.end()?;
    let (mut source, signals) = question.open(hub, &battery, of).await?;
    let selection = question.selection(&source)?;
    let picks = Arc::new(question.picks(&source, &signals)?);
    let (selected, gaps) = match form.max_points {
        None => {
            let (page, first_seq) = page(hub, &source, &picks, selection, form.limits).await?;
            if first_seq != source.line.first_seq {
                Arc::make_mut(&mut source).line.first_seq = first_seq;
            }
            purse.spend(Flow::RowsRead, page.0.seq.len());
            page
        }
        Some(points) => {
            let gaps = gaps::within(hub, &source, selection.seq.clone()).await?;
            let axis = question.axis(&source)?;
            let pages = Pages::new(&hub.pool, &hub.stop, &source, &picks, selection);
            let pages = pages.for_budget(purse);
            let mut selected = reduce::rows(pages, &hub.roller, axis, points).await?;
            if form.limits.descending {
                selected = selected.reversed();
            }
            (selected, gaps)
        }
    };
    let mut response = answer_of(&source);
    gaps::tell(&mut response, &gaps);
    response
        .insert_header((header::VARY, "Accept"))
        .content_type(form.format.content_type());
    // Writing 100,000 rows takes longer than a thread that serves sockets may.
    let written =
        tokio::task::spawn_blocking(move || write(form.format, &source, &picks, (selected, &gaps)));
    let written = written.await.map_err(|error| Problem::internal(&error))?;
    let body = written.map_err(|error| Problem::internal(&error))?;
    Ok(response.body(body))
}

/// Reads one page, and the battery's first row after that; rows stored after the battery was looked
/// up are left for the next.
async fn page(
    hub: &Hub,
    source: &Arc<Source>,
    picks: &Arc<Picks>,
    selection: Selection,
    limits: PageLimits,
) -> Result<((Selected, Gaps), i64), Problem> {
    let (source, picks) = (Arc::clone(source), Arc::clone(picks));
    let gone = ReadError::Gone(source.battery.to_string());
    let newest = source.line.last_seq;
    let selection = Selection {
        seq: *selection.seq.start()..=(*selection.seq.end()).min(newest),
        ..selection
    };
    let read = hub.pool.run(move |connection| {
        let page = pages::current(connection, &source, |connection| {
            let parts = times::narrow(connection, &source, &selection)?;
            let page = rows::page(connection, &source, &parts, picks.fetched(), limits)?;
            let page = gaps::of_page(connection, &source, page, (&selection, limits))?;
            Ok((page, source.first_seq_now(connection)?))
        })?;
        Ok(page.map(|((page, gaps), first)| ((pages::finish(&picks, page), gaps), first)))
    });
    read.await?.ok_or_else(|| gone.into())
}

fn write(
    format: Format,
    source: &Arc<Source>,
    picks: &Arc<Picks>,
    (selected, deleted): (Selected, &Gaps),
) -> Result<Vec<u8>, WriteError> {
    if let Some(writer) = files::writer(format, source, picks, "{}")? {
        return files::whole(writer, selected);
    }
    let body = RowsBody {
        battery: source.battery.as_str(),
        epoch: source.line.epoch,
        first_seq: source.line.first_seq,
        last_seq: source.line.last_seq,
        more: selected.more,
        deleted,
        seq: &selected.seq,
        received: &selected.received,
        segment: &selected.segment,
        columns: &selected.columns,
        units: picks
            .iter()
            .filter_map(|pick| Some((pick.name, pick.unit?)))
            .collect(),
    };
    serde_json::to_vec(&body).map_err(|error| WriteError {
        form: "JSON",
        source: error.into(),
    })
}
