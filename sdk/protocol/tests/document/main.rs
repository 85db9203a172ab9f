//! PROTOCOL.md against the code: the test vectors in both directions, the layout of every frame, the administrative calls, and the
//! tables of limits and error codes. The document is read as it is; whatever it doesn't say, these tests don't know.

mod admin;
mod grammar;
mod kinds;
mod samples;
mod tables;
mod vectors;
mod widths;

/// The document.
const PROTOCOL: &str = include_str!("../../PROTOCOL.md");

/// The insides of the fenced blocks whose info string begins with this word: the rest of the info string, and the text.
fn blocks(word: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    PROTOCOL.split("\n```").filter_map(move |block| {
        let (info, text) = block.split_once('\n')?;
        let rest = info.strip_prefix(word)?;
        Some((rest.trim(), text))
    })
}

/// The rows of the tables in the section with this heading: the cells, without backquotes. Head and rule are left out.
fn rows(section: &str) -> Vec<Vec<String>> {
    let (_, rest) = PROTOCOL.split_once(section).unwrap_or_else(|| panic!("no section `{section}`"));
    let text = rest.split("\n## ").next().expect("split yields one part at least");
    let lines = text.lines().filter(|line| line.starts_with('|'));
    let cells = lines.map(|line| {
        let line = line.trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>()
    });
    cells.skip(2).collect()
}
