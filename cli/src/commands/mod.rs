//! The commands, one file each.

mod audit;
mod credentials;
mod delete;
mod estimator;
mod export;
mod fake;
mod login;
mod metadata;
mod nats;
mod register;
mod rejected;
mod reproduce;
mod simulate;
mod status;
mod stream;
mod tls;
mod token;
mod top;
mod up;
mod watch;

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use rovi_common::{auth::secret::Token, tls::Trust};
use url::Url;

use crate::{
    credentials::{Credentials, Places},
    hub::Hub,
};

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
    /// The token to show the hub; else that of `rovicli login`. Better in the environment, where the
    /// list of processes does not show it.
    #[arg(
        long,
        env = "ROVI_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        global = true
    )]
    token: Option<String>,
    /// Certificates of the authorities that count where the hub speaks TLS (https), in PEM; else those
    /// of the system.
    #[arg(long, env = "ROVI_CA_FILE", value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the whole stack on this machine: PostgreSQL, NATS, hub and twin.
    Up(up::Args),
    /// Writes a battdat file of a simulated cell, with the truth beside what is measured.
    Simulate(simulate::Args),
    /// Prints who did what, and checks that nobody changed that since.
    Audit(audit::Args),
    /// Keeps a token for a hub, which every command then shows.
    Login(login::Args),
    /// Makes certificates for TLS, where there is no authority of the company's.
    Tls(tls::Args),
    /// Makes, lists and revokes tokens.
    Token(token::Args),
    /// Makes the secrets of a stack of containers, as docker-compose.yml does at every start.
    Credentials(credentials::Args),
    /// Makes credentials for the bus.
    Nats(nats::Args),
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
    /// Computes an estimate anew from the table and tells whether it is the same to the last bit.
    Reproduce(reproduce::Args),
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
    let credentials = Credentials::of(&cli.places);
    let ca_file = cli.ca_file.filter(|file| !file.as_os_str().is_empty());
    let trust = Trust::of(ca_file.as_deref()).context("--ca-file cannot be used");
    let hub = trust.and_then(|trust| hub((cli.url, trust), cli.token, credentials.as_ref()));
    runtime.block_on(async move {
        let done = Ok(ExitCode::SUCCESS);
        match cli.command {
            Command::Up(args) => up::run(args, credentials).await,
            Command::Login(login::Args {}) => login::run(hub?, credentials).await.and(done),
            Command::Audit(args) => audit::run(&hub?, &args).await.and(done),
            Command::Tls(args) => tls::run(&args).and(done),
            Command::Token(args) => token::run(hub, args).await.and(done),
            Command::Credentials(args) => credentials::run(&args).and(done),
            Command::Nats(args) => nats::run(&args).and(done),
            Command::Simulate(args) => simulate::run(&args).and(done),
            Command::Fake(args) => fake::run(&hub?, args).await.and(done),
            Command::Metadata(args) => metadata::run(&hub?, &args).await.and(done),
            Command::Register(args) => register::run(&hub?, args).await.and(done),
            Command::Estimator(args) => estimator::run(hub, args).await.and(done),
            Command::Stream(args) => Box::pin(stream::run(&hub?, args)).await,
            Command::Export(args) => export::run(&hub?, &args).await.and(done),
            Command::Rejected(args) => rejected::run(&hub?, &args).await.and(done),
            Command::Reproduce(args) => reproduce::run(&hub?, &args).await,
            Command::Status(args) => status::run(&hub?, &args).await.and(done),
            Command::Delete(args) => delete::run(&hub?, &args).await.and(done),
            Command::Top(args) => top::run(&hub?, &args).await.and(done),
            Command::Watch(args) => watch::run(&hub?, &args).await.and(done),
        }
    })
}

/// Makes the client of the hub, with the token that was given or kept for it.
fn hub(
    (url, trust): (Url, Trust),
    token: Option<String>,
    credentials: Option<&Credentials>,
) -> Result<Hub> {
    let given = token.filter(|token| !token.trim().is_empty());
    let given = given.map(|token| Token::new(token.trim().to_owned()));
    let token = match (given, credentials) {
        (Some(token), _) => Some(token),
        (None, Some(credentials)) => credentials.token(&url)?,
        (None, None) => None,
    };
    Hub::with_token(url, token, trust)
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
            "rovicli estimator backtest b7 candidate.json --seq 1..100000 --estimator next",
            "rovicli estimator backtest b7 --estimator second --json",
            "rovicli estimator backtest b7 --cancel 0123456789ab",
            "rovicli estimator promote b7 second",
            "rovicli estimator promote b7 --backtest 0123456789ab",
            "rovicli estimator pause b7 second",
            "rovicli estimator resume b7 second",
            "rovicli estimator reset b7 second",
            "rovicli estimator remove b7 second",
            "rovicli stream module.h5 --speedup 100",
            "rovicli stream module.h5 --speedup max --max-rows 10 --again --url http://h:1",
            "rovicli export module --out module.h5",
            "rovicli export module --out m.csv --time -5h..-1h --columns a,b --column x,y --force",
            "rovicli export module --out m.parquet --seq 1..9 --test-time 0..1 --estimator default",
            "rovicli --url http://h:1 status module",
            "rovicli watch module",
            "rovicli up --auth",
            "rovicli login",
            "rovicli audit --verify",
            "rovicli token create cycler-3 --grant uploader:tenant=acme --days 30",
            "rovicli token list",
            "rovicli token revoke 0123456789abcdef",
            "rovicli token new-file service.token",
            "rovicli tls new-ca certs --name Acme",
            "rovicli tls new-cert certs hub.acme.example 10.0.0.7 --days 90",
            "rovicli --url https://hub.acme.example:8000 --ca-file certs/ca.pem status",
            "rovicli credentials --out /credentials --hub http://datahub:8000 --hub http://h:1",
            "rovicli nats credentials --out credentials --reader acme --reader beta",
            "rovicli delete module --drop --yes",
            "rovicli rejected module",
            "rovicli reproduce module --seq 1000",
            "rovicli reproduce module --estimator second --seq 7 --python /venv/bin/python",
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
