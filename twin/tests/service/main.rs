//! The twin against a real NATS server; rows and registrations are put on the bus as the hub does.

#[cfg(test)]
mod alerts;
#[cfg(test)]
mod backtest;
#[cfg(test)]
mod bus;
#[cfg(test)]
mod checkpoints;
#[cfg(test)]
mod corrections;
#[cfg(test)]
mod http;
#[cfg(test)]
mod hub;
#[cfg(test)]
mod interactions;
#[cfg(test)]
mod live;
#[cfg(test)]
mod meanwhile;
#[cfg(test)]
mod missed;
#[cfg(test)]
mod path;
#[cfg(test)]
mod pictures;
#[cfg(test)]
mod python;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod shadows;
#[cfg(test)]
mod share;
#[cfg(test)]
mod twin;
