//! The peer of ingest: `psql \copy … binary` of the same rows.

use std::{path::Path, process::Command, time::Instant};

use anyhow::ensure;
use system_tests::Stack;

/// Runs `psql` on the stack's database.
fn psql(stack: &Stack, command: &str) -> anyhow::Result<()> {
    let server = &stack.postgres.server;
    let output = Command::new(server.programs().join("psql"))
        .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"])
        .args(["--dbname", &server.url(), "--command", command])
        .output()?;
    ensure!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Writes the rows of a battery's table into a file.
pub(crate) fn save(stack: &Stack, battery: &str, file: &Path) -> anyhow::Result<()> {
    let file = file.display();
    psql(
        stack,
        &format!("\\copy battery.\"{battery}\" to '{file}' with (format binary)"),
    )
}

/// Flushes everything, so that the next measurement does not pay for the one before.
pub(crate) fn checkpoint(stack: &Stack) -> anyhow::Result<()> {
    psql(stack, "CHECKPOINT")
}

/// Copies the file into an empty table of the battery's form and returns the seconds it took.
pub(crate) fn load(stack: &Stack, battery: &str, file: &Path) -> anyhow::Result<f64> {
    psql(stack, "DROP TABLE IF EXISTS public.copied")?;
    psql(
        stack,
        &format!("CREATE TABLE public.copied (LIKE battery.\"{battery}\" INCLUDING ALL)"),
    )?;
    checkpoint(stack)?;
    let begun = Instant::now();
    psql(
        stack,
        &format!(
            "\\copy public.copied from '{}' with (format binary)",
            file.display()
        ),
    )?;
    Ok(begun.elapsed().as_secs_f64())
}
