//! `rovicli reproduce BATTERY --seq N`: computes an estimate anew from the table and compares it with
//! the one that is stored, bit by bit.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Result, anyhow, bail};
use rovi_common::{
    files::digest,
    frame::RowFrame,
    name::{BatteryName, EstimatorName},
    registration::Registration,
    rows::Columns,
};
use rovi_python::{Python, Sandbox, ScriptFile, Settings, is_script};
use twin::reproduce::{Reproduction, ScriptParts};

use crate::hub::{Hub, Lineage, StoredEstimate};

/// Arguments of `rovicli reproduce`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The battery.
    battery: BatteryName,
    /// Which of its estimators; that row's champion, if it is not given.
    #[arg(long)]
    estimator: Option<EstimatorName>,
    /// The row after which the estimate holds.
    #[arg(long, value_name = "N")]
    seq: i64,
    /// Interpreter of scripts.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Runs scripts without a sandbox.
    #[arg(long)]
    no_sandbox: bool,
}

/// Tells by the exit code whether the estimate is the same: 0, or 2 where it differs.
pub(super) async fn run(hub: &Hub, args: &Args) -> Result<ExitCode> {
    let (estimator, lineage) = hub
        .lineage(&args.battery, args.estimator.as_ref(), args.seq)
        .await?;
    let of = (&args.battery, &estimator);
    let stored = hub.estimate(of, args.seq).await?;
    let registration = hub.registration(of, lineage.revision).await?;
    if digest(registration.definition.as_bytes()) != lineage.definition {
        bail!(
            "the hub's definition of revision {} is another one",
            lineage.revision
        );
    }
    let script = script_parts(hub, args, &registration).await?;
    let place = (lineage.epoch, args.seq);
    let mut reproduction = Reproduction::new(&registration, script, place, lineage.horizon)?;
    let computed = compute(hub, args, &lineage, &mut reproduction).await?;
    let mut out = io::stdout();
    writeln!(out, "{}", of_what(&registration, args.seq, &lineage))?;
    match first_difference(&computed, &stored) {
        None => {
            writeln!(out, "equal: {} values, to the last bit", computed.width())?;
            Ok(ExitCode::SUCCESS)
        }
        Some(difference) => {
            writeln!(out, "different: {difference}")?;
            let own = env!("CARGO_PKG_VERSION");
            if lineage.code_version != own {
                let theirs = &lineage.code_version;
                writeln!(out, "it was made by version {theirs}, this is {own}")?;
            }
            Ok(ExitCode::from(2))
        }
    }
}

fn of_what(registration: &Registration, seq: i64, lineage: &Lineage) -> String {
    format!(
        "{}.{}: rows {} to {} of epoch {}, revision {}, generation {}, definition {}, version {}",
        registration.battery,
        registration.estimator,
        lineage.rows_from,
        seq,
        lineage.epoch,
        lineage.revision,
        lineage.generation,
        lineage.definition,
        lineage.code_version
    )
}

async fn script_parts(
    hub: &Hub,
    args: &Args,
    registration: &Registration,
) -> Result<Option<ScriptParts>> {
    if !is_script(&registration.definition) {
        return Ok(None);
    }
    let mut files = Vec::with_capacity(registration.files.len());
    for file in &registration.files {
        let of = (&registration.battery, &registration.estimator);
        let content = hub.registered_file(of, &file.digest).await?;
        files.push(ScriptFile {
            name: file.name.clone(),
            content: content.into(),
        });
    }
    let settings = Settings {
        interpreter: args.python.clone().into(),
        sandbox: if args.no_sandbox {
            Sandbox::Off
        } else {
            Sandbox::Required
        },
        ..Settings::default()
    };
    Ok(Some(ScriptParts {
        python: Arc::new(Python::new(settings)?),
        files,
        metadata: hub.metadata(&args.battery).await?,
    }))
}

/// Reads the rows twice: for those that came late, then for the estimate.
async fn compute(
    hub: &Hub,
    args: &Args,
    lineage: &Lineage,
    reproduction: &mut Reproduction,
) -> Result<Columns> {
    let mut from = lineage.rows_from;
    loop {
        let page = page(hub, args, lineage, from).await?;
        if reproduction.look(&page.frames) || page.is_last {
            break;
        }
        from = page.next;
    }
    from = lineage.rows_from;
    loop {
        let page = page(hub, args, lineage, from).await?;
        let taken = tokio::task::block_in_place(|| reproduction.take(&page.frames));
        match taken? {
            Some(columns) => return Ok(columns),
            None if page.is_last => {
                return Err(anyhow!("these rows give no estimate of row {}", args.seq));
            }
            None => from = page.next,
        }
    }
}

struct Page {
    frames: Vec<Arc<RowFrame>>,
    next: i64,
    is_last: bool,
}

async fn page(hub: &Hub, args: &Args, lineage: &Lineage, from: i64) -> Result<Page> {
    let (frames, first, last) = hub.rows(&args.battery, lineage.epoch, from).await?;
    // Lines of older twins may say 0.
    if first > lineage.rows_from.max(1) {
        bail!(
            "the rows {} to {} that it was made of are gone",
            lineage.rows_from,
            first - 1
        );
    }
    // A page of deleted rows alone is empty.
    let end = frames.last().map_or(from + 8191, RowFrame::last_seq);
    Ok(Page {
        frames: frames.into_iter().map(Arc::new).collect(),
        next: end + 1,
        is_last: end >= last,
    })
}

/// Names the first value that differs, with both.
fn first_difference(computed: &Columns, stored: &StoredEstimate) -> Option<String> {
    let differs = |(name, column): (&str, &rovi_common::rows::Column)| {
        let mine = column.number(0).filter(|value| !value.is_nan());
        let theirs = stored.values.get(name).copied().flatten();
        let is_same = mine.map(f64::to_bits) == theirs.map(f64::to_bits);
        (!is_same).then(|| {
            let shown = |value: Option<f64>| {
                value.map_or_else(|| "null".to_owned(), |value| format!("{value:?}"))
            };
            format!(
                "{name} is {} in the table and {} anew",
                shown(theirs),
                shown(mine)
            )
        })
    };
    computed.iter().find_map(differs)
}
