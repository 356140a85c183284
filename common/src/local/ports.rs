//! Ports that no two programs of ours are ever given at once.
//!
//! A port that was free when it was looked for may be taken a moment later: by another test that
//! looked, or by any outgoing connection, to which the system gives ports of its own range. So
//! ports are taken from below that range, and each is held by a locked file for as long as this
//! process lives, also while the server that listens on it is restarted.

use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::LocalError;

/// The lowest port given.
const FIRST: u16 = 12_000;
/// Where outgoing connections begin on Linux, unless somebody changed it.
const USUAL_OUTGOING: u16 = 32_768;
const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The locks of the ports that this process was given.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Returns a free port of loopback, which no other program that asks here is given while this
/// process lives.
///
/// # Errors
/// No port is free, or the folder of locks cannot be made.
pub fn free_port() -> Result<u16, LocalError> {
    let folder = std::env::temp_dir().join("rovi-ports");
    fs::create_dir_all(&folder)
        .map_err(LocalError::io(format!("cannot make {}", folder.display())))?;
    // Whoever made it: all users of the machine share it.
    let _made_by_another_user = fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777));
    let ports = FIRST..first_outgoing();
    let count = usize::from(ports.end - ports.start);
    let begin = usize::try_from(uuid::Uuid::new_v4().as_u128() % count as u128).unwrap_or(0);
    let found = ports
        .clone()
        .cycle()
        .skip(begin)
        .take(count)
        .find_map(|port| Some((port, hold(&folder, port)?)));
    let Some((port, lock)) = found else {
        return Err(LocalError::Io {
            what: format!("no port of {}..{} is free", ports.start, ports.end),
            source: std::io::ErrorKind::AddrInUse.into(),
        });
    };
    HELD.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(lock);
    Ok(port)
}

/// Locks a port, if it is nobody's.
fn hold(folder: &Path, port: u16) -> Option<File> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true);
    let lock = options.open(folder.join(port.to_string())).ok()?;
    lock.try_lock().ok()?;
    TcpListener::bind(("127.0.0.1", port)).ok()?;
    Some(lock)
}

/// Returns the first port that outgoing connections may be given.
fn first_outgoing() -> u16 {
    let range = fs::read_to_string(OUTGOING).unwrap_or_default();
    let first = range.split_whitespace().next();
    first
        .and_then(|first| first.parse().ok())
        .filter(|first| *first > FIRST)
        .unwrap_or(USUAL_OUTGOING)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_and_none_to_outgoing_connections() {
        let ports: Vec<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
        assert!(ports.iter().all(|port| *port < first_outgoing()));
        let folder = std::env::temp_dir().join("rovi-ports");
        assert!(ports.iter().all(|port| hold(&folder, *port).is_none()));
    }
}
