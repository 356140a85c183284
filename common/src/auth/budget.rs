//! How much each principal may ask of a service: by the strongest of its roles, or by its name.
//!
//! What is taken in and read is counted by rows and may be overdrawn once: who asks again too early
//! hears when to come back (429), and who is in the middle of something is slowed instead of cut. Each
//! service counts for itself, and only where callers say who they are.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::role::Role;
use crate::http::Problem;

/// Principals that are remembered before those who do nothing are forgotten.
const MOST_PRINCIPALS: usize = 16_384;

/// What a principal may ask for; 0 is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Rows taken in. Sockets are read more slowly beyond it.
    pub rows_per_s: u32,
    /// Rows read for answers. Exports are sent more slowly beyond it.
    pub rows_read_per_s: u32,
    /// Batteries that did not exist before.
    pub batteries_per_hour: u32,
    /// Registrations of estimators, and backtests.
    pub registrations_per_hour: u32,
    /// Sockets and event streams that are open.
    pub sockets: u32,
    /// Exports that run.
    pub exports: u32,
}

/// Budgets by role, and of single principals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetSettings {
    /// Of those whose strongest role is `reader`, or who have none.
    pub reader: Budget,
    /// Of uploaders.
    pub uploader: Budget,
    /// Of engineers.
    pub engineer: Budget,
    /// Of admins.
    pub admin: Budget,
    /// Of tokens by id, and of others by their name in `/auth/me`.
    pub principals: BTreeMap<String, Budget>,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        let reader = Budget {
            rows_per_s: 1_000_000,
            rows_read_per_s: 2_000_000,
            batteries_per_hour: 20_000,
            registrations_per_hour: 20_000,
            sockets: 1024,
            exports: 2,
        };
        let uploader = Budget {
            sockets: 16_384,
            ..reader
        };
        Self {
            reader,
            uploader,
            engineer: uploader,
            admin: Budget::default(),
            principals: BTreeMap::new(),
        }
    }
}

impl BudgetSettings {
    fn of(&self, principal: &str, role: Option<Role>) -> Budget {
        let by_role = match role {
            None | Some(Role::Reader) => self.reader,
            Some(Role::Uploader) => self.uploader,
            Some(Role::Engineer) => self.engineer,
            Some(Role::Admin) => self.admin,
        };
        self.principals.get(principal).copied().unwrap_or(by_role)
    }
}

/// What is counted over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Rows taken in.
    Rows,
    /// Rows read for answers.
    RowsRead,
    /// Batteries made.
    Batteries,
    /// Registrations.
    Registrations,
}

/// What is held at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Sockets and event streams.
    Sockets,
    /// Exports.
    Exports,
}

impl Flow {
    /// How many there may be in how long, and the name of that in the settings.
    fn limit(self, budget: &Budget) -> (u32, Duration, &'static str) {
        let (second, hour) = (Duration::from_secs(1), Duration::from_hours(1));
        match self {
            Self::Rows => (budget.rows_per_s, second, "rows_per_s"),
            Self::RowsRead => (budget.rows_read_per_s, second, "rows_read_per_s"),
            Self::Batteries => (budget.batteries_per_hour, hour, "batteries_per_hour"),
            Self::Registrations => (
                budget.registrations_per_hour,
                hour,
                "registrations_per_hour",
            ),
        }
    }
}

impl Held {
    fn limit(self, budget: &Budget) -> (u32, &'static str) {
        match self {
            Self::Sockets => (budget.sockets, "sockets"),
            Self::Exports => (budget.exports, "exports"),
        }
    }
}

/// What one principal has spent.
#[derive(Debug, Default)]
struct Principal {
    rows: Mutex<Spent>,
    rows_read: Mutex<Spent>,
    batteries: Mutex<Spent>,
    registrations: Mutex<Spent>,
    sockets: AtomicU32,
    exports: AtomicU32,
}

/// What was spent and has not come back yet.
#[derive(Debug, Default)]
struct Spent {
    amount: f64,
    at: Option<Instant>,
}

impl Spent {
    /// Counts something; returns how long it takes until no more than `most` is spent.
    fn add(&mut self, amount: f64, (most, within): (f64, Duration), now: Instant) -> Duration {
        let passed = self.at.map_or(Duration::ZERO, |at| now - at);
        let back = most * passed.as_secs_f64() / within.as_secs_f64();
        self.amount = (self.amount - back).max(0.0) + amount;
        self.at = Some(now);
        let over = (self.amount - most).max(0.0) / most;
        within.mul_f64(over.min(1e6))
    }
}

impl Principal {
    fn spent(&self, flow: Flow) -> &Mutex<Spent> {
        match flow {
            Flow::Rows => &self.rows,
            Flow::RowsRead => &self.rows_read,
            Flow::Batteries => &self.batteries,
            Flow::Registrations => &self.registrations,
        }
    }

    fn held(&self, held: Held) -> &AtomicU32 {
        match held {
            Held::Sockets => &self.sockets,
            Held::Exports => &self.exports,
        }
    }
}

/// What principals have spent, by their names.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    settings: BudgetSettings,
    principals: Mutex<HashMap<String, Arc<Principal>>>,
}

impl Budgets {
    pub(super) fn new(settings: BudgetSettings) -> Self {
        Self {
            settings,
            principals: Mutex::default(),
        }
    }

    /// Returns what a principal may ask for yet.
    pub(super) fn purse(&self, name: &str, role: Option<Role>) -> Purse {
        let mut known = self
            .principals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_PRINCIPALS && !known.contains_key(name) {
            // Whoever holds nothing open loses at most what it has overdrawn.
            known.retain(|_, principal| Arc::strong_count(principal) > 1);
        }
        let principal = known.entry(name.to_owned()).or_default();
        Purse {
            budget: self.settings.of(name, role),
            principal: Some(Arc::clone(principal)),
        }
    }
}

/// What one principal may ask for yet.
#[derive(Debug, Clone, Default)]
pub struct Purse {
    budget: Budget,
    /// None where nobody is counted.
    principal: Option<Arc<Principal>>,
}

/// Holds a place of a budget for as long as it lives.
#[derive(Debug, Default)]
pub struct Place(Option<(Arc<Principal>, Held)>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((principal, held)) = &self.0 {
            principal.held(*held).fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Purse {
    /// The budget; all 0 where nobody is counted.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// Tells how many places are taken.
    pub fn taken(&self, held: Held) -> u32 {
        let principal = self.principal.as_ref();
        principal.map_or(0, |principal| principal.held(held).load(Ordering::Acquire))
    }

    /// Counts something; returns how long to wait before more of it.
    pub fn spend(&self, flow: Flow, amount: usize) -> Duration {
        let (most, within, _) = flow.limit(&self.budget);
        let Some(principal) = self.principal.as_ref().filter(|_| most > 0) else {
            return Duration::ZERO;
        };
        let mut spent = principal
            .spent(flow)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        #[expect(clippy::cast_precision_loss, reason = "rows of one answer are few")]
        let amount = amount as f64;
        spent.add(amount, (f64::from(most), within), Instant::now())
    }

    /// Counts something, and waits until more of it may come.
    pub async fn pace(&self, flow: Flow, amount: usize) {
        let wait = self.spend(flow, amount);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks whether anything may be spent now.
    ///
    /// # Errors
    /// 429 that names the limit and tells when to come back.
    pub fn check(&self, flow: Flow) -> Result<(), Problem> {
        self.check_one_more(flow, 0)
    }

    /// Counts one thing that is refused beyond the limit.
    ///
    /// # Errors
    /// 429 that names the limit and tells when to come back; nothing is counted then.
    pub fn take_one(&self, flow: Flow) -> Result<(), Problem> {
        self.check_one_more(flow, 1)
    }

    fn check_one_more(&self, flow: Flow, one: u32) -> Result<(), Problem> {
        let (most, within, name) = flow.limit(&self.budget);
        let Some(principal) = self.principal.as_ref().filter(|_| most > 0) else {
            return Ok(());
        };
        let mut spent = principal
            .spent(flow)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (limit, now) = ((f64::from(most), within), Instant::now());
        let wait = spent.add(f64::from(one), limit, now);
        if wait.is_zero() {
            return Ok(());
        }
        spent.add(-f64::from(one), limit, now);
        let detail = format!("your budget of {most} {name} is spent; /limits tells all of them");
        Err(Problem::too_many(detail, wait).at(name))
    }

    /// Takes a place for as long as what is returned lives.
    ///
    /// # Errors
    /// 429 that names the limit.
    pub fn hold(&self, held: Held) -> Result<Place, Problem> {
        let (most, name) = held.limit(&self.budget);
        let Some(principal) = &self.principal else {
            return Ok(Place::default());
        };
        let most = if most == 0 { u32::MAX } else { most };
        let one_more = |taken| (taken < most).then_some(taken + 1);
        let taken =
            principal
                .held(held)
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        if taken.is_err() {
            let detail =
                format!("you have all {most} {name} of your budget open; close one, or wait");
            return Err(Problem::too_many(detail, Duration::from_secs(1)).at(name));
        }
        Ok(Place(Some((Arc::clone(principal), held))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets() -> Budgets {
        let few = Budget {
            rows_per_s: 100,
            batteries_per_hour: 2,
            sockets: 1,
            ..Budget::default()
        };
        Budgets::new(BudgetSettings {
            uploader: few,
            principals: [("known".to_owned(), Budget::default())].into(),
            ..BudgetSettings::default()
        })
    }

    #[test]
    fn rows_may_be_overdrawn_once_and_then_are_waited_for() {
        let budgets = budgets();
        let purse = budgets.purse("a", Some(Role::Uploader));
        assert!(purse.check(Flow::Rows).is_ok());
        let wait = purse.spend(Flow::Rows, 1100);
        assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10));
        let problem = budgets.purse("a", Some(Role::Uploader)).check(Flow::Rows);
        let problem = problem.unwrap_err();
        assert_eq!(problem.status.as_u16(), 429);
        assert!(problem.detail.contains("100 rows_per_s"), "{problem}");
        assert!(
            budgets
                .purse("b", Some(Role::Uploader))
                .check(Flow::Rows)
                .is_ok()
        );
        assert!(purse.check(Flow::RowsRead).is_ok());
    }

    #[test]
    fn what_is_spent_comes_back_in_time() {
        let (mut spent, start) = (Spent::default(), Instant::now());
        let limit = (100.0, Duration::from_secs(1));
        assert_eq!(spent.add(300.0, limit, start), Duration::from_secs(2));
        let later = start + Duration::from_secs(2);
        assert_eq!(spent.add(0.0, limit, later), Duration::ZERO);
    }

    #[test]
    fn a_refused_thing_is_not_counted_and_a_place_comes_back() {
        let budgets = budgets();
        let purse = budgets.purse("a", Some(Role::Uploader));
        assert!(purse.take_one(Flow::Batteries).is_ok() && purse.take_one(Flow::Batteries).is_ok());
        let wait = || purse.take_one(Flow::Batteries).unwrap_err().retry_after_s();
        assert_eq!(wait(), wait());
        let place = purse.hold(Held::Sockets).unwrap();
        assert!(purse.hold(Held::Sockets).is_err());
        drop(place);
        assert!(purse.hold(Held::Sockets).is_ok());
    }

    #[test]
    fn a_principal_may_have_a_budget_of_its_own() {
        let purse = budgets().purse("known", Some(Role::Uploader));
        let places: Vec<_> = (0..5).map(|_| purse.hold(Held::Sockets)).collect();
        assert!(places.iter().all(Result::is_ok));
        assert_eq!(purse.spend(Flow::Rows, 1_000_000), Duration::ZERO);
    }
}
