//! Bytes that no honest peer sends.

use bytes::BytesMut;
use chaski_protocol::frames::*;
use chaski_protocol::{
    Code, DecodeError, Head, HeadError, MAX_ANSWER_FRAME, MAX_HEADER, MAX_MESSAGE_FRAME, decode,
    encode_frame, next_frame,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::decode_as_all;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..512)) {
        decode_as_all(&bytes);
    }

    /// Small numbers are kinds, tags and lengths, so these come further than random bytes.
    #[test]
    fn plausible_bytes_never_panic(bytes in vec(prop_oneof![4 => 0..6_u8, 1 => 250..=255_u8, 1 => any::<u8>()], 0..256)) {
        decode_as_all(&bytes);
    }

    #[test]
    fn damaged_frames_never_panic(
        reason in ".{0,40}", place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let head = Head { topic: "a.b", id: &reason, key: Some("k"), headers: vec![("a", &reason)], ..Head::default() };
        let mut blocks = Vec::new();
        head.encode(b"payload", &mut blocks);
        let acks = vec![Token { queue: &reason, sequence: 1, lease: 300 }];
        let publishes = vec![(true, blocks.len() as u32)];
        let mut frame = Vec::new();
        encode_frame(&PublishFrame::Transaction { id: &reason, acks, publishes }, &[&blocks], &mut frame);
        for bytes in [&mut blocks, &mut frame] {
            let place = place.index(bytes.len());
            bytes[place] = byte;
            decode_as_all(bytes);
            decode_as_all(&bytes[cut.index(bytes.len())..]);
            let mut buffer = BytesMut::from(&bytes[..]);
            if let Ok(Some(frame)) = next_frame(&mut buffer, MAX_MESSAGE_FRAME) {
                decode_as_all(&frame);
            }
        }
    }

    #[test]
    fn a_frame_beyond_its_limit_is_refused_before_it_has_arrived(limit in 0..1_000_000_u32, more in 1..1000_u32) {
        let length = limit + more;
        let mut buffer = BytesMut::from(&length.to_le_bytes()[..]);
        let refused = next_frame(&mut buffer, limit).expect_err("it is too long");
        prop_assert_eq!(&refused, &DecodeError::TooLong { length, limit });
        prop_assert_eq!(refused.code(), Code::BadFrame);
        let mut buffer = BytesMut::from(&limit.to_le_bytes()[..]);
        prop_assert_eq!(next_frame(&mut buffer, limit).map(|frame| frame.is_some()), Ok(limit == 0));
        // Nothing was reserved for what is only announced.
        prop_assert!(buffer.capacity() < 1024);
    }
}

/// The length of a list as a nine-byte integer.
fn length(count: u64) -> Vec<u8> {
    [&[253][..], &count.to_le_bytes()].concat()
}

/// Why a list of so many elements, of which none follows, is refused.
fn refusal<T: std::fmt::Debug>(decoded: Result<T, DecodeError>) -> String {
    match decoded.expect_err("nothing follows") {
        DecodeError::Bad(detail) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn lists_that_claim_more_memory_than_the_limit_are_refused_before_room_is_made() {
    let limited = |detail: &str| detail.contains("LimitExceeded");
    let pair = size_of::<(u64, u64)>();
    for (count, beyond) in [(1, false), (MAX_HEADER / pair, true), (MAX_HEADER / pair - 1, false)] {
        let bytes = [vec![1], length(count as u64)].concat();
        let detail = refusal(decode::<ConsumeCommand<'_>>(&bytes));
        assert_eq!(limited(&detail), beyond, "{count} leases: {detail}");
    }
    for count in [MAX_HEADER as u64, u64::from(u32::MAX), u64::MAX / 2, u64::MAX] {
        let list = length(count);
        let answers = [
            refusal(decode::<PublishAnswer>(&[&[0][..], &list].concat())),
            refusal(decode::<PublishAnswer>(&[&[0, 1, 1, 3][..], &list].concat())),
            refusal(decode::<PublishAnswer>(&[&[0, 1, 1, 4][..], &list].concat())),
            refusal(decode::<PublishAnswer>(&[&[0, 1, 1, 2, 1][..], &list].concat())),
            refusal(decode::<PublishFrame<'_>>(&[&[1, 0][..], &list].concat())),
            refusal(decode::<PublishFrame<'_>>(&[&[1, 0, 0][..], &list].concat())),
            refusal(decode::<ConsumeFrame<'_>>(&[&[1, 0][..], &list].concat())),
            refusal(decode::<ConsumeFrame<'_>>(&[&[0, 0, 0, 0, 0, 0][..], &list].concat())),
            refusal(decode::<Open<'_>>(&[&[3][..], &list].concat())),
        ];
        for detail in answers {
            assert!(limited(&detail), "{count}: {detail}");
        }
        let head = Head::decode(&[&[0, 0, 0, 0, 0][..], &list].concat()).map(|_| ());
        assert!(matches!(head, Err(HeadError::Decode(DecodeError::Bad(detail))) if limited(&detail)));
    }
}

#[test]
fn answers_within_answers_do_not_exhaust_the_stack() {
    // A run of one, a transaction of one part, which is a transaction of one part …
    let mut bytes = vec![0, 1];
    while bytes.len() < MAX_ANSWER_FRAME as usize - 3 {
        bytes.extend_from_slice(&[1, 3, 1]);
    }
    assert_eq!(decode::<PublishAnswer>(&bytes), Err(DecodeError::Unknown(3)));
    // The other outcomes are no parts either.
    for part in [&[2, 1, 0][..], &[4, 0]] {
        let bytes = [&[0, 1, 1, 3, 1, 1][..], part].concat();
        assert!(decode::<PublishAnswer>(&bytes).is_err());
    }
}

#[test]
fn unknown_kinds_are_told_from_broken_fields() {
    let code = |decoded: Result<usize, DecodeError>| decoded.expect_err("it is wrong").code();
    fn length<T>(decoded: Result<(T, usize), DecodeError>) -> Result<usize, DecodeError> {
        decoded.map(|(_, length)| length)
    }
    for (decoded, unknown) in [
        (length(decode::<Open<'_>>(&[6])), 6),
        (length(decode::<Opening<'_>>(&[5])), 5),
        (length(decode::<Notice>(&[3])), 3),
        (length(decode::<PublishFrame<'_>>(&[2])), 2),
        (length(decode::<PublishAnswer>(&[0, 1, 1, 5])), 5),
        (length(decode::<ConsumeFrame<'_>>(&[4])), 4),
        (length(decode::<ConsumeCommand<'_>>(&[251, 0, 1])), 256),
        (length(decode::<ConsumeCommand<'_>>(&[0, 1, 1, 6])), 6),
        (length(decode::<Passed>(&[1])), 1),
    ] {
        assert_eq!(decoded, Err(DecodeError::Unknown(unknown)));
        assert_eq!(code(decoded), Code::UnknownFrame);
    }
    let broken = [
        ("nothing at all", length(decode::<Open<'_>>(&[]))),
        ("an option that is neither", length(decode::<ConsumeCommand<'_>>(&[0, 1, 1, 1, 2]))),
        ("the same within an outcome", length(decode::<PublishAnswer>(&[0, 1, 1, 1, 7, 0]))),
        ("a bool that is neither", length(decode::<PublishFrame<'_>>(&[0, 2]))),
        ("a text that is not UTF-8", length(decode::<Open<'_>>(&[3, 1, 0xff]))),
        ("eight bytes in a u32", length(decode::<ConsumeCommand<'_>>(&[2, 253, 1, 0, 0, 0, 0, 0, 0, 0]))),
        ("tag 255", length(decode::<ConsumeCommand<'_>>(&[2, 255, 0, 0]))),
    ];
    for (what, decoded) in broken {
        assert!(matches!(decoded, Err(DecodeError::Bad(_))), "{what}: {decoded:?}");
        assert_eq!(code(decoded), Code::BadFrame, "{what}");
    }
    let head = Head::decode(&[0, 0, 9]).expect_err("an option that is neither");
    assert_eq!(head.code(), Code::BadFrame, "a message is no kind of frame");
}

#[test]
fn integers_may_be_longer_than_they_must() {
    for bytes in [&[2, 7][..], &[2, 251, 7, 0], &[2, 252, 7, 0, 0, 0]] {
        let decoded = decode::<ConsumeCommand<'_>>(bytes);
        assert_eq!(decoded, Ok((ConsumeCommand::SetCredit { credit: 7 }, bytes.len())));
    }
}

#[test]
fn refusals_stay_short_whatever_was_sent() {
    let long = "\u{7f}".repeat(1 << 20);
    let reserved = format!("chaski-{}", "x".repeat(1 << 20));
    let twice = "x".repeat(1 << 20);
    for headers in [vec![(&*long, "")], vec![(&*reserved, "")], vec![(&*twice, ""), (&*twice, "")]] {
        let head = Head { topic: "t", id: "i", headers, ..Head::default() };
        let detail = head.check(u32::MAX).expect_err("its header is wrong").to_string();
        assert!(detail.len() < 1024, "a sentence of {} bytes", detail.len());
    }
}
