//! `rovicli token`: makes, lists and revokes API tokens, and revokes JWTs.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Result, ensure};
use clap::Subcommand;
use rovi_common::auth::{Grant, secret};

use crate::{
    credentials::write_secret,
    hub::{Hub, TokenInfo},
};

const DAY_S: u64 = 86_400;

/// Arguments of `rovicli token`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Makes a token and prints it, this once.
    Create {
        /// What people call it, such as the machine or person that gets it.
        name: String,
        /// What its bearer may do: `reader`, `uploader`, `engineer` or `admin`, for everything or
        /// behind it `:tenant=<name>`, `:tag=<name>`, `:battery=<name>`. May stand many times.
        #[arg(long = "grant", value_name = "GRANT", required = true)]
        grants: Vec<Grant>,
        /// For how many days it counts; 0 for ever.
        #[arg(long, value_name = "DAYS", default_value_t = 90)]
        days: u64,
    },
    /// Lists tokens, revoked ones too, without their secrets.
    List,
    /// Revokes a token; what its bearer has open is closed.
    Revoke {
        /// Its id, as the list tells it.
        id: String,
    },
    /// Has JWTs of an outside issuer stop counting, for ever: one, or all that somebody was given
    /// before.
    RevokeJwt {
        /// `jti` of the one.
        #[arg(long, required_unless_present = "subject", conflicts_with = "subject")]
        jti: Option<String>,
        /// `sub` of those.
        #[arg(long)]
        subject: Option<String>,
        /// With `--subject`: only those issued before this, in seconds since 1970; else before now.
        #[arg(long, value_name = "SECONDS", requires = "subject")]
        issued_before: Option<i64>,
    },
    /// Writes a new token into a file, for `auth.service_token_file` and `auth.admin_token_file`.
    NewFile {
        /// The file, which must not exist.
        file: PathBuf,
    },
}

pub(super) async fn run(hub: Result<Hub>, args: Args) -> Result<()> {
    let mut out = io::stdout();
    match args.task {
        Task::Create { name, grants, days } => {
            let expires_s = (days > 0).then_some(days * DAY_S);
            let made = hub?.create_token(&name, &grants, expires_s).await?;
            writeln!(out, "{}", made.expose())?;
        }
        Task::List => {
            for token in hub?.tokens().await? {
                writeln!(out, "{}", line(&token))?;
            }
        }
        Task::Revoke { id } => {
            let revoked = hub?.revoke_token(&id).await?;
            writeln!(out, "{} ({}) is revoked", revoked.id, revoked.name)?;
        }
        Task::RevokeJwt {
            jti,
            subject,
            issued_before,
        } => {
            let body = serde_json::json!({
                "jti": jti, "subject": subject, "issued_before": issued_before,
            });
            hub?.revoke_jwts(&body).await?;
            writeln!(out, "revoked; what they opened is closed")?;
        }
        Task::NewFile { file } => {
            ensure!(!file.exists(), "{} exists already", file.display());
            let (_, token) = secret::new_token()?;
            write_secret(&file, &token)?;
        }
    }
    Ok(())
}

fn line(token: &TokenInfo) -> String {
    let state = match (token.revoked, token.expires) {
        (Some(_), _) => "revoked".to_owned(),
        (None, Some(expires)) => {
            let left = (expires - rovi_common::clock::now_us()) / 1_000_000;
            let days = left / i64::try_from(DAY_S).unwrap_or(1);
            if left <= 0 {
                "expired".to_owned()
            } else {
                format!("{days} days left")
            }
        }
        (None, None) => "for ever".to_owned(),
    };
    let grants: Vec<String> = token.grants.iter().map(ToString::to_string).collect();
    format!(
        "{}  {}  {}  {state}",
        token.id,
        token.name,
        grants.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_listed_with_what_it_gives_and_whether_it_counts() {
        let token = TokenInfo {
            id: "1f".to_owned(),
            name: "cycler".to_owned(),
            grants: vec!["uploader:tenant=acme".parse().unwrap()],
            expires: None,
            revoked: None,
        };
        assert_eq!(line(&token), "1f  cycler  uploader:tenant=acme  for ever");
        let revoked = TokenInfo {
            revoked: Some(1),
            ..token
        };
        assert!(line(&revoked).ends_with("revoked"));
    }
}
