//! Every kind of frame by name. A kind that is added to the crate and not here doesn't compile; one without a vector fails a test.

use chaski_protocol::frames::{
    ConsumeCommand, ConsumeFrame, Notice, Open, Opening, Outcome, Passed, PublishAnswer, PublishFrame,
    Verdict,
};

/// An `enum` of the protocol, by its names.
pub(crate) trait Kind {
    /// The enum's.
    const NAME: &'static str;
    /// Its kinds', in order.
    const KINDS: &'static [&'static str];

    /// This value's, and those within it.
    fn covers(&self, covered: &mut Vec<String>);
}

macro_rules! kinds {
    ($($type:ident $(<$life:lifetime>)? { $($kind:ident)* } $(within $inner:expr)?;)*) => {
        $(impl Kind for $type$(<$life>)? {
            const NAME: &'static str = stringify!($type);
            const KINDS: &'static [&'static str] = &[$(stringify!($kind)),*];

            fn covers(&self, covered: &mut Vec<String>) {
                let kind = match self {
                    $($type::$kind { .. } => stringify!($kind),)*
                };
                covered.push(format!("{}.{kind}", stringify!($type)));
                $(let inner: fn(&Self, &mut Vec<String>) = $inner;
                inner(self, covered);)?
            }
        })*

        /// Every kind, as `ENUM.KIND`.
        pub(crate) fn all() -> Vec<String> {
            let of = |name: &str, kinds: &[&str]| {
                kinds.iter().map(|kind| format!("{name}.{kind}")).collect::<Vec<_>>()
            };
            [$(of($type::NAME, $type::KINDS)),*].concat()
        }

        /// Every `enum` with its kinds.
        pub(crate) const ENUMS: &[(&str, &[&str])] = &[$(($type::NAME, $type::KINDS)),*];
    };
}

kinds! {
    Open<'_> { Hello Publish Consume Subscribe Admin Upload };
    Opening<'_> { Welcome Opened Consuming Answer Refused };
    Notice { DedupWindow Limits ShuttingDown };
    PublishFrame<'_> { Publish Transaction };
    Outcome { Confirmed Duplicate Refused Transacted LeaseLost };
    ConsumeFrame<'_> { Delivery Settled Lost Closed };
    ConsumeCommand<'_> { Settle Extend SetCredit Close } within |command, covered| {
        if let ConsumeCommand::Settle { verdict, .. } = command {
            verdict.covers(covered);
        }
    };
    Verdict<'_> { Ack Nack Reject Fail Release Complete };
    Passed { Message };
}

impl Kind for PublishAnswer {
    const NAME: &'static str = "PublishAnswer";
    const KINDS: &'static [&'static str] = &[];

    fn covers(&self, covered: &mut Vec<String>) {
        self.runs.iter().for_each(|run| run.outcome.covers(covered));
    }
}
