//! What `#[filter]` and `#[params]` make of a function: the columns that it reads, the answer's columns, the errors of its params.

use chaski_guest::{
    prelude::*,
    runtime::{Answer, Batch, EditKind, Field, Guest, Param, ParamKind, ParamValue},
    testing,
};

/// A filter that uses one parameter of each kind and gives each verdict.
mod every {
    use super::*;

    #[params]
    #[derive(Debug)]
    pub(super) struct Params {
        pub(super) name: String,
        #[default(3)]
        pub(super) most: u32,
        pub(super) note: Option<String>,
    }

    impl Params {
        pub(super) fn fields(&self) -> Vec<String> {
            vec![self.name.clone()]
        }
    }

    #[filter(reads = Params::fields)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn judge(
        topic: &str,
        key: Option<&str>,
        #[header("fixed")] fixed: Option<&str>,
        payload: &[u8],
        priority: u8,
        timestamp: u64,
        headers: &Headers<'_>,
        now: u64,
        params: &Params,
    ) -> Verdict {
        log!("{topic} {key:?} {fixed:?} {priority} {} {:?}", now - timestamp, headers.get(&params.name));
        if let Some(note) = &params.note {
            log!(debug, "{note} {}", params.most);
        }
        match payload {
            b"drop" => Verdict::Drop,
            b"reject" => Verdict::reject("no"),
            b"transform" => Verdict::transform(Message::new().key("k").header("a", "b")),
            b"route" => Verdict::route(["x.y", "z"]),
            b"split" => Verdict::split([Message::new().payload("1"), Message::new()]),
            b"nothing" => Verdict::split([]),
            b"unchanged" => Verdict::transform(Message::new()),
            b"undeclared" => Verdict::pass_if(headers.get("other").is_some()),
            _ => Verdict::Pass,
        }
    }
}

/// A filter that takes all headers and keeps state.
mod counting {
    use super::*;

    #[filter]
    pub(super) fn judge(id: &str, headers: &Headers<'_>, state: &State) -> Verdict {
        let seen = state.get(id).is_some();
        state.put_for(id, "", std::time::Duration::from_secs(1));
        Verdict::pass_if(!seen && headers.iter().count() == 2 && headers.get("b") == Some("2"))
    }
}

/// A batch of so many messages with these values, column by column.
fn batch(count: u32, all: &[Option<&[u8]>]) -> Batch {
    let mut values = Vec::new();
    let mut columns = Vec::new();
    for value in all.iter().chain([&None]) {
        let offset = (4 * (all.len() + 1) + values.len()) as u32 | u32::from(value.is_none()) << 31;
        columns.extend_from_slice(&offset.to_le_bytes());
        values.extend_from_slice(value.unwrap_or_default());
    }
    columns.append(&mut values);
    Batch { count, now: 1_005, columns }
}

fn text(name: &str, value: &str) -> Param {
    Param { name: name.into(), value: ParamValue::Text(value.into()) }
}

fn judge_all(payloads: &[&str]) -> Answer {
    every::__ChaskiModule::configure(vec![text("name", "n")]).expect("the params are right");
    let same = |value: Option<&'static [u8]>| vec![value; payloads.len()];
    let all = [
        same(Some(b"a.b")),
        same(None),
        same(Some(b"")),
        payloads.iter().map(|payload| Some(payload.as_bytes())).collect(),
        same(Some(&[7])),
        same(Some(&const { 1_000u64.to_le_bytes() })),
        same(Some(b"v")),
    ];
    every::__ChaskiModule::filter(batch(payloads.len() as u32, &all.concat()))
}

#[test]
fn describe_tells_package_and_params() {
    let description = every::__ChaskiModule::describe();
    assert_eq!((&*description.name, description.keeps_state), ("chaski-guest", false));
    let params: Vec<_> = description.params.iter().map(|p| (&*p.name, p.kind, p.required)).collect();
    let expected = [
        ("name", ParamKind::Text, true),
        ("most", ParamKind::Integer, false),
        ("note", ParamKind::Text, false),
    ];
    assert_eq!(params, expected);
    assert!(counting::__ChaskiModule::describe().keeps_state);
}

#[test]
fn configure_answers_the_signatures_fields_and_then_the_declared_headers() {
    let fields = every::__ChaskiModule::configure(vec![text("name", "n")]).expect("the params are right");
    let names: Vec<_> = fields
        .iter()
        .map(|field| match field {
            Field::Header(name) => format!("header:{name}"),
            other => format!("{other:?}"),
        })
        .collect();
    let expected =
        "Field::Topic Field::Key header:fixed Field::Payload Field::Priority Field::Timestamp header:n";
    assert_eq!(names.join(" "), expected);
}

#[test]
fn params_that_are_missing_or_wrong_are_refused_with_a_sentence() {
    let missing = every::__ChaskiModule::configure(vec![]).expect_err("it is required");
    assert_eq!(missing, "the param \"name\" is missing");
    let negative = Param { name: "most".into(), value: ParamValue::Integer(-1) };
    let refused =
        every::__ChaskiModule::configure(vec![text("name", "n"), negative]).expect_err("out of range");
    assert_eq!(refused, "the param \"most\" must be a whole number from 0 to 4294967295");
}

#[test]
fn every_parameter_arrives() {
    judge_all(&["pass"]);
    let lines = testing::take_log();
    assert_eq!(lines, [(Level::Info, "a.b None Some(\"\") 7 5 Some(\"v\")".to_owned())]);
}

#[test]
fn verdicts_become_columns() {
    let answer =
        judge_all(&["pass", "drop", "reject", "transform", "route", "split", "nothing", "unchanged", "pass"]);
    assert_eq!(answer.verdicts, [0, 1, 2, 2, 2, 2, 1, 0, 0]);
    let kinds = [
        EditKind::Reject,
        EditKind::SetKey,
        EditKind::SetHeader,
        EditKind::Route,
        EditKind::Route,
        EditKind::Child,
        EditKind::SetPayload,
        EditKind::Child,
    ];
    let edits = answer.edits.expect("there are some");
    assert_eq!(edits.kinds, kinds.map(|kind| kind as u8));
    assert_eq!(edits.indexes, [2, 3, 3, 4, 4, 5, 5, 5]);
    assert_eq!(edits.bytes, b"nok\x01\0\0\0abx.yz1");
    assert_eq!(edits.ends, [2, 3, 9, 12, 13, 13, 14, 14]);
    assert!(judge_all(&["drop", "pass"]).edits.is_none());
}

#[test]
#[should_panic(expected = "the header \"other\" is read, but not among the fields")]
fn reading_an_undeclared_header_panics_with_its_name() {
    judge_all(&["undeclared"]);
}

#[test]
#[should_panic(expected = "the header \"other\" is read, but not among the fields")]
fn reading_an_undeclared_header_panics_in_a_plain_call_too() {
    let params = every::Params { name: "n".into(), most: 3, note: None };
    let headers = Headers::from([("n", "v"), ("other", "v")]);
    every::judge("t", None, None, b"undeclared", 4, 0, &headers, 0, &params);
}

#[test]
fn all_headers_arrive_when_no_names_are_declared() {
    counting::__ChaskiModule::configure(vec![]).expect("there are no params");
    let mut headers = Vec::new();
    for part in ["a", "1", "b", "2"] {
        headers.extend_from_slice(&(part.len() as u32).to_le_bytes());
        headers.extend_from_slice(part.as_bytes());
    }
    let batch = batch(1, &[Some(b"i"), Some(&headers)]);
    assert_eq!(counting::__ChaskiModule::filter(batch).verdicts, [0]);
}

#[test]
fn fake_state_forgets_after_the_ttl() {
    let state = State::fake();
    let headers = Headers::from([("a", "1"), ("b", "2")]);
    assert_eq!(counting::judge("i", &headers, &state), Verdict::Pass);
    assert_eq!(counting::judge("i", &headers, &state), Verdict::Drop);
    state.set_now(999);
    assert!(state.get("i").is_some());
    state.set_now(1_000);
    assert_eq!(counting::judge("i", &headers, &state), Verdict::Pass);
    state.delete("i");
    assert!(state.get("i").is_none());
    assert!(state.try_put("", "", None).is_err());
}
