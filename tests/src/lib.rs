//! A whole stack for one test: a PostgreSQL and a NATS of its own, and the real service binaries
//! as processes that can be killed, on free ports.

#![expect(
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    clippy::panic,
    reason = "a test that cannot go on panics and says what is missing"
)]

mod abuse;
mod database;
pub mod estimates;
pub mod fault;
pub mod hub;
pub mod proxy;
mod secured;
mod stack;
pub mod trial;
pub mod twin;
pub mod twin_trial;
pub mod uploader;
pub mod verdict;

pub use database::Database;
pub use secured::Secured;
pub use stack::{Stack, binary, http_client};
