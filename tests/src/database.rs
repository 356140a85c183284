//! Looking into the tables as an analyst would.

use diesel::{
    Connection, PgConnection, RunQueryDsl,
    deserialize::QueryableByName,
    sql_query,
    sql_types::{BigInt, Double, Text},
};

/// A connection of the test's own.
#[expect(missing_debug_implementations, reason = "diesel's connection has none")]
pub struct Database(PgConnection);

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    value: String,
}

/// One row or estimate: its `seq` and one value of it.
#[derive(Debug, Clone, Copy, PartialEq, QueryableByName)]
pub struct Sample {
    /// Place in the battery's epoch.
    #[diesel(sql_type = BigInt)]
    pub seq: i64,
    /// The value asked for.
    #[diesel(sql_type = Double)]
    pub value: f64,
}

impl Database {
    /// Opens a connection.
    pub fn open(url: &str) -> Self {
        Self(PgConnection::establish(url).expect("PostgreSQL answers"))
    }

    /// Returns the number that `sql` selects as `value`.
    pub fn number(&mut self, sql: &str) -> i64 {
        let numbers: Vec<Number> = sql_query(sql).load(&mut self.0).expect(sql);
        numbers.first().expect(sql).value
    }

    /// Returns the texts that `sql` selects as `value`.
    pub fn texts(&mut self, sql: &str) -> Vec<String> {
        let lines: Vec<Line> = sql_query(sql).load(&mut self.0).expect(sql);
        lines.into_iter().map(|line| line.value).collect()
    }

    /// Returns what `sql` selects as `seq` and `value`.
    pub fn samples(&mut self, sql: &str) -> Vec<Sample> {
        sql_query(sql).load(&mut self.0).expect(sql)
    }

    /// Tries statements; what PostgreSQL says where it refuses them.
    pub fn refusal(&mut self, sql: &str) -> Option<String> {
        use diesel::connection::SimpleConnection;
        let tried = self.0.batch_execute(sql);
        tried.err().map(|error| error.to_string())
    }

    /// Runs statements.
    pub fn run(&mut self, sql: &str) {
        use diesel::connection::SimpleConnection;
        self.0.batch_execute(sql).expect(sql);
    }

    /// Tells how many rows a battery has, if they are 1, 2, 3 … without gaps.
    ///
    /// # Panics
    /// A `seq` is missing or too high.
    pub fn dense_rows(&mut self, battery: &str) -> i64 {
        let rows = self.number(&format!(
            r#"SELECT count(*) AS value FROM battery."{battery}""#
        ));
        let last = self.number(&format!(
            r#"SELECT coalesce(max(seq), 0) AS value FROM battery."{battery}""#
        ));
        assert_eq!(rows, last, "rows and newest seq of {battery} differ");
        rows
    }
}
