//! Decides who somebody is by what they show.

use std::{path::Path, sync::Arc};

use super::{
    access::{Access, Ended, Who},
    audit::Recorder,
    jwt::{Jwt, JwtError},
    known::Known,
    role::{Grant, Role},
    routes::Service,
    secret::{self, Digest},
    settings::AuthSettings,
    ticket::{self, Bearer, Tickets},
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
    /// It counted once.
    Over(Ended),
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
            Refused::Over(Ended::Expired) => "this token has expired",
            Refused::Over(_) => "this token was revoked",
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
                name: "service",
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

    /// Lets a caller in who shows a token, a JWT or a ticket.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn check(&self, shown: Option<&str>) -> Result<Access, Refused> {
        let access = |who| Access::new(Arc::clone(&self.known), who);
        if !self.required {
            return Ok(access(Who::Everyone));
        }
        let shown = shown.ok_or(Refused::Nothing)?;
        // Tokens of files may have any form, so they are looked at first.
        if let Some(fixed) = self.fixed.iter().find(|fixed| fixed.digest.is_of(shown)) {
            return Ok(access(Who::Named {
                name: fixed.name.into(),
                grants: fixed.grants.clone().into(),
                expires: None,
            }));
        }
        if let Some(id) = secret::id_of(shown) {
            let token = self.known.token(id).ok_or(Refused::Wrong)?;
            if !token.digest.is_of(shown) {
                return Err(Refused::Wrong);
            }
            return counting(access(Who::Token(id.into())));
        }
        if shown.starts_with(ticket::PREFIX) {
            let tickets = self.tickets.as_ref().ok_or(Refused::Wrong)?;
            return match tickets.take(shown).ok_or(Refused::Wrong)? {
                Bearer::Token(id) => counting(access(Who::Token(id.into()))),
                Bearer::Named {
                    name,
                    grants,
                    expires,
                } => counting(access(Who::Named {
                    name: name.into(),
                    grants: grants.into(),
                    expires,
                })),
            };
        }
        let jwt = self.jwt.as_ref().ok_or(Refused::Wrong)?;
        match jwt.verify(shown).await {
            Ok(outside) => counting(access(Who::Named {
                name: outside.subject.into(),
                grants: outside.grants.into(),
                expires: Some(outside.expires),
            })),
            Err(JwtError::Expired) => Err(Refused::Over(Ended::Expired)),
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
