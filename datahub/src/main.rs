//! The service `datahub`.

use std::process::ExitCode;

use clap::Parser;

/// Cells are made by one thread and dropped by another, which the system's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    datahub::command::Command::parse().run().await
}
