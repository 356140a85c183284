//! One process and the three pipes to it: frames in, frames out, and what the script prints.
//!
//! An exchange ends at its deadline whatever the process does; meanwhile its output is read on, so that a script that
//! prints a lot is never held up, and its folder is looked at.

use std::{
    collections::VecDeque,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::Path,
    process::{Child, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};
use tempfile::TempDir;

use crate::{nursery::Nursery, sandbox::EXIT_NOT_CONFINED};

/// The most bytes of a reply.
const MAX_REPLY_BYTES: usize = 32 << 20;
/// How much of what a script prints is kept.
const PRINTED_BYTES: usize = 4096;
/// How often the folder and the cancellation are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The most entries of a script's folder.
const MAX_ENTRIES: usize = 10_000;
const CHUNK: usize = 16 * 1024;

/// Ends the exchanges of a session from another thread.
pub type Cancel = Arc<AtomicBool>;

/// Why an exchange gave no reply; the process is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The process ended.
    #[error("the script's process ended: {status}{}", shown(.printed))]
    Ended {
        /// How it ended.
        status: String,
        /// The end of what it printed.
        printed: String,
    },
    /// The sandbox could not be set up.
    #[error("{0}")]
    NotConfined(String),
    /// It took too long.
    #[error("the script took longer than {allowed:?} {what} and was ended{}", shown(.printed))]
    Slow {
        /// The limit.
        allowed: Duration,
        /// What it was asked for.
        what: &'static str,
        /// The end of what it printed.
        printed: String,
    },
    /// It wrote more into its folder than it may.
    #[error(
        "the script filled its folder beyond {bytes} bytes or {MAX_ENTRIES} entries and was ended"
    )]
    FolderFull {
        /// The limit.
        bytes: u64,
    },
    /// Its reply is no frame.
    #[error("the script's process sent what is no reply: {0}")]
    Garbled(String),
    /// The caller gave up.
    #[error("the work was broken off")]
    Cancelled,
    /// The pipes cannot be used.
    #[error("the pipes to the script's process cannot be used")]
    Pipe(#[source] io::Error),
}

fn shown(printed: &str) -> String {
    if printed.is_empty() {
        return String::new();
    }
    format!("; it printed at last:\n{printed}")
}

/// A running script.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    requests: OwnedFd,
    replies: OwnedFd,
    output: Option<OwnedFd>,
    printed: VecDeque<u8>,
    folder: TempDir,
    folder_bytes: u64,
    cancel: Cancel,
    _nursery: Arc<Nursery>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Process {
    /// Takes over a child whose three standard streams are pipes.
    pub(crate) fn new(
        mut child: Child,
        (folder, folder_bytes): (TempDir, u64),
        cancel: Cancel,
        nursery: Arc<Nursery>,
    ) -> io::Result<Self> {
        let missing = || io::Error::other("a standard stream is no pipe");
        let requests = OwnedFd::from(child.stdin.take().ok_or_else(missing)?);
        let replies = OwnedFd::from(child.stdout.take().ok_or_else(missing)?);
        let output = OwnedFd::from(child.stderr.take().ok_or_else(missing)?);
        for pipe in [&requests, &replies, &output] {
            fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)?;
        }
        Ok(Self {
            child,
            requests,
            replies,
            output: Some(output),
            printed: VecDeque::new(),
            folder,
            folder_bytes,
            cancel,
            _nursery: nursery,
        })
    }

    /// Returns the process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the end of what the script printed.
    pub(crate) fn printed(&self) -> String {
        let bytes: Vec<u8> = self.printed.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// Sends a request and returns the reply, both without their lengths. After an error the process is of no use.
    pub(crate) fn exchange(
        &mut self,
        request: &[u8],
        (what, allowed): (&'static str, Duration),
    ) -> Result<Vec<u8>, ProcessError> {
        let deadline = Instant::now() + allowed;
        let length = u32::try_from(request.len())
            .map_err(|_too_long| ProcessError::Garbled("the request is too long".to_owned()))?;
        let frame = [&length.to_be_bytes(), request].concat();
        let mut unsent = frame.as_slice();
        let mut reply = Reply::default();
        loop {
            self.look()?;
            let now = Instant::now();
            if now >= deadline {
                let printed = self.printed();
                return Err(ProcessError::Slow {
                    allowed,
                    what,
                    printed,
                });
            }
            let ready = self.wait((deadline - now).min(LOOK), !unsent.is_empty());
            let ready = ready.map_err(pipe)?;
            if ready.output {
                self.read_output().map_err(pipe)?;
            }
            if ready.requests && !self.send(&mut unsent).map_err(pipe)? {
                return Err(self.ended());
            }
            if ready.replies {
                match self.receive(&mut reply)? {
                    Received::All => return Ok(reply.bytes),
                    Received::Part => {}
                    Received::End => return Err(self.ended()),
                }
            }
        }
    }

    /// Looks at what a script may do without anybody waiting for it.
    fn look(&self) -> Result<(), ProcessError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(ProcessError::Cancelled);
        }
        let bytes = self.folder_bytes;
        if is_full(self.folder.path(), bytes) {
            return Err(ProcessError::FolderFull { bytes });
        }
        Ok(())
    }

    fn wait(&self, time: Duration, is_sending: bool) -> io::Result<Ready> {
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        let wanted = |is: bool, flag| if is { flag } else { PollFlags::empty() };
        let mut pipes = vec![
            PollFd::new(&self.replies, PollFlags::IN),
            PollFd::new(&self.requests, wanted(is_sending, PollFlags::OUT)),
        ];
        pipes.extend(
            self.output
                .iter()
                .map(|output| PollFd::new(output, PollFlags::IN)),
        );
        match poll(&mut pipes, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |at: usize| pipes.get(at).is_some_and(|pipe| !pipe.revents().is_empty());
        Ok(Ready {
            replies: is_ready(0),
            requests: is_sending && is_ready(1),
            output: is_ready(2),
        })
    }

    /// Sends what the pipe takes; tells whether anybody reads.
    fn send(&self, unsent: &mut &[u8]) -> io::Result<bool> {
        match rustix::io::write(&self.requests, unsent) {
            Ok(count) => *unsent = unsent.get(count..).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::PIPE) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    fn receive(&self, reply: &mut Reply) -> Result<Received, ProcessError> {
        let mut chunk = [0; CHUNK];
        let most = reply.missing()?.min(CHUNK);
        let place = chunk.get_mut(..most).unwrap_or_default();
        match rustix::io::read(&self.replies, place) {
            Ok(0) => Ok(Received::End),
            Ok(count) => {
                reply.add(chunk.get(..count).unwrap_or_default());
                Ok(if reply.is_whole() {
                    Received::All
                } else {
                    Received::Part
                })
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Part),
            Err(error) => Err(pipe(error.into())),
        }
    }

    fn read_output(&mut self) -> io::Result<()> {
        let Some(output) = &self.output else {
            return Ok(());
        };
        let mut chunk = [0; CHUNK];
        match rustix::io::read(output.as_fd(), &mut chunk) {
            Ok(0) => self.output = None,
            Ok(count) => {
                self.printed.extend(chunk.iter().take(count));
                let excess = self.printed.len().saturating_sub(PRINTED_BYTES);
                self.printed.drain(..excess);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Tells how the process ended; one that only closed its pipes is ended.
    fn ended(&mut self) -> ProcessError {
        let patience = Instant::now() + Duration::from_secs(1);
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < patience => std::thread::sleep(LOOK / 10),
                _ => break None,
            }
        };
        while self.output.is_some()
            && self
                .wait(Duration::ZERO, false)
                .is_ok_and(|ready| ready.output)
        {
            if self.read_output().is_err() {
                break;
            }
        }
        let printed = self.printed();
        match status {
            Some(status) if status.code() == Some(EXIT_NOT_CONFINED.into()) => {
                ProcessError::NotConfined(printed)
            }
            status => ProcessError::Ended {
                status: describe(status),
                printed,
            },
        }
    }
}

fn pipe(error: io::Error) -> ProcessError {
    ProcessError::Pipe(error)
}

fn describe(status: Option<ExitStatus>) -> String {
    let Some(status) = status else {
        return "it closed its pipes".to_owned();
    };
    match status.signal() {
        Some(9) => "killed (signal 9), perhaps for lack of memory".to_owned(),
        Some(24) => "it used up its processor time (signal 24)".to_owned(),
        _ => status.to_string(),
    }
}

struct Ready {
    replies: bool,
    requests: bool,
    output: bool,
}

enum Received {
    Part,
    All,
    End,
}

/// A reply on its way in.
#[derive(Default)]
struct Reply {
    head: Vec<u8>,
    bytes: Vec<u8>,
    length: usize,
}

impl Reply {
    /// How many bytes are missing of the length, or of what follows it.
    fn missing(&mut self) -> Result<usize, ProcessError> {
        let Some(head) = self.head.first_chunk::<4>() else {
            return Ok(4 - self.head.len());
        };
        self.length = u32::from_be_bytes(*head) as usize;
        if self.length == 0 || self.length > MAX_REPLY_BYTES {
            let length = self.length;
            return Err(ProcessError::Garbled(format!("a reply of {length} bytes")));
        }
        Ok(self.length - self.bytes.len())
    }

    fn add(&mut self, bytes: &[u8]) {
        let part = if self.head.len() < 4 {
            &mut self.head
        } else {
            &mut self.bytes
        };
        part.extend_from_slice(bytes);
    }

    fn is_whole(&self) -> bool {
        self.length > 0 && self.bytes.len() == self.length
    }
}

/// Whether a folder holds more bytes or entries than it may.
fn is_full(folder: &Path, most: u64) -> bool {
    let (mut bytes, mut entries) = (0_u64, 0_usize);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            entries += 1;
            // A link is not followed.
            let Ok(known) = entry.metadata() else {
                continue;
            };
            if known.is_dir() {
                folders.push(entry.path());
            }
            bytes = bytes.saturating_add(known.len());
            if bytes > most || entries > MAX_ENTRIES {
                return true;
            }
        }
    }
    false
}
