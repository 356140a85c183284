//! `rovicli audit`: who did what, and whether anybody changed that since.

use std::io::{self, Write};

use anyhow::{Result, bail};
use rovi_common::auth::audit::FIRST;

use crate::hub::Hub;

/// Arguments of `rovicli audit`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Prints no entries, only whether the chain is whole, with the digest of its end: one that was
    /// noted before and is no longer in it shows that the end was cut off.
    #[arg(long)]
    verify: bool,
}

pub(super) async fn run(hub: &Hub, args: &Args) -> Result<()> {
    let mut out = io::stdout();
    let mut before = (0, FIRST.to_owned());
    loop {
        let page = hub.audit(before.0).await?;
        if page.is_empty() {
            break;
        }
        for one in page {
            if let Some(problem) = one.problem((before.0, &before.1)) {
                bail!("the audit is not as it was written: {problem}");
            }
            if !args.verify {
                writeln!(out, "{}", serde_json::to_string(&one)?)?;
            }
            before = (one.id, one.digest);
        }
    }
    if args.verify {
        writeln!(
            out,
            "{} entries, none was changed; the last: {}",
            before.0, before.1
        )?;
    }
    Ok(())
}
