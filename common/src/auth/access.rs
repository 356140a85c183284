//! What one caller may do, asked anew each time: what is revoked or narrowed counts at once.

use std::{
    fmt,
    future::Ready,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::StatusCode};

use super::{
    budget::{Budgets, Purse},
    known::{Known, Visible},
    record::JwtIdentity,
    role::{Grant, Role, Scope},
    ticket::Bearer,
};
use crate::{clock, http::Problem, name::BatteryName};

/// WebSocket close code: who watches or sends may not any more, for the reason given.
pub const CLOSE_CODE: u16 = 4401;

/// The name of the services, who ask each other.
pub(super) const SERVICE: &str = "service";
/// Things that one request is noted to be about.
const MOST_NOTES: usize = 100;

/// Why somebody may no longer do what they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The token was revoked.
    Revoked,
    /// The token or JWT has expired.
    Expired,
    /// The role was taken away.
    Narrowed,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revoked => "the token was revoked",
            Self::Expired => "the token has expired",
            Self::Narrowed => "the token no longer gives this right",
        })
    }
}

#[derive(Debug, Clone)]
pub(super) enum Who {
    /// Nobody is asked.
    Everyone,
    /// The bearer of an API token, by its id.
    Token(Arc<str>),
    /// Somebody whom an issuer or a file named.
    Named {
        name: Arc<str>,
        grants: Arc<[Grant]>,
        expires: Option<i64>,
        /// The JWT by which an issuer did.
        jwt: Option<Arc<JwtIdentity>>,
    },
}

/// One caller and what they may do.
#[derive(Debug, Clone)]
pub struct Access {
    known: Arc<Known>,
    budgets: Arc<Budgets>,
    who: Who,
    /// What the present request is about, for the audit.
    notes: Arc<Mutex<Vec<String>>>,
}

impl Access {
    pub(super) fn new(known: Arc<Known>, budgets: Arc<Budgets>, who: Who) -> Self {
        Self {
            known,
            budgets,
            who,
            notes: Arc::default(),
        }
    }

    /// Returns the access of everybody where nobody is asked, for tests of parts.
    pub fn everyone() -> Self {
        Self::new(Arc::default(), Arc::default(), Who::Everyone)
    }

    /// Tells who it is, for people: whom an issuer named passes for no token of ours.
    pub fn name(&self) -> String {
        match &self.who {
            Who::Everyone => "everyone".to_owned(),
            Who::Named { name, jwt, .. } if jwt.is_some() => format!("{name} (JWT)"),
            Who::Named { name, .. } => name.to_string(),
            Who::Token(id) => match self.known.token(id) {
                Some(token) => format!("{} (token {id})", token.name),
                None => format!("token {id}"),
            },
        }
    }

    /// Whether nobody is asked who they are.
    pub fn is_everyone(&self) -> bool {
        matches!(self.who, Who::Everyone)
    }

    /// Returns how much the caller may ask for yet; the services themselves, and everybody where
    /// nobody is asked, are not counted.
    pub fn purse(&self) -> Purse {
        let name = match &self.who {
            Who::Everyone => return Purse::default(),
            Who::Named { name, jwt, .. } if jwt.is_none() && **name == *SERVICE => {
                return Purse::default();
            }
            Who::Named { .. } => self.name(),
            Who::Token(id) => id.to_string(),
        };
        self.budgets.purse(&name, self.strongest_role())
    }

    /// Returns the strongest role that the caller has for anything.
    pub fn strongest_role(&self) -> Option<Role> {
        self.grants().iter().map(|grant| grant.role).max()
    }

    /// Returns what the caller may do at this moment.
    pub fn grants(&self) -> Vec<Grant> {
        if self.over().is_some() {
            return Vec::new();
        }
        match &self.who {
            Who::Everyone => vec![Grant::of_all(Role::Admin)],
            Who::Named { grants, .. } => grants.to_vec(),
            Who::Token(id) => {
                let token = self.known.token(id);
                token.map(|token| token.grants.clone()).unwrap_or_default()
            }
        }
    }

    /// Until when the caller is let in, in microseconds since 1970.
    pub fn expires(&self) -> Option<i64> {
        match &self.who {
            Who::Everyone => None,
            Who::Named { expires, .. } => *expires,
            Who::Token(id) => self.known.token(id)?.expires,
        }
    }

    /// Tells why the caller is not let in any more, if so.
    pub fn over(&self) -> Option<Ended> {
        if let Who::Token(id) = &self.who {
            let token = self.known.token(id);
            if token.is_none_or(|token| token.revoked.is_some()) {
                return Some(Ended::Revoked);
            }
        }
        if let Who::Named { jwt: Some(jwt), .. } = &self.who
            && self.known.is_revoked(jwt)
        {
            return Some(Ended::Revoked);
        }
        let expires = self.expires()?;
        (expires <= clock::now_us()).then_some(Ended::Expired)
    }

    /// Whether the caller has a role for a battery, which need not exist.
    pub fn may(&self, role: Role, battery: &BatteryName) -> bool {
        self.is_everyone() || self.known.may(&self.grants(), role, battery)
    }

    /// Asks for a role for a battery.
    ///
    /// # Errors
    /// 404 where the caller may not know whether there is such a battery, as if there were none;
    /// 403 where it only lacks the role.
    pub fn need(&self, role: Role, battery: &BatteryName) -> Result<(), Problem> {
        self.note(battery);
        if self.may(role, battery) {
            return Ok(());
        }
        if self.may(Role::Reader, battery) {
            let detail = format!("this needs the role {role} for {battery}");
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        Err(Problem::not_found(format!("No such dataset: {battery}")).at("battery"))
    }

    /// Says what the request is about, for the audit; never a secret.
    pub fn note(&self, subject: impl fmt::Display) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let subject = subject.to_string();
        if notes.len() < MOST_NOTES && !notes.contains(&subject) {
            notes.push(subject);
        }
    }

    pub(super) fn notes(&self) -> String {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.join("; ")
    }

    /// Asks for a role for everything.
    ///
    /// # Errors
    /// 403 that names the role.
    pub fn need_all(&self, role: Role) -> Result<(), Problem> {
        if self.covers(role, &Scope::All) {
            return Ok(());
        }
        let detail = format!("this needs the role {role} for everything");
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }

    /// Whether the caller has a role for all that a grant is for.
    pub fn covers(&self, role: Role, scope: &Scope) -> bool {
        self.is_everyone() || self.known.covers(&self.grants(), role, scope)
    }

    /// Whether the caller has a role for things of a name that are no batteries, such as alert rules:
    /// those of a tenant are called after it, `acme-…`.
    pub fn may_name(&self, role: Role, name: &str) -> bool {
        let of_tenant = |grant: &Grant| match &grant.scope {
            Scope::All => true,
            Scope::Tenant(tenant) => {
                let rest = name.strip_prefix(tenant.as_str());
                rest.is_some_and(|rest| rest.starts_with('-'))
            }
            Scope::Tag(_) | Scope::Battery(_) => false,
        };
        let grants = self.grants();
        grants
            .iter()
            .any(|grant| grant.role >= role && of_tenant(grant))
    }

    /// Returns the batteries for which the caller has a role, for queries of a database.
    pub fn visible(&self, role: Role) -> Visible {
        self.known.visible(&self.grants(), role)
    }

    /// Asks for a role for anything at all, before a handler takes in what it then decides by.
    ///
    /// # Errors
    /// 403 that names the role.
    pub fn need_somewhere(&self, role: Role) -> Result<(), Problem> {
        if self
            .strongest_role()
            .is_some_and(|strongest| strongest >= role)
        {
            return Ok(());
        }
        let detail = format!("this needs the role {role}; see /auth/me");
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }

    /// Returns when the caller is not let in any more, or has lost a role for a battery.
    pub async fn lost(&self, role: Role, battery: &BatteryName) -> Ended {
        self.ends(|access| !access.may(role, battery)).await
    }

    /// Returns when the caller is not let in any more.
    pub async fn ended(&self) -> Ended {
        self.ends(|_| false).await
    }

    async fn ends(&self, is_narrowed: impl Fn(&Self) -> bool) -> Ended {
        if self.is_everyone() {
            return std::future::pending().await;
        }
        let mut changes = self.known.watch();
        loop {
            changes.mark_unchanged();
            if let Some(ended) = self.over() {
                return ended;
            }
            if is_narrowed(self) {
                return Ended::Narrowed;
            }
            let left = self.expires().map(|expires| {
                let us = expires.saturating_sub(clock::now_us()).max(0);
                Duration::from_micros(us.unsigned_abs())
            });
            let expired = async {
                match left {
                    // A clock that was set leaves no more than this time of doubt.
                    Some(left) => tokio::time::sleep(left.min(Duration::from_mins(1))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _changed = changes.changed() => {}
                () = expired => {}
            }
        }
    }

    pub(super) fn bearer(&self) -> Bearer {
        match &self.who {
            Who::Token(id) => Bearer::Token(id.to_string()),
            Who::Everyone => Bearer::Named {
                name: self.name(),
                grants: self.grants(),
                expires: None,
                jwt: None,
            },
            Who::Named { name, jwt, .. } => Bearer::Named {
                name: name.to_string(),
                grants: self.grants(),
                expires: self.expires(),
                jwt: jwt.as_deref().cloned(),
            },
        }
    }
}

impl FromRequest for Access {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let access = request.extensions().get::<Self>().cloned();
        // Without the guard before it, a handler answers nobody.
        let missing = || {
            tracing::error!("{} is served without the guard", request.path());
            Problem::new(StatusCode::UNAUTHORIZED, "this is not open to anybody")
        };
        std::future::ready(access.ok_or_else(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, jwt: bool) -> Access {
        let identity = JwtIdentity {
            jti: None,
            subject: name.to_owned(),
            issued: None,
        };
        let who = Who::Named {
            name: name.into(),
            grants: Arc::default(),
            expires: None,
            jwt: jwt.then(|| Arc::new(identity)),
        };
        Access::new(Arc::default(), Arc::default(), who)
    }

    #[test]
    fn whoever_an_issuer_calls_admin_is_not_taken_for_the_admin() {
        for name in ["admin", SERVICE, "a (token 0123456789abcdef)"] {
            assert_eq!(named(name, true).name(), format!("{name} (JWT)"));
            assert_eq!(named(name, false).name(), name);
        }
    }

    #[test]
    fn a_ticket_keeps_the_name_as_it_was() {
        let Bearer::Named { name, jwt, .. } = named("ada", true).bearer() else {
            panic!("a JWT is no token");
        };
        assert_eq!((name.as_str(), jwt.is_some()), ("ada", true));
    }
}
