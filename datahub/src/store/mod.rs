//! PostgreSQL: the pool for queries, and everything that is written there.

pub(crate) mod access;
pub mod alert_rules;
mod at_once;
pub(crate) mod audit;
pub mod batteries;
mod bind;
mod catalog;
mod cell;
mod cells;
mod champions;
mod column_type;
pub mod columns;
mod copy;
mod copy_out;
pub(crate) mod corrections;
pub mod cycles;
pub(crate) mod deletion;
pub(crate) mod durable;
pub mod estimates;
pub mod estimator_files;
pub(crate) mod file_tables;
pub(crate) mod find;
mod fit;
pub(crate) mod group;
mod insert;
pub mod intervals;
mod joined;
mod known;
mod layout;
pub mod lineage;
pub(crate) mod metadata;
pub(crate) mod neighbours;
mod number;
pub mod registrations;
pub(crate) mod rejected;
pub mod retention;
pub(crate) mod revocations;
pub mod rollups;
pub mod rows;
pub(crate) mod samples;
pub(crate) mod schema;
pub mod sessions;
mod share;
pub mod signals;
pub mod source;
pub(crate) mod statement;
mod steady;
mod steps;
pub mod tables;
pub(crate) mod times;
mod work;

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use diesel::{
    Connection, PgConnection,
    connection::SimpleConnection,
    r2d2::{ConnectionManager, CustomizeConnection},
    result::{DatabaseErrorKind, Error as DieselError},
};
use rovi_common::{config::ServiceUrl, error::ErrorChain, http::Problem};

/// How long a query waits for a free connection; longer makes requests pile up while PostgreSQL
/// is away, shorter refuses them at short peaks.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why PostgreSQL did not do what it was asked for; chosen by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL is away or not prepared yet: try again later.
    #[error("PostgreSQL is away")]
    Away(#[source] Box<dyn Error + Send + Sync>),
    /// PostgreSQL refused the statement.
    #[error("PostgreSQL refused a statement")]
    Query(#[source] DieselError),
    /// The query's thread ended by a panic.
    #[error("a query ended by a panic")]
    Panicked,
}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> Self {
        if is_away(&error) {
            return Self::Away(Box::new(error));
        }
        Self::Query(error)
    }
}

impl From<diesel::ConnectionError> for StoreError {
    fn from(error: diesel::ConnectionError) -> Self {
        Self::Away(Box::new(error))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away(_) => {
                Self::unavailable(format!("{}; try again soon", ErrorChain(&error)))
            }
            StoreError::Query(_) | StoreError::Panicked => Self::internal(&error),
        }
    }
}

/// Runs a transaction of what is made from rows, with the note of how far it is made: what a crash
/// takes of it is made again, and it takes none of the rows alone, since their commits came before.
/// So it waits for no disk, and holds up no upload that does.
pub(crate) fn derived<T>(
    connection: &mut PgConnection,
    work: impl FnOnce(&mut PgConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.transaction(|connection| {
        connection.batch_execute("SET LOCAL synchronous_commit = off")?;
        work(connection)
    })
}

/// Tells whether an error means that the connection, not the statement, is at fault.
pub(crate) fn is_away(error: &DieselError) -> bool {
    match error {
        DieselError::BrokenTransactionManager => true,
        DieselError::DatabaseError(kind, _) => matches!(
            kind,
            DatabaseErrorKind::ClosedConnection
                | DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::ReadOnlyTransaction
        ),
        DieselError::RollbackErrorOnCommit {
            rollback_error,
            commit_error,
        } => is_away(rollback_error) || is_away(commit_error),
        _ => false,
    }
}

/// What PostgreSQL says where it has no room or no time: nothing that another row would change.
///
/// The client library does not tell the error's code; [`plain_messages`] has these in English.
const OF_THE_SERVER: [&str; 8] = [
    "No space left on device",
    "could not extend file",
    "could not write",
    "Disk quota exceeded",
    "canceling statement due to",
    "out of memory",
    "out of shared memory",
    "too many connections",
];

/// Tells whether PostgreSQL could not do its work, as opposed to refusing what it was given.
pub(crate) fn is_of_the_server(error: &DieselError) -> bool {
    let DieselError::DatabaseError(kind, information) = error else {
        return false;
    };
    let is_known = matches!(kind, DatabaseErrorKind::SerializationFailure);
    let message = information.message();
    is_known || OF_THE_SERVER.iter().any(|text| message.contains(text))
}

/// Asks for messages in English, which only a privileged role may.
pub(crate) fn plain_messages(connection: &mut PgConnection) {
    if let Err(error) = connection.batch_execute("SET lc_messages = 'C'") {
        tracing::debug!("PostgreSQL's messages stay in its own language: {error}");
    }
}

/// Has OpenSSL, by which libpq proves passwords, keep what its threads share until the process is
/// gone; to be called before the first connection.
///
/// It clears that as a process ends otherwise, which crashes threads that connect, or end, meanwhile.
pub fn keep_openssl() {
    openssl_sys::init();
}

/// What every connection is asked for, unless the URL says otherwise: bounds on how long a dead
/// server may go unnoticed, and no look for Kerberos, whose library ends a process by force that
/// connects while it stops.
const WHERE_NOTHING_IS_SAID: [(&str, &str); 3] = [
    ("connect_timeout", "5"),
    ("tcp_user_timeout", "15000"),
    ("gssencmode", "disable"),
];

/// Returns the URL to connect by.
pub(crate) fn connection_url(url: &ServiceUrl) -> String {
    let Ok(mut complete) = url::Url::parse(url.expose()) else {
        return url.expose().to_owned();
    };
    for (key, value) in WHERE_NOTHING_IS_SAID {
        if !complete.query_pairs().any(|(known, _)| known == key) {
            complete.query_pairs_mut().append_pair(key, value);
        }
    }
    complete.into()
}

/// Connections for queries; writers have their own.
#[derive(Clone)]
pub struct Pool {
    inner: diesel::r2d2::Pool<ConnectionManager<PgConnection>>,
    prepared: Arc<AtomicBool>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// Makes a pool without connecting.
    pub fn new(url: &ServiceUrl, size: u32) -> Self {
        keep_openssl();
        let inner = diesel::r2d2::Pool::builder()
            .max_size(size)
            .min_idle(Some(0))
            .connection_timeout(CHECKOUT_TIMEOUT)
            .connection_customizer(Box::new(SessionSettings))
            .error_handler(Box::new(diesel::r2d2::NopErrorHandler))
            .build_unchecked(ConnectionManager::new(connection_url(url)));
        Self {
            inner,
            prepared: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Says that the hub's own tables exist; queries are refused as `Away` before.
    pub fn set_prepared(&self) {
        self.prepared.store(true, Ordering::Release);
    }

    /// Runs queries on a thread for blocking work.
    ///
    /// # Errors
    /// - `Away`: no connection, or it was lost; becomes 503.
    /// - `Query`: a statement was refused; becomes 500 unless the caller knows better.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut PgConnection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if !self.prepared.load(Ordering::Acquire) {
            return Err(StoreError::Away("its tables are not prepared yet".into()));
        }
        let pool = self.inner.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut connection = pool.get().map_err(|error| StoreError::Away(error.into()))?;
            work(&mut connection)
        });
        task.await.map_err(|_panic| StoreError::Panicked)?
    }
}

/// What every pooled connection is told: bounds belong to the connection, not to each query.
#[derive(Debug)]
struct SessionSettings;

impl CustomizeConnection<PgConnection, diesel::r2d2::Error> for SessionSettings {
    fn on_acquire(&self, connection: &mut PgConnection) -> Result<(), diesel::r2d2::Error> {
        connection
            .batch_execute(&format!(
                "SET application_name = 'datahub'; SET statement_timeout = '30s'; \
                 SET lock_timeout = '5s'; SET TIME ZONE 'UTC'; {}",
                durable::COMMIT_DURABLY
            ))
            .map_err(diesel::r2d2::Error::QueryError)
    }
}

/// Runs a statement that the connection keeps prepared, another one for each name.
#[cfg(test)]
pub(crate) fn prepare_one(connection: &mut PgConnection, name: &str) -> diesel::QueryResult<usize> {
    use diesel::RunQueryDsl;
    let statement = statement::Statement::cached().sql("SELECT 1 AS ");
    statement.identifier(name).execute(connection)
}
