//! PostgreSQL's own programs, which the hub is measured against.

use std::{fmt::Write, fs, path::Path, process::Command, time::Instant};

use anyhow::{Context, ensure};
use system_tests::Stack;

/// Runs a program of PostgreSQL on the stack's database and returns what it printed.
fn run(stack: &Stack, program: &str, args: &[&str]) -> anyhow::Result<String> {
    let server = &stack.postgres.server;
    let output = Command::new(server.programs().join(program))
        .current_dir(stack.folder())
        .args(args)
        .env("PGOPTIONS", "-c client_min_messages=warning")
        .arg(server.url())
        .output()?;
    ensure!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs one command in `psql`.
pub(crate) fn psql(stack: &Stack, command: &str) -> anyhow::Result<String> {
    let args = [
        "--no-psqlrc",
        "--quiet",
        "--tuples-only",
        "--set",
        "ON_ERROR_STOP=1",
        "--command",
        command,
    ];
    run(stack, "psql", &args)
}

/// Flushes everything, so that the next measurement does not pay for the one before.
pub(crate) fn checkpoint(stack: &Stack) -> anyhow::Result<()> {
    psql(stack, "CHECKPOINT").map(drop)
}

/// As [`checkpoint`], after the making of thousands of tables: vacuums the catalogs and the hub's own
/// tables, which autovacuum would do in the midst of one of the measurements.
pub(crate) fn settle(stack: &Stack) -> anyhow::Result<()> {
    let list = "SELECT format('VACUUM (ANALYZE) %s', oid::regclass) FROM pg_class \
                WHERE relkind = 'r' AND relnamespace IN ('pg_catalog'::regnamespace, 'hub'::regnamespace)";
    let commands = psql(stack, list)?;
    let commands = commands
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let args: Vec<&str> = commands
        .flat_map(|command| ["--command", command])
        .collect();
    run(
        stack,
        "psql",
        &[&["--no-psqlrc", "--quiet"], args.as_slice()].concat(),
    )?;
    checkpoint(stack)
}

/// Writes the rows of a battery's table into a file.
pub(crate) fn save(stack: &Stack, battery: &str, file: &Path) -> anyhow::Result<()> {
    let file = file.display();
    let copy = format!("\\copy battery.\"{battery}\" to '{file}' with (format binary)");
    psql(stack, &copy).map(drop)
}

/// Makes an empty table of a battery's form.
pub(crate) fn empty_like(stack: &Stack, battery: &str) -> anyhow::Result<()> {
    psql(stack, "DROP TABLE IF EXISTS public.peer")?;
    let make = format!("CREATE TABLE public.peer (LIKE battery.\"{battery}\" INCLUDING ALL)");
    psql(stack, &make).map(drop)
}

/// Copies the file into an empty table of the battery's form and returns the seconds it took.
pub(crate) fn load(stack: &Stack, battery: &str, file: &Path) -> anyhow::Result<f64> {
    empty_like(stack, battery)?;
    checkpoint(stack)?;
    let copy = format!(
        "\\copy public.peer from '{}' with (format binary)",
        file.display()
    );
    let begun = Instant::now();
    psql(stack, &copy)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// The columns of a row, with those that the hub adds.
const COLUMNS: &str = "seq, received, segment, test_time, current, voltage, temperature, \
    cycle_capacity, cycle_energy, internal_resistance, cycle_time, cycle_number, step_index, \
    state, method";

/// Commits one row a transaction with `clients` clients; returns transactions a second and each
/// one's time in milliseconds.
pub(crate) fn single_rows(
    stack: &Stack,
    battery: &str,
    clients: usize,
    seconds: usize,
) -> anyhow::Result<(f64, Vec<f64>)> {
    empty_like(stack, battery)?;
    psql(stack, "CREATE SEQUENCE IF NOT EXISTS public.numbers")?;
    let script = format!(
        "\\set t random(1, 1000000)\n\
         INSERT INTO public.peer ({COLUMNS}) VALUES (nextval('public.numbers'), now(), 1, \
         :t, 1.5, 3.7, 25.0, 0.8, 2.9, 0.05, 512.0, 7, 12, 'charging', 'constant_current');\n"
    );
    let (clients, seconds) = (clients.to_string(), seconds.to_string());
    let args = [
        "--no-vacuum",
        "--protocol=prepared",
        "--jobs=2",
        "--log",
        "--log-prefix=single",
        "--client",
        &clients,
        "--time",
        &seconds,
    ];
    let speed = pgbench(stack, "single.sql", &script, &args)?;
    Ok((speed, logged_ms(stack, "single")?))
}

/// Takes the logs of a `pgbench` away and returns each transaction's time in milliseconds.
fn logged_ms(stack: &Stack, prefix: &str) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for entry in fs::read_dir(stack.folder())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // `<prefix>.<process>` and `<prefix>.<process>.<thread>`
        let numbers = name
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix('.'));
        if !numbers.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
            continue;
        }
        // client, transaction, microseconds, …
        for line in fs::read_to_string(entry.path())?.lines() {
            let us = line.split(' ').nth(2).and_then(|us| us.parse::<f64>().ok());
            times.extend(us.map(|us| us / 1000.0));
        }
        fs::remove_file(entry.path())?;
    }
    Ok(times)
}

/// Inserts one row into each table in libpq's pipeline mode with prepared statements, 200 tables
/// a transaction, `rounds` times; returns rows a second.
pub(crate) fn pipeline(stack: &Stack, batteries: &[String], rounds: usize) -> anyhow::Result<f64> {
    let mut script = "\\set seq :seq + 1\n\\set t 1.5\n".to_owned();
    for tables in batteries.chunks(200) {
        script.push_str("BEGIN;\n\\startpipeline\n");
        for battery in tables {
            writeln!(
                script,
                "INSERT INTO battery.\"{battery}\" ({COLUMNS}) VALUES \
                 (:seq, :received, 1, :t, :t, :t, :t, :t, :t, :t, :t, :seq, :seq, :state, :state);"
            )?;
        }
        script.push_str("\\endpipeline\nCOMMIT;\n");
    }
    // The first round prepares.
    let transactions = (rounds + 1).to_string();
    let args = [
        "--no-vacuum",
        "--protocol=prepared",
        "--client=1",
        "--transactions",
        &transactions,
        "--define=seq=1000000",
        "--define=state=charging",
        "--define=received=2026-01-01",
        "--log",
        "--log-prefix=pipeline",
    ];
    pgbench(stack, "pipeline.sql", &script, &args)?;
    let mut times = logged_ms(stack, "pipeline")?;
    times.drain(..times.len().min(1));
    ensure!(
        times.len() == rounds,
        "{} of {rounds} rounds are logged",
        times.len()
    );
    Ok(batteries.len() as f64 / (crate::summary::median(times) / 1e3))
}

/// Runs a script in `pgbench` and returns its transactions a second.
fn pgbench(stack: &Stack, name: &str, script: &str, args: &[&str]) -> anyhow::Result<f64> {
    let file = stack.folder().join(name);
    fs::write(&file, script)?;
    let path = file.display().to_string();
    let mut all = vec!["--file", path.as_str()];
    all.extend(args);
    let printed = run(stack, "pgbench", &all)?;
    ensure!(
        printed.contains("number of failed transactions: 0"),
        "{printed}"
    );
    let tps = printed.lines().find_map(|line| line.strip_prefix("tps = "));
    let tps = tps.and_then(|rest| rest.split(' ').next()?.parse().ok());
    tps.with_context(|| printed.clone())
}
