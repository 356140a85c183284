//! Scripts that try to get out.

use std::{
    collections::BTreeMap, io::Write, net::TcpListener, os::unix::net::UnixListener,
    process::Command, thread,
};

use rovi_python::{Python, Sandbox, SessionError, Settings, Unavailable};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::{PLAIN, python, settings, start};

/// Loads a script that tries something and expects the error it gets.
fn refused(tries: &str) -> String {
    let error = start(&python(), tries).unwrap_err();
    assert!(matches!(error, SessionError::Raised { .. }), "{error}");
    error.to_string()
}

/// Tries several things in one process; returns what became of each.
fn tried(tries: &[impl std::fmt::Debug]) -> Vec<String> {
    let script = format!(
        "told = []\nfor one in {tries:?}:\n    \
             try: exec(one); told.append('allowed')\n    \
             except BaseException as error: told.append(f'{{type(error).__name__}}: {{error}}')\n\
         raise ValueError('told:' + '|'.join(told))"
    );
    let text = refused(&script);
    let told = text.rsplit_once("told:").unwrap().1;
    let told: Vec<String> = told.split('|').map(str::to_owned).collect();
    assert_eq!(told.len(), tries.len(), "{text}");
    told
}

#[track_caller]
fn assert_denied(tries: &str) {
    let text = refused(tries);
    assert!(text.contains("PermissionError"), "{tries}: {text}");
}

#[test]
fn no_socket_can_be_opened() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_denied(&format!(
        "import socket; socket.create_connection(('127.0.0.1', {port}))"
    ));
    assert_denied("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)");
    assert_denied("import socket; socket.socketpair()");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docker.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let path = path.display();
    assert_denied(&format!(
        "import socket; socket.socket(socket.AF_UNIX).connect('{path}')"
    ));
}

#[test]
fn the_environment_of_the_service_stays_hidden() {
    let text = refused("import os; raise ValueError(sorted(os.environ))");
    assert!(!text.contains("CARGO") && !text.contains("NATS"), "{text}");
    assert_denied("import os; open(f'/proc/{os.getppid()}/environ').read()");
    assert_denied("import os; open(f'/proc/{os.getppid()}/mem', 'rb')");
    assert_denied("open('/proc/self/environ').read()");
}

#[test]
fn files_outside_are_out_of_reach() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"secret").unwrap();
    let path = secret.path().display();
    let tries = [
        format!("open('{path}').read()"),
        format!("open('{path}', 'a')"),
        format!("import os; os.open('{path}', os.O_TRUNC)"),
        format!("import os; os.truncate('{path}', 0)"),
        format!("import os; os.unlink('{path}')"),
        format!("import os; os.rename('{path}', 'mine')"),
        format!("import os; os.symlink('{path}', 'mine'); open('mine').read()"),
        format!("import os; os.chmod('{path}', 0o777)"),
        format!("import os; os.chown('{path}', 1, 1)"),
        format!("import os; os.utime('{path}', (0, 0))"),
        format!("import os; os.setxattr('{path}', 'user.x', b'y')"),
        "open('/etc/passwd').read()".to_owned(),
        "import os; os.listdir('/')".to_owned(),
        "open('/tmp/outside', 'w')".to_owned(),
        "import os; open(os.__file__, 'r+b')".to_owned(),
        "import os; os.mkfifo('pipe')".to_owned(),
    ];
    for (tries, told) in tries.iter().zip(tried(&tries)) {
        let is_denied = told.contains("PermissionError") || told.contains("Invalid cross-device");
        assert!(is_denied, "{tries}: {told}");
    }
    assert_eq!(std::fs::read(secret.path()).unwrap(), b"secret");
}

#[test]
fn a_link_to_a_file_outside_cannot_be_made_or_is_of_no_use() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    let path = secret.path().display();
    let text = refused(&format!(
        "import os; os.link('{path}', 'mine'); open('mine').read()"
    ));
    assert!(
        text.contains("PermissionError") || text.contains("cross-device"),
        "{text}"
    );
}

#[test]
fn no_other_process_can_be_made_or_touched() {
    let tries = [
        "import os; os.fork()",
        "import subprocess; subprocess.run(['/bin/true'])",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import os, signal; os.kill(os.getppid(), signal.SIGTERM)",
        "import os, signal; os.kill(os.getpid(), 0)",
        "import os; os.pidfd_open(os.getppid())",
        "import os; os.setpriority(os.PRIO_PROCESS, 0, -20)",
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    ];
    for (tries, told) in tries.iter().zip(tried(&tries)) {
        let is_denied = told.contains("PermissionError") || told.contains("not allowed");
        assert!(is_denied, "{tries}: {told}");
    }
}

/// Calls that Python has no function for, by number.
#[cfg(target_arch = "x86_64")]
#[test]
fn raw_calls_are_denied_too() {
    let call = |number: &str, arguments: &str, errno: &str| {
        let tries = format!(
            "import ctypes, os, errno; libc = ctypes.CDLL(None, use_errno=True)\n\
             done = libc.syscall({number}{arguments})\n\
             raise ValueError('denied ' + errno.errorcode[ctypes.get_errno()] if done < 0 else 'allowed')"
        );
        let text = refused(&tries);
        assert!(
            text.contains(&format!("denied {errno}")),
            "{number}: {text}"
        );
    };
    call("101", ", 16, os.getppid(), 0, 0", "EPERM"); // ptrace
    call("310", ", os.getppid(), 0, 0, 0, 0, 0", "EPERM"); // process_vm_readv
    call("272", ", 0x10000000", "EPERM"); // unshare
    call("435", ", 0, 0", "ENOSYS"); // clone3
    call("425", ", 1, 0", "ENOSYS"); // io_uring_setup
    call("0x40000000 | 41", ", 2, 1, 0", "ENOSYS"); // socket of x32
    call("29", ", 0, 4096, 0o1600", "EPERM"); // shmget
}

#[test]
fn threads_and_arithmetic_stay_usable() {
    let text = refused(
        "import threading, tempfile, decimal, time\n\
         box = []\n\
         thread = threading.Thread(target=lambda: box.append(decimal.Decimal(2).sqrt())); thread.start(); thread.join()\n\
         open('own', 'w').write('x'); tempfile.TemporaryFile().write(b'y'); time.sleep(0)\n\
         raise ValueError('done ' + str(len(box)))",
    );
    assert!(text.contains("done 1"), "{text}");
}

#[test]
fn descriptors_that_the_service_left_open_do_not_reach_the_script() {
    let text = refused(
        "import os\n\
         def is_open(fd):\n    \
             try: os.fstat(fd); return True\n    \
             except OSError: return False\n\
         raise ValueError('open: ' + str([fd for fd in range(256) if is_open(fd)]))",
    );
    // The three standard ones and the driver's two pipes.
    assert!(text.contains("open: [0, 1, 2, 3, 4]"), "{text}");
}

#[test]
fn descriptors_are_closed_also_where_a_container_denies_the_short_way() {
    without(libc::SYS_close_range, Sandbox::Required).unwrap();
}

#[test]
fn without_the_sandbox_limits_of_memory_still_hold() {
    let mut settings = Settings {
        sandbox: Sandbox::Off,
        ..settings()
    };
    settings.limits.memory_bytes = 256 << 20;
    let python = Python::new(settings).unwrap();
    let error = start(&python, "bytearray(1 << 30)").unwrap_err();
    assert!(error.to_string().contains("MemoryError"), "{error}");
    let error = start(
        &python,
        "raise ValueError(len(open('/etc/passwd').read()) > 0)",
    );
    assert!(error.unwrap_err().to_string().contains("True"));
}

#[test]
fn a_launcher_called_by_hand_says_that_it_is_none() {
    let launcher = env!("CARGO_BIN_EXE_rovi-python");
    let called = Command::new(launcher)
        .arg(rovi_python::sandbox::LAUNCH)
        .output()
        .unwrap();
    assert_eq!(called.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&called.stderr).contains("called by the service"));
}

/// Loads a script where the kernel does not know a system call; processes inherit that from the thread.
fn without(call: i64, sandbox: Sandbox) -> Result<(), SessionError> {
    let outcome = thread::spawn(move || {
        let machine = std::env::consts::ARCH.try_into().unwrap();
        let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        let rules = BTreeMap::from([(call, Vec::new())]);
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, machine).unwrap();
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        let settings = Settings {
            sandbox,
            ..settings()
        };
        start(&Python::new(settings).unwrap(), PLAIN).map(drop)
    });
    outcome.join().unwrap()
}

#[test]
fn a_kernel_without_a_part_of_the_sandbox_is_refused_unless_told_otherwise() {
    for (call, named) in [
        (libc::SYS_landlock_create_ruleset, "Landlock"),
        (libc::SYS_capset, "capabilities"),
        (libc::SYS_seccomp, "seccomp"),
    ] {
        let error = without(call, Sandbox::Required).unwrap_err();
        let is_sandbox = matches!(
            &error,
            SessionError::Unavailable(Unavailable::Sandbox { .. })
        );
        let text = error.to_string();
        assert!(
            is_sandbox && text.contains(named) && text.contains("python.sandbox"),
            "{text}"
        );
        without(call, Sandbox::BestEffort).unwrap();
        without(call, Sandbox::Off).unwrap();
    }
}
