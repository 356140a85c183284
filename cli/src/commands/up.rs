//! `rovicli up`: the whole stack on this machine until Ctrl-C.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use rovi_common::{config::ServiceUrl, local::LocalError};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    credentials::Credentials,
    hub::Hub,
    stack::{DataFolder, MadeToken, Plan, Stack, own_folder},
};

/// How often the processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long hub and twin may take to be ready.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// Arguments of `rovicli up`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the database, the streams and the logs [default: `/var/lib/rovi` for root, else
    /// `rovi` in `$XDG_DATA_HOME` or `~/.local/share`].
    #[arg(long, env = "ROVI_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Port of the hub.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Port of the twin.
    #[arg(long, default_value_t = 8001)]
    twin_port: u16,
    /// A PostgreSQL database to use instead of a private one.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// A NATS server (2.12 or newer, with JetStream) to use instead of a private one.
    #[arg(long, env = "NATS_URL", hide_env_values = true, value_name = "URL")]
    nats_url: Option<String>,
    /// Asks everybody for a token, as beyond this machine: makes one that may do everything, shows it
    /// once and keeps it where `rovicli` finds it.
    #[arg(long)]
    auth: bool,
    #[command(flatten)]
    places: Places,
}

/// Where people keep their data; environment, not meant to be typed.
#[derive(Debug, clap::Args)]
struct Places {
    /// Folder for data of the user.
    #[arg(long, env = "XDG_DATA_HOME", hide = true)]
    xdg_data_home: Option<PathBuf>,
    /// Home folder.
    #[arg(long, env = "HOME", hide = true)]
    home: Option<PathBuf>,
}

impl Places {
    /// Returns the data folder where none is given.
    fn default_folder(&self, is_root: bool) -> Result<PathBuf> {
        if is_root {
            return Ok("/var/lib/rovi".into());
        }
        // An empty or relative variable counts as none, as the XDG specification says.
        let absolute = |path: &&PathBuf| path.is_absolute();
        let xdg = self.xdg_data_home.as_ref().filter(absolute).cloned();
        let home = self.home.as_ref().filter(absolute);
        xdg.or_else(|| home.map(|home| home.join(".local/share")))
            .map(|base| base.join("rovi"))
            .context("there is no home folder to keep data in; choose one with --data")
    }
}

pub(super) async fn run(args: Args, credentials: Option<Credentials>) -> Result<ExitCode> {
    let folder = match args.data {
        Some(folder) => folder,
        None => args
            .places
            .default_folder(rustix::process::geteuid().is_root())?,
    };
    let plan = Plan {
        port: args.port,
        twin_port: args.twin_port,
        database_url: server_url("DATABASE_URL", args.database_url)?,
        nats_url: server_url("NATS_URL", args.nats_url)?,
        programs: own_folder()?,
        auth: args.auth,
    };
    // Signals are taken from here on, so that one during the start stops in order, too.
    let asked_to_stop = stop_requested()?;
    tokio::pin!(asked_to_stop);
    let started = {
        let plan = plan.clone();
        spawn_blocking(move || Stack::start(&plan, DataFolder::open(&folder)?, say))
    };
    let mut stack = started.await.context("starting was broken off")??;
    let ended = tokio::select! {
        ended = attend(&mut stack, &plan, credentials.as_ref()) => Err(ended),
        () = &mut asked_to_stop => Ok(()),
    };
    if let Err(problem) = &ended {
        say(&format!("{problem:#}"));
    }
    spawn_blocking(move || stack.stop(say))
        .await
        .context("stopping was broken off")?;
    say("all is stopped");
    Ok(if ended.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Reads the URL of a server to be used; an empty variable counts as none.
fn server_url(name: &str, text: Option<String>) -> Result<Option<ServiceUrl>> {
    let text = text.filter(|text| !text.trim().is_empty());
    // The text may hold a password and is not repeated.
    let parse = |text: String| text.parse().with_context(|| format!("{name} is not a URL"));
    text.map(parse).transpose()
}

#[expect(clippy::print_stderr, reason = "progress is told to people")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// Waits for the stack to be ready, tells where to look, and watches it; returns when it breaks.
async fn attend(
    stack: &mut Stack,
    plan: &Plan,
    credentials: Option<&Credentials>,
) -> anyhow::Error {
    if let Err(error) = wait_ready(stack, plan).await {
        return error;
    }
    announce(stack, plan);
    if let Some(token) = stack.admin_token()
        && let Err(error) = keep(token, plan, credentials)
    {
        return error;
    }
    loop {
        if let Err(error) = stack.check() {
            return error.into();
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Keeps the admin's token for `rovicli` here, and shows it where it is new.
#[expect(clippy::print_stdout, reason = "this is the output")]
fn keep(made: &MadeToken, plan: &Plan, credentials: Option<&Credentials>) -> Result<()> {
    let credentials = credentials.context("there is no home folder to keep the token in")?;
    credentials.keep(&plan.hub_url().parse()?, &made.token)?;
    if made.is_new {
        println!(
            "\nThe token of the admin, shown this once:\n  {}",
            made.token.expose()
        );
    }
    println!(
        "\nCommands of rovicli here find it in {}.",
        credentials.file().display()
    );
    println!("For others: rovicli token create <name> --grant reader");
    println!("Pages ask for it at {}/login", plan.hub_url());
    Ok(())
}

async fn wait_ready(stack: &mut Stack, plan: &Plan) -> Result<()> {
    let services = [("hub", plan.hub_url()), ("twin", plan.twin_url())];
    let deadline = Instant::now() + READY_WITHIN;
    for (name, url) in services {
        let service = Hub::new(url.parse()?)?;
        while let Err(error) = service.ready().await {
            stack.check()?;
            if Instant::now() > deadline {
                let log = stack.log(name);
                return Err(not_ready(name, &error, &log));
            }
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

fn not_ready(name: &str, error: &anyhow::Error, log: &Path) -> anyhow::Error {
    let seconds = READY_WITHIN.as_secs();
    anyhow!(
        "the {name} is not ready after {seconds} s: {error:#}; see {}",
        log.display()
    )
}

/// Prints where to look.
#[expect(clippy::print_stdout, reason = "this is the output")]
fn announce(stack: &Stack, plan: &Plan) {
    let (hub, twin) = (plan.hub_url(), plan.twin_url());
    println!(
        "\nThe stack is up; data and logs are in {}\n",
        stack.folder().display()
    );
    println!("  hub         {hub}  (API at {hub}/docs, metrics at {hub}/metrics)");
    println!("  twin        {twin}  (API at {twin}/docs, metrics at {twin}/metrics)");
    println!("  PostgreSQL  {}", psql(stack, plan));
    println!("  NATS        {}", shown_nats(stack, plan));
    for name in ["hub", "twin"] {
        println!(
            "  {:<12}tail -f {}",
            format!("{name} log"),
            stack.log(name).display()
        );
    }
    let url = if plan.port == 8000 {
        String::new()
    } else {
        format!(" --url {hub}")
    };
    println!("\nFor a start, in another terminal:");
    println!("  rovicli simulate cell.h5 --estimator cell.json");
    println!("  rovicli{url} metadata cell.h5");
    println!("  rovicli{url} register cell 0 cell.json");
    println!("  rovicli{url} stream cell.h5 --speedup max");
    println!("  rovicli{url} status");
    println!("\nCtrl-C stops everything; the data stay.");
}

fn psql(stack: &Stack, plan: &Plan) -> String {
    if let Some(url) = &plan.database_url {
        return url.to_string();
    }
    let Some((server, folder)) = stack.postgres() else {
        return String::new();
    };
    let port = server
        .url()
        .parse::<url::Url>()
        .ok()
        .and_then(|url| url.port());
    format!(
        "PGPASSWORD=$(cat {}) psql -h 127.0.0.1 -p {} -U rovi rovi",
        folder.join("postgres.password").display(),
        port.unwrap_or_default()
    )
}

fn shown_nats(stack: &Stack, plan: &Plan) -> String {
    if let Some(url) = &plan.nats_url {
        return url.to_string();
    }
    let url = stack.nats_url(plan);
    match stack.operator_seed() {
        Some(seed) => format!("nats --server {url} --nkey {}", seed.display()),
        None => url,
    }
}

/// Resolves when this process is asked to end by Ctrl-C, SIGTERM, or a terminal that closes.
fn stop_requested() -> Result<impl Future<Output = ()>, LocalError> {
    let listen = |kind| {
        signal(kind).map_err(|source| LocalError::Io {
            what: "cannot listen for signals".to_owned(),
            source,
        })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(xdg: Option<&str>, home: Option<&str>) -> Places {
        Places {
            xdg_data_home: xdg.map(PathBuf::from),
            home: home.map(PathBuf::from),
        }
    }

    #[test]
    fn an_empty_variable_is_none_and_a_wrong_one_keeps_its_secret() {
        let url = |text: &str| server_url("DATABASE_URL", Some(text.to_owned()));
        assert_eq!(url("").unwrap(), None);
        assert!(url("postgres://u:p@h/d").unwrap().is_some());
        let error = format!("{:#}", url("secret word").unwrap_err());
        assert!(error.starts_with("DATABASE_URL is not a URL"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn data_lie_where_the_system_keeps_them() {
        let folder = |places: Places, is_root| places.default_folder(is_root).ok();
        let home = Some("/home/u");
        assert_eq!(
            folder(places(None, home), true),
            Some("/var/lib/rovi".into())
        );
        assert_eq!(
            folder(places(Some("/x"), home), false),
            Some("/x/rovi".into())
        );
        assert_eq!(
            folder(places(Some(""), home), false),
            Some("/home/u/.local/share/rovi".into())
        );
        assert_eq!(folder(places(None, None), false), None);
    }
}
