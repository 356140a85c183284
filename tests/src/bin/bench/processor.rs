//! Processor time: of the whole machine, and of each part that takes some.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
};

use anyhow::Context;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query, sql_types};
use system_tests::Stack;

/// Microseconds of a tick: the kernel tells programs of 100 a second.
const TICK_US: f64 = 10_000.0;

/// Processor time of the whole machine, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    idle: f64,
    all: f64,
}

impl Machine {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        // cpu user nice system idle iowait …
        let ticks: Vec<f64> = line
            .split_whitespace()
            .skip(1)
            .filter_map(|tick| tick.parse().ok())
            .collect();
        Ok(Self {
            idle: ticks.iter().skip(3).take(2).sum(),
            all: ticks.iter().take(8).sum(),
        })
    }

    /// Returns for how many ticks cores were busy since `before`.
    pub(crate) fn busy_since(&self, before: &Self) -> f64 {
        (self.all - before.all) - (self.idle - before.idle)
    }

    /// Returns which share of all cores was idle since `before`.
    pub(crate) fn idle_since(&self, before: &Self) -> f64 {
        (self.idle - before.idle) / (self.all - before.all)
    }
}

/// Ticks of each process of a stack, with the part that it plays.
#[derive(Debug)]
pub(crate) struct Parts(HashMap<u32, (String, f64)>);

#[derive(QueryableByName)]
struct Backend {
    #[diesel(sql_type = sql_types::Integer)]
    pid: i32,
    #[diesel(sql_type = sql_types::Text)]
    part: String,
}

impl Parts {
    /// Reads those of this program, hub, twin, NATS and PostgreSQL, whose processes are told apart by what
    /// their connections call themselves.
    pub(crate) fn now(stack: &mut Stack) -> anyhow::Result<Self> {
        let mut connection = PgConnection::establish(&stack.postgres.server.url())?;
        let backends: Vec<Backend> = sql_query(
            "SELECT pid, 'postgres: ' || coalesce(nullif(application_name, ''), backend_type) AS part \
             FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
        )
        .load(&mut connection)?;
        let backends = backends.into_iter();
        let mut parts: Vec<(u32, String)> = backends
            .filter_map(|backend| Some((u32::try_from(backend.pid).ok()?, backend.part)))
            .collect();
        parts.push((std::process::id(), "generator".to_owned()));
        let nats = stack.nats.server.process().map(|server| server.id());
        parts.extend(nats.map(|id| (id, "nats-server".to_owned())));
        parts.extend(stack.hub_id().map(|id| (id, "hub".to_owned())));
        parts.extend(stack.twin_id().map(|id| (id, "twin".to_owned())));
        let read = parts.into_iter().filter_map(|(id, part)| {
            // A process may have ended meanwhile.
            Some((id, (part, ticks(&format!("/proc/{id}/stat"))?)))
        });
        Ok(Self(read.collect()))
    }

    /// Prints the time of each part since `before`, a row, and of all that is no part, such as
    /// PostgreSQL's short-lived helpers; `busy` is the time of both.
    pub(crate) fn print_since(&self, before: &Self, busy: f64, rows: f64) {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for (id, (part, ticks)) in &self.0 {
            let known = before.0.get(id).map_or(0.0, |(_, ticks)| *ticks);
            *sums.entry(part).or_default() += ticks - known;
        }
        let others = busy - sums.values().sum::<f64>();
        sums.insert("all others", others);
        for (part, ticks) in sums.iter().filter(|(_, ticks)| **ticks > 0.0) {
            println!("  {part:<40} {:>7.1} µs a row", ticks * TICK_US / rows);
        }
    }
}

/// Reads the ticks of a process or thread in user and kernel mode.
fn ticks(file: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = text.rsplit_once(") ")?;
    let times = fields.split(' ').skip(11).take(2);
    times.map(|field| field.parse::<f64>().ok()).sum()
}
