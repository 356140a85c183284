//! System tests: the real binaries over a real PostgreSQL and a real NATS, as a user runs them.

#[cfg(test)]
mod cell;

#[cfg(test)]
mod authorisation;
#[cfg(test)]
mod battdat;
#[cfg(test)]
mod broken_link;
#[cfg(test)]
mod cycles;
#[cfg(test)]
mod deletion;
#[cfg(test)]
mod export;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod grafana;
#[cfg(test)]
mod life_of_a_row;
#[cfg(test)]
mod live;
#[cfg(test)]
mod model;
#[cfg(test)]
mod overview;
#[cfg(test)]
mod python;
#[cfg(test)]
mod reproduce;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod tls;
