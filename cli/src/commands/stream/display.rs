//! What people see of an upload.

use std::{
    convert::Infallible,
    fmt,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use indicatif::{
    HumanCount, HumanDuration, HumanFloatCount, ProgressBar, ProgressState, ProgressStyle,
};

use crate::{
    hub::{EstimatorStatus, Hub, Parameter},
    upload_client::{Event, Progress},
};

/// How often the newest estimate is asked for.
const ESTIMATE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a line is printed where there is no terminal for a bar, in those intervals.
const LINE_EVERY: u64 = 5;
/// Refused rows that are printed; the others are counted.
const REFUSALS_SHOWN: u64 = 5;

/// A progress bar, or lines where there is no terminal.
#[derive(Debug)]
pub(super) struct Display {
    bar: ProgressBar,
    file: String,
    refused: AtomicU64,
    emptied: AtomicU64,
    estimate: Mutex<String>,
    /// Why the connection is lost, while it is.
    outage: Mutex<Option<String>>,
}

impl Display {
    pub(super) fn new(file: &Path, rows: u64) -> Self {
        let style = ProgressStyle::with_template(
            "{bar:24} {percent:>3}% {human_pos} of {human_len} rows stored  {rate} rows/s  {msg}",
        )
        .map(|style| {
            style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
                let _written = write!(out, "{:.0}", state.per_sec()).is_ok();
            })
        });
        let bar = ProgressBar::new(rows);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self {
            bar,
            file: file.display().to_string(),
            refused: AtomicU64::new(0),
            emptied: AtomicU64::new(0),
            estimate: Mutex::default(),
            outage: Mutex::default(),
        }
    }

    /// Prints a remark above the bar.
    #[expect(clippy::print_stderr, reason = "remarks are not the output")]
    pub(super) fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{}: {text}", self.file));
    }

    /// Shows the bar, from the row where the upload goes on.
    pub(super) fn begin(&self, position: u64) {
        if position > 0 {
            self.note(&format!(
                "going on at row {}; --again would send all rows once more",
                HumanCount(position)
            ));
        }
        self.bar.set_position(position);
        self.bar.reset_eta();
        self.bar.enable_steady_tick(Duration::from_millis(250));
    }

    /// Takes what the upload client tells.
    pub(super) fn event(&self, event: &Event) {
        match event {
            Event::Stored { position } => self.bar.set_position(*position),
            Event::Rejected { .. } => {
                let rest = "further refused rows are counted; `rovicli rejected` lists them all";
                self.first_few(&self.refused, event, rest);
            }
            Event::Emptied { .. } => {
                self.first_few(
                    &self.emptied,
                    event,
                    "further cells sent as null are not named",
                );
            }
            Event::Lost { reason, .. } | Event::Waiting { reason } => {
                // A hub that stays away is told once, not at every attempt.
                if locked(&self.outage).replace(reason.clone()).as_ref() != Some(reason) {
                    self.note(&event.to_string());
                }
            }
            Event::Resumed { .. } => {
                locked(&self.outage).take();
                self.note(&event.to_string());
            }
        }
    }

    /// Prints the first few events of a kind, then `rest` once.
    fn first_few(&self, seen: &AtomicU64, event: &Event, rest: &str) {
        let before = seen.fetch_add(1, Ordering::Relaxed);
        if before < REFUSALS_SHOWN {
            self.note(&event.to_string());
        } else if before == REFUSALS_SHOWN {
            self.note(rest);
        }
    }

    /// Keeps the newest estimate in sight, for ever.
    pub(super) async fn follow<T>(&self, hub: &Hub, battery: &str) -> Result<T> {
        match self.follow_forever(hub, battery).await {}
    }

    async fn follow_forever(&self, hub: &Hub, battery: &str) -> Infallible {
        for interval in 1_u64.. {
            tokio::time::sleep(ESTIMATE_INTERVAL).await;
            // A twin that is away or has no estimator is no concern of an upload.
            if let Ok(Some(estimators)) = hub.estimators(battery).await
                && let Some((_, status)) = estimators.main()
            {
                let estimate = brief(status);
                self.bar.set_message(estimate.clone());
                *locked(&self.estimate) = estimate;
            }
            if self.bar.is_hidden() && interval.is_multiple_of(LINE_EVERY) {
                self.line();
            }
        }
        std::future::pending().await
    }

    /// Prints the state of the bar as a line.
    fn line(&self) {
        let estimate = locked(&self.estimate);
        self.note(&format!(
            "{} of {} rows stored  {}",
            HumanCount(self.bar.position()),
            HumanCount(self.bar.length().unwrap_or_default()),
            estimate
        ));
    }

    /// Says that all is done.
    #[expect(clippy::print_stdout, reason = "this is the output")]
    pub(super) fn finished(&self, progress: Progress, took: Duration) {
        self.bar.finish_and_clear();
        let sent = progress.stored.saturating_sub(progress.resumed_at);
        if progress.stored == 0 {
            println!("{}: there are no rows to send", self.file);
            return;
        }
        if sent == 0 {
            println!(
                "{}: all {} rows were stored before; --again sends them once more",
                self.file,
                HumanCount(self.bar.length().unwrap_or(progress.stored))
            );
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = HumanFloatCount((sent as f64 / took.as_secs_f64().max(1e-3)).round());
        println!(
            "{}: {} rows stored in {} ({rate} rows/s){}",
            self.file,
            HumanCount(sent),
            if took.as_secs() < 10 {
                format!("{:.1} s", took.as_secs_f64())
            } else {
                HumanDuration(took).to_string()
            },
            refusals(progress.rejected)
        );
    }

    /// Says how far an upload got that was ended.
    #[expect(clippy::print_stdout, reason = "this is the output")]
    pub(super) fn interrupted(&self, how_far: &str) {
        self.bar.finish_and_clear();
        println!("{}: {how_far}", self.file);
    }
}

/// Takes a lock; a text is whole even if its writer panicked.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refusals(rejected: u64) -> String {
    match rejected {
        0 => String::new(),
        1 => "; 1 row was refused, hub.rejected_rows says why".to_owned(),
        many => format!(
            "; {} rows were refused, hub.rejected_rows says why",
            HumanCount(many)
        ),
    }
}

/// The estimate in the room of a progress bar.
fn brief(status: &EstimatorStatus) -> String {
    let shown = [Parameter::CAPACITY, Parameter::R0].map(|parameter| parameter.show(status));
    shown.into_iter().flatten().collect::<Vec<_>>().join("  ")
}
