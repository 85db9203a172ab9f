//! Payloads from the command line, files and stdin, each bounded. It knows no command.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use chaski_protocol::{Code, MAX_PAYLOAD_CEILING};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

use crate::failure::{fail, usage};

/// A line of input at most: the largest payload, written in JSON with every byte escaped as `\u00xx`, would be larger; no
/// one writes that, and base64 fits.
const MAX_LINE: u64 = 2 * MAX_PAYLOAD_CEILING as u64;

/// Where lines or a payload come from.
pub(crate) type Source = BufReader<Box<dyn AsyncRead + Send + Unpin>>;

/// The lines of a source.
pub(crate) struct Lines<R> {
    source: R,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

/// One payload: the argument, else the file, else stdin if that is no terminal.
pub(crate) async fn payload(argument: Option<&str>, file: Option<&Path>) -> anyhow::Result<Bytes> {
    if let Some(text) = argument {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let (source, _) = open(file).await?;
    let mut bytes = Vec::new();
    source
        .take(u64::from(MAX_PAYLOAD_CEILING) + 1)
        .read_to_end(&mut bytes)
        .await
        .context("cannot read the payload")?;
    if bytes.len() > MAX_PAYLOAD_CEILING as usize {
        let sentence =
            format!("the payload is larger than the {MAX_PAYLOAD_CEILING} bytes that any router takes");
        return Err(fail(Code::PayloadTooLarge, sentence));
    }
    Ok(bytes.into())
}

/// Opens a file, or stdin for `-` and for none; answers its length, where it is known.
pub(crate) async fn open(file: Option<&Path>) -> anyhow::Result<(Source, Option<u64>)> {
    match file {
        Some(path) if path != Path::new("-") => {
            let named = || format!("cannot read {}", path.display());
            let file = tokio::fs::File::open(path).await.with_context(named)?;
            let about = file.metadata().await.with_context(named)?;
            let length = about.is_file().then_some(about.len());
            Ok((BufReader::with_capacity(64 << 10, Box::new(file)), length))
        }
        Some(_) => Ok((BufReader::with_capacity(64 << 10, Box::new(tokio::io::stdin())), None)),
        None if std::io::stdin().is_terminal() => {
            Err(usage("nothing to send: give a PAYLOAD, --file F, or something on stdin"))
        }
        None => Ok((BufReader::with_capacity(64 << 10, Box::new(tokio::io::stdin())), None)),
    }
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(source: R) -> Lines<R> {
        Lines { source, begun: Vec::new() }
    }

    /// The next line without its end (`\n` or `\r\n`), and how many bytes it took; none at the end. Cancel safe: what was read
    /// of a line is kept for the next call.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<(Vec<u8>, u64)>> {
        let room = (MAX_LINE + 1).saturating_sub(self.begun.len() as u64);
        (&mut self.source)
            .take(room)
            .read_until(b'\n', &mut self.begun)
            .await
            .context("cannot read a line")?;
        let mut line = std::mem::take(&mut self.begun);
        let read = line.len() as u64;
        if read == 0 {
            return Ok(None);
        }
        if read > MAX_LINE {
            return Err(fail(Code::PayloadTooLarge, format!("a line is longer than {MAX_LINE} bytes")));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        Ok(Some((line, read)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_without_their_ends() {
        let mut source = Lines::new(&b"a\r\n\nb\rc\nlast"[..]);
        let mut lines = Vec::new();
        while let Some((line, _)) = source.next().await.expect("readable") {
            lines.push(String::from_utf8(line).expect("text"));
        }
        assert_eq!(lines, ["a", "", "b\rc", "last"]);
    }

    #[tokio::test]
    async fn a_line_survives_a_reader_that_gave_up_in_its_middle() {
        use futures::FutureExt as _;
        use tokio::io::AsyncWriteExt as _;

        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(BufReader::new(reader));
        writer.write_all(b"half a").await.expect("there is room");
        assert!(lines.next().now_or_never().is_none(), "the line has no end yet");
        writer.write_all(b" line\n").await.expect("there is room");
        let (line, read) = lines.next().await.expect("readable").expect("a line");
        assert_eq!((line.as_slice(), read), (&b"half a line"[..], 12));
    }

    #[tokio::test]
    async fn a_file_that_is_missing_is_named() {
        let error = payload(None, Some(Path::new("/does/not/exist"))).await.unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot read /does/not/exist: "));
        assert_eq!(payload(Some("text"), None).await.expect("the argument"), "text");
    }
}
