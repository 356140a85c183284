//! Real servers on this machine, for `rovicli up` and for tests: a private PostgreSQL cluster and
//! a nats-server, each in a folder, on loopback.
//!
//! The calls block for as long as a server takes to start or stop.

mod nats;
mod ports;
mod postgres;
mod process;

use std::path::PathBuf;

pub use nats::NatsServer;
pub use ports::free_port;
pub use postgres::PostgresServer;
pub use process::{ServerProcess, Signal, signal_children};

/// Why a local server does not run.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The program is not installed.
    #[error("{program} is not installed: {advice}")]
    Missing {
        /// The program's name.
        program: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A file or folder cannot be used, or a program cannot be started.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The server ended, or did not answer in time.
    #[error("{name} {what}; its log {} ends with:\n{tail}", log.display())]
    Failed {
        /// The server's name.
        name: &'static str,
        /// What happened.
        what: String,
        /// Its log file.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}

impl LocalError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
