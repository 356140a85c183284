//! A certificate that is renewed while connections are open.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::tls::TlsInfo;
use rovi_common::{
    rows::{Column, Columns},
    testing::eventually,
};
use rovicli::upload_client::{Event, Target, UploadClient};
use system_tests::Stack;

use super::{hub, secured};

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR_S: i64 = 3600;

/// Makes a connection of its own; returns the certificate that it is shown, and for how long it counts
/// by the hub's metrics.
async fn shown(stack: &Stack) -> (Vec<u8>, i64) {
    let client = secured(stack)
        .trust()
        .http()
        .tls_info(true)
        .build()
        .unwrap();
    let metrics = client
        .get(format!("{}/metrics", stack.hub_url()))
        .send()
        .await
        .unwrap();
    let tls: &TlsInfo = metrics.extensions().get().unwrap();
    let certificate = tls.peer_certificate().unwrap().to_vec();
    let metrics = metrics.text().await.unwrap();
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix("rovi_tls_certificate_expires_seconds "));
    (certificate, value.unwrap().parse().unwrap())
}

fn row(test_time: f64) -> Columns {
    Columns::new(vec![(
        "test_time".to_owned(),
        Column::Float(vec![Some(test_time)]),
    )])
    .unwrap()
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_who_comes_and_who_is_there_stays() {
    let stack = hub().await;
    let target = Target {
        hub: stack.hub_url().parse().unwrap(),
        battery: "b7".parse().unwrap(),
        session: uuid::Uuid::new_v4(),
        new_segment: true,
        token: None,
        trust: stack.trust(),
    };
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lost);
    let hear = move |event| {
        let is_lost = matches!(event, Event::Lost { .. });
        counted.fetch_add(usize::from(is_lost), Ordering::Relaxed);
    };
    let mut upload = UploadClient::connect(target, Box::new(hear)).await.unwrap();
    upload.send(row(1.0)).await.unwrap();
    upload.flush().await.unwrap();
    let (first, left) = shown(&stack).await;
    assert!(left <= HOUR_S, "{left} s");

    let files = secured(&stack).certify(-1, 5);
    // A connection made just before the change is shown the old one and may hear of the new one.
    let renewed = eventually(PATIENCE, || async {
        let (certificate, left) = shown(&stack).await;
        (certificate != first && left > 4 * HOUR_S)
            .then_some(certificate)
            .ok_or(format!("{left} s"))
    })
    .await;

    // A broken one changes nothing, and is told.
    std::fs::write(&files.cert, "-----BEGIN CERTIFICATE-----").unwrap();
    eventually(PATIENCE, || async {
        let log = stack.logs();
        log.contains("the new certificate is not used")
            .then_some(())
            .ok_or(log)
    })
    .await;
    assert_eq!(shown(&stack).await.0, renewed);

    upload.send(row(2.0)).await.unwrap();
    assert_eq!(upload.finish().await.unwrap().stored, 2);
    assert_eq!(lost.load(Ordering::Relaxed), 0);
}
