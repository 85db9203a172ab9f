//! The rules of names in DESIGN section 1, one test for each, with the limits from both sides.

use chaski_protocol::{
    Code, DEFAULT_MAX_HEADERS, Head, MAX_DURATION_MS, MAX_ID, MAX_KEY, MAX_PRIORITY, MAX_TOKEN, MAX_TOPIC,
    Pattern, check_message_id, check_pattern, check_publish_topic, check_token, check_topic, pattern_matches,
};

/// White space and control characters of all kinds: ASCII, Latin-1, and far up.
const BAD_CHARACTERS: &[char] = &[
    ' ', '\t', '\n', '\r', '\0', '\u{7}', '\u{1f}', '\u{7f}', '\u{80}', '\u{85}', '\u{9f}', '\u{a0}',
    '\u{1680}', '\u{2003}', '\u{2028}', '\u{3000}',
];

fn topic(topic: &str) -> Result<(), Code> {
    check_topic(topic).map_err(|error| error.code)
}

fn publish(topic: &str) -> Result<(), Code> {
    check_publish_topic(topic).map_err(|error| error.code)
}

fn pattern(pattern: &str) -> Result<(), Code> {
    let checked = check_pattern(pattern).map_err(|error| error.code);
    assert_eq!(Pattern::new(pattern).map(|_| ()).map_err(|error| error.code), checked);
    checked
}

fn message() -> Head<'static> {
    Head { topic: "a.b", id: "m1", priority: 4, ..Head::default() }
}

fn head(head: Head<'_>) -> Result<(), Code> {
    head.check(DEFAULT_MAX_HEADERS).map_err(|error| {
        assert!(!error.to_string().is_empty());
        error.code()
    })
}

fn headers(headers: &[(&str, &str)]) -> Result<(), Code> {
    head(Head { headers: headers.to_vec(), ..message() })
}

#[test]
fn a_topic_has_1_to_255_bytes() {
    assert_eq!(MAX_TOPIC, 255);
    for (text, length) in [("a".repeat(255), 255), (format!("{}a", "ß".repeat(127)), 255)] {
        assert_eq!(text.len(), length);
        assert_eq!((topic(&text), publish(&text), pattern(&text)), (Ok(()), Ok(()), Ok(())));
    }
    for text in ["".to_owned(), "a".repeat(256), "ß".repeat(128)] {
        assert_eq!((topic(&text), publish(&text)), (Err(Code::BadTopic), Err(Code::BadTopic)));
        assert_eq!(pattern(&text), Err(Code::BadPattern));
    }
    assert_eq!(pattern(&format!("{}.>", "a".repeat(253))), Ok(()));
    assert_eq!(pattern(&format!("{}.>", "a".repeat(254))), Err(Code::BadPattern));
}

#[test]
fn tokens_are_never_empty() {
    for text in [".", "..", ".a", "a.", "a..b", "ß..b", "a.ß."] {
        assert_eq!(topic(text), Err(Code::BadTopic), "{text}");
        assert_eq!(pattern(text), Err(Code::BadPattern), "{text}");
    }
    for text in ["*..a", "a..>", ".>", ">.", "*."] {
        assert_eq!(pattern(text), Err(Code::BadPattern), "{text}");
    }
}

#[test]
fn tokens_have_no_white_space_and_no_control_characters() {
    for bad in BAD_CHARACTERS {
        for text in [
            format!("{bad}"),
            format!("a{bad}"),
            format!("{bad}a.b"),
            format!("a.b{bad}c"),
            format!("ß.{bad}"),
        ] {
            assert_eq!(topic(&text), Err(Code::BadTopic), "{text:?}");
            assert_eq!(publish(&text), Err(Code::BadTopic), "{text:?}");
            assert_eq!(pattern(&text), Err(Code::BadPattern), "{text:?}");
        }
    }
    for bad in BAD_CHARACTERS {
        assert_eq!(pattern(&format!("a.{bad}.>")), Err(Code::BadPattern), "{bad:?}");
    }
}

#[test]
fn a_token_is_any_other_utf_8() {
    for text in [
        "orders.eu.created",
        "größe.ß",
        "日本.東京",
        "a!\"#%&'()+,-/:;<=?@[\\]^_`{|}~",
        "a$b",
        "a.$b",
        "🚀",
        "A.a",
    ] {
        assert_eq!((topic(text), publish(text), pattern(text)), (Ok(()), Ok(()), Ok(())), "{text}");
    }
}

#[test]
fn a_topic_has_no_wildcards() {
    for text in ["*", ">", "a.*", "a.>", "*.a", "a*", "*a", "a>b", "a.b*c.d", "$inbox.*", "$inbox.1.>"] {
        assert_eq!(topic(text), Err(Code::BadTopic), "{text}");
        assert_eq!(publish(text), Err(Code::BadTopic), "{text}");
    }
}

#[test]
fn a_star_is_a_whole_token() {
    for text in ["*", "*.*", "a.*", "*.a", "a.*.b", "*.>", "ß.*"] {
        assert_eq!(pattern(text), Ok(()), "{text}");
    }
    for text in ["a*", "*a", "**", "a.*b", "a.b*.c", "*>", "ß*"] {
        assert_eq!(pattern(text), Err(Code::BadPattern), "{text}");
    }
}

#[test]
fn a_greater_than_sign_is_the_last_token_alone() {
    for text in [">", "a.>", "a.b.>", "*.>", "$chaski.>"] {
        assert_eq!(pattern(text), Ok(()), "{text}");
    }
    for text in [">.a", "a.>.b", "a>", ">a", "a.b>", "a.>>", ">.>", "$chaski.>.a"] {
        assert_eq!(pattern(text), Err(Code::BadPattern), "{text}");
    }
}

#[test]
fn wildcards_stand_for_what_they_should() {
    for (pattern, topic, matches) in [
        ("a", "a", true),
        ("a", "A", false),
        ("a", "a.b", false),
        ("a.b", "a", false),
        ("a.*", "a.b", true),
        ("a.*", "a", false),
        ("a.*", "a.b.c", false),
        ("*.b", "a.b", true),
        ("*", "a.b", false),
        ("a.>", "a.b", true),
        ("a.>", "a.b.c.d", true),
        ("a.>", "a", false),
        ("a.>", "ab.c", false),
        (">", "a", true),
        ("*.>", "a", false),
        ("*.>", "a.b", true),
    ] {
        assert_eq!(pattern_matches(pattern, topic), matches, "{pattern} {topic}");
        assert_eq!(Pattern::new(pattern).expect("it is valid").matches(topic), matches);
    }
}

#[test]
fn a_wildcard_as_first_token_matches_no_topic_that_begins_with_a_dollar_sign() {
    for topic in ["$inbox.1.2", "$chaski.events.dead_letter", "$x"] {
        for pattern in ["*", ">", "*.>", "*.*", "*.*.*", "*.1.2", "*.events.>"] {
            assert!(!pattern_matches(pattern, topic), "{pattern} {topic}");
        }
    }
    assert!(pattern_matches("$chaski.>", "$chaski.events.dead_letter"));
    assert!(pattern_matches("$chaski.*.dead_letter", "$chaski.events.dead_letter"));
    assert!(!pattern_matches("$chaski.>", "$chaski"));
    // Elsewhere the sign means nothing.
    assert!(pattern_matches("a.*", "a.$b") && pattern_matches(">", "a.$b"));
}

#[test]
fn clients_publish_below_inbox_alone() {
    for text in ["$inbox.1", "$inbox.0f.1.2"] {
        assert_eq!((publish(text), topic(text)), (Ok(()), Ok(())), "{text}");
    }
    for text in ["$", "$a", "$inbox", "$inboxes.1", "$Inbox.1", "$chaski.events.x", "$chaski.saga.a.b"] {
        assert_eq!(publish(text), Err(Code::Reserved), "{text}");
        assert_eq!(head(Head { topic: text, ..message() }), Err(Code::Reserved), "{text}");
        assert_eq!(topic(text), Ok(()), "the router itself may: {text}");
    }
    assert_eq!(publish("$inbox."), Err(Code::BadTopic));
}

#[test]
fn clients_bind_below_chaski_alone() {
    for text in ["$chaski.>", "$chaski.events.>", "$chaski.events.dead_letter", "$chaski.*.x"] {
        assert_eq!(pattern(text), Ok(()), "{text}");
    }
    for text in ["$", "$chaski", "$inbox.1.>", "$inbox.>", "$chaskis.>", "$x.>"] {
        assert_eq!(pattern(text), Err(Code::Reserved), "{text}");
    }
    assert_eq!(pattern("$>"), Err(Code::BadPattern));
    assert_eq!(pattern("$*.a"), Err(Code::BadPattern));
}

#[test]
fn replies_go_to_topics_and_inboxes() {
    let reply_to = |reply_to| head(Head { reply_to: Some(reply_to), ..message() });
    assert_eq!((reply_to("answers"), reply_to("$inbox.1.2")), (Ok(()), Ok(())));
    assert_eq!((reply_to("$chaski.x"), reply_to("$inbox")), (Err(Code::Reserved), Err(Code::Reserved)));
    for text in ["", "a.*", "a b", "a..b"] {
        assert_eq!(reply_to(text), Err(Code::BadTopic), "{text}");
    }
    assert_eq!((reply_to(&"a".repeat(255)), reply_to(&"a".repeat(256))), (Ok(()), Err(Code::BadTopic)));
}

#[test]
fn an_id_has_1_to_128_bytes_without_control_characters() {
    assert_eq!(MAX_ID, 128);
    for id in
        ["a".to_owned(), "a".repeat(128), "ß".repeat(64), "with space.and*>".to_owned(), "日本".to_owned()]
    {
        assert!(check_message_id(&id).is_ok(), "{id}");
        assert_eq!(head(Head { id: &id, correlation_id: Some(&id), ..message() }), Ok(()));
    }
    let controls = BAD_CHARACTERS.iter().filter(|c| c.is_control()).map(|c| format!("a{c}"));
    let mut bad: Vec<String> = controls.collect();
    assert!(bad.len() >= 10);
    bad.extend(["".to_owned(), "a".repeat(129), "ß".repeat(65)]);
    for id in bad {
        assert!(check_message_id(&id).is_err(), "{id:?}");
        assert_eq!(head(Head { id: &id, ..message() }), Err(Code::BadMessage));
        assert_eq!(head(Head { correlation_id: Some(&id), ..message() }), Err(Code::BadMessage));
    }
}

#[test]
fn a_key_has_1_to_255_bytes() {
    assert_eq!(MAX_KEY, 255);
    let key = |key: &str| head(Head { key: Some(key), ..message() });
    assert_eq!((key("k"), key(&"k".repeat(255)), key("any thing.*")), (Ok(()), Ok(()), Ok(())));
    assert_eq!((key(""), key(&"k".repeat(256))), (Err(Code::BadMessage), Err(Code::BadMessage)));
}

#[test]
fn headers_that_begin_with_chaski_are_reserved() {
    for name in ["chaski-", "chaski-dead-reason", "Chaski-x", "CHASKI-STATUS"] {
        assert_eq!(headers(&[(name, "x")]), Err(Code::Reserved), "{name}");
    }
    for name in ["chaski", "chask-i", "chaskix", "x-chaski-", "c"] {
        assert_eq!(headers(&[(name, "x")]), Ok(()), "{name}");
    }
}

#[test]
fn a_header_name_is_visible_ascii() {
    for name in ["a", "content-type", "X_1", "!", "~", "a:b"] {
        assert_eq!(headers(&[(name, "")]), Ok(()), "{name}");
    }
    for name in ["", " ", "a b", "a\n", "a\u{7f}", "größe", "日"] {
        assert_eq!(headers(&[(name, "")]), Err(Code::BadHeader), "{name:?}");
    }
    assert_eq!(headers(&[("a", "größe\n\u{0}日 ")]), Ok(()), "a value is any UTF-8");
}

#[test]
fn a_header_name_is_unique_and_case_sensitive() {
    assert_eq!(headers(&[("a", "1"), ("A", "1"), ("b", "1")]), Ok(()));
    assert_eq!(headers(&[("a", "1"), ("b", "1"), ("a", "1")]), Err(Code::BadHeader));
    // Few are compared pairwise, many by a set.
    for count in [32, 33, 100] {
        let names: Vec<String> = (0..count).map(|number| format!("h{number}")).collect();
        let mut many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(headers(&many), Ok(()), "{count}");
        many[count - 1].0 = "h0";
        assert_eq!(headers(&many), Err(Code::BadHeader), "{count}");
        many[count - 1].0 = "chaski-x";
        assert_eq!(headers(&many), Err(Code::Reserved), "{count}");
    }
}

#[test]
fn headers_have_64_kib_with_2_bytes_for_each() {
    let value = "v".repeat(DEFAULT_MAX_HEADERS as usize - 2 * 2 - 2);
    assert_eq!(headers(&[("a", &value), ("b", "")]), Ok(()));
    assert_eq!(headers(&[("a", &value), ("b", "1")]), Err(Code::HeadersTooLarge));
    let one = Head { headers: vec![("a", "1")], ..message() };
    assert!(one.check(4).is_ok());
    assert_eq!(one.check(3).expect_err("one byte less").code(), Code::HeadersTooLarge);
}

#[test]
fn a_priority_is_0_to_9() {
    assert_eq!(MAX_PRIORITY, 9);
    for (priority, expected) in
        [(0, Ok(())), (9, Ok(())), (10, Err(Code::BadMessage)), (255, Err(Code::BadMessage))]
    {
        assert_eq!(head(Head { priority, ..message() }), expected, "{priority}");
    }
}

#[test]
fn times_have_bounds() {
    let ttl = |ttl_ms| head(Head { ttl_ms: Some(ttl_ms), ..message() });
    assert_eq!((ttl(1), ttl(MAX_DURATION_MS)), (Ok(()), Ok(())));
    assert_eq!((ttl(0), ttl(MAX_DURATION_MS + 1)), (Err(Code::BadMessage), Err(Code::BadMessage)));
    let at = |at| head(Head { deliver_at_ms: Some(at), ..message() });
    let last = (1 << 62) - 1;
    assert_eq!((at(0), at(last), at(last + 1)), (Ok(()), Ok(()), Err(Code::BadMessage)));
    assert_eq!(head(Head { timestamp_ms: u64::MAX, ..message() }), Ok(()));
}

#[test]
fn a_token_has_1_to_4096_bytes_of_visible_ascii() {
    assert_eq!(MAX_TOKEN, 4096);
    for token in ["t".to_owned(), "t".repeat(4096), (b'!'..=b'~').map(char::from).collect()] {
        assert_eq!(check_token(&token), Ok(()), "{token}");
    }
    for token in ["".to_owned(), "t".repeat(4097), "swörd".to_owned()] {
        assert!(check_token(&token).is_err(), "{token}");
    }
    for bad in BAD_CHARACTERS {
        let error = check_token(&format!("sword{bad}fish")).expect_err("it is not visible");
        assert!(!error.to_string().contains("sword"), "{error}");
    }
}
