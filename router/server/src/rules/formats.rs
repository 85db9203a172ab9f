//! The forms that texts in the document have, by the `format` that their schema names: what one is called, whether a text is one,
//! and what is wrong with it otherwise.

use chaski_protocol::{MAX_QUEUE_NAME, check_pattern, check_topic, parse_duration, parse_size};
use toml_edit::{Table, TableLike};

use super::document::{parse_percent, parse_public_key};
use super::errors::nearest;

/// The name of a module or route in bytes: it becomes a header and a metric's label.
const MAX_NAME: usize = 64;

/// Names that the document's texts may refer to.
pub(super) struct Names<'a> {
    modules: Vec<&'a str>,
}

impl<'a> Names<'a> {
    /// Those of this document.
    pub(super) fn of(root: &'a Table) -> Names<'a> {
        let modules = root.get("module").and_then(|modules| modules.as_table_like());
        Names { modules: modules.into_iter().flat_map(TableLike::iter).map(|(name, _)| name).collect() }
    }

    /// The document's modules, whatever they are, and the builtins of this world.
    fn of_world(&self, world: &str) -> Vec<&'a str> {
        let builtins = chaski_filters::builtins().iter().filter(|guest| guest.world == world);
        let builtins = builtins.map(|guest| guest.name).filter(|name| !self.modules.contains(name));
        self.modules.iter().copied().chain(builtins).collect()
    }
}

fn builtins() -> Vec<&'static str> {
    chaski_filters::builtins().iter().map(|guest| guest.name).collect()
}

/// What a text of this format is called, with its article.
pub(super) fn noun(format: Option<&str>) -> &'static str {
    match format {
        Some("duration") => "a duration",
        Some("size") => "a size",
        Some("percent") => "a percentage",
        Some("pattern") => "a pattern",
        Some("filter") => "a filter",
        Some("aggregator") => "an aggregator",
        Some("compensator") => "a compensator",
        Some("topic") => "a topic",
        Some("queue-name") => "a queue",
        Some("saga-name") => "a name",
        Some("builtin") => "a builtin",
        Some("digest") => "a digest",
        Some("public-key") => "a public key",
        _ => "a string",
    }
}

/// The number behind a text with a unit, so that it can be compared; nothing for formats without one.
pub(super) fn number(format: &str, text: &str) -> Option<Result<u64, String>> {
    match format {
        "duration" => Some(parse_duration(text).map_err(|error| error.to_string())),
        "size" => Some(parse_size(text).map_err(|error| error.to_string())),
        "percent" => Some(parse_percent(text)),
        _ => None,
    }
}

/// What is wrong with a text of a format without numbers.
pub(super) fn problem(format: &str, text: &str, names: &Names<'_>) -> Option<String> {
    match format {
        "pattern" => check_pattern(text).err().map(|error| error.to_string()),
        "digest" => {
            text.parse::<chaski_modules::Digest>().err().map(|error| format!("{error}, not `{text}`"))
        }
        "public-key" => parse_public_key(text).err(),
        "topic" if text.starts_with('$') => {
            Some(format!("topic `{text}` is reserved: topics that begin with `$` are the router's own"))
        }
        "topic" => check_topic(text).err().map(|error| error.to_string()),
        "queue-name" => queue_name_problem(text),
        "saga-name" => name_problem(format, "step", text),
        "filter" | "aggregator" | "compensator" => {
            let known = names.of_world(format);
            let unknown = || format!("there is no module or builtin `{text}`; {}", nearest(text, &known));
            // A builtin of another world is told as such, with its place, where the document's meaning is checked.
            (!known.contains(&text) && !builtins().contains(&text)).then(unknown)
        }
        "builtin" => {
            let known = builtins();
            let unknown = || format!("there is no builtin `{text}`; {}", nearest(text, &known));
            (!known.contains(&text)).then(unknown)
        }
        _ => None,
    }
}

/// What is wrong with a table's name; `kind` is the table that it stands in.
pub(super) fn name_problem(format: &str, kind: &str, name: &str) -> Option<String> {
    match format {
        "queue-name" => queue_name_problem(name),
        "saga-name" if name.contains('/') => Some(format!(
            "`{name}` has a `/` in it, which stands between a saga's name, its id and its steps"
        )),
        "saga-name" => name_problem("name", kind, name),
        "name" if name.len() > MAX_NAME => {
            Some(format!("a {kind}'s name has at most {MAX_NAME} bytes, this one {}", name.len()))
        }
        "name" if name.contains('.') => {
            Some(format!("a {kind}'s name is one token, and `{name}` has a dot in it"))
        }
        "name" => {
            check_topic(name).err().map(|error| format!("a {kind}'s name is a token of a topic: {error}"))
        }
        _ => None,
    }
}

/// Reports a name that no ordinary queue can have.
fn queue_name_problem(name: &str) -> Option<String> {
    if name == "chaski" || name.ends_with(".dlq") {
        return Some(format!(
            "queue name `{name}` is reserved: `chaski` and names that end in `.dlq` are the router's own"
        ));
    }
    if name.starts_with('$') {
        return Some(format!(
            "queue name `{name}` is reserved: topics that begin with `$` are the router's own"
        ));
    }
    if name.len() > MAX_QUEUE_NAME {
        return Some(format!("a queue name has at most {MAX_QUEUE_NAME} bytes, this one {}", name.len()));
    }
    check_topic(name).err().map(|error| format!("a queue name is a topic: {error}"))
}
