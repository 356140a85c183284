//! How many files and sockets this program may hold.

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows this program, and those that it starts, as many open files as the system lets it.
///
/// # Errors
/// The system allows fewer than `needed`.
pub fn allow(needed: u64) -> Result<()> {
    let most = getrlimit(Resource::Nofile).maximum;
    ensure!(
        most.is_none_or(|most| most >= needed),
        "{} open files are allowed, {needed} are needed: raise the hard limit (ulimit -Hn)",
        most.unwrap_or_default()
    );
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    )?;
    Ok(())
}
