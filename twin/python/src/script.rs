//! A script and its companion files, checked before anything is run or stored.

use std::{collections::HashSet, path::Path, sync::Arc};

use rovi_common::files::{MAX_FILE_BYTES, MAX_FILES, MAX_FILES_BYTES};

/// The most bytes of a definition, native or script.
pub const MAX_DEFINITION_BYTES: usize = 512 * 1024;
/// The most bytes of a file's name.
pub const MAX_FILE_NAME_BYTES: usize = 128;

/// A file that a script finds in its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptFile {
    /// Its name, without a path.
    pub name: String,
    /// Its content.
    pub content: Arc<[u8]>,
}

/// Why a script or its files are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// A file's name could lead out of its folder, or is not portable.
    #[error(
        "the file name {name:?} is refused: names have 1 to {MAX_FILE_NAME_BYTES} bytes, no `/` or `\\`, \
         no control characters, and do not begin with `.`"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Two files have one name.
    #[error("two files are named {name:?}")]
    Twice {
        /// The name.
        name: String,
    },
    /// There are too many files, or they are too large.
    #[error(
        "the files are too many or too large: {files} files with {bytes} bytes; at most {MAX_FILES} files are \
         taken, {MAX_FILE_BYTES} bytes each and {MAX_FILES_BYTES} together"
    )]
    Size {
        /// How many there are.
        files: usize,
        /// Their bytes.
        bytes: usize,
    },
}

/// Tells a Python script from a native document, which is a JSON object.
pub fn is_script(definition: &str) -> bool {
    !definition.trim_start().starts_with('{')
}

/// A script that may be run: its files' names stay within a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    definition: Arc<str>,
    files: Vec<ScriptFile>,
    required_time: f64,
}

impl Script {
    /// Checks the files of a script; `required_time` is the span of history in seconds that
    /// `perform_offline_estimation` needs, 0 for none.
    ///
    /// # Errors
    /// See [`ScriptError`].
    pub fn new(
        definition: impl Into<Arc<str>>,
        files: Vec<ScriptFile>,
        required_time: f64,
    ) -> Result<Self, ScriptError> {
        let mut names = HashSet::new();
        for file in &files {
            check_name(&file.name)?;
            if !names.insert(file.name.as_str()) {
                let name = file.name.clone();
                return Err(ScriptError::Twice { name });
            }
        }
        check_sizes(files.iter().map(|file| file.content.len()))?;
        Ok(Self {
            definition: definition.into(),
            files,
            required_time: required_time.max(0.0),
        })
    }

    /// Returns the text.
    pub fn definition(&self) -> &str {
        &self.definition
    }

    /// Returns the companion files.
    pub fn files(&self) -> &[ScriptFile] {
        &self.files
    }

    /// Returns the span of history that offline estimation needs, in seconds; 0 for none.
    pub fn required_time(&self) -> f64 {
        self.required_time
    }
}

/// Checks the number and sizes of files.
///
/// # Errors
/// [`ScriptError::Size`].
pub(crate) fn check_sizes(sizes: impl Iterator<Item = usize>) -> Result<(), ScriptError> {
    let (mut files, mut bytes, mut largest) = (0, 0_usize, 0);
    for size in sizes {
        files += 1;
        bytes = bytes.saturating_add(size);
        largest = largest.max(size);
    }
    if files > MAX_FILES || bytes > MAX_FILES_BYTES || largest > MAX_FILE_BYTES {
        return Err(ScriptError::Size { files, bytes });
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), ScriptError> {
    let is_one_part = Path::new(name).file_name().is_some_and(|own| own == name);
    let has_odd = name
        .chars()
        .any(|c| c.is_control() || c == '/' || c == '\\');
    let is_portable = !name.starts_with('.') && !has_odd && name.len() <= MAX_FILE_NAME_BYTES;
    if is_one_part && is_portable {
        return Ok(());
    }
    let name = name.chars().take(MAX_FILE_NAME_BYTES).collect();
    Err(ScriptError::Name { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: usize) -> ScriptFile {
        ScriptFile {
            name: name.to_owned(),
            content: vec![0; bytes].into(),
        }
    }

    #[test]
    fn a_name_that_leads_out_of_the_folder_is_refused() {
        let long = "x".repeat(MAX_FILE_NAME_BYTES + 1);
        for name in [
            "",
            ".",
            "..",
            "../x",
            "/etc/passwd",
            "a/b",
            "a\\b",
            ".hidden",
            "a\0b",
            "a\nb",
            &long,
        ] {
            let refused = Script::new("", vec![file(name, 1)], 0.0).unwrap_err();
            assert!(matches!(refused, ScriptError::Name { .. }), "{name:?}");
        }
        for name in ["initial-asoh.json", "pca model.pkl", "größe.csv", "a..b"] {
            Script::new("", vec![file(name, 1)], 0.0).unwrap();
        }
    }

    #[test]
    fn files_are_limited_in_number_and_size_and_have_one_name_each() {
        let many = (0..=MAX_FILES).map(|i| file(&format!("f{i}"), 1)).collect();
        let three_halves = (0..3)
            .map(|i| file(&format!("f{i}"), MAX_FILE_BYTES))
            .collect();
        for files in [many, vec![file("a", MAX_FILE_BYTES + 1)], three_halves] {
            let refused = Script::new("", files, 0.0).unwrap_err();
            assert!(matches!(refused, ScriptError::Size { .. }), "{refused}");
        }
        let twice = Script::new("", vec![file("a", 1), file("a", 1)], 0.0).unwrap_err();
        assert!(twice.to_string().contains("\"a\""), "{twice}");
    }

    #[test]
    fn only_an_object_is_no_script() {
        assert!(!is_script("\n {\"kind\": \"joint\"}"));
        for script in [
            "estimator = 1",
            "\"\"\"Fits.\"\"\"\n",
            "[f() for f in fits]",
        ] {
            assert!(is_script(script), "{script}");
        }
    }
}
