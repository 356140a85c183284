//! A folder with the newest picture of each thing, replaced in place.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A folder of pictures. Whoever reads a file sees the old picture or the new one, never a half.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// Why a picture is not kept.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be {what}")]
pub struct FolderError {
    path: PathBuf,
    what: &'static str,
    #[source]
    source: io::Error,
}

impl Folder {
    /// Makes the folder where it is missing, and tries whether it can be written.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let folder = Self {
            path: path.to_owned(),
        };
        fs::create_dir_all(path).map_err(wrong(path, "made"))?;
        // A disk that is full or read-only shows now and not with the first picture.
        folder.write_beside("probe", b"probe")?;
        remove_file(&folder.beside("probe"))?;
        Ok(folder)
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces `<name>.png`.
    ///
    /// # Errors
    /// The disk is full, or the name is none of a file.
    pub fn put(&self, name: &str, png: &[u8]) -> Result<(), FolderError> {
        let file = self.file(name);
        if file.parent() != Some(&self.path) {
            let source = io::ErrorKind::InvalidFilename.into();
            return Err(wrong(&file, "a picture's name")(source));
        }
        let beside = self.write_beside(name, png)?;
        fs::rename(&beside, &file).map_err(wrong(&file, "replaced"))
    }

    /// Removes `<name>.png`, where it is there.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn remove(&self, name: &str) -> Result<(), FolderError> {
        remove_file(&self.file(name))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.png"))
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path.join(format!(".{name}.part"))
    }

    fn write_beside(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, FolderError> {
        let beside = self.beside(name);
        fs::write(&beside, bytes).map_err(wrong(&beside, "written"))?;
        Ok(beside)
    }
}

fn remove_file(file: &Path) -> Result<(), FolderError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(wrong(file, "removed")(error)),
        _gone => Ok(()),
    }
}

fn wrong(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError { path, what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let files = fs::read_dir(folder).unwrap();
        let name = |file: io::Result<fs::DirEntry>| file.unwrap().file_name();
        let names = files.map(|file| name(file).into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_picture_is_replaced_and_nothing_else_is_left() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("made")).unwrap();
        folder.put("history_b7", b"first").unwrap();
        folder.put("history_b7", b"second").unwrap();
        let made = place.path().join("made");
        assert_eq!(names(&made), ["history_b7.png"]);
        assert_eq!(fs::read(made.join("history_b7.png")).unwrap(), b"second");
        folder.remove("history_b7").unwrap();
        folder.remove("history_b7").unwrap();
        assert!(names(&made).is_empty());
    }

    #[test]
    fn a_folder_that_is_a_file_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Folder::open(file.path()).unwrap_err().to_string();
        assert!(error.contains(&*file.path().to_string_lossy()), "{error}");
    }

    #[test]
    fn a_name_never_leads_out_of_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("pictures")).unwrap();
        assert!(folder.put("../b7", b"x").is_err());
        assert!(names(&place.path().join("pictures")).is_empty());
        assert_eq!(names(place.path()), ["pictures"]);
    }
}
