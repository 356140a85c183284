//! The tokens of a stack that asks everybody for one: that of the services and that of the admin, each
//! in a file of the data folder.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rovi_common::auth::{
    gate::read_token,
    secret::{self, Token},
};

use crate::credentials::write_secret;

/// A token, and whether it was made just now.
#[derive(Debug)]
pub struct MadeToken {
    /// The token.
    pub token: Token,
    /// Whether nobody has seen it yet.
    pub is_new: bool,
    file: PathBuf,
}

/// The tokens of a stack.
#[derive(Debug)]
pub(super) struct Tokens {
    service: MadeToken,
    admin: MadeToken,
}

impl Tokens {
    /// Reads the tokens of a data folder, or makes them.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub(super) fn of(folder: &Path) -> Result<Self> {
        Ok(Self {
            service: read_or_make(folder.join("service.token"))?,
            admin: read_or_make(folder.join("admin.token"))?,
        })
    }

    pub(super) fn admin(&self) -> &MadeToken {
        &self.admin
    }

    /// Returns the settings of a service as variables; the tokens themselves stay in their files.
    pub(super) fn settings(&self, prefix: &str) -> [(String, PathBuf); 3] {
        let name = |key: &str| format!("{prefix}_AUTH__{key}");
        [
            (name("REQUIRED"), "true".into()),
            (name("SERVICE_TOKEN_FILE"), self.service.file.clone()),
            (name("ADMIN_TOKEN_FILE"), self.admin.file.clone()),
        ]
    }
}

fn read_or_make(file: PathBuf) -> Result<MadeToken> {
    let is_new = !file.exists();
    if is_new {
        let (_, token) = secret::new_token()?;
        write_secret(&file, &token)?;
    }
    let token = read_token("the token", &file).map_err(anyhow::Error::msg)?;
    Ok(MadeToken {
        token: Token::new(token),
        is_new,
        file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let first = Tokens::of(folder.path()).unwrap();
        let again = Tokens::of(folder.path()).unwrap();
        assert!(first.admin.is_new && !again.admin.is_new);
        assert_eq!(first.admin.token, again.admin.token);
        assert_ne!(first.admin.token, first.service.token);
        let settings = format!("{:?}", again.settings("ROVI_HUB"));
        assert!(!settings.contains(again.admin.token.expose()), "{settings}");
    }
}
