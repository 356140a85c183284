//! A writer's connection to PostgreSQL, whose prepared statements are bounded.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use diesel::{
    Connection, PgConnection, QueryResult,
    connection::{CacheSize, InstrumentationEvent, SimpleConnection},
};

use super::Wiring;
use crate::store::{self, StoreError, durable};

/// What PostgreSQL may keep for the prepared statements of a connection: about 40 kB for each, and
/// 10 kB for each further table of one with many.
const MOST_PREPARED_KB: usize = 80_000;
const STATEMENT_KB: usize = 40;
const TABLE_KB: usize = 10;

/// Statements look lines up by their keys. Not knowing how many an array names, PostgreSQL would
/// read all of `hub.batteries` and `hub.sessions` for each group of a fleet; knowing it, it would
/// plan statements anew for a group, a fifth to a third of the time of a small one.
const BY_KEY: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; \
                      SET enable_mergejoin = off; SET jit = off; \
                      SET plan_cache_mode = force_generic_plan";

/// A connection with short waits for locks, whose commits are durable unless it is told otherwise.
pub(super) struct Link {
    pub(super) connection: PgConnection,
    /// What the statements take that were prepared since all were forgotten.
    prepared_kb: Arc<AtomicUsize>,
}

impl Link {
    /// Connects.
    pub(super) fn open(wiring: &Wiring) -> Result<Self, StoreError> {
        let mut connection = PgConnection::establish(&store::connection_url(&wiring.url))?;
        let lock_ms = wiring.lock_timeout.as_millis().max(1);
        connection.batch_execute(&format!(
            "SET application_name = 'datahub writer'; SET lock_timeout = {lock_ms}; \
             SET TIME ZONE 'UTC'; {BY_KEY}; {}",
            durable::COMMIT_DURABLY
        ))?;
        store::plain_messages(&mut connection);
        Ok(Self::over(connection))
    }

    /// Counts what a connection prepares from now on.
    fn over(mut connection: PgConnection) -> Self {
        let prepared_kb = Arc::new(AtomicUsize::new(0));
        let sum = Arc::clone(&prepared_kb);
        connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::CacheQuery { sql, .. } = event {
                sum.fetch_add(kept_kb(sql), Ordering::Relaxed);
            }
        });
        Self {
            connection,
            prepared_kb,
        }
    }

    /// Forgets all prepared statements where they are too many.
    ///
    /// What PostgreSQL knows of the tables stays: connecting again would cost more than preparing.
    pub(super) fn trim(&mut self) -> QueryResult<()> {
        if self.prepared_kb.load(Ordering::Relaxed) <= MOST_PREPARED_KB {
            return Ok(());
        }
        self.prepared_kb.store(0, Ordering::Relaxed);
        let connection = &mut self.connection;
        connection.set_prepared_statement_cache_size(CacheSize::Disabled);
        connection.set_prepared_statement_cache_size(CacheSize::Unbounded);
        connection.batch_execute("DEALLOCATE ALL")
    }
}

/// Estimates what PostgreSQL keeps for a prepared statement.
fn kept_kb(sql: &str) -> usize {
    let further_tables = sql.matches("INSERT INTO").count().saturating_sub(1);
    STATEMENT_KB + TABLE_KB * further_tables
}

#[cfg(test)]
mod tests {
    use diesel::{QueryableByName, RunQueryDsl, sql_types::BigInt};
    use rovi_common::testing;

    use super::*;
    use crate::store;

    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }

    #[test]
    fn prepared_statements_stay_bounded_and_are_made_again() {
        let postgres = testing::postgres();
        let connection = PgConnection::establish(&postgres.server.url()).unwrap();
        let mut link = Link::over(connection);
        for _ in 0..2 {
            for number in 0..=MOST_PREPARED_KB / STATEMENT_KB {
                store::prepare_one(&mut link.connection, &number.to_string()).unwrap();
            }
            link.trim().unwrap();
            let kept: Count = diesel::sql_query("SELECT count(*) FROM pg_prepared_statements")
                .get_result(&mut link.connection)
                .unwrap();
            assert_eq!(kept.count, 0);
        }
    }
}
