//! The hub's end of the process that reads a file.

use std::{process::Stdio, time::Duration};

use bytes::Bytes;
use rovi_common::{http::Problem, name::BatteryName};
use tempfile::TempPath;
use tokio::{
    io::{AsyncReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use uuid::Uuid;

use super::{
    child::{END, HEAD, Head, NOTE, READ, ROWS, WRONG, Wrong},
    confine::{MEMORY_BYTES, PROCESSOR_SECONDS},
};

/// The longest record: what it is decoded to takes 16 times as much at most.
const RECORD_BYTES: u32 = 16 << 20;
/// So many notes are told; many more would say the same.
const MOST_NOTES: usize = 20;
/// How long a record is waited for; the processor time of the process ends before.
const PATIENCE: Duration = Duration::from_secs(PROCESSOR_SECONDS + 60);

/// A file that is being read; dropping it ends the process and removes the file.
#[derive(Debug)]
pub(super) struct Reading {
    records: BufReader<ChildStdout>,
    /// What is stored otherwise than it stands in the file.
    pub(super) notes: Vec<String>,
    _child: Child,
    _file: TempPath,
}

impl Reading {
    /// Starts the process and returns what it finds in the file.
    ///
    /// # Errors
    /// 400 where the file cannot be read, 500 where no process can be started.
    pub(super) async fn start(
        file: TempPath,
        prefix: Option<&str>,
    ) -> Result<(Self, Head), Problem> {
        let own = std::env::current_exe().map_err(|error| Problem::internal(&error))?;
        let mut command = Command::new(own);
        command.arg(READ).arg(&file).args(prefix);
        // The environment has secrets; where libraries lie is none.
        let libraries = std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path));
        command.env_clear().envs(libraries);
        // The allocator takes a large piece of address space in advance, which has a limit there.
        command.env("MIMALLOC_ARENA_RESERVE", "0");
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| Problem::internal(&error))?;
        let output = child.stdout.take().ok_or_else(broke_off)?;
        let mut reading = Self {
            records: BufReader::new(output),
            notes: Vec::new(),
            _child: child,
            _file: file,
        };
        let (HEAD, head) = reading.record().await? else {
            return Err(broke_off());
        };
        let head: Head = serde_json::from_slice(&head).map_err(|_garbled| broke_off())?;
        if let Some(missing) = &head.unconfined {
            tracing::warn!("an uploaded file is read without a part of the sandbox: {missing}");
        }
        Ok((reading, head))
    }

    /// Returns the next rows in msgpack; `None` after the last.
    ///
    /// # Errors
    /// 400 where the file cannot be read to its end.
    pub(super) async fn rows(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            match self.record().await? {
                (ROWS, rows) => return Ok(Some(rows)),
                (END, _) => return Ok(None),
                (NOTE, text) if self.notes.len() < MOST_NOTES => {
                    self.notes.push(String::from_utf8_lossy(&text).into_owned());
                }
                (NOTE, _) => {}
                _ => return Err(broke_off()),
            }
        }
    }

    async fn record(&mut self) -> Result<(u8, Bytes), Problem> {
        let record = timeout(PATIENCE, self.read()).await;
        let record = record.map_err(|_too_slow| broke_off())?;
        match record.map_err(|_ended| broke_off())? {
            (WRONG, text) => Err(wrong(&text)),
            record => Ok(record),
        }
    }

    async fn read(&mut self) -> std::io::Result<(u8, Bytes)> {
        let kind = self.records.read_u8().await?;
        let length = self.records.read_u32_le().await?;
        if length > RECORD_BYTES {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length as usize];
        self.records.read_exact(&mut bytes).await?;
        Ok((kind, bytes.into()))
    }
}

impl Head {
    /// Returns the session of this content of this battery.
    pub(super) fn session(&self, battery: &BatteryName) -> Uuid {
        rovi_battdat::session(battery, self.prefix.as_deref(), &self.fingerprint)
    }
}

fn wrong(text: &[u8]) -> Problem {
    let Ok(Wrong { text, field }) = serde_json::from_slice(text) else {
        return broke_off();
    };
    let problem = Problem::bad_request(text);
    match field {
        Some(field) => problem.at(&field),
        None => problem,
    }
}

/// 400: the process ended without a word, as one does that libhdf5 led astray.
fn broke_off() -> Problem {
    Problem::bad_request(format!(
        "the file cannot be read: it is damaged, or takes more than {} MiB of memory or \
         {PROCESSOR_SECONDS} s of processor time to unpack; `rovicli stream` reads it where it lies",
        MEMORY_BYTES >> 20
    ))
}
