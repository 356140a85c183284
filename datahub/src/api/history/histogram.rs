//! `GET /db/{battery}/histogram`: how the values of columns are distributed.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, web};
use rovi_common::{
    auth::{Access, Flow},
    http::Problem,
};
use serde::Serialize;

use super::{
    answer_of,
    pairs::Pairs,
    question::{Question, QuestionParams},
};
use crate::{
    api::battery_name,
    history::{
        histogram::{self, Histogram, MOST_BINS},
        pages::Pages,
    },
    hub::Hub,
    store::source::Of,
};

const DEFAULT_BINS: usize = 40;

/// The distribution of each numeric column.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct HistogramBody {
    columns: BTreeMap<String, Histogram>,
}

/// Counts the values of the numeric columns of a battery in bins of equal width.
#[utoipa::path(
    get,
    path = "/db/{battery}/histogram",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("bins" = Option<usize>, Query, description = "Most bins of a column: 40 if not given, 2 to 200"),
        QuestionParams,
    ),
    responses(
        (status = 200, body = HistogramBody), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_histogram(
    request: HttpRequest,
    access: Access,
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    let purse = access.purse();
    purse.check(Flow::RowsRead)?;
    let mut pairs = Pairs::of(&request);
    let mut question = Question::take(&mut pairs)?;
    let bins: usize = pairs.number("bins")?.unwrap_or(DEFAULT_BINS);
    pairs.end()?;
    if !(2..=MOST_BINS).contains(&bins) {
        let detail = format!("bins={bins} is outside 2 to {MOST_BINS}");
        return Err(Problem::bad_request(detail).at("bins"));
    }
    let (source, signals) = question.open(&hub, &battery, Of::Rows).await?;
    let selection = question.selection(&source)?;
    let picks = Arc::new(question.picks(&source, &signals)?);
    let pages = Pages::new(&hub.pool, &hub.stop, &source, &picks, selection).for_budget(purse);
    let columns = histogram::gather(pages, bins).await?;
    Ok(answer_of(&source).json(HistogramBody { columns }))
}
