//! The test vectors of PROTOCOL.md against the codec, and against the document's own grammar.

use bytes::BytesMut;
use chaski_protocol::{Head, MAX_MESSAGE_FRAME, next_frame};
use expect_test::expect_file;

use crate::grammar::Grammar;
use crate::samples::{Part, Sample};
use crate::{PROTOCOL, blocks, kinds, samples};

/// Bytes in one line of a dump.
const LINE: usize = 24;

const BEGIN: &str =
    "<!-- vectors: written by the test `the_vectors_are_those_of_the_codec` with UPDATE_EXPECT=1 -->\n";
const END: &str = "<!-- end of vectors -->";

/// A vector as the document has it.
struct Written<'a> {
    kind: &'a str,
    text: &'a str,
    /// Label and text of what follows the header.
    rest: Vec<(&'a str, &'a str)>,
    /// Label and bytes of each part of the dump.
    parts: Vec<(&'a str, Vec<u8>)>,
}

impl Written<'_> {
    fn bytes(&self) -> Vec<u8> {
        self.parts.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect()
    }
}

fn written() -> Vec<Written<'static>> {
    blocks("vector").map(|(_, text)| parse(text)).collect()
}

fn parse(text: &'static str) -> Written<'static> {
    let (values, dump) = text.split_once("\n\n").expect("an empty line between values and bytes");
    let mut values = values.lines().map(|line| line.split_once(": ").unwrap_or((line, "")));
    let (kind, text) = values.next().expect("a vector has a kind");
    let mut parts: Vec<(&str, Vec<u8>)> = Vec::new();
    for line in dump.lines() {
        let (label, bytes) = line.split_at(9);
        if !label.trim().is_empty() {
            parts.push((label.trim(), Vec::new()));
        }
        let bytes = bytes.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal"));
        parts.last_mut().expect("a dump begins with a label").1.extend(bytes);
    }
    Written { kind, text, rest: values.collect(), parts }
}

/// The document's section, as it should be.
fn render(samples: &[Sample]) -> String {
    let mut out = String::new();
    for sample in samples {
        out += "\n```vector\n";
        out += &match sample.text.as_str() {
            "" => format!("{}\n", sample.kind),
            text => format!("{}: {text}\n", sample.kind),
        };
        for part in &sample.rest {
            out += &format!("{}: {}\n", part.label(), part.text());
        }
        out.push('\n');
        let mut bytes = sample.bytes.as_slice();
        if sample.kind != "Datagram" {
            let (_, header) = (sample.decode)(&bytes[4..]);
            for (label, length) in [("length", 4), ("header", header)] {
                let (part, behind) = bytes.split_at(length);
                dump(label, part, &mut out);
                bytes = behind;
            }
        }
        for part in &sample.rest {
            dump(part.label(), &part.bytes(), &mut out);
        }
        out += "```\n";
    }
    out.push('\n');
    out
}

fn dump(label: &str, bytes: &[u8], out: &mut String) {
    for (number, line) in bytes.chunks(LINE).enumerate() {
        let label = if number == 0 { label } else { "" };
        let bytes: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        *out += &format!("{label:<9}{}\n", bytes.join(" "));
    }
}

#[test]
fn the_vectors_are_those_of_the_codec() {
    let (before, rest) = PROTOCOL.split_once(BEGIN).expect("the vectors' beginning is marked");
    let (_, after) = rest.split_once(END).expect("the vectors' end is marked");
    let expected = format!("{before}{BEGIN}{}{END}{after}", render(&samples::all()));
    expect_file!["../../PROTOCOL.md"].assert_eq(&expected);
}

#[test]
fn encoding_a_vectors_value_gives_its_bytes() {
    let (samples, written) = (samples::all(), written());
    assert_eq!(samples.len(), written.len());
    for (sample, written) in samples.iter().zip(&written) {
        assert_eq!((sample.kind, sample.text.as_str()), (written.kind, written.text));
        assert_eq!(sample.bytes, written.bytes(), "{} {}", written.kind, written.text);
    }
}

#[test]
fn decoding_a_vectors_bytes_gives_its_value() {
    let (samples, written) = (samples::all(), written());
    assert_eq!(samples.len(), written.len());
    for (sample, written) in samples.iter().zip(&written) {
        let name = format!("{} {}", written.kind, written.text);
        let mut rest = if written.kind == "Datagram" {
            written.bytes()
        } else {
            let mut buffer = BytesMut::from(written.bytes().as_slice());
            let frame = next_frame(&mut buffer, MAX_MESSAGE_FRAME).expect(&name).expect(&name);
            assert!(buffer.is_empty(), "{name}: bytes behind the frame");
            let (same, header) = (sample.decode)(&frame);
            assert!(same, "{name}: decoded to something else");
            frame[header..].to_vec()
        };
        for part in &sample.rest {
            let length = match part {
                Part::Head(head) => {
                    let (decoded, length) = Head::decode(&rest).expect(&name);
                    assert_eq!(&decoded, head, "{name}");
                    length
                }
                Part::Payload(text) | Part::Json(text) => {
                    assert!(rest.starts_with(text.as_bytes()), "{name}");
                    text.len()
                }
            };
            rest.drain(..length);
        }
        assert!(rest.is_empty(), "{name}: {} bytes are nobody's", rest.len());
    }
}

#[test]
fn a_decoder_that_knows_the_document_alone_reads_the_vectors() {
    let grammar = Grammar::read();
    for written in written() {
        let mut texts = vec![("header", written.text)];
        texts.extend(&written.rest);
        for (label, bytes) in &written.parts {
            if *label == "length" {
                let rest: usize = written.parts.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() - 4;
                assert_eq!(u32::from_le_bytes(bytes[..].try_into().expect("four bytes")) as usize, rest);
                continue;
            }
            let text = match *label {
                "header" => texts.remove(0),
                _ => {
                    texts.retain(|(label, _)| *label != "header");
                    texts.remove(0)
                }
            };
            assert_eq!(text.0, *label);
            let found = match *label {
                "header" | "head" => {
                    let kind = if *label == "head" { "Head" } else { written.kind };
                    let (found, length) = grammar.decode(kind, bytes);
                    assert_eq!(length, bytes.len(), "{found}: its length");
                    found
                }
                "payload" => format!("{:?}", std::str::from_utf8(bytes).expect("UTF-8")),
                "json" => String::from_utf8(bytes.clone()).expect("UTF-8"),
                other => panic!("`{other}` is no part of a frame"),
            };
            assert_eq!(found, text.1);
        }
    }
}

#[test]
fn every_kind_of_frame_has_a_vector() {
    let covered: Vec<String> = samples::all().into_iter().flat_map(|sample| sample.covers).collect();
    for kind in kinds::all() {
        assert!(covered.contains(&kind), "{kind} has no vector");
    }
}

#[test]
fn the_documents_kinds_are_the_crates() {
    let grammar = Grammar::read();
    for (name, kinds) in kinds::ENUMS {
        assert_eq!(grammar.kinds(name), *kinds, "{name}");
    }
}
