//! The one place that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the microseconds since 1970-01-01T00:00:00Z, the unit of every time on the wire.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock the ban points to"
)]
pub fn now_us() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
