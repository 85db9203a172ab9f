//! Publishing at most once: one QUIC datagram, without a confirm.

use chaski_protocol::Refusal;

use crate::client::Client;
use crate::error::DatagramError;
use crate::link::LinkState;
use crate::message::Message;

impl Client {
    /// Sends a message that may be lost: no confirm, no retry, and no larger than one packet (about 1,200 bytes with its head).
    /// A duplicate id has no second effect here either.
    pub fn publish_datagram(&self, message: Message) -> Result<(), DatagramError> {
        let head = message.published_head();
        let (_, max_headers) = self.shared().limits();
        head.check(max_headers)
            .map_err(|error| DatagramError::Refused(Refusal::new(error.code(), error.to_string())))?;
        let mut block = Vec::with_capacity(1200);
        head.encode(message.payload(), &mut block);
        let link = match self.shared().link_now() {
            LinkState::Up(link) => link,
            LinkState::Down => return Err(DatagramError::Unreachable),
            LinkState::Closed => return Err(DatagramError::Closed),
        };
        let max = link.connection.max_datagram_size().unwrap_or(0);
        if block.len() > max {
            return Err(DatagramError::TooLarge { size: block.len(), max });
        }
        link.connection.send_datagram(block.into()).map_err(|_| DatagramError::Unreachable)
    }
}
