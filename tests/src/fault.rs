//! The faults that a trial can meet.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rovi_common::local::Signal;

use crate::{
    abuse,
    proxy::Proxy,
    trial::{Load, Seen, Trial},
    twin_trial,
};

/// Points of the hub at which it is killed, and up to which passing.
const KILL_POINTS: [(&str, u64); 9] = [
    ("hub.before_write", 20),
    ("hub.in_write", 10),
    ("hub.before_commit", 20),
    ("hub.after_commit", 20),
    ("hub.before_acknowledgement", 60),
    ("hub.after_acknowledgement", 60),
    ("hub.before_publish", 20),
    ("hub.after_publish", 20),
    ("hub.schema_change", 4),
];
/// Memory of a hub that refused a frame of 64 MB, in KiB: about half of it without the frame.
const MOST_KIB_BESIDE_A_HUGE_FRAME: i64 = 160 << 10;
/// How long something stands still.
const PAUSE: Duration = Duration::from_secs(1);

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// The hub dies at a fault point, drawn with its passing.
    HubKilled,
    /// The hub dies while it marks rows as relayed.
    HubKilledMarking,
    /// The hub is killed from outside, three times.
    HubKilledAnytime,
    /// Commits succeed and their answers are lost.
    CommitAnswerLost,
    /// Frames reach the stream and their acknowledgements are lost.
    PublishAnswerLost,
    /// PostgreSQL is killed and started again.
    PostgresKilled,
    /// NATS is killed and started again.
    NatsKilled,
    /// NATS loses everything it had.
    NatsWiped,
    /// NATS has no room for its streams.
    NatsFull,
    /// NATS is away while all rows come.
    NatsAway,
    /// The hub stands still.
    HubFrozen,
    /// PostgreSQL stands still.
    PostgresFrozen,
    /// NATS stands still.
    NatsFrozen,
    /// Connections are cut in the middle of a frame, and the hub hears the rest late.
    ConnectionCut,
    /// Two hubs take rows of the same batteries and one is killed.
    TwoHubs,
    /// Three hubs take rows of the same batteries and one after the other is killed.
    ThreeHubs,
    /// `datahub relay rebuild` runs beside two hubs, is killed, and runs again.
    Rebuild,
    /// PostgreSQL says that its disk is full (by a trigger that raises 53100).
    DiskFull,
    /// PostgreSQL breaks off statements that take too long.
    StatementTimeout,
    /// Far more rows at once than can be stored.
    Overload,
    /// A twin dies at a fault point, drawn with its passing, and starts again.
    TwinKilled,
    /// One of two twins does, and the other takes over.
    TwinTakenOver,
    /// One of two twins stands still until the other has its batteries, and goes on.
    TwinFrozen,
    /// Two twins are stopped and started in turn.
    TwinsRolling,
    /// NATS loses everything while two twins estimate.
    TwinsNatsWiped,
    /// The hub is away while a twin is killed and starts again.
    TwinsHubAway,
    /// Checkpoints are written and their acknowledgements are lost.
    CheckpointAnswerLost,
    /// The hub dies while it corrects or deletes rows that two twins have estimated.
    HubKilledCorrecting,
    /// One of two twins dies as it goes back before corrected and deleted rows.
    TwinKilledGoingBack,
    /// A client sends rows and never reads.
    DeafClient,
    /// A client sends one byte at a time.
    SlowClient,
    /// A frame of 64 MB.
    HugeFrame,
    /// A small body that unpacks to 256 MB.
    CompressedBomb,
}

impl Fault {
    /// Runs a trial with this fault and judges it.
    ///
    /// # Errors
    /// What did not hold.
    pub async fn trial(self, seed: u64) -> Result<Seen> {
        // A whole stack with its uploaders is in it.
        Box::pin(self.try_it(seed)).await
    }

    async fn try_it(self, seed: u64) -> Result<Seen> {
        if self.is_of_twins() {
            return twin_trial::run(self, seed).await;
        }
        let hubs = match self {
            Self::TwoHubs | Self::Rebuild => 2,
            Self::ThreeHubs => 3,
            _ => 1,
        };
        let load = match self {
            Self::Overload => Load::HEAVY,
            _ => Load::LIGHT,
        };
        let points = self.points(seed);
        let mut trial = Trial::start(hubs, load, seed, &points).await;
        if self == Self::ConnectionCut {
            return cut(trial).await;
        }
        trial.upload();
        if points.is_empty() {
            trial.under_way().await;
        }
        self.strike(&mut trial).await?;
        let found = trial.finish().await?;
        ensure!(
            !points.contains("kill") || found.deaths == 1,
            "the hub did not die at {points}, but {} times",
            found.deaths
        );
        // A frame that is refused takes no memory beyond that of one that is not.
        ensure!(
            self != Self::HugeFrame || found.peak_kib < MOST_KIB_BESIDE_A_HUGE_FRAME,
            "the hub took {} KiB",
            found.peak_kib
        );
        Ok(found)
    }

    fn is_of_twins(self) -> bool {
        matches!(
            self,
            Self::TwinKilled
                | Self::TwinTakenOver
                | Self::TwinFrozen
                | Self::TwinsRolling
                | Self::TwinsNatsWiped
                | Self::TwinsHubAway
                | Self::CheckpointAnswerLost
                | Self::HubKilledCorrecting
                | Self::TwinKilledGoingBack
        )
    }

    /// Tells how the first hub's fault points are armed.
    fn points(self, seed: u64) -> String {
        match self {
            Self::HubKilled => {
                let place = usize::try_from(seed % KILL_POINTS.len() as u64).unwrap_or_default();
                let (point, most) = KILL_POINTS.get(place).copied().unwrap_or(KILL_POINTS[0]);
                format!("{point}=kill@{}", 1 + seed / 9 % most)
            }
            // Marks are gathered for a while: only the first one is sure to come.
            Self::HubKilledMarking => "hub.mark_relayed=kill@1".to_owned(),
            Self::CommitAnswerLost => {
                format!(
                    "hub.after_commit=fail@{0},hub.after_commit=fail@{1}",
                    2 + seed % 5,
                    9
                )
            }
            Self::PublishAnswerLost => {
                format!(
                    "hub.after_publish=fail@{0},hub.after_publish=fail@{1}",
                    2 + seed % 5,
                    9
                )
            }
            _ => String::new(),
        }
    }

    /// Lets the fault strike, and ends it where it does not end by itself.
    async fn strike(self, trial: &mut Trial) -> Result<()> {
        match self {
            Self::HubKilledMarking
            | Self::CommitAnswerLost
            | Self::PublishAnswerLost
            | Self::Overload
            | Self::ConnectionCut
            // Those of twins have trials of their own.
            | Self::TwinKilled
            | Self::TwinTakenOver
            | Self::TwinFrozen
            | Self::TwinsRolling
            | Self::TwinsNatsWiped
            | Self::TwinsHubAway
            | Self::CheckpointAnswerLost
            | Self::HubKilledCorrecting
            | Self::TwinKilledGoingBack => {}
            Self::HubKilled => trial.until_a_hub_died().await?,
            Self::HubKilledAnytime => restart_hub(trial).await,
            Self::PostgresKilled => {
                trial.stack.postgres.server.kill();
                trial.open_gate();
                trial.stack.postgres.server.start_again()?;
            }
            Self::NatsKilled => {
                trial.stack.nats.server.kill();
                trial.open_gate();
                trial.stack.nats.server.start_again()?;
            }
            Self::NatsWiped => {
                trial.stack.nats.server.wipe()?;
                trial.open_gate();
                trial.stack.nats.server.start_again()?;
            }
            Self::NatsFull => nats_without_room(trial).await?,
            Self::NatsAway => {
                trial.stack.nats.server.kill();
                trial.open_gate();
                trial.uploaded().await?;
                trial.stack.nats.server.start_again()?;
            }
            Self::HubFrozen | Self::PostgresFrozen | Self::NatsFrozen => self.freeze(trial).await,
            Self::TwoHubs | Self::ThreeHubs => kill_one_after_the_other(trial).await,
            Self::Rebuild => rebuild(trial).await?,
            Self::DiskFull => refused_for_a_while(trial, DISK_FULL).await,
            Self::StatementTimeout => refused_for_a_while(trial, TOO_SLOW).await,
            Self::DeafClient => abuse::deaf_client(&trial.first_hub()).await,
            Self::SlowClient => abuse::slow_client(&trial.first_hub()).await,
            Self::HugeFrame => abuse::huge_frame(&trial.first_hub()).await?,
            Self::CompressedBomb => abuse::compressed_bomb(&trial.first_hub()).await?,
        }
        Ok(())
    }

    async fn freeze(self, trial: &mut Trial) {
        for signal in [Signal::STOP, Signal::CONT] {
            match self {
                Self::HubFrozen => trial.hubs.iter_mut().for_each(|hub| hub.signal(signal)),
                Self::PostgresFrozen => trial.signal_postgres(signal),
                _ => trial.signal_nats(signal),
            }
            trial.open_gate();
            if signal == Signal::STOP {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Kills the hub in the midst of it and starts it again.
async fn restart_hub(trial: &mut Trial) {
    for round in 0..3 {
        if let Some(hub) = trial.hubs.first_mut() {
            hub.kill();
            hub.start("");
        }
        if round == 1 {
            trial.open_gate();
        }
        let pause = trial.rng.random_range(50..400);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Kills each hub in its turn, starting the one before again: at least one always runs.
async fn kill_one_after_the_other(trial: &mut Trial) {
    let hubs = trial.hubs.len();
    for number in 0..hubs {
        if let Some(hub) = trial.hubs.get_mut(number) {
            hub.kill();
        }
        trial.open_gate();
        let pause = trial.rng.random_range(20..300);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if let Some(hub) = trial.hubs.get_mut(number) {
            hub.start("");
        }
    }
}

/// Rebuilds the stream while rows come; the first time it is killed half-way.
async fn rebuild(trial: &mut Trial) -> Result<()> {
    let first = trial.hubs.first().context("a trial has a hub")?;
    let mut killed = first.task(&["relay", "rebuild"]).spawn()?;
    trial.open_gate();
    let pause = trial.rng.random_range(50..500);
    tokio::time::sleep(Duration::from_millis(pause)).await;
    killed.kill()?;
    killed.wait()?;
    let mut whole = first.task(&["relay", "rebuild"]);
    let whole = tokio::task::spawn_blocking(move || whole.output()).await??;
    let told = String::from_utf8_lossy(&whole.stdout);
    ensure!(whole.status.success(), "the rebuild failed: {told}");
    Ok(())
}

/// Restarts NATS with less room than the streams were promised, and later with enough.
async fn nats_without_room(trial: &mut Trial) -> Result<()> {
    let nats = &mut trial.stack.nats.server;
    nats.kill();
    nats.set_max_file_store("64KB");
    nats.start_again()?;
    trial.open_gate();
    trial.uploaded().await?;
    let nats = &mut trial.stack.nats.server;
    nats.kill();
    nats.set_max_file_store("24GB");
    nats.start_again()?;
    Ok(())
}

/// What PostgreSQL does before each statement that stores rows.
const DISK_FULL: &str =
    "RAISE 'could not extend file \"base/1/2\": No space left on device' USING ERRCODE = '53100';";
const TOO_SLOW: &str = "PERFORM pg_sleep(0.3);";
/// Has the hub's writers connect again, and so come under a role's new settings. It runs after what
/// set them was committed: a writer may be back at once.
const WRITERS_ANEW: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                            WHERE application_name = 'datahub writer'";

/// Lets PostgreSQL refuse all rows of one battery for a while, for a reason that is none of theirs.
async fn refused_for_a_while(trial: &mut Trial, how: &str) {
    let mut database = trial.stack.database();
    let battery = trial.battery(0);
    database.run(&format!(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN {how} RETURN NULL; END $$; \
         ALTER ROLE rovi SET statement_timeout = '100ms'; \
         CREATE TRIGGER refuse BEFORE INSERT ON battery.\"{battery}\" \
         FOR EACH STATEMENT EXECUTE FUNCTION public.refuse()"
    ));
    database.run(WRITERS_ANEW);
    trial.open_gate();
    trial.one_is_parked().await;
    database.run(&format!(
        "ALTER ROLE rovi RESET statement_timeout; DROP TRIGGER refuse ON battery.\"{battery}\""
    ));
    database.run(WRITERS_ANEW);
}

/// Uploads through a proxy that cuts all connections a few times.
async fn cut(mut trial: Trial) -> Result<Seen> {
    let proxy = Proxy::before(trial.first_hub()).await?;
    trial.upload_by(&[proxy.upload_url()]);
    trial.under_way().await;
    for round in 0..5 {
        proxy.cut();
        if round == 2 {
            trial.open_gate();
        }
        let pause = trial.rng.random_range(5..150);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    let found = trial.finish().await?;
    ensure!(found.connections > 4, "nothing was cut");
    Ok(found)
}
