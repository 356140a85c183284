//! For tests: real servers of their own on free ports, and waiting for conditions.

#![expect(clippy::panic, reason = "a test that cannot go on panics")]

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::local::{self, LocalError, NatsServer, PostgresServer};

/// How often a server is started on another port when its port was taken meanwhile.
const ATTEMPTS: usize = 5;
const POLL: Duration = Duration::from_millis(10);

/// A PostgreSQL server of one test, with its cluster; gone when dropped.
#[derive(Debug)]
pub struct TestPostgres {
    /// The server.
    pub server: PostgresServer,
    _folder: TempDir,
}

/// Starts a PostgreSQL server with an empty database for one test.
///
/// # Panics
/// PostgreSQL is not installed or does not start; the message says what to do.
pub fn postgres() -> TestPostgres {
    // Tests make HTTP clients of their own, which ask for it.
    crate::tls::install();
    let template = postgres_template();
    let folder = open_folder();
    let mut copy = Command::new("cp");
    copy.arg("-a")
        .arg(template.join("postgres"))
        .arg(template.join("postgres.password"));
    let copied = copy.arg(folder.path()).status().expect("cp starts");
    assert!(
        copied.success(),
        "the template cluster {} cannot be copied",
        template.display()
    );
    let server = with_free_port(|port| PostgresServer::start(folder.path(), port));
    TestPostgres {
        server,
        _folder: folder,
    }
}

/// Makes a cluster once a machine; every test copies it.
fn postgres_template() -> PathBuf {
    let place = std::env::temp_dir().join("rovi-test-postgres");
    if !place.join("postgres/PG_VERSION").exists() {
        let folder = open_folder();
        PostgresServer::init(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        // Another test may have been faster, then its template serves.
        if std::fs::rename(folder.path(), &place).is_ok() {
            let _moved_away = folder.keep();
        }
    }
    place
}

/// Makes a temporary folder that PostgreSQL's user can look into.
fn open_folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    let made = tempfile::Builder::new()
        .prefix("rovi-test-")
        .permissions(permissions)
        .tempdir();
    made.expect("the folder for temporary files is writable")
}

/// A nats-server of one test; gone with its streams when dropped.
#[derive(Debug)]
pub struct TestNats {
    /// The server.
    pub server: NatsServer,
    _folder: TempDir,
}

/// Starts a nats-server with `JetStream` for one test.
///
/// # Panics
/// No new enough nats-server is installed, or it does not start; the message says what to do.
pub fn nats() -> TestNats {
    crate::tls::install();
    let folder = open_folder();
    let server = with_free_port(|port| NatsServer::start(folder.path(), port));
    TestNats {
        server,
        _folder: folder,
    }
}

/// As [`nats`], for those alone whom `users` names; see [`NatsServer::start_guarded`].
///
/// # Panics
/// As [`nats`].
pub fn guarded_nats(users: &str) -> TestNats {
    crate::tls::install();
    let folder = open_folder();
    let start = |port| NatsServer::start_guarded(folder.path(), port, users.to_owned());
    TestNats {
        server: with_free_port(start),
        _folder: folder,
    }
}

/// As [`guarded_nats`], where who shows no credentials may do everything: so tests look at the bus
/// of services that show theirs.
///
/// # Panics
/// As [`nats`].
pub fn half_guarded_nats(users: &str) -> TestNats {
    let test = "users: [\n    { user: test, password: test }\n";
    let users = users.replacen("users: [\n", test, 1);
    guarded_nats(&format!("no_auth_user: test\n{users}"))
}

fn with_free_port<T>(start: impl Fn(u16) -> Result<T, LocalError>) -> T {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match local::free_port().and_then(&start) {
            Ok(server) => return server,
            Err(error) => last = Some(error),
        }
    }
    panic!(
        "{}",
        last.map_or_else(String::new, |error| error.to_string())
    );
}

/// Waits until `condition` gives a value.
///
/// # Panics
/// After `patience`, with what `condition` last said instead.
pub async fn eventually<T, E, F>(patience: Duration, mut condition: impl FnMut() -> F) -> T
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + patience;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(state) if Instant::now() > deadline => {
                panic!("not within {patience:?}; the last state was: {state}")
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Returns the folder with reference data (`ROVI_REFERENCE`), or says that a test is skipped.
///
/// # Panics
/// The variable names a folder that does not exist.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
#[expect(
    clippy::disallowed_methods,
    reason = "tests have no configuration to be handed"
)]
pub fn reference_folder() -> Option<PathBuf> {
    let Ok(folder) = std::env::var("ROVI_REFERENCE") else {
        eprintln!("skipped: ROVI_REFERENCE does not name the folder with reference data");
        return None;
    };
    assert!(
        Path::new(&folder).is_dir(),
        "ROVI_REFERENCE={folder} is no folder"
    );
    Some(folder.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_has_servers_of_its_own_that_survive_being_killed() {
        let mut postgres = postgres();
        let mut nats = nats();
        postgres.server.kill();
        nats.server.kill();
        postgres.server.start_again().unwrap();
        nats.server.start_again().unwrap();
        assert!(postgres.server.url().starts_with("postgres://rovi:"));
    }
}
