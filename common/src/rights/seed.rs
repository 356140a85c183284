//! What a party proves itself by: the seed of an `NKey`, an Ed25519 key, of which NATS knows the
//! public half alone.

use std::{fmt, path::Path};

use nkeys::{KeyPair, KeyPairType};

/// The seed of a user; it never shows.
#[derive(Clone)]
pub struct Seed {
    text: String,
    public_key: String,
}

impl Seed {
    /// Makes a new one.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn generate() -> Result<Self, String> {
        let pair = KeyPair::new_user();
        let text = pair
            .seed()
            .map_err(|error| format!("no seed can be made: {error}"))?;
        Self::parse(&text)
    }

    /// Takes over the text of a seed, which begins with `SU`.
    ///
    /// # Errors
    /// It is none; the text is not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().to_owned();
        let wrong = || "it holds no seed of a NATS user (`SU…`)".to_owned();
        let pair = KeyPair::from_seed(&text).map_err(|_secret| wrong())?;
        if pair.key_pair_type() != KeyPairType::User {
            return Err(wrong());
        }
        let public_key = pair.public_key();
        Ok(Self { text, public_key })
    }

    /// Reads the file that a setting names.
    ///
    /// # Errors
    /// It cannot be read or holds no seed; the text names setting and file, not what it holds.
    pub fn read(setting: &str, file: &Path) -> Result<Self, String> {
        let place = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("{setting}: {place}: {error}"))?;
        Self::parse(&text).map_err(|error| {
            format!("{setting}: {place}: {error}; `rovicli nats credentials` makes them")
        })
    }

    /// Reads the file of a setting that need not be there.
    ///
    /// # Errors
    /// As [`Seed::read`].
    pub fn read_optional(setting: &str, file: Option<&Path>) -> Result<Option<Self>, String> {
        file.map(|file| Self::read(setting, file)).transpose()
    }

    /// Returns the half that NATS knows.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Returns the seed, to keep it in a file or to sign by it.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seed({})", self.public_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_read_as_it_is_written_and_never_shows() {
        let seed = Seed::generate().unwrap();
        let again = Seed::parse(&format!("{}\n", seed.expose())).unwrap();
        assert_eq!(again.public_key(), seed.public_key());
        assert!(seed.public_key().starts_with('U'));
        assert!(!format!("{seed:?}").contains(seed.expose()));
    }

    #[test]
    fn what_is_no_seed_is_refused_with_the_place_and_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("twin.nk");
        let account = KeyPair::new_account().seed().unwrap();
        for text in ["secret", "", account.as_str()] {
            std::fs::write(&file, text).unwrap();
            let error = Seed::read("nats_seed_file", &file).unwrap_err();
            assert!(
                error.contains("nats_seed_file: ") && error.contains("twin.nk"),
                "{error}"
            );
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }
}
