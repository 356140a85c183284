//! Files that the launcher inherited by mistake.

use std::io;

/// Makes every descriptor above the standard three close when the interpreter starts.
///
/// # Errors
/// The kernel refuses (older than Linux 5.11).
pub(super) fn close_on_exec() -> io::Result<()> {
    // SAFETY: the call takes no pointers, and with this flag it closes nothing now: descriptors in use stay valid
    // until the process is replaced.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
