//! What is on the disk.
//!
//! A writer that goes ahead commits before its rows are on the disk, and tells nobody of them until
//! they are. Others see them meanwhile: whoever hands out what it reads, so that it matters
//! whether PostgreSQL may still lose it, settles it first. Whoever commits something afterwards need not:
//! a commit that waits for the disk takes all before it there, as that of a session's next attempt.

use diesel::{
    PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    connection::{AnsiTransactionManager, SimpleConnection, TransactionManager},
    result::Error,
    sql_query,
    sql_types::BigInt,
};

/// Makes a connection's commits wait for the disk, whatever the server's default is or becomes;
/// stronger settings stay.
pub(crate) const COMMIT_DURABLY: &str = "SELECT set_config('synchronous_commit', \
    coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)";

/// Makes a connection commit before its rows are on the disk.
///
/// # Errors
/// As diesel's.
pub(crate) fn commit_early(connection: &mut PgConnection) -> QueryResult<()> {
    connection.batch_execute("SET synchronous_commit = off")
}

/// Waits until everything that is committed is durable: a commit that waits for the disk, and for
/// replicas where that is set, has all before it there, too.
///
/// # Errors
/// - `AlreadyInTransaction`: the commit would come with that one's.
/// - As diesel's; nobody knows then what is durable.
pub(crate) fn flush(connection: &mut PgConnection) -> QueryResult<()> {
    let transactions = AnsiTransactionManager::transaction_manager_status_mut(connection);
    if transactions.transaction_depth()?.is_some() {
        return Err(Error::AlreadyInTransaction);
    }
    // A commit that writes nothing waits for nothing.
    let flushed = connection.batch_execute(
        "BEGIN; SELECT set_config('synchronous_commit', 'on', true) \
         WHERE current_setting('synchronous_commit') = 'off'; \
         SELECT pg_logical_emit_message(true, 'rovi', ''); COMMIT",
    );
    if flushed.is_err() {
        // Where the connection is lost, this fails as well.
        let _rolled_back = connection.batch_execute("ROLLBACK");
    }
    flushed
}

/// Waits until everything that could be seen before is durable.
///
/// # Errors
/// As [`flush`].
pub(crate) fn settle(connection: &mut PgConnection) -> QueryResult<()> {
    if durable(connection)? >= end(connection)? {
        return Ok(());
    }
    flush(connection)
}

#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

/// Returns where PostgreSQL's log ends: what was committed before stands below.
///
/// # Errors
/// As diesel's.
pub(crate) fn end(connection: &mut PgConnection) -> QueryResult<i64> {
    let query = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint AS bytes";
    let place: Place = sql_query(query).get_result(connection)?;
    Ok(place.bytes)
}

/// Returns below which place of PostgreSQL's log all is durable, as far as that is known: where
/// commits wait for replicas, only a commit tells.
///
/// # Errors
/// As diesel's.
pub(crate) fn durable(connection: &mut PgConnection) -> QueryResult<i64> {
    let query = "SELECT CASE current_setting('synchronous_standby_names') WHEN '' \
        THEN (pg_current_wal_flush_lsn() - '0/0')::bigint ELSE 0 END AS bytes";
    let place: Place = sql_query(query).get_result(connection)?;
    Ok(place.bytes)
}
