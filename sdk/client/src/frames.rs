//! Whole frames from a stream, and the first exchange on one: `Open`, then the router's `Opening`.

use bytes::{Bytes, BytesMut};
use chaski_protocol::frames::{Open, Opening, Refused};
use chaski_protocol::{Code, DecodeError, Refusal, decode, encode_frame, next_frame};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt as _;

/// Room asked for at each read: one large read serves hundreds of small messages.
const READ_BYTES: usize = 64 << 10;

/// Why a stream ends.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The stream or its connection is gone.
    Lost,
    /// The router refused the stream.
    Refused(Refusal),
    /// The router broke the protocol.
    Broken(String),
}

impl From<DecodeError> for Ended {
    fn from(error: DecodeError) -> Ended {
        Ended::Broken(error.to_string())
    }
}

impl From<quinn::WriteError> for Ended {
    fn from(_: quinn::WriteError) -> Ended {
        Ended::Lost
    }
}

impl From<quinn::ConnectionError> for Ended {
    fn from(_: quinn::ConnectionError) -> Ended {
        Ended::Lost
    }
}

/// The receiving side of a stream, in frames.
pub(crate) struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    limit: u32,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, limit: u32) -> FrameReader {
        FrameReader { stream, buffer: BytesMut::new(), limit }
    }

    /// A frame that has arrived whole already.
    pub(crate) fn ready(&mut self) -> Result<Option<Bytes>, DecodeError> {
        next_frame(&mut self.buffer, self.limit)
    }

    /// Waits for more bytes. Cancel safe.
    pub(crate) async fn fill(&mut self) -> Result<(), Ended> {
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => Err(Ended::Lost),
            Ok(_) => Ok(()),
        }
    }

    /// The next frame. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Bytes, Ended> {
        loop {
            if let Some(frame) = self.ready()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }
}

/// Opens a stream and reads the router's first frame. Its `Refused` comes as an error.
pub(crate) async fn open(
    connection: &Connection,
    open: &Open<'_>,
    rest: &[u8],
    limit: u32,
) -> Result<(SendStream, FrameReader, Bytes), Ended> {
    let (mut send, recv) = connection.open_bi().await?;
    let mut out = Vec::with_capacity(64 + rest.len());
    encode_frame(open, &[rest], &mut out);
    send.write_chunk(out.into()).await?;
    let mut reader = FrameReader::new(recv, limit);
    let first = reader.next().await?;
    if let (Opening::Refused(refused), _) = decode::<Opening<'_>>(&first)? {
        return Err(Ended::Refused(refused.to_refusal()));
    }
    Ok((send, reader, first))
}

/// Opens a stream, sends raw bytes behind the first frame, ends the sending side, and reads the router's one answer.
pub(crate) async fn upload(
    connection: &Connection,
    open: &Open<'_>,
    raw: Bytes,
    limit: u32,
) -> Result<Bytes, Ended> {
    let (mut send, recv) = connection.open_bi().await?;
    let mut out = Vec::with_capacity(64);
    encode_frame(open, &[], &mut out);
    // A router that refuses stops reading early, and says why all the same.
    if send.write_all_chunks(&mut [out.into(), raw]).await.is_ok() {
        let _ = send.finish();
    }
    let first = FrameReader::new(recv, limit).next().await?;
    if let (Opening::Refused(refused), _) = decode::<Opening<'_>>(&first)? {
        return Err(Ended::Refused(refused.to_refusal()));
    }
    Ok(first)
}

/// The refusal of a code on the wire; without a sentence of the router's, the code's own.
pub(crate) fn refusal(code: u32, detail: &str) -> Refusal {
    let refusal = Refused { code, detail }.to_refusal();
    if detail.is_empty() { refusal.code.into() } else { refusal }
}

/// Ends a connection whose router doesn't speak the protocol: the reconnect may find one that does.
pub(crate) fn break_off(connection: &Connection, detail: &str) {
    tracing::warn!(%detail, "the router broke the protocol");
    connection.close(VarInt::from_u32(Code::BadFrame.number()), detail.as_bytes());
}
