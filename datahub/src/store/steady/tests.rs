//! Groups of many batteries, straight into PostgreSQL.

mod holding;

use std::{sync::Arc, thread, time::Duration};

use diesel::{QueryableByName, RunQueryDsl, connection::SimpleConnection, sql_query, sql_types};
use diesel_migrations::MigrationHarness;
use rovi_common::testing::{self, TestPostgres};
use uuid::Uuid;

use super::*;
use crate::{
    relay::hints::Hints,
    sessions::SessionSettings,
    store::{
        group,
        neighbours::Neighbours,
        sessions::{self, Claim},
    },
    upload::Decoded,
};

const BATTERIES: i64 = 20;

/// A writer and what it knows.
struct Writer {
    postgres: TestPostgres,
    connection: PgConnection,
    tables: Tables,
    rules: Rules,
    /// Rows that each battery has.
    rows: i64,
}

impl Writer {
    /// Writes groups of all batteries until their lines are where they are expected.
    fn steady() -> Self {
        let postgres = testing::postgres();
        let mut connection = PgConnection::establish(&postgres.server.url()).unwrap();
        let prepared = connection.run_pending_migrations(crate::prepare::MIGRATIONS);
        prepared.unwrap();
        let begin = format!(
            "INSERT INTO hub.batteries (name) SELECT 'b' || n FROM generate_series(1, {BATTERIES}) n; \
             INSERT INTO hub.sessions (id, battery_id, attempt) \
             SELECT lpad(to_hex(id), 32, '0')::uuid, id, 1 FROM hub.batteries"
        );
        connection.batch_execute(&begin).unwrap();
        let rules = Rules {
            horizon_s: 3600.0,
            columns: 10,
            alone_lock_ms: 1000,
            neighbours: Neighbours::of_writers(1),
            hints: None,
        };
        let mut writer = Self {
            postgres,
            connection,
            tables: Tables::default(),
            rules,
            rows: 0,
        };
        for _ in 0..5 {
            writer.write_all();
        }
        writer
    }

    fn batches(&self) -> Vec<Batch> {
        let numbers = 1..=BATTERIES;
        numbers.map(|number| batch(number, self.rows)).collect()
    }

    /// Writes a row of each battery, as writers do.
    fn write_all(&mut self) {
        let batches = self.batches();
        let (connection, tables, rules) = (&mut self.connection, &mut self.tables, &self.rules);
        let outcomes = group::write(connection, tables, &batches, rules, true).unwrap();
        for (batch, outcome) in batches.iter().zip(outcomes) {
            match outcome {
                Outcome::Stored(_) => {}
                Outcome::Later { .. } => {
                    let alone = std::slice::from_ref(batch);
                    group::write_alone(connection, tables, alone, rules, false).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
        self.rows += 1;
    }

    /// Tries to write a row of each battery without asking; tells whether that was done.
    fn tries(&mut self) -> bool {
        let batches = self.batches();
        self.tries_to_write(&batches)
    }

    /// As [`Writer::tries`], with batches of one row of each battery.
    fn tries_to_write(&mut self, batches: &[Batch]) -> bool {
        let by_battery: ByBattery = (0..batches.len())
            .map(|place| (batches[place].battery_id(), vec![place]))
            .collect();
        let (connection, tables) = (&mut self.connection, &mut self.tables);
        let group = (batches, &by_battery);
        let outcomes = write(connection, tables, group, &self.rules).unwrap();
        let is_written = outcomes.is_some();
        for outcome in outcomes.into_iter().flatten() {
            assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
        }
        self.rows += i64::from(is_written);
        is_written
    }

    /// Opens a battery's session for a new connection.
    fn open(&mut self, number: u8) -> Claim {
        let name = format!("b{number}");
        let session = (Uuid::from_u128(number.into()), 0);
        let settings = SessionSettings::default();
        sessions::open(&mut self.connection, &name, session, None, &settings).unwrap()
    }

    fn execute(&mut self, sql: &str) {
        self.connection.batch_execute(sql).unwrap();
    }

    /// Asks for numbers.
    fn numbers(&mut self, sql: &str) -> Vec<i64> {
        let sql = format!("SELECT ARRAY[{sql}]::bigint[] AS all");
        let found: Counts = sql_query(sql).get_result(&mut self.connection).unwrap();
        found.all
    }

    /// Makes sure that every table, line and session has the rows that were written.
    fn assert_rows(&mut self) {
        for number in 1..=BATTERIES {
            let sql = format!(
                "SELECT ARRAY[(SELECT count(*) FROM battery.b{number}), \
                 (SELECT max(seq) FROM battery.b{number}), line.last_seq, \
                 CASE WHEN line.holder = session.id THEN line.last_seq + line.holder_offset \
                      ELSE session.noted_position END] AS all \
                 FROM hub.batteries line JOIN hub.sessions session ON session.battery_id = line.id \
                 WHERE line.name = 'b{number}'"
            );
            let found: Counts = sql_query(sql).get_result(&mut self.connection).unwrap();
            assert_eq!(found.all, [self.rows; 4], "b{number}");
        }
    }
}

#[derive(QueryableByName)]
struct Counts {
    #[diesel(sql_type = sql_types::Array<sql_types::BigInt>)]
    all: Vec<i64>,
}

/// Waits until somebody waits for a lock.
fn until_somebody_waits(connection: &mut PgConnection) {
    let waiting = "SELECT ARRAY[count(*)] AS all FROM pg_locks WHERE NOT granted";
    while sql_query(waiting)
        .get_result::<Counts>(connection)
        .is_ok_and(|found| found.all == [0])
    {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Makes a batch of one row of a battery.
fn batch(battery_id: i64, position: i64) -> Batch {
    let columns = serde_json::json!({"test_time": [position], "voltage": [3.7]});
    let decoded = Decoded {
        sent: 1,
        columns: serde_json::from_value(columns).unwrap(),
        ..Decoded::default()
    };
    Batch::sample(battery_id, position, decoded)
}

#[test]
fn lines_that_stand_where_they_were_left_are_moved_without_asking() {
    let mut writer = Writer::steady();
    assert!(writer.tries() && writer.tries());
    writer.assert_rows();
    // Alone, in the way of one battery, and together again.
    writer.write_all();
    assert!(writer.tries());
    writer.assert_rows();
}

#[test]
fn a_line_that_stands_elsewhere_is_found_and_nothing_is_written_before() {
    let elsewhere = [
        "latest_test_time = 1e9",
        "latest_test_time = NULL",
        "segment = 7",
        "epoch = epoch + 1",
        "form = form + 1",
        "holder_attempt = holder_attempt + 1",
    ];
    for change in elsewhere {
        let mut writer = Writer::steady();
        writer.execute(&format!(
            "UPDATE hub.batteries SET {change} WHERE name = 'b7'"
        ));
        assert!(!writer.tries(), "{change}");
        writer.assert_rows();
        for _ in 0..4 {
            writer.write_all();
        }
        assert!(writer.tries(), "{change}: expected where it is now");
        writer.assert_rows();
    }
}

#[test]
fn rows_of_another_hub_are_found_and_keep_their_places() {
    let mut writer = Writer::steady();
    let sent = writer.rows;
    writer.execute(&format!(
        "INSERT INTO battery.b7 (seq, received, segment) VALUES ({sent} + 1, now(), 1); \
         UPDATE hub.sessions SET noted_position = {sent} WHERE battery_id = 7; \
         UPDATE hub.batteries SET last_seq = last_seq + 1, holder = NULL WHERE name = 'b7'"
    ));
    assert!(!writer.tries());
    writer.write_all();
    let sql = "(SELECT count(*) FROM battery.b7), (SELECT max(seq) FROM battery.b7)";
    assert_eq!(writer.numbers(sql), [sent + 2; 2]);
}

#[test]
fn an_older_connection_of_a_session_writes_nothing_and_costs_the_others_nothing() {
    let mut writer = Writer::steady();
    let claim = writer.open(7);
    assert_eq!((claim.attempt, claim.position), (2, writer.rows));
    assert!(!writer.tries());
    writer.assert_rows();
    let batches = writer.batches();
    let (connection, tables) = (&mut writer.connection, &mut writer.tables);
    let outcomes = group::write(connection, tables, &batches, &writer.rules, true).unwrap();
    for (batch, outcome) in batches.iter().zip(outcomes) {
        let is_old = batch.battery_id() == 7;
        assert_eq!(matches!(outcome, Outcome::Superseded), is_old);
        assert_eq!(matches!(outcome, Outcome::Stored(_)), !is_old);
    }
}

#[test]
fn rows_are_not_marked_as_relayed_on_a_bus_that_was_taken_over_while_a_group_waited() {
    let mut writer = Writer::steady();
    let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
    writer.execute(&format!("INSERT INTO hub.bus (epoch) VALUES ('{old}')"));
    let hints = Hints::of_one(old, (7, 1, writer.rows));
    writer.rules.hints = Some(Arc::new(hints));
    let mut other = PgConnection::establish(&writer.postgres.server.url()).unwrap();
    let take_over = format!(
        "BEGIN; UPDATE hub.bus SET epoch = '{new}'; UPDATE hub.batteries SET relayed_seq = 0"
    );
    other.batch_execute(&take_over).unwrap();
    let is_written = thread::scope(|scope| {
        let trying = scope.spawn(|| writer.tries());
        until_somebody_waits(&mut other);
        other.batch_execute("COMMIT").unwrap();
        trying.join().unwrap()
    });
    assert!(!is_written);
    writer.assert_rows();
    writer.write_all();
    let marked = "(SELECT sum(relayed_seq) FROM hub.batteries)";
    assert_eq!(writer.numbers(marked), [0]);
}
