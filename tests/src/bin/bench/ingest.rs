//! Ingest: columnar frames beside `\copy`, and single rows from a client that never reads.

use std::time::Instant;

use anyhow::ensure;
use futures_util::{SinkExt, StreamExt};
use rovi_common::rows::Columns;
use rovicli::upload_client::{Target, UploadClient};
use system_tests::Stack;
use tokio_tungstenite::{connect_async, tungstenite::Message};
use uuid::Uuid;

use crate::{
    copy,
    rows::{batch, frames},
    summary::{Summary, median},
};

/// Uploads columnar frames and returns the seconds until the last row was durable.
pub(crate) async fn upload(
    stack: &Stack,
    battery: &str,
    frames: Vec<Columns>,
) -> anyhow::Result<f64> {
    let rows: usize = frames.iter().map(Columns::rows).sum();
    let target = Target {
        hub: stack.hub_url().parse()?,
        battery: battery.parse()?,
        session: Uuid::new_v4(),
        new_segment: true,
    };
    let begun = Instant::now();
    let mut client = UploadClient::connect(target, Box::new(|_event| {})).await?;
    for frame in frames {
        client.send(frame).await?;
    }
    let progress = client.finish().await?;
    let took = begun.elapsed().as_secs_f64();
    ensure!(
        progress.stored == rows as u64 && progress.rejected == 0,
        "{progress:?}"
    );
    Ok(took)
}

/// Measures `ingest_columnar_vs_copy`.
pub(crate) async fn columnar_beside_copy(
    stack: &Stack,
    summary: &mut Summary,
    rows: usize,
    pairs: usize,
) -> anyhow::Result<()> {
    let file = stack.folder().join("rows.copy");
    let (mut uploads, mut copies, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        let battery = format!("columnar-{pair}");
        copy::checkpoint(stack)?;
        let upload = upload(stack, &battery, frames(rows).collect()).await?;
        stack.relayed(&battery).await;
        copy::save(stack, &battery, &file)?;
        let copy = copy::load(stack, &battery, &file)?;
        uploads.push(rows as f64 / upload);
        copies.push(rows as f64 / copy);
        ratios.push(copy / upload);
    }
    let peer = format!("\\copy binary: {:.0} rows/s", median(copies));
    summary.add(
        "ingest_columnar_rows_per_s",
        median(uploads),
        "rows/s",
        &peer,
    );
    summary.add(
        "ingest_columnar_vs_copy",
        median(ratios),
        "of \\copy",
        &peer,
    );
    Ok(())
}

/// Measures `ingest_single_rows_per_s`: one row a frame, until the close is answered.
pub(crate) async fn single_rows(
    stack: &Stack,
    summary: &mut Summary,
    rows: usize,
) -> anyhow::Result<()> {
    let messages: Vec<Message> = (0..rows).map(single_row).collect::<Result<_, _>>()?;
    let url = format!(
        "{}/db/upload/singles",
        stack.hub_url().replacen("http", "ws", 1)
    );
    let begun = Instant::now();
    let (mut socket, _response) = connect_async(url).await?;
    for message in messages {
        socket.feed(message).await?;
    }
    socket.close(None).await?;
    while let Some(Ok(_ping_or_close)) = socket.next().await {}
    let took = begun.elapsed().as_secs_f64();
    let stored = stack.database().dense_rows("singles");
    ensure!(
        usize::try_from(stored)? == rows,
        "{stored} of {rows} rows are stored"
    );
    summary.add(
        "ingest_single_rows_per_s",
        rows as f64 / took,
        "rows/s",
        "the origin: 56 rows/s",
    );
    Ok(())
}

/// Encodes one row as the origin's client does: a map of names to values.
fn single_row(row: usize) -> Result<Message, rmp_serde::encode::Error> {
    let columns = batch(row, 1);
    let cells: std::collections::BTreeMap<_, _> = columns.row(0).collect();
    Ok(Message::Binary(rmp_serde::to_vec_named(&cells)?.into()))
}
