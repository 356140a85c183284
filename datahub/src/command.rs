//! The command line of the service.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rovi_common::{
    config::{self, ServiceArgs, ServiceUrl},
    name::BatteryName,
    sink::SinkArgs,
    telemetry,
};
use serde::Serialize;

use crate::{config::Settings, prepare, relay::rebuild, service::Service};

/// Takes in metadata and rows of batteries, keeps them in PostgreSQL and tells the bus.
#[derive(Debug, Clone, Parser, Serialize)]
#[command(name = "datahub", version)]
pub struct Command {
    #[command(flatten)]
    #[serde(flatten)]
    service: ServiceArgs,
    /// URL of PostgreSQL.
    #[arg(long, value_name = "URL", value_parser = clap::value_parser!(ServiceUrl))]
    #[serde(skip_serializing_if = "Option::is_none")]
    database_url: Option<ServiceUrl>,
    /// URL of the twin.
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    twin_url: Option<url::Url>,
    #[command(flatten)]
    #[serde(flatten)]
    sink: SinkArgs,
    /// What to do instead of serving.
    #[command(subcommand)]
    #[serde(skip)]
    task: Option<Task>,
}

/// A task that ends, beside hubs that run.
#[derive(Debug, Clone, Subcommand)]
enum Task {
    /// Makes or updates the hub's own tables, as the role that owns them, and gives the roles of
    /// `deploy/postgres/roles.sql` their rights.
    Migrate,
    /// Works on what the bus has.
    Relay {
        #[command(subcommand)]
        task: RelayTask,
    },
}

#[derive(Debug, Clone, Subcommand)]
enum RelayTask {
    /// Publishes all rows anew, in order, from the first row of each table; hubs may run. Safe to
    /// interrupt and to repeat.
    Rebuild {
        /// Only this battery.
        #[arg(long, value_name = "NAME")]
        battery: Option<BatteryName>,
    },
}

impl Command {
    /// Runs the service, or only looks at its settings.
    ///
    /// # Errors
    /// The settings are wrong or the address is taken.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = config::load::<Settings>("ROVI_HUB_", &self.service, &self)?;
        if self.service.print_config {
            loaded.print(&mut std::io::stdout().lock())?;
            return Ok(ExitCode::SUCCESS);
        }
        let settings = loaded.settings;
        settings.check().map_err(anyhow::Error::msg)?;
        if self.service.check {
            return Ok(ExitCode::SUCCESS);
        }
        telemetry::init(settings.log_format, &settings.log_filter);
        match self.task {
            Some(Task::Migrate) => {
                let done = prepare::migrate_once(&settings.database_url).await;
                done.map_err(anyhow::Error::msg)?;
                return Ok(ExitCode::SUCCESS);
            }
            Some(Task::Relay { task }) => {
                let RelayTask::Rebuild { battery } = task;
                rebuild::run(&settings, battery, tell).await?;
                return Ok(ExitCode::SUCCESS);
            }
            None => {}
        }
        let service = Service::from_config(settings)
            .await
            .context("the hub cannot start")?;
        tracing::info!("listening on {}", service.address());
        let stopped_well = service.run().await;
        Ok(if stopped_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Tells how far a task is, to whoever started it.
#[expect(clippy::print_stdout, reason = "the output of a command")]
fn tell(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Command::command().debug_assert();
    }
}
