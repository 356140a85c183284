//! `rovicli stream FILE`: sends the rows of a battdat file at the pace they were measured.

mod display;
mod feed;
mod source;
mod tables;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use indicatif::HumanCount;
use rovi_common::{lifecycle::Lifecycle, name::BatteryName};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

pub(super) use self::source::choose_battery;
use self::{display::Display, feed::feed, source::Source};
use super::BatteryFile;
use crate::{
    hub::Hub,
    naming::{self, Named},
    pace::Speedup,
    upload_client::{Progress, Target, UploadClient},
};

/// How long rows on their way may take after Ctrl-C.
const LAST_ROWS_WITHIN: Duration = Duration::from_secs(10);
/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Arguments of `rovicli stream`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    from: BatteryFile,
    /// How many times as fast as they were measured rows leave; `max`: as fast as they are stored.
    #[arg(
        long,
        value_name = "X|max",
        default_value = "1",
        allow_negative_numbers = true
    )]
    speedup: Speedup,
    /// Sends the first N rows of the file only.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_rows: Option<usize>,
    /// Sends rows once more that were sent before, instead of resuming; each such run begins anew.
    #[arg(long)]
    again: bool,
    /// Stores the file's other tables, such as `cycle_stats`, beside the rows, each as a whole.
    #[arg(long)]
    all_tables: bool,
}

pub(super) async fn run(hub: &Hub, args: Args) -> Result<ExitCode> {
    let source = open(&args).await?;
    let named = naming::choose(
        args.from.name.as_deref(),
        source.prefix.as_deref(),
        source.metadata.as_deref(),
        &args.from.file,
    );
    let battery = name_at_hub(hub, &named, source.metadata.as_deref()).await?;
    let display = Arc::new(Display::new(&args.from.file, source.rows as u64));
    display.note(&format!("battery `{battery}` ({})", named.told(&battery)));
    source.notes.iter().for_each(|note| display.note(note));
    let session = if args.again {
        Uuid::now_v7()
    } else {
        naming::session(&battery, source.prefix.as_deref(), &source.fingerprint)
    };
    let target = Target {
        hub: hub.url().clone(),
        battery: battery.clone(),
        session,
        new_segment: true,
        token: hub.token().cloned(),
        trust: hub.trust().clone(),
    };
    let events = Arc::clone(&display);
    let client = UploadClient::connect(target, Box::new(move |event| events.event(&event))).await?;
    for (name, rows) in &source.others {
        if args.all_tables {
            tables::store(
                hub,
                &battery,
                &args.from.file,
                (source.prefix.as_deref(), name),
            )
            .await?;
            display.note(&format!(
                "table {name} ({rows} rows) is stored beside the rows"
            ));
        } else {
            display.note(&format!(
                "not sent: table {name} ({rows} rows); see --all-tables"
            ));
        }
    }
    if let Err(error) = hub.offer_meanings(&battery, &source.meanings).await {
        display.note(&format!("units and descriptions are not sent: {error:#}"));
    }
    display.begin(client.position());
    tokio::select! {
        ended = upload(client, source, &display, &args) => ended,
        never = display.follow(hub, battery.as_str()) => never,
    }
}

/// Finds the battery's name. Where the texts of two batteries come to the same characters, the hub
/// keeps them apart, and gives a name to a text that has none.
async fn name_at_hub(hub: &Hub, named: &Named, metadata: Option<&str>) -> Result<BatteryName> {
    let slug = named.slug();
    let is_name = slug.as_str() == named.text;
    // Who gives a name with --name means the battery of that name.
    if is_name && named.origin == naming::BY_FLAG {
        return Ok(slug);
    }
    match hub.title(&slug).await? {
        Some(title) if title == named.text => Ok(slug),
        None if is_name => Ok(slug),
        _ => {
            let metadata = super::metadata::with_name(metadata, &named.text)?;
            hub.register_metadata(metadata).await
        }
    }
}

/// Reads the whole file once, for its fingerprint, on a thread that may block.
async fn open(args: &Args) -> Result<Source> {
    let (file, prefix, max_rows) = (
        args.from.file.clone(),
        args.from.prefix.clone(),
        args.max_rows,
    );
    let paced = args.speedup != Speedup::Max;
    tokio::task::spawn_blocking(move || Source::open(&file, prefix.as_deref(), max_rows, paced))
        .await
        .context("reading the file was broken off")?
}

/// Sends rows until the end or Ctrl-C, and says how far that got.
async fn upload(
    mut client: UploadClient,
    source: Source,
    display: &Display,
    args: &Args,
) -> Result<ExitCode> {
    let (rows, began) = (source.rows as u64, Instant::now());
    let fed = tokio::select! {
        fed = async {
            feed(&mut client, source, args.speedup).await?;
            client.flush().await?;
            anyhow::Ok(())
        } => Some(fed),
        () = stop_requested() => None,
    };
    match fed {
        Some(Ok(())) => {
            let progress = client.close().await;
            display.finished(progress, began.elapsed());
            Ok(ExitCode::SUCCESS)
        }
        Some(Err(error)) => {
            let progress = client.progress();
            Err(error.context(how_far(progress, rows, args.again)))
        }
        None => {
            display.note("ending; rows on their way are waited for, Ctrl-C again ends at once");
            tokio::select! {
                _in_time = timeout(LAST_ROWS_WITHIN, client.flush()) => {}
                () = stop_requested() => {}
            }
            let progress = client.close().await;
            display.interrupted(&how_far(progress, rows, args.again));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

async fn stop_requested() {
    Lifecycle::new().stop_requested().await;
}

fn how_far(progress: Progress, rows: u64, again: bool) -> String {
    let next = if again {
        "the same command would send all rows once more"
    } else {
        "the same command goes on from there"
    };
    format!(
        "{} of {} rows are stored; {next}",
        HumanCount(progress.stored),
        HumanCount(rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_upload_tells_what_the_same_command_would_do() {
        let progress = Progress {
            stored: 1234,
            ..Progress::default()
        };
        assert_eq!(
            how_far(progress, 5000, false),
            "1,234 of 5,000 rows are stored; the same command goes on from there"
        );
        assert!(how_far(progress, 5000, true).ends_with("would send all rows once more"));
    }
}
