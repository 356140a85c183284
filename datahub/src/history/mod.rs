//! History: what was stored, read back in ranges, reduced, counted and exported.
//!
//! One way for all: [`pages`] reads a selection in short queries, [`picks`] computes derived
//! signals, and the rows go into a page, a file or a reduction. No connection is held while a
//! client is waited for.

pub(crate) mod expression;
pub(crate) mod range;

pub(crate) mod draw;
pub(crate) mod pages;
pub(crate) mod picks;
pub(crate) mod picture;

pub(crate) mod export;
pub(crate) mod files;
pub(crate) mod format;

pub(crate) mod histogram;
pub(crate) mod reduce;
pub(crate) mod roller;
pub(crate) mod statistics;
