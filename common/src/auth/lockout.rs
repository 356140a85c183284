//! Who shows wrong credentials again and again is not listened to for a while.
//!
//! Only the failing side is locked: behind an address that is, tokens that count go on to count, since
//! one SHA-256 tells them apart. What is dearer to check, a signature of a JWT, is then checked only for
//! JWTs that counted before.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bounded::Bounded;

/// Addresses that are remembered; those that have not failed lately are forgotten first.
const MOST_ADDRESSES: usize = 65_536;
/// JWTs that are remembered to have counted.
const MOST_JWTS: usize = 16_384;
/// The time in which an address has its failures again.
const WINDOW: Duration = Duration::from_mins(1);

/// How often an address may fail.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LockoutSettings {
    /// Wrong credentials in a minute that an address may show; 0 never locks. Too low locks people
    /// who mistype, too high lets guessing cost time.
    pub failures_per_minute: u32,
    /// For how long credentials of an address are then not looked at, but for those that count.
    #[serde(with = "humantime_serde")]
    pub lock: Duration,
}

impl Default for LockoutSettings {
    fn default() -> Self {
        Self {
            failures_per_minute: 30,
            lock: Duration::from_mins(1),
        }
    }
}

/// What is remembered of those who fail.
#[derive(Debug)]
pub(super) struct Lockout {
    settings: LockoutSettings,
    addresses: Mutex<Bounded<IpAddr, Failures>>,
    /// Digests of JWTs that counted once; whether they still do is checked.
    counted: Mutex<Bounded<[u8; 32], ()>>,
}

#[derive(Debug)]
struct Failures {
    count: f64,
    last: Instant,
    until: Option<Instant>,
}

impl Lockout {
    pub(super) fn new(settings: LockoutSettings) -> Self {
        Self {
            settings,
            addresses: Mutex::new(Bounded::of(MOST_ADDRESSES)),
            counted: Mutex::new(Bounded::of(MOST_JWTS)),
        }
    }

    /// Tells for how long an address is locked yet, if it is.
    pub(super) fn left(&self, address: Option<IpAddr>) -> Option<Duration> {
        let now = Instant::now();
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let until = addresses.get(&key(address?))?.until?;
        (until > now).then(|| until - now)
    }

    /// Notes that an address failed; returns for how long it is locked, if it is.
    pub(super) fn failed(&self, address: Option<IpAddr>) -> Option<Duration> {
        let (address, most) = (key(address?), f64::from(self.settings.failures_per_minute));
        if most <= 0.0 {
            return None;
        }
        let now = Instant::now();
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(failures) = addresses.get(&address) else {
            let first = Failures {
                count: 1.0,
                last: now,
                until: None,
            };
            addresses.put(address, first);
            return None;
        };
        if let Some(until) = failures.until.filter(|until| *until > now) {
            return Some(until - now);
        }
        let passed = (now - failures.last).as_secs_f64() / WINDOW.as_secs_f64();
        failures.count = (failures.count - passed * most).max(0.0) + 1.0;
        failures.last = now;
        if failures.count <= most {
            return None;
        }
        let lock = self.settings.lock;
        (failures.until, failures.count) = (Some(now + lock), 0.0);
        drop(addresses);
        tracing::warn!("{address} showed too many wrong credentials: locked for {lock:?}");
        Some(lock)
    }

    /// Remembers that a JWT counted.
    pub(super) fn remember(&self, jwt: &str) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = Sha256::digest(jwt).into();
        if counted.get(&digest).is_none() {
            counted.put(digest, ());
        }
    }

    /// Whether a JWT counted before.
    pub(super) fn remembers(&self, jwt: &str) -> bool {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.get(&Sha256::digest(jwt).into()).is_some()
    }
}

/// Whoever has one address of IPv6 has the 2^64 of its network, too.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lockout(failures_per_minute: u32, lock: Duration) -> Lockout {
        Lockout::new(LockoutSettings {
            failures_per_minute,
            lock,
        })
    }

    fn address(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn an_address_is_locked_after_its_failures_and_no_other_is() {
        let lockout = lockout(3, Duration::from_hours(1));
        let (bad, good) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(lockout.failed(bad), None);
        }
        assert!(lockout.failed(bad).is_some() && lockout.left(bad).is_some());
        assert_eq!(lockout.left(good), None);
        assert_eq!(lockout.failed(good), None);
    }

    #[test]
    fn a_lock_ends_and_0_never_locks() {
        let (bad, lockout) = (address("192.0.2.1"), lockout(1, Duration::ZERO));
        assert_eq!(lockout.failed(bad), None);
        assert_eq!(lockout.failed(bad), Some(Duration::ZERO));
        assert_eq!(lockout.left(bad), None);
        let never = Lockout::new(LockoutSettings {
            failures_per_minute: 0,
            ..LockoutSettings::default()
        });
        assert!((0..1000).all(|_| never.failed(bad).is_none()));
    }

    #[test]
    fn a_whole_network_of_ipv6_is_one_address() {
        let lockout = lockout(1, Duration::from_hours(1));
        assert_eq!(lockout.failed(address("2001:db8::1")), None);
        assert!(lockout.failed(address("2001:db8::2")).is_some());
        assert!(lockout.left(address("2001:db8::3")).is_some());
        assert_eq!(lockout.left(address("2001:db8:0:1::1")), None);
    }
}
