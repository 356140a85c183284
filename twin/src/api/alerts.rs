//! Alerts and their rules.

use actix_web::{delete, get, http::StatusCode, put, web};
use rovi_common::{
    alerts::{AlertRuleReply, DeleteAlertRule, Episode, PutAlertRule, RuleDefinition},
    auth::{Access, Role},
    http::Problem,
    name::EstimatorName,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{hub_problem, name};
use crate::fleet::Fleet;

/// A rule with its name.
#[derive(Debug, Serialize, ToSchema)]
struct NamedRule {
    #[schema(value_type = String)]
    rule: EstimatorName,
    /// Raised by every change.
    revision: i64,
    #[serde(flatten)]
    definition: RuleDefinition,
}

/// Which alerts are asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertsQuery {
    /// `true`: only those that last.
    #[serde(default)]
    active: bool,
}

/// The newest alert of each rule and battery: those that last first, then the newest.
#[utoipa::path(
    tag = "alerts",
    params(AlertsQuery),
    responses((status = 200, description = "Alerts", body = Vec<Episode>))
)]
#[get("/online/alerts")]
pub(super) async fn get_alerts(
    access: Access,
    fleet: web::Data<Fleet>,
    query: web::Query<AlertsQuery>,
) -> web::Json<Vec<Episode>> {
    let mut episodes = fleet.shared().alerts.episodes();
    episodes.retain(|episode| {
        (episode.is_active || !query.active) && access.may(Role::Reader, &episode.battery)
    });
    episodes.sort_by_key(|episode| (!episode.is_active, -episode.at()));
    web::Json(episodes)
}

/// All rules.
#[utoipa::path(
    tag = "alerts",
    responses((status = 200, description = "Rules by name", body = Vec<NamedRule>))
)]
#[get("/online/alerts/rules")]
pub(super) async fn get_rules(
    access: Access,
    fleet: web::Data<Fleet>,
) -> web::Json<Vec<NamedRule>> {
    let rules = fleet.shared().alerts.rules();
    let seen = rules.iter();
    let seen = seen.filter(|rule| access.may_name(Role::Reader, rule.rule.as_str()));
    web::Json(seen.filter_map(|rule| shown(rule)).collect())
}

/// One rule.
#[utoipa::path(
    tag = "alerts",
    params(("rule" = String, Path, description = "The rule's name")),
    responses(
        (status = 200, description = "The rule", body = NamedRule),
        (status = 404, description = "No such rule", body = Problem),
    )
)]
#[get("/online/alerts/rules/{rule}")]
pub(super) async fn get_rule(
    access: Access,
    fleet: web::Data<Fleet>,
    path: web::Path<String>,
) -> Result<web::Json<NamedRule>, Problem> {
    let rule: EstimatorName = name("rule", &path)?;
    need_name(&access, Role::Reader, &rule)?;
    let found = fleet.shared().alerts.rule(&rule);
    let found = found.and_then(|found| shown(&found));
    found.map(web::Json).ok_or_else(|| no_rule(&rule))
}

/// Makes a rule, or replaces the one of its name; an alert that lasts goes on under the new one.
#[utoipa::path(
    tag = "alerts",
    params(("rule" = String, Path, description = "The rule's name")),
    request_body = RuleDefinition,
    responses(
        (status = 200, description = "The rule as committed", body = NamedRule),
        (status = 400, description = "A field is wrong; `field` names it", body = Problem),
        (status = 503, description = "The hub is away", body = Problem),
    )
)]
#[put("/online/alerts/rules/{rule}")]
pub(super) async fn put_rule(
    access: Access,
    fleet: web::Data<Fleet>,
    path: web::Path<String>,
    body: web::Bytes,
) -> Result<web::Json<NamedRule>, Problem> {
    let rule: EstimatorName = name("rule", &path)?;
    need_name(&access, Role::Engineer, &rule)?;
    let shared = fleet.shared();
    let definition: RuleDefinition = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("this is no rule: {error}")))?;
    let checked = definition.check();
    checked
        .map_err(|(field, wrong)| Problem::bad_request(format!("`{field}` {wrong}")).at(field))?;
    match definition.batteries.as_deref() {
        None | Some([]) => access.need_all(Role::Engineer)?,
        Some(batteries) => {
            let mut asked = batteries.iter();
            asked.try_for_each(|battery| access.need(Role::Engineer, battery))?;
        }
    }
    if let Some(url) = &definition.webhook
        && let Some(problem) = shared.hooks.problem(url)
    {
        return Err(Problem::bad_request(problem).at("webhook"));
    }
    let request = PutAlertRule {
        rule: rule.clone(),
        definition,
    };
    let reply = shared.hub.put_alert_rule(&request).await;
    committed(&fleet, &rule, reply.map_err(|error| hub_problem(&error))?)
        .and_then(|rule| rule.map(web::Json).ok_or_else(|| no_rule(&request.rule)))
}

/// Removes a rule; alerts of it that last end.
#[utoipa::path(
    tag = "alerts",
    params(("rule" = String, Path, description = "The rule's name")),
    responses(
        (status = 200, description = "What was removed, in words", body = String),
        (status = 404, description = "No such rule", body = Problem),
        (status = 503, description = "The hub is away", body = Problem),
    )
)]
#[delete("/online/alerts/rules/{rule}")]
pub(super) async fn delete_rule(
    access: Access,
    fleet: web::Data<Fleet>,
    path: web::Path<String>,
) -> Result<web::Json<String>, Problem> {
    let rule: EstimatorName = name("rule", &path)?;
    need_name(&access, Role::Engineer, &rule)?;
    let request = DeleteAlertRule { rule };
    let reply = fleet.shared().hub.delete_alert_rule(&request).await;
    let rule = request.rule;
    committed(&fleet, &rule, reply.map_err(|error| hub_problem(&error))?)?;
    Ok(web::Json(format!("removed `{rule}`")))
}

/// Takes the hub's answer apart and puts the rule into force here.
fn committed(
    fleet: &Fleet,
    name: &EstimatorName,
    reply: AlertRuleReply,
) -> Result<Option<NamedRule>, Problem> {
    match reply {
        AlertRuleReply::Done(rule) => {
            let shown = shown(&rule);
            fleet.shared().alerts.apply(*rule);
            Ok(shown)
        }
        AlertRuleReply::NotFound => Err(no_rule(name)),
        AlertRuleReply::Refused { detail } => Err(Problem::bad_request(detail)),
        AlertRuleReply::Unavailable { detail } => Err(Problem::unavailable(detail)),
    }
}

fn shown(rule: &rovi_common::alerts::AlertRule) -> Option<NamedRule> {
    Some(NamedRule {
        rule: rule.rule.clone(),
        revision: rule.revision,
        definition: rule.definition.clone()?,
    })
}

/// Asks for a role for rules of this name; whoever has none hears that there is no such rule.
fn need_name(access: &Access, role: Role, named: &EstimatorName) -> Result<(), Problem> {
    if access.may_name(role, named.as_str()) {
        return Ok(());
    }
    if access.may_name(Role::Reader, named.as_str()) {
        let detail = format!("this needs the role {role} for rules named as {named}");
        return Err(Problem::new(StatusCode::FORBIDDEN, detail).at("rule"));
    }
    Err(no_rule(named))
}

fn no_rule(rule: &EstimatorName) -> Problem {
    Problem::not_found(format!("there is no alert rule `{rule}`")).at("rule")
}
