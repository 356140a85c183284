//! What the Data Hub and the Digital Twin agree on.
//!
//! Reading order: what a battery and its rows are ([`name`], [`rows`]), how they travel
//! ([`frame`], [`subjects`], [`streams`], [`registration`], [`alerts`], [`news`]), and what every
//! service is made of ([`config`], [`lifecycle`], [`telemetry`], [`heartbeat`], [`services`],
//! [`http`]), who may do what ([`auth`]; on the bus [`rights`]), how what is said stays between the
//! two ([`tls`]);
//! [`filter`] is how people choose batteries.
//!
//! Nothing here knows PostgreSQL tables or estimators.

pub mod alerts;
pub mod auth;
pub mod clock;
pub mod config;
pub mod corrections;
pub mod cors;
pub mod error;
pub mod fault;
pub mod files;
pub mod filter;
pub mod frame;
pub mod heartbeat;
pub mod http;
pub mod lifecycle;
#[cfg(feature = "local-servers")]
pub mod local;
pub mod msgpack;
pub mod name;
pub mod network;
pub mod news;
pub mod registration;
pub mod rights;
pub mod rows;
pub mod services;
pub mod sink;
pub mod slow_body;
pub mod streams;
pub mod subjects;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
