//! What a stack of containers needs at its first start: a folder for each container with its secrets
//! and nothing of the others'. What is there is kept, so that every start may ask for it.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rovi_common::{
    auth::{
        gate::read_token,
        secret::{self, Token},
    },
    rights::Party,
};
use url::Url;

use crate::{
    bus_credentials::{BusCredentials, USERS_FILE},
    credentials::{Credentials, Places, write_secret},
};

/// Containers of other users read by their group, which is that of ours.
const GROUP_MODE: u32 = 0o640;
/// Only our own user looks in; where others' containers look in, they do so by the group.
const FOLDER_MODE: u32 = 0o750;
/// Roles of the database that containers take on (`deploy/postgres/roles.sql`), with the containers
/// and the names of their passwords.
const ROLES: [(&str, &str, &str); 2] = [
    ("rovi_hub", "datahub", "hub.password"),
    ("rovi_migrate", "migrate", "migrate.password"),
];

/// What was made, and for whom.
#[derive(Debug)]
pub struct FirstStart {
    folder: PathBuf,
}

impl FirstStart {
    /// Makes what is missing under `folder`; `password` is that of a database of before.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn prepare(folder: &Path, hubs: &[Url], password: Option<&str>) -> Result<Self> {
        let made = Self {
            folder: folder.to_owned(),
        };
        made.tokens(hubs)?;
        made.database(password)?;
        made.bus()?;
        Ok(made)
    }

    /// The admin's token for hub, twin and `rovicli`; the services' for both and for Prometheus.
    fn tokens(&self, hubs: &[Url]) -> Result<()> {
        let admin = self.secret("admin", "admin.token")?;
        let service = self.secret("admin", "service.token")?;
        for container in ["datahub", "twin"] {
            self.copy(container, "admin.token", admin.expose())?;
            self.copy(container, "service.token", service.expose())?;
        }
        self.copy_for_group("prometheus", "service.token", service.expose())?;
        let kept = Credentials::of(&Places::of(&self.container("admin")?));
        let kept = kept.context("the folder of credentials is not absolute")?;
        hubs.iter().try_for_each(|hub| kept.keep(hub, &admin))
    }

    /// The passwords of PostgreSQL and Grafana.
    fn database(&self, before: Option<&str>) -> Result<()> {
        let place = self.container("admin")?.join("postgres.password");
        if let Some(before) = before.filter(|_| !place.exists()) {
            write_secret(&place, before)?;
        }
        let password = self.secret("admin", "postgres.password")?;
        self.copy_for_group("postgres", "password", password.expose())?;
        for (role, container, name) in ROLES {
            let password = self.secret("admin", name)?;
            let password = password.expose();
            self.copy_for_group("postgres", name, password)?;
            // Of libpq, which reads it only where nobody else may.
            self.copy(container, "pgpass", &format!("*:*:*:{role}:{password}"))?;
        }
        for name in ["reader.password", "grafana.password"] {
            let made = self.secret("admin", name)?;
            self.copy_for_group("grafana", name, made.expose())?;
        }
        Ok(())
    }

    /// The seeds of hub and twin, and what the server knows of them.
    fn bus(&self) -> Result<()> {
        let bus = BusCredentials::bring_up_to_date(&self.container("admin")?.join("nats"), &[])?;
        for party in [Party::Hub, Party::Twin] {
            let seed = bus.seed_file(&party);
            let seed = fs::read_to_string(&seed)
                .with_context(|| format!("cannot read {}", seed.display()))?;
            self.copy(&party.to_string(), "nats.nk", seed.trim())?;
        }
        self.copy("nats", USERS_FILE, bus.users())
    }

    /// Returns the folder of a container.
    fn container(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        let made = DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(&folder);
        made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(folder)
    }

    /// Reads a secret, or makes one of 256 random bits.
    fn secret(&self, container: &str, name: &str) -> Result<Token> {
        let file = self.container(container)?.join(name);
        if !file.exists() {
            let (_, token) = secret::new_token()?;
            write_secret(&file, &token)?;
        }
        let place = file.display();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {place}"))?;
        // Passwords of before are as short as they were; tokens have their least length.
        let text = if Path::new(name).extension() == Some("token".as_ref()) {
            read_token("the token", &file).map_err(anyhow::Error::msg)?
        } else {
            text.trim().to_owned()
        };
        Ok(Token::new(text))
    }

    fn copy(&self, container: &str, name: &str, text: &str) -> Result<()> {
        write_secret(&self.container(container)?.join(name), text)
    }

    /// Copies it for a container that runs as another user with our group beside its own.
    fn copy_for_group(&self, container: &str, name: &str, text: &str) -> Result<()> {
        self.copy(container, name, text)?;
        let file = self.container(container)?.join(name);
        let opened = fs::set_permissions(&file, fs::Permissions::from_mode(GROUP_MODE));
        opened.with_context(|| format!("cannot open {} to its group", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn files(folder: &Path) -> Vec<(String, u32, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                let mode = fs::metadata(&path).unwrap().mode() & 0o777;
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.display().to_string(), mode, text));
            }
        }
        found.sort();
        found
    }

    fn hub() -> Url {
        "http://datahub:8000".parse().unwrap()
    }

    #[test]
    fn each_container_gets_its_own_secrets_and_a_second_start_changes_none() {
        let folder = tempfile::tempdir().unwrap();
        let prepare = || FirstStart::prepare(folder.path(), &[hub()], None).unwrap();
        prepare();
        let first = files(folder.path());
        prepare();
        assert_eq!(files(folder.path()), first);
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("datahub/pgpass").starts_with("*:*:*:rovi_hub:"));
        assert!(read("migrate/pgpass").starts_with("*:*:*:rovi_migrate:"));
        assert_ne!(read("datahub/nats.nk"), read("twin/nats.nk"));
        assert!(read("admin/rovi/tokens.json").contains(read("admin/admin.token").trim()));
        for (file, mode, text) in &first {
            let for_others = ["/postgres/", "/grafana/", "/prometheus/"];
            let for_others = for_others.iter().any(|part| file.contains(part));
            let is_public = file.ends_with("users.conf");
            assert!(
                is_public || *mode == if for_others { 0o640 } else { 0o600 },
                "{file} {mode:o}"
            );
            // The twin runs what others wrote: the keys of the others are not with it.
            if file.contains("/twin/") {
                assert!(!text.contains(read("datahub/nats.nk").trim()), "{file}");
                for secret in ["postgres/password", "postgres/hub.password"] {
                    assert!(!text.contains(read(secret).trim()), "{file}");
                }
            }
        }
    }

    #[test]
    fn a_password_of_before_is_taken_over_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        FirstStart::prepare(folder.path(), &[], Some("ro:vi")).unwrap();
        FirstStart::prepare(folder.path(), &[], Some("another")).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("postgres/password"), "ro:vi\n");
    }
}
