//! Service `twin`: the Digital Twin.

use std::process::ExitCode;

use clap::Parser;
use twin::service::Flags;

fn main() -> ExitCode {
    // The service starts itself again as the launcher of a script, before there are threads.
    rovi_python::sandbox::launch().unwrap_or_else(serve)
}

#[tokio::main]
async fn serve() -> ExitCode {
    match twin::service::start(Flags::parse()).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("the twin does not start: {error:#}");
            ExitCode::FAILURE
        }
    }
}
