//! `rovicli export BATTERY --out FILE`: writes history into a file.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use reqwest::Response;
use rovi_common::{
    lifecycle::Lifecycle,
    name::{BatteryName, EstimatorName},
};
use tokio::time::timeout;

use crate::hub::Hub;

/// Endings of files and the hub's names of the forms.
const FORMS: [(&str, &str); 6] = [
    ("h5", "h5"),
    ("hdf5", "h5"),
    ("csv", "csv"),
    ("parquet", "parquet"),
    ("ndjson", "ndjson"),
    ("json", "json"),
];
/// Silence after which a hub is given up. A battdat file is sent only when it is complete.
const SILENCE: Duration = Duration::from_mins(30);

/// Arguments of `rovicli export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The battery.
    battery: BatteryName,
    /// The file; its ending tells the form: .h5 (battdat), .csv, .parquet, .ndjson or .json.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Rows by number, `a..b`, inclusive; either side may be missing.
    #[arg(long, value_name = "A..B")]
    seq: Option<String>,
    /// Rows by `test_time`, in s.
    #[arg(long, value_name = "A..B", allow_hyphen_values = true)]
    test_time: Option<String>,
    /// Rows by the battery's column `time`: s since 1970, RFC 3339, or from now as -5h..-1h.
    #[arg(long, value_name = "A..B", allow_hyphen_values = true)]
    time: Option<String>,
    /// Rows by when the hub took them, as --time.
    #[arg(long, value_name = "A..B", allow_hyphen_values = true)]
    received: Option<String>,
    /// Columns and signals, separated by commas; all columns if not given.
    #[arg(long, value_name = "A,B")]
    columns: Option<String>,
    /// One column whose name may have commas; may be given many times.
    #[arg(long, value_name = "NAME")]
    column: Vec<String>,
    /// Exports what this estimator said instead of rows.
    #[arg(long, value_name = "NAME")]
    estimator: Option<EstimatorName>,
    /// Replaces the file if there is one.
    #[arg(long)]
    force: bool,
}

#[expect(clippy::print_stderr, reason = "the file is the output")]
pub(super) async fn run(hub: &Hub, args: &Args) -> Result<()> {
    let out = &args.out;
    let form = form(out)?;
    if out.exists() && !args.force {
        bail!("{} exists already; --force replaces it", out.display());
    }
    let of = if args.estimator.is_some() {
        "estimates"
    } else {
        "rows"
    };
    let mut part = Part::create(out)?;
    let bar = ProgressBar::new_spinner();
    bar.set_message("waiting for the hub");
    bar.enable_steady_tick(Duration::from_millis(250));
    let lifecycle = Lifecycle::new();
    let received = tokio::select! {
        received = receive(hub, (args, of, form), &mut part, &bar) => received?,
        () = lifecycle.stop_requested() => bail!("stopped; {} was not written", out.display()),
    };
    part.finish(out)?;
    bar.finish_and_clear();
    eprintln!(
        "{}: {} of {}",
        out.display(),
        DecimalBytes(received),
        args.battery
    );
    Ok(())
}

/// Asks for the file and writes it as it comes; returns its bytes.
async fn receive(
    hub: &Hub,
    (args, of, form): (&Args, &'static str, &'static str),
    part: &mut Part,
    bar: &ProgressBar,
) -> Result<u64> {
    let query = query(args, form);
    let answer = timeout(SILENCE, hub.export(&args.battery, of, &query));
    let mut answer = answer.await.map_err(|_elapsed| silent())??;
    show(bar, &answer);
    let mut received = 0;
    loop {
        let chunk = timeout(SILENCE, answer.chunk())
            .await
            .map_err(|_elapsed| silent())?;
        let Some(chunk) = chunk.map_err(|error| broken_off(&args.out, received, &error))? else {
            return Ok(received);
        };
        received += chunk.len() as u64;
        part.write(&chunk)?;
        bar.set_position(received);
    }
}

fn query(args: &Args, form: &'static str) -> Vec<(&'static str, String)> {
    let mut query = vec![("format", form.to_owned())];
    let given = [
        ("seq", &args.seq),
        ("test_time", &args.test_time),
        ("time", &args.time),
        ("received", &args.received),
        ("columns", &args.columns),
    ];
    for (field, value) in given {
        query.extend(value.clone().map(|value| (field, value)));
    }
    query.extend(args.column.iter().map(|name| ("column", name.clone())));
    query.extend(
        args.estimator
            .iter()
            .map(|name| ("estimator", name.to_string())),
    );
    query
}

/// Tells the form by the ending of the file's name.
fn form(out: &Path) -> Result<&'static str> {
    let ending = out
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    let found = FORMS
        .iter()
        .find(|(known, _)| *known == ending.to_lowercase());
    let (_, form) = found.with_context(|| {
        format!(
            "{}: the ending tells no form; there are .h5, .csv, .parquet, .ndjson and .json",
            out.display()
        )
    })?;
    Ok(form)
}

fn show(bar: &ProgressBar, answer: &Response) {
    let template = match answer.content_length() {
        Some(length) => {
            bar.set_length(length);
            "{bar:24} {percent:>3}% {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}"
        }
        None => "{spinner} {decimal_bytes}  {decimal_bytes_per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

fn silent() -> anyhow::Error {
    anyhow!(
        "the hub has said nothing for {} minutes; see its log",
        SILENCE.as_secs() / 60
    )
}

fn broken_off(out: &Path, received: u64, error: &reqwest::Error) -> anyhow::Error {
    anyhow!(
        "the hub broke off after {}, and {} was not written: {error}. The hub's log tells why; the \
         same command begins anew, and --seq takes a part at a time",
        DecimalBytes(received),
        out.display()
    )
}

/// A file under a temporary name beside its place; gone unless it is finished.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: BufWriter<File>,
    is_finished: bool,
}

impl Part {
    fn create(out: &Path) -> Result<Self> {
        ensure!(!out.is_dir(), "{} is a folder", out.display());
        let path = out.with_added_extension("part");
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path,
            file: BufWriter::new(file),
            is_finished: false,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes);
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Puts the file in its place once all of it is on the disk.
    fn finish(&mut self, out: &Path) -> Result<()> {
        let wrong = || format!("cannot write {}", out.display());
        self.file.flush().with_context(wrong)?;
        self.file.get_ref().sync_all().with_context(wrong)?;
        std::fs::rename(&self.path, out).with_context(wrong)?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_finished {
            // What is left behind is overwritten by the next try.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_tells_the_form() {
        assert_eq!(form(Path::new("a/b.H5")).unwrap(), "h5");
        assert_eq!(form(Path::new("b7.parquet")).unwrap(), "parquet");
        for unknown in ["b7", "b7.xls"] {
            let error = form(Path::new(unknown)).unwrap_err().to_string();
            assert!(error.contains(".h5, .csv, .parquet"), "{error}");
        }
    }

    #[test]
    fn an_unfinished_file_leaves_nothing_and_a_finished_one_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("b7.csv");
        std::fs::write(&out, "old").unwrap();
        let mut part = Part::create(&out).unwrap();
        part.write(b"new").unwrap();
        drop(part);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "old");
        let mut part = Part::create(&out).unwrap();
        part.write(b"new").unwrap();
        part.finish(&out).unwrap();
        drop(part);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
