//! Promoting, pausing, resuming and resetting one estimator.

use actix_web::{post, web};
use rovi_common::{http::Problem, registration::Action};

use super::{battery_name, estimator_name};
use crate::{
    commands::control::{Stand, control},
    fleet::Fleet,
};

/// Promotes an estimator to champion, pauses it, resumes it, or has it start anew.
#[utoipa::path(
    tag = "estimators",
    params(
        ("battery" = String, Path, description = "The battery's name"),
        ("estimator" = String, Path, description = "The estimator's name"),
        ("action" = String, Path, description = "`promote`, `pause`, `resume` or `reset`"),
    ),
    responses(
        (status = 200, description = "How the estimator stands now; also where it did before", body = Stand),
        (status = 404, description = "No such estimator or action", body = Problem),
        (status = 409, description = "It cannot be champion as it stands: paused, or rows behind", body = Problem),
        (status = 503, description = "The hub is away", body = Problem),
    )
)]
#[post("/online/{battery}/{estimator}/{action}")]
pub(super) async fn control_estimator(
    fleet: web::Data<Fleet>,
    path: web::Path<(String, String, String)>,
) -> Result<web::Json<Stand>, Problem> {
    let (battery, estimator, action) = path.into_inner();
    let (battery, estimator) = (battery_name(&battery)?, estimator_name(&estimator)?);
    let action = match action.as_str() {
        "promote" => Action::Promote,
        "pause" => Action::Pause,
        "resume" => Action::Resume,
        "reset" => Action::Reset,
        other => {
            let detail = format!(
                "an estimator cannot be told to `{other}`; there are promote, pause, resume and reset"
            );
            return Err(Problem::not_found(detail));
        }
    };
    control(&fleet, battery, estimator, action)
        .await
        .map(web::Json)
}
