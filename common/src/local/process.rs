//! One child process with a log file.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use super::LocalError;

const POLL: Duration = Duration::from_millis(10);
const LOG_TAIL_LINES: usize = 15;

/// A server that runs as a child process; it is killed when dropped.
#[derive(Debug)]
pub struct ServerProcess {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts `command` with its output appended to `log`.
    ///
    /// # Errors
    /// `Io`: the log cannot be written or the program cannot be started.
    pub fn spawn(name: &'static str, mut command: Command, log: &Path) -> Result<Self, LocalError> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.map_err(LocalError::io(format!("cannot write {}", log.display())))?;
        let errors = file
            .try_clone()
            .map_err(LocalError::io("cannot share the log"))?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command
            .spawn()
            .map_err(LocalError::io(format!("cannot start {name}")))?;
        Ok(Self {
            name,
            child,
            log: log.to_owned(),
        })
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the server's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the exit status if the process ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal; one that ended is left alone.
    pub fn signal(&mut self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let (None, Some(pid)) = (self.ended(), pid) {
            let _ended_meanwhile = kill_process(pid, signal);
        }
    }

    /// Asks the process to end by `signal` and waits; kills it after `patience`.
    ///
    /// Returns the exit status, or `None` where it had to be killed.
    pub fn stop(&mut self, signal: Signal, patience: Duration) -> Option<ExitStatus> {
        self.signal(signal);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            thread::sleep(POLL);
        }
        self.kill();
        None
    }

    /// Ends the process at once, as a crash would.
    pub fn kill(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }

    /// Waits until `ready` holds.
    ///
    /// # Errors
    /// `Failed`: the process ended, or `patience` ran out; with the end of the log.
    pub fn wait_until(
        &mut self,
        patience: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), LocalError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return Err(self.failed(format!("ended with {status}")));
            }
            if ready() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.failed(format!("did not answer within {patience:?}")));
            }
            thread::sleep(POLL);
        }
    }

    /// Makes the error that shows the end of the log.
    pub fn failed(&self, what: String) -> LocalError {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let skip = text.lines().count().saturating_sub(LOG_TAIL_LINES);
        let tail: Vec<&str> = text.lines().skip(skip).collect();
        LocalError::Failed {
            name: self.name,
            what,
            log: self.log.clone(),
            tail: tail.join("\n"),
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to the children of a process, one level down: PostgreSQL's helpers.
pub fn signal_children(parent: u32, signal: Signal) {
    let list = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(list).unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|id| id.parse().ok());
    for pid in pids.filter_map(Pid::from_raw) {
        let _ended_meanwhile = kill_process(pid, signal);
    }
}
