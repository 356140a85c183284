//! The interpreter: which one it is, and which folders it reads.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::settings::Unavailable;

/// The oldest version that the driver runs on.
const OLDEST: (u32, u32) = (3, 8);

/// Asked of the interpreter itself: only it knows its folders, such as those of a virtual environment.
const QUESTION: &str = "import json, sys, sysconfig; print(json.dumps({
  'program': sys.executable, 'version': list(sys.version_info[:3]),
  'readable': [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
              + list(sysconfig.get_paths().values()) + sys.path}))";

/// An interpreter that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// Its full path, not that of a shim.
    pub program: PathBuf,
    /// Its version.
    pub version: (u32, u32, u32),
    /// Where its library and packages are.
    pub readable: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Answer {
    program: PathBuf,
    version: (u32, u32, u32),
    readable: Vec<PathBuf>,
}

impl Interpreter {
    /// Asks an interpreter about itself. No script runs for this.
    ///
    /// # Errors
    /// [`Unavailable::Interpreter`].
    pub fn ask(interpreter: &Path) -> Result<Self, Unavailable> {
        let unavailable = |reason: String| Unavailable::Interpreter {
            interpreter: interpreter.to_owned(),
            reason,
        };
        let asked = Command::new(interpreter)
            .args(["-I", "-B", "-c", QUESTION])
            .stdin(Stdio::null())
            .output();
        let answer = asked.map_err(|error| unavailable(format!("cannot be started ({error})")))?;
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr);
            let last = said.lines().last().unwrap_or("says nothing");
            return Err(unavailable(format!("fails: {last}")));
        }
        let Answer {
            program,
            version,
            readable,
        } = serde_json::from_slice(&answer.stdout)
            .map_err(|error| unavailable(format!("does not answer as Python does: {error}")))?;
        let (major, minor, patch) = version;
        if (major, minor) < OLDEST {
            return Err(unavailable(format!("is Python {major}.{minor}.{patch}")));
        }
        Ok(Self {
            program,
            version,
            readable: folders(readable),
        })
    }
}

/// Folders that exist, each once; `/` is none of an interpreter.
fn folders(named: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = named
        .into_iter()
        .filter(|path| path.is_absolute() && path.parent().is_some() && path.exists())
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_tells_its_own_folders() {
        let found = Interpreter::ask(Path::new("python3")).unwrap();
        assert!(found.program.is_absolute());
        assert!(found.version >= (3, 8, 0));
        assert!(!found.readable.is_empty());
        assert!(!found.readable.contains(&PathBuf::from("/")));
    }

    #[test]
    fn what_is_no_interpreter_is_named_with_what_to_do() {
        for (program, said) in [
            ("no-such-python", "cannot be started"),
            ("false", "fails"),
            ("true", "does not answer as Python does"),
        ] {
            let refused = Interpreter::ask(Path::new(program))
                .unwrap_err()
                .to_string();
            assert!(refused.contains(said), "{refused}");
            assert!(refused.contains("`python.interpreter`"), "{refused}");
        }
    }
}
