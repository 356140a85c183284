//! What the hub says on the bus and hears from it, over real servers.

#[cfg(test)]
mod estimates;
#[cfg(test)]
mod rebuild;
#[cfg(test)]
mod registrations;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod service;
#[cfg(test)]
mod support;
