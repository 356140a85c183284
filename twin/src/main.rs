//! Service `twin`: the Digital Twin.

use std::process::ExitCode;

use clap::Parser;
use twin::service::Flags;

#[tokio::main]
async fn main() -> ExitCode {
    match twin::service::start(Flags::parse()).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("the twin does not start: {error:#}");
            ExitCode::FAILURE
        }
    }
}
