//! A new column for a large table under load, beside `psql`'s `ALTER TABLE`.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::SinkExt;
use rovi_common::rows::{Column, Columns};
use system_tests::Stack;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::{
    ingest, peer,
    rows::{batch, frames},
    socket::{self, Socket},
    summary::{Summary, median},
};

const BATTERY: &str = "large";
/// Rows of one upload that fills the table.
const PART: usize = 1_000_000;
/// Changes of each kind; the median of their stalls counts.
const CHANGES: usize = 7;
/// Rows of one frame of the load.
const FRAME_ROWS: usize = 10;
/// Frames from one change to the next; the change falls in the middle.
const FRAMES: usize = 300;

/// Measures `alter_stall_vs_psql`.
pub(crate) async fn stall(
    stack: &mut Stack,
    summary: &mut Summary,
    rows: usize,
) -> anyhow::Result<()> {
    ensure!(
        rows.is_multiple_of(PART),
        "the table is filled in steps of {PART} rows"
    );
    stack.start_hub_without_bus().await;
    for _ in 0..rows / PART {
        ingest::upload(stack, BATTERY, frames(PART).collect()).await?;
    }
    peer::checkpoint(stack)?;
    let socket = socket::connect(stack, BATTERY, Uuid::new_v4()).await?;
    let mut load = Load {
        socket,
        position: 0,
        columns: 0,
        psql: None,
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for change in 0..CHANGES {
        ours.push(load.stall(stack, Change::Ours).await?);
        theirs.push(load.stall(stack, Change::Psql(change)).await?);
    }
    let sent = rows + usize::try_from(load.position)?;
    drop(load);
    stack.stop_hub();
    let stored = usize::try_from(stack.database().dense_rows(BATTERY))?;
    ensure!(stored == sent, "{stored} of {sent} rows are stored");
    let (ours, theirs) = (median(ours), median(theirs));
    let peer = format!("stalls {ours:.1} ms; with ALTER TABLE by psql: {theirs:.1} ms");
    summary.add(
        "alter_stall_vs_psql",
        ours / theirs,
        "of psql's stall",
        &peer,
    );
    Ok(())
}

enum Change {
    /// The rows have a column more.
    Ours,
    /// `psql` adds a column that the rows do not have.
    Psql(usize),
}

/// A client that waits for each frame's acknowledgement before the next.
struct Load {
    socket: Socket,
    position: i64,
    columns: usize,
    psql: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

impl Load {
    /// Returns the longest time, in ms, in which no row became durable around a change.
    async fn stall(&mut self, stack: &Stack, change: Change) -> anyhow::Result<f64> {
        let mut longest = Duration::ZERO;
        for frame in 0..FRAMES {
            if frame == FRAMES / 2 {
                match change {
                    Change::Ours => self.columns += 1,
                    Change::Psql(number) => self.begin_psql(stack, number)?,
                }
            }
            let begun = Instant::now();
            self.socket.send(self.frame()?).await?;
            self.position += i64::try_from(FRAME_ROWS)?;
            socket::until_stored(&mut self.socket, self.position).await?;
            longest = longest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if let Some(psql) = self.psql.take() {
            psql.join()
                .map_err(|_panic| anyhow::anyhow!("psql's thread panicked"))??;
        }
        Ok(longest.as_secs_f64() * 1000.0)
    }

    fn begin_psql(&mut self, stack: &Stack, number: usize) -> anyhow::Result<()> {
        let server = &stack.postgres.server;
        let mut psql = std::process::Command::new(server.programs().join("psql"));
        let sql = format!("ALTER TABLE battery.\"{BATTERY}\" ADD COLUMN theirs{number} float8");
        psql.args(["--no-psqlrc", "--quiet", "--command", &sql])
            .arg(server.url());
        self.psql = Some(std::thread::Builder::new().spawn(move || {
            let status = psql.status()?;
            ensure!(status.success(), "psql: {status}");
            Ok(())
        })?);
        Ok(())
    }

    fn frame(&self) -> anyhow::Result<Message> {
        let mut columns = batch(usize::try_from(self.position)?, FRAME_ROWS).into_vec();
        for number in 0..self.columns {
            let cells = vec![Some(0.5); FRAME_ROWS];
            columns.push((format!("ours{number}"), Column::Float(cells)));
        }
        Ok(Message::Binary(
            rmp_serde::to_vec(&Columns::new(columns)?)?.into(),
        ))
    }
}
