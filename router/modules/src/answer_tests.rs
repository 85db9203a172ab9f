//! Tests of answers: each kind of edit, each lie, and any bytes at all.

use proptest::prelude::*;

use super::*;

/// An answer from verdicts and (kind, index, bytes) triples.
fn answer(verdicts: &[u8], list: &[(u8, u32, &[u8])]) -> Answer {
    let mut edits = Edits { kinds: vec![], indexes: vec![], ends: vec![], bytes: vec![] };
    for &(kind, index, bytes) in list {
        edits.kinds.push(kind);
        edits.indexes.push(index);
        edits.bytes.extend_from_slice(bytes);
        edits.ends.push(edits.bytes.len() as u32);
    }
    Answer { verdicts: verdicts.to_vec(), edits: (!list.is_empty()).then_some(edits) }
}

#[track_caller]
fn one(list: &[(u8, u32, &[u8])], wanted: Result<Verdict, Lie>) {
    assert_eq!(check(answer(&[2], list), 1, 1000).map(|mut verdicts| verdicts.remove(0)), wanted);
}

#[test]
fn every_kind_of_edit_is_understood() {
    one(&[(0, 0, b"no")], Ok(Verdict::Reject { reason: "no".into() }));
    let far = 7_u64.to_le_bytes();
    let changes = Changes {
        payload: Some(b"new".to_vec()),
        key: Some(Some("k".into())),
        headers: vec![
            HeaderChange::Set { name: "a".into(), value: "ü".into() },
            HeaderChange::Remove { name: "b".into() },
        ],
        priority: Some(9),
        ttl_ms: Some(Some(7)),
        deliver_at_ms: Some(Some(7)),
    };
    let list: &[(u8, u32, &[u8])] = &[
        (3, 0, b"new"),
        (4, 0, b"k"),
        (6, 0, "\x01\0\0\0aü".as_bytes()),
        (7, 0, b"b"),
        (8, 0, &[9]),
        (9, 0, &far),
        (11, 0, &far),
    ];
    one(list, Ok(Verdict::Transform(Box::new(changes.clone()))));
    let routed = [list, &[(1, 0, b"t.a"), (1, 0, b"t.b")]].concat();
    one(&routed, Ok(Verdict::Route { topics: vec!["t.a".into(), "t.b".into()], changes: Box::new(changes) }));
    let removed =
        Changes { key: Some(None), ttl_ms: Some(None), deliver_at_ms: Some(None), ..Changes::default() };
    one(&[(5, 0, b""), (10, 0, b""), (12, 0, b"")], Ok(Verdict::Transform(Box::new(removed))));
    let second = Changes { payload: Some(b"2".to_vec()), ..Changes::default() };
    let children = vec![Child::default(), Child { topics: vec!["t".into()], changes: second }];
    one(&[(2, 0, b""), (2, 0, b""), (3, 0, b"2"), (1, 0, b"t")], Ok(Verdict::Split(children)));
}

#[test]
fn every_lie_is_told_apart() {
    let check = |answer, count| check(answer, count, 10).unwrap_err();
    assert_eq!(check(answer(&[0], &[]), 2), Lie::Verdicts { got: 1, wanted: 2 });
    assert_eq!(check(answer(&[0, 0, 0], &[]), 2), Lie::Verdicts { got: 3, wanted: 2 });
    assert_eq!(check(answer(&[3], &[]), 1), Lie::Verdict { number: 3 });
    assert_eq!(check(answer(&[2], &[]), 1), Lie::NoEdits { index: 0 });
    assert_eq!(check(answer(&[0], &[(0, 0, b"")]), 1), Lie::NotEdited { edit: 0, index: 0 });
    assert_eq!(check(answer(&[0, 2], &[(0, 0, b""), (0, 1, b"")]), 2), Lie::NotEdited { edit: 0, index: 0 });
    assert_eq!(check(answer(&[2], &[(0, 1, b"")]), 1), Lie::Index { edit: 0, index: 1, count: 1 });
    let falls = answer(&[2, 2], &[(0, 1, b""), (0, 0, b"")]);
    assert_eq!(check(falls, 2), Lie::Index { edit: 1, index: 0, count: 2 });
    let many = vec![(3_u8, 0_u32, &b""[..]); 11];
    assert_eq!(check(answer(&[2], &many), 1), Lie::TooManyEdits { got: 11, limit: 10 });
    let spoilt = |mut answer: Answer, spoil: fn(&mut Edits)| {
        spoil(answer.edits.as_mut().expect("there are some"));
        answer
    };
    let short = spoilt(answer(&[2], &[(0, 0, b"")]), |edits| edits.indexes.clear());
    assert_eq!(check(short, 1), Lie::Lengths { kinds: 1, indexes: 0, ends: 1 });
    let beyond = spoilt(answer(&[2], &[(0, 0, b"ab")]), |edits| edits.ends[0] = 3);
    assert_eq!(check(beyond, 1), Lie::End { edit: 0, end: 3, bytes: 2 });
    let back = spoilt(answer(&[2, 2], &[(0, 0, b"ab"), (0, 1, b"")]), |edits| edits.ends[1] = 1);
    assert_eq!(check(back, 2), Lie::End { edit: 1, end: 1, bytes: 2 });
    let left = spoilt(answer(&[2], &[(0, 0, b"ab")]), |edits| edits.ends[0] = 1);
    assert_eq!(check(left, 1), Lie::BytesLeft { left: 1 });
    let none = spoilt(answer(&[0, 2], &[(0, 1, b"")]), |edits| {
        *edits = Edits { kinds: vec![], indexes: vec![], ends: vec![], bytes: vec![] };
    });
    assert_eq!(check(none, 2), Lie::NoEdits { index: 1 });
}

#[test]
fn every_lie_within_an_edit_is_told_apart() {
    one(&[(13, 0, b"")], Err(Lie::Kind { edit: 0, kind: 13 }));
    one(&[(0, 0, b"\xff")], Err(Lie::Utf8 { edit: 0 }));
    one(&[(4, 0, b"\xff")], Err(Lie::Utf8 { edit: 0 }));
    one(&[(5, 0, b"x")], Err(Lie::Size { edit: 0, got: 1, wanted: 0 }));
    one(&[(2, 0, b"x")], Err(Lie::Size { edit: 0, got: 1, wanted: 0 }));
    one(&[(9, 0, b"1234567")], Err(Lie::Size { edit: 0, got: 7, wanted: 8 }));
    one(&[(6, 0, b"\x01\0\0")], Err(Lie::Size { edit: 0, got: 3, wanted: 4 }));
    one(&[(6, 0, b"\x02\0\0\0a")], Err(Lie::Size { edit: 0, got: 5, wanted: 6 }));
    one(&[(8, 0, &[10])], Err(Lie::Priority { edit: 0, priority: 10 }));
    one(&[(8, 0, &[])], Err(Lie::Size { edit: 0, got: 0, wanted: 1 }));
    for name in ["", "ü", "chaski-dead-reason"] {
        one(&[(7, 0, name.as_bytes())], Err(Lie::Header { edit: 0 }));
    }
    one(&[(0, 0, b""), (0, 0, b"")], Err(Lie::Mixed { edit: 1 }));
    one(&[(3, 0, b""), (0, 0, b"")], Err(Lie::Mixed { edit: 1 }));
    one(&[(3, 0, b""), (2, 0, b"")], Err(Lie::Mixed { edit: 1 }));
    one(&[(2, 0, b""), (0, 0, b"")], Err(Lie::Mixed { edit: 1 }));
    one(&vec![(1, 0, &b"t"[..]); 257], Err(Lie::TooManyResults { index: 0, got: 257 }));
    one(&vec![(2, 0, &b""[..]); 257], Err(Lie::TooManyResults { index: 0, got: 257 }));
}

proptest! {
    /// Whatever a module says, checking it ends in verdicts for all messages or in a lie.
    #[test]
    fn any_answer_is_verdicts_or_a_lie(
        verdicts in prop::collection::vec(0_u8..4, 0..5),
        kinds in prop::collection::vec(0_u8..15, 0..8),
        indexes in prop::collection::vec(0_u32..5, 0..8),
        ends in prop::collection::vec(0_u32..12, 0..8),
        bytes in prop::collection::vec(any::<u8>(), 0..12),
        count in 0_usize..5,
    ) {
        let answer = Answer { verdicts, edits: Some(Edits { kinds, indexes, ends, bytes }) };
        if let Ok(verdicts) = check(answer, count, 100) {
            prop_assert_eq!(verdicts.len(), count);
        }
    }
}
