//! Every limit of the protocol, each with its unit and reason. The first two are defaults that `[limits]` in the rules changes.

/// Default limit of a payload in bytes; up to [`MAX_PAYLOAD_CEILING`] in the rules.
pub const DEFAULT_MAX_PAYLOAD: u32 = 1 << 20;

/// Default limit of a message's headers in bytes, names, values and 2 bytes for each; up to [`MAX_HEADERS_CEILING`] in the rules.
pub const DEFAULT_MAX_HEADERS: u32 = 64 << 10;

/// The greatest `max_payload` in bytes that the rules may ask for: a message is one frame, held whole in memory.
pub const MAX_PAYLOAD_CEILING: u32 = 64 << 20;

/// The greatest `max_headers` in bytes that the rules may ask for.
pub const MAX_HEADERS_CEILING: u32 = 1 << 20;

/// A topic or pattern in bytes (DESIGN section 1).
pub const MAX_TOPIC: usize = 255;

/// A message id in bytes (DESIGN section 1).
pub const MAX_ID: usize = 128;

/// An ordering key in bytes.
pub const MAX_KEY: usize = 255;

/// A queue's name in bytes: its dead-letter queue adds `.dlq`, and both are topics.
pub const MAX_QUEUE_NAME: usize = 200;

/// A reason (reject, fail) in bytes; it becomes a header.
pub const MAX_REASON: usize = 1024;

/// A bearer token in bytes.
pub const MAX_TOKEN: usize = 4096;

/// Priorities are 0..=9.
pub const MAX_PRIORITY: u8 = 9;

/// The priority of a message that names none.
pub const DEFAULT_PRIORITY: u8 = 4;

/// A `ttl`, a delay and every duration in the rules: ten years in milliseconds, so that sums never overflow.
pub const MAX_DURATION_MS: u64 = 10 * 366 * 86_400_000;

/// Parts of one transaction, acks and publishes together (SEMANTICS, Transactions).
pub const MAX_TRANSACTION_PARTS: usize = 1024;

/// Leases in one `Extend` frame.
pub const MAX_EXTEND: usize = 16_384;

/// Deliveries in flight to one consumer at most.
pub const MAX_CREDIT: u32 = 16_384;

/// The default credit.
pub const DEFAULT_CREDIT: u32 = 64;

/// Everything in a frame that is not payload or headers: topic, id, key, reply_to, correlation id and the numbers.
pub const FRAME_OVERHEAD: u32 = 4096;

/// A frame's header, and a message's head: beyond it the codec refuses, and makes no room for lists that claim more memory.
pub const MAX_HEADER: usize = 8 << 20;

/// A frame with messages: the client's on a publish stream, the router's on a consume or subscribe stream.
pub const MAX_MESSAGE_FRAME: u32 = MAX_PAYLOAD_CEILING + MAX_HEADER as u32;

/// A frame on a control stream from the client, and an `Open`: small by nature.
pub const MAX_COMMAND_FRAME: u32 = 512 << 10;

/// An admin request or answer: a rules document, a page of messages.
pub const MAX_ADMIN_FRAME: u32 = 96 << 20;

/// A frame of the router's on a publish stream (confirms).
pub const MAX_ANSWER_FRAME: u32 = 4 << 20;

/// Unconfirmed publishes on one publish stream; the SDK waits for room, and the router stops reading.
pub const MAX_IN_FLIGHT: u32 = 65_536;

/// The longest list of messages in one admin answer.
pub const MAX_PAGE: u32 = 1000;

/// The greatest `max_size` of a module's binary in bytes that the rules may ask for; it is compiled and held whole.
pub const MAX_MODULE: u64 = 64 << 20;

/// Filters that one consumer or subscription names.
pub const MAX_FILTERS: usize = 64;

/// The least dedup window in milliseconds (DESIGN section 3).
pub const MIN_DEDUP_WINDOW_MS: u64 = 120_000;

/// The greatest dedup window in milliseconds (DESIGN section 3).
pub const MAX_DEDUP_WINDOW_MS: u64 = 7 * 86_400_000;
