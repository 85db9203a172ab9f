//! Every frame with arbitrary fields: encoded and decoded it is the same, and no part of it is taken for the whole.

use bytes::BytesMut;
use chaski_protocol::frames::*;
use chaski_protocol::{DecodeError, Head, decode, encode_frame, encode_frame_with, next_frame};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Encodes a frame with a rest; checks the way back, and that every shorter piece is incomplete or an error.
macro_rules! goes_both_ways {
    ($type:ty: $value:expr) => {{
        let value: $type = $value;
        let rest = b"payload";
        let mut frame = Vec::new();
        encode_frame(&value, &[&rest[..3], &rest[3..]], &mut frame);
        let mut other = vec![1, 2];
        encode_frame_with(&value, 3, &mut other, |out| out.extend_from_slice(&rest[..4]));
        other.extend_from_slice(&rest[4..]);
        prop_assert_eq!(&other[2..], &frame[..]);

        let mut buffer = BytesMut::from(&frame[..]);
        buffer.extend_from_slice(b"the next one");
        let whole = next_frame(&mut buffer, u32::MAX).expect("it is a frame").expect("it is whole");
        prop_assert_eq!(&buffer[..], b"the next one");
        let (decoded, length) = decode::<$type>(&whole).expect("it was just encoded");
        prop_assert_eq!(&decoded, &value);
        prop_assert_eq!(&whole[length..], rest);
        for end in 0..length {
            let cut = decode::<$type>(&whole[..end]);
            prop_assert!(matches!(cut, Err(DecodeError::Bad(_))), "{} of {} bytes: {:?}", end, length, cut);
        }
        for end in 0..frame.len() {
            let mut part = BytesMut::from(&frame[..end]);
            prop_assert_eq!(next_frame(&mut part, u32::MAX), Ok(None));
            prop_assert_eq!(part.len(), end, "an incomplete frame stays where it is");
        }
    }};
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, 65_000..66_000_u64, any::<u64>()]
}

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..4)
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn counts() -> impl Strategy<Value = Counts> {
    any::<(u32, u32, u32)>().prop_map(|(routed, dropped, rejected)| Counts { routed, dropped, rejected })
}

fn confirm() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (option::of(number()), number(), counts()).prop_map(|(first, step, counts)| Outcome::Confirmed {
            first,
            step,
            counts
        }),
        (option::of(number()), number()).prop_map(|(first, step)| Outcome::Duplicate { first, step }),
    ]
}

fn runs(outcome: impl Strategy<Value = Outcome>) -> impl Strategy<Value = Vec<Run>> {
    vec((any::<u32>(), outcome).prop_map(|(count, outcome)| Run { count, outcome }), 0..4)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        confirm(),
        (any::<u32>(), text()).prop_map(|(code, detail)| Outcome::Refused { code, detail }),
        runs(confirm()).prop_map(|parts| Outcome::Transacted { parts }),
        vec(any::<u32>(), 0..4).prop_map(|acks| Outcome::LeaseLost { acks }),
    ]
}

proptest! {
    #[test]
    fn the_frames_that_open_streams(
        one in any::<u32>(), two in any::<u32>(), client in any::<u128>(), name in text(), ms in number(),
    ) {
        goes_both_ways!(Open<'_>: Open::Hello { version: one, client, sdk: &name, token: None });
        goes_both_ways!(Open<'_>: Open::Hello { version: one, client, sdk: &name, token: Some(&name) });
        goes_both_ways!(Open<'_>: Open::Publish);
        goes_both_ways!(Open<'_>: Open::Consume { queue: &name, credit: one, filters: vec![&name] });
        goes_both_ways!(Open<'_>: Open::Subscribe { pattern: &name, filters: vec![&name, &name] });
        goes_both_ways!(Open<'_>: Open::Admin);
        goes_both_ways!(Open<'_>: Open::Upload { bytes: one.into() });
        let welcome = Opening::Welcome { server: &name, dedup_window_ms: ms, max_payload: one, max_headers: two };
        goes_both_ways!(Opening<'_>: welcome);
        goes_both_ways!(Opening<'_>: Opening::Opened);
        goes_both_ways!(Opening<'_>: Opening::Consuming { ack_wait_ms: ms });
        goes_both_ways!(Opening<'_>: Opening::Answer);
        goes_both_ways!(Opening<'_>: Opening::Refused(Refused { code: one, detail: &name }));
    }

    #[test]
    fn notices_and_subscriptions(one in any::<u32>(), two in any::<u32>(), ms in number()) {
        goes_both_ways!(Notice: Notice::DedupWindow { window_ms: ms });
        goes_both_ways!(Notice: Notice::Limits { max_payload: one, max_headers: two });
        goes_both_ways!(Notice: Notice::ShuttingDown);
        goes_both_ways!(Passed: Passed::Message { dropped: ms });
    }

    #[test]
    fn publishes_and_their_answers(
        mandatory in any::<bool>(),
        id in text(),
        acks in vec((text(), number(), number()), 0..4),
        publishes in vec(any::<(bool, u32)>(), 0..4),
        through in number(),
        runs in runs(outcome()),
    ) {
        goes_both_ways!(PublishFrame<'_>: PublishFrame::Publish { mandatory });
        let acks = acks.iter().map(|(queue, sequence, lease)| Token { queue, sequence: *sequence, lease: *lease });
        let acks = acks.collect();
        goes_both_ways!(PublishFrame<'_>: PublishFrame::Transaction { id: &id, acks, publishes });
        goes_both_ways!(PublishAnswer: PublishAnswer { through, runs });
    }

    #[test]
    fn what_a_router_sends_to_a_consumer(
        numbers in (number(), number(), number()),
        attempt in any::<u32>(),
        redelivered in any::<bool>(),
        headers in pairs(),
        refused in vec((number(), any::<u32>()), 0..4),
        leases in vec((number(), number()), 0..4),
        detail in text(),
    ) {
        let (sequence, lease, published_at_ms) = numbers;
        let headers = borrowed(&headers);
        let delivery = Delivery { sequence, lease, attempt, redelivered, published_at_ms, headers };
        goes_both_ways!(ConsumeFrame<'_>: ConsumeFrame::Delivery(delivery));
        goes_both_ways!(ConsumeFrame<'_>: ConsumeFrame::Settled { through: sequence, refused });
        goes_both_ways!(ConsumeFrame<'_>: ConsumeFrame::Lost { leases });
        goes_both_ways!(ConsumeFrame<'_>: ConsumeFrame::Closed { code: attempt, detail: &detail });
    }

    #[test]
    fn what_a_consumer_sends(
        sequence in number(),
        lease in number(),
        delay_ms in option::of(number()),
        reason in text(),
        retryable in any::<bool>(),
        leases in vec((number(), number()), 0..4),
        credit in any::<u32>(),
    ) {
        let verdicts = [
            Verdict::Ack,
            Verdict::Nack { delay_ms },
            Verdict::Reject { reason: &reason },
            Verdict::Fail { reason: &reason, retryable },
            Verdict::Release,
            Verdict::Complete,
        ];
        for verdict in verdicts {
            goes_both_ways!(ConsumeCommand<'_>: ConsumeCommand::Settle { sequence, lease, verdict });
        }
        goes_both_ways!(ConsumeCommand<'_>: ConsumeCommand::Extend { leases });
        goes_both_ways!(ConsumeCommand<'_>: ConsumeCommand::SetCredit { credit });
        goes_both_ways!(ConsumeCommand<'_>: ConsumeCommand::Close);
    }

    #[test]
    fn message_blocks(
        names in (text(), text(), option::of(text()), option::of(text()), option::of(text())),
        headers in pairs(),
        priority in any::<u8>(),
        times in (option::of(number()), option::of(number()), number()),
        payload in vec(any::<u8>(), 0..32),
    ) {
        let (topic, id, key, reply_to, correlation_id) = &names;
        let (ttl_ms, deliver_at_ms, timestamp_ms) = times;
        let head = Head {
            topic,
            id,
            key: key.as_deref(),
            reply_to: reply_to.as_deref(),
            correlation_id: correlation_id.as_deref(),
            headers: borrowed(&headers),
            priority,
            ttl_ms,
            deliver_at_ms,
            timestamp_ms,
        };
        let mut block = Vec::new();
        head.encode(&payload, &mut block);
        let (decoded, payload_at) = Head::decode(&block).expect("it was just encoded");
        prop_assert_eq!(decoded, head);
        prop_assert_eq!(&block[payload_at..], &payload[..]);
        for end in 0..payload_at {
            prop_assert!(Head::decode(&block[..end]).is_err());
        }
    }

    #[test]
    fn frames_are_the_same_however_their_bytes_arrive(
        rests in vec(vec(any::<u8>(), 0..64), 1..8),
        cuts in vec(1..40_usize, 1..64),
    ) {
        let mut bytes = Vec::new();
        for (dropped, rest) in (0..).zip(&rests) {
            encode_frame(&Passed::Message { dropped }, &[rest], &mut bytes);
        }
        let (mut buffer, mut sizes, mut found) = (BytesMut::new(), cuts.iter().cycle(), Vec::new());
        while !bytes.is_empty() {
            let size = (*sizes.next().expect("a cycle has no end")).min(bytes.len());
            buffer.extend(bytes.drain(..size));
            while let Some(frame) = next_frame(&mut buffer, 1024).expect("they are frames") {
                let (passed, length) = decode::<Passed>(&frame).expect("they are messages");
                prop_assert_eq!(passed, Passed::Message { dropped: found.len() as u64 });
                found.push(frame[length..].to_vec());
            }
        }
        prop_assert_eq!(found, rests);
        prop_assert!(buffer.is_empty());
    }
}
