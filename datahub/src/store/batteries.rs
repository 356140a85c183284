//! The lines of `hub.batteries`: whose turn it is to write, and how far each battery is.

use std::borrow::Cow;

use diesel::{
    ExpressionMethods, OptionalExtension, PgConnection, QueryDsl, QueryResult, Queryable,
    QueryableByName, RunQueryDsl, Selectable, SelectableHelper, sql_query, sql_types,
    upsert::on_constraint,
};

use uuid::Uuid;

use super::{
    schema::batteries,
    sessions::Step,
    statement::{ArrayBind, Statement},
};
use crate::relay::hints::Marks;

/// What a battery's line says.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = batteries, check_for_backend(diesel::pg::Pg))]
pub struct Line {
    /// The key that other tables of the hub use.
    pub id: i64,
    /// Name of its tables and subjects.
    pub name: String,
    /// The life of the name.
    pub epoch: i64,
    /// `seq` of the newest row.
    pub last_seq: i64,
    /// Segment of the newest row; 0 before the first.
    pub segment: i32,
    /// Largest `test_time` within the segment, in seconds.
    pub latest_test_time: Option<f64>,
    /// Raised by every change of the table; 0 while there is no table.
    pub form: i64,
    /// Rows below this are gone.
    pub first_seq: i64,
    /// The session that wrote last and alone. While it holds the line, moving the line moves it, too:
    /// it stands at `last_seq + holder_offset`, whatever its own line says.
    pub holder: Option<Uuid>,
    /// Which connection of that session.
    pub holder_attempt: i64,
    /// What `last_seq` lacks of the session's position.
    pub holder_offset: i64,
}

impl Line {
    /// Tells whether a step is the holder's over so many rows: then moving the line is moving the
    /// session.
    pub(super) fn carries(&self, step: &Step, rows: usize) -> bool {
        (self.holder, self.holder_attempt) == (Some(step.session), step.attempt)
            && self.last_seq + self.holder_offset == step.from
            && i64::try_from(rows) == Ok(step.to - step.from)
    }

    /// Returns the line as these steps find it: whoever opened a newer connection of its holder has
    /// taken it back.
    pub(super) fn found_by(&self, steps: &[Step]) -> Cow<'_, Self> {
        let is_newer =
            |step: &Step| self.holder == Some(step.session) && step.attempt > self.holder_attempt;
        if !steps.iter().any(is_newer) {
            return Cow::Borrowed(self);
        }
        let holder = None;
        Cow::Owned(Self {
            holder,
            ..self.clone()
        })
    }

    /// Gives the line to the session that moved it alone, if that had stored rows before: many store
    /// but once. Another's line is nobody's first, so that sessions that take turns give it up at
    /// every second one instead of at each.
    pub(super) fn give_to(&mut self, steps: &[Step]) {
        let alone = match steps {
            [step] if step.from > 0 => Some(step),
            _ => None,
        };
        let step = alone.filter(|step| self.holder.is_none_or(|holder| holder == step.session));
        self.holder = step.map(|step| step.session);
        self.holder_attempt = step.map_or(0, |step| step.attempt);
        self.holder_offset = step.map_or(0, |step| step.to - self.last_seq);
    }
}

/// Looks a battery up.
///
/// # Errors
/// As diesel's.
pub fn find(connection: &mut PgConnection, name: &str) -> QueryResult<Option<Line>> {
    batteries::table
        .filter(batteries::name.eq(name))
        .select(Line::as_select())
        .first(connection)
        .optional()
}

/// Returns a battery's metadata, as they were sent.
///
/// # Errors
/// As diesel's.
pub fn metadata(connection: &mut PgConnection, name: &str) -> QueryResult<Option<String>> {
    #[derive(QueryableByName)]
    struct Body {
        #[diesel(sql_type = sql_types::Text)]
        body: String,
    }
    let found: Option<Body> = sql_query(
        "SELECT m.body::text AS body FROM hub.batteries b \
         JOIN hub.metadata m ON m.battery_id = b.id WHERE b.name = $1",
    )
    .bind::<sql_types::Text, _>(name)
    .get_result(connection)
    .optional()?;
    Ok(found.map(|found| found.body))
}

/// Looks a battery up and takes its turn until the transaction ends.
///
/// # Errors
/// As diesel's.
pub(crate) fn find_and_lock(
    connection: &mut PgConnection,
    name: &str,
) -> QueryResult<Option<Line>> {
    batteries::table
        .filter(batteries::name.eq(name))
        .select(Line::as_select())
        .for_no_key_update()
        .first(connection)
        .optional()
}

/// Looks a battery up and makes its line where it is missing; returns its id.
///
/// # Errors
/// As diesel's.
pub fn find_or_add(connection: &mut PgConnection, name: &str) -> QueryResult<i64> {
    let of_name = batteries::table
        .filter(batteries::name.eq(name))
        .select(batteries::id);
    if let Some(id) = of_name.first(connection).optional()? {
        return Ok(id);
    }
    diesel::insert_into(batteries::table)
        .values(batteries::name.eq(name))
        .on_conflict(on_constraint("batteries_name_key"))
        .do_nothing()
        .execute(connection)?;
    of_name.first(connection)
}

/// Takes the batteries' turns until the transaction ends, in the order of `ids`, which ascend so
/// that two writers never wait for each other.
///
/// A line may be missing in the answer: that battery was removed.
pub(super) fn lock(connection: &mut PgConnection, ids: &[i64]) -> QueryResult<Vec<Line>> {
    batteries::table
        .filter(batteries::id.eq_any(ids))
        .order(batteries::id)
        .select(Line::as_select())
        .for_no_key_update()
        .load(connection)
}

/// Writes how far the batteries are now, whose lines are locked, and how far a bus is, if it is still
/// the one that the database knows: whoever takes over another one waits for these lines.
pub(super) fn advance(
    connection: &mut PgConnection,
    lines: &[Line],
    relayed: Marks,
) -> QueryResult<usize> {
    moving(lines.iter(), relayed, true)
        .sql(") AS p WHERE b.id = p.id")
        .execute(connection)
}

/// As [`advance`], for lines that were not locked: moves those that stand where they were `found`, in
/// the order of their ids, and counts them. Where it had to wait for a line, the bus that it knows is
/// the one from before: whoever marked something asks [`knows_bus`] then.
pub(super) fn advance_from<'l>(
    connection: &mut PgConnection,
    found: impl Iterator<Item = &'l Line> + Clone,
    lines: impl Iterator<Item = &'l Line> + Clone,
    relayed: Marks,
) -> QueryResult<usize> {
    let of = |line: &Line| (line.holder, line.holder_attempt, line.holder_offset);
    let gives = found.clone().map(of).ne(lines.clone().map(of));
    moving(lines, relayed, gives)
        .sql(", unnest(")
        .array(ArrayBind::uuids(found.clone().map(|line| line.holder)))
        .sql(") AS old_holder, unnest(")
        .array(ArrayBind::longs(
            found.clone().map(|line| line.holder_attempt),
        ))
        .sql(") AS old_attempt, unnest(")
        .array(ArrayBind::longs(
            found.clone().map(|line| line.holder_offset),
        ))
        .sql(") AS old_offset, unnest(")
        .array(ArrayBind::longs(found.clone().map(|line| line.epoch)))
        .sql(") AS epoch, unnest(")
        .array(ArrayBind::longs(found.clone().map(|line| line.form)))
        .sql(") AS form, unnest(")
        .array(ArrayBind::longs(found.clone().map(|line| line.last_seq)))
        .sql(") AS old_seq, unnest(")
        .array(ArrayBind::ints(found.clone().map(|line| line.segment)))
        .sql(") AS old_segment, unnest(")
        .array(ArrayBind::doubles(found.map(|line| line.latest_test_time)))
        .sql(
            ") AS old_latest) AS p WHERE b.id = p.id AND b.epoch = p.epoch AND b.form = p.form \
             AND b.last_seq = p.old_seq AND b.segment = p.old_segment \
             AND b.latest_test_time IS NOT DISTINCT FROM p.old_latest \
             AND b.holder IS NOT DISTINCT FROM p.old_holder \
             AND b.holder_attempt = p.old_attempt AND b.holder_offset = p.old_offset",
        )
        .execute(connection)
}

/// Tells whether a bus is the one that the database knows; while lines are held, that changes
/// nothing in them.
pub(super) fn knows_bus(connection: &mut PgConnection, epoch: Uuid) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Answer {
        #[diesel(sql_type = sql_types::Bool)]
        is_known: bool,
    }
    let answer: Answer =
        sql_query("SELECT EXISTS (SELECT FROM hub.bus WHERE epoch = $1) AS is_known")
            .bind::<sql_types::Uuid, _>(epoch)
            .get_result(connection)?;
    Ok(answer.is_known)
}

/// Begins a statement that moves lines, and with `gives` says who holds them, up to what more is told
/// of each.
fn moving<'l>(
    lines: impl Iterator<Item = &'l Line> + Clone,
    relayed: Marks,
    gives: bool,
) -> Statement {
    let statement = Statement::cached()
        .sql(
            "UPDATE hub.batteries b SET last_seq = p.last_seq, segment = p.segment, \
             latest_test_time = p.latest, relayed_seq = CASE \
               WHEN p.relayed > b.relayed_seq AND (SELECT epoch FROM hub.bus WHERE \"only\") = ANY(",
        )
        .array(ArrayBind::uuids([relayed.bus_epoch]))
        .sql(") THEN p.relayed ELSE b.relayed_seq END")
        .sql(if gives {
            ", holder = p.holder, holder_attempt = p.attempt, holder_offset = p.ahead"
        } else {
            ""
        })
        .sql(" FROM (SELECT unnest(")
        .array(ArrayBind::longs(lines.clone().map(|line| line.id)))
        .sql(") AS id, unnest(")
        .array(ArrayBind::longs(lines.clone().map(|line| line.last_seq)))
        .sql(") AS last_seq, unnest(")
        .array(ArrayBind::ints(lines.clone().map(|line| line.segment)))
        .sql(") AS segment, unnest(")
        .array(ArrayBind::doubles(lines.clone().map(|line| line.latest_test_time)))
        .sql(") AS latest, unnest(")
        .array(ArrayBind::longs(relayed.seqs))
        .sql(") AS relayed");
    if !gives {
        return statement;
    }
    statement
        .sql(", unnest(")
        .array(ArrayBind::uuids(lines.clone().map(|line| line.holder)))
        .sql(") AS holder, unnest(")
        .array(ArrayBind::longs(
            lines.clone().map(|line| line.holder_attempt),
        ))
        .sql(") AS attempt, unnest(")
        .array(ArrayBind::longs(lines.map(|line| line.holder_offset)))
        .sql(") AS ahead")
}

#[cfg(test)]
mod tests {
    use diesel::{Connection, connection::SimpleConnection};
    use diesel_migrations::MigrationHarness;
    use rovi_common::testing;

    use super::*;

    #[test]
    fn what_a_bus_has_is_marked_with_the_next_rows_unless_it_is_another_bus() {
        let postgres = testing::postgres();
        let mut connection = PgConnection::establish(&postgres.server.url()).unwrap();
        connection
            .run_pending_migrations(crate::prepare::MIGRATIONS)
            .unwrap();
        let (known, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let begin = format!(
            "INSERT INTO hub.bus (epoch) VALUES ('{known}'); \
             INSERT INTO hub.batteries (name) VALUES ('a'), ('b')"
        );
        connection.batch_execute(&begin).unwrap();
        let ids: Vec<i64> = ["a", "b"]
            .map(|name| find_or_add(&mut connection, name).unwrap())
            .into();
        let mut marked = |bus_epoch, seqs: &[i64]| -> Vec<i64> {
            let mut lines = lock(&mut connection, &ids).unwrap();
            for line in &mut lines {
                line.last_seq = 9;
            }
            let seqs = seqs.to_vec();
            advance(&mut connection, &lines, Marks { bus_epoch, seqs }).unwrap();
            let relayed = batteries::table.order(batteries::id);
            let relayed = relayed.select(batteries::relayed_seq);
            relayed.load(&mut connection).unwrap()
        };
        assert_eq!(marked(Some(known), &[7, 0]), [7, 0]);
        assert_eq!(marked(Some(other), &[8, 8]), [7, 0]);
        assert_eq!(marked(Some(known), &[3, 5]), [7, 5], "never backwards");
        assert_eq!(marked(None, &[]), [7, 5]);
    }
}
