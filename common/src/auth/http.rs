//! What both services answer about callers: who one is, and tickets for browser sockets.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::{access::Access, gate::Gate, role::Grant, session, ticket::TICKET_S};
use crate::http::Problem;

/// Who the caller is.
#[derive(Debug, Serialize)]
struct Me {
    name: String,
    grants: Vec<Grant>,
    /// Microseconds since 1970.
    expires: Option<i64>,
    /// Whether callers have to say who they are.
    required: bool,
}

/// Adds `/auth/me`, `/auth/session` and `/auth/ticket`.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .configure(session::routes)
        .route("/auth/me", web::get().to(me))
        .route("/auth/ticket", web::post().to(ticket));
}

async fn me(access: Access, gate: web::Data<Gate>) -> HttpResponse {
    HttpResponse::Ok().json(Me {
        name: access.name(),
        grants: access.grants(),
        expires: access.expires(),
        required: gate.is_required(),
    })
}

async fn ticket(access: Access, gate: web::Data<Gate>) -> Result<HttpResponse, Problem> {
    let ticket = gate.ticket(&access).ok_or_else(|| {
        let detail = "tickets need auth.service_token_file in the settings of the services";
        Problem::new(actix_web::http::StatusCode::NOT_IMPLEMENTED, detail)
    })?;
    let answer = serde_json::json!({"ticket": ticket, "expires_s": TICKET_S});
    Ok(HttpResponse::Ok()
        .insert_header(("Cache-Control", "no-store"))
        .json(answer))
}
