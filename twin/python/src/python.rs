//! Where scripts run: one interpreter and its settings, shared by all sessions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use tempfile::TempDir;

use crate::{
    interpreter::Interpreter,
    nursery::Nursery,
    process::{Cancel, Process},
    sandbox::Confinement,
    script::Script,
    settings::{Settings, Unavailable},
};

const DRIVER: &str = include_str!("driver.py");
/// Libraries with threads of their own reserve address space for each.
const ONE_THREAD: [&str; 4] = [
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
];

/// An interpreter that runs scripts.
#[derive(Debug)]
pub struct Python {
    settings: Settings,
    nursery: Arc<Nursery>,
    interpreter: Mutex<Option<Interpreter>>,
}

impl Python {
    /// Returns what runs scripts; the interpreter is looked for when it is needed first.
    ///
    /// # Errors
    /// [`Unavailable::Process`]: the thread that starts processes cannot be made.
    pub fn new(settings: Settings) -> Result<Self, Unavailable> {
        let nursery = Nursery::new().map_err(|error| Unavailable::Process(error.to_string()))?;
        Ok(Self {
            settings,
            nursery: Arc::new(nursery),
            interpreter: Mutex::default(),
        })
    }

    /// Returns the settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the interpreter; one that is not found is looked for again the next time.
    ///
    /// # Errors
    /// [`Unavailable::Interpreter`].
    pub fn interpreter(&self) -> Result<Interpreter, Unavailable> {
        let known = &mut *self
            .interpreter
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(found) => Ok(found.clone()),
            None => Ok(known
                .insert(Interpreter::ask(&self.settings.interpreter)?)
                .clone()),
        }
    }

    /// Starts the process of a script in a folder of its own, which holds its files.
    pub(crate) fn start(&self, script: &Script, cancel: Cancel) -> Result<Process, Unavailable> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Unavailable::Process(format!("{what}: {error}"))
        };
        let interpreter = self.interpreter()?;
        let folder = self
            .folder()
            .map_err(|error| failed("no folder can be made", &error))?;
        for file in script.files() {
            let written = fs::write(folder.path().join(&file.name), &file.content);
            written.map_err(|error| failed("a file cannot be written", &error))?;
        }
        let command = self
            .command(interpreter, folder.path())
            .map_err(|error| failed("the launcher cannot be called", &error))?;
        let child = self.nursery.start(command);
        let child = child.map_err(|error| failed("no process can be started", &error))?;
        let nursery = Arc::clone(&self.nursery);
        Process::new(
            child,
            (folder, self.settings.limits.folder_bytes),
            cancel,
            nursery,
        )
        .map_err(|error| failed("the process cannot be reached", &error))
    }

    fn folder(&self) -> std::io::Result<TempDir> {
        let place = self
            .settings
            .folder
            .clone()
            .unwrap_or_else(std::env::temp_dir);
        // Landlock wants the path that the kernel sees.
        tempfile::Builder::new()
            .prefix("rovi-script-")
            .tempdir_in(place.canonicalize()?)
    }

    fn command(&self, interpreter: Interpreter, folder: &Path) -> serde_json::Result<Command> {
        let Settings {
            sandbox,
            readable,
            launcher,
            limits,
            ..
        } = &self.settings;
        let confinement = Confinement {
            service: std::process::id(),
            program: interpreter.program,
            args: ["-I", "-B", "-X", "utf8", "-c", DRIVER]
                .map(str::to_owned)
                .to_vec(),
            readable: interpreter
                .readable
                .iter()
                .chain(readable)
                .cloned()
                .collect(),
            folder: folder.to_owned(),
            sandbox: *sandbox,
            memory_bytes: limits.memory_bytes,
            file_bytes: limits.folder_bytes,
            processor_seconds: limits.processor_time.as_secs().max(1),
        };
        // This very program, also where its file was replaced meanwhile.
        let own = || PathBuf::from("/proc/self/exe");
        let mut command = Command::new(launcher.clone().unwrap_or_else(own));
        command
            .args(confinement.to_args()?)
            .current_dir(folder)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .envs(["HOME", "TMPDIR", "MPLCONFIGDIR"].map(|name| (name, folder)))
            .envs(ONE_THREAD.map(|name| (name, "1")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }
}
