//! Documents that were read, each kept once: the batteries of a fleet have few different ones.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use rovi_common::error::ErrorChain;
use rovi_estimation::Document;

/// What is odd about a document, a sentence each.
type Warnings = Vec<String>;

/// Documents in use, by their text.
#[derive(Debug, Default)]
pub struct Documents(Mutex<HashMap<String, (Weak<Document>, Warnings)>>);

impl Documents {
    /// Reads a document, unless one of the same text is in use.
    pub(crate) fn read(&self, text: &str) -> Result<(Arc<Document>, Warnings), String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((document, warnings)) = known.get(text)
            && let Some(document) = document.upgrade()
        {
            return Ok((document, warnings.clone()));
        }
        let (document, warnings) =
            Document::from_json(text).map_err(|error| ErrorChain(&error).to_string())?;
        let document = Arc::new(document);
        let warnings: Warnings = warnings.iter().map(ToString::to_string).collect();
        known.retain(|_, (document, _)| document.strong_count() > 0);
        let kept = (Arc::downgrade(&document), warnings.clone());
        known.insert(text.to_owned(), kept);
        Ok((document, warnings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_once_while_it_is_in_use() {
        let text = include_str!("../../tests/golden/joint_corrected_physics.json");
        let documents = Documents::default();
        let first = documents.read(text).unwrap();
        let second = documents.read(text).unwrap();
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert!(documents.read("{}").is_err());
        drop((first, second));
        let _another = documents.read(&format!("{text}\n")).unwrap();
        assert_eq!(documents.0.lock().unwrap().len(), 1);
    }
}
