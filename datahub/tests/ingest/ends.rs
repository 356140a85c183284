//! How a process ends that connects to PostgreSQL until its last moment.

use std::{env, process::Command, thread, time::Duration};

use datahub::store::Pool;

use crate::support::postgres;

/// Where the process that ends finds PostgreSQL, and how many ms it has.
const URL: &str = "ROVI_TEST_ENDS_URL";
const MS: &str = "ROVI_TEST_ENDS_MS";
const CONNECTIONS: u32 = 8;

#[test]
fn a_process_that_ends_while_it_connects_does_not_crash() {
    let postgres = postgres();
    for ms in 0..40 {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "ends::connects_until_it_ends"])
            .env(URL, postgres.server.url())
            .env(MS, ms.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{ms} ms: {}\n{said}",
            output.status
        );
    }
}

/// The process that ends.
#[expect(clippy::disallowed_methods, reason = "a test has no settings")]
#[tokio::test]
#[ignore = "another test runs it, in a process of its own"]
async fn connects_until_it_ends() {
    let (Ok(url), Ok(ms)) = (env::var(URL), env::var(MS)) else {
        return;
    };
    let pool = Pool::new(&url.parse().unwrap(), CONNECTIONS);
    pool.set_prepared();
    for _ in 0..CONNECTIONS {
        let pool = pool.clone();
        // No runtime waits for these.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(pool.run(|_connection| Ok(())))
        });
    }
    thread::sleep(Duration::from_millis(ms.parse().unwrap()));
}
