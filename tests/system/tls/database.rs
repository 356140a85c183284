//! PostgreSQL over TLS, as libpq speaks it.

use std::time::Duration;

use rovi_common::testing::eventually;
use rovicli::certificates::Written;
use serde_json::json;
use system_tests::{Database, Secured, Stack};

const PATIENCE: Duration = Duration::from_secs(30);

/// Has the server take a certificate from now on, as a file of its own user.
fn encrypt(database: &mut Database, written: &Written) {
    for (file, name) in [(&written.cert, "server.crt"), (&written.key, "server.key")] {
        let text = std::fs::read_to_string(file).unwrap();
        // It runs in the server's folder.
        database.run(&format!(
            "COPY (SELECT unnest(string_to_array('{}', E'\\n'))) \
             TO PROGRAM 'umask 077; cat > {name}'",
            text.trim()
        ));
    }
    database.run("ALTER SYSTEM SET ssl = on");
    database.run("SELECT pg_reload_conf()");
}

/// The URL by which libpq believes the server only if an authority certified it.
fn url(stack: &Stack, authority: &Secured) -> String {
    let (url, ca_file) = (stack.postgres.server.url(), authority.ca_file());
    format!(
        "{url}?sslmode=verify-full&sslrootcert={}",
        ca_file.display()
    )
}

#[tokio::test]
async fn the_hub_believes_its_database_by_the_authority_that_its_url_names() {
    let mut stack = Stack::servers();
    let own = Secured::new(stack.folder().join("tls"));
    let other = Secured::new(stack.folder().join("other"));
    encrypt(&mut stack.database(), &own.certify(-1, 1));

    stack.set_database(url(&stack, &other));
    stack.start_hub();
    eventually(PATIENCE, || async {
        let log = std::fs::read_to_string(stack.log("datahub")).unwrap_or_default();
        let is_told = log.contains("certificate verify failed");
        is_told.then_some(()).ok_or(log)
    })
    .await;
    stack.kill_hub();

    stack.set_database(url(&stack, &own));
    stack.start_hub();
    stack.hub_ready().await;
    let rows = json!([{"test_time": 1.0, "voltage": 3.5}]);
    let upload = format!("{}/db/upload/b7", stack.hub_url());
    let stored = stack.http().post(upload).json(&rows).send().await.unwrap();
    assert_eq!(stored.status(), 200);
    let plain = stack.database().number(
        "SELECT count(*) AS value FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE backend_type = 'client backend' AND NOT ssl",
    );
    assert_eq!(plain, 0);
}
