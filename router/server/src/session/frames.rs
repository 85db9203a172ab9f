//! Reading whole frames from a QUIC stream, and answering an `Open`.

use bytes::{Bytes, BytesMut};
use chaski_protocol::frames::{Opening, Refused};
use chaski_protocol::{Code, DecodeError, Refusal, encode_frame, next_frame};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt;

/// Room asked for at each read: one large read serves hundreds of small messages.
const READ_BYTES: usize = 64 << 10;

/// Why a stream ends.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The peer finished its side in good order.
    Finished,
    /// The stream or connection was lost.
    Lost,
    /// The peer broke the protocol: its connection is closed with the code.
    Broken(Refusal),
    /// The router stops.
    Stopped,
}

impl From<DecodeError> for Ended {
    fn from(error: DecodeError) -> Ended {
        Ended::Broken(Refusal::new(error.code(), error.to_string()))
    }
}

impl From<crate::shard::Stopped> for Ended {
    fn from(_: crate::shard::Stopped) -> Ended {
        Ended::Stopped
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

    /// Another limit from the next frame on.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// A frame that has arrived whole already.
    pub(crate) fn ready(&mut self) -> Result<Option<Bytes>, Ended> {
        Ok(next_frame(&mut self.buffer, self.limit)?)
    }

    /// The length that the next frame has, or claims to have.
    pub(crate) async fn announced(&mut self) -> Result<u32, Ended> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<4>() {
                return Ok(u32::from_le_bytes(*prefix));
            }
            self.fill().await?;
        }
    }

    /// Waits for more bytes. Cancel safe.
    pub(crate) async fn fill(&mut self) -> Result<(), Ended> {
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) if self.buffer.is_empty() => Err(Ended::Finished),
            Ok(0) => Err(Ended::Broken(Refusal::new(Code::BadFrame, "the stream ended within a frame"))),
            Ok(_) => Ok(()),
            Err(_) => Err(Ended::Lost),
        }
    }

    /// Everything that follows, raw, when it is exactly so long.
    pub(crate) async fn rest(mut self, bytes: usize) -> Result<Bytes, Ended> {
        let wrong = |found: &str| {
            let detail = format!("{bytes} raw bytes were announced, and {found} came");
            Err(Ended::Broken(Refusal::new(Code::BadFrame, detail)))
        };
        loop {
            if self.buffer.len() > bytes {
                return wrong("more");
            }
            self.buffer.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) if self.buffer.len() == bytes => return Ok(self.buffer.freeze()),
                Ok(0) => return wrong("fewer"),
                Ok(_) => {}
                Err(_) => return Err(Ended::Lost),
            }
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

/// Sends the first answer on a stream.
pub(crate) async fn answer(send: &mut SendStream, opening: &Opening<'_>, rest: &[u8]) -> Result<(), Ended> {
    let mut frame = Vec::with_capacity(64 + rest.len());
    encode_frame(opening, &[rest], &mut frame);
    write(send, frame).await
}

/// Refuses a stream and finishes it.
pub(crate) async fn refuse(send: &mut SendStream, refusal: &Refusal) {
    let refused = Refused { code: refusal.code.number(), detail: &refusal.detail };
    if answer(send, &Opening::Refused(refused), &[]).await.is_ok() {
        // The peer may be gone; then there is nobody to tell.
        let _ = send.finish();
    }
}

/// Writes bytes without copying them once more.
pub(crate) async fn write(send: &mut SendStream, bytes: Vec<u8>) -> Result<(), Ended> {
    send.write_chunk(Bytes::from(bytes)).await.map_err(|_| Ended::Lost)
}

/// Closes a connection with a code.
pub(crate) fn close(connection: &Connection, refusal: &Refusal) {
    connection.close(VarInt::from_u32(refusal.code.number()), refusal.detail.as_bytes());
}
