//! What the process that reads an uploaded file may do: read that file, and write to its output.
//!
//! Memory, processor time and files are limited, it ends with the hub, and then
//! - **Landlock**: no file but this one, and no TCP;
//! - **seccomp**: of all system calls only those that reading takes. Others fail with EPERM.

use std::{collections::BTreeMap, path::Path};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use libc::{
    SYS_brk, SYS_clock_gettime, SYS_clock_nanosleep, SYS_close, SYS_exit, SYS_exit_group,
    SYS_fcntl, SYS_flock, SYS_fstat, SYS_futex, SYS_getcwd, SYS_getpid, SYS_getrandom, SYS_gettid,
    SYS_lseek, SYS_madvise, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_munmap, SYS_newfstatat,
    SYS_openat, SYS_pread64, SYS_read, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn,
    SYS_sched_yield, SYS_sigaltstack, SYS_statx, SYS_tgkill, SYS_write, SYS_writev, c_long,
};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

/// Memory, in bytes of address space: a chunk of the file is unpacked as a whole.
pub(super) const MEMORY_BYTES: u64 = 1 << 30;
/// Processor time, in seconds.
pub(super) const PROCESSOR_SECONDS: u64 = 600;
/// Files open at once.
const OPEN_FILES: u64 = 32;
/// What reading takes; `tgkill` is how the process ends itself where it must.
const CALLS: [c_long; 33] = [
    SYS_brk,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_close,
    SYS_exit,
    SYS_exit_group,
    SYS_fcntl,
    SYS_flock,
    SYS_fstat,
    SYS_futex,
    SYS_getcwd,
    SYS_getpid,
    SYS_getrandom,
    SYS_gettid,
    SYS_lseek,
    SYS_madvise,
    SYS_mmap,
    SYS_mprotect,
    SYS_mremap,
    SYS_munmap,
    SYS_newfstatat,
    SYS_openat,
    SYS_pread64,
    SYS_read,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sched_yield,
    SYS_sigaltstack,
    SYS_statx,
    SYS_tgkill,
    SYS_write,
    SYS_writev,
];

/// Gives up all but `file`; returns what the kernel lacks for that, where it lacks something.
///
/// # Errors
/// A limit or the filter of system calls cannot be set: nothing shall be read then.
pub(super) fn confine(file: &Path) -> Result<Option<String>, String> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("the process cannot be bound to the hub: {error}"))?;
    for (resource, most) in [
        (Resource::As, MEMORY_BYTES),
        (Resource::Cpu, PROCESSOR_SECONDS),
        (Resource::Fsize, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(|error| format!("a limit cannot be set: {error}"))?;
    }
    let files = restrict_files(file);
    restrict_calls().map_err(|error| format!("system calls cannot be denied: {error}"))?;
    Ok(match files {
        Ok(RulesetStatus::NotEnforced) => Some("the kernel has no Landlock".to_owned()),
        Ok(_) => None,
        Err(error) => Some(format!("Landlock: {error}")),
    })
}

fn restrict_files(file: &Path) -> Result<RulesetStatus, RulesetError> {
    // What a kernel does not know yet is left out.
    let newest = ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        .add_rules(path_beneath_rules([file], AccessFs::ReadFile))?
        .restrict_self()?;
    Ok(status.ruleset)
}

fn restrict_calls() -> Result<(), seccompiler::Error> {
    let allowed: BTreeMap<_, _> = CALLS.map(|call| (call, Vec::new())).into();
    let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(allowed, eperm, SeccompAction::Allow, arch)?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter(&program)
}
