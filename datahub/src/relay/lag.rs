//! How old the rows are that the bus lacks.
//!
//! The age of a battery's oldest missing row takes a look into its table. So it is looked up for
//! the few batteries that are furthest behind, never for all: metrics stay few and sweeps quick.

use diesel::{
    OptionalExtension, PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    sql_types::Timestamptz,
};
use rovi_common::clock::now_us;

use super::table::Behind;
use crate::store::statement::Statement;

/// Batteries whose oldest missing row is looked up.
pub(crate) const LOOKED_AT: i64 = 20;

/// The batteries furthest behind of all that were noted.
#[derive(Debug, Default)]
pub(super) struct Furthest(Vec<Behind>);

impl Furthest {
    /// Notes a battery, forgetting the one that is least behind where there are enough.
    pub(super) fn note(&mut self, battery: &Behind) {
        let behind = |battery: &Behind| battery.last_seq - battery.relayed_seq;
        let place = self
            .0
            .partition_point(|known| behind(known) >= behind(battery));
        self.0.insert(place, battery.clone());
        self.0
            .truncate(usize::try_from(LOOKED_AT).unwrap_or_default());
    }

    pub(super) fn into_vec(self) -> Vec<Behind> {
        self.0
    }
}

/// Returns when the oldest row was received that the bus lacks of these batteries, in
/// microseconds since 1970.
pub(super) fn oldest_received(conn: &mut PgConnection, behind: &[Behind]) -> Option<i64> {
    let of = |battery: &Behind| received_after(conn, &battery.name, battery.relayed_seq);
    // A table that cannot be read is told elsewhere.
    behind.iter().map(of).filter_map(Result::ok).flatten().min()
}

/// Returns when a battery's first row after `seq` was received, in microseconds since 1970.
pub(crate) fn received_after(
    conn: &mut PgConnection,
    battery: &str,
    seq: i64,
) -> QueryResult<Option<i64>> {
    #[derive(QueryableByName)]
    struct Received {
        #[diesel(sql_type = Timestamptz)]
        received: diesel::pg::data_types::PgTimestamp,
    }
    let found: Option<Received> = Statement::once()
        .sql("SELECT received FROM ")
        .battery(battery)
        .sql(" WHERE seq > ")
        .long(seq)
        .sql(" ORDER BY seq LIMIT 1")
        .get_result(conn)
        .optional()?;
    Ok(found.map(|found| found.received.0 + crate::store::statement::US_1970_TO_2000))
}

/// Returns how long ago a time was, in whole seconds.
pub(crate) fn age_s(received: i64) -> i64 {
    (now_us().saturating_sub(received) / 1_000_000).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_furthest_behind_are_kept_in_order() {
        let mut furthest = Furthest::default();
        for rows in (1..=30).chain([100, 5]) {
            furthest.note(&Behind {
                id: rows,
                name: "b7".to_owned(),
                epoch: 1,
                last_seq: rows,
                relayed_seq: 0,
            });
        }
        let rows: Vec<i64> = furthest.into_vec().iter().map(|one| one.id).collect();
        let expected: Vec<i64> = [100].into_iter().chain((12..=30).rev()).collect();
        assert_eq!(rows, expected);
    }
}
