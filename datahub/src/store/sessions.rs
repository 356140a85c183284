//! Upload sessions: what makes sending again harmless.
//!
//! Every connection has a session, named by the client or made for it. Its position moves in the
//! transaction that stores the rows, and only from where the connection believes it to be. So the
//! position also tells what became of a commit whose answer was lost.

use std::ops::Range;

use diesel::{
    ExpressionMethods, PgConnection, QueryDsl, QueryResult, QueryableByName, RunQueryDsl,
    SelectableHelper,
    result::{DatabaseErrorKind, Error},
    sql_types,
};
use rovi_common::clock;
use uuid::{Uuid, Version};

use super::{
    StoreError,
    batteries::Line,
    insert,
    schema::{batteries, sessions},
    statement::{ArrayBind, Statement},
};
use crate::{relayed::Place, sessions::SessionSettings};

const S_PER_DAY: i64 = 86_400;
/// How long opening a session waits for a lock, in milliseconds: connections for queries are few, and
/// whoever opens one can come again.
const OPEN_LOCK_MS: u128 = 1000;

/// A connection's right to store rows of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The battery of the session.
    pub battery_id: i64,
    /// The battery's newest row when the connection began.
    pub newest: Place,
    /// The newest row that was known to be on the bus then.
    pub relayed: Place,
    /// The session.
    pub session: Uuid,
    /// Which connection of the session this is; only the newest may store rows.
    pub attempt: i64,
    /// All rows below are durable.
    pub position: i64,
}

/// Why a session cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The session is unusable as asked for.
    #[error("{0}")]
    Refused(String),
    /// A transaction holds the session or its battery's line for long.
    #[error("rows of this session are being written, which takes long; try again soon")]
    Busy,
    /// PostgreSQL did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Error> for SessionError {
    fn from(error: Error) -> Self {
        match &error {
            Error::DatabaseError(_, what) if what.message().contains("due to lock timeout") => {
                Self::Busy
            }
            _ => Self::Store(error.into()),
        }
    }
}

#[derive(QueryableByName)]
struct Opened {
    #[diesel(sql_type = sql_types::BigInt)]
    battery_id: i64,
    #[diesel(sql_type = sql_types::BigInt)]
    attempt: i64,
    #[diesel(sql_type = sql_types::BigInt)]
    position: i64,
    #[diesel(sql_type = sql_types::Bool)]
    ended: bool,
}

/// Opens a session for a new connection, which from now on is the only one that may store.
///
/// `from` is the position of the first row that the connection will send; `body` the fingerprint
/// of the one body that the session is for. The battery's line is made where it is missing.
///
/// # Errors
/// - `Refused`: the session belongs to another battery, has ended, was forgotten, was for another
///   body, or `from` would leave a hole.
/// - `Busy`: a table is being changed, or locked by somebody; nothing was changed.
/// - `Store`: PostgreSQL did not answer; nothing was changed.
pub fn open(
    connection: &mut PgConnection,
    battery: &str,
    (session, from): (Uuid, i64),
    body: Option<&[u8; 32]>,
    settings: &SessionSettings,
) -> Result<Claim, SessionError> {
    loop {
        if let Some(claim) = try_to_open(connection, battery, (session, from), body, settings)? {
            return Ok(claim);
        }
    }
}

/// As [`open`]; `None` where an older connection of the session took the line meanwhile.
fn try_to_open(
    connection: &mut PgConnection,
    battery: &str,
    (session, from): (Uuid, i64),
    body: Option<&[u8; 32]>,
    settings: &SessionSettings,
) -> Result<Option<Claim>, SessionError> {
    use diesel::Connection;
    connection.transaction(|connection| {
        insert::set_lock_timeout(connection, OPEN_LOCK_MS)?;
        let battery_id = super::batteries::find_or_add(connection, battery)?;
        // Lines are locked before sessions, as everywhere.
        release(connection, battery_id, session)?;
        let opened = match raise_attempt(connection, (battery_id, session), settings.days) {
            Err(Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _)) => {
                let problem = format!("{battery} was deleted just now; connect again");
                return Err(SessionError::Refused(problem));
            }
            opened => opened?,
        };
        if opened.battery_id != battery_id {
            let problem = format!("the session {session} belongs to another battery");
            return Err(SessionError::Refused(problem));
        }
        if let Some(why) = opened.refusal(session, from, settings) {
            return Err(SessionError::Refused(why));
        }
        if let Some(body) = body
            && !is_for(connection, session, body)?
        {
            let problem = "the key was used for another body; nothing of this one is stored";
            return Err(SessionError::Refused(problem.to_owned()));
        }
        let (line, relayed_seq): (Line, i64) = batteries::table
            .find(battery_id)
            .select((Line::as_select(), batteries::relayed_seq))
            .first(connection)?;
        // From here on nobody else moves the session: only before it was ours may it have been given
        // the line.
        if line.holder == Some(session) {
            return Ok(None);
        }
        let place = |seq| Place {
            epoch: line.epoch,
            seq,
        };
        Ok(Some(Claim {
            battery_id,
            newest: place(line.last_seq),
            relayed: place(relayed_seq),
            session,
            attempt: opened.attempt,
            position: opened.position,
        }))
    })
}

impl Opened {
    /// Says why the session cannot be gone on with.
    fn refusal(&self, session: Uuid, from: i64, settings: &SessionSettings) -> Option<String> {
        let days = settings.days;
        let is_new = self.attempt == 1;
        if self.ended {
            return Some(format!(
                "the session {session} was unused for {days} days and has ended; begin a new one"
            ));
        }
        if is_new && named_before(session, clock::now_us() / 1_000_000 - days_s(days)) {
            return Some(format!(
                "the session {session} is not known, or not any more: by the time in its name it \
                 began more than {days} days ago, so its rows may be stored already; begin a new \
                 one (and set the clock, if that time is wrong)"
            ));
        }
        if from <= self.position {
            return None;
        }
        let what_is_there = if is_new {
            format!("the session {session} is not known, so nothing of it is stored")
        } else {
            let position = self.position;
            format!("the rows of session {session} are stored up to position {position}")
        };
        Some(format!("from={from} would leave a hole: {what_is_there}"))
    }
}

/// Tells whether a name of version 7, which begins with its time, is older than a time in seconds
/// since 1970. So whoever comes back to such a session is known for it when its line is gone.
fn named_before(session: Uuid, time_s: i64) -> bool {
    let is_timed = session.get_version() == Some(Version::SortRand);
    let named = session.get_timestamp().filter(|_| is_timed);
    named.is_some_and(|named| i64::try_from(named.to_unix().0).is_ok_and(|named| named < time_s))
}

fn days_s(days: u32) -> i64 {
    i64::from(days) * S_PER_DAY
}

/// Writes down where a session stands that holds its battery's line, which is nobody's then.
fn release(connection: &mut PgConnection, battery_id: i64, session: Uuid) -> QueryResult<usize> {
    diesel::sql_query(
        "WITH held AS (SELECT id, holder, last_seq + holder_offset AS position \
           FROM hub.batteries WHERE id = $1 AND holder = $2 FOR NO KEY UPDATE), \
         noted AS (UPDATE hub.sessions s SET noted_position = held.position, used = now() \
           FROM held WHERE s.id = held.holder) \
         UPDATE hub.batteries b SET holder = NULL FROM held WHERE b.id = held.id",
    )
    .bind::<sql_types::BigInt, _>(battery_id)
    .bind::<sql_types::Uuid, _>(session)
    .execute(connection)
}

/// Writes down where the sessions stand that hold lines, whose turns were taken; whoever moves the
/// lines gives them away.
pub(super) fn write_down<'l>(
    connection: &mut PgConnection,
    lines: impl IntoIterator<Item = &'l Line, IntoIter: Clone>,
) -> QueryResult<usize> {
    let held = lines.into_iter().filter(|line| line.holder.is_some());
    if held.clone().next().is_none() {
        return Ok(0);
    }
    Statement::cached()
        .sql(
            "UPDATE hub.sessions s SET noted_position = p.position, used = now() \
             FROM (SELECT unnest(",
        )
        .array(ArrayBind::uuids(held.clone().map(|line| line.holder)))
        .sql(") AS id, unnest(")
        .array(ArrayBind::longs(
            held.map(|line| line.last_seq + line.holder_offset),
        ))
        .sql(") AS position) AS p WHERE s.id = p.id")
        .execute(connection)
}

/// Ended sessions keep their line: one used again is refused, not begun anew.
fn raise_attempt(
    connection: &mut PgConnection,
    (battery_id, session): (i64, Uuid),
    days: u32,
) -> QueryResult<Opened> {
    Statement::cached()
        .sql("INSERT INTO hub.sessions AS s (id, battery_id, attempt) SELECT u, b, 1 FROM unnest(")
        .array(ArrayBind::uuids([Some(session)]))
        .sql(", ")
        .array(ArrayBind::longs([battery_id]))
        .sql(
            ") AS t(u, b) ON CONFLICT (id) DO UPDATE SET attempt = s.attempt + 1, used = \
             CASE WHEN s.used < now() - interval '1 day' * ",
        )
        .long(days.into())
        .sql(
            " THEN s.used ELSE now() END \
             RETURNING battery_id, attempt, noted_position AS position, \
             used < now() - interval '1 day' * ",
        )
        .long(days.into())
        .sql(" AS ended")
        .get_result(connection)
}

/// Tells whether a session is for this body; a session that is for none yet is from now on.
fn is_for(connection: &mut PgConnection, session: Uuid, body: &[u8; 32]) -> QueryResult<bool> {
    let unset = sessions::table
        .find(session)
        .filter(sessions::body.is_null());
    diesel::update(unset)
        .set(sessions::body.eq(body.as_slice()))
        .execute(connection)?;
    let kept: Option<Vec<u8>> = sessions::table
        .find(session)
        .select(sessions::body)
        .first(connection)?;
    Ok(kept.as_deref() == Some(body.as_slice()))
}

/// Forgets a session that nobody can name again.
///
/// # Errors
/// As diesel's.
pub fn forget(connection: &mut PgConnection, session: Uuid) -> QueryResult<usize> {
    diesel::delete(sessions::table.find(session)).execute(connection)
}

/// Forgets a session that has ended, so that it can begin anew.
///
/// # Errors
/// As diesel's.
pub(crate) fn forget_ended(
    connection: &mut PgConnection,
    session: Uuid,
    days: u32,
) -> QueryResult<usize> {
    let ended = "DELETE FROM hub.sessions WHERE id = $1 AND used < now() - interval '1 day' * $2";
    diesel::sql_query(ended)
        .bind::<sql_types::Uuid, _>(session)
        .bind::<sql_types::BigInt, _>(i64::from(days))
        .execute(connection)
}

/// Keeps sessions of open connections from ending while these have nothing to send.
///
/// # Errors
/// As diesel's.
pub(crate) fn keep(connection: &mut PgConnection, open: &[Uuid], days: u32) -> QueryResult<usize> {
    // A line that is locked is being used anyway.
    diesel::sql_query(
        "UPDATE hub.sessions SET used = now() WHERE id IN (SELECT id FROM hub.sessions \
         WHERE id = ANY($1) AND used < now() - interval '12 hours' * $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind::<sql_types::Array<sql_types::Uuid>, _>(open)
    .bind::<sql_types::BigInt, _>(i64::from(days))
    .execute(connection)
}

/// Returns the number of blocks in which sessions lie.
///
/// # Errors
/// As diesel's.
pub(crate) fn blocks(connection: &mut PgConnection) -> QueryResult<i64> {
    #[derive(QueryableByName)]
    struct Size {
        #[diesel(sql_type = sql_types::BigInt)]
        blocks: i64,
    }
    let size: Size = diesel::sql_query(
        "SELECT pg_relation_size('hub.sessions') / current_setting('block_size')::bigint AS blocks",
    )
    .get_result(connection)?;
    Ok(size.blocks)
}

/// Forgets the sessions within some blocks that are of no use any more; returns how many.
///
/// Of those that have ended these are: one that stored nothing; one whose name tells its age; and
/// one that nobody came back to for as long as the hub remembers any. There is no index of `used`,
/// which would make every commit of rows dearer.
///
/// # Errors
/// As diesel's.
pub(crate) fn forget_useless(
    connection: &mut PgConnection,
    blocks: &Range<i64>,
    settings: &SessionSettings,
) -> QueryResult<usize> {
    let place = |block: i64| format!("({block},0)");
    diesel::sql_query(
        "DELETE FROM hub.sessions WHERE id IN (SELECT id FROM hub.sessions \
         WHERE ctid >= $1::tid AND ctid < $2::tid AND used < now() - interval '1 day' * $3 \
           AND (noted_position = 0 OR substr(id::text, 15, 1) = '7' \
             OR used < now() - interval '1 day' * $4) \
           AND NOT EXISTS (SELECT FROM hub.batteries b WHERE b.holder = sessions.id \
             AND b.id = sessions.battery_id) FOR UPDATE SKIP LOCKED)",
    )
    .bind::<sql_types::Text, _>(place(blocks.start))
    .bind::<sql_types::Text, _>(place(blocks.end))
    .bind::<sql_types::BigInt, _>(i64::from(settings.days))
    .bind::<sql_types::BigInt, _>(i64::from(settings.memory_days))
    .execute(connection)
}

/// A session's step from one position to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) battery: i64,
    pub(super) session: Uuid,
    pub(super) attempt: i64,
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Step {
    /// Names the connection of the session.
    pub(super) fn key(&self) -> (Uuid, i64) {
        (self.session, self.attempt)
    }
}

#[derive(QueryableByName)]
struct Moved {
    #[diesel(sql_type = sql_types::Uuid)]
    id: Uuid,
    #[diesel(sql_type = sql_types::BigInt)]
    attempt: i64,
}

/// Moves positions where attempt and old position match; returns the sessions that moved, with
/// the attempt by which they did.
pub(super) fn advance(
    connection: &mut PgConnection,
    steps: &[Step],
) -> QueryResult<Vec<(Uuid, i64)>> {
    let moved: Vec<Moved> = moving(steps).load(connection)?;
    let moved = moved.into_iter();
    Ok(moved.map(|session| (session.id, session.attempt)).collect())
}

fn moving(steps: &[Step]) -> Statement {
    Statement::cached()
        .sql("UPDATE hub.sessions s SET noted_position = p.new, used = now() FROM (SELECT unnest(")
        .array(ArrayBind::uuids(
            steps.iter().map(|step| Some(step.session)),
        ))
        .sql(") AS id, unnest(")
        .array(ArrayBind::longs(steps.iter().map(|step| step.attempt)))
        .sql(") AS attempt, unnest(")
        .array(ArrayBind::longs(steps.iter().map(|step| step.from)))
        .sql(") AS old, unnest(")
        .array(ArrayBind::longs(steps.iter().map(|step| step.to)))
        .sql(
            ") AS new) AS p \
             WHERE s.id = p.id AND s.attempt = p.attempt AND s.noted_position = p.old \
             RETURNING s.id, s.attempt",
        )
}

/// Reads attempt and position of sessions and holds them until the transaction ends.
pub(super) fn hold(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> QueryResult<Vec<(Uuid, i64, i64)>> {
    sessions::table
        .filter(sessions::id.eq_any(ids))
        .order(sessions::id)
        .select((sessions::id, sessions::attempt, sessions::noted_position))
        .for_update()
        .load(connection)
}

#[cfg(test)]
mod tests {
    use uuid::{NoContext, Timestamp};

    use super::*;

    #[test]
    fn only_names_of_version_7_tell_when_they_were_made() {
        let made = Uuid::new_v7(Timestamp::from_unix(NoContext, 1_700_000_000, 0));
        assert!(named_before(made, 1_700_000_001));
        assert!(!named_before(made, 1_700_000_000));
        for timeless in [Uuid::new_v4(), Uuid::new_v5(&made, b"file"), Uuid::nil()] {
            assert!(!named_before(timeless, i64::MAX));
        }
    }
}
