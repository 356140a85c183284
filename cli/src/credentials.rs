//! Where `rovicli` keeps tokens: a file that only its owner may read, with one token for each hub, so
//! that no hub is ever shown the token of another.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rovi_common::auth::secret::Token;
use url::Url;

/// Only the owner may read and write.
const MODE: u32 = 0o600;

/// Where the file is; environment, not meant to be typed.
#[derive(Debug, Clone, clap::Args)]
pub struct Places {
    /// Folder for settings of the user.
    #[arg(long, env = "XDG_CONFIG_HOME", hide = true, global = true)]
    xdg_config_home: Option<PathBuf>,
    /// Home folder, where settings are kept by default.
    #[arg(long = "config-home", env = "HOME", hide = true, global = true)]
    config_home: Option<PathBuf>,
}

impl Places {
    /// Names the folder for settings.
    pub fn of(folder: &Path) -> Self {
        Self {
            xdg_config_home: Some(folder.to_owned()),
            config_home: None,
        }
    }
}

/// The tokens of a user.
#[derive(Debug, Clone)]
pub struct Credentials {
    file: PathBuf,
}

impl Credentials {
    /// Finds the file, which need not exist; `None` where there is no home.
    pub fn of(places: &Places) -> Option<Self> {
        let absolute = |path: &&PathBuf| path.is_absolute();
        let xdg = places.xdg_config_home.as_ref().filter(absolute).cloned();
        let home = places.config_home.as_ref().filter(absolute);
        let folder = xdg.or_else(|| home.map(|home| home.join(".config")))?;
        Some(Self {
            file: folder.join("rovi/tokens.json"),
        })
    }

    /// Returns the file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the token for a hub, if there is one.
    ///
    /// # Errors
    /// The file cannot be read, or others may read it.
    pub fn token(&self, hub: &Url) -> Result<Option<Token>> {
        Ok(self.read()?.remove(&origin(hub)).map(Token::new))
    }

    /// Keeps a token for a hub.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, hub: &Url, token: &Token) -> Result<()> {
        let mut tokens = self.read()?;
        tokens.insert(origin(hub), token.expose().to_owned());
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        write_secret(&self.file, &serde_json::to_string_pretty(&tokens)?)
    }

    fn read(&self) -> Result<BTreeMap<String, String>> {
        let place = self.file.display();
        let text = match fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {place}")),
        };
        if fs::metadata(&self.file)?.mode() & 0o077 != 0 {
            bail!("others may read {place}, which holds tokens: `chmod 600 {place}`");
        }
        serde_json::from_str(&text).with_context(|| format!("{place} is no file of tokens"))
    }
}

/// Scheme, host and port: what a token is for.
fn origin(hub: &Url) -> String {
    hub.origin().ascii_serialization()
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_secret(file: &Path, text: &str) -> Result<()> {
    let place = file.display();
    let new = file.with_extension("new");
    let written = || -> std::io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = File::options();
        let mut written = options.create_new(true).write(true).mode(MODE).open(&new)?;
        writeln!(written, "{text}")?;
        written.sync_all()?;
        fs::rename(&new, file)
    };
    written().with_context(|| format!("cannot write {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(home: &Path) -> Credentials {
        let places = Places {
            xdg_config_home: None,
            config_home: Some(home.to_owned()),
        };
        Credentials::of(&places).unwrap()
    }

    #[test]
    fn a_token_is_kept_for_its_hub_alone_and_readable_by_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let kept = credentials(home.path());
        let hub: Url = "http://127.0.0.1:8000/x".parse().unwrap();
        assert!(kept.token(&hub).unwrap().is_none());
        kept.keep(&hub, &Token::new("secret".to_owned())).unwrap();
        let same = "http://127.0.0.1:8000".parse().unwrap();
        assert_eq!(kept.token(&same).unwrap().unwrap().expose(), "secret");
        for other in ["http://127.0.0.1:8001", "https://127.0.0.1:8000"] {
            assert!(kept.token(&other.parse().unwrap()).unwrap().is_none());
        }
        let mode = fs::metadata(kept.file()).unwrap().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_what_to_do() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let kept = credentials(home.path());
        let hub = "http://127.0.0.1:8000".parse().unwrap();
        kept.keep(&hub, &Token::new("secret".to_owned())).unwrap();
        fs::set_permissions(kept.file(), PermissionsExt::from_mode(0o644)).unwrap();
        let error = kept.token(&hub).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
