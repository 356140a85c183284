//! `datahub relay rebuild` beside a relay that runs: the stream carries the table anew.

use std::time::Duration;

use datahub::{config::Settings, relay::rebuild};

use crate::{
    relay::start,
    support::{PATIENCE, Servers},
};

fn settings(servers: &Servers) -> Settings {
    Settings {
        database_url: servers.postgres.server.url().parse().unwrap(),
        nats_url: servers.nats.server.url().parse().unwrap(),
        ..Settings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rows_go_out_anew_while_hubs_relay_new_ones() {
    let servers = Servers::start();
    servers.battery("b7");
    servers.battery("empty");
    // Older than what the stream keeps, so that no hub would send it.
    servers.store_as("b7", 3000, "now() - interval '30 days'", "'old'");
    let running = start(&servers).await;
    let young = servers.store("b7", 500);
    running.stored.send(vec![young]).await.unwrap();
    let settings = settings(&servers);
    let mut told = Vec::new();
    let rebuilding = rebuild::run(&settings, None, |line| told.push(line.to_owned()));
    let storing = async {
        for _ in 0..30 {
            let rows = servers.store("b7", 20);
            running.stored.send(vec![rows]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (rebuilt, ()) = tokio::join!(rebuilding, storing);
    rebuilt.unwrap();
    servers.stream_equals_table("b7").await;
    assert!(
        told.iter().any(|line| line.contains("1 of 1: b7")),
        "{told:?}"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rebuild_is_completed_by_hubs_and_may_be_repeated() {
    let servers = Servers::start();
    servers.battery("b7");
    let running = start(&servers).await;
    let rows = servers.store("b7", 20_000);
    running.stored.send(vec![rows]).await.unwrap();
    servers.stream_equals_table("b7").await;
    let settings = settings(&servers);
    let only = Some("b7".parse().unwrap());
    for wait in [60, 120, 240] {
        let rebuilding = rebuild::run(&settings, only.clone(), |_| ());
        let _broken_off = tokio::time::timeout(Duration::from_millis(wait), rebuilding).await;
    }
    let rebuilding = tokio::time::timeout(PATIENCE, rebuild::run(&settings, only, |_| ()));
    rebuilding.await.unwrap().unwrap();
    servers.stream_equals_table("b7").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_battery_that_is_not_there_is_named() {
    let servers = Servers::start();
    let running = start(&servers).await;
    let settings = settings(&servers);
    let none = rebuild::run(&settings, Some("none".parse().unwrap()), |_| ()).await;
    assert_eq!(none.unwrap_err().to_string(), "there is no battery `none`");
    running.stop().await;
}
