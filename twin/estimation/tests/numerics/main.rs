//! The crate's claims, tried through its public interface.

#[cfg(test)]
mod cells;
#[cfg(test)]
mod current;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod health;
#[cfg(test)]
mod initialise;
#[cfg(test)]
mod kinds;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod support;
#[cfg(test)]
mod table;
#[cfg(test)]
mod trust;
