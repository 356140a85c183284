//! What a script's process may do, and the launcher that takes everything else away.
//!
//! The service starts its own program again with [`LAUNCH`] as first argument; that process gives up what it does not
//! need and becomes the interpreter. Nothing runs between fork and exec of the service, which has threads. In order:
//! it ends with the service, it cannot leave files open that it inherited, memory, files and processor time are
//! limited, it runs behind others, its capabilities are gone, and then
//! - **Landlock**: it reads the interpreter's files and writes into its own folder, nothing else (`files`);
//! - **seccomp**: no network, no other process, no tracing, no signals, no changes of system and rights (`calls`).

mod calls;
#[expect(unsafe_code, reason = "no crate in use closes all descriptors safely")]
mod descriptors;
mod files;

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use rustix::{
    io::Errno,
    process::{
        Pid, Resource, Rlimit, Signal, getppid, nice, set_parent_process_death_signal, setrlimit,
    },
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs},
};
use serde::{Deserialize, Serialize};

use crate::settings::Sandbox;

/// The first argument of a launcher.
pub const LAUNCH: &str = "launch-python";
/// The exit code of a launcher that could not confine itself.
pub(crate) const EXIT_NOT_CONFINED: u8 = 125;
/// Files that a script may have open.
const OPEN_FILES: u64 = 256;
/// How far a script stands behind the service when processors are short.
const NICE: i32 = 5;

/// What a launcher has to become, and within which bounds; its second argument, in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Confinement {
    /// The process that asks for it.
    pub(crate) service: u32,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) readable: Vec<PathBuf>,
    pub(crate) folder: PathBuf,
    pub(crate) sandbox: Sandbox,
    pub(crate) memory_bytes: u64,
    pub(crate) file_bytes: u64,
    pub(crate) processor_seconds: u64,
}

impl Confinement {
    pub(crate) fn to_args(&self) -> serde_json::Result<[String; 2]> {
        Ok([LAUNCH.to_owned(), serde_json::to_string(self)?])
    }

    /// Gives up everything and becomes the program; returns only what went wrong.
    fn become_program(&self) -> String {
        let bounded = self.bound().and_then(|()| match self.sandbox {
            Sandbox::Off => Ok(()),
            _ => self.confine(),
        });
        match bounded {
            Ok(()) => {
                let error = Command::new(&self.program).args(&self.args).exec();
                format!("{} cannot be started: {error}", self.program.display())
            }
            Err(problem) => problem,
        }
    }

    fn bound(&self) -> Result<(), String> {
        let text = |what: &'static str| move |error: Errno| format!("{what}: {error}");
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(text("the process cannot be bound to the service"))?;
        // The service may have ended before that was in force.
        if getppid()
            .map(Pid::as_raw_nonzero)
            .map(|pid| pid.get().unsigned_abs())
            != Some(self.service)
        {
            return Err("the service has ended".to_owned());
        }
        descriptors::close_on_exec();
        for (resource, most) in [
            (Resource::As, self.memory_bytes),
            (Resource::Fsize, self.file_bytes),
            (Resource::Cpu, self.processor_seconds),
            (Resource::Nofile, OPEN_FILES),
            (Resource::Core, 0),
        ] {
            let limit = Rlimit {
                current: Some(most),
                maximum: Some(most),
            };
            setrlimit(resource, limit).map_err(text("a limit cannot be set"))?;
        }
        // Already behind others is behind enough.
        let _behind = nice(NICE);
        Ok(())
    }

    fn confine(&self) -> Result<(), String> {
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        let parts: [(&str, Result<(), String>); 3] = [
            (
                "capabilities cannot be dropped",
                set_capabilities(None, none)
                    .and_then(|()| set_no_new_privs(true))
                    .map_err(|error| error.to_string()),
            ),
            (
                "the kernel has no Landlock (Linux 5.13 or newer, with `landlock` in the boot parameter `lsm`)",
                files::restrict(&self.readable, &self.folder),
            ),
            (
                "the kernel takes no seccomp filter",
                calls::restrict(std::process::id()),
            ),
        ];
        let missing: Vec<String> = parts
            .into_iter()
            .filter_map(|(what, done)| Some(format!("{what}: {}", done.err()?)))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join("; ");
        if self.sandbox == Sandbox::Required {
            return Err(missing);
        }
        tell(&format!(
            "the script runs without a part of the sandbox: {missing}"
        ));
        Ok(())
    }
}

/// Becomes the interpreter where the program was started as a launcher; else returns nothing. To be called first of
/// all in `main`, before there are other threads.
pub fn launch() -> Option<ExitCode> {
    let mut args = env::args_os().skip(1);
    if args.next() != Some(OsString::from(LAUNCH)) {
        return None;
    }
    let confinement = args.next().unwrap_or_default();
    let problem = match serde_json::from_slice::<Confinement>(confinement.as_encoded_bytes()) {
        Ok(confinement) => confinement.become_program(),
        Err(error) => format!("this is called by the service itself: {error}"),
    };
    tell(&problem);
    Some(ExitCode::from(EXIT_NOT_CONFINED))
}

#[expect(clippy::print_stderr, reason = "the service reads it")]
fn tell(text: &str) {
    eprintln!("{text}");
}
