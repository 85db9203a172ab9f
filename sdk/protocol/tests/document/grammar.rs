//! A second decoder, which knows what the `wire` blocks of PROTOCOL.md say and nothing else: it shares no code with the crate's
//! codec. What it makes of a header is text in the notation of the vectors.

use std::collections::BTreeMap;

use crate::blocks;

/// The layout of every frame, by name.
pub(crate) struct Grammar(pub(crate) BTreeMap<String, Definition>);

/// What a name stands for.
pub(crate) enum Definition {
    Struct(Vec<(String, String)>),
    Enum(BTreeMap<u64, (String, Payload)>),
}

/// What follows a kind's number.
pub(crate) enum Payload {
    Unit,
    Fields(Vec<(String, String)>),
    Type(String),
}

impl Grammar {
    /// As the document has it.
    pub(crate) fn read() -> Grammar {
        let mut definitions = BTreeMap::new();
        for (_, text) in blocks("wire") {
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            while let Some(line) = lines.next() {
                let (kind, rest) = line.split_once(' ').expect("`struct NAME {` or `enum NAME {`");
                let (name, inline) = rest.split_once(" {").expect("a definition opens with a brace");
                let mut inner = Vec::new();
                if let Some(inline) = inline.strip_suffix('}') {
                    inner.extend(inline.split(", ").map(str::trim));
                } else {
                    inner.extend(lines.by_ref().take_while(|line| *line != "}").map(str::trim));
                }
                let definition = match kind {
                    "struct" => Definition::Struct(inner.into_iter().map(field).collect()),
                    "enum" => Definition::Enum(inner.into_iter().map(variant).collect()),
                    other => panic!("`{other}` defines nothing"),
                };
                assert!(definitions.insert(name.to_owned(), definition).is_none(), "{name} twice");
            }
        }
        Grammar(definitions)
    }

    /// The kinds of an `enum`, in order.
    pub(crate) fn kinds(&self, name: &str) -> Vec<&str> {
        match &self.0[name] {
            Definition::Enum(variants) => variants.values().map(|(name, _)| name.as_str()).collect(),
            Definition::Struct(_) => panic!("{name} is no enum"),
        }
    }

    /// What the bytes say, and how many of them the header takes.
    pub(crate) fn decode(&self, name: &str, bytes: &[u8]) -> (String, usize) {
        let mut reader = Reader { grammar: self, bytes, at: 0 };
        let text = reader.value(name);
        (text, reader.at)
    }
}

fn field(text: &str) -> (String, String) {
    let (name, kind) = text.split_once(": ").unwrap_or_else(|| panic!("`{text}` is no field"));
    (name.to_owned(), kind.to_owned())
}

fn variant(text: &str) -> (u64, (String, Payload)) {
    let (number, rest) = text.split_once(' ').expect("a kind has a number and a name");
    let number = number.parse().expect("a kind's number");
    if let Some((name, fields)) = rest.split_once(" { ") {
        let fields = fields.strip_suffix(" }").expect("a closing brace");
        return (number, (name.to_owned(), Payload::Fields(split(fields).into_iter().map(field).collect())));
    }
    match rest.split_once('(') {
        Some((name, kind)) => {
            let kind = kind.strip_suffix(')').expect("a closing parenthesis");
            (number, (name.to_owned(), Payload::Type(kind.to_owned())))
        }
        None => (number, (rest.to_owned(), Payload::Unit)),
    }
}

/// The parts between commas that are in no brackets.
pub(crate) fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' => depth += 1,
            '>' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

struct Reader<'a> {
    grammar: &'a Grammar,
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, kind: &str) -> String {
        let inside = |before: &str| kind.strip_prefix(before).and_then(|rest| rest.strip_suffix('>'));
        if let Some(inner) = inside("option<") {
            return match self.take(1)[0] {
                0 => "None".to_owned(),
                1 => format!("Some({})", self.value(inner)),
                other => panic!("{other} is no option"),
            };
        }
        if let Some(inner) = inside("list<") {
            let count = self.integer(8);
            let elements: Vec<_> = (0..count).map(|_| self.value(inner)).collect();
            return format!("[{}]", elements.join(", "));
        }
        if let Some(inner) = kind.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            let parts: Vec<_> = split(inner).into_iter().map(|part| self.value(part)).collect();
            return format!("({})", parts.join(", "));
        }
        match kind {
            "bool" => match self.take(1)[0] {
                0 => "false".to_owned(),
                1 => "true".to_owned(),
                other => panic!("{other} is no bool"),
            },
            "u8" => self.take(1)[0].to_string(),
            "u32" => self.integer(4).to_string(),
            "u64" => self.integer(8).to_string(),
            "u128" => self.integer(16).to_string(),
            "str" => {
                let length = usize::try_from(self.integer(8)).expect("a vector's text is short");
                format!("{:?}", std::str::from_utf8(self.take(length)).expect("UTF-8"))
            }
            name => self.named(name),
        }
    }

    fn named(&mut self, name: &str) -> String {
        let grammar = self.grammar;
        match grammar.0.get(name).unwrap_or_else(|| panic!("the document defines no `{name}`")) {
            Definition::Struct(fields) => self.fields(name, fields),
            Definition::Enum(variants) => {
                let number = self.integer(4);
                let number = u64::try_from(number).expect("four bytes");
                match &variants[&number] {
                    (name, Payload::Unit) => name.clone(),
                    (name, Payload::Fields(fields)) => self.fields(name, fields),
                    (name, Payload::Type(kind)) => format!("{name}({})", self.value(kind)),
                }
            }
        }
    }

    fn fields(&mut self, name: &str, fields: &[(String, String)]) -> String {
        let fields = fields.iter().map(|(name, kind)| format!("{name}: {}", self.value(kind)));
        format!("{name} {{ {} }}", fields.collect::<Vec<_>>().join(", "))
    }

    /// A variable integer of a type with so many bytes.
    fn integer(&mut self, width: usize) -> u128 {
        let tag = self.take(1)[0];
        let length = match tag {
            0..=250 => return tag.into(),
            251 => 2,
            252 => 4,
            253 => 8,
            254 => 16,
            255 => panic!("tag 255 is never used"),
        };
        assert!(length <= width, "tag {tag} is wider than the field");
        self.take(length).iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
    }

    fn take(&mut self, count: usize) -> &[u8] {
        let start = self.at;
        self.at += count;
        &self.bytes[start..self.at]
    }
}
