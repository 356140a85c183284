//! Documents that were read, each kept once: the batteries of a fleet have few different ones.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use rovi_common::{error::ErrorChain, frame::Lineage};
use rovi_estimation::Document;

/// What is odd about a document, a sentence each.
type Warnings = Vec<String>;

type Read = HashMap<Arc<str>, (Weak<Document>, Warnings)>;

/// Documents in use, by their text.
#[derive(Debug, Default)]
pub struct Documents {
    read: Mutex<Read>,
    texts: Mutex<Texts>,
}

/// Texts in use, of documents and scripts alike, and what their estimates say of them.
#[derive(Debug, Default)]
struct Texts {
    known: HashMap<Arc<str>, Weak<Lineage>>,
    /// How many there may be before those of no use are forgotten.
    most: usize,
}

impl Texts {
    fn share(&mut self, text: Arc<str>) -> Arc<str> {
        if let Some((known, _)) = self.known.get_key_value(&text) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.most {
            self.known.retain(|known, _| Arc::strong_count(known) > 1);
            self.most = 64.max(2 * self.known.len());
        }
        self.known.insert(Arc::clone(&text), Weak::new());
        text
    }

    fn lineage(&mut self, text: &Arc<str>, make: impl FnOnce() -> Lineage) -> Arc<Lineage> {
        let text = self.share(Arc::clone(text));
        let known = self.known.entry(text).or_default();
        known.upgrade().unwrap_or_else(|| {
            let lineage = Arc::new(make());
            *known = Arc::downgrade(&lineage);
            lineage
        })
    }
}

impl Documents {
    /// Returns the text as others that are in use have it.
    pub(crate) fn share(&self, text: Arc<str>) -> Arc<str> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.share(text)
    }

    /// Returns what estimates by a text say of it: made once while it is in use.
    pub(crate) fn lineage(&self, text: &Arc<str>, make: impl FnOnce() -> Lineage) -> Arc<Lineage> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.lineage(text, make)
    }

    /// Reads a document, unless one of the same text is in use.
    pub(crate) fn read(&self, text: &Arc<str>) -> Result<(Arc<Document>, Warnings), String> {
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
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
        known.insert(Arc::clone(text), kept);
        Ok((document, warnings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_once_while_it_is_in_use() {
        let text: Arc<str> = include_str!("../../tests/golden/joint_corrected_physics.json").into();
        let documents = Documents::default();
        let first = documents.read(&text).unwrap();
        let second = documents.read(&text).unwrap();
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert!(documents.read(&"{}".into()).is_err());
        drop((first, second));
        let _another = documents.read(&format!("{text}\n").into()).unwrap();
        assert_eq!(documents.read.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_text_is_kept_once_and_only_while_it_is_in_use() {
        let mut texts = Texts::default();
        let first = texts.share("{}".into());
        assert!(Arc::ptr_eq(&first, &texts.share("{}".into())));
        for number in 0..1000 {
            texts.share(number.to_string().into());
        }
        assert!(texts.known.len() <= 64, "{}", texts.known.len());
        assert!(Arc::ptr_eq(&first, &texts.share("{}".into())));
    }
}
