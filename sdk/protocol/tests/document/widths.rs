//! How wide every integer is: frames made from the `wire` blocks of PROTOCOL.md alone, with the greatest value in each field, which
//! the codec must take, and with one field wider than the document says, which it must refuse.

use chaski_protocol::frames::*;
use chaski_protocol::{DecodeError, Head, decode, encode_frame};

use crate::grammar::{Definition, Grammar, Payload, split};

/// Nested kinds are chosen by turns; no nested `enum` has more of them.
const TURNS: usize = 5;

/// Makes a header of a kind.
struct Writer<'a> {
    grammar: &'a Grammar,
    out: Vec<u8>,
    /// Which kind of a nested `enum` is taken.
    turn: usize,
    /// Runs within runs are one of the first two kinds.
    depth: usize,
    /// Integers written so far.
    integers: usize,
    /// The one that is to be too wide.
    widen: Option<usize>,
}

impl Writer<'_> {
    fn value(&mut self, kind: &str) {
        let inside = |before: &str| kind.strip_prefix(before).and_then(|rest| rest.strip_suffix('>'));
        if let Some(inner) = inside("option<").or_else(|| inside("list<")) {
            // Present, and one element.
            self.out.push(1);
            return self.value(inner);
        }
        if let Some(inner) = kind.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            return split(inner).into_iter().for_each(|part| self.value(part));
        }
        match kind {
            "bool" => self.out.push(1),
            "u8" => self.out.push(255),
            "u32" => self.integer(252, 4, u32::MAX.into()),
            "u64" => self.integer(253, 8, u64::MAX.into()),
            "u128" => self.integer(254, 16, u128::MAX),
            "str" => self.out.extend_from_slice(&[1, b'x']),
            name => self.named(name),
        }
    }

    fn named(&mut self, name: &str) {
        let grammar = self.grammar;
        match &grammar.0[name] {
            Definition::Struct(fields) => self.fields(fields),
            Definition::Enum(variants) => {
                let among = if self.depth > 0 { 2 } else { variants.len() };
                self.depth += 1;
                self.variant(name, (self.turn % among) as u64);
                self.depth -= 1;
            }
        }
    }

    fn variant(&mut self, name: &str, number: u64) {
        let Definition::Enum(variants) = &self.grammar.0[name] else { panic!("{name} is no enum") };
        // Kinds are few, so their numbers are one byte.
        self.out.push(number as u8);
        match &variants[&number].1 {
            Payload::Unit => {}
            Payload::Fields(fields) => self.fields(fields),
            Payload::Type(kind) => self.value(kind),
        }
    }

    fn fields(&mut self, fields: &[(String, String)]) {
        fields.iter().for_each(|(_, kind)| self.value(kind));
    }

    fn integer(&mut self, tag: u8, width: usize, value: u128) {
        let widened = self.widen == Some(self.integers);
        self.integers += 1;
        let (tag, width, value) = if widened { (tag + 1, width * 2, 1) } else { (tag, width, value) };
        self.out.push(tag);
        self.out.extend(value.to_le_bytes().into_iter().chain([0; 16]).take(width));
    }
}

/// Decodes as the kind of this name; answers what it encodes to, and how many bytes it took.
fn recode(kind: &str, bytes: &[u8]) -> Result<(Vec<u8>, usize), DecodeError> {
    macro_rules! by_name {
        ($($name:ident $(<$life:lifetime>)?)*) => {
            match kind {
                $(stringify!($name) => {
                    let (value, length) = decode::<$name $(<$life>)?>(bytes)?;
                    let mut out = Vec::new();
                    encode_frame(&value, &[], &mut out);
                    Ok((out.split_off(4), length))
                })*
                other => panic!("{other} begins no frame"),
            }
        };
    }
    by_name! {
        Open<'_> Opening<'_> Notice PublishFrame<'_> PublishAnswer ConsumeFrame<'_> ConsumeCommand<'_> Passed Head<'_>
    }
}

fn write(
    grammar: &Grammar,
    kind: &str,
    turn: usize,
    number: Option<u64>,
    widen: Option<usize>,
) -> (Vec<u8>, usize) {
    let mut writer = Writer { grammar, out: Vec::new(), turn, depth: 0, integers: 0, widen };
    match number {
        Some(number) => writer.variant(kind, number),
        None => writer.value(kind),
    }
    (writer.out, writer.integers)
}

#[test]
fn every_field_is_as_wide_as_the_document_says() {
    let grammar = Grammar::read();
    let mut integers_seen = 0;
    for kind in [
        "Open",
        "Opening",
        "Notice",
        "PublishFrame",
        "PublishAnswer",
        "ConsumeFrame",
        "ConsumeCommand",
        "Passed",
        "Head",
    ] {
        let numbers: Vec<Option<u64>> = match &grammar.0[kind] {
            Definition::Enum(variants) => variants.keys().copied().map(Some).collect(),
            Definition::Struct(_) => vec![None],
        };
        for (number, turn) in
            numbers.into_iter().flat_map(|number| (0..TURNS).map(move |turn| (number, turn)))
        {
            let (bytes, integers) = write(&grammar, kind, turn, number, None);
            let name = format!("{kind} {number:?}, turn {turn}");
            assert_eq!(recode(kind, &bytes), Ok((bytes.clone(), bytes.len())), "{name}");
            for widen in 0..integers {
                let (wide, _) = write(&grammar, kind, turn, number, Some(widen));
                let refused = recode(kind, &wide);
                assert!(matches!(refused, Err(DecodeError::Bad(_))), "{name}: integer {widen}: {refused:?}");
                integers_seen += 1;
            }
        }
    }
    assert!(integers_seen > 100, "{integers_seen}");
}
