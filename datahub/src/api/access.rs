//! `/auth/tokens` and `/auth/batteries`: who may do what.

use actix_web::{HttpResponse, web};
use rovi_common::{
    auth::{
        Access, Grant, Placement, Role, Scope, TokenRecord, Word,
        secret::{self, Digest},
    },
    clock,
    http::Problem,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::battery_name;
use crate::{
    access::AccessKeeper,
    hub::Hub,
    store::access::{self, NewToken, StoredToken},
};

/// The most grants of a token.
const MAX_GRANTS: usize = 100;
const MAX_NAME_CHARS: usize = 100;
/// The longest life of a token: ten years.
const MAX_LIFE_S: u64 = 10 * 365 * 86_400;

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRequest {
    /// What people call it.
    name: String,
    /// Such as `reader`, `engineer:tenant=acme`, `reader:tag=lab`, `uploader:battery=b7`.
    #[schema(value_type = Vec<String>)]
    grants: Vec<Grant>,
    /// For how many seconds it counts; until it is revoked, if not given.
    expires_s: Option<u64>,
}

/// A token, but for the token itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenInfo {
    id: String,
    name: String,
    #[schema(value_type = Vec<String>)]
    grants: Vec<Grant>,
    /// Microseconds since 1970, as the others.
    created: i64,
    created_by: String,
    expires: Option<i64>,
    revoked: Option<i64>,
}

impl From<StoredToken> for TokenInfo {
    fn from(token: StoredToken) -> Self {
        let record = token.record;
        Self {
            id: record.id,
            name: record.name,
            grants: record.grants,
            created: token.created,
            created_by: token.created_by,
            expires: record.expires,
            revoked: record.revoked,
        }
    }
}

/// A token that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeToken {
    /// The token: shown this once, and kept nowhere.
    token: String,
    #[serde(flatten)]
    info: TokenInfo,
}

/// To whom a battery belongs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlacementRequest {
    /// Its tenant; if null, that after which it is called.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    tenant: Option<Word>,
    /// Its tags.
    #[schema(value_type = Vec<String>)]
    #[serde(default)]
    tags: Vec<Word>,
}

/// A battery in its place.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Placed {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    placement: Placement,
    /// Tokens that count and are for this battery alone, whoever has it: those whom it was taken from
    /// may hold some.
    tokens: Vec<TokenInfo>,
}

/// Makes a token, for what the caller administers.
#[utoipa::path(
    post,
    path = "/auth/tokens",
    tag = "access",
    request_body = TokenRequest,
    responses(
        (status = 200, body = MadeToken), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn create_token(
    access: Access,
    body: web::Json<TokenRequest>,
    hub: web::Data<Hub>,
    keeper: web::Data<AccessKeeper>,
) -> Result<HttpResponse, Problem> {
    let asked = body.into_inner();
    check(&asked, &access)?;
    let (id, token) = secret::new_token().map_err(Problem::unavailable)?;
    #[expect(clippy::cast_precision_loss, reason = "at most ten years")]
    let new = NewToken {
        id,
        name: asked.name,
        digest: Digest::of(&token),
        grants: asked.grants,
        created_by: access.name(),
        expires_s: asked.expires_s.map(|seconds| seconds as f64),
    };
    let made = hub.pool.run(move |conn| access::create(conn, &new)).await?;
    access.note(token_with_grants(&made));
    tracing::info!("token {} is made by {}", made.record.id, made.created_by);
    keeper.apply_token(made.record.clone()).await;
    let info = made.into();
    Ok(HttpResponse::Ok()
        .insert_header(("Cache-Control", "no-store"))
        .json(MadeToken { token, info }))
}

fn check(asked: &TokenRequest, access: &Access) -> Result<(), Problem> {
    let name_is_fit = (1..=MAX_NAME_CHARS).contains(&asked.name.chars().count())
        && !asked.name.chars().any(char::is_control);
    if !name_is_fit {
        let detail = format!("a name has 1 to {MAX_NAME_CHARS} characters that can be seen");
        return Err(Problem::bad_request(detail).at("name"));
    }
    if !(1..=MAX_GRANTS).contains(&asked.grants.len()) {
        let detail = format!("a token has 1 to {MAX_GRANTS} grants");
        return Err(Problem::bad_request(detail).at("grants"));
    }
    if asked
        .expires_s
        .is_some_and(|s| !(1..=MAX_LIFE_S).contains(&s))
    {
        let detail = format!("expires_s must be 1 to {MAX_LIFE_S}");
        return Err(Problem::bad_request(detail).at("expires_s"));
    }
    let forbidden = |detail: String| Problem::new(actix_web::http::StatusCode::FORBIDDEN, detail);
    for grant in &asked.grants {
        if !access.covers(Role::Admin, &grant.scope) {
            let detail = format!("{grant}: that is for its admins to give");
            return Err(forbidden(detail).at("grants"));
        }
    }
    // A token that ends gives none that outlives it.
    let Some(own_end) = access.expires() else {
        return Ok(());
    };
    let lives = asked.expires_s.and_then(|s| i64::try_from(s).ok());
    let ends = lives.map(|s| clock::now_us() + s * 1_000_000);
    if ends.is_none_or(|ends| ends > own_end) {
        let detail = "your own token ends before; say an earlier expires_s".to_owned();
        return Err(forbidden(detail).at("expires_s"));
    }
    Ok(())
}

/// Lists the tokens for what the caller administers, revoked ones too.
#[utoipa::path(
    get,
    path = "/auth/tokens",
    tag = "access",
    responses((status = 200, body = Vec<TokenInfo>), (status = 503, body = Problem))
)]
pub(crate) async fn list_tokens(
    access: Access,
    hub: web::Data<Hub>,
) -> Result<web::Json<Vec<TokenInfo>>, Problem> {
    let tokens = hub.pool.run(access::tokens).await?;
    let administered = tokens
        .into_iter()
        .filter(|token| administers(&access, &token.record.grants));
    Ok(web::Json(administered.map(TokenInfo::from).collect()))
}

/// Revokes a token: it stops counting everywhere, and what its bearer has open is closed.
#[utoipa::path(
    delete,
    path = "/auth/tokens/{token}",
    tag = "access",
    params(("token" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = TokenInfo), (status = 404, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn revoke_token(
    access: Access,
    id: web::Path<String>,
    hub: web::Data<Hub>,
    keeper: web::Data<AccessKeeper>,
) -> Result<web::Json<TokenInfo>, Problem> {
    let none = || Problem::not_found("there is no such token").at("token");
    let id = id.into_inner();
    let tokens = hub.pool.run(access::tokens).await?;
    let found = tokens.into_iter().find(|token| token.record.id == id);
    if !found.is_some_and(|token| administers(&access, &token.record.grants)) {
        return Err(none());
    }
    let revoked = hub.pool.run(move |conn| access::revoke(conn, &id)).await?;
    let revoked = revoked.ok_or_else(none)?;
    access.note(token_with_grants(&revoked));
    tracing::info!(
        "token {} is revoked by {}",
        revoked.record.id,
        access.name()
    );
    keeper.apply_token(revoked.record.clone()).await;
    Ok(web::Json(revoked.into()))
}

/// Names a token for the audit.
fn token_with_grants(token: &StoredToken) -> String {
    let TokenRecord {
        id, name, grants, ..
    } = &token.record;
    let grants: Vec<String> = grants.iter().map(ToString::to_string).collect();
    format!("token {id} ({name}): {}", grants.join(", "))
}

fn administers(access: &Access, grants: &[Grant]) -> bool {
    grants
        .iter()
        .all(|grant| access.covers(Role::Admin, &grant.scope))
        && (!grants.is_empty() || access.need_all(Role::Admin).is_ok())
}

/// Says to whom a battery belongs, and its tags; the battery need not exist yet.
#[utoipa::path(
    put,
    path = "/auth/batteries/{battery}",
    tag = "access",
    params(("battery" = String, Path, description = "Name of the battery")),
    request_body = PlacementRequest,
    responses((status = 200, body = Placed), (status = 400, body = Problem), (status = 503, body = Problem))
)]
pub(crate) async fn place_battery(
    access: Access,
    battery: web::Path<String>,
    body: web::Json<PlacementRequest>,
    hub: web::Data<Hub>,
    keeper: web::Data<AccessKeeper>,
) -> Result<HttpResponse, Problem> {
    let PlacementRequest { tenant, tags } = body.into_inner();
    let placement = Placement {
        battery: battery_name(&battery)?,
        tenant,
        tags,
    };
    let (owner, tags) = (placement.tenant.as_ref(), &placement.tags);
    let owner = owner.map_or("none", Word::as_str);
    let tags: Vec<&str> = tags.iter().map(Word::as_str).collect();
    access.note(format!(
        "{battery}: tenant {owner}, tags {}",
        tags.join(", ")
    ));
    let stored = placement.clone();
    hub.pool
        .run(move |conn| access::place(conn, &stored))
        .await?;
    keeper.apply_placement(placement.clone()).await;
    let tokens = hub.pool.run(access::tokens).await?;
    let own = Scope::Battery(placement.battery.clone());
    let tokens = tokens.into_iter().filter(|token| {
        let record = &token.record;
        let ended = record.expires.is_some_and(|end| end <= clock::now_us());
        !ended && record.revoked.is_none() && record.grants.iter().any(|one| one.scope == own)
    });
    let tokens = tokens.map(TokenInfo::from).collect();
    Ok(HttpResponse::Ok().json(Placed { placement, tokens }))
}

/// Lists what is said of batteries.
#[utoipa::path(
    get,
    path = "/auth/batteries",
    tag = "access",
    responses((status = 200, body = Vec<Object>), (status = 503, body = Problem))
)]
pub(crate) async fn list_placements(
    hub: web::Data<Hub>,
) -> Result<web::Json<Vec<Placement>>, Problem> {
    Ok(web::Json(hub.pool.run(access::placements).await?))
}
