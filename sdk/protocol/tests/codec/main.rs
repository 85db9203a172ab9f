//! The codec against what no peer should send: whatever the bytes, decoding ends with a value or an error, and takes no more memory
//! than the limits say. And against what peers do send: what was encoded comes back.

mod hostile;
mod round_trips;

/// Decodes bytes as every kind of header there is; each answer is fine, a panic is not. The types' sizes bound what was taken.
fn decode_as_all(bytes: &[u8]) {
    use chaski_protocol::frames::*;
    use chaski_protocol::{Head, decode};
    macro_rules! each {
        ($($type:ty)*) => { $(
            if let Ok((_, length)) = decode::<$type>(bytes) {
                assert!(length <= bytes.len(), "{} bytes of {}", length, bytes.len());
            }
        )* };
    }
    each! {
        Open<'_> Opening<'_> Notice PublishFrame<'_> PublishAnswer ConsumeFrame<'_> ConsumeCommand<'_> Passed Refused<'_>
    }
    if let Ok((head, payload_at)) = Head::decode(bytes) {
        assert!(payload_at <= bytes.len());
        if let Err(error) = head.check(chaski_protocol::DEFAULT_MAX_HEADERS) {
            // A refusal goes back to whoever sent this: it must not grow with what they sent.
            assert!(error.to_string().len() < 4096, "a sentence of {} bytes", error.to_string().len());
        }
    }
}
