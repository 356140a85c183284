//! The Data Hub's ingest half over a real PostgreSQL.

#[cfg(test)]
mod support;

#[cfg(test)]
mod ahead;
#[cfg(test)]
mod api;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod columns;
#[cfg(test)]
mod cycles;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod forms;
#[cfg(test)]
mod history;
#[cfg(test)]
mod intervals;
#[cfg(test)]
mod metadata;
#[cfg(test)]
mod rejected;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod set_aside;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod ways;
