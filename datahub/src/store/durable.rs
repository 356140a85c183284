//! What is on the disk.
//!
//! A writer that goes ahead commits before its rows are on the disk, and tells nobody of them until
//! they are. Others see them meanwhile: whoever hands out what it reads, so that it matters
//! whether PostgreSQL may still lose it, settles it first. Whoever commits something afterwards need
//! not, since a commit that waits for the disk takes all before it there: opening a session does so.
//!
//! Where commits wait for replicas, no writer goes ahead, and the disk here is all that is looked at.

use diesel::{
    PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    connection::{AnsiTransactionManager, SimpleConnection, TransactionManager},
    result::Error,
    sql_query,
    sql_types::{BigInt, Bool},
};

/// Makes a connection's commits wait for the disk, whatever the server's default is or becomes;
/// settings that say more of replicas stay.
pub(crate) const COMMIT_DURABLY: &str = "SELECT set_config('synchronous_commit', \
    coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)";

/// Makes a connection commit before its rows are on the disk, until [`commit_durably`].
///
/// # Errors
/// As diesel's.
pub(crate) fn commit_early(connection: &mut PgConnection) -> QueryResult<()> {
    connection.batch_execute("SET synchronous_commit = off")
}

/// Makes a connection's commits wait for the disk again.
///
/// # Errors
/// - `AlreadyInTransaction`.
/// - As diesel's; nobody knows then whether they do.
pub(crate) fn commit_durably(connection: &mut PgConnection) -> QueryResult<()> {
    refuse_in_transaction(connection)?;
    connection.batch_execute(&format!("RESET synchronous_commit; {COMMIT_DURABLY}"))
}

/// Waits until everything that is committed is durable, as a commit of this connection would be.
///
/// # Errors
/// - `AlreadyInTransaction`: the commit would come with that one's.
/// - As diesel's; nobody knows then what is durable.
pub(crate) fn flush(connection: &mut PgConnection) -> QueryResult<()> {
    commit_something(connection, "")
}

/// Waits until everything that could be seen before is on the disk.
///
/// # Errors
/// As [`flush`].
pub(crate) fn settle(connection: &mut PgConnection) -> QueryResult<()> {
    let all = "SELECT (pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()) AS is_so";
    if is_so(connection, all)? {
        return Ok(());
    }
    commit_something(connection, "SET LOCAL synchronous_commit = local;")
}

/// A commit that writes nothing waits for nothing, so something is written to the log.
fn commit_something(connection: &mut PgConnection, setting: &str) -> QueryResult<()> {
    refuse_in_transaction(connection)?;
    let committed = connection.batch_execute(&format!(
        "BEGIN; {setting} SELECT pg_logical_emit_message(true, 'rovi', ''); COMMIT"
    ));
    if committed.is_err() {
        // Where the connection is lost, this fails as well.
        let _rolled_back = connection.batch_execute("ROLLBACK");
    }
    committed
}

fn refuse_in_transaction(connection: &mut PgConnection) -> QueryResult<()> {
    let transactions = AnsiTransactionManager::transaction_manager_status_mut(connection);
    match transactions.transaction_depth()? {
        None => Ok(()),
        Some(_) => Err(Error::AlreadyInTransaction),
    }
}

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    is_so: bool,
}

fn is_so(connection: &mut PgConnection, query: &str) -> QueryResult<bool> {
    let answer: Answer = sql_query(query).get_result(connection)?;
    Ok(answer.is_so)
}

/// Tells whether commits wait for replicas, of which only they tell.
///
/// # Errors
/// As diesel's.
pub(crate) fn has_replicas(connection: &mut PgConnection) -> QueryResult<bool> {
    let query = "SELECT current_setting('synchronous_standby_names') <> '' AS is_so";
    is_so(connection, query)
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

/// Returns below which place of PostgreSQL's log all is durable. Replicas may have been named since
/// the writer went ahead: then it is 0, and only a commit tells.
///
/// # Errors
/// As diesel's.
pub(crate) fn durable(connection: &mut PgConnection) -> QueryResult<i64> {
    let query = "SELECT CASE current_setting('synchronous_standby_names') WHEN '' \
        THEN (pg_current_wal_flush_lsn() - '0/0')::bigint ELSE 0 END AS bytes";
    let place: Place = sql_query(query).get_result(connection)?;
    Ok(place.bytes)
}
