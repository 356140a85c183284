//! A database and a bus of one test, with batteries written by SQL.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream;
use datahub::{
    bus::Bus,
    store::{Pool, keep_openssl},
    stored::StoredRows,
};
use diesel::{Connection, PgConnection, RunQueryDsl, connection::SimpleConnection, sql_query};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use rovi_common::{
    frame::RowFrame,
    http::Readiness,
    lifecycle::Lifecycle,
    rows::{Columns, Value},
    streams::{self, BusSettings},
    subjects,
    telemetry::Metrics,
    testing::{self, TestNats, TestPostgres},
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations");
/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Servers of one test.
pub(crate) struct Servers {
    pub(crate) postgres: TestPostgres,
    pub(crate) nats: TestNats,
    pub(crate) pool: Pool,
}

/// What a hub is made of, without its uploads.
pub(crate) struct Parts {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) bus: Arc<Bus>,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Metrics,
}

impl Servers {
    pub(crate) fn start() -> Self {
        keep_openssl();
        let (postgres, nats) = (testing::postgres(), testing::nats());
        let mut conn = PgConnection::establish(&postgres.server.url()).unwrap();
        conn.run_pending_migrations(MIGRATIONS).unwrap();
        let pool = Pool::new(&postgres.server.url().parse().unwrap(), 8);
        pool.set_prepared();
        Self {
            postgres,
            nats,
            pool,
        }
    }

    pub(crate) fn conn(&self) -> PgConnection {
        PgConnection::establish(&self.postgres.server.url()).unwrap()
    }

    pub(crate) fn sql(&self, statements: &str) {
        self.conn().batch_execute(statements).unwrap();
    }

    /// Runs a query that gives one number called `value`.
    pub(crate) fn number(&self, query: &str) -> i64 {
        self.try_number(query).unwrap()
    }

    pub(crate) fn try_number(&self, query: &str) -> Result<i64, String> {
        #[derive(diesel::QueryableByName)]
        struct Number {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            value: i64,
        }
        let conn = PgConnection::establish(&self.postgres.server.url());
        let mut conn = conn.map_err(|error| error.to_string())?;
        let found: Result<Number, _> = sql_query(query).get_result(&mut conn);
        found
            .map(|found| found.value)
            .map_err(|error| error.to_string())
    }

    /// Makes a battery with an empty table; returns its id.
    pub(crate) fn battery(&self, name: &str) -> i64 {
        self.sql(&format!(
            "INSERT INTO hub.batteries (name) VALUES ('{name}'); \
             CREATE TABLE battery.\"{name}\" (seq bigint PRIMARY KEY, \
               received timestamptz NOT NULL, segment integer NOT NULL, \
               test_time double precision, voltage double precision, note text)"
        ));
        self.number(&format!(
            "SELECT id AS value FROM hub.batteries WHERE name = '{name}'"
        ))
    }

    /// Stores rows as a writer would, in one transaction, and returns them.
    pub(crate) fn store(&self, name: &str, rows: i64) -> StoredRows {
        self.store_as(name, rows, "now()", "'x'")
    }

    /// Stores rows with these expressions for `received` and `note`.
    pub(crate) fn store_as(&self, name: &str, rows: i64, received: &str, note: &str) -> StoredRows {
        let mut conn = self.conn();
        conn.batch_execute(&format!(
            "BEGIN; \
             UPDATE hub.batteries SET last_seq = last_seq + {rows}, form = 1 WHERE name = '{name}'; \
             INSERT INTO battery.\"{name}\" \
               SELECT last_seq - {rows} + n, {received}, segment, last_seq - {rows} + n, \
                 3.5 + random(), {note} \
               FROM hub.batteries, generate_series(1, {rows}) n WHERE name = '{name}' ORDER BY n; \
             COMMIT"
        ))
        .unwrap();
        let value = |column: &str| {
            let of = format!("SELECT {column} AS value FROM hub.batteries WHERE name = '{name}'");
            self.number(&of)
        };
        let (id, epoch, last) = (value("id"), value("epoch"), value("last_seq"));
        let battery = name.parse().unwrap();
        let range = last - rows + 1..=last;
        let stored = datahub::store::rows::read(&mut conn, &battery, range, rows).unwrap();
        StoredRows {
            battery_id: id,
            epoch,
            ..stored.into_iter().next().unwrap()
        }
    }

    /// Reads the whole table as (seq, received, segment, voltage bits).
    pub(crate) fn table(&self, name: &str) -> Vec<Row> {
        let name = name.parse().unwrap();
        let stored =
            datahub::store::rows::read(&mut self.conn(), &name, 1..=i64::MAX, 1_000_000).unwrap();
        let rows = stored
            .iter()
            .flat_map(|rows| rows_of(rows.first_seq, &rows.received, rows.segment, &rows.columns));
        rows.collect()
    }

    /// Connects a hub's parts to both servers and waits until the bus is ready.
    pub(crate) async fn parts(&self, settings: BusSettings) -> Parts {
        let url = self.nats.server.url().parse().unwrap();
        let client = streams::connect(&url, "datahub").await.unwrap();
        let parts = Parts {
            lifecycle: Lifecycle::new(),
            bus: Arc::new(Bus::new(client, settings)),
            readiness: Readiness::new(&["nats", "relay"]),
            metrics: Metrics::new(),
        };
        let check = Arc::clone(&parts.bus).keep_checking(
            self.pool.clone(),
            parts.readiness.clone(),
            parts.lifecycle.stop_token(),
        );
        parts.lifecycle.supervise("bus", check);
        parts.bus.ready().await;
        parts
    }

    /// Reads every frame of a battery on the stream, in the order of the stream.
    pub(crate) async fn frames(&self, name: &str) -> Vec<RowFrame> {
        let client = async_nats::connect(self.nats.server.url()).await.unwrap();
        let jetstream = jetstream::new(client);
        let Ok(stream) = jetstream.get_stream(subjects::ROWS_STREAM).await else {
            return Vec::new();
        };
        let state = &stream.cached_info().state;
        let mut frames = Vec::new();
        for place in state.first_sequence..=state.last_sequence {
            let Ok(message) = stream.direct_get(place).await else {
                continue;
            };
            if !message.subject.ends_with(&format!(".{name}")) {
                continue;
            }
            if let Ok(frame) = RowFrame::decode(&message.payload) {
                let header = message.headers.get("Rovi-Seq").unwrap();
                assert_eq!(header.as_str(), frame.seq_header());
                frames.push(frame);
            }
        }
        frames
    }

    /// Waits until the stream has exactly the rows of the table, each once, in order.
    pub(crate) async fn stream_equals_table(&self, name: &str) -> Vec<RowFrame> {
        testing::eventually(PATIENCE, || async {
            let frames = self.frames(name).await;
            let (sent, stored) = (rows_in(&frames), self.table(name));
            if sent == stored {
                return Ok(frames);
            }
            Err(format!(
                "{} rows of {name} on the stream {:?}, {} in the table",
                sent.len(),
                frames.iter().map(RowFrame::seq_header).collect::<Vec<_>>(),
                stored.len()
            ))
        })
        .await
    }
}

impl Parts {
    /// Stops everything and waits for it.
    pub(crate) async fn stop(self) {
        self.lifecycle.stop();
        assert!(self.lifecycle.drained(Duration::from_secs(15)).await);
    }

    /// Returns a metric's value.
    pub(crate) fn metric(&self, name: &str) -> i64 {
        let text = self.metrics.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .parse()
            .unwrap()
    }
}

/// One row as compared: seq, received, segment, bits of voltage, note.
pub(crate) type Row = (i64, i64, i32, Option<u64>, Value);

pub(crate) fn rows_in(frames: &[RowFrame]) -> Vec<Row> {
    let rows = frames.iter().flat_map(|frame| {
        rows_of(
            frame.first_seq,
            &frame.received,
            frame.segment,
            &frame.columns,
        )
    });
    rows.collect()
}

fn rows_of(first_seq: i64, received: &[i64], segment: i32, columns: &Columns) -> Vec<Row> {
    let cell = |name: &str, row| {
        columns
            .get(name)
            .map_or(Value::Null, |column| column.get(row))
    };
    let row = |(place, received): (usize, &i64)| {
        let seq = first_seq + i64::try_from(place).unwrap();
        let voltage = columns
            .get("voltage")
            .and_then(|column| column.number(place));
        (
            seq,
            *received,
            segment,
            voltage.map(f64::to_bits),
            cell("note", place),
        )
    };
    received.iter().enumerate().map(row).collect()
}
