//! The one table of error codes: number on the wire, name, sentence, retryable or not.

use std::fmt;

macro_rules! codes {
    ($($number:literal $variant:ident $name:literal $retry:literal $sentence:literal;)*) => {
        /// An error code. Its number is what the wire carries, its name what people and scripts read.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $sentence] $variant,)*
        }

        impl Code {
            /// The whole table.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The number on the wire and in a QUIC close.
            pub fn number(self) -> u32 {
                match self { $(Code::$variant => $number,)* }
            }

            /// The code of a number; `None` for one that this version doesn't know.
            pub fn from_number(number: u32) -> Option<Code> {
                match number { $($number => Some(Code::$variant),)* _ => None }
            }

            /// The name, as scripts and documents spell it.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// One sentence for people.
            pub fn sentence(self) -> &'static str {
                match self { $(Code::$variant => $sentence,)* }
            }

            /// Whether the same request may succeed later, unchanged.
            pub fn is_retryable(self) -> bool {
                match self { $(Code::$variant => $retry,)* }
            }
        }
    };
}

codes! {
    1 BadFrame "bad_frame" false "The frame could not be decoded.";
    2 UnknownFrame "unknown_frame" false "The frame's kind is unknown to this version.";
    3 BadTopic "bad_topic" false "The topic is not valid.";
    4 BadPattern "bad_pattern" false "The pattern is not valid.";
    5 BadHeader "bad_header" false "A header is not valid.";
    6 Reserved "reserved" false "The name is reserved for the router.";
    7 PayloadTooLarge "payload_too_large" false "The payload is larger than max_payload.";
    8 HeadersTooLarge "headers_too_large" false "The headers are larger than max_headers.";
    9 UnknownQueue "unknown_queue" false "There is no queue of that name.";
    10 UnknownModule "unknown_module" false "There is no module of that name.";
    11 UnknownId "unknown_id" false "There is nothing with that id.";
    12 QueueFull "queue_full" false "A queue that refuses when full is full; nothing was stored.";
    13 QueueNotEmpty "queue_not_empty" false "The queue still holds messages.";
    14 Unroutable "unroutable" false "No queue or subscription takes this topic.";
    15 NoResponders "no_responders" false "No queue or subscription takes this request.";
    16 Rejected "rejected" false "The request was rejected.";
    17 Failed "failed" false "The responder failed.";
    18 Timeout "timeout" false "No answer came in time.";
    19 ReplyLost "reply_lost" false "The request was answered before, and its reply is no longer kept.";
    20 LeaseLost "lease_lost" false "The lease is no longer current; nothing was changed.";
    21 NotAllowed "not_allowed" false "This is not possible here.";
    22 FilterFailed "filter_failed" true "A filter failed; nothing was stored.";
    23 ModuleFailed "module_failed" false "The module failed.";
    24 ModuleMissing "module_missing" true "A module is named and not yet deployed.";
    25 Busy "busy" true "Too much is waiting; try again.";
    26 DiskLow "disk_low" true "The router's disk is low; publishes wait.";
    27 DiskFull "disk_full" true "The router's disk is full.";
    28 RulesInvalid "rules_invalid" false "The rules document is not valid.";
    29 AggregationFailed "aggregation_failed" false "The aggregator failed.";
    30 ShuttingDown "shutting_down" true "The router is stopping.";
    31 OutcomeUnknown "outcome_unknown" false "The dedup window passed before a confirm came: the publish may or may not be stored.";
    32 Unreachable "unreachable" true "The router cannot be reached.";
    33 DataLocked "data_locked" false "Another router uses the data directory.";
    34 DataReadOnly "data_read_only" false "The data directory cannot be written.";
    35 JournalCorrupt "journal_corrupt" false "The journal is damaged.";
    36 FormatNewer "format_newer" false "The data were written by a newer version.";
    37 BadMessage "bad_message" false "A field of the message is not valid.";
    38 BadVersion "bad_version" false "The peer speaks another version of the protocol.";
    39 LimitExceeded "limit_exceeded" false "A limit of the protocol is exceeded.";
    40 Internal "internal" false "The router failed on its own; the log tells why.";
    41 BadRequest "bad_request" false "The request is not valid.";
    42 Conflict "conflict" true "Another change came first; look and try again.";
    43 Unauthenticated "unauthenticated" false "The certificate or token was not accepted.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal: the code, and a sentence about this case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// What kind.
    pub code: Code,
    /// What happened, to what, what to do. Never empty.
    pub detail: String,
}

impl Refusal {
    /// A refusal with a sentence of its own.
    pub fn new(code: Code, detail: impl Into<String>) -> Refusal {
        Refusal { code, detail: detail.into() }
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Refusal {
        Refusal::new(code, code.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_go_both_ways() {
        let mut names = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(*code));
            assert!(names.insert(code.name()), "{code} twice");
            assert!(code.sentence().ends_with('.'));
        }
    }
}
