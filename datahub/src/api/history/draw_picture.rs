//! `GET /dashboard/{battery}/img/{picture}`: history as a picture for reports.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use rovi_common::{
    auth::{Access, Flow},
    http::Problem,
    name::BatteryName,
};
use rovi_pictures::{Chart, Look, Size, Theme};
use tokio::sync::Semaphore;

use super::{
    answer_of,
    pairs::Pairs,
    question::{Question, QuestionParams},
    read_rows,
};
use crate::{
    api::battery_name,
    history::{draw, picture, range::Axis},
    hub::Hub,
    store::source::{Of, Source},
};

/// What a picture costs of a budget of rows.
const PICTURE_ROWS: usize = 50_000;
/// Pictures that are drawn at a time; each may take 64 MiB.
static DRAWING: Semaphore = Semaphore::const_new(2);

/// How it looks.
#[expect(dead_code, reason = "documents the query; `look` reads it")]
#[derive(Debug, utoipa::IntoParams)]
pub(crate) struct LookParams {
    /// Width in pixels, 200 to 4,000; else 1,000.
    width: Option<u32>,
    /// Height in pixels, 200 to 4,000; else 700.
    height: Option<u32>,
    /// `light` or `dark`.
    theme: Option<String>,
    /// Of estimates: which estimator; else `default`.
    estimator: Option<String>,
}

/// Draws rows or estimates of a battery: `history.svg`, `history.png`, `estimates.svg`, `estimates.png`.
#[utoipa::path(
    get,
    path = "/dashboard/{battery}/img/{picture}",
    tag = "pictures",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("picture" = String, Path, description = "`history` or `estimates`, `.svg` or `.png`"),
        QuestionParams, LookParams,
    ),
    responses(
        (status = 200, description = "The picture", content(
            (String = "image/svg+xml"), (Vec<u8> = "image/png"),
        )),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn draw_picture(
    request: HttpRequest,
    access: Access,
    path: web::Path<(String, String)>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (battery, picture) = path.into_inner();
    let battery = battery_name(&battery)?;
    let mut pairs = Pairs::of(&request);
    let (kind, form) = picture.split_once('.').unwrap_or((&picture, ""));
    let of = match kind {
        "history" => Of::Rows,
        "estimates" => Of::Estimates(read_rows::estimator(&mut pairs)?),
        _ => return Err(no_such(&picture)),
    };
    let draw: fn(&Chart, Look) -> _ = match form {
        "svg" => |chart, look| rovi_pictures::svg(chart, look).map(String::into_bytes),
        "png" => rovi_pictures::png,
        _ => return Err(no_such(&picture)),
    };
    // What is drawn was reduced before, and is counted as no more than one answer's rows.
    let purse = access.purse();
    purse.check(Flow::RowsRead)?;
    let look = look(&mut pairs)?;
    purse.spend(Flow::RowsRead, PICTURE_ROWS);
    let mut question = Question::take(&mut pairs)?;
    pairs.end()?;
    let (source, chart) = chart(&hub, &battery, of, &mut question, look).await?;
    let _turn = DRAWING
        .acquire()
        .await
        .map_err(|error| Problem::internal(&error))?;
    let drawn = tokio::task::spawn_blocking(move || draw(&chart, look)).await;
    let drawn = drawn.map_err(|error| Problem::internal(&error))?;
    let body = drawn.map_err(|error| Problem::internal(&error))?;
    let content_type = if form == "svg" {
        "image/svg+xml"
    } else {
        "image/png"
    };
    Ok(answer_of(&source)
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .content_type(content_type)
        .body(body))
}

fn no_such(picture: &str) -> Problem {
    let detail = format!(
        "there is no picture `{picture}`; there are history.svg, history.png, estimates.svg and estimates.png"
    );
    Problem::not_found(detail).at("picture")
}

fn look(pairs: &mut Pairs) -> Result<Look, Problem> {
    let default = Look::default();
    let width = pairs.number("width")?.unwrap_or(default.size.width());
    let height = pairs.number("height")?.unwrap_or(default.size.height());
    let size =
        Size::new(width, height).map_err(|error| Problem::bad_request(&error).at(error.side))?;
    let theme = match pairs.take("theme")?.as_deref() {
        None | Some("light") => Theme::Light,
        Some("dark") => Theme::Dark,
        Some(other) => {
            let detail = format!("theme={other} is not known; there are light and dark");
            return Err(Problem::bad_request(detail).at("theme"));
        }
    };
    Ok(Look { size, theme })
}

/// Reads what is drawn, reduced to what the picture's width can show.
async fn chart(
    hub: &web::Data<Hub>,
    battery: &BatteryName,
    of: Of,
    question: &mut Question,
    look: Look,
) -> Result<(Arc<Source>, Chart), Problem> {
    let (source, signals) = question.open(hub, battery, of).await?;
    let selection = question.selection(&source)?;
    let axis = match question.axis(&source)? {
        Axis::Seq if !question.names_axis() => draw::usual_axis(&source),
        axis => axis,
    };
    let picks = if question.names_columns() {
        question.picks(&source, &signals)?.numeric()
    } else {
        picture::usual(&source)
    };
    let chosen = (axis, picks);
    let chart = draw::chart(hub, &source, chosen, selection, look).await?;
    Ok((source, chart))
}
