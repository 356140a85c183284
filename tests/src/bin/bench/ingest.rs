//! Ingest: columnar frames beside `\copy`, alone and with relay and a reader; rows sent again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures_util::StreamExt;
use rovi_common::{frame::parse_seq_header, rows::Columns, testing::eventually};
use rovicli::upload_client::{Target, UploadClient};
use system_tests::Stack;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::{
    peer,
    rows::frames,
    socket,
    summary::{Summary, median},
};

/// Rows of each upload.
const ROWS: usize = 1_000_000;
/// Alternating pairs of upload and peer; the median counts.
const PAIRS: usize = 5;
const PATIENCE: Duration = Duration::from_mins(1);

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
        token: stack.token(),
        trust: stack.trust(),
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

/// Measures `ingest_columnar_vs_copy`: nothing runs but client, hub and PostgreSQL.
pub(crate) async fn columnar(stack: &mut Stack, summary: &mut Summary) -> anyhow::Result<()> {
    stack.start_hub_without_bus().await;
    let pairs = beside_copy(stack, "columnar", None).await?;
    stack.stop_hub();
    pairs.add(summary, "ingest_columnar");
    Ok(())
}

/// Measures `ingest_relay_vs_copy`: the relay sends every row, and a reader of the stream takes it.
pub(crate) async fn relayed(stack: &mut Stack, summary: &mut Summary) -> anyhow::Result<()> {
    stack.start_hub();
    stack.hub_ready().await;
    let mut reader = Reader::start(stack).await?;
    let pairs = beside_copy(stack, "relayed", Some(&mut reader)).await?;
    stack.stop_hub();
    pairs.add(summary, "ingest_relay");
    Ok(())
}

/// Speeds of uploads and of `\copy`.
#[derive(Default)]
struct Pairs {
    uploads: Vec<f64>,
    copies: Vec<f64>,
    ratios: Vec<f64>,
}

impl Pairs {
    fn add(self, summary: &mut Summary, name: &str) {
        let peer = format!("\\copy binary: {:.0} rows/s", median(self.copies));
        let speed = median(self.uploads);
        summary.add(&format!("{name}_rows_per_s"), speed, "rows/s", &peer);
        summary.add(
            &format!("{name}_vs_copy"),
            median(self.ratios),
            "of \\copy",
            &peer,
        );
    }
}

async fn beside_copy(
    stack: &Stack,
    name: &str,
    mut reader: Option<&mut Reader>,
) -> anyhow::Result<Pairs> {
    let file = stack.folder().join("rows.copy");
    let mut pairs = Pairs::default();
    for pair in 0..PAIRS {
        let battery = format!("{name}-{pair}");
        peer::checkpoint(stack)?;
        let upload = upload(stack, &battery, frames(ROWS).collect()).await?;
        if let Some(reader) = &mut reader {
            reader.has_read(ROWS * (pair + 1)).await;
        }
        peer::save(stack, &battery, &file)?;
        let copy = peer::load(stack, &battery, &file)?;
        pairs.uploads.push(ROWS as f64 / upload);
        pairs.copies.push(ROWS as f64 / copy);
        pairs.ratios.push(copy / upload);
    }
    Ok(pairs)
}

/// Takes every frame of the stream of stored rows and counts the rows.
struct Reader {
    rows: Arc<AtomicUsize>,
    _task: JoinSet<anyhow::Result<()>>,
}

impl Reader {
    async fn start(stack: &Stack) -> anyhow::Result<Self> {
        let client = async_nats::connect(stack.nats.server.url()).await?;
        let stream = jetstream::new(client).get_stream("ROVI_ROWS").await?;
        let consumer = stream.create_consumer(OrderedConfig::default()).await?;
        let mut messages = consumer.messages().await?;
        let rows = Arc::new(AtomicUsize::new(0));
        let read = Arc::clone(&rows);
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Some(message) = messages.next().await {
                let message = message?;
                let seqs = message
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get("Rovi-Seq"));
                let seqs = seqs.and_then(|seqs| parse_seq_header(seqs.as_str()));
                if let Some((_epoch, first, last)) = seqs {
                    read.fetch_add(usize::try_from(last - first + 1)?, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        Ok(Self { rows, _task: task })
    }

    /// Waits until so many rows were read.
    async fn has_read(&mut self, rows: usize) {
        eventually(PATIENCE, || {
            let read = self.rows.load(Ordering::Relaxed);
            async move {
                if read >= rows {
                    Ok(())
                } else {
                    Err(format!("{read} of {rows} rows read"))
                }
            }
        })
        .await;
    }
}

/// Measures `resend_vs_new`: a session's rows sent once more from position 0.
pub(crate) async fn resend(stack: &mut Stack, summary: &mut Summary) -> anyhow::Result<()> {
    stack.start_hub_without_bus().await;
    let encode = |columns: Columns| Ok(Message::Binary(rmp_serde::to_vec(&columns)?.into()));
    let messages: Vec<Message> = frames(ROWS).map(encode).collect::<anyhow::Result<_>>()?;
    let (mut new, mut ratios) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let battery = format!("resend-{pair}");
        let session = Uuid::new_v4();
        peer::checkpoint(stack)?;
        let mut seconds = [0.0; 2];
        for seconds in &mut seconds {
            let begun = Instant::now();
            let socket = socket::connect(stack, &battery, session).await?;
            socket::send_all(socket, messages.clone(), ROWS).await?;
            *seconds = begun.elapsed().as_secs_f64();
        }
        let stored = stack.database().dense_rows(&battery);
        ensure!(usize::try_from(stored)? == ROWS, "{stored} rows are stored");
        let [first, again] = seconds;
        new.push(ROWS as f64 / first);
        ratios.push(first / again);
    }
    stack.stop_hub();
    let peer = format!("new rows: {:.0} rows/s", median(new));
    summary.add("resend_vs_new", median(ratios), "of new rows", &peer);
    Ok(())
}
