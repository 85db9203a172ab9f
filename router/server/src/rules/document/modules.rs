//! The tables of modules and of the routes that they judge.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::PatternText;
use super::texts::{BuiltinText, DigestText, DurationText, FilterText, PercentText, PublicKeyText, SizeText};

names! {
    /// What a message takes on which a module failed.
    pub OnError: DeadLetter, Drop, Pass, Retry
}

/// One module. Its binary is one of `file`, `digest` and `builtin`; without any it waits for `chaski module deploy`, and publishes that
/// would reach it are answered `module_missing`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-at-most-one" = ["file", "digest", "builtin"]))]
pub(crate) struct ModuleTable {
    /// The binary's file; a relative path begins at the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 4096))]
    pub(crate) file: Option<String>,
    /// The digest of a binary that the router has: `sha256:` and 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DigestText")]
    pub(crate) digest: Option<DigestText>,
    /// The name of a module that comes with the router.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BuiltinText")]
    pub(crate) builtin: Option<BuiltinText>,
    /// What the module is given: its own description says which names there are and what they take.
    #[serde(skip_serializing_if = "Params::is_empty")]
    pub(crate) params: Params,
    /// What a message takes on which the module failed: it becomes a dead letter (`filter_error`), is dropped, goes on as if the module
    /// had passed it, or its publish fails as a whole with the retryable `filter_failed`.
    pub(crate) on_error: OnError,
    /// CPU time of one call; 100 times this much by the clock on the wall ends it too.
    #[schemars(extend("x-min" = "1ms", "x-max" = "10s"))]
    pub(crate) time_limit: DurationText,
    /// Memory of one instance.
    #[schemars(extend("x-min" = "64KiB", "x-max" = "1GiB"))]
    pub(crate) memory_limit: SizeText,
    /// When a version is rolled back by itself.
    pub(crate) rollback: RollbackTable,
}

/// When a version is rolled back by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RollbackTable {
    /// The version before comes back once more than this part of the messages failed; one that fails on more of the messages judged last
    /// does not come into force at all.
    #[schemars(extend("x-min" = "1%", "x-max" = "100%"))]
    pub(crate) errors: PercentText,
    /// The part is taken of so many messages, the latest; judged from 20 on.
    #[schemars(range(min = 20, max = 1_000_000))]
    pub(crate) of: u32,
}

/// One route: what its filters make of every message that is published to one of its topics, before queues and subscriptions see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteTable {
    /// Patterns of the topics that it judges.
    #[schemars(length(min = 1, max = 10_000))]
    pub(crate) topics: Vec<PatternText>,
    /// Filters, one after another, each on what the former left: names of `[module]` tables, or of builtins that need no params.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(crate) filters: Vec<FilterText>,
}

/// What the router asks of every module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ModulesTable {
    /// Ed25519 public keys, 32 bytes each in base64. With any, only binaries that one of them signed are taken.
    #[schemars(length(max = 64))]
    pub(crate) trusted_keys: Vec<PublicKeyText>,
    /// The size of a binary.
    #[schemars(extend("x-min" = "1B", "x-max" = "64MiB"))]
    pub(crate) max_size: SizeText,
}

impl Default for ModuleTable {
    fn default() -> Self {
        let limits = chaski_modules::Limits::default();
        ModuleTable {
            file: None,
            digest: None,
            builtin: None,
            params: Params::default(),
            on_error: OnError::DeadLetter,
            time_limit: DurationText(u64::try_from(limits.cpu_time.as_millis()).unwrap_or(u64::MAX)),
            memory_limit: SizeText(limits.memory_bytes as u64),
            rollback: RollbackTable::default(),
        }
    }
}

impl Default for RollbackTable {
    fn default() -> Self {
        RollbackTable { errors: PercentText(5), of: 200 }
    }
}

impl Default for ModulesTable {
    fn default() -> Self {
        ModulesTable {
            trusted_keys: Vec::new(),
            max_size: SizeText(chaski_modules::HostLimits::default().binary_bytes as u64),
        }
    }
}

/// What a module is given, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Params(pub(crate) BTreeMap<String, Json>);

impl Params {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl JsonSchema for Params {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "params".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "format": "params" })
    }
}
