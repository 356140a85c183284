//! A private PostgreSQL cluster.

use std::{
    fs,
    io::Write,
    os::unix::{
        fs::{OpenOptionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{LocalError, ServerProcess, Signal, signal_children};

const PATIENCE: Duration = Duration::from_mins(1);
/// How long the helpers of a killed server may take to end.
const LEFTOVERS_END_WITHIN: Duration = Duration::from_secs(10);
/// The role and the database of the cluster.
const NAME: &str = "rovi";

/// A PostgreSQL server whose cluster lives in a folder.
///
/// PostgreSQL refuses to run as root, so there it runs as the system user `postgres`.
#[derive(Debug)]
pub struct PostgresServer {
    process: Option<ServerProcess>,
    programs: PathBuf,
    folder: PathBuf,
    password: String,
    port: u16,
    apart: bool,
}

impl PostgresServer {
    /// Starts a server on a port of loopback, making the cluster where `folder` has none.
    ///
    /// # Errors
    /// - `Missing`: PostgreSQL is not installed.
    /// - `Failed`: the server does not come up; with the end of its log.
    pub fn start(folder: &Path, port: u16) -> Result<Self, LocalError> {
        Self::start_in(folder, port, false)
    }

    /// As [`PostgresServer::start`], in a process group of its own: Ctrl-C in a terminal reaches
    /// only the calling program, which then stops the server in its turn.
    ///
    /// # Errors
    /// As [`PostgresServer::start`].
    pub fn start_apart(folder: &Path, port: u16) -> Result<Self, LocalError> {
        Self::start_in(folder, port, true)
    }

    fn start_in(folder: &Path, port: u16, apart: bool) -> Result<Self, LocalError> {
        let programs = find()?;
        let cluster = folder.join("postgres");
        if !cluster.join("PG_VERSION").exists() {
            init(&programs, folder)?;
        }
        let secret = folder.join("postgres.password");
        let password = fs::read_to_string(&secret)
            .map_err(LocalError::io(format!("cannot read {}", secret.display())))?;
        let folder = folder.to_owned();
        let mut server = Self {
            process: None,
            programs,
            folder,
            password,
            port,
            apart,
        };
        server.start_again()?;
        Ok(server)
    }

    /// Makes a cluster in `folder` without starting it.
    ///
    /// # Errors
    /// - `Missing`: PostgreSQL is not installed.
    /// - `Failed`: `initdb` fails; with the end of its log.
    pub fn init(folder: &Path) -> Result<(), LocalError> {
        init(&find()?, folder)
    }

    /// Starts the server that was stopped or killed, on the same port and cluster.
    ///
    /// # Errors
    /// `Failed`: the server does not come up; with the end of its log.
    pub fn start_again(&mut self) -> Result<(), LocalError> {
        let deadline = Instant::now() + LEFTOVERS_END_WITHIN;
        loop {
            // Helpers of a server that was killed hold its memory until they notice.
            match self.try_start() {
                Err(LocalError::Failed { tail, .. })
                    if tail.contains("shared memory block") && Instant::now() < deadline =>
                {
                    thread::sleep(Duration::from_millis(100));
                }
                ended => return ended,
            }
        }
    }

    fn try_start(&mut self) -> Result<(), LocalError> {
        let mut command = as_postgres(&self.programs.join("postgres"))?;
        command.arg("-D").arg(self.folder.join("postgres"));
        command.args([
            "-p",
            &self.port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
        ]);
        command.args(["-c", "unix_socket_directories="]);
        if self.apart {
            command.process_group(0);
        }
        let log = self.folder.join("postgres.log");
        let mut process = ServerProcess::spawn("PostgreSQL", command, &log)?;
        process.wait_until(PATIENCE, || self.answers())?;
        self.process = Some(process);
        Ok(())
    }

    fn answers(&self) -> bool {
        Command::new(self.programs.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Returns the URL for clients, with the password.
    pub fn url(&self) -> String {
        format!(
            "postgres://{NAME}:{}@127.0.0.1:{}/{NAME}",
            self.password, self.port
        )
    }

    /// Returns the folder with PostgreSQL's own programs, `psql` among them.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Returns the process, while it runs.
    pub fn process(&mut self) -> Option<&mut ServerProcess> {
        self.process.as_mut()
    }

    /// Stops the server cleanly, breaking off open connections.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::INT, PATIENCE);
        }
    }

    /// Ends the server at once with all its helpers, as a crash would: what stands in its memory
    /// alone is lost. A helper that outlived it would go on to write.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.signal(Signal::STOP);
            signal_children(process.id(), Signal::KILL);
        }
        self.process = None;
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Finds the folder of PostgreSQL's programs: Debian's newest, else the one on PATH.
fn find() -> Result<PathBuf, LocalError> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    newest
        .into_iter()
        .chain(std::env::split_paths(&path))
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
        .ok_or(LocalError::Missing {
            program: "PostgreSQL",
            advice: "`make tools` installs it, or `apt-get install postgresql`",
        })
}

fn init(programs: &Path, folder: &Path) -> Result<(), LocalError> {
    let cluster = folder.join("postgres");
    fs::create_dir_all(&cluster)
        .map_err(LocalError::io(format!("cannot make {}", cluster.display())))?;
    let secret = folder.join("postgres.password");
    write_password(&secret).map_err(LocalError::io("cannot write the password"))?;
    if let Some((uid, gid)) = other_user()? {
        for path in [folder, &cluster, &secret] {
            chown(path, Some(uid), Some(gid)).map_err(LocalError::io(format!(
                "cannot give away {}",
                path.display()
            )))?;
        }
    }
    let mut initdb = as_postgres(&programs.join("initdb"))?;
    initdb
        .arg("--pgdata")
        .arg(&cluster)
        .arg("--pwfile")
        .arg(&secret);
    initdb.args(["--username", NAME, "--auth", "scram-sha-256"]);
    initdb.args(["--encoding", "UTF8", "--no-locale"]);
    run(initdb, folder, "")?;
    let mut single = as_postgres(&programs.join("postgres"))?;
    single
        .arg("--single")
        .arg("-D")
        .arg(&cluster)
        .arg("postgres");
    run(single, folder, &format!("CREATE DATABASE {NAME};\n"))
}

/// Runs a program to its end with `input`; its output goes to the log.
fn run(mut command: Command, folder: &Path, input: &str) -> Result<(), LocalError> {
    let log = folder.join("postgres.log");
    let file = fs::File::options().create(true).append(true).open(&log);
    let file = file.map_err(LocalError::io(format!("cannot write {}", log.display())))?;
    let errors = file
        .try_clone()
        .map_err(LocalError::io("cannot share the log"))?;
    command.stdin(Stdio::piped()).stdout(file).stderr(errors);
    let mut child = command
        .spawn()
        .map_err(LocalError::io("cannot start PostgreSQL's programs"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input.as_bytes())
            .map_err(LocalError::io("cannot make the database"))?;
    }
    let status = child
        .wait()
        .map_err(LocalError::io("cannot wait for PostgreSQL's programs"))?;
    if status.success() {
        return Ok(());
    }
    let tail = fs::read_to_string(&log).unwrap_or_default();
    let what = format!("cannot make a cluster in {} ({status})", folder.display());
    Err(LocalError::Failed {
        name: "PostgreSQL",
        what,
        log,
        tail,
    })
}

fn write_password(path: &Path) -> std::io::Result<()> {
    let password = uuid::Uuid::new_v4().simple().to_string();
    let mut options = fs::File::options();
    let mut file = options
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(password.as_bytes())
}

/// Prepares a program of PostgreSQL to run as a user that it accepts.
fn as_postgres(program: &Path) -> Result<Command, LocalError> {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some((uid, gid)) = other_user()? {
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// Returns the ids of the system user `postgres` where we are root, else nothing.
fn other_user() -> Result<Option<(u32, u32)>, LocalError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = users
        .lines()
        .find_map(|line| line.strip_prefix("postgres:"));
    let ids = entry.and_then(|rest| {
        let mut fields = rest
            .split(':')
            .skip(1)
            .map_while(|field| field.parse().ok());
        Some((fields.next()?, fields.next()?))
    });
    ids.map(Some).ok_or(LocalError::Missing {
        program: "the system user `postgres`",
        advice: "PostgreSQL refuses to run as root; `make tools` installs its package",
    })
}
