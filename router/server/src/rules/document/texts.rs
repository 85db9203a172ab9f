//! Values of the document that are texts of a certain form: words of a closed set, numbers with a unit, names. Each says its form in
//! its schema, as `format`, and the rest of the rules reads it there.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chaski_protocol::{format_duration, format_size, parse_duration, parse_size};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! names {
    ($(#[$doc:meta])* $vis:vis $name:ident: $($variant:ident),*) => {
        $(#[$doc])*
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        #[allow(missing_docs, reason = "variant docs would become part of the schema; the key's own text explains them")]
        $vis enum $name { $($variant),* }
    };
}

macro_rules! unit_text {
    ($(#[$doc:meta])* $name:ident, $format:literal, $example:literal, $parse:ident, $write:ident) => {
        $(#[$doc])*
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$write(self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).map($name).map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $format.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "examples": [$example] })
            }
        }
    };
}

unit_text! {
    /// Milliseconds, written with a unit.
    DurationText, "duration", "30s", parse_duration, format_duration
}
unit_text! {
    /// Bytes, written with a unit.
    SizeText, "size", "16MiB", parse_size, format_size
}

unit_text! {
    /// Hundredths, written with their sign.
    PercentText, "percent", "5%", parse_percent, format_percent
}

/// Reads a whole number of hundredths with its sign.
pub(crate) fn parse_percent(text: &str) -> Result<u64, String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    match digits.parse() {
        Ok(percent) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(percent),
        _ => Err(format!("`{text}` is no percentage: write a whole number with its sign, as `5%`")),
    }
}

fn format_percent(percent: u64) -> String {
    format!("{percent}%")
}

macro_rules! word_text {
    ($(#[$doc:meta])* $name:ident, $format:literal, $example:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $name(pub(crate) String);

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $format.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "examples": [$example] })
            }
        }
    };
}

word_text! {
    /// A pattern of topics.
    PatternText, "pattern", "orders.*.created"
}
word_text! {
    /// The name of a module of the document, or of a builtin.
    FilterText, "filter", "eu-only"
}
word_text! {
    /// The name of an aggregator: a module of the document, or a builtin.
    AggregatorText, "aggregator", "lowest-quote"
}
word_text! {
    /// The name of a compensator: a module of the document, or a builtin.
    CompensatorText, "compensator", "order-compensation"
}
word_text! {
    /// A topic that clients may publish to.
    TopicText, "topic", "orders.place"
}
word_text! {
    /// The name of an ordinary queue.
    QueueText, "queue-name", "stock.reserve"
}
word_text! {
    /// A name of a saga's own: one token without `/`.
    NameText, "saga-name", "reserve-stock"
}
word_text! {
    /// The name of a module that comes with the router.
    BuiltinText, "builtin", "header-match"
}

/// A SHA-256 digest.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct DigestText(pub(crate) chaski_modules::Digest);

impl Serialize for DigestText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DigestText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(DigestText).map_err(de::Error::custom)
    }
}

impl JsonSchema for DigestText {
    fn schema_name() -> Cow<'static, str> {
        "digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "digest" })
    }
}

/// An Ed25519 public key in base64.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKeyText(pub(crate) [u8; 32]);

/// Reads a key's 32 bytes from base64.
pub(crate) fn parse_public_key(text: &str) -> Result<[u8; 32], String> {
    let bytes = BASE64.decode(text).map_err(|error| format!("it is no base64: {error}"))?;
    let key: [u8; 32] = bytes.try_into().map_err(|bytes: Vec<u8>| {
        format!("an Ed25519 public key has 32 bytes, and this has {}", bytes.len())
    })?;
    match chaski_modules::TrustedKeys::new(&[key]) {
        Ok(_) => Ok(key),
        Err(_) => Err("these 32 bytes are no Ed25519 public key".to_owned()),
    }
}

impl Serialize for PublicKeyText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for PublicKeyText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_public_key(&text).map(PublicKeyText).map_err(de::Error::custom)
    }
}

impl JsonSchema for PublicKeyText {
    fn schema_name() -> Cow<'static, str> {
        "public-key".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "public-key" })
    }
}
