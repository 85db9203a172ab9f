//! How a command fails: the last line on stderr is `error: CODE: sentence`, and the exit code 1; 2 when the command line was
//! wrong. A reader of stdout that has gone away is no failure.

use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

use chaski_client::{
    AdminError, ConnectError, ConsumeError, PublishError, RequestError, SettleError, SubscribeError,
};
use chaski_protocol::{Code, Refusal};
use chaski_server::{FatalError, StartError};

/// A command line that clap took and that makes no sense all the same.
#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Wrong usage, found after parsing: exit code 2.
pub(crate) fn usage(sentence: impl Into<String>) -> anyhow::Error {
    Usage(sentence.into()).into()
}

/// A failure of this program's own, with a code of the table.
pub(crate) fn fail(code: Code, sentence: impl Into<String>) -> anyhow::Error {
    Refusal::new(code, sentence).into()
}

/// Tells stderr, and answers the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    // When stderr is gone there is nobody to tell.
    let _ = fmt::Write::write_fmt(&mut Stderr, format_args!("{}", describe(error)));
    if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// stderr, whose loss is no reason to panic.
struct Stderr;

impl fmt::Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// All lines: what is long first, the line that scripts read last.
fn describe(error: &anyhow::Error) -> String {
    let sentence = sentence(error);
    let first = sentence.lines().next().unwrap_or_default();
    let all =
        if sentence.trim_end().contains('\n') { format!("{}\n", sentence.trim_end()) } else { String::new() };
    if error.is::<Usage>() {
        return format!("{all}error: {first}\n\nFor more information, try '--help'.\n");
    }
    let code = code(error);
    // The client's sentences end with the code, which stands in front here.
    let first = first.strip_suffix(&format!(" ({code})")).unwrap_or(first);
    format!("{all}error: {code}: {first}\n")
}

/// The chain of causes, without those whose words were said already.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain() {
        let words = cause.to_string();
        if said.is_empty() {
            said = words;
        } else if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
    }
    said
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let pipe = |cause: &std::io::Error| cause.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(pipe))
}

/// The first code in the chain.
pub(crate) fn code(error: &anyhow::Error) -> Code {
    error.chain().find_map(code_of).unwrap_or(Code::Internal)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<Code> {
    macro_rules! first_of {
        ($($error:ty),*) => {
            $(if let Some(error) = cause.downcast_ref::<$error>() {
                return Some(error.code());
            })*
        };
    }
    first_of!(
        AdminError,
        ConnectError,
        ConsumeError,
        PublishError,
        RequestError,
        SettleError,
        SubscribeError
    );
    first_of!(StartError);
    if let Some(refusal) = cause.downcast_ref::<Refusal>() {
        return Some(refusal.code);
    }
    if cause.is::<FatalError>() {
        return Some(Code::Internal);
    }
    // What is left of input and output are files that the user named.
    cause.is::<std::io::Error>().then_some(Code::BadRequest)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(error: anyhow::Error, expected: Expect) {
        expected.assert_eq(&describe(&error));
    }

    #[test]
    fn the_last_line_names_code_and_sentence() {
        check(
            fail(Code::UnknownQueue, "there is no queue `x`: did you mean `y`?"),
            expect![[r#"
                error: unknown_queue: there is no queue `x`: did you mean `y`?
            "#]],
        );
        check(
            PublishError::Refused(Refusal::new(Code::QueueFull, "queue `x` is full")).into(),
            expect![[r#"
                error: queue_full: queue `x` is full
            "#]],
        );
        check(
            fail(Code::RulesInvalid, "2 errors\nrules.toml:3: this\nrules.toml:9: that\n"),
            expect![[r#"
                2 errors
                rules.toml:3: this
                rules.toml:9: that
                error: rules_invalid: 2 errors
            "#]],
        );
    }

    #[test]
    fn causes_are_said_once() {
        let error = anyhow::Result::<()>::Err(fail(Code::Busy, "too much is waiting"));
        let error = error.context("line 3").context("line 3: too much is waiting").unwrap_err();
        check(
            error,
            expect![[r#"
                error: busy: line 3: too much is waiting
            "#]],
        );
        let missing = std::io::Error::new(ErrorKind::NotFound, "no such file");
        check(
            anyhow::Error::from(missing).context("cannot read rules.toml"),
            expect![[r#"
                error: bad_request: cannot read rules.toml: no such file
            "#]],
        );
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let gone = std::io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&anyhow::Error::from(gone).context("cannot print")));
        assert!(!is_closed_pipe(&fail(Code::Busy, "busy")));
    }
}
