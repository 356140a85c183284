//! Processes that an earlier `rovicli up` could not stop, because it was killed itself.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rovi_common::local::Signal;
use rustix::process::{Pid, kill_process};
use serde::{Deserialize, Serialize};

use super::DataFolder;

/// How long each may take to stop before it is killed.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// The field of `/proc/<pid>/stat` behind the name that tells when a process began.
const START_FIELD: usize = 19;

/// A child process. A number may be given to another process later, its start time tells that.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Running {
    name: String,
    pid: i32,
    /// In clock ticks since the machine began.
    began: u64,
}

fn file(folder: &DataFolder) -> PathBuf {
    folder.path().join("running.json")
}

/// Notes the processes that run, in the order in which they are to be stopped.
pub(super) fn remember(folder: &DataFolder, processes: &[(&'static str, u32)]) -> Result<()> {
    let running = processes.iter().filter_map(|&(name, id)| {
        let pid = i32::try_from(id).ok()?;
        let began = began(pid)?;
        Some(Running {
            name: name.to_owned(),
            pid,
            began,
        })
    });
    let text = serde_json::to_string(&running.collect::<Vec<_>>())?;
    let path = file(folder);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Forgets the processes, which are stopped.
pub(super) fn forget(folder: &DataFolder) {
    let _was_there = fs::remove_file(file(folder)).is_ok();
}

/// Stops what is noted and still runs.
pub(super) fn stop(folder: &DataFolder, progress: &impl Fn(&str)) -> Result<()> {
    let Ok(text) = fs::read_to_string(file(folder)) else {
        return Ok(());
    };
    let noted: Vec<Running> = serde_json::from_str(&text).unwrap_or_default();
    for process in noted.iter().filter(|process| process.lives()) {
        progress(&format!(
            "stopping {}, which an earlier `rovicli up` left behind",
            process.name
        ));
        process.stop()?;
    }
    forget(folder);
    Ok(())
}

impl Running {
    fn lives(&self) -> bool {
        began(self.pid) == Some(self.began)
    }

    fn stop(&self) -> Result<()> {
        // PostgreSQL waits for its clients on SIGTERM and breaks them off on SIGINT.
        let first = if self.name == "PostgreSQL" {
            Signal::INT
        } else {
            Signal::TERM
        };
        for signal in [first, Signal::KILL] {
            if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.lives()) {
                kill_process(pid, signal).with_context(|| {
                    format!("{} (process {}) cannot be stopped", self.name, self.pid)
                })?;
            }
            let deadline = Instant::now() + PATIENCE;
            while self.lives() && Instant::now() < deadline {
                thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

/// Tells when a process began; `None` where there is none, or only its exit status is left.
fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(START_FIELD - 1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_was_left_behind_is_stopped_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let mut left = Command::new("sleep").arg("60").spawn().unwrap();
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        remember(&data, &[("hub", left.id()), ("twin", other.id())]).unwrap();
        // As if the number of `other` had been given to another process since.
        let text = fs::read_to_string(file(&data)).unwrap();
        let mut noted: Vec<Running> = serde_json::from_str(&text).unwrap();
        noted[1].began += 1;
        fs::write(file(&data), serde_json::to_string(&noted).unwrap()).unwrap();

        stop(&data, &|_| ()).unwrap();
        assert!(left.try_wait().unwrap().is_some());
        assert!(other.try_wait().unwrap().is_none());
        assert!(!file(&data).exists());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
