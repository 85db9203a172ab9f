//! Topics and patterns: what is valid (DESIGN section 1), and whether one matches the other.

use crate::codes::Code;
use crate::limits::MAX_TOPIC;

/// Why a topic or pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct TopicError {
    /// `bad_topic`, `bad_pattern` or `reserved`.
    pub code: Code,
    /// A sentence.
    pub detail: String,
}

/// A pattern, taken apart for people who test one against many topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A valid pattern, or why it is none.
    pub fn new(pattern: &str) -> Result<Pattern, TopicError> {
        check_pattern(pattern)?;
        Ok(Pattern(pattern.to_owned()))
    }

    /// Whether the topic is one of its.
    pub fn matches(&self, topic: &str) -> bool {
        pattern_matches(&self.0, topic)
    }
}

/// Checks a topic that is no pattern; `$` topics are fine here.
pub fn check_topic(topic: &str) -> Result<(), TopicError> {
    check_tokens(topic, Code::BadTopic, |_, _| false)
}

/// Checks a topic that a client publishes to: below `$` only `$inbox.`.
pub fn check_publish_topic(topic: &str) -> Result<(), TopicError> {
    check_topic(topic)?;
    if topic.starts_with('$') && !topic.starts_with("$inbox.") {
        let detail = format!("topic `{topic}` is reserved: topics that begin with `$` are the router's");
        return Err(TopicError { code: Code::Reserved, detail });
    }
    Ok(())
}

/// Checks a pattern that a client binds or subscribes to: below `$` only `$chaski.`.
pub fn check_pattern(pattern: &str) -> Result<(), TopicError> {
    check_tokens(pattern, Code::BadPattern, |token, last| token == "*" || (token == ">" && last))?;
    if pattern.starts_with('$') && !pattern.starts_with("$chaski.") {
        let detail = format!(
            "pattern `{pattern}` is reserved: below `$` only `$chaski.>` can be bound or subscribed to"
        );
        return Err(TopicError { code: Code::Reserved, detail });
    }
    Ok(())
}

fn check_tokens(text: &str, code: Code, wildcard: impl Fn(&str, bool) -> bool) -> Result<(), TopicError> {
    let what = if code == Code::BadTopic { "topic" } else { "pattern" };
    let shown = || shown(text);
    let refuse = |detail: String| Err(TopicError { code, detail });
    if text.is_empty() || text.len() > MAX_TOPIC {
        return refuse(format!("a {what} has 1 to {MAX_TOPIC} bytes, this one {}", text.len()));
    }
    // Most topics are plain ASCII words: one pass over the bytes settles them.
    let mut plain = true;
    let mut empty = true;
    for byte in text.bytes() {
        match byte {
            b'.' if empty => return refuse(format!("{what} `{}` has an empty token", shown())),
            b'.' => empty = true,
            0x21..=0x7e if byte != b'*' && byte != b'>' => empty = false,
            _ => {
                plain = false;
                empty = false;
            }
        }
    }
    if empty {
        return refuse(format!("{what} `{}` has an empty token", shown()));
    }
    if plain {
        return Ok(());
    }
    let mut tokens = text.split('.').peekable();
    while let Some(token) = tokens.next() {
        if wildcard(token, tokens.peek().is_none()) {
            continue;
        }
        if let Some(bad) =
            token.chars().find(|c| matches!(c, '*' | '>') || c.is_whitespace() || c.is_control())
        {
            let hint = match bad {
                '*' if code == Code::BadPattern => " (`*` stands for one whole token)",
                '>' if code == Code::BadPattern => " (`>` stands for one or more tokens, at the end)",
                _ => "",
            };
            return refuse(format!(
                "{what} `{}` has {:?} in token `{}`{hint}",
                shown(),
                bad,
                token.escape_debug()
            ));
        }
    }
    Ok(())
}

/// The beginning of a name as a sentence shows it: a refusal stays short, whatever a peer sends.
pub fn shown(name: &str) -> String {
    name.chars().take(64).collect::<String>().escape_debug().to_string()
}

/// Whether a valid pattern matches a valid topic. A wildcard as first token matches no topic that begins with `$`.
pub fn pattern_matches(pattern: &str, topic: &str) -> bool {
    if topic.starts_with('$') && pattern.starts_with(['*', '>']) {
        return false;
    }
    let mut topic = topic.split('.');
    for token in pattern.split('.') {
        match (token, topic.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(other)) if token == other => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_in_nats() {
        for (pattern, topic, matches) in [
            ("a.*.c", "a.b.c", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            (">", "$chaski.events.x", false),
            ("*.events.x", "$chaski.events.x", false),
            ("$chaski.>", "$chaski.events.x", true),
        ] {
            assert_eq!(pattern_matches(pattern, topic), matches, "{pattern} {topic}");
        }
    }

    #[test]
    fn invalid_topics_and_patterns_are_named() {
        for topic in ["", ".", "a..b", "a.", ".a", "a b", "a.*", "a.>", "a\u{7}", "a.\u{a0}b"] {
            assert_eq!(check_topic(topic).unwrap_err().code, Code::BadTopic, "{topic:?}");
        }
        for pattern in ["", "a.>.b", "a*", "a..b", "x>"] {
            assert_eq!(check_pattern(pattern).unwrap_err().code, Code::BadPattern, "{pattern:?}");
        }
        assert_eq!(check_publish_topic("$chaski.events.x").unwrap_err().code, Code::Reserved);
        assert_eq!(check_pattern("$inbox.1.>").unwrap_err().code, Code::Reserved);
        assert!(check_publish_topic("$inbox.1.2").is_ok());
        assert!(check_topic("größe.ß").is_ok());
        assert!(check_topic(&"a".repeat(255)).is_ok());
        assert!(check_topic(&"a".repeat(256)).is_err());
    }
}
