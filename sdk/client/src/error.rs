//! One error enum a verb. Each says its code and whether the same call may succeed later; its text is a sentence to act on.

use chaski_protocol::{Code, Refusal, TokenError};

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The address is not `quic://host:port`.
    #[error("`{url}` is not an address: {reason}; write `quic://host:port`")]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A CA, certificate or key of this side that can't be read or used.
    #[error("{0}")]
    Certificate(String),
    /// A token that can't be sent. The sentence doesn't repeat it.
    #[error(transparent)]
    BadToken(#[from] TokenError),
    /// No CA to trust, or a router that isn't trusted, or that doesn't trust this client.
    #[error("{0}")]
    Tls(String),
    /// Nobody answers there.
    #[error("no router answers at {address}: {reason}; is `chaski serve` running there?")]
    Unreachable {
        /// Where.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// The router refused the connection.
    #[error("the router refused the connection ({}): {}", .0.code, .0.detail)]
    Refused(Refusal),
    /// A UDP socket could not be made.
    #[error("no UDP socket: {0}")]
    Socket(String),
}

impl ConnectError {
    /// The code in the one table.
    pub fn code(&self) -> Code {
        match self {
            ConnectError::BadUrl { .. } | ConnectError::Certificate(_) | ConnectError::BadToken(_) => {
                Code::BadRequest
            }
            ConnectError::Tls(_) => Code::Unauthenticated,
            ConnectError::Unreachable { .. } | ConnectError::Socket(_) => Code::Unreachable,
            ConnectError::Refused(refusal) => refusal.code,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}

/// Why a publish was not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The router, or the SDK by the router's limits, refused it; nothing was stored.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Refusal),
    /// The dedup window passed before a confirm came: it may or may not be stored, and a retry could store it twice.
    #[error("the dedup window passed before a confirm came: the message may or may not be stored")]
    OutcomeUnknown,
    /// It was never sent, since there was no connection for as long as the dedup window is.
    #[error("the router cannot be reached; the message was not sent")]
    Unreachable,
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// Why a consumer couldn't begin or go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// The router refused the consumer, or ended it: the queue is unknown or was deleted.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Refusal),
    /// No connection came in time.
    #[error("the router cannot be reached")]
    Unreachable,
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// Why a delivery was not settled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// The lease ended before (it expired, or its connection was lost, perhaps before the answer came): the message may be
    /// delivered again.
    #[error("the lease is no longer current: the message may be delivered again")]
    LeaseLost,
    /// The router refused it.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Refusal),
}

/// Why a reply was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The message names no `reply_to`: it is no request.
    #[error("the message is no request: it names no reply_to")]
    NoReplyTo,
    /// The request's lease ended before: another consumer may answer it.
    #[error("the lease is no longer current: the request may be delivered again")]
    LeaseLost,
    /// The router refused it.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Refusal),
    /// The dedup window passed before an answer came.
    #[error("the dedup window passed before an answer came: the reply may or may not be sent")]
    OutcomeUnknown,
    /// It was never sent, since there was no connection.
    #[error("the router cannot be reached; the reply was not sent")]
    Unreachable,
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// Why a subscription couldn't begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The router refused it: the pattern is not valid or is reserved.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Refusal),
    /// No connection came in time.
    #[error("the router cannot be reached")]
    Unreachable,
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// Why a request has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No queue or subscription takes the topic.
    #[error("nobody takes this request")]
    NoResponders,
    /// No reply came in time; of a scatter's request also: not enough replies did.
    #[error("no reply came in time")]
    Timeout,
    /// The request was rejected or became a dead letter; the reason.
    #[error("the request was rejected: {0}")]
    Rejected(String),
    /// The responder failed; the reason.
    #[error("the responder failed: {0}")]
    Failed(String),
    /// The request was answered before, and the router no longer has the reply.
    #[error("the request was answered before, and its reply is no longer kept")]
    ReplyLost,
    /// The replies of a scatter's recipients were there, and its aggregator failed to make an answer of them; the reason.
    #[error("no answer could be made of the replies: {0}")]
    AggregationFailed(String),
    /// The request could not be published, or something on its way refused it.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Refusal),
}

/// Why a datagram was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It doesn't fit into one packet.
    #[error("the message takes {size} bytes, where a datagram holds {max}; publish it on the stream")]
    TooLarge {
        /// What it takes.
        size: usize,
        /// What fits.
        max: usize,
    },
    /// A field is not valid.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Refusal),
    /// There is no connection at the moment.
    #[error("the router cannot be reached")]
    Unreachable,
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// Why an administrative call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The router refused it.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Refusal),
    /// There was no connection, or it was lost before the answer came: a change may or may not have been made.
    #[error("{0}")]
    Unreachable(String),
    /// A module's file that the document names can't be read.
    #[error("the module file {} cannot be read: {reason}", .file.display())]
    File {
        /// The file.
        file: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// The answer is not what this version of the SDK expects.
    #[error("the router's answer was not understood: {0}; are router and client of one version?")]
    BadAnswer(String),
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

macro_rules! codes {
    ($($error:ident { $($pattern:pat => $code:expr),* $(,)? })*) => {$(
        impl $error {
            /// The code in the one table.
            pub fn code(&self) -> Code {
                match self {
                    $error::Refused(refusal) => refusal.code,
                    $($pattern => $code,)*
                }
            }

            /// Whether the same call may succeed later, unchanged.
            pub fn is_retryable(&self) -> bool {
                self.code().is_retryable()
            }
        }

        impl From<Refusal> for $error {
            fn from(refusal: Refusal) -> $error {
                $error::Refused(refusal)
            }
        }
    )*};
}

codes! {
    PublishError {
        PublishError::OutcomeUnknown => Code::OutcomeUnknown,
        PublishError::Unreachable => Code::Unreachable,
        PublishError::Closed => Code::NotAllowed,
    }
    ConsumeError {
        ConsumeError::Unreachable => Code::Unreachable,
        ConsumeError::Closed => Code::NotAllowed,
    }
    SettleError {
        SettleError::LeaseLost => Code::LeaseLost,
    }
    ReplyError {
        ReplyError::NoReplyTo | ReplyError::Closed => Code::NotAllowed,
        ReplyError::LeaseLost => Code::LeaseLost,
        ReplyError::OutcomeUnknown => Code::OutcomeUnknown,
        ReplyError::Unreachable => Code::Unreachable,
    }
    SubscribeError {
        SubscribeError::Unreachable => Code::Unreachable,
        SubscribeError::Closed => Code::NotAllowed,
    }
    RequestError {
        RequestError::NoResponders => Code::NoResponders,
        RequestError::Timeout => Code::Timeout,
        RequestError::Rejected(_) => Code::Rejected,
        RequestError::Failed(_) => Code::Failed,
        RequestError::ReplyLost => Code::ReplyLost,
        RequestError::AggregationFailed(_) => Code::AggregationFailed,
    }
    DatagramError {
        DatagramError::TooLarge { .. } => Code::PayloadTooLarge,
        DatagramError::Unreachable => Code::Unreachable,
        DatagramError::Closed => Code::NotAllowed,
    }
    AdminError {
        AdminError::Unreachable(_) => Code::Unreachable,
        AdminError::File { .. } => Code::RulesInvalid,
        AdminError::BadAnswer(_) => Code::BadVersion,
        AdminError::Closed => Code::NotAllowed,
    }
}
