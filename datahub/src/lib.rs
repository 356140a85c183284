//! The Data Hub: takes in batteries' metadata and rows, keeps them in PostgreSQL, tells the bus.
//!
//! Reading order: how it starts ([`command`], [`config`], [`service`]), the way of a row
//! ([`upload`], [`batch`], [`writer`], [`store`], [`stored`]), how the bus hears of it ([`bus`],
//! [`relay`]), what comes back from twins ([`registrations`], [`estimates`]), what follows a
//! deletion ([`deletions`]) and a correction ([`corrections`]), what is made of old rows ([`cycles`], [`retention`]), what
//! is forgotten of uploads ([`sessions`]), what is asked of it (`api`).

pub mod command;
pub mod config;
pub mod service;

pub mod upload;

pub mod batch;
pub mod writer;

pub mod store;

pub mod stored;

pub mod bus;
pub mod relay;
pub mod relayed;

pub mod corrections;
pub mod cycles;
pub mod deletions;
pub mod estimates;
pub mod registrations;
pub mod retention;
pub mod sessions;

pub mod access;
pub mod alert_rules;
mod audit;

mod api;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod history;
pub mod hub;
mod metadata;
pub mod metrics;
mod pace;
mod pages;
mod prepare;
mod sink;
