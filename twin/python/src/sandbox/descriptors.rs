//! Files that the launcher inherited by mistake.

/// The highest descriptor that is looked at where the kernel, or a container's filter, has no `close_range`.
const HIGHEST: i32 = 65_535;

/// Makes every descriptor above the standard three close when the interpreter starts.
pub(super) fn close_on_exec() {
    // SAFETY: neither call takes a pointer, and with these flags nothing is closed now: descriptors in use stay
    // valid until the process is replaced; a number that is no descriptor is refused.
    unsafe {
        let flag = libc::CLOSE_RANGE_CLOEXEC;
        if libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, flag) != 0 {
            for descriptor in 3..=HIGHEST {
                libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}
