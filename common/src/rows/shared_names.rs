//! Names of columns that all rows of one form share, whoever sends them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use super::Columns;

/// Forms that are kept; more than that many are no fleet's.
const MOST_FORMS: usize = 64;

/// The names of the forms that were seen last. Ten thousand batteries of one kind send the same
/// names: read again and again for each battery, they would have to come from memory each time.
#[derive(Debug, Default)]
pub struct SharedNames(Mutex<HashSet<Arc<Vec<String>>>>);

impl SharedNames {
    /// Gives `columns` the names that others of their form have.
    pub fn share(&self, columns: &mut Columns) {
        let Some(names) = &mut columns.names else {
            return;
        };
        let mut forms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = forms.get(names) {
            *names = Arc::clone(known);
            return;
        }
        if forms.len() >= MOST_FORMS {
            forms.clear();
        }
        forms.insert(Arc::clone(names));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(name: &str) -> Columns {
        serde_json::from_value(serde_json::json!({ name: [1] })).unwrap()
    }

    fn have_the_same(some: &Columns, others: &Columns) -> bool {
        let names = some.names.as_ref().zip(others.names.as_ref());
        names.is_some_and(|(some, others)| Arc::ptr_eq(some, others))
    }

    #[test]
    fn columns_of_one_form_have_the_same_names_in_memory() {
        let shared = SharedNames::default();
        let (mut first, mut second, mut other) = (columns("a"), columns("a"), columns("b"));
        for columns in [&mut first, &mut second, &mut other] {
            shared.share(columns);
        }
        assert!(have_the_same(&first, &second) && !have_the_same(&first, &other));
        assert_eq!(other, columns("b"));
    }

    #[test]
    fn any_number_of_forms_takes_a_bounded_memory() {
        let shared = SharedNames::default();
        for number in 0..10 * MOST_FORMS {
            shared.share(&mut columns(&number.to_string()));
        }
        assert!(shared.0.lock().unwrap().len() <= MOST_FORMS);
    }
}
