//! What the hub says on the bus and hears from it, over real servers.

#[cfg(test)]
mod acknowledged;
#[cfg(test)]
mod alert_rules;
#[cfg(test)]
mod champions;
#[cfg(test)]
mod corrections;
#[cfg(test)]
mod deletion;
#[cfg(test)]
mod estimates;
#[cfg(test)]
mod hub;
#[cfg(test)]
mod pictures;
#[cfg(test)]
mod rebuild;
#[cfg(test)]
mod registrations;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod service;
#[cfg(test)]
mod support;
