//! Tables with aligned columns. It knows nothing of what is in them.

use std::fmt;

/// A table under one heading; the last column is not padded.
pub(crate) struct Table {
    titles: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A title that begins with `>` makes its column align on the right.
    pub(crate) fn new(titles: &[&'static str]) -> Table {
        let right = titles.iter().map(|title| title.starts_with('>')).collect();
        Table {
            titles: titles.iter().map(|title| title.trim_start_matches('>')).collect(),
            right,
            rows: Vec::new(),
        }
    }

    /// Adds a row with a cell for each title.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.titles.len(), "a row has a cell for each title");
        self.rows.push(cells.into());
    }

    fn line<'a>(
        &self,
        f: &mut fmt::Formatter<'_>,
        widths: &[usize],
        cells: impl Iterator<Item = &'a str>,
    ) -> fmt::Result {
        let mut line = String::new();
        for ((cell, width), right) in cells.zip(widths).zip(&self.right) {
            let padding = " ".repeat(width - cell.chars().count());
            if *right {
                line.push_str(&padding);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&padding);
            }
            line.push_str("  ");
        }
        writeln!(f, "{}", line.trim_end())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.titles[column].chars().count()]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.titles.len()).map(width).collect();
        self.line(f, &widths, self.titles.iter().copied())?;
        self.rows.iter().try_for_each(|row| self.line(f, &widths, row.iter().map(String::as_str)))
    }
}

/// Names and their values, one a line, the values below each other.
pub(crate) struct Facts(Vec<(String, String)>);

impl Facts {
    /// None yet.
    pub(crate) fn new() -> Facts {
        Facts(Vec::new())
    }

    /// One more.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in &self.0 {
            writeln!(f, "{}", format!("{name:width$}  {value}").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let mut table = Table::new(&["NAME", ">READY", "BIND"]);
        table.row(["größe".to_owned(), "7".to_owned(), "a.>".to_owned()]);
        table.row(["billing".to_owned(), "1234567".to_owned(), String::new()]);
        expect![[r#"
            NAME       READY  BIND
            größe          7  a.>
            billing  1234567
        "#]]
        .assert_eq(&table.to_string());
    }

    #[test]
    fn facts_stand_below_each_other() {
        let mut facts = Facts::new();
        facts.add("queue", "billing");
        facts.add("max_deliver", "5");
        expect![[r#"
            queue        billing
            max_deliver  5
        "#]]
        .assert_eq(&facts.to_string());
    }
}
