//! The commands, one file each.

mod delete;
mod estimator;
mod export;
mod fake;
mod metadata;
mod register;
mod rejected;
mod simulate;
mod status;
mod stream;
mod top;
mod up;
mod watch;

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use url::Url;

use crate::hub::Hub;

/// Streams battery data into the Data Hub and shows what the Digital Twin makes of it.
#[derive(Debug, Parser)]
#[command(name = "rovicli", version, arg_required_else_help = true)]
pub struct Cli {
    /// URL of the Data Hub, which also passes on what is for the twin.
    #[arg(
        long,
        env = "ROVI_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8000",
        value_parser = hub_url,
        global = true
    )]
    url: Url,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the whole stack on this machine: PostgreSQL, NATS, hub and twin.
    Up(up::Args),
    /// Writes a battdat file of a simulated cell, with the truth beside what is measured.
    Simulate(simulate::Args),
    /// Streams a fleet of simulated cells, or a file again and again, until Ctrl-C.
    Fake(fake::Args),
    /// Registers the metadata of a battdat file and prints the battery's name.
    Metadata(metadata::Args),
    /// Registers an estimator for a battery.
    Register(register::Args),
    /// Runs estimators over a file on this machine, without services.
    Estimator(estimator::Args),
    /// Streams a battdat file into the hub, at the pace it was measured or faster.
    Stream(stream::Args),
    /// Writes history of a battery into a file: battdat's HDF5, CSV, Parquet or NDJSON.
    Export(export::Args),
    /// Lists rows that no table took, with the reasons; `--replay` sends them again.
    Rejected(rejected::Args),
    /// Shows batteries, their rows and what their estimators say.
    Status(status::Args),
    /// Deletes a battery: its rows, estimates, metadata and registrations.
    Delete(delete::Args),
    /// Shows all batteries as they are now, until Ctrl-C.
    Top(top::Args),
    /// Prints a line whenever the estimate of a battery changes, until Ctrl-C.
    Watch(watch::Args),
}

/// Runs a command to its end; prints what went wrong.
#[expect(clippy::print_stderr, reason = "this is where people are told")]
pub fn run(cli: Cli) -> ExitCode {
    match execute(cli) {
        Ok(code) => code,
        // Whoever reads the output, such as `head`, has enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rovicli: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn hub_url(text: &str) -> Result<Url, String> {
    let wrong =
        |error: url::ParseError| format!("{error}; a hub's URL looks like http://127.0.0.1:8000");
    text.parse().map_err(wrong)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn execute(cli: Cli) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let hub = Hub::new(cli.url);
    runtime.block_on(async move {
        let done = Ok(ExitCode::SUCCESS);
        match cli.command {
            Command::Up(args) => up::run(args).await,
            Command::Simulate(args) => simulate::run(&args).and(done),
            Command::Fake(args) => fake::run(&hub?, args).await.and(done),
            Command::Metadata(args) => metadata::run(&hub?, &args).await.and(done),
            Command::Register(args) => register::run(&hub?, args).await.and(done),
            Command::Estimator(args) => estimator::run(&args).and(done),
            Command::Stream(args) => stream::run(&hub?, args).await,
            Command::Export(args) => export::run(&hub?, &args).await.and(done),
            Command::Rejected(args) => rejected::run(&hub?, &args).await.and(done),
            Command::Status(args) => status::run(&hub?, &args).await.and(done),
            Command::Delete(args) => delete::run(&hub?, &args).await.and(done),
            Command::Top(args) => top::run(&hub?, &args).await.and(done),
            Command::Watch(args) => watch::run(&hub?, &args).await.and(done),
        }
    })
}

/// A battery in a battdat file, and what it is called here.
#[derive(Debug, clap::Args)]
struct BatteryFile {
    /// The battdat file.
    file: PathBuf,
    /// Name of the battery; else the prefix, the metadata's name, or the file's name.
    #[arg(long)]
    name: Option<String>,
    /// Which battery of a file that holds several.
    #[arg(long)]
    prefix: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        let mut cli = Cli::command();
        cli.build();
        for command in cli.get_subcommands_mut() {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            assert!(help.contains("Usage: rovicli"), "{name}: {help}");
            assert!(command.get_about().is_some(), "{name}");
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{name} {}",
                    argument.get_id()
                );
            }
        }
    }

    #[test]
    fn the_commands_of_the_documents_parse() {
        for line in [
            "rovicli up --data /tmp/x --port 9000 --twin-port 9001",
            "rovicli simulate cell.h5 --hours 2 --seed 4 --profile drive --estimator e.json",
            "rovicli fake --batteries 20 --rate 2 --seed 7 --profile cycling --register",
            "rovicli fake --fault stuck-sensor --faulty 3 --fault-from 600 --for 60",
            "rovicli fake --file module.h5 --rate 10",
            "rovicli metadata module.h5 --prefix a",
            "rovicli register module 0. estimator.py coefficients.csv",
            "rovicli register module 0 estimator.json --estimator second",
            "rovicli register module -60 estimator.json",
            "rovicli stream module.h5 --speedup 100 --all-tables",
            "rovicli register module 0 estimator.py a.csv --required-time 3600",
            "rovicli estimator check a.py --data cell.h5 --rows 10 --dump out.csv --files x y",
            "rovicli estimator compare a.json b.py --data rows.csv --python /venv/bin/python",
            "rovicli stream module.h5 --speedup 100",
            "rovicli stream module.h5 --speedup max --max-rows 10 --again --url http://h:1",
            "rovicli export module --out module.h5",
            "rovicli export module --out m.csv --time -5h..-1h --columns a,b --column x,y --force",
            "rovicli export module --out m.parquet --seq 1..9 --test-time 0..1 --estimator default",
            "rovicli --url http://h:1 status module",
            "rovicli watch module",
            "rovicli delete module --drop --yes",
            "rovicli rejected module",
            "rovicli rejected module --replay --id 3,7..9",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn a_reader_that_has_enough_is_no_failure() {
        let pipe = |kind: io::ErrorKind| anyhow::Error::new(io::Error::from(kind));
        assert!(is_broken_pipe(&pipe(io::ErrorKind::BrokenPipe)));
        assert!(!is_broken_pipe(&pipe(io::ErrorKind::StorageFull)));
    }

    #[test]
    fn a_url_without_a_scheme_is_refused_with_one_that_is_right() {
        let line = ["rovicli", "--url", "127.0.0.1:8000", "status"];
        let error = Cli::try_parse_from(line).unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:8000"), "{error}");
    }

    #[test]
    fn a_wrong_speedup_is_refused_with_what_is_expected() {
        let line = ["rovicli", "stream", "x.h5", "--speedup", "0"];
        let error = Cli::try_parse_from(line).unwrap_err().to_string();
        assert!(error.contains("`max`"), "{error}");
    }
}
