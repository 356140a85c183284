//! What both services answer about callers: who one is, how much one may ask for, and tickets for
//! browser sockets.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::{
    access::Access,
    budget::{Budget, Held},
    gate::Gate,
    lockout::LockoutSettings,
    role::{Grant, Role},
    session,
    ticket::TICKET_S,
};
use crate::{
    http::{self, Problem},
    slow_body,
};

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

/// How much the caller may ask for.
#[derive(Debug, Serialize)]
struct Limits {
    name: String,
    /// The strongest role that the caller has for anything.
    role: Option<Role>,
    /// The caller's budget; 0 is without limit.
    budget: Budget,
    /// Sockets and exports that the caller has open at this service.
    taken: Taken,
    /// How often an address may show wrong credentials.
    lockout: LockoutSettings,
    requests: Requests,
}

#[derive(Debug, Serialize)]
struct Taken {
    sockets: u32,
    exports: u32,
}

/// What holds for every request.
#[derive(Debug, Serialize)]
struct Requests {
    /// Most bytes of a request before its body, and within how many seconds they have to come.
    head_bytes: usize,
    head_s: u64,
    /// Seconds of silence after which a body is given up.
    body_silence_s: u64,
    /// Connections at once, of all callers.
    connections: usize,
}

/// Adds `/limits`, `/auth/me`, `/auth/session` and `/auth/ticket`.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .configure(session::routes)
        .route("/limits", web::get().to(limits))
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

async fn limits(access: Access, gate: web::Data<Gate>) -> HttpResponse {
    let purse = access.purse();
    HttpResponse::Ok().json(Limits {
        name: access.name(),
        role: access.strongest_role(),
        budget: purse.budget(),
        taken: Taken {
            sockets: purse.taken(Held::Sockets),
            exports: purse.taken(Held::Exports),
        },
        lockout: gate.settings().lockout,
        requests: Requests {
            head_bytes: http::HEAD_BYTES,
            head_s: http::HEAD_WITHIN.as_secs(),
            body_silence_s: slow_body::SILENCE.as_secs(),
            connections: http::CONNECTIONS,
        },
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
