//! Sessions that hold their battery's line: it moves, and what is noted of them stays behind.

use super::*;
use crate::store::sessions::SessionError;

/// What is noted of the session of battery 7, and whether that holds the line.
const NOTED: &str = "(SELECT noted_position FROM hub.sessions WHERE id = lpad('7', 32, '0')::uuid), \
                     (SELECT count(holder) FROM hub.batteries WHERE id = 7)";

/// Makes a battery's batch that of another connection: its session, attempt and position.
fn sent_by(batches: &mut [Batch], (session, attempt, position): (u128, i64, i64)) {
    let claim = &mut Arc::get_mut(&mut batches[6].uploader).unwrap().claim;
    (claim.session, claim.attempt) = (Uuid::from_u128(session), attempt);
    batches[6].position = position;
}

/// All that is known to be stored by the sessions of battery 7, and its rows.
const POSITIONS: &str = "(SELECT sum(CASE WHEN s.id = b.holder THEN b.last_seq + b.holder_offset \
                           ELSE s.noted_position END) FROM hub.sessions s \
                         JOIN hub.batteries b ON b.id = s.battery_id WHERE b.id = 7), \
                         (SELECT count(*) FROM battery.b7)";

impl Writer {
    /// Makes sessions of battery 7 that stored nothing yet.
    fn add_sessions(&mut self, sessions: std::ops::Range<u128>) {
        for session in sessions {
            let session = Uuid::from_u128(session);
            self.execute(&format!(
                "INSERT INTO hub.sessions (id, battery_id, attempt) VALUES ('{session}', 7, 1)"
            ));
        }
    }

    /// Writes one row of battery 7 in some connection's name.
    fn write_as(&mut self, session: u128, position: i64) -> Outcome {
        let mut batches = self.batches();
        sent_by(&mut batches, (session, 1, position));
        let one = batches.swap_remove(6);
        let (connection, tables) = (&mut self.connection, &mut self.tables);
        let mut outcomes = group::write(connection, tables, &[one], &self.rules, true).unwrap();
        outcomes.pop().unwrap()
    }
}

#[test]
fn whoever_opens_a_session_that_holds_a_line_hears_where_it_stands() {
    let mut writer = Writer::steady();
    let noted = writer.rows;
    assert!(writer.tries() && writer.tries());
    let behind = writer.numbers(NOTED);
    assert!(behind[0] < noted && behind[1] == 1, "{behind:?}");
    let claim = writer.open(7);
    assert_eq!((claim.attempt, claim.position), (2, writer.rows));
    assert_eq!(writer.numbers(NOTED), [writer.rows, 0]);
}

#[test]
fn rows_of_a_commit_whose_answer_was_lost_are_found_though_nothing_was_noted() {
    for is_alone in [false, true] {
        let mut writer = Writer::steady();
        let mut batches = writer.batches();
        assert!(writer.tries());
        if is_alone {
            batches = vec![batches.swap_remove(6)];
        }
        // What the writer knew goes with its connection.
        writer.tables = Tables::default();
        let (connection, tables) = (&mut writer.connection, &mut writer.tables);
        let outcomes = group::write(connection, tables, &batches, &writer.rules, true).unwrap();
        let is_before = |outcome: &Outcome| matches!(outcome, Outcome::Before(_));
        assert!(outcomes.iter().all(is_before), "{outcomes:?}");
        writer.assert_rows();
        writer.write_all();
        writer.assert_rows();
    }
}

#[test]
fn sessions_that_take_turns_at_a_battery_do_not_hold_its_line() {
    let mut writer = Writer::steady();
    let (first, second) = (7, 700);
    writer.add_sessions(700..701);
    let before = writer.rows;
    let holders = "(SELECT count(holder) FROM hub.batteries WHERE id = 7)";
    for turn in 0..5 {
        for (session, position) in [(second, turn), (first, before + turn)] {
            let outcome = writer.write_as(session, position);
            assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
        }
        if turn > 0 {
            assert_eq!(writer.numbers(holders), [0]);
        }
    }
    let positions = "(SELECT sum(noted_position) FROM hub.sessions WHERE battery_id = 7), \
                     (SELECT last_seq FROM hub.batteries WHERE id = 7)";
    assert_eq!(writer.numbers(positions), [before + 10; 2]);
}

#[test]
fn a_battery_whose_sessions_change_with_each_row_costs_its_group_nothing() {
    let mut writer = Writer::steady();
    writer.add_sessions(700..710);
    let (before, noted) = (writer.rows, writer.numbers(POSITIONS));
    assert_eq!(noted, [before, before]);
    for session in 700..710 {
        let mut batches = writer.batches();
        sent_by(&mut batches, (session, 1, 0));
        assert!(writer.tries_to_write(&batches), "session {session}");
        assert_eq!(writer.numbers(NOTED), [before, 0], "nobody's line");
    }
    assert_eq!(writer.numbers(POSITIONS), [before + 10; 2]);
}

#[test]
fn a_line_in_other_hands_is_found_and_nothing_is_written_before() {
    for change in ["holder = NULL", "holder_offset = holder_offset + 1"] {
        let mut writer = Writer::steady();
        writer.execute(&format!("UPDATE hub.batteries SET {change} WHERE id = 7"));
        assert!(!writer.tries(), "{change}");
        let rows = "(SELECT count(*) FROM battery.b1), (SELECT count(*) FROM battery.b7)";
        assert_eq!(writer.numbers(rows), [writer.rows; 2]);
    }
}

#[test]
fn sessions_that_take_turns_cost_their_battery_s_group_nothing() {
    let mut writer = Writer::steady();
    writer.add_sessions(700..701);
    let before = writer.rows;
    for turn in 0..6 {
        for (session, position) in [(700, turn), (7, before + turn)] {
            let mut batches = writer.batches();
            sent_by(&mut batches, (session, 1, position));
            assert!(writer.tries_to_write(&batches), "{session} at {position}");
        }
        assert_eq!(writer.numbers(POSITIONS), [before + 2 * (turn + 1); 2]);
    }
    let positions = "(SELECT max(noted_position) FROM hub.sessions WHERE id::text LIKE '%2bc'), \
                     (SELECT count(DISTINCT seq) FROM battery.b7)";
    let claim = writer.open(7);
    assert_eq!(claim.position, before + 6);
    assert_eq!(writer.numbers(positions), [6, before + 12]);
}

#[test]
fn whoever_connects_anew_costs_the_others_nothing_and_holds_the_line_again() {
    let mut writer = Writer::steady();
    for attempt in 2..5 {
        assert_eq!(writer.open(7).attempt, attempt);
        let before = writer.rows;
        for _ in 0..2 {
            let mut batches = writer.batches();
            sent_by(&mut batches, (7, attempt, writer.rows));
            assert!(writer.tries_to_write(&batches), "attempt {attempt}");
            assert_eq!(writer.numbers(NOTED), [before + 1, 1]);
        }
        writer.assert_rows();
    }
}

#[test]
fn a_step_that_skips_rows_does_not_move_with_the_line() {
    let mut writer = Writer::steady();
    for is_alone in [false, true] {
        let mut batches = writer.batches();
        sent_by(&mut batches, (7, 1, writer.rows + 1));
        if is_alone {
            let batches = [batches.swap_remove(6)];
            let (connection, tables) = (&mut writer.connection, &mut writer.tables);
            let outcomes = group::write(connection, tables, &batches, &writer.rules, true).unwrap();
            assert!(
                matches!(outcomes[..], [Outcome::Superseded]),
                "{outcomes:?}"
            );
        } else {
            assert!(!writer.tries_to_write(&batches));
        }
        writer.assert_rows();
    }
}

#[test]
fn a_session_that_is_being_written_for_long_is_opened_later() {
    let mut writer = Writer::steady();
    let mut other = PgConnection::establish(&writer.postgres.server.url()).unwrap();
    let lock = "BEGIN; SELECT FROM hub.batteries WHERE id = 7 FOR NO KEY UPDATE";
    other.batch_execute(lock).unwrap();
    let settings = SessionSettings::default();
    let mut open = |battery: &str, session| {
        let session = (Uuid::from_u128(session), 0);
        sessions::open(&mut writer.connection, battery, session, None, &settings)
    };
    assert!(matches!(open("b7", 7), Err(SessionError::Busy)));
    assert!(
        open("b7", 700).is_ok(),
        "a session that does not hold the line"
    );
    assert!(open("b8", 8).is_ok());
    other.batch_execute("COMMIT").unwrap();
    assert!(open("b7", 7).is_ok());
}

#[test]
fn a_line_that_is_taken_while_its_session_is_opened_is_given_back_first() {
    let mut writer = Writer::steady();
    writer.open(7);
    let given = writer.rows + 1;
    let mut other = PgConnection::establish(&writer.postgres.server.url()).unwrap();
    // A group of the older connection, which is about to commit.
    let take = format!(
        "BEGIN; UPDATE hub.batteries SET last_seq = {given}, holder_attempt = 2, \
           holder_offset = 0, holder = (SELECT id FROM hub.sessions WHERE battery_id = 7) \
         WHERE id = 7; \
         UPDATE hub.sessions SET noted_position = {given} - 1 WHERE battery_id = 7"
    );
    other.batch_execute(&take).unwrap();
    let claim = thread::scope(|scope| {
        let opening = scope.spawn(|| writer.open(7));
        until_somebody_waits(&mut other);
        other.batch_execute("COMMIT").unwrap();
        opening.join().unwrap()
    });
    assert_eq!((claim.attempt, claim.position), (4, given));
    assert_eq!(writer.numbers(NOTED), [given, 0]);
}

#[test]
fn a_session_that_holds_a_line_is_not_forgotten_and_goes_on_where_it_stands() {
    let mut writer = Writer::steady();
    writer.execute("UPDATE hub.sessions SET used = now() - interval '400 days'");
    let settings = SessionSettings::default();
    let forget = |writer: &mut Writer| {
        let blocks = sessions::blocks(&mut writer.connection).unwrap();
        sessions::forget_useless(&mut writer.connection, &(0..blocks), &settings).unwrap()
    };
    assert_eq!(forget(&mut writer), 0);
    let claim = writer.open(7);
    assert_eq!(claim.position, writer.rows);
    // Whom somebody else followed is forgotten as ever.
    writer.execute("UPDATE hub.batteries SET holder = NULL WHERE id = 8");
    assert_eq!(forget(&mut writer), 1);
}

#[test]
fn going_back_to_the_version_before_notes_where_sessions_stand() {
    let mut writer = Writer::steady();
    assert!(writer.tries());
    loop {
        let reverted = writer
            .connection
            .revert_last_migration(crate::prepare::MIGRATIONS)
            .unwrap();
        if reverted.to_string() == "20261124005000" {
            break;
        }
    }
    let positions =
        "(SELECT min(position) FROM hub.sessions), (SELECT max(position) FROM hub.sessions)";
    assert_eq!(writer.numbers(positions), [writer.rows; 2]);
}
