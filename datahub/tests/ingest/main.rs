//! The Data Hub's ingest half over a real PostgreSQL.

#[cfg(test)]
mod support;

#[cfg(test)]
mod api;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod forms;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod ways;
