//! Decides who somebody is by what they show.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use super::{
    access::{Access, Ended, SERVICE, Who},
    audit::Recorder,
    budget::Budgets,
    jwt::{Jwt, JwtError},
    known::Known,
    lockout::{Lockout, LockoutSettings},
    role::{Grant, Role},
    routes::Service,
    secret::{self, Digest},
    settings::AuthSettings,
    ticket::{self, Bearer, NotTaken, Tickets},
};
use crate::http::Problem;
use actix_web::http::StatusCode;

/// The fewest characters of a token in a file: one that is guessed is worse than none.
const FEWEST_CHARACTERS: usize = 32;

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Nothing was shown.
    Nothing,
    /// What was shown is no credential that counts here.
    Wrong,
    /// It may count: the issuer's keys could not be read yet.
    Unknown,
    /// It may count: not all tokens and revocations were heard of yet.
    Unheard,
    /// A ticket of ours that was taken before, or is too old.
    Spent,
    /// It counted once.
    Over(Ended),
    /// Too much of what came from there did not count; for so long none of it is looked at.
    Locked(Duration),
}

impl From<Refused> for Problem {
    /// Only who had a token hears that it is over; all others hear the same.
    fn from(refused: Refused) -> Self {
        let detail = match refused {
            Refused::Nothing => {
                "say who you are: `Authorization: Bearer <token>`; an admin gives tokens, by \
                 `rovicli token create`"
            }
            Refused::Wrong => "this token is not valid here",
            Refused::Unknown => {
                let detail = "the keys of the issuer of JWTs cannot be read now; try again soon";
                return Self::unavailable(detail);
            }
            Refused::Unheard => {
                let detail = "this service does not know all tokens yet; try again soon";
                return Self::unavailable(detail);
            }
            Refused::Spent => {
                "this ticket was used, or is too old; POST /auth/ticket makes another"
            }
            Refused::Over(Ended::Expired) => "this token has expired",
            Refused::Over(_) => "this token was revoked",
            Refused::Locked(left) => {
                let detail = "too many wrong credentials came from this address; a token that counts \
                              is let in, others are not looked at for a while: see that no program \
                              goes on with an old one";
                return Self::too_many(detail, left);
            }
        };
        let problem = Self::new(StatusCode::UNAUTHORIZED, detail);
        if refused == Refused::Nothing {
            return problem.at("Authorization");
        }
        problem
    }
}

/// A token of a file.
#[derive(Debug)]
struct Fixed {
    name: &'static str,
    digest: Digest,
    grants: Vec<Grant>,
}

/// Who is let in, and as whom.
#[derive(Debug)]
pub struct Gate {
    service: Service,
    required: bool,
    fixed: Vec<Fixed>,
    known: Arc<Known>,
    jwt: Option<Jwt>,
    tickets: Option<Tickets>,
    audit: Recorder,
    lockout: Lockout,
    budgets: Arc<Budgets>,
    settings: AuthSettings,
}

impl Gate {
    /// Reads the files of the settings; tokens are learnt later.
    ///
    /// # Errors
    /// A file cannot be read or holds no usable token; the text names the setting.
    pub fn new(service: Service, settings: &AuthSettings) -> Result<Arc<Self>, String> {
        let mut fixed = Vec::new();
        let mut tickets = None;
        if let Some(file) = &settings.service_token_file {
            let token = read_token("auth.service_token_file", file)?;
            tickets = Some(Tickets::new(&token));
            fixed.push(Fixed {
                name: SERVICE,
                digest: Digest::of(&token),
                grants: vec![Grant::of_all(Role::Reader)],
            });
        }
        if let Some(file) = &settings.admin_token_file {
            let token = read_token("auth.admin_token_file", file)?;
            fixed.push(Fixed {
                name: "admin",
                digest: Digest::of(&token),
                grants: vec![Grant::of_all(Role::Admin)],
            });
        }
        let jwt = settings.jwt.clone().map(Jwt::new).transpose();
        Ok(Arc::new(Self {
            service,
            required: settings.required,
            fixed,
            known: Arc::default(),
            jwt: jwt.map_err(|error| format!("auth.jwt: {error}"))?,
            tickets,
            audit: Recorder::default(),
            lockout: Lockout::new(settings.lockout),
            budgets: Arc::new(Budgets::new(settings.budgets.clone())),
            settings: settings.clone(),
        }))
    }

    /// Returns a gate that lets everybody in, for tests of parts.
    pub fn open(service: Service) -> Arc<Self> {
        Arc::new(Self {
            service,
            required: false,
            fixed: Vec::new(),
            known: Arc::default(),
            jwt: None,
            tickets: None,
            audit: Recorder::default(),
            lockout: Lockout::new(LockoutSettings::default()),
            budgets: Arc::default(),
            settings: AuthSettings::default(),
        })
    }

    /// The service that it stands before.
    pub fn service(&self) -> Service {
        self.service
    }

    /// Whether callers have to say who they are.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// What the service knows of tokens and batteries.
    pub fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// Where it is kept who did what.
    pub fn audit(&self) -> &Recorder {
        &self.audit
    }

    /// What was set.
    pub fn settings(&self) -> &AuthSettings {
        &self.settings
    }

    /// Lets a caller in who shows a token, a JWT or a ticket; `source` is the address it came from.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn check(
        &self,
        shown: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Access, Refused> {
        if !self.required {
            return Ok(self.access(Who::Everyone));
        }
        let shown = shown.ok_or(Refused::Nothing)?;
        let checked = match self.check_cheaply(shown) {
            Some(checked) => checked,
            None => self.check_jwt(shown, source).await,
        };
        checked.map_err(|refused| {
            match refused {
                // None is a guess. A ticket may have been used here and then be shown by way of the
                // other service, from whose address many come.
                Refused::Unknown | Refused::Unheard | Refused::Spent => refused,
                _ => match self.lockout.failed(source) {
                    Some(left) => Refused::Locked(left),
                    None => refused,
                },
            }
        })
    }

    fn access(&self, who: Who) -> Access {
        Access::new(Arc::clone(&self.known), Arc::clone(&self.budgets), who)
    }

    /// Looks at what takes no more than a digest: so whoever shows it can be let in while others of
    /// the same address are locked out. `None` for what may be a JWT.
    fn check_cheaply(&self, shown: &str) -> Option<Result<Access, Refused>> {
        // Tokens of files may have any form, so they are looked at first.
        if let Some(fixed) = self.fixed.iter().find(|fixed| fixed.digest.is_of(shown)) {
            return Some(Ok(self.access(Who::Named {
                name: fixed.name.into(),
                grants: fixed.grants.clone().into(),
                expires: None,
                jwt: None,
            })));
        }
        if !self.known.is_complete() {
            return Some(Err(Refused::Unheard));
        }
        if let Some(id) = secret::id_of(shown) {
            let token = self.known.token(id);
            if !token.is_some_and(|token| token.digest.is_of(shown)) {
                return Some(Err(Refused::Wrong));
            }
            return Some(counting(self.access(Who::Token(id.into()))));
        }
        if shown.starts_with(ticket::PREFIX) {
            let taken = match &self.tickets {
                Some(tickets) => tickets.take(shown),
                None => Err(NotTaken::Forged),
            };
            let taken = taken.map_err(|why| match why {
                NotTaken::Forged => Refused::Wrong,
                NotTaken::Spent => Refused::Spent,
            });
            let who = taken.map(|bearer| match bearer {
                Bearer::Token(id) => Who::Token(id.into()),
                Bearer::Named {
                    name,
                    grants,
                    expires,
                    jwt,
                } => Who::Named {
                    name: name.into(),
                    grants: grants.into(),
                    expires,
                    jwt: jwt.map(Arc::new),
                },
            });
            return Some(who.and_then(|who| counting(self.access(who))));
        }
        None
    }

    async fn check_jwt(&self, shown: &str, source: Option<IpAddr>) -> Result<Access, Refused> {
        let jwt = self.jwt.as_ref().ok_or(Refused::Wrong)?;
        // A signature is dear to check. Nobody can make up many that counted before.
        if let Some(left) = self.lockout.left(source)
            && !self.lockout.remembers(shown)
        {
            return Err(Refused::Locked(left));
        }
        match jwt.verify(shown).await {
            Ok(outside) => {
                self.lockout.remember(shown);
                counting(self.access(Who::Named {
                    name: outside.jwt.subject.as_str().into(),
                    grants: outside.grants.into(),
                    expires: Some(outside.expires),
                    jwt: Some(Arc::new(outside.jwt)),
                }))
            }
            Err(JwtError::Expired) => Err(Refused::Over(Ended::Expired)),
            Err(JwtError::Unknown) => Err(Refused::Unknown),
            Err(JwtError::Wrong(why)) => {
                tracing::debug!("a JWT was refused: {why}");
                Err(Refused::Wrong)
            }
        }
    }

    /// Makes a ticket for a caller; `None` where the services have no token of their own.
    pub fn ticket(&self, access: &Access) -> Option<String> {
        let tickets = self.tickets.as_ref()?;
        let made = tickets.make(access.bearer());
        made.inspect_err(|error| tracing::error!("no ticket can be made: {error}"))
            .ok()
    }
}

fn counting(access: Access) -> Result<Access, Refused> {
    match access.over() {
        None => Ok(access),
        Some(ended) => Err(Refused::Over(ended)),
    }
}

/// Reads a token of a file.
///
/// # Errors
/// It cannot be read, or is too short to be a secret; the text names the setting, not the token.
pub fn read_token(setting: &str, file: &Path) -> Result<String, String> {
    let place = file.display();
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| format!("{setting}: {place}: {error}"))?;
    let token = text.trim();
    if token.len() < FEWEST_CHARACTERS || token.contains(char::is_whitespace) {
        return Err(format!(
            "{setting}: {place} must hold one word of {FEWEST_CHARACTERS} characters or more; \
             `rovicli token new-file {place}` makes one"
        ));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn nobody_is_locked_out_because_the_issuer_is_away() {
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let jwks = format!("http://{}/jwks", nobody.local_addr().unwrap());
        drop(nobody);
        let settings = json!({
            "required": true, "lockout": {"failures_per_minute": 1},
            "jwt": {"issuer": "i", "audience": "a", "jwks": jwks},
        });
        let settings = serde_json::from_value(settings).unwrap();
        let gate = Gate::new(Service::Hub, &settings).unwrap();
        gate.known().set_complete();
        // `{"alg":"EdDSA","kid":"1"}`, no claims, and a signature of nobody.
        let jwt = "eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.e30.AA";
        let source = Some(Ipv4Addr::LOCALHOST.into());
        for _ in 0..3 {
            let refused = gate.check(Some(jwt), source).await.unwrap_err();
            assert_eq!(refused, Refused::Unknown);
            assert_eq!(Problem::from(refused).status.as_u16(), 503);
        }
        let wrong = || gate.check(Some("wrong"), source);
        assert_eq!(wrong().await.unwrap_err(), Refused::Wrong);
        assert!(matches!(wrong().await.unwrap_err(), Refused::Locked(_)));
    }

    #[tokio::test]
    async fn until_all_was_heard_nobody_is_refused_for_good_and_tokens_of_files_count() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let admin = "x".repeat(FEWEST_CHARACTERS);
        std::fs::write(&file, &admin).unwrap();
        let settings = json!({
            "required": true, "lockout": {"failures_per_minute": 1},
            "admin_token_file": file.path(),
        });
        let settings = serde_json::from_value(settings).unwrap();
        let gate = Gate::new(Service::Twin, &settings).unwrap();
        let source = Some(Ipv4Addr::LOCALHOST.into());
        let (_, token) = secret::new_token().unwrap();
        for shown in [token.as_str(), "eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.e30.AA"] {
            let refused = gate.check(Some(shown), source).await.unwrap_err();
            assert_eq!(refused, Refused::Unheard);
            assert_eq!(Problem::from(refused).status.as_u16(), 503);
        }
        assert!(gate.check(Some(&admin), source).await.is_ok());
        gate.known().set_complete();
        let refused = gate.check(Some(&token), source).await.unwrap_err();
        assert_eq!(refused, Refused::Wrong);
    }

    #[tokio::test]
    async fn a_ticket_that_was_used_is_no_guess() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "x".repeat(FEWEST_CHARACTERS)).unwrap();
        let settings = json!({
            "required": true, "lockout": {"failures_per_minute": 1},
            "service_token_file": file.path(), "admin_token_file": file.path(),
        });
        let settings = serde_json::from_value(settings).unwrap();
        let gate = Gate::new(Service::Hub, &settings).unwrap();
        gate.known().set_complete();
        let source = Some(Ipv4Addr::LOCALHOST.into());
        let ticket = gate.ticket(&gate.access(Who::Everyone)).unwrap();
        assert!(gate.check(Some(&ticket), source).await.is_ok());
        for _ in 0..3 {
            let again = gate.check(Some(&ticket), source).await.unwrap_err();
            assert_eq!(again, Refused::Spent);
        }
        let forged = format!("{ticket}0");
        let guess = || gate.check(Some(&forged), source);
        assert_eq!(guess().await.unwrap_err(), Refused::Wrong);
        assert!(matches!(guess().await.unwrap_err(), Refused::Locked(_)));
    }
}
