//! `GET /db/{battery}/statistics`: figures of columns in intervals.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use rovi_common::{
    auth::{Access, Flow},
    http::Problem,
};

use super::{
    answer_of,
    pairs::Pairs,
    question::{Question, QuestionParams, clock_axis},
};
use crate::{
    api::battery_name,
    history::{
        pages::Pages,
        range::Axis,
        statistics::{self, Every, Statistics},
    },
    hub::Hub,
    store::source::Of,
};

/// Counts and measures the numeric columns of a battery in intervals.
#[utoipa::path(
    get,
    path = "/db/{battery}/statistics",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("every" = String, Query, description = "Width of an interval: `1h`, `1000s`, `1000rows`"),
        QuestionParams,
    ),
    responses(
        (status = 200, body = Statistics), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_statistics(
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
    let Some(every) = pairs.take("every")? else {
        let detail = "every= is missing; it tells how wide an interval is, as 1h or 1000rows";
        return Err(Problem::bad_request(detail).at("every"));
    };
    let every = Every::parse(&every)?;
    pairs.end()?;
    let (source, signals) = question.open(&hub, &battery, Of::Rows).await?;
    let selection = question.selection(&source)?;
    let picks = Arc::new(question.picks(&source, &signals)?);
    let axis = match (every, question.axis(&source)?) {
        (Every::Rows(_), axis) if axis == Axis::Seq || !question.names_axis() => Axis::Seq,
        (Every::Seconds(_), Axis::Seq) if !question.names_axis() => clock_axis(&source),
        (Every::Seconds(_), axis) if axis != Axis::Seq => axis,
        (Every::Rows(_), axis) => return Err(unfit("rows", axis)),
        (Every::Seconds(_), axis) => return Err(unfit("a time", axis)),
    };
    let pages = Pages::new(&hub.pool, &hub.stop, &source, &picks, selection).for_budget(purse);
    let statistics = statistics::gather(pages, axis, every).await?;
    Ok(answer_of(&source).json(statistics))
}

fn unfit(every: &str, axis: Axis) -> Problem {
    let detail = format!(
        "every= is {every}, which does not go with axis={}",
        axis.name()
    );
    Problem::bad_request(detail).at("axis")
}
