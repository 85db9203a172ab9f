//! stdout: data, whole lines, flushed. A closed pipe comes back as an error, which ends the program quietly.

use std::io::{self, Write};

use serde::Serialize;

/// One object as one line of JSON.
pub(crate) fn json(object: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(object)?;
    line.push(b'\n');
    bytes(&line)
}

/// Text, with a line's end when it has none.
pub(crate) fn text(text: impl AsRef<str>) -> anyhow::Result<()> {
    let mut text = text.as_ref().to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    bytes(text.as_bytes())
}

/// Bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// A word for people, on stderr; its loss is nobody's.
pub(crate) fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}
