//! The whole stack on this machine: PostgreSQL, NATS, hub and twin as child processes on loopback,
//! their data and logs in one folder.
//!
//! Started in the order in which they need each other and stopped in the opposite one. The calls
//! block for as long as a process takes to start or stop.

mod folder;
mod leftovers;
mod tokens;

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rovi_common::{
    config::ServiceUrl,
    local::{LocalError, NatsServer, PostgresServer, ServerProcess, Signal},
    rights::Party,
};

use self::tokens::Tokens;
pub use self::{folder::DataFolder, tokens::MadeToken};
use crate::bus_credentials::BusCredentials;

/// How long hub and twin may take to stop, a little more than they give themselves.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// What is to be started.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Port of the hub.
    pub port: u16,
    /// Port of the twin.
    pub twin_port: u16,
    /// A database to use instead of a private one.
    pub database_url: Option<ServiceUrl>,
    /// A bus to use instead of a private one.
    pub nats_url: Option<ServiceUrl>,
    /// Folder with the programs `datahub` and `twin`.
    pub programs: PathBuf,
    /// Whether everybody is asked for a token.
    pub auth: bool,
}

impl Plan {
    /// Returns the hub's URL.
    pub fn hub_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the twin's URL.
    pub fn twin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.twin_port)
    }
}

/// The running processes, in the order in which they stop.
#[derive(Debug)]
pub struct Stack {
    twin: Option<ServerProcess>,
    hub: Option<ServerProcess>,
    nats: Option<NatsServer>,
    postgres: Option<PostgresServer>,
    folder: DataFolder,
    tokens: Option<Tokens>,
    bus: Option<BusCredentials>,
}

impl Stack {
    /// Starts everything that `plan` asks for; tells `progress` what it does.
    ///
    /// # Errors
    /// A program is missing, a port is taken, or a process ends at once; what ran already is
    /// stopped again.
    pub fn start(plan: &Plan, folder: DataFolder, progress: impl Fn(&str)) -> Result<Self> {
        leftovers::stop(&folder, &progress)?;
        for (port, flag) in [(plan.port, "--port"), (plan.twin_port, "--twin-port")] {
            ensure!(
                folder::is_free(port),
                "port {port} is taken by another program; choose another one with {flag}"
            );
        }
        ensure!(
            plan.port != plan.twin_port,
            "--port and --twin-port are both {}",
            plan.port
        );
        let mut stack = Self {
            twin: None,
            hub: None,
            nats: None,
            postgres: None,
            folder,
            tokens: None,
            bus: None,
        };
        match stack.start_all(plan, &progress) {
            Ok(()) => Ok(stack),
            Err(error) => {
                stack.stop(|_| ());
                Err(error)
            }
        }
    }

    fn start_all(&mut self, plan: &Plan, progress: &impl Fn(&str)) -> Result<()> {
        if plan.database_url.is_none() {
            progress("starting PostgreSQL");
            let folder = self.folder.sub("postgresql")?;
            let port = self.folder.port("postgresql")?;
            self.postgres = Some(PostgresServer::start_apart(&folder, port)?);
        }
        if plan.nats_url.is_none() {
            progress("starting NATS");
            let folder = self.folder.sub("nats")?;
            let port = self.folder.port("nats")?;
            if plan.auth {
                let place = self.folder.path().join("nats-credentials");
                self.bus = Some(BusCredentials::bring_up_to_date(&place, &[])?);
            }
            let users = self.bus.as_ref().map(|bus| bus.users().to_owned());
            self.nats = Some(NatsServer::start_apart(&folder, port, users)?);
        }
        if plan.auth {
            self.tokens = Some(Tokens::of(self.folder.path())?);
        }
        progress("starting hub and twin");
        let hub = self.service(plan, "datahub", "ROVI_HUB")?;
        self.hub = Some(self.spawn("hub", hub)?);
        let twin = self.service(plan, "twin", "ROVI_TWIN")?;
        self.twin = Some(self.spawn("twin", twin)?);
        let ids = self
            .processes()
            .map(|process| (process.name(), process.id()))
            .collect::<Vec<_>>();
        leftovers::remember(&self.folder, &ids)
    }

    /// Prepares a service with its settings in the environment.
    fn service(&self, plan: &Plan, program: &str, prefix: &str) -> Result<Command> {
        let path = plan.programs.join(program);
        if !path.is_file() {
            bail!(
                "the program `{program}` is not in {}; `cargo build --bins` makes it",
                plan.programs.display()
            );
        }
        let (port, party) = if program == "twin" {
            (plan.twin_port, Party::Twin)
        } else {
            (plan.port, Party::Hub)
        };
        let mut command = Command::new(path);
        command
            .env("DATABASE_URL", self.database_url(plan))
            .env("NATS_URL", self.nats_url(plan))
            .env(format!("{prefix}_LISTEN"), format!("127.0.0.1:{port}"))
            .env("ROVI_HUB_TWIN_URL", plan.twin_url())
            .env("ROVI_TWIN_HUB_URL", plan.hub_url());
        if let Some(tokens) = &self.tokens {
            command.envs(tokens.settings(prefix));
        }
        if let Some(bus) = &self.bus {
            command.env(format!("{prefix}_NATS_SEED_FILE"), bus.seed_file(&party));
        }
        let format = format!("{prefix}_LOG_FORMAT");
        if std::env::var_os(&format).is_none() {
            // People read these logs.
            command.env(format, "text");
        }
        Ok(command)
    }

    fn spawn(&self, name: &'static str, mut command: Command) -> Result<ServerProcess, LocalError> {
        // Ctrl-C in a terminal shall reach this program alone, which then stops the others in order.
        command.process_group(0);
        ServerProcess::spawn(name, command, &self.log(name))
    }

    /// Returns the URL of the database in use, with its password.
    pub fn database_url(&self, plan: &Plan) -> String {
        match (&plan.database_url, &self.postgres) {
            (Some(url), _) => url.expose().to_owned(),
            (None, Some(server)) => server.url(),
            (None, None) => String::new(),
        }
    }

    /// Returns the URL of the bus in use.
    pub fn nats_url(&self, plan: &Plan) -> String {
        match (&plan.nats_url, &self.nats) {
            (Some(url), _) => url.expose().to_owned(),
            (None, Some(server)) => server.url(),
            (None, None) => String::new(),
        }
    }

    /// Returns the token of the admin, where everybody is asked for one.
    pub fn admin_token(&self) -> Option<&MadeToken> {
        self.tokens.as_ref().map(Tokens::admin)
    }

    /// Returns the file by which people may hear all of the private bus, where it asks for it.
    pub fn operator_seed(&self) -> Option<PathBuf> {
        let bus = self.bus.as_ref()?;
        Some(bus.seed_file(&Party::Operator))
    }

    /// Returns the folder with the data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the log file of hub or twin.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Returns the private database server and the folder it lives in.
    pub fn postgres(&self) -> Option<(&PostgresServer, PathBuf)> {
        let server = self.postgres.as_ref()?;
        Some((server, self.folder.path().join("postgresql")))
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut ServerProcess> {
        let nats = self.nats.as_mut().and_then(NatsServer::process);
        let postgres = self.postgres.as_mut().and_then(PostgresServer::process);
        [self.twin.as_mut(), self.hub.as_mut(), nats, postgres]
            .into_iter()
            .flatten()
    }

    /// Checks that every process runs.
    ///
    /// # Errors
    /// The first that ended, with the end of its log.
    pub fn check(&mut self) -> Result<(), LocalError> {
        // What the others depend on is named first.
        let mut processes: Vec<_> = self.processes().collect();
        processes.reverse();
        for process in processes {
            if let Some(status) = process.ended() {
                return Err(process.failed(format!("ended by itself ({status})")));
            }
        }
        Ok(())
    }

    /// Stops everything: twin, hub, NATS, PostgreSQL.
    pub fn stop(mut self, progress: impl Fn(&str)) {
        for service in [self.twin.take(), self.hub.take()] {
            let Some(mut service) = service else { continue };
            if service.ended().is_none() {
                progress(&format!("stopping {}", service.name()));
                if service.stop(Signal::TERM, STOP_WITHIN).is_none() {
                    let seconds = STOP_WITHIN.as_secs();
                    progress(&format!(
                        "{} did not stop within {seconds} s: killed",
                        service.name()
                    ));
                }
            }
        }
        if let Some(mut nats) = self.nats.take() {
            progress("stopping NATS");
            nats.stop();
        }
        if let Some(mut postgres) = self.postgres.take() {
            progress("stopping PostgreSQL");
            postgres.stop();
        }
        leftovers::forget(&self.folder);
    }
}

/// Returns the folder in which this program lies, where its companions are looked for.
///
/// # Errors
/// The system does not tell.
pub fn own_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find out where rovicli lies")?;
    let folder = own.parent().context("cannot find out where rovicli lies")?;
    Ok(folder.to_owned())
}
