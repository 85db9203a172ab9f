//! Patterns with `*` and `>` as a tree of tokens, so that a topic finds everything that matches it without a scan. It knows
//! nothing of queues and subscriptions: values are the caller's.

use std::collections::HashMap;

use crate::hash::HashKey;

/// Values under patterns. A lookup allocates nothing and costs the topic's tokens, not the number of patterns.
#[derive(Clone, Debug)]
pub struct Trie<T> {
    root: Node<T>,
    key: HashKey,
    len: usize,
}

#[derive(Clone, Debug)]
struct Node<T> {
    /// By literal token. Looked up only, never iterated: its order reaches nothing.
    children: HashMap<Box<[u8]>, Node<T>, HashKey>,
    /// Behind `*`.
    star: Option<Box<Node<T>>>,
    /// Values of patterns that end here.
    here: Vec<T>,
    /// Values of patterns that end with `>` here.
    tail: Vec<T>,
}

impl<T> Trie<T> {
    /// An empty one for patterns that no client chooses.
    pub fn of_rules() -> Trie<T> {
        Trie::new(HashKey::default())
    }

    /// An empty one. The key keeps clients from choosing tokens that collide.
    pub(crate) fn new(key: HashKey) -> Trie<T> {
        Trie { root: Node::new(key), key, len: 0 }
    }

    /// Values in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing can match.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a value under a pattern, beside those that are there.
    pub fn insert(&mut self, pattern: &str, value: T) {
        let key = self.key;
        let mut node = &mut self.root;
        for token in pattern.as_bytes().split(|byte| *byte == b'.') {
            match token {
                b">" => {
                    node.tail.push(value);
                    self.len += 1;
                    return;
                }
                b"*" => node = node.star.get_or_insert_with(|| Box::new(Node::new(key))),
                literal => node = node.children.entry(literal.into()).or_insert_with(|| Node::new(key)),
            }
        }
        node.here.push(value);
        self.len += 1;
    }

    /// Calls `visit` with the value of every pattern that matches the topic, in no particular but a stable order. A value
    /// under several matching patterns comes once for each. A first token `*` or `>` matches no topic that begins with `$`.
    pub fn for_each_match<'t>(&'t self, topic: &[u8], visit: &mut impl FnMut(&'t T)) {
        if self.len > 0 {
            walk(&self.root, Some(topic), topic.first() == Some(&b'$'), visit);
        }
    }
}

impl<T: PartialEq> Trie<T> {
    /// Takes one such value from under the pattern, with the nodes that only it needed; false when it isn't there.
    pub(crate) fn remove(&mut self, pattern: &str, value: &T) -> bool {
        let removed = take(&mut self.root, Some(pattern.as_bytes()), value);
        self.len -= usize::from(removed);
        removed
    }
}

impl<T> Node<T> {
    fn new(key: HashKey) -> Node<T> {
        Node { children: HashMap::with_hasher(key), star: None, here: Vec::new(), tail: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.star.is_none() && self.here.is_empty() && self.tail.is_empty()
    }
}

/// The first token, and what follows its dot.
fn split(rest: &[u8]) -> (&[u8], Option<&[u8]>) {
    match rest.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&rest[..dot], Some(&rest[dot + 1..])),
        None => (rest, None),
    }
}

/// Recursion is as deep as the topic has tokens, and visits no node twice.
fn walk<'t, T>(node: &'t Node<T>, rest: Option<&[u8]>, reserved: bool, visit: &mut impl FnMut(&'t T)) {
    let Some(rest) = rest else {
        node.here.iter().for_each(visit);
        return;
    };
    let (token, next) = split(rest);
    if !node.children.is_empty()
        && let Some(child) = node.children.get(token)
    {
        walk(child, next, false, visit);
    }
    if !reserved {
        node.tail.iter().for_each(&mut *visit);
        if let Some(star) = &node.star {
            walk(star, next, false, visit);
        }
    }
}

fn take<T: PartialEq>(node: &mut Node<T>, rest: Option<&[u8]>, value: &T) -> bool {
    let Some(rest) = rest else {
        return take_value(&mut node.here, value);
    };
    let (token, next) = split(rest);
    match token {
        b">" => take_value(&mut node.tail, value),
        b"*" => {
            let Some(star) = &mut node.star else { return false };
            let removed = take(star, next, value);
            if star.is_empty() {
                node.star = None;
            }
            removed
        }
        literal => {
            let Some(child) = node.children.get_mut(literal) else { return false };
            let removed = take(child, next, value);
            if child.is_empty() {
                node.children.remove(literal);
            }
            removed
        }
    }
}

fn take_value<T: PartialEq>(values: &mut Vec<T>, value: &T) -> bool {
    let at = values.iter().position(|other| other == value);
    at.map(|at| values.remove(at)).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trie(patterns: &[&str]) -> Trie<usize> {
        let mut trie = Trie::new(HashKey(1, 2));
        for (index, pattern) in patterns.iter().enumerate() {
            trie.insert(pattern, index);
        }
        trie
    }

    fn found(trie: &Trie<usize>, topic: &str) -> Vec<usize> {
        let mut found = Vec::new();
        trie.for_each_match(topic.as_bytes(), &mut |value| found.push(*value));
        found.sort_unstable();
        found
    }

    /// The definition, read aloud.
    fn matches(pattern: &str, topic: &str) -> bool {
        if topic.starts_with('$') && (pattern.starts_with('*') || pattern.starts_with('>')) {
            return false;
        }
        let (pattern, topic): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), topic.split('.').collect());
        match pattern.iter().position(|token| *token == ">") {
            Some(at) => topic.len() > at && fits(&pattern[..at], &topic[..at]),
            None => topic.len() == pattern.len() && fits(&pattern, &topic),
        }
    }

    fn fits(pattern: &[&str], topic: &[&str]) -> bool {
        pattern.iter().zip(topic).all(|(pattern, token)| *pattern == "*" || pattern == token)
    }

    #[test]
    fn star_is_one_token_and_tail_is_one_or_more() {
        let trie = trie(&["orders.*.created", "orders.>", "orders", ">", "*"]);
        assert_eq!(found(&trie, "orders.eu.created"), [0, 1, 3]);
        assert_eq!(found(&trie, "orders.eu"), [1, 3]);
        assert_eq!(found(&trie, "orders"), [2, 3, 4]);
        assert_eq!(found(&trie, "orders.eu.west.created"), [1, 3]);
    }

    #[test]
    fn leading_wildcard_matches_no_reserved_topic() {
        let trie = trie(&[">", "*.events", "$chaski.>", "$chaski.*", "$other"]);
        assert_eq!(found(&trie, "$chaski.events"), [2, 3]);
        assert_eq!(found(&trie, "$other"), [4]);
        assert_eq!(found(&trie, "a.events"), [0, 1]);
    }

    #[test]
    fn removed_values_are_gone_and_leave_no_nodes() {
        let patterns = ["a.b.c", "a.b.c", "a.*.c", "a.>", "*"];
        let mut trie = trie(&patterns);
        assert!(!trie.remove("a.b", &0));
        assert!(!trie.remove("x.>", &0));
        assert!(trie.remove("a.b.c", &0));
        assert!(!trie.remove("a.b.c", &0));
        assert_eq!(found(&trie, "a.b.c"), [1, 2, 3]);
        for (value, pattern) in patterns.iter().enumerate().skip(1) {
            assert!(trie.remove(pattern, &value));
        }
        assert!(trie.is_empty() && trie.root.is_empty());
    }

    fn token() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "$a", "*"])
    }

    fn pattern() -> impl Strategy<Value = String> {
        (prop::collection::vec(token(), 1..4), any::<bool>()).prop_map(|(tokens, tail)| {
            let pattern = tokens.join(".");
            if tail { pattern + ".>" } else { pattern }
        })
    }

    proptest! {
        #[test]
        fn finds_what_the_definition_finds(
            patterns in prop::collection::vec(pattern(), 0..12),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b", "$a", "c"]), 1..5),
        ) {
            let topic = topic.join(".");
            let mut trie = trie(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
            let mut kept: Vec<(usize, &String)> = patterns.iter().enumerate().collect();
            for index in removed.iter().filter(|_| !patterns.is_empty()) {
                let value = index.index(patterns.len());
                let there = kept.iter().any(|(other, _)| *other == value);
                prop_assert_eq!(trie.remove(&patterns[value], &value), there);
                kept.retain(|(other, _)| *other != value);
            }
            let expected: Vec<usize> =
                kept.iter().filter(|(_, pattern)| matches(pattern, &topic)).map(|(value, _)| *value).collect();
            prop_assert_eq!(found(&trie, &topic), expected);
            prop_assert_eq!(trie.len(), kept.len());
        }
    }
}
