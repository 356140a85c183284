//! What people ask for, over HTTP (`api`) and over NATS alike: both ways end in the same functions
//! and give the same results and problems.

pub(crate) mod backtest;
pub(crate) mod control;
mod requests;

pub(crate) use self::requests::serve;
