//! How scripts are run.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// How a script's process is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// Scripts are refused where the kernel lacks a part of the sandbox.
    #[default]
    Required,
    /// What the kernel lacks is left out, with a warning in the script's output.
    BestEffort,
    /// Only the limits of memory, files and time hold. For scripts as trusted as the service itself.
    Off,
}

/// What one script may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Address space of the process, in bytes.
    pub memory_bytes: u64,
    /// Bytes of its folder, the companion files included.
    pub folder_bytes: u64,
    /// Processor time of one process, after which it is started again from its last saved state.
    #[serde(with = "humantime_serde")]
    pub processor_time: Duration,
    /// How long a script may take to load and to read a saved state.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// How long it may take for a batch of at most 64 rows, or to save its state.
    #[serde(with = "humantime_serde")]
    pub batch_timeout: Duration,
    /// How long `perform_offline_estimation` may take.
    #[serde(with = "humantime_serde")]
    pub offline_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            folder_bytes: 64 << 20,
            processor_time: Duration::from_hours(24),
            start_timeout: Duration::from_mins(1),
            batch_timeout: Duration::from_secs(10),
            offline_timeout: Duration::from_mins(10),
        }
    }
}

/// The settings of everything that runs scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The interpreter: a name looked for in `PATH`, or a path, such as that of a virtual environment.
    pub interpreter: PathBuf,
    /// How scripts are confined.
    pub sandbox: Sandbox,
    /// Folders and files that scripts may read besides the interpreter's own.
    pub readable: Vec<PathBuf>,
    /// Where each script gets its folder; the system's folder for temporary files if left out.
    pub folder: Option<PathBuf>,
    /// The program that confines itself and becomes the interpreter; this program itself if left out.
    pub launcher: Option<PathBuf>,
    /// What one script may use.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interpreter: "python3".into(),
            sandbox: Sandbox::default(),
            readable: Vec::new(),
            folder: None,
            launcher: None,
            limits: Limits::default(),
        }
    }
}

/// Scripts cannot be run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The interpreter is missing, too old or broken.
    #[error(
        "Python scripts cannot be run: the interpreter `{}` {reason}; install Python 3.8 or newer, \
         or set `python.interpreter`", interpreter.display()
    )]
    Interpreter {
        /// The setting.
        interpreter: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No process can be started, or no folder made for it.
    #[error("Python scripts cannot be run: {0}")]
    Process(String),
    /// The kernel lacks a part of the sandbox.
    #[error(
        "Python scripts cannot be run: {missing}; use a kernel that has it, or set \
         `python.sandbox` to `best_effort`, or to `off` where every script is trusted"
    )]
    Sandbox {
        /// What is missing.
        missing: String,
    },
}
