//! A nats-server with JetStream.

use std::{
    env,
    ffi::OsStr,
    io::Read,
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{LocalError, ServerProcess, Signal};
use crate::streams::MIN_SERVER;

const PATIENCE: Duration = Duration::from_secs(20);
/// Room for both streams at their default size, and some.
const MAX_FILE_STORE: &str = "24GB";

/// A nats-server whose streams live in a folder.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<ServerProcess>,
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    apart: bool,
    max_file_store: &'static str,
    tls: Option<(PathBuf, PathBuf)>,
    users: String,
}

impl NatsServer {
    /// Starts a server on a port of loopback; streams found in `folder` are there again.
    ///
    /// # Errors
    /// - `Missing`: no nats-server of version 2.12 or newer is installed.
    /// - `Failed`: the server does not come up; with the end of its log.
    pub fn start(folder: &Path, port: u16) -> Result<Self, LocalError> {
        Self::start_in(folder, port, false, String::new())
    }

    /// As [`NatsServer::start`], for those alone whom `users` names: settings as
    /// [`crate::rights::users::settings`] writes them.
    ///
    /// # Errors
    /// As [`NatsServer::start`].
    pub fn start_guarded(folder: &Path, port: u16, users: String) -> Result<Self, LocalError> {
        Self::start_in(folder, port, false, users)
    }

    /// As [`NatsServer::start`], or with `users` as [`NatsServer::start_guarded`], in a process group
    /// of its own: Ctrl-C in a terminal reaches only the calling program, which then stops the server
    /// in its turn.
    ///
    /// # Errors
    /// As [`NatsServer::start`].
    pub fn start_apart(
        folder: &Path,
        port: u16,
        users: Option<String>,
    ) -> Result<Self, LocalError> {
        Self::start_in(folder, port, true, users.unwrap_or_default())
    }

    fn start_in(folder: &Path, port: u16, apart: bool, users: String) -> Result<Self, LocalError> {
        let program = find()?;
        let mut server = Self {
            process: None,
            program,
            folder: folder.to_owned(),
            port,
            apart,
            max_file_store: MAX_FILE_STORE,
            tls: None,
            users,
        };
        server.start_again()?;
        Ok(server)
    }

    /// Starts the server that was stopped or killed, on the same port and folder.
    ///
    /// # Errors
    /// `Failed`: the server does not come up; with the end of its log.
    pub fn start_again(&mut self) -> Result<(), LocalError> {
        let store = self.folder.join("jetstream");
        std::fs::create_dir_all(&store)
            .map_err(LocalError::io(format!("cannot make {}", store.display())))?;
        let settings = self.folder.join("nats.conf");
        std::fs::write(&settings, self.settings(&store)).map_err(LocalError::io(format!(
            "cannot write {}",
            settings.display()
        )))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&settings);
        if self.apart {
            command.process_group(0);
        }
        let log = self.log();
        let mut process = ServerProcess::spawn("nats-server", command, &log)?;
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        process.wait_until(PATIENCE, || greets(address))?;
        self.process = Some(process);
        Ok(())
    }

    /// Returns the server's settings file.
    ///
    /// Without a limit of its own the server grants streams no more than the disk has free, and
    /// refuses to make streams that may once grow larger.
    fn settings(&self, store: &Path) -> String {
        let (store, port) = (store.display(), self.port);
        let tls = self.tls.as_ref().map(|(cert, key)| {
            let (cert, key) = (cert.display().to_string(), key.display().to_string());
            format!("tls {{\n  cert_file: {cert:?}\n  key_file: {key:?}\n}}\n")
        });
        format!(
            "listen: 127.0.0.1:{port}\njetstream {{\n  store_dir: {store:?}\n  \
             max_file_store: {room}\n}}\n{tls}{users}",
            store = store.to_string(),
            room = self.max_file_store,
            tls = tls.unwrap_or_default(),
            users = self.users
        )
    }

    /// Has clients speak TLS, shown this certificate with its key, from the next start on.
    pub fn set_tls(&mut self, cert: PathBuf, key: PathBuf) {
        self.tls = Some((cert, key));
    }

    /// Grants streams this much room (`24GB`), from the next start on.
    pub fn set_max_file_store(&mut self, room: &'static str) {
        self.max_file_store = room;
    }

    /// Returns the URL for clients.
    pub fn url(&self) -> String {
        let scheme = self.tls.as_ref().map_or("nats", |_| "tls");
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("nats.log")
    }

    /// Returns what the server's log says of those who wanted more than they may.
    pub fn refusals(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let refused = log.lines().filter(|line| line.contains(" Violation"));
        refused.map(str::to_owned).collect()
    }

    /// Returns the process, while it runs.
    pub fn process(&mut self) -> Option<&mut ServerProcess> {
        self.process.as_mut()
    }

    /// Stops the server cleanly.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::TERM, PATIENCE);
        }
    }

    /// Ends the server at once, as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Forgets all streams; the server must not run.
    ///
    /// # Errors
    /// `Io`: the folder cannot be removed.
    pub fn wipe(&mut self) -> Result<(), LocalError> {
        self.kill();
        let store = self.folder.join("jetstream");
        std::fs::remove_dir_all(&store)
            .map_err(LocalError::io(format!("cannot remove {}", store.display())))
    }
}

/// Whether a NATS server says hello at this address.
fn greets(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) else {
        return false;
    };
    let mut hello = [0; 5];
    let timed = stream.set_read_timeout(Some(Duration::from_millis(500)));
    timed.is_ok() && stream.read_exact(&mut hello).is_ok() && &hello == b"INFO "
}

/// Finds a nats-server that is new enough: on PATH, beside this program, or in the `.tools/bin`
/// of the project that this program was built in.
fn find() -> Result<PathBuf, LocalError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let own = env::current_exe().unwrap_or_default();
    let beside = own.parent().map(Path::to_owned);
    let tools = own.ancestors().map(|folder| folder.join(".tools/bin"));
    env::split_paths(&path)
        .chain(beside)
        .chain(tools)
        .map(|folder| folder.join("nats-server"))
        .find(|program| program.is_file() && is_new_enough(program.as_os_str()))
        .ok_or(LocalError::Missing {
            program: "nats-server",
            advice: "version 2.12 or newer is needed; `make tools` puts it into .tools/bin",
        })
}

fn is_new_enough(program: &OsStr) -> bool {
    let Ok(output) = Command::new(program).arg("--version").output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let Some((_, version)) = text.trim().rsplit_once('v') else {
        return false;
    };
    let mut numbers = version.split('.').map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= MIN_SERVER
}
