//! System tests: the real binaries over a real PostgreSQL and a real NATS, as a user runs them.

#[cfg(test)]
mod cell;

#[cfg(test)]
mod broken_link;
#[cfg(test)]
mod life_of_a_row;
#[cfg(test)]
mod live;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod shutdown;
