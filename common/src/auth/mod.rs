//! Who somebody is and what they may do, for both services.
//!
//! Reading order: what is granted ([`role`]), what each route needs ([`routes`]: the one place that
//! says it), what a service knows of tokens and batteries ([`record`], [`known`]), what callers
//! show ([`secret`], [`ticket`], [`jwt`], [`session`]), who decides ([`gate`] makes an [`Access`] of what was
//! X
//!
//! Every decision is made by the name of a battery alone, before anybody looks whether there is such
//! a battery: so neither words nor time tell apart what one may not know from what does not exist.

pub mod access;
pub mod audit;
pub mod budget;
pub mod gate;
pub mod guard;
pub mod http;
pub mod jwt;
pub mod known;
pub mod lockout;
pub mod record;
pub mod role;
pub mod routes;
pub mod secret;
pub mod session;
pub mod settings;
pub mod ticket;

mod bounded;
mod jwks;
mod lasting;
mod ring_provider;
mod source;

pub use self::{
    access::{Access, Ended},
    budget::{Flow, Held},
    gate::Gate,
    guard::guard,
    known::Known,
    record::{Placement, Revocation, TokenRecord},
    role::{Grant, Role, Scope, Word},
    routes::{Need, Service},
    settings::AuthSettings,
};
