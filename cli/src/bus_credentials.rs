//! The folder of NATS's credentials: a seed for each party in a file that only its owner may read,
//! and `users.conf`, by which the server knows what each may do.
//!
//! Seeds that are there are kept, so that the folder may be brought up to date at every start; the
//! settings are those of this version. Who loses their file loses their rights with the next call.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rovi_common::{
    auth::role::Word,
    rights::{Party, seed::Seed, users},
};

use crate::credentials::write_secret;

/// The settings to be included by those of the server.
pub const USERS_FILE: &str = "users.conf";
const FOLDER_MODE: u32 = 0o700;

/// The credentials of an installation.
#[derive(Debug)]
pub struct BusCredentials {
    folder: PathBuf,
    users: String,
    /// Those who have a seed now, and whether it was made just now.
    pub parties: Vec<(Party, bool)>,
}

impl BusCredentials {
    /// Makes what is missing in a folder: the services' seeds, and those of readers of `tenants`.
    ///
    /// # Errors
    /// A file cannot be read or written, holds no seed, or others may read it.
    pub fn bring_up_to_date(folder: &Path, tenants: &[Word]) -> Result<Self> {
        let place = folder.display();
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(FOLDER_MODE).create(folder);
        made.with_context(|| format!("cannot make the folder {place}"))?;
        let wanted = Party::FIXED.into_iter();
        let readers = tenants.iter().cloned().map(Party::Reader);
        let known = known(folder).with_context(|| format!("cannot list {place}"))?;
        let parties: BTreeSet<Party> = wanted.chain(readers).chain(known).collect();
        let mut keys = Vec::new();
        let mut have = Vec::new();
        for party in parties {
            let (seed, is_new) = read_or_make(&seed_file(folder, &party))?;
            keys.push((party.clone(), seed.public_key().to_owned()));
            have.push((party, is_new));
        }
        let users = users::settings(&keys);
        let file = folder.join(USERS_FILE);
        fs::write(&file, &users).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            users,
            parties: have,
        })
    }

    /// Returns the server's settings.
    pub fn users(&self) -> &str {
        &self.users
    }

    /// Returns the file with a party's seed.
    pub fn seed_file(&self, party: &Party) -> PathBuf {
        seed_file(&self.folder, party)
    }
}

fn seed_file(folder: &Path, party: &Party) -> PathBuf {
    folder.join(format!("{party}.nk"))
}

/// Those who have a file already.
fn known(folder: &Path) -> std::io::Result<Vec<Party>> {
    let names = fs::read_dir(folder)?
        .map(|file| Ok(file?.file_name()))
        .collect::<std::io::Result<Vec<_>>>()?;
    let parties = names.iter().filter_map(|name| {
        let name = name.to_str()?.strip_suffix(".nk")?;
        name.parse().ok()
    });
    Ok(parties.collect())
}

fn read_or_make(file: &Path) -> Result<(Seed, bool)> {
    let place = file.display();
    let is_new = !file.exists();
    if is_new {
        let seed = Seed::generate().map_err(anyhow::Error::msg)?;
        write_secret(file, seed.expose())?;
    }
    let mode = fs::metadata(file).with_context(|| format!("cannot read {place}"))?;
    let is_ours = mode.mode().trailing_zeros() >= 6;
    ensure!(
        is_ours,
        "others may read {place}, which holds a secret: `chmod 600 {place}`, or remove it for a new one"
    );
    let seed = Seed::read("the seed", file).map_err(anyhow::Error::msg)?;
    Ok((seed, is_new))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn seeds_are_made_once_for_their_owner_alone_and_the_settings_hold_none() {
        let folder = tempfile::tempdir().unwrap();
        let acme: Word = "acme".parse().unwrap();
        let first = BusCredentials::bring_up_to_date(folder.path(), &[acme]).unwrap();
        assert_eq!(first.parties.len(), 5);
        assert!(first.parties.iter().all(|(_, is_new)| *is_new));
        for (party, _) in &first.parties {
            let file = first.seed_file(party);
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
            let seed = fs::read_to_string(&file).unwrap();
            assert!(!first.users().contains(seed.trim()));
        }
        // A reader of before keeps its place without being named again.
        let again = BusCredentials::bring_up_to_date(folder.path(), &[]).unwrap();
        assert_eq!(again.users(), first.users());
        assert!(again.parties.iter().all(|(_, is_new)| !is_new));
    }

    #[test]
    fn a_seed_whose_file_is_removed_does_not_count_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let first = BusCredentials::bring_up_to_date(folder.path(), &[]).unwrap();
        let file = first.seed_file(&Party::Twin);
        let lost = Seed::read("seed", &file).unwrap();
        fs::remove_file(file).unwrap();
        let again = BusCredentials::bring_up_to_date(folder.path(), &[]).unwrap();
        assert!(first.users().contains(lost.public_key()));
        assert!(!again.users().contains(lost.public_key()));
    }

    #[test]
    fn a_seed_that_others_may_read_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let made = BusCredentials::bring_up_to_date(folder.path(), &[]).unwrap();
        let file = made.seed_file(&Party::Hub);
        fs::set_permissions(file, PermissionsExt::from_mode(0o644)).unwrap();
        let error = BusCredentials::bring_up_to_date(folder.path(), &[]).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}
