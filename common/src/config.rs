//! How a service gets its settings: defaults < file < environment < flags.
//!
//! Environment variables are `ROVI_HUB_<KEY>` and `ROVI_TWIN_<KEY>` (`__` separates levels),
//! `DATABASE_URL` and `NATS_URL`; a file `.env` in the working folder is read first and never
//! wins over the real environment.

use std::{fmt, io::Write, net::SocketAddr, path::PathBuf, str::FromStr};

use figment::{
    Figment, Metadata, Profile, Provider, Source,
    providers::{Env, Format, Serialized, Toml},
    value::{Dict, Map, Value},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use url::Url;

/// What figment calls the environment.
const VARIABLES: &str = "environment variable";

/// The flags that every service takes.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
pub struct ServiceArgs {
    /// Settings file in TOML.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Check the settings, print nothing but problems, and exit.
    #[arg(long)]
    #[serde(skip)]
    pub check: bool,
    /// Print every setting with its origin, secrets blackened, and exit.
    #[arg(long)]
    #[serde(skip)]
    pub print_config: bool,
    /// Address and port to listen on.
    #[arg(long, value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Listen beyond loopback without TLS or authentication: on a network that is trusted, or behind a
    /// proxy that speaks TLS.
    #[arg(long)]
    #[serde(skip_serializing_if = "is_unset")]
    pub insecure_listen: bool,
    /// URL of NATS.
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_url: Option<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_unset(flag: &bool) -> bool {
    !flag
}

/// Why settings cannot be used; names the setting and where it came from.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// One or several settings have the wrong form.
    #[error("the settings are wrong: {0}")]
    Wrong(String),
    /// The settings file does not exist.
    #[error("the settings file {0} does not exist")]
    NoFile(PathBuf),
}

/// Settings and where each came from.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The settings.
    pub settings: T,
    figment: Figment,
}

/// Reads the settings of a service.
///
/// `prefix` is the start of its environment variables (`ROVI_HUB_`), `flags` its parsed flags.
///
/// # Errors
/// See [`ConfigError`].
pub fn load<T>(
    prefix: &str,
    args: &ServiceArgs,
    flags: &impl Serialize,
) -> Result<Loaded<T>, ConfigError>
where
    T: Default + Serialize + DeserializeOwned,
{
    let _missing_is_fine = dotenvy::dotenv();
    let mut figment = Figment::from(Serialized::defaults(T::default()));
    if let Some(file) = &args.config {
        if !file.exists() {
            return Err(ConfigError::NoFile(file.clone()));
        }
        figment = figment.merge(Toml::file(file));
    }
    let shared = shared_variables(&figment);
    let figment = figment
        .merge(Env::raw().only(&shared))
        .merge(Env::prefixed(prefix).split("__"))
        .merge(Flags(
            Value::serialize(flags).unwrap_or_else(|_| Dict::new().into()),
        ));
    let settings = figment.extract().map_err(|error| {
        let problems: Vec<String> = error.into_iter().map(|one| one.to_string()).collect();
        ConfigError::Wrong(problems.join("; "))
    })?;
    Ok(Loaded { settings, figment })
}

/// Names the variables without prefix that the service has a setting for: one without a database
/// is not troubled by the URL of one in the environment it shares.
fn shared_variables(defaults: &Figment) -> Vec<&'static str> {
    let has_setting = |name: &&str| defaults.contains(&name.to_lowercase());
    let shared = ["DATABASE_URL", "NATS_URL"].into_iter();
    shared.filter(has_setting).collect()
}

impl<T> Loaded<T> {
    /// Writes every setting with its origin; passwords in URLs are blackened.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Ok(all) = self.figment.extract::<Value>() else {
            return writeln!(out, "(the settings cannot be shown)");
        };
        self.print_value(out, "", &all)
    }

    fn print_value(&self, out: &mut impl Write, path: &str, value: &Value) -> std::io::Result<()> {
        if let Some(dict) = value.as_dict() {
            return dict.iter().try_for_each(|(key, value)| {
                let dot = if path.is_empty() { "" } else { "." };
                self.print_value(out, &format!("{path}{dot}{key}"), value)
            });
        }
        let shown = match value.as_str().map(ServiceUrl::from_str) {
            Some(Ok(url)) => format!("\"{url}\""),
            _ => serde_json::to_string(value).unwrap_or_default(),
        };
        let origin = self.figment.find_metadata(path).map_or_else(
            || "default".to_owned(),
            |found| origin_of(found, &path.split('.').collect::<Vec<_>>()),
        );
        writeln!(out, "{path} = {shown}  # {origin}")
    }
}

/// Says where a setting came from, in the words of those who set it.
fn origin_of(found: &Metadata, keys: &[&str]) -> String {
    match &found.source {
        // Defaults come from the code.
        Some(Source::Code(_)) => "default".to_owned(),
        Some(source) => format!("{} {source}", found.name),
        None if found.name.contains(VARIABLES) => {
            let key = found.interpolate(&Profile::Default, keys);
            // Levels are separated by dots here, by two underscores in the environment.
            let key = key.replace('.', "__");
            let prefix = found.name.split('`').nth(1).unwrap_or_default();
            format!("environment variable {prefix}{key}")
        }
        None => found.name.to_string(),
    }
}

/// The flags given on the command line, as the last word.
struct Flags(Value);

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("flag on the command line")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = self.0.as_dict().cloned().unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// A URL of a server; its password never shows in `Debug` or `Display`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceUrl(Url);

impl ServiceUrl {
    /// Returns the URL with its password, for connecting only.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for ServiceUrl {
    type Err = url::ParseError;

    fn from_str(text: &str) -> Result<Self, url::ParseError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        if shown.password().is_some() && shown.set_password(Some("***")).is_err() {
            return f.write_str("(url)");
        }
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        rows: u32,
        database_url: Option<ServiceUrl>,
    }

    #[test]
    fn a_password_never_shows() {
        let url: ServiceUrl = "postgres://u:secret@h/db".parse().unwrap();
        assert_eq!(
            format!("{url} {url:?}"),
            "postgres://u:***@h/db postgres://u:***@h/db"
        );
        assert!(url.expose().contains("secret"));
    }

    #[test]
    fn flags_win_over_the_file_and_origins_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hub.toml");
        std::fs::write(
            &file,
            "rows = 5\ndatabase_url = \"postgres://u:secret@h/db\"",
        )
        .unwrap();
        let args = ServiceArgs {
            config: Some(file),
            ..ServiceArgs::default()
        };
        let flags = serde_json::json!({"rows": 7});
        let loaded: Loaded<Settings> = load("ROVI_TEST_", &args, &flags).unwrap();
        assert_eq!(loaded.settings.rows, 7);
        let mut shown = Vec::new();
        loaded.print(&mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert!(
            shown.contains("rows = 7  # flag on the command line"),
            "{shown}"
        );
        assert!(
            shown.contains("hub.toml") && !shown.contains("secret"),
            "{shown}"
        );
    }

    #[test]
    fn origins_name_defaults_and_variables_as_their_users_know_them() {
        let variable = |prefix: Option<&str>| {
            let env = prefix.map_or_else(Env::raw, Env::prefixed);
            origin_of(&env.metadata(), &["bus", "max_age"])
        };
        assert_eq!(variable(None), "environment variable BUS__MAX_AGE");
        assert_eq!(
            variable(Some("ROVI_HUB_")),
            "environment variable ROVI_HUB_BUS__MAX_AGE"
        );
        let defaults = Serialized::defaults(Settings::default());
        assert_eq!(origin_of(&defaults.metadata(), &["rows"]), "default");
    }

    #[test]
    fn a_shared_variable_is_read_only_by_a_service_with_that_setting() {
        let defaults = Figment::from(Serialized::defaults(Settings::default()));
        assert_eq!(shared_variables(&defaults), ["DATABASE_URL"]);
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name() {
        let error = load::<Settings>(
            "ROVI_TEST_",
            &ServiceArgs::default(),
            &serde_json::json!({"raws": 1}),
        )
        .unwrap_err();
        assert!(error.to_string().contains("raws"), "{error}");
    }
}
