//! `rovicli login`: keeps a token for a hub.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, Result, ensure};
use rovi_common::auth::secret::Token;

use crate::{credentials::Credentials, hub::Hub};

/// Arguments of `rovicli login`, which reads the token from the standard input.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(hub: Hub, credentials: Option<Credentials>) -> Result<()> {
    let credentials = credentials.context("there is no home folder to keep a token in")?;
    let mut out = io::stdout();
    if io::stdin().is_terminal() {
        write!(out, "token for {}: ", hub.url())?;
        out.flush()?;
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let token = Token::new(line.trim().to_owned());
    ensure!(!token.expose().is_empty(), "no token was given");
    let hub = Hub::with_token(hub.url().clone(), Some(token.clone()), hub.trust().clone())?;
    let me = hub.me().await?;
    credentials.keep(hub.url(), &token)?;
    let grants: Vec<String> = me.grants.iter().map(ToString::to_string).collect();
    let file = credentials.file().display();
    writeln!(
        out,
        "{}: {}; the token is kept in {file}",
        me.name,
        grants.join(", ")
    )?;
    Ok(())
}
