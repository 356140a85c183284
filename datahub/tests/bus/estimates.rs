//! Hop 7's table over real servers: frames in any order, any number of times.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use datahub::estimates::EstimateWriter;
use diesel::{Connection, PgConnection, connection::SimpleConnection};
use rovi_common::{
    frame::{EstimateFrame, FRAME_VERSION, Lineage},
    rows::{Column, Columns},
    streams::BusSettings,
    subjects,
    testing::eventually,
};

use crate::support::{PATIENCE, Parts, Servers};

async fn start(servers: &Servers) -> (Parts, jetstream::Context) {
    let parts = servers.parts(BusSettings::default()).await;
    let writer = EstimateWriter::new(Arc::clone(&parts.bus), servers.pool.clone(), &parts.metrics);
    writer.start(&parts.lifecycle);
    let jetstream = jetstream::new(
        async_nats::connect(servers.nats.server.url())
            .await
            .unwrap(),
    );
    eventually(PATIENCE, || async {
        match jetstream.get_stream(subjects::ESTIMATES_STREAM).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    (parts, jetstream)
}

/// A frame of `rows` estimates from `first` on, all with the same value in each column.
fn frame(battery: &str, first: i64, rows: usize, revision: i64, value: f64) -> EstimateFrame {
    let columns = ["soc", "soc__std", "q_t__base_values"];
    let cells = || Column::Float(vec![Some(value); rows]);
    EstimateFrame {
        v: FRAME_VERSION,
        battery: battery.parse().unwrap(),
        estimator: "default".parse().unwrap(),
        revision,
        generation: 0,
        epoch: 1,
        seq: (first..).take(rows).collect(),
        test_time: vec![1.0; rows],
        columns: Columns::new(columns.map(|name| (name.to_owned(), cells())).to_vec()).unwrap(),
        replaces: None,
        lineage: None,
    }
}

async fn publish(jetstream: &jetstream::Context, frame: &EstimateFrame) {
    let subject = subjects::estimates_of(&frame.battery, &frame.estimator);
    let sent = jetstream.publish(subject, frame.encode()).await.unwrap();
    sent.await.unwrap();
}

/// Waits until a query gives this number.
async fn number_is(servers: &Servers, query: &str, expected: i64) {
    eventually(PATIENCE, || async {
        match servers.try_number(query) {
            Ok(value) if value == expected => Ok(()),
            other => Err(format!("{query}: {other:?}")),
        }
    })
    .await;
}

/// Waits until so many lines were counted as made or replaced, which comes after their commit.
async fn counted(parts: &Parts, expected: i64) {
    eventually(PATIENCE, || async {
        match parts.metric("datahub_estimates_stored_total") {
            lines if lines == expected => Ok(()),
            lines => Err(format!("{lines} lines counted")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn estimates_come_into_a_documented_table_that_grows() {
    let servers = Servers::start();
    servers.battery("b7");
    let (parts, jetstream) = start(&servers).await;
    publish(&jetstream, &frame("b7", 1, 10, 1, 0.5)).await;
    number_is(&servers, "SELECT count(*) AS value FROM estimates.b7", 10).await;
    let mut wider = frame("b7", 11, 5, 1, 0.5);
    let mut columns = wider.columns.into_vec();
    columns.push(("r0__base_values".to_owned(), Column::Null(5)));
    wider.columns = Columns::new(columns).unwrap();
    publish(&jetstream, &wider).await;
    number_is(&servers, "SELECT count(*) AS value FROM estimates.b7", 15).await;
    let documented = "SELECT count(*) AS value FROM pg_description \
         WHERE objoid = 'estimates.b7'::regclass AND description ~ 'A·h|ohm|without unit'";
    assert_eq!(servers.number(documented), 4);
    counted(&parts, 15).await;
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_come_again_or_are_older_change_nothing() {
    let servers = Servers::start();
    servers.battery("b7");
    let (parts, jetstream) = start(&servers).await;
    let milli = "SELECT sum(soc * 1000)::bigint AS value FROM estimates.b7";
    publish(&jetstream, &frame("b7", 1, 4, 2, 0.2)).await;
    number_is(&servers, milli, 800).await;
    // Again, older, equal with another content, and last one newer that shows they were seen.
    publish(&jetstream, &frame("b7", 1, 4, 2, 0.2)).await;
    publish(&jetstream, &frame("b7", 1, 4, 1, 0.9)).await;
    publish(&jetstream, &frame("b7", 2, 2, 2, 0.7)).await;
    publish(&jetstream, &frame("b7", 4, 3, 3, 0.1)).await;
    number_is(&servers, milli, 900).await;
    counted(&parts, 7).await;
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_frame_costs_only_itself() {
    let servers = Servers::start();
    servers.battery("b7");
    let (parts, jetstream) = start(&servers).await;
    let subject = "rovi.estimates.b7.default";
    for junk in ["junk".into(), frame("b8", 1, 1, 1, 0.5).encode()] {
        jetstream
            .publish(subject, junk)
            .await
            .unwrap()
            .await
            .unwrap();
    }
    publish(&jetstream, &frame("unknown", 1, 1, 1, 0.5)).await;
    publish(&jetstream, &frame("b7", 1, 3, 1, 0.5)).await;
    number_is(&servers, "SELECT count(*) AS value FROM estimates.b7", 3).await;
    let refused = |reason: &str| {
        parts.metric(&format!(
            "datahub_estimate_frames_refused_total{{reason=\"{reason}\"}}"
        ))
    };
    assert_eq!((refused("malformed"), refused("no_battery")), (2, 1));
    let made = "SELECT count(*) AS value FROM pg_tables WHERE schemaname = 'estimates'";
    assert_eq!(servers.number(made), 1);
    // None of them comes again.
    eventually(PATIENCE, || async {
        let consumer: jetstream::consumer::PullConsumer = jetstream
            .get_consumer_from_stream("hub", subjects::ESTIMATES_STREAM)
            .await
            .unwrap();
        match consumer.get_info().await.unwrap().num_ack_pending {
            0 => Ok(()),
            pending => Err(format!("{pending} unacknowledged")),
        }
    })
    .await;
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_holds_up_no_other() {
    let servers = Servers::start();
    for name in ["locked", "free"] {
        servers.battery(name);
    }
    let (parts, jetstream) = start(&servers).await;
    for name in ["locked", "free"] {
        publish(&jetstream, &frame(name, 1, 1, 1, 0.5)).await;
        number_is(
            &servers,
            &format!("SELECT count(*) AS value FROM estimates.{name}"),
            1,
        )
        .await;
    }
    let mut holder = PgConnection::establish(&servers.postgres.server.url()).unwrap();
    holder
        .batch_execute("BEGIN; LOCK TABLE estimates.locked IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let began = Instant::now();
    for round in 1..20 {
        publish(&jetstream, &frame("locked", 1 + round, 1, 1, 0.5)).await;
        publish(&jetstream, &frame("free", 1 + round, 1, 1, 0.5)).await;
    }
    number_is(&servers, "SELECT count(*) AS value FROM estimates.free", 20).await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    holder.batch_execute("COMMIT").unwrap();
    number_is(
        &servers,
        "SELECT count(*) AS value FROM estimates.locked",
        20,
    )
    .await;
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn estimates_wait_for_a_database_that_is_away_and_for_a_bus_that_was_wiped() {
    let mut servers = Servers::start();
    servers.battery("b7");
    let (parts, jetstream) = start(&servers).await;
    publish(&jetstream, &frame("b7", 1, 1, 1, 0.5)).await;
    number_is(&servers, "SELECT count(*) AS value FROM estimates.b7", 1).await;
    servers.postgres.server.kill();
    publish(&jetstream, &frame("b7", 2, 1, 1, 0.5)).await;
    // The helpers of the killed server may hold its memory for a moment.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = servers.postgres.server.start_again() {
        assert!(Instant::now() < deadline, "{error}");
    }
    number_is(&servers, "SELECT count(*) AS value FROM estimates.b7", 2).await;

    servers.nats.server.wipe().unwrap();
    servers.nats.server.start_again().unwrap();
    eventually(PATIENCE, || async {
        let stream = jetstream.get_stream(subjects::ESTIMATES_STREAM).await;
        stream.map(drop).map_err(|error| error.to_string())
    })
    .await;
    publish(&jetstream, &frame("b7", 3, 1, 1, 0.5)).await;
    number_is(&servers, "SELECT count(*) AS value FROM estimates.b7", 3).await;
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_generation_or_revision_never_wins_and_an_equal_one_changes_nothing() {
    let servers = Servers::start();
    servers.battery("b7");
    let (parts, jetstream) = start(&servers).await;
    let milli = "SELECT sum(soc * 1000)::bigint AS value FROM estimates.b7 WHERE seq = 1";
    // Each is told by its value; revision and generation say which one stays.
    let of = |revision, generation, value| EstimateFrame {
        generation,
        ..frame("b7", 1, 1, revision, value)
    };
    for (revision, generation, value, stays) in [
        (2, 1, 0.1, 100),
        (2, 0, 0.2, 100),
        (2, 1, 0.3, 100),
        (2, 2, 0.4, 400),
        (1, 9, 0.5, 400),
        (3, 0, 0.6, 600),
    ] {
        publish(&jetstream, &of(revision, generation, value)).await;
        // A later row shows that the frame before it was dealt with.
        let marker = 100 * revision + generation;
        publish(&jetstream, &frame("b7", marker, 1, 9, 0.0)).await;
        let seen = format!("SELECT count(*) AS value FROM estimates.b7 WHERE seq = {marker}");
        number_is(&servers, &seen, 1).await;
        assert_eq!(servers.number(milli), stays, "{revision}.{generation}");
    }
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hubs_store_each_estimate_once_and_one_that_stops_hands_over_at_once() {
    let servers = Servers::start();
    let names = ["b1", "b2", "b3"];
    for name in names {
        servers.battery(name);
    }
    let (first, jetstream) = start(&servers).await;
    let (second, _) = start(&servers).await;
    for round in 0..40 {
        for name in names {
            publish(&jetstream, &frame(name, 1 + 5 * round, 5, 1, 0.5)).await;
        }
    }
    let begun = Instant::now();
    first.lifecycle.stop();
    for round in 40..80 {
        for name in names {
            publish(&jetstream, &frame(name, 1 + 5 * round, 5, 1, 0.5)).await;
        }
    }
    for name in names {
        let rows = format!("SELECT count(*) AS value FROM estimates.{name}");
        number_is(&servers, &rows, 400).await;
    }
    let pending = || async {
        let consumer: jetstream::consumer::PullConsumer = jetstream
            .get_consumer_from_stream("hub", subjects::ESTIMATES_STREAM)
            .await
            .unwrap();
        match consumer.get_info().await.unwrap() {
            info if info.num_ack_pending == 0 && info.num_pending == 0 => Ok(()),
            info => Err(format!("{info:?}")),
        }
    };
    eventually(PATIENCE, pending).await;
    let lines = |parts: &Parts| parts.metric("datahub_estimates_stored_total");
    assert!(
        lines(&first) + lines(&second) <= 1200,
        "a line was made or replaced twice after {:?}",
        begun.elapsed()
    );
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn estimates_in_hand_of_a_hub_that_died_come_to_another_one() {
    let servers = Servers::start();
    servers.battery("b7");
    let (dead, jetstream) = start(&servers).await;
    publish(&jetstream, &frame("b7", 1, 1, 1, 0.5)).await;
    number_is(&servers, "SELECT count(*) AS value FROM estimates.b7", 1).await;
    let consumer: jetstream::consumer::PullConsumer = jetstream
        .get_consumer_from_stream("hub", subjects::ESTIMATES_STREAM)
        .await
        .unwrap();
    dead.stop().await;
    publish(&jetstream, &frame("b7", 2, 3, 1, 0.5)).await;
    // What a dead hub took and never answers.
    let taken = consumer.fetch().max_messages(1).messages().await.unwrap();
    let _in_hand: Vec<_> = futures_util::StreamExt::collect(taken).await;
    let (alive, _) = start(&servers).await;
    number_is(&servers, "SELECT count(*) AS value FROM estimates.b7", 4).await;
    alive.stop().await;
}

/// A frame of many estimates that tells what made them: such are copied where they are new.
fn told(first: i64, rows: usize, generation: i64, value: f64) -> EstimateFrame {
    EstimateFrame {
        generation,
        lineage: Some(Lineage {
            code_version: "1".to_owned(),
            definition: "d".to_owned(),
            horizon: 0.0,
            rows_from: 1,
        }),
        ..frame("b7", first, rows, 1, value)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_estimates_are_stored_once_in_whatever_order_and_however_often_they_come() {
    let servers = Servers::start();
    servers.battery("b7");
    let (parts, jetstream) = start(&servers).await;
    let rows = "SELECT count(*) AS value FROM estimates.b7";
    let milli = "SELECT sum(soc * 1000)::bigint AS value FROM estimates.b7";
    for (first, count, generation, stored) in [
        (1, 200, 1, 200),
        (1, 200, 1, 200),
        // In part known, with a hole before it, and what fills the hole.
        (101, 200, 1, 300),
        (501, 200, 1, 500),
        (301, 200, 1, 700),
        (701, 200, 1, 900),
    ] {
        publish(&jetstream, &told(first, count, generation, 0.1)).await;
        number_is(&servers, rows, stored).await;
        assert_eq!(servers.number(milli), stored * 100);
    }
    // A newer generation replaces them, and an older one that is late brings nothing back.
    let anew = EstimateFrame {
        replaces: Some((1, 900)),
        ..told(1, 100, 2, 0.5)
    };
    publish(&jetstream, &anew).await;
    number_is(&servers, rows, 100).await;
    publish(&jetstream, &told(1, 200, 1, 0.1)).await;
    publish(&jetstream, &told(901, 100, 2, 0.5)).await;
    number_is(&servers, rows, 200).await;
    assert_eq!(servers.number(milli), 200 * 500);
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_estimates_keep_their_values_in_a_column_of_another_type() {
    let servers = Servers::start();
    servers.battery("b7");
    let (parts, jetstream) = start(&servers).await;
    publish(&jetstream, &told(1, 100, 1, 3.0)).await;
    let rows = "SELECT count(*) AS value FROM estimates.b7";
    number_is(&servers, rows, 100).await;
    let mut owner = PgConnection::establish(&servers.postgres.server.url()).unwrap();
    owner
        .batch_execute("ALTER TABLE estimates.b7 ALTER COLUMN soc TYPE bigint")
        .unwrap();
    publish(&jetstream, &told(101, 100, 1, 3.0)).await;
    number_is(&servers, rows, 200).await;
    let sum = "SELECT sum(soc)::bigint AS value FROM estimates.b7";
    assert_eq!(servers.number(sum), 600);
    parts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_estimates_of_many_batteries_make_all_their_tables() {
    let servers = Servers::start();
    let names: Vec<String> = (0..120).map(|number| format!("b{number}")).collect();
    for name in &names {
        servers.battery(name);
    }
    let (parts, jetstream) = start(&servers).await;
    for name in &names {
        publish(&jetstream, &frame(name, 1, 1, 1, 0.5)).await;
    }
    counted(&parts, 120).await;
    let documented = "SELECT count(*) AS value FROM pg_description d \
         JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'estimates' AND d.description ~ 'A·h|without unit'";
    assert_eq!(servers.number(documented), 3 * 120);
    parts.stop().await;
}
