//! `/auth/revocations`: JWTs of an outside issuer that do not count any more.

use actix_web::web;
use rovi_common::{
    auth::{Access, Revocation},
    clock,
    http::Problem,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    access::AccessKeeper,
    hub::Hub,
    store::revocations::{self, StoredRevocation},
};

/// The most bytes of a `jti` or subject.
const MAX_BYTES: usize = 1000;

/// What does not count any more: one JWT by its `jti`, or those of a subject.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevocationRequest {
    /// `jti` of the one.
    #[serde(default)]
    jti: Option<String>,
    /// `sub` of those.
    #[serde(default)]
    subject: Option<String>,
    /// With `subject`: those that were issued before this, in seconds since 1970; before now, if not
    /// given.
    #[serde(default)]
    issued_before: Option<i64>,
}

/// A revocation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevocationInfo {
    jti: Option<String>,
    subject: Option<String>,
    /// Microseconds since 1970, as the other.
    issued_before: Option<i64>,
    created: i64,
    created_by: String,
}

impl From<StoredRevocation> for RevocationInfo {
    fn from(stored: StoredRevocation) -> Self {
        let record = stored.record;
        Self {
            jti: record.jti,
            subject: record.subject,
            issued_before: record.issued_before,
            created: stored.created,
            created_by: stored.created_by,
        }
    }
}

impl RevocationRequest {
    fn read(self) -> Result<Revocation, Problem> {
        let (id, field, named) = match (&self.jti, &self.subject) {
            (Some(jti), None) => (Revocation::id_of_jti(jti), "jti", jti),
            (None, Some(subject)) => (Revocation::id_of_subject(subject), "subject", subject),
            _ => {
                let detail = "name one JWT by `jti`, or those of a `subject`";
                return Err(Problem::bad_request(detail).at("jti"));
            }
        };
        if !(1..=MAX_BYTES).contains(&named.len()) || named.chars().any(char::is_control) {
            let detail = format!("it has 1 to {MAX_BYTES} bytes that can be seen");
            return Err(Problem::bad_request(detail).at(field));
        }
        if self.jti.is_some() && self.issued_before.is_some() {
            let detail = "issued_before goes with subject: a jti names one JWT";
            return Err(Problem::bad_request(detail).at("issued_before"));
        }
        let now = clock::now_us();
        // `iat` has whole seconds: what was issued within this one is meant, too.
        let before = self.issued_before.unwrap_or(now / 1_000_000 + 1);
        let before = before.checked_mul(1_000_000).filter(|before| *before >= 0);
        let before = before.filter(|before| *before <= now + 2_000_000);
        let before = before.ok_or_else(|| {
            let detail = "issued_before is a time that was, in seconds since 1970";
            Problem::bad_request(detail).at("issued_before")
        })?;
        Ok(Revocation {
            id,
            issued_before: self.subject.is_some().then_some(before),
            jti: self.jti,
            subject: self.subject,
            revision: 0,
        })
    }
}

/// Has JWTs stop counting everywhere; what their bearers have open is closed. It is for ever.
#[utoipa::path(
    post,
    path = "/auth/revocations",
    tag = "access",
    request_body = RevocationRequest,
    responses(
        (status = 200, body = RevocationInfo), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn revoke_jwts(
    access: Access,
    body: web::Json<RevocationRequest>,
    hub: web::Data<Hub>,
    keeper: web::Data<AccessKeeper>,
) -> Result<web::Json<RevocationInfo>, Problem> {
    let revocation = body.into_inner().read()?;
    access.note(match (&revocation.jti, &revocation.subject) {
        (Some(jti), _) => format!("the JWT {jti}"),
        (None, subject) => format!("JWTs of {}", subject.as_deref().unwrap_or_default()),
    });
    let by = access.name();
    let put = move |conn: &mut _| revocations::put(conn, &revocation, &by);
    let stored = hub.pool.run(put).await?;
    tracing::info!("JWTs are revoked by {}", access.name());
    keeper.apply_revocation(stored.record.clone()).await;
    Ok(web::Json(stored.into()))
}

/// Lists what was revoked.
#[utoipa::path(
    get,
    path = "/auth/revocations",
    tag = "access",
    responses((status = 200, body = Vec<RevocationInfo>), (status = 503, body = Problem))
)]
pub(crate) async fn list_revocations(
    hub: web::Data<Hub>,
) -> Result<web::Json<Vec<RevocationInfo>>, Problem> {
    let stored = hub.pool.run(revocations::list).await?;
    let infos = stored.into_iter().map(RevocationInfo::from);
    Ok(web::Json(infos.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Revocation, Problem> {
        let request: RevocationRequest = serde_json::from_str(text).unwrap();
        request.read()
    }

    #[test]
    fn a_jti_or_a_subject_is_named_and_never_the_future() {
        assert_eq!(read(r#"{"jti": "1"}"#).unwrap().issued_before, None);
        let all = read(r#"{"subject": "ada"}"#).unwrap();
        assert!(all.issued_before.unwrap() > clock::now_us());
        let some = read(r#"{"subject": "ada", "issued_before": 5}"#).unwrap();
        assert_eq!(some.issued_before, Some(5_000_000));
        for (wrong, field) in [
            ("{}", "jti"),
            (r#"{"jti": "1", "subject": "ada"}"#, "jti"),
            (r#"{"jti": ""}"#, "jti"),
            (r#"{"jti": "1", "issued_before": 5}"#, "issued_before"),
            (
                r#"{"subject": "ada", "issued_before": 99999999999}"#,
                "issued_before",
            ),
            (
                r#"{"subject": "ada", "issued_before": -1}"#,
                "issued_before",
            ),
        ] {
            assert_eq!(
                read(wrong).unwrap_err().field.as_deref(),
                Some(field),
                "{wrong}"
            );
        }
    }
}
