//! An upload: a module's binary, raw on its stream, kept by its digest. Whether it is a module shows when it is deployed.

use std::sync::Arc;

use chaski_protocol::admin::Uploaded;
use chaski_protocol::frames::Opening;
use chaski_protocol::{Code, MAX_MODULE, Refusal};
use quinn::SendStream;

use crate::modules::{beside, keep_binary};
use crate::session::connection::Peer;
use crate::session::frames::{Ended, FrameReader, answer, refuse};

pub(super) async fn serve(peer: &Arc<Peer>, send: &mut SendStream, frames: FrameReader, bytes: u64) -> Ended {
    let uploaded = match take(peer, frames, bytes).await {
        Ok(Ok(uploaded)) => uploaded,
        Ok(Err(refusal)) => {
            refuse(send, &refusal).await;
            return Ended::Finished;
        }
        Err(ended) => return ended,
    };
    let json = serde_json::to_vec(&uploaded).expect("plain data can be written");
    match answer(send, &Opening::Answer, &json).await {
        Ok(()) => Ended::Finished,
        Err(ended) => ended,
    }
}

async fn take(peer: &Arc<Peer>, frames: FrameReader, bytes: u64) -> Result<Result<Uploaded, Refusal>, Ended> {
    if bytes > MAX_MODULE {
        let detail = format!("a module has at most {MAX_MODULE} bytes, this one {bytes}");
        return Ok(Err(Refusal::new(Code::LimitExceeded, detail)));
    }
    // Held until it is kept: few uploads of one connection are in memory at once.
    let _room = peer.room_for_much().await;
    let binary = frames.rest(bytes as usize).await?;
    let shard = peer.shard.clone();
    let kept = beside(move || keep_binary(&shard, &binary)).await;
    Ok(kept.map(|digest| Uploaded { digest: chaski_modules::Digest(digest).to_string() }))
}
