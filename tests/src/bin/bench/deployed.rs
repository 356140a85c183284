//! PostgreSQL as it is deployed.

use anyhow::Context;
use system_tests::Stack;

use crate::peer;

const COMPOSE: &str = include_str!("../../../../docker-compose.yml");

/// Starts PostgreSQL and NATS: PostgreSQL with the settings of `docker-compose.yml`, and with
/// segments of its log left to write over, as one has that ran for a while. While it makes a new one,
/// all commits wait.
pub(crate) fn servers() -> anyhow::Result<Stack> {
    let mut stack = Stack::servers();
    for (name, value) in settings()? {
        peer::psql(&stack, &format!("ALTER SYSTEM SET {name} = '{value}'"))?;
    }
    stack.postgres.server.stop();
    stack.postgres.server.start_again()?;
    // As many segments of 16 MB as `min_wal_size` keeps.
    let fill = "DO $$ BEGIN FOR segment IN 1..64 LOOP \
                PERFORM pg_logical_emit_message(false, '', ''); PERFORM pg_switch_wal(); \
                END LOOP; END $$";
    peer::psql(&stack, fill)?;
    peer::checkpoint(&stack)?;
    Ok(stack)
}

/// Starts the services, too, and waits until they are ready.
pub(crate) async fn start() -> anyhow::Result<Stack> {
    let mut stack = servers()?;
    stack.start_hub();
    stack.start_twin();
    stack.ready().await;
    Ok(stack)
}

/// Returns names and values of the settings that `docker-compose.yml` gives to PostgreSQL.
fn settings() -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    let mut lines = COMPOSE.lines().map(str::trim);
    let command = lines
        .find_map(|line| line.strip_prefix("command: [postgres,"))
        .context("docker-compose.yml has no command of PostgreSQL")?;
    let arguments = command.trim_end_matches(']').split(',').map(str::trim);
    Ok(arguments
        .filter_map(|argument| argument.split_once('='))
        .collect())
}
