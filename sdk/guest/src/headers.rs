//! A message's headers, for a filter that learns their names from its params or reads them all.

use crate::runtime::Row;

/// The headers of one message, or those of them that the filter declared with `#[filter(reads = …)]`.
#[derive(Debug, Clone)]
pub struct Headers<'a>(Source<'a>);

#[derive(Debug, Clone)]
enum Source<'a> {
    /// All headers: their names and values.
    All(Vec<(&'a str, &'a str)>),
    /// Those declared, each in a column of its own; nothing is copied before it is read.
    Columns { row: Row<'a>, first: usize, declared: &'a [String] },
    /// Those declared, in a native test.
    #[cfg(not(target_family = "wasm"))]
    Some { entries: Vec<(&'a str, &'a str)>, declared: &'a [String] },
}

impl<'a> Headers<'a> {
    /// The value of the header of this name.
    ///
    /// # Panics
    /// If the filter has declared what it reads, and this name is not among it: the router has not copied it, so whether
    /// the message has it can't be told.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        match &self.0 {
            Source::All(entries) => find(entries, name),
            Source::Columns { row, first, declared } => row.optional_text(first + place(declared, name)),
            #[cfg(not(target_family = "wasm"))]
            Source::Some { entries, declared } => {
                place(declared, name);
                find(entries, name)
            }
        }
    }

    /// All headers that were declared and that the message has.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let count = match &self.0 {
            Source::All(entries) => entries.len(),
            Source::Columns { declared, .. } => declared.len(),
            #[cfg(not(target_family = "wasm"))]
            Source::Some { entries, .. } => entries.len(),
        };
        (0..count).filter_map(|index| match &self.0 {
            Source::All(entries) => Some(entries[index]),
            #[cfg(not(target_family = "wasm"))]
            Source::Some { entries, .. } => Some(entries[index]),
            Source::Columns { row, first, declared } => {
                Some((declared[index].as_str(), row.optional_text(first + index)?))
            }
        })
    }

    /// The same headers, of which only `declared` may be read. What is declared already stays.
    #[doc(hidden)]
    #[cfg(not(target_family = "wasm"))]
    pub fn limited_to(&self, declared: &'a [String]) -> Headers<'a> {
        let entries = self.iter().filter(|(name, _)| declared.iter().any(|known| known == name)).collect();
        Headers(Source::Some { entries, declared })
    }

    pub(crate) fn columns(row: Row<'a>, first: usize, declared: &'a [String]) -> Self {
        Self(Source::Columns { row, first, declared })
    }
}

fn find<'a>(entries: &[(&'a str, &'a str)], name: &str) -> Option<&'a str> {
    entries.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// Where a name stands among those declared.
fn place(declared: &[String], name: &str) -> usize {
    let place = declared.iter().position(|known| known == name);
    place.unwrap_or_else(|| {
        panic!("the header \"{name}\" is read, but not among the fields that the filter declared")
    })
}

impl<'a, const N: usize> From<[(&'a str, &'a str); N]> for Headers<'a> {
    fn from(entries: [(&'a str, &'a str); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Headers<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(entries: I) -> Self {
        Self(Source::All(entries.into_iter().collect()))
    }
}
