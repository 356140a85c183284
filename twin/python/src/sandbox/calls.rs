//! Which system calls a script may make, by seccomp: a list of those it may not.
//!
//! A list of what is allowed would have to follow every version of Python, its libraries and the C library. Denied
//! calls fail with EPERM, so a script learns what it cannot have.

use std::collections::BTreeMap;

use libc::{
    CLONE_THREAD, O_ACCMODE, O_TRUNC, SYS_accept, SYS_accept4, SYS_acct, SYS_add_key, SYS_adjtimex,
    SYS_bind, SYS_bpf, SYS_chroot, SYS_clock_adjtime, SYS_clock_settime, SYS_clone, SYS_clone3,
    SYS_connect, SYS_delete_module, SYS_fanotify_init, SYS_fchmod, SYS_fchmodat, SYS_fchown,
    SYS_fchownat, SYS_finit_module, SYS_fremovexattr, SYS_fsconfig, SYS_fsetxattr, SYS_fsmount,
    SYS_fsopen, SYS_fspick, SYS_init_module, SYS_inotify_init1, SYS_io_uring_enter,
    SYS_io_uring_register, SYS_io_uring_setup, SYS_kcmp, SYS_kexec_load, SYS_keyctl, SYS_kill,
    SYS_listen, SYS_lremovexattr, SYS_lsetxattr, SYS_mount, SYS_mount_setattr, SYS_move_mount,
    SYS_mq_open, SYS_msgctl, SYS_msgget, SYS_msgrcv, SYS_msgsnd, SYS_name_to_handle_at,
    SYS_open_by_handle_at, SYS_open_tree, SYS_openat, SYS_openat2, SYS_perf_event_open,
    SYS_personality, SYS_pidfd_getfd, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_pivot_root,
    SYS_prlimit64, SYS_process_madvise, SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace,
    SYS_quotactl, SYS_reboot, SYS_removexattr, SYS_request_key, SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo, SYS_sched_setattr, SYS_sched_setparam, SYS_sched_setscheduler,
    SYS_semctl, SYS_semget, SYS_semop, SYS_semtimedop, SYS_sendmmsg, SYS_sendmsg, SYS_sendto,
    SYS_setdomainname, SYS_sethostname, SYS_setns, SYS_setpriority, SYS_setrlimit,
    SYS_settimeofday, SYS_setxattr, SYS_shmat, SYS_shmctl, SYS_shmget, SYS_socket, SYS_socketpair,
    SYS_swapoff, SYS_swapon, SYS_syslog, SYS_tgkill, SYS_tkill, SYS_truncate, SYS_umount2,
    SYS_unshare, SYS_userfaultfd, SYS_utimensat, SYS_vhangup, c_long,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

/// Sockets, and messages with them.
const NETWORK: [c_long; 11] = [
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_sendto,
    SYS_sendmsg,
    SYS_sendmmsg,
    SYS_inotify_init1,
];
/// Other processes: their memory, files, signals, and what is shared between processes.
const PROCESSES: [c_long; 25] = [
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_kcmp,
    SYS_pidfd_open,
    SYS_pidfd_getfd,
    SYS_pidfd_send_signal,
    SYS_kill,
    SYS_tkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_shmget,
    SYS_shmat,
    SYS_shmctl,
    SYS_semget,
    SYS_semop,
    SYS_semtimedop,
    SYS_semctl,
    SYS_msgget,
    SYS_msgsnd,
    SYS_msgrcv,
    SYS_msgctl,
    SYS_mq_open,
    SYS_setpriority,
];
/// The kernel and the machine.
const SYSTEM: [c_long; 42] = [
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_unshare,
    SYS_setns,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_acct,
    SYS_quotactl,
    SYS_syslog,
    SYS_vhangup,
    SYS_personality,
    SYS_fanotify_init,
    SYS_sched_setscheduler,
    SYS_sched_setparam,
    SYS_sched_setattr,
    SYS_setrlimit,
];
/// Rights, owners and times of files that Landlock lets be seen, and ways around a path.
const RIGHTS: [c_long; 14] = [
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fchown,
    SYS_fchownat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_fsetxattr,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_fremovexattr,
    SYS_utimensat,
    SYS_truncate,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
];
/// Calls that only x86-64 still has, and `fchmodat2`, which libc does not name everywhere.
#[cfg(target_arch = "x86_64")]
const OLDER: [c_long; 13] = [
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
    452,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [c_long; 1] = [452];
/// Calls with a plainer form that can be checked, to which libraries fall back.
const NOT_THERE: [c_long; 5] = [
    SYS_clone3,
    SYS_openat2,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
];

/// Denies the calls from here on, also to the program that this process becomes; `own` is the process's number.
pub(super) fn restrict(own: u32) -> Result<(), String> {
    let text = |error: seccompiler::Error| error.to_string();
    for program in programs(own).map_err(|error| error.to_string())? {
        apply_filter(&program).map_err(text)?;
    }
    Ok(())
}

fn programs(own: u32) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut programs = vec![
        filter(denied(own)?, libc::EPERM)?,
        filter(
            NOT_THERE.map(|call| (call, Vec::new())).into(),
            libc::ENOSYS,
        )?,
    ];
    // All are asked, and the strictest answer holds.
    programs.extend(foreign_calls());
    Ok(programs)
}

fn filter(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::BackendError> {
    #[cfg(target_arch = "x86_64")]
    let machine = TargetArch::x86_64;
    #[cfg(target_arch = "aarch64")]
    let machine = TargetArch::aarch64;
    #[cfg(target_arch = "riscv64")]
    let machine = TargetArch::riscv64;
    let denied = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, denied, machine)?.try_into()
}

fn denied(own: u32) -> Result<BTreeMap<c_long, Vec<SeccompRule>>, seccompiler::BackendError> {
    let always = NETWORK
        .iter()
        .chain(&PROCESSES)
        .chain(&SYSTEM)
        .chain(&RIGHTS)
        .chain(&OLDER);
    let mut rules: BTreeMap<_, _> = always.map(|&call| (call, Vec::new())).collect();
    let thread = u64::from(CLONE_THREAD.unsigned_abs());
    let truncating = u64::from((O_TRUNC | O_ACCMODE).unsigned_abs());
    let truncated = u64::from(O_TRUNC.unsigned_abs());
    // Threads, but no processes.
    rules.insert(SYS_clone, when(0, Len::Qword, Op::MaskedEq(thread), 0)?);
    // abort() and raise() of Python itself.
    rules.insert(SYS_tgkill, when(0, Len::Dword, Op::Ne, u64::from(own))?);
    // Limits may be asked for and not be set.
    rules.insert(SYS_prlimit64, when(2, Len::Qword, Op::Ne, 0)?);
    // Before Landlock's third version a file that may only be read could be emptied in opening it.
    rules.insert(
        SYS_openat,
        when(2, Len::Dword, Op::MaskedEq(truncating), truncated)?,
    );
    #[cfg(target_arch = "x86_64")]
    rules.insert(
        libc::SYS_open,
        when(1, Len::Dword, Op::MaskedEq(truncating), truncated)?,
    );
    Ok(rules)
}

fn when(
    argument: u8,
    length: Len,
    is: Op,
    value: u64,
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let condition = SeccompCondition::new(argument, length, is, value)?;
    Ok(vec![SeccompRule::new(vec![condition])?])
}

/// Denies calls by the x32 numbers of x86-64, which mean the same calls under other numbers.
#[cfg(target_arch = "x86_64")]
fn foreign_calls() -> Vec<BpfProgram> {
    const X32: u32 = 0x4000_0000;
    /// `BPF_LD | BPF_W | BPF_ABS`.
    const LOAD: u16 = 0x20;
    /// `BPF_JMP | BPF_JGE | BPF_K`.
    const IF_AT_LEAST: u16 = 0x35;
    /// `BPF_RET | BPF_K`.
    const RETURN: u16 = 0x06;
    let instruction = |code, (jt, jf), k| seccompiler::sock_filter { code, jt, jf, k };
    let deny = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    vec![vec![
        // The number of the call stands first.
        instruction(LOAD, (0, 0), 0),
        instruction(IF_AT_LEAST, (0, 1), X32),
        instruction(RETURN, (0, 0), deny),
        instruction(RETURN, (0, 0), libc::SECCOMP_RET_ALLOW),
    ]]
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign_calls() -> Vec<BpfProgram> {
    Vec::new()
}
