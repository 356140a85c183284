//! Names and types of a table's columns.

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{catalog::Columns, column_type::ColumnType};

/// Layouts that are kept; more than that many are no fleet's.
const MOST_LAYOUTS: usize = 64;

/// The columns of a table besides the hub's own, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    columns: Columns,
    /// Where each name stands.
    places: HashMap<String, usize>,
}

impl Hash for Layout {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.columns.hash(state);
    }
}

impl Layout {
    pub(super) fn new(columns: Columns) -> Self {
        let places = columns.iter().enumerate();
        let places = places.map(|(place, (name, _))| (name.clone(), place));
        Self {
            places: places.collect(),
            columns,
        }
    }

    pub(super) fn columns(&self) -> &[(String, ColumnType)] {
        &self.columns
    }

    /// Finds a column; `hint` is where it would stand in rows of the table's own form.
    pub(super) fn place(&self, hint: usize, name: &str) -> Option<usize> {
        match self.columns.get(hint) {
            Some((known, _)) if known == name => Some(hint),
            _ => self.places.get(name).copied(),
        }
    }

    pub(super) fn add(&mut self, name: &str, kind: &ColumnType) {
        self.places.insert(name.to_owned(), self.columns.len());
        self.columns.push((name.to_owned(), kind.clone()));
    }

    pub(super) fn set(&mut self, name: &str, kind: ColumnType) {
        let place = self.places.get(name);
        if let Some((_, known)) = place.and_then(|&place| self.columns.get_mut(place)) {
            *known = kind;
        }
    }
}

/// Layouts that tables have in common, as those of a fleet: read again and again for each table,
/// they would have to come from memory each time.
#[derive(Debug, Default)]
pub(super) struct Layouts(HashSet<Arc<Layout>>);

impl Layouts {
    /// Returns an equal layout that other tables have, too.
    pub(super) fn share(&mut self, layout: &Arc<Layout>) -> Arc<Layout> {
        if let Some(known) = self.0.get(layout) {
            return Arc::clone(known);
        }
        if self.0.len() >= MOST_LAYOUTS {
            self.0.clear();
        }
        self.0.insert(Arc::clone(layout));
        Arc::clone(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(name: &str) -> Arc<Layout> {
        Arc::new(Layout::new(vec![(name.to_owned(), ColumnType::Int)]))
    }

    #[test]
    fn equal_layouts_are_one_in_memory_and_their_number_is_bounded() {
        let mut layouts = Layouts::default();
        let first = layouts.share(&layout("a"));
        assert!(Arc::ptr_eq(&first, &layouts.share(&layout("a"))));
        assert_eq!(layouts.share(&layout("b")), layout("b"));
        for number in 0..10 * MOST_LAYOUTS {
            layouts.share(&layout(&number.to_string()));
        }
        assert!(layouts.0.len() <= MOST_LAYOUTS);
    }

    #[test]
    fn a_column_is_found_where_it_stands_whatever_the_hint() {
        let mut layout = Layout::default();
        layout.add("a", &ColumnType::Int);
        layout.add("b", &ColumnType::Int);
        for hint in 0..3 {
            assert_eq!(layout.place(hint, "b"), Some(1));
            assert_eq!(layout.place(hint, "c"), None);
        }
        layout.set("b", ColumnType::Float);
        assert_eq!(layout.columns()[1].1, ColumnType::Float);
    }
}
