//! Who may do what in the database: the roles of `deploy/postgres/roles.sql`, asked of a real server.

use std::process::Command;

use system_tests::{Database, Stack, binary};

use super::support::{ADMIN, Secure};

/// The password of every role in these tests.
pub(super) const PASSWORD: &str = "the-password-of-the-roles";
const ROLES: &str = include_str!("../../../deploy/postgres/roles.sql");

/// Makes the roles and the tables, and lets the hub be `rovi_hub`.
pub(super) fn make(stack: &mut Stack) {
    let mut database = stack.database();
    database.run(ROLES);
    for role in ["rovi_hub", "rovi_migrate"] {
        database.run(&format!("ALTER ROLE {role} PASSWORD '{PASSWORD}'"));
    }
    migrate(stack);
    stack.set_database(url_of(stack, "rovi_hub"));
}

fn migrate(stack: &Stack) {
    let mut migrate = Command::new(binary("datahub"));
    migrate.env("DATABASE_URL", url_of(stack, "rovi_migrate"));
    let done = migrate.arg("migrate").current_dir(stack.folder()).output();
    let done = done.unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{told}");
}

fn url_of(stack: &Stack, role: &str) -> String {
    let url = stack.postgres.server.url();
    let (_, place) = url.split_once('@').unwrap();
    format!("postgres://{role}:{PASSWORD}@{place}")
}

/// A connection of somebody else.
fn database_of(stack: &Stack, role: &str) -> Database {
    let mut database = stack.database();
    database.run(&format!("SET SESSION AUTHORIZATION {role}"));
    database
}

/// Which of these statements are refused.
fn refused<'a>(database: &mut Database, statements: &[&'a str]) -> Vec<&'a str> {
    let mut refused = Vec::new();
    for statement in statements {
        database.run("BEGIN");
        match database.refusal(statement) {
            Some(told) if told.contains("permission denied") || told.contains("must be") => {
                refused.push(*statement);
            }
            Some(told) => panic!("{statement}: {told}"),
            None => {}
        }
        database.run("ROLLBACK");
    }
    refused
}

#[tokio::test]
async fn an_analyst_of_a_tenant_reads_its_rows_and_nothing_else() {
    let mut stack = Stack::servers();
    make(&mut stack);
    let mut owner = stack.database();
    owner.run("SELECT hub.add_tenant('acme'); SELECT hub.add_tenant('beta')");
    owner.run("CREATE ROLE alice LOGIN; GRANT rovi_tenant_acme TO alice");
    let secure = Secure::over(stack).await;
    for battery in ["acme-1", "acme-2", "beta-1", "free"] {
        secure.upload(battery).await;
    }
    let rows = serde_json::json!([{"a": 1}]);
    for battery in ["acme-1", "beta-1"] {
        let url = secure.hub(&format!("/db/{battery}/tables/extra"));
        assert_eq!(secure.ask("PUT", &url, ADMIN, &rows).await.0, 200);
    }
    let mut alice = database_of(&secure.stack, "alice");
    let may = [
        r#"SELECT FROM battery."acme-1""#,
        r#"SELECT FROM battery."acme-2""#,
        r#"SELECT FROM tables."acme-1/extra""#,
        "SELECT FROM analyst.cycles, analyst.metadata, analyst.intervals",
    ];
    assert_eq!(refused(&mut alice, &may), Vec::<&str>::new());
    let may_not = [
        r#"SELECT FROM battery."beta-1""#,
        "SELECT FROM battery.free",
        r#"SELECT FROM tables."beta-1/extra""#,
        r#"DELETE FROM battery."acme-1""#,
        r#"DROP TABLE battery."acme-1""#,
        "CREATE TABLE battery.mine (a integer)",
        "CREATE TABLE public.mine (a integer)",
        "SELECT FROM hub.tokens",
        "SELECT FROM hub.audit",
        "SELECT FROM hub.batteries",
        "SELECT hub.add_tenant('gamma')",
        "SET ROLE rovi_hub",
    ];
    assert_eq!(refused(&mut alice, &may_not), may_not);
    let names = "SELECT name AS value FROM analyst.batteries ORDER BY name";
    assert_eq!(alice.texts(names), ["acme-1", "acme-2"]);

    // A battery that is given to another tenant goes with its tables, those to come included.
    let url = secure.hub("/auth/batteries/acme-1");
    let given = serde_json::json!({"tenant": "beta", "tags": []});
    assert_eq!(secure.ask("PUT", &url, ADMIN, &given).await.0, 200);
    let url = secure.hub("/db/acme-1/tables/later");
    assert_eq!(secure.ask("PUT", &url, ADMIN, &rows).await.0, 200);
    let gone = [
        r#"SELECT FROM battery."acme-1""#,
        r#"SELECT FROM tables."acme-1/extra""#,
        r#"SELECT FROM tables."acme-1/later""#,
    ];
    assert_eq!(refused(&mut alice, &gone), gone);
    assert_eq!(alice.texts(names), ["acme-2"]);
    owner.run("GRANT rovi_tenant_beta TO alice");
    assert_eq!(refused(&mut alice, &gone), Vec::<&str>::new());
}

#[tokio::test]
async fn the_role_of_the_hub_changes_no_tables_but_those_of_batteries() {
    let mut stack = Stack::servers();
    // What a hub made that was a superuser is handed over.
    stack.start_hub();
    stack.hub_ready().await;
    stack.stop_hub();
    make(&mut stack);
    let secure = Secure::over(stack).await;
    secure.upload("acme-1").await;
    let mut hub = database_of(&secure.stack, "rovi_hub");
    let may = [
        r#"ALTER TABLE battery."acme-1" ADD COLUMN more text"#,
        "CREATE TABLE estimates.more (a integer)",
        "SELECT FROM hub.tokens FOR UPDATE",
        "DELETE FROM hub.batteries",
    ];
    assert_eq!(refused(&mut hub, &may), Vec::<&str>::new());
    let may_not = [
        "ALTER TABLE hub.batteries ADD COLUMN more text",
        "DROP TABLE hub.tokens",
        "UPDATE hub.audit SET who = 'eve'",
        "DELETE FROM hub.audit",
        "CREATE SCHEMA more",
        "CREATE ROLE eve",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "DROP SCHEMA battery CASCADE",
    ];
    assert_eq!(refused(&mut hub, &may_not), may_not);
}
