//! The service `datahub`.

use std::process::ExitCode;

use clap::Parser;

/// Cells are made by one thread and dropped by another, which the system's allocator does slowly.
/// It asks for no huge pages: clearing one takes the kernel up to milliseconds, in the midst of rows.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    // The service starts itself again to read an uploaded file, before there are threads.
    datahub::upload::battdat::child::read_if_asked().map_or_else(serve, Ok)
}

#[tokio::main]
async fn serve() -> anyhow::Result<ExitCode> {
    datahub::command::Command::parse().run().await
}
