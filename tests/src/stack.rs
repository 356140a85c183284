//! Starting, stopping and killing the parts of a stack.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::OnceLock,
    time::Duration,
};

use rovi_common::{
    local::{self, ServerProcess, Signal},
    rights::Party,
    testing::{self, TestNats, TestPostgres, eventually},
    tls::Trust,
};
use rovicli::bus_credentials::BusCredentials;
use tempfile::TempDir;

use crate::{Database, Secured};

const PATIENCE: Duration = Duration::from_mins(1);

/// One hub, one twin and what they need.
#[derive(Debug)]
pub struct Stack {
    /// PostgreSQL.
    pub postgres: TestPostgres,
    /// NATS.
    pub nats: TestNats,
    bus: BusCredentials,
    folder: TempDir,
    hub: Option<ServerProcess>,
    twin: Option<ServerProcess>,
    hub_port: u16,
    twin_port: u16,
    http: reqwest::Client,
    settings: Vec<(String, String)>,
    secured: Option<Secured>,
    /// Whom clients of plain services believe, read once: it takes milliseconds.
    system_trust: OnceLock<Trust>,
    /// The database as the hub knows it.
    database_url: String,
}

/// Makes a client whose requests each have a connection of their own: one that was kept ends where
/// a service closes it or dies, and a test that was busy meanwhile would send its next request there.
pub fn http_client() -> reqwest::Client {
    let client = reqwest::Client::builder().pool_max_idle_per_host(0);
    client.build().expect("a client can be made")
}

impl Stack {
    /// Starts everything and waits until hub and twin are ready.
    pub async fn start() -> Self {
        let mut stack = Self::servers();
        stack.start_hub();
        stack.start_twin();
        stack.ready().await;
        stack
    }

    /// Starts PostgreSQL and NATS only.
    ///
    /// Services show NATS their credentials; tests that look at the bus need none.
    pub fn servers() -> Self {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let bus = BusCredentials::bring_up_to_date(&folder.path().join("nats"), &[])
            .expect("the test's folder is writable");
        let nats = testing::half_guarded_nats(bus.users());
        Self::with(folder, (nats, bus))
    }

    /// Starts PostgreSQL, and takes over a NATS with the credentials of the services.
    pub fn with(folder: TempDir, (nats, bus): (TestNats, BusCredentials)) -> Self {
        let postgres = testing::postgres();
        Self {
            database_url: postgres.server.url(),
            postgres,
            nats,
            bus,
            folder,
            hub: None,
            twin: None,
            hub_port: local::free_port().expect("a port is free"),
            twin_port: local::free_port().expect("a port is free"),
            http: http_client(),
            settings: Vec::new(),
            secured: None,
            system_trust: OnceLock::new(),
        }
    }

    /// Has the stack's own clients speak to services that are secured.
    pub(crate) fn secure(&mut self, secured: Secured) {
        self.http = secured.http();
        self.secured = Some(secured);
    }

    pub(crate) fn system_trust(&self) -> Trust {
        self.system_trust.get_or_init(Trust::default).clone()
    }

    pub(crate) fn unsecure(&mut self) -> Option<Secured> {
        self.secured.take()
    }

    /// Returns how the services are secured, where they are.
    pub fn secured(&self) -> Option<&Secured> {
        self.secured.as_ref()
    }

    fn url(&self, port: u16) -> String {
        let scheme = self.secured.as_ref().map_or("http", |_| "https");
        format!("{scheme}://127.0.0.1:{port}")
    }

    /// Gives both services a setting, named as behind `ROVI_HUB_`, from their next start.
    pub fn set(&mut self, name: &str, value: &str) {
        for service in ["ROVI_HUB", "ROVI_TWIN"] {
            let name = format!("{service}_{name}");
            self.settings.push((name, value.to_owned()));
        }
    }

    /// Gives both services an environment variable, from their next start.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Has hubs use the database as another role than its superuser, from their next start.
    pub fn set_database(&mut self, url: String) {
        self.database_url = url;
    }

    /// Returns the URL by which hubs use the database.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Starts the hub, without waiting for it.
    pub fn start_hub(&mut self) {
        let mut command = Command::new(binary("datahub"));
        command.env("DATABASE_URL", &self.database_url);
        command.env("ROVI_HUB_TWIN_URL", self.twin_url());
        self.hub = Some(self.spawn("datahub", command, self.hub_port));
    }

    /// Starts a hub that never finds NATS, and waits until it takes rows.
    pub async fn start_hub_without_bus(&mut self) {
        let mut command = Command::new(binary("datahub"));
        command.env("DATABASE_URL", self.postgres.server.url());
        command.env("NATS_URL", "nats://127.0.0.1:9");
        self.hub = Some(self.spawn("datahub", command, self.hub_port));
        let url = format!("{}/ready", self.hub_url());
        eventually(PATIENCE, || async {
            let answer = self.http.get(&url).send().await;
            let answer = answer.map_err(|error| format!("{url}: {error}"))?;
            match answer.text().await {
                Ok(problems) if problems.contains("postgresql") => Err(problems),
                Ok(_only_the_bus_is_away) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// Starts the twin, without waiting for it.
    pub fn start_twin(&mut self) {
        let mut command = Command::new(binary("twin"));
        command.env("ROVI_TWIN_HUB_URL", self.hub_url());
        if self.twin_config().exists() {
            command.arg("--config").arg(self.twin_config());
        }
        self.twin = Some(self.spawn("twin", command, self.twin_port));
    }

    /// Gives the twin a file of settings, in force from its next start.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn configure_twin(&self, settings: &str) {
        std::fs::write(self.twin_config(), settings).expect("the test's folder is writable");
    }

    fn twin_config(&self) -> PathBuf {
        self.folder.path().join("twin.toml")
    }

    /// Returns the variable that names the file by which a hub or twin shows who it is.
    pub fn nats_seed(&self, party: &Party) -> (String, String) {
        let service = if *party == Party::Hub { "HUB" } else { "TWIN" };
        let file = self.bus.seed_file(party).display().to_string();
        (format!("ROVI_{service}_NATS_SEED_FILE"), file)
    }

    fn spawn(&self, name: &'static str, mut command: Command, port: u16) -> ServerProcess {
        command.current_dir(self.folder.path());
        command.envs([Party::Hub, Party::Twin].map(|party| self.nats_seed(&party)));
        let settings = self.settings.iter();
        command.envs(settings.map(|(name, value)| (name, value)));
        if !command.get_envs().any(|(name, _)| name == "NATS_URL") {
            command.env("NATS_URL", self.nats.server.url());
        }
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        let log = self.log(name);
        ServerProcess::spawn(name, command, &log).expect("the service's binary was built")
    }

    /// Where a service logs: in `ROVI_KEPT_LOGS`, if that names a folder, for looks at all of them.
    pub fn log(&self, name: &str) -> PathBuf {
        let own = self.folder.path();
        let place = kept_logs().and_then(|kept| Some(kept.join(own.file_name()?)));
        let place = place.filter(|place| std::fs::create_dir_all(place).is_ok());
        place.as_deref().unwrap_or(own).join(format!("{name}.log"))
    }

    /// Waits until both services say that they are ready.
    pub async fn ready(&self) {
        self.hub_ready().await;
        self.answers_ready(&self.twin_url()).await;
    }

    /// Waits until the hub says that it is ready.
    pub async fn hub_ready(&self) {
        self.answers_ready(&self.hub_url()).await;
    }

    async fn answers_ready(&self, url: &str) {
        eventually(PATIENCE, || async {
            let answer = self.http.get(format!("{url}/ready")).send().await;
            match answer {
                Ok(answer) if answer.status().is_success() => Ok(()),
                Ok(answer) => {
                    let problems = answer.text().await.unwrap_or_default();
                    Err(format!("{url}: {problems}; logs: {}", self.logs()))
                }
                Err(error) => Err(format!("{url}: {error}; logs: {}", self.logs())),
            }
        })
        .await;
    }

    /// Waits until every stored row of a battery is on the bus.
    pub async fn relayed(&self, battery: &str) {
        let behind = format!(
            "SELECT last_seq - relayed_seq AS value FROM hub.batteries WHERE name = '{battery}'"
        );
        let mut database = self.database();
        eventually(PATIENCE, || {
            let behind = database.number(&behind);
            async move {
                if behind == 0 {
                    Ok(())
                } else {
                    Err(format!("{behind} rows behind"))
                }
            }
        })
        .await;
    }

    /// Returns the hub's process id, while it runs.
    pub fn hub_id(&self) -> Option<u32> {
        self.hub.as_ref().map(ServerProcess::id)
    }

    /// Returns the twin's process id, while it runs.
    pub fn twin_id(&self) -> Option<u32> {
        self.twin.as_ref().map(ServerProcess::id)
    }

    /// Ends the hub at once, as a crash would.
    pub fn kill_hub(&mut self) {
        self.hub = None;
    }

    /// Ends the twin at once, as a crash would.
    pub fn kill_twin(&mut self) {
        self.twin = None;
    }

    /// Stops the hub by SIGTERM; `None` where it had to be killed.
    pub fn stop_hub(&mut self) -> Option<ExitStatus> {
        self.hub.take()?.stop(Signal::TERM, PATIENCE)
    }

    /// Stops the twin by SIGTERM; `None` where it had to be killed.
    pub fn stop_twin(&mut self) -> Option<ExitStatus> {
        self.twin.take()?.stop(Signal::TERM, PATIENCE)
    }

    /// Returns the hub's URL, without a slash at its end.
    pub fn hub_url(&self) -> String {
        self.url(self.hub_port)
    }

    /// Returns the twin's URL, without a slash at its end.
    pub fn twin_url(&self) -> String {
        self.url(self.twin_port)
    }

    /// Returns the folder for the test's files and the services' logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns a client for HTTP.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Opens a connection to the database.
    pub fn database(&self) -> Database {
        Database::open(&self.postgres.server.url())
    }

    /// Gets a JSON document from the hub.
    pub async fn get(&self, path: &str) -> Result<serde_json::Value, String> {
        let answer = self
            .http
            .get(format!("{}{path}", self.hub_url()))
            .send()
            .await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!("{status}: {text}"));
        }
        serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))
    }

    /// Prepares `rovicli` with the hub's URL.
    pub fn rovicli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("rovicli"));
        command
            .current_dir(self.folder.path())
            .args(["--url", &self.hub_url()])
            .args(args);
        if let Some(secured) = &self.secured {
            command.env("ROVI_CA_FILE", secured.ca_file());
            command.envs(secured.token().map(|token| ("ROVI_TOKEN", token.expose())));
        }
        command
    }

    /// Runs `rovicli` to its end and returns what it printed.
    ///
    /// # Panics
    /// It failed; the message has its output.
    pub async fn run_rovicli(&self, args: &[&str]) -> String {
        let mut command = self.rovicli(args);
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = run.await.expect("waiting for a process does not panic");
        text_of(&output.expect("rovicli was built"))
    }

    /// Returns the ends of the services' logs, for messages of failed tests.
    pub fn logs(&self) -> String {
        let services = [&self.hub, &self.twin];
        let tails = services
            .into_iter()
            .flatten()
            .map(|p| p.failed(String::new()).to_string());
        tails.collect::<Vec<_>>().join("\n")
    }
}

fn kept_logs() -> Option<PathBuf> {
    std::env::var_os("ROVI_KEPT_LOGS").map(PathBuf::from)
}

/// No service of any test wants more of the bus than the table of `rovi_common::rights` gives it.
impl Drop for Stack {
    fn drop(&mut self) {
        let refusals = self.nats.server.refusals();
        if !std::thread::panicking() {
            assert!(
                refusals.is_empty(),
                "NATS refused:\n{}",
                refusals.join("\n")
            );
        }
    }
}

fn text_of(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{printed}\n{errors}",
        output.status
    );
    printed.into_owned()
}

/// Finds a binary of the project beside the test's own.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the test knows its own path");
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("{name} was not built: run `cargo build --workspace --bins`"))
}
