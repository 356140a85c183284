//! `rovicli fake`: streams a fleet that does not exist.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{HumanCount, ProgressBar};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use rovi_battdat::BattdatFile;
use rovi_common::{lifecycle::Lifecycle, name::BatteryName};
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

use crate::{
    fake::{Beat, Fault, FaultPlan, Recording, Source, Tally, Trouble, send},
    hub::{Hub, NewEstimator},
    open_files,
    simulation::{self, Plan, Profile, Simulation},
    upload_client::Target,
};

/// Batteries that are announced to the hub at a time.
const AT_A_TIME: usize = 32;
/// Over this time a simulated cell ages by what its plan says, s.
const AGES_WITHIN_S: f64 = 90.0 * 86_400.0;
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// Files that a program holds besides its sockets.
const OTHER_FILES: u64 = 64;

/// Arguments of `rovicli fake`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many batteries.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    batteries: u32,
    /// Rows a second of each battery.
    #[arg(
        long,
        value_name = "HZ",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    rate: f64,
    /// Seconds of a simulated cell's own time from row to row [default: as they pass here].
    #[arg(long, value_name = "SECONDS", conflicts_with = "file")]
    interval: Option<f64>,
    /// Seed of the cells, their load and noise: the same seed sends the same rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the cells are used for.
    #[arg(long, value_enum, default_value_t = Profile::Drive, conflicts_with = "file")]
    profile: Profile,
    /// Plays this battdat file again and again, in time that goes on rising, instead of simulating.
    #[arg(long, value_name = "FILE.h5")]
    file: Option<PathBuf>,
    /// Which battery of a file that holds several.
    #[arg(long, requires = "file")]
    prefix: Option<String>,
    /// What is wrong with the first batteries.
    #[arg(long, value_enum)]
    fault: Option<Fault>,
    /// How many batteries it is wrong with.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "fault")]
    faulty: u32,
    /// The row from which on it is wrong.
    #[arg(long, value_name = "ROW", default_value_t = 120, requires = "fault")]
    fault_from: u64,
    /// How many rows a gap leaves out.
    #[arg(long, value_name = "ROWS", default_value_t = 60, requires = "fault")]
    fault_rows: u64,
    /// Registers an estimator for each simulated cell, with wrong first guesses.
    #[arg(long, conflicts_with = "file")]
    register: bool,
    /// Batteries are called this and a number.
    #[arg(long, default_value = "fake")]
    name: String,
    /// Ends after so many seconds instead of at Ctrl-C.
    #[arg(long = "for", value_name = "SECONDS")]
    duration: Option<f64>,
}

impl Args {
    fn check(&self) -> Result<()> {
        let above_0 = |flag, value: f64| {
            ensure!(
                value > 0.0 && value.is_finite(),
                "{flag} is {value}, it must be above 0"
            );
            Ok(())
        };
        above_0("--rate", self.rate)?;
        above_0("--interval", self.interval())?;
        above_0("--for", self.duration.unwrap_or(1.0))?;
        let impossible = [Fault::CapacityLoss, Fault::ResistanceJump];
        ensure!(
            self.file.is_none() || !self.fault.is_some_and(|fault| impossible.contains(&fault)),
            "a cell in a file cannot be damaged; --fault can be stuck-sensor, gap or late with --file"
        );
        Ok(())
    }

    fn interval(&self) -> f64 {
        self.interval.unwrap_or(1.0 / self.rate)
    }

    fn battery(&self, number: u32) -> Result<BatteryName> {
        let digits = self.batteries.to_string().len().max(2);
        let name = format!("{}-{number:0digits$}", self.name);
        name.parse()
            .with_context(|| format!("--name makes `{name}`"))
    }

    /// Describes the cell of a number: no two of a fleet are alike.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an interval above 0 makes a number of rows"
    )]
    fn plan(&self, number: u32, name: &BatteryName) -> Plan {
        let mut random = ChaCha12Rng::seed_from_u64(self.seed);
        random.set_stream(u64::from(number));
        Plan {
            name: name.to_string(),
            rows: (AGES_WITHIN_S / self.interval()).ceil() as usize,
            interval_s: self.interval(),
            seed: random.random(),
            profile: self.profile,
            initial_soc: random.random_range(0.3..0.9),
            initial_capacity: random.random_range(0.75..1.0),
            ..Plan::default()
        }
    }

    fn trouble(&self, number: u32, source: Source) -> Trouble {
        let fault = self.fault.filter(|_| number <= self.faulty);
        let plan = fault.map(|fault| FaultPlan {
            fault,
            from: self.fault_from,
            rows: self.fault_rows,
        });
        Trouble::new(source, plan)
    }
}

/// A battery that is about to send.
struct Ready {
    name: BatteryName,
    rows: Trouble,
}

pub(super) async fn run(hub: &Hub, args: Args) -> Result<()> {
    args.check()?;
    open_files::allow(u64::from(args.batteries) + OTHER_FILES)?;
    let recording = match &args.file {
        Some(path) => Some(read(path.clone(), args.prefix.clone()).await?),
        None => None,
    };
    let lifecycle = Lifecycle::new();
    let stop = lifecycle.stop_token();
    let announced = stream::iter(1..=args.batteries)
        .map(|number| announce(hub, &args, number, recording.clone()))
        .buffered(AT_A_TIME)
        .try_collect::<Vec<_>>();
    let fleet = tokio::select! {
        fleet = announced => fleet?,
        () = lifecycle.stop_requested() => return Ok(()),
    };
    let tally = Arc::new(Tally::default());
    let period = Duration::try_from_secs_f64(1.0 / args.rate).context("--rate is too small")?;
    let began = Instant::now();
    let mut senders = JoinSet::new();
    for (number, battery) in (0..).zip(fleet) {
        // Not all at the same moment: the second's rows are spread over the second.
        let phase = period.mul_f64(f64::from(number) / f64::from(args.batteries));
        let target = Target {
            hub: hub.url().clone(),
            battery: battery.name.clone(),
            session: Uuid::now_v7(),
            new_segment: true,
            token: hub.token().cloned(),
            trust: hub.trust().clone(),
        };
        let beat = Beat::new(began + phase, period);
        let (tally, stop) = (Arc::clone(&tally), stop.clone());
        senders.spawn(async move {
            let sent = send(target, battery.rows, beat, tally, stop).await;
            sent.with_context(|| format!("battery {}", battery.name))
        });
    }
    let ended = tokio::select! {
        ended = all(&mut senders) => ended,
        never = show(&args, began, &tally) => never,
        () = lifecycle.stop_requested() => Ok(()),
        () = after(args.duration) => Ok(()),
    };
    lifecycle.stop();
    let ended = ended.and(all(&mut senders).await);
    summarise(&args, began, &tally);
    ended
}

/// Reads the file that is played, on a thread that may block.
async fn read(path: PathBuf, prefix: Option<String>) -> Result<Arc<Recording>> {
    let read = move || {
        let file = BattdatFile::open(&path)?;
        let battery = super::stream::choose_battery(&file, prefix.as_deref())?;
        let table = file.table(battery.prefix.as_deref(), "raw_data")?;
        let recording = Recording::read(&table);
        recording
            .map(Arc::new)
            .with_context(|| format!("{} cannot be played", path.display()))
    };
    tokio::task::spawn_blocking(read)
        .await
        .context("reading the file was broken off")?
}

/// Tells the hub of a battery, and registers its estimator where that is asked for.
async fn announce(
    hub: &Hub,
    args: &Args,
    number: u32,
    recording: Option<Arc<Recording>>,
) -> Result<Ready> {
    let name = args.battery(number)?;
    if let Some(recording) = recording {
        let rows = args.trouble(number, Source::Played { recording, next: 0 });
        return Ok(Ready { name, rows });
    }
    let plan = args.plan(number, &name);
    let name = hub
        .register_metadata(simulation::metadata(&plan).to_string())
        .await?;
    if args.register {
        let new = NewEstimator {
            battery: name.clone(),
            estimator: "default".parse().context("this is a name")?,
            valid_from: 0.0,
            required_time: 0.0,
            definition: simulation::estimator_document(&plan).to_string(),
            files: Vec::new(),
        };
        hub.register_estimator(new).await?;
    }
    let source = Source::Simulated(Box::new(Simulation::new(plan)));
    let rows = args.trouble(number, source);
    Ok(Ready { name, rows })
}

/// Waits for every battery; the first that fails ends the wait.
async fn all(senders: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = senders.join_next().await {
        ended.context("a battery was broken off")??;
    }
    Ok(())
}

async fn after(seconds: Option<f64>) {
    match seconds.map(Duration::try_from_secs_f64) {
        Some(Ok(duration)) => tokio::time::sleep(duration).await,
        _ => std::future::pending().await,
    }
}

/// Shows once a second how far the fleet is, where somebody looks.
async fn show(args: &Args, began: Instant, tally: &Tally) -> Result<()> {
    let line = ProgressBar::new_spinner();
    let mut ticks = tokio::time::interval(SHOW_EVERY);
    let mut before = 0;
    loop {
        ticks.tick().await;
        let stored = tally.stored.load(Ordering::Relaxed);
        let behind = due(args, began).saturating_sub(stored);
        line.set_message(format!(
            "{} batteries, {} rows/s, {} stored, {} behind",
            HumanCount(args.batteries.into()),
            HumanCount(stored - before),
            HumanCount(stored),
            HumanCount(behind),
        ));
        line.tick();
        before = stored;
    }
}

/// Returns how many rows the whole fleet should have sent by now.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of rows for people"
)]
fn due(args: &Args, began: Instant) -> u64 {
    (began.elapsed().as_secs_f64() * args.rate * f64::from(args.batteries)) as u64
}

#[expect(clippy::print_stdout, reason = "this is the output")]
fn summarise(args: &Args, began: Instant, tally: &Tally) {
    let load = |counter: &std::sync::atomic::AtomicU64| HumanCount(counter.load(Ordering::Relaxed));
    println!(
        "{} batteries, seed {}: {} rows stored in {:.1} s; {} rejected; {} connections broke",
        args.batteries,
        args.seed,
        load(&tally.stored),
        began.elapsed().as_secs_f64(),
        load(&tally.rejected),
        load(&tally.broken),
    );
}
