//! The control stream: hello, welcome, and what changes afterwards.

use std::sync::Arc;

use chaski_protocol::frames::{Notice, Opening};
use chaski_protocol::{Code, Refusal, VERSION, encode_frame};
use quinn::SendStream;

use crate::session::connection::Peer;
use crate::session::frames::{Ended, FrameReader, answer, write};

/// Takes a hello, or says why the connection ends.
pub(crate) fn admit(
    peer: &Peer,
    version: u32,
    client: u128,
    sdk: &str,
    token: Option<&str>,
) -> Result<(), Refusal> {
    if version != VERSION {
        let detail = format!(
            "this router speaks version {VERSION} of the protocol, the client {version}; update the older one"
        );
        return Err(Refusal::new(Code::BadVersion, detail));
    }
    let identity = peer.doorkeeper.identify(&peer.connection, token)?;
    tracing::debug!(connection = peer.id.0, %sdk, client = format!("{client:032x}"), %identity, "hello");
    let said_before = peer.identity.set(identity).is_err();
    let first = peer.client.send_if_modified(|known| known.is_none() && known.replace(client).is_none());
    if said_before || !first {
        return Err(Refusal::new(Code::BadFrame, "a connection says hello once"));
    }
    Ok(())
}

/// Welcomes it, and tells what changes.
pub(crate) async fn serve(peer: &Arc<Peer>, send: &mut SendStream, mut frames: FrameReader) -> Ended {
    let mut notices = peer.shard.notices();
    let mut told = *notices.borrow_and_update();
    let welcome = Opening::Welcome {
        server: concat!("chaski ", env!("CARGO_PKG_VERSION")),
        dedup_window_ms: told.dedup_window_ms,
        max_payload: told.max_payload,
        max_headers: told.max_headers,
    };
    if let Err(ended) = answer(send, &welcome, &[]).await {
        return ended;
    }
    loop {
        tokio::select! {
            frame = frames.next() => return match frame {
                Ok(_) => Ended::Broken(Refusal::new(Code::UnknownFrame, "nothing follows Hello on the control stream")),
                Err(ended) => ended,
            },
            changed = notices.changed() => {
                if changed.is_err() {
                    return Ended::Stopped;
                }
            }
        }
        let now = *notices.borrow_and_update();
        let mut out = Vec::new();
        if now.dedup_window_ms != told.dedup_window_ms {
            encode_frame(&Notice::DedupWindow { window_ms: now.dedup_window_ms }, &[], &mut out);
        }
        if (now.max_payload, now.max_headers) != (told.max_payload, told.max_headers) {
            let limits = Notice::Limits { max_payload: now.max_payload, max_headers: now.max_headers };
            encode_frame(&limits, &[], &mut out);
        }
        if now.stopping && !told.stopping {
            encode_frame(&Notice::ShuttingDown, &[], &mut out);
        }
        told = now;
        if !out.is_empty()
            && let Err(ended) = write(send, out).await
        {
            return ended;
        }
    }
}
