//! Prepares PostgreSQL and keeps asking how it is: migrations at the start, a query now and then.

use std::time::Duration;

use diesel::{
    Connection, PgConnection, RunQueryDsl,
    connection::SimpleConnection,
    migration::{Migration, MigrationSource},
    pg::Pg,
    sql_query,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use rovi_common::{config::ServiceUrl, error::ErrorChain, http::Readiness, lifecycle::Lifecycle};

use crate::{
    config::Settings,
    store::{Pool, StoreError, connection_url, keep_openssl},
};

/// The hub's own tables.
pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations");

/// Number of the advisory lock under which one hub at a time migrates: `rovi` in ASCII.
const MIGRATION_LOCK: i64 = 0x726f_7669;
/// First and longest pause between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often PostgreSQL is asked how it is.
const CHECK: Duration = Duration::from_secs(1);

/// Starts the task.
pub(crate) fn start(
    settings: &Settings,
    pool: &Pool,
    lifecycle: &Lifecycle,
    readiness: &Readiness,
) {
    let (url, pool, readiness) = (
        settings.database_url.clone(),
        pool.clone(),
        readiness.clone(),
    );
    let stop = lifecycle.stop_token();
    lifecycle.supervise("prepare", async move {
        let work = async {
            migrate_until_done(&url, &readiness).await;
            pool.set_prepared();
            watch(&pool, &readiness).await;
        };
        stop.run_until_cancelled(work).await;
    });
}

async fn migrate_until_done(url: &ServiceUrl, readiness: &Readiness) {
    let mut pause = PAUSES.0;
    loop {
        let url = connection_url(url);
        let problem = match tokio::task::spawn_blocking(move || migrate(&url)).await {
            Ok(Ok(())) => return,
            Ok(Err(problem)) => problem,
            Err(_panic) => "migrating ended by a panic".to_owned(),
        };
        readiness.set("postgresql", Some(problem));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Makes or updates the hub's own tables, where that is left to do: the role of a running hub need
/// not own them.
fn migrate(url: &str) -> Result<(), String> {
    let mut connection =
        PgConnection::establish(url).map_err(|error| format!("cannot connect: {error}"))?;
    if is_up_to_date(&mut connection) {
        return Ok(());
    }
    run_migrations(&mut connection)
}

/// Makes or updates the hub's own tables, and gives roles their rights, where there are roles.
///
/// # Errors
/// PostgreSQL is away, or the role of the URL does not own the tables.
pub(crate) async fn migrate_once(url: &ServiceUrl) -> Result<(), String> {
    keep_openssl();
    let url = connection_url(url);
    let work = move || {
        let connection = PgConnection::establish(&url);
        let mut connection = connection.map_err(|error| format!("cannot connect: {error}"))?;
        run_migrations(&mut connection)
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_panic| Err("migrating ended by a panic".to_owned()))
}

#[derive(diesel::QueryableByName)]
struct Applied {
    #[diesel(sql_type = diesel::sql_types::Text)]
    version: String,
}

/// Tells whether every migration of this version was run, by reading alone.
fn is_up_to_date(connection: &mut PgConnection) -> bool {
    let applied = sql_query("SELECT version::text FROM public.__diesel_schema_migrations");
    let Ok(applied) = applied.load::<Applied>(connection) else {
        return false;
    };
    let all: Vec<Box<dyn Migration<Pg>>> = MIGRATIONS.migrations().unwrap_or_default();
    let mut versions = all.iter().map(|one| one.name().version().to_string());
    let is_applied = |version| applied.iter().any(|known| known.version == version);
    !all.is_empty() && versions.all(is_applied)
}

fn run_migrations(connection: &mut PgConnection) -> Result<(), String> {
    // Bounded, since a stop of the service waits for this thread.
    let locked = connection.batch_execute(&format!(
        "SET lock_timeout = '10s'; SELECT pg_advisory_lock({MIGRATION_LOCK})"
    ));
    locked.map_err(|error| format!("cannot lock for migrations: {error}"))?;
    // The lock goes with the connection.
    connection
        .run_pending_migrations(MIGRATIONS)
        .map_err(|error| {
            format!("a migration failed: {error}; `datahub migrate` runs them as their owner")
        })?;
    let given = connection.batch_execute(include_str!("store/grants.sql"));
    given.map_err(|error| format!("roles do not get their rights: {error}"))
}

async fn watch(pool: &Pool, readiness: &Readiness) {
    loop {
        let answer = pool.run(|connection| Ok(connection.batch_execute("SELECT 1")?));
        let problem = answer.await.err();
        let problem = problem.map(|error: StoreError| ErrorChain(&error).to_string());
        readiness.set("postgresql", problem);
        tokio::time::sleep(CHECK).await;
    }
}
