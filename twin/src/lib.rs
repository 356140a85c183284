//! The Digital Twin: follows every battery on the bus, runs the estimators registered for it and
//! serves its state.
//!
//! Reading order, along the path of a row: [`share`] says which batteries are this twin's, [`subscribe`] (hop 5) hands frames to the [`fleet`],
//! a [`worker`] (hop 6) of each estimator makes estimates of them by its [`filter`], [`status`] and
//! [`api`] (hop 7) show them, [`state`] and [`live`] tell everyone at once,
//! [`alerts`] tell what breaks a rule, [`commands`] are what people ask for, [`backtest`] among them.
//! Beside the path: [`registrations`] says which estimators there are, [`catch_up`] reads what a
//! worker missed, [`checkpoint`] keeps what it knows, [`corrections`] says which rows were changed,
//! [`order`] where late ones belong, [`ring`] where to go back to.
//!
//! [`sink`] is another service beside all that: one that only draws what twins say.
//!
//! The numerics live in `rovi_estimation`, scripts run by `rovi_python` ([`runner`] is the seam); rows and registrations belong to the Data Hub.

mod access;
mod ahead;
pub mod alerts;
pub mod api;
pub mod ask;
mod audit;
pub mod backtest;
pub mod catch_up;
pub mod checkpoint;
pub mod commands;
pub mod config;
pub mod corrections;
pub mod documents;
pub mod estimates;
pub mod events;
pub mod filter;
pub mod fleet;
pub mod hub;
pub mod inputs;
pub mod live;
pub mod mailbox;
pub mod metrics;
pub mod order;
pub mod overview;
pub mod python;
pub mod registrations;
mod replay;
pub mod reproduce;
pub mod ring;
mod run;
pub mod runner;
pub mod service;
pub mod share;
pub mod sink;
pub mod state;
pub mod status;
pub mod subscribe;
pub mod worker;
