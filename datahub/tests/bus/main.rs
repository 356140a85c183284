//! What the hub says on the bus and hears from it, over real servers.

#[cfg(test)]
mod alert_rules;
#[cfg(test)]
mod estimates;
#[cfg(test)]
mod registrations;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod service;
#[cfg(test)]
mod support;
