//! The data folder: one stack at a time, the same ports each time.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rovi_common::local::free_port;

/// Others may look through the folder, which PostgreSQL's user needs where we are root.
const FOLDER_MODE: u32 = 0o755;
/// Logs above this are set aside when the stack starts.
const LOG_BYTES: u64 = 16 << 20;

/// A data folder that belongs to this process until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder where it is missing and takes it for this process.
    ///
    /// # Errors
    /// Another `rovicli up` uses it, it cannot be written, or PostgreSQL's user cannot reach it.
    pub fn open(path: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .with_context(|| format!("cannot make the data folder {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot open the data folder {}", path.display()))?;
        let lock = lock(&path)?;
        check_reachable(&path)?;
        for log in ["hub.log", "twin.log"] {
            set_aside(&path.join(log))?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a folder within, made where it is missing.
    pub(super) fn sub(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Returns the port of a server: that of last time if it is free, else another.
    pub(super) fn port(&self, server: &str) -> Result<u16> {
        let file = self.path.join(format!("{server}.port"));
        let known = fs::read_to_string(&file).unwrap_or_default();
        if let Ok(port) = known.trim().parse()
            && is_free(port)
        {
            return Ok(port);
        }
        let port = free_port()?;
        fs::write(&file, format!("{port}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(port)
    }
}

/// Whether a port of loopback can be listened on.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let who = if known {
                format!(" (process {})", holder.trim())
            } else {
                String::new()
            };
            bail!(
                "another `rovicli up`{who} runs on {}; stop it, or choose another folder with --data",
                folder.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// PostgreSQL refuses to run as root and then runs as the user `postgres`, who must get there.
fn check_reachable(folder: &Path) -> Result<()> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    for ancestor in folder.ancestors().skip(1) {
        let open_to_all = fs::metadata(ancestor).is_ok_and(|found| found.mode() & 0o001 != 0);
        if is_root && !open_to_all {
            bail!(
                "PostgreSQL does not run as root but as the user `postgres`, who may not enter {}; \
                 choose another folder with --data",
                ancestor.display()
            );
        }
    }
    Ok(())
}

fn set_aside(log: &Path) -> Result<()> {
    if fs::metadata(log).is_ok_and(|found| found.len() > LOG_BYTES) {
        let old = log.with_extension("log.old");
        fs::rename(log, &old).with_context(|| format!("cannot rename {}", log.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_stack_on_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataFolder::open(&path).unwrap();
        let error = DataFolder::open(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        DataFolder::open(&path).unwrap();
    }

    #[test]
    fn a_server_keeps_its_port_while_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let port = data.port("nats").unwrap();
        assert_eq!(data.port("nats").unwrap(), port);
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert_ne!(data.port("nats").unwrap(), port);
    }
}
