//! What is wrong with a document, and where: line and column, counted from 1, columns in characters.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
}

/// Everything that was found, by place. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesErrors(Vec<RulesError>);

impl RulesErrors {
    /// Every error, by place.
    pub fn iter(&self) -> impl Iterator<Item = &RulesError> {
        self.0.iter()
    }

    /// One line an error, each as `NAME:LINE:COLUMN: MESSAGE`.
    pub fn in_file(&self, name: &str) -> String {
        let lines = self
            .0
            .iter()
            .map(|RulesError { line, column, message }| format!("{name}:{line}:{column}: {message}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for RulesErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, RulesError { line, column, message }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}line {line}, column {column}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for RulesErrors {}

/// Collects errors by byte offset.
pub(super) struct Collector<'a> {
    source: &'a str,
    found: Vec<(usize, String)>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(source: &'a str) -> Collector<'a> {
        Collector { source, found: Vec::new() }
    }

    pub(super) fn add(&mut self, offset: usize, message: impl Into<String>) {
        self.found.push((offset.min(self.source.len()), message.into()));
    }

    /// The errors, if there are any.
    pub(super) fn finish(mut self) -> Result<(), RulesErrors> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort();
        let place = |(offset, message): (usize, String)| {
            let before = self.source.get(..offset).unwrap_or(self.source);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            RulesError {
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                message,
            }
        };
        Err(RulesErrors(self.found.into_iter().map(place).collect()))
    }
}

/// ` did you mean …?`, or the list of what is known.
pub(super) fn nearest(wrong: &str, known: &[&str]) -> String {
    let allowed = (wrong.chars().count() / 3).max(2);
    let best = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), *name))
        .filter(|(distance, _)| *distance <= allowed)
        .min();
    match best {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!(
            "known here: {}",
            known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ),
    }
}
