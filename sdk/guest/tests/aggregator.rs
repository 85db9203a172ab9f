//! What `#[aggregator]` makes of an `impl`: a state that crosses as bytes, and the records of the contract.

use chaski_guest::{
    prelude::*,
    runtime::{Param, ParamValue, gather},
    testing::Gather,
};

/// Joins replies with a separator, and is done after some.
mod joining {
    use super::*;

    #[params]
    pub(super) struct Joining {
        pub(super) separator: String,
        #[default(2)]
        pub(super) most: u32,
    }

    #[aggregator]
    impl Aggregator for Joining {
        type State = String;

        fn check(&self) -> Result<(), String> {
            if self.most == 0 { Err("`most` must be at least 1".into()) } else { Ok(()) }
        }

        fn begin(&self, request: &Request, recipients: &[String]) -> String {
            format!("{}({})", request.header("h").unwrap_or_default(), recipients.join(","))
        }

        fn reply(&self, state: &mut String, reply: Reply) -> Flow {
            *state += &self.separator;
            *state += &reply.recipient;
            *state += std::str::from_utf8(&reply.payload).expect("text");
            Flow::done_if(state.matches(&*self.separator).count() as u32 >= self.most)
        }

        fn failed(&self, state: &mut String, failed: Failed) -> Flow {
            *state += &failed.reason;
            Flow::Continue
        }

        fn silent(&self, state: &mut String, recipient: &str) {
            *state += recipient;
        }

        fn finish(&self, state: String, end: End) -> Result<Response, String> {
            if end == End::Timeout {
                return Err(format!("late: {state}"));
            }
            Ok(Response::new(state).header("end", format!("{end:?}")))
        }
    }
}

/// Counts, and takes no params.
mod counting {
    use super::*;

    #[params]
    pub(super) struct Counting;

    #[aggregator]
    impl Aggregator for Counting {
        type State = u64;

        fn begin(&self, _: &Request, _: &[String]) -> u64 {
            0
        }

        fn reply(&self, count: &mut u64, _: Reply) -> Flow {
            *count += 1;
            Flow::Continue
        }

        fn finish(&self, count: u64, _: End) -> Result<Response, String> {
            Ok(Response::new(count.to_string()))
        }
    }
}

fn text(name: &str, value: &str) -> Param {
    Param { name: name.into(), value: ParamValue::Text(value.into()) }
}

#[test]
fn describe_tells_package_and_params() {
    use gather::Guest as _;
    let description = joining::__ChaskiModule::describe();
    assert_eq!(
        (&*description.name, description.keeps_state, description.advances),
        ("chaski-guest", false, false)
    );
    let params: Vec<_> = description.params.iter().map(|param| (&*param.name, param.required)).collect();
    assert_eq!(params, [("separator", true), ("most", false)]);
    assert!(counting::__ChaskiModule::describe().params.is_empty());
}

#[test]
fn params_that_are_missing_or_checked_wrong_are_refused() {
    use gather::Guest as _;
    let configure = joining::__ChaskiModule::configure;
    assert_eq!(configure(vec![]), Err("the param \"separator\" is missing".into()));
    let none = Param { name: "most".into(), value: ParamValue::Integer(0) };
    assert_eq!(configure(vec![text("separator", "+"), none]), Err("`most` must be at least 1".into()));
}

#[test]
fn the_records_of_the_contract_become_the_traits_calls() {
    use chaski_guest::bindings::aggregator::chaski::module::gathering;
    use gather::Guest as _;
    type Module = joining::__ChaskiModule;
    Module::configure(vec![text("separator", "+")]).expect("the params are right");
    let header =
        chaski_guest::bindings::filter::chaski::module::types::Header { name: "h".into(), value: "v".into() };
    let request = gather::Message {
        topic: "t".into(),
        id: "i".into(),
        key: None,
        headers: vec![header],
        payload: vec![],
        priority: 4,
        timestamp: 0,
    };
    let state = Module::begin(request, vec!["a".into(), "b".into()]);
    assert_eq!(state, b"v(a,b)");
    let reply = |recipient: &str| {
        let (recipient, payload) = (recipient.into(), b"!".to_vec());
        gather::Event::Reply(gathering::Reply { recipient, at: 0, headers: vec![], payload })
    };
    let folded = Module::fold(state, reply("a"));
    assert_eq!((&*folded.state, folded.done), (&b"v(a,b)+a!"[..], false));
    let failed = gathering::Failure { recipient: "b".into(), at: 0, reason: "?".into() };
    let folded = Module::fold(folded.state, gather::Event::Failed(failed));
    let folded = Module::fold(folded.state, gather::Event::Silent("c".into()));
    let folded = Module::fold(folded.state, reply("d"));
    assert_eq!((&*folded.state, folded.done), (&b"v(a,b)+a!?c+d!"[..], true));
    let response = Module::finish(folded.state.clone(), gather::End::Done).expect("an answer");
    assert_eq!(response.payload, folded.state);
    assert_eq!((&*response.headers[0].name, &*response.headers[0].value), ("end", "Done"));
    let failed = Module::finish(b"x".to_vec(), gather::End::Timeout).expect_err("it fails");
    assert_eq!(failed, "late: x");
}

#[test]
fn a_test_runs_a_gather_as_the_router_does() {
    let module = joining::Joining { separator: "/".into(), most: 2 };
    let mut gather = Gather::begin(&module, &Request::default(), &["a", "b"]);
    assert_eq!(gather.reply("a", "1"), Flow::Continue);
    gather.silent("s");
    assert_eq!(gather.failed("b", "no"), Flow::Continue);
    assert_eq!(gather.state(), b"(a,b)/a1sno");
    assert_eq!(gather.reply("b", "2"), Flow::Done);
    assert_eq!(gather.finish(End::Quorum), Ok(Response::new("(a,b)/a1sno/b2").header("end", "Quorum")));
    let mut gather = Gather::begin(&counting::Counting, &Request::default(), &[]);
    gather.reply("a", "");
    gather.failed("b", "");
    gather.reply("c", "");
    assert_eq!(gather.finish(End::Settled), Ok(Response::new("2")));
}

#[test]
#[should_panic(expected = "is told of nothing more")]
fn an_aggregator_that_is_done_is_told_of_nothing_more() {
    let module = joining::Joining { separator: "/".into(), most: 1 };
    let mut gather = Gather::begin(&module, &Request::default(), &["a", "b"]);
    gather.reply("a", "1");
    gather.reply("b", "2");
}
