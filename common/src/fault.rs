//! Named points at which a test makes a process die, sleep or fail.
//!
//! Without the feature `faults` the points are nothing at all; releases are built without it.
//! With it, the environment variable `ROVI_FAULTS` arms them:
//!
//! ```text
//! ROVI_FAULTS=hub.after_commit=kill@3            SIGKILL at the third passing
//! ROVI_FAULTS=hub.before_publish=sleep:500ms     sleep half a second, the first time
//! ROVI_FAULTS=hub.after_commit=fail@2+           fail the second time and ever after
//! ```
//!
//! Several, separated by commas, may be armed at once; each says so in the log when it fires.

/// What a point that was told to fail gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("fault point {0} was told to fail")]
pub struct InjectedFault(pub &'static str);

/// Passes a point that can fail.
///
/// # Errors
/// The point was told to fail at this passing.
#[inline]
pub fn point(name: &'static str) -> Result<(), InjectedFault> {
    #[cfg(feature = "faults")]
    return armed::pass(name);
    #[cfg(not(feature = "faults"))]
    {
        let _compiled_out = name;
        Ok(())
    }
}

/// Passes a point at which there is nothing that could fail: it only kills or sleeps.
#[inline]
pub fn passed(name: &'static str) {
    let _cannot_fail = point(name);
}

#[cfg(feature = "faults")]
mod armed {
    use std::{
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use rustix::process::{Signal, getpid, kill_process};

    use super::InjectedFault;

    const VARIABLE: &str = "ROVI_FAULTS";

    /// What happens at a point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        Kill,
        Sleep(Duration),
        Fail,
    }

    /// A point, what happens there, and when.
    #[derive(Debug)]
    struct Armed {
        name: String,
        action: Action,
        first: u64,
        ever_after: bool,
        passings: AtomicU64,
    }

    impl Armed {
        fn parse(text: &str) -> Result<Self, String> {
            let wrong = || format!("`{text}` is not POINT=kill|sleep:DURATION|fail[@PASSING[+]]");
            let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
            let (action, when) = rest.split_once('@').unwrap_or((rest, "1"));
            let (first, ever_after) = match when.strip_suffix('+') {
                Some(first) => (first, true),
                None => (when, false),
            };
            let action = match action.split_once(':') {
                None if action == "kill" => Action::Kill,
                None if action == "fail" => Action::Fail,
                Some(("sleep", time)) => {
                    let millis = time.strip_suffix("ms").ok_or_else(wrong)?;
                    Action::Sleep(Duration::from_millis(
                        millis.parse().map_err(|_number| wrong())?,
                    ))
                }
                _ => return Err(wrong()),
            };
            Ok(Self {
                name: name.to_owned(),
                action,
                first: first.parse().map_err(|_number| wrong())?,
                ever_after,
                passings: AtomicU64::new(0),
            })
        }

        /// Counts a passing; tells whether this is one at which something happens.
        fn is_due(&self) -> bool {
            let passing = self.passings.fetch_add(1, Ordering::Relaxed) + 1;
            passing == self.first || (self.ever_after && passing > self.first)
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "only in builds for tests, which must not change the settings of the services"
    )]
    fn all() -> &'static [Armed] {
        static ALL: OnceLock<Vec<Armed>> = OnceLock::new();
        ALL.get_or_init(|| {
            let text = std::env::var(VARIABLE).unwrap_or_default();
            let parts = text.split(',').filter(|part| !part.is_empty());
            parts
                .filter_map(|part| {
                    Armed::parse(part)
                        .inspect_err(|problem| tracing::error!("{VARIABLE}: {problem}"))
                        .ok()
                })
                .collect()
        })
    }

    pub(super) fn pass(name: &'static str) -> Result<(), InjectedFault> {
        for armed in all().iter().filter(|armed| armed.name == name) {
            if !armed.is_due() {
                continue;
            }
            tracing::warn!("fault point {name}: {:?}", armed.action);
            match armed.action {
                Action::Kill => {
                    let _this_process_ends = kill_process(getpid(), Signal::KILL);
                }
                Action::Sleep(time) => std::thread::sleep(time),
                Action::Fail => return Err(InjectedFault(name)),
            }
        }
        Ok(())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_fires_at_the_passing_it_was_told() {
            let once = Armed::parse("hub.after_commit=kill@3").unwrap();
            assert_eq!(once.action, Action::Kill);
            let fired: Vec<bool> = (0..5).map(|_| once.is_due()).collect();
            assert_eq!(fired, [false, false, true, false, false]);
            let always = Armed::parse("x=sleep:250ms@2+").unwrap();
            assert_eq!(always.action, Action::Sleep(Duration::from_millis(250)));
            let fired: Vec<bool> = (0..4).map(|_| always.is_due()).collect();
            assert_eq!(fired, [false, true, true, true]);
        }

        #[test]
        fn what_arms_nothing_is_said() {
            for text in ["x", "x=die", "x=sleep:1s", "x=kill@", "x=kill@a"] {
                assert!(Armed::parse(text).is_err(), "{text}");
            }
        }
    }
}
