//! `chaski saga`: where sagas stand, what happened to each, and the ways on for one that is parked.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chaski_client::Client;
use chaski_protocol::MAX_PAGE;
use chaski_protocol::admin::{AdminRequest, SagaSteered, SagaStep, SagaSummary, SagaView, TimelineEntry};
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;

use crate::context::{Context, ask};
use crate::table::{Facts, Table};
use crate::{human, out};

/// The longest detail that a table shows, in characters.
const SHOWN: usize = 100;

/// Where a saga can stand.
const STATES: [&str; 6] = ["running", "compensating", "parked", "completed", "compensated", "aborted"];

/// Looks at sagas, and decides about those that are parked
///
/// A saga is named NAME/ID: its definition in the rules, and the id of the message that began it. The id alone does where one
/// definition has it.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  chaski saga list --state parked\n  chaski saga show order/o-17\n  chaski saga retry order/o-17"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Those that have not ended, and those that are remembered
    #[command(after_help = "Example:\n  chaski saga list --state parked --json")]
    List {
        /// Only those in this state
        #[arg(long, value_name = "S", value_parser = PossibleValuesParser::new(STATES))]
        state: Option<String>,
    },
    /// One saga: its steps, and everything that happened to it
    #[command(after_help = "Example:\n  chaski saga show order/o-17")]
    Show {
        /// The saga, as NAME/ID
        #[arg(value_name = "ID")]
        saga: String,
    },
    /// Lets a parked saga go on: what failed is tried once more
    #[command(after_help = "Example:\n  chaski saga retry order/o-17")]
    Retry {
        /// The saga, as NAME/ID
        #[arg(value_name = "ID")]
        saga: String,
    },
    /// Counts a step of a parked saga as completed; while it compensates, as undone
    #[command(
        after_help = "Example:\n  chaski saga skip order/o-17 ship --payload '{\"booked\": \"by phone\"}'"
    )]
    Skip {
        /// The saga, as NAME/ID
        #[arg(value_name = "ID")]
        saga: String,
        /// The step
        step: String,
        /// Its result, which later steps get
        #[arg(long, value_name = "P")]
        payload: Option<String>,
    },
    /// Compensates a saga now
    #[command(after_help = "Example:\n  chaski saga abort order/o-17")]
    Abort {
        /// The saga, as NAME/ID
        #[arg(value_name = "ID")]
        saga: String,
        /// Ends it as it stands: what was done stays done
        #[arg(long)]
        no_compensation: bool,
    },
}

/// Does one verb.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    match args.verb.clone() {
        Verb::List { state } => context.calling(async |client| list(client, state, context.json).await).await,
        Verb::Show { saga } => {
            let view: SagaView = context.admin(AdminRequest::SagaShow { saga }).await?;
            if context.json { out::json(&view) } else { out::text(show(&view, Timestamp::now())) }
        }
        Verb::Retry { saga } => steer(context, AdminRequest::SagaRetry { saga }).await,
        Verb::Skip { saga, step, payload } => {
            let payload = payload.map(|payload| BASE64.encode(payload));
            steer(context, AdminRequest::SagaSkip { saga, step, payload }).await
        }
        Verb::Abort { saga, no_compensation } => {
            steer(context, AdminRequest::SagaAbort { saga, compensate: !no_compensation }).await
        }
    }
}

async fn steer(context: &Context, request: AdminRequest) -> anyhow::Result<()> {
    let steered: SagaSteered = context.admin(request).await?;
    if context.json {
        return out::json(&steered);
    }
    out::note(format!("{}/{} is {}", steered.name, steered.id, steered.state));
    Ok(())
}

async fn list(client: &Client, state: Option<String>, json: bool) -> anyhow::Result<()> {
    let (mut after, mut sagas) = (0, Vec::new());
    loop {
        let request = AdminRequest::SagaList { state: state.clone(), after, limit: MAX_PAGE };
        let page: Vec<SagaSummary> = ask(client, request).await?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        if json {
            page.iter().try_for_each(out::json)?;
        } else {
            sagas.extend(page);
        }
    }
    if json {
        return Ok(());
    }
    if sagas.is_empty() {
        let state = state.map(|state| format!(" {state}")).unwrap_or_default();
        out::note(format!("there is no{state} saga"));
        return Ok(());
    }
    out::text(table(&sagas, Timestamp::now()))
}

fn table(sagas: &[SagaSummary], now: Timestamp) -> String {
    let mut table = Table::new(&["SAGA", "STATE", "BEGAN", ">UNCHANGED FOR", "DETAIL"]);
    for saga in sagas {
        table.row([
            human::one_line(&format!("{}/{}", saga.name, saga.id), SHOWN),
            saga.state.clone(),
            saga.began_at.clone(),
            human::age(&saga.changed_at, now),
            human::one_line(&saga.detail, SHOWN),
        ]);
    }
    table.to_string()
}

fn show(saga: &SagaView, now: Timestamp) -> String {
    let mut facts = Facts::new();
    facts.add("saga", human::one_line(&format!("{}/{}", saga.name, saga.id), SHOWN));
    facts.add("state", &saga.state);
    if !saga.detail.is_empty() {
        facts.add("detail", human::one_line(&saga.detail, SHOWN));
    }
    if let Some(failed) = &saga.failed {
        let step = failed.step.as_ref().map(|step| format!("{step}: ")).unwrap_or_default();
        facts.add("failed", human::one_line(&format!("{step}{}", failed.reason), SHOWN));
    }
    facts.add("began", format!("{}, {} ago", saga.began_at, human::age(&saga.began_at, now)));
    facts.add("changed", format!("{}, {} ago", saga.changed_at, human::age(&saga.changed_at, now)));
    facts.add("deadline", &saga.deadline);
    if !saga.pending.is_empty() {
        facts.add("answers that wait", saga.pending.join(", "));
    }
    let mut steps = Table::new(&["STEP", "OUTCOME", ">ATTEMPTS", ">UNDO", "ANSWER"]);
    for step in &saga.steps {
        steps.row([
            step.name.clone(),
            if step.undone { format!("{}, undone", step.outcome) } else { step.outcome.clone() },
            step.attempts.to_string(),
            step.undo_attempts.to_string(),
            answer(step),
        ]);
    }
    let mut text = format!("{facts}\n{steps}");
    if !saga.timeline.is_empty() {
        let mut lines = Table::new(&["TIME", "STEP", "ATTEMPT", "WHAT", "DETAIL"]);
        for entry in &saga.timeline {
            lines.row([
                entry.at.clone(),
                entry.step.clone().unwrap_or_else(|| "-".to_owned()),
                attempt(entry),
                entry.what.clone(),
                human::one_line(&entry.detail, SHOWN),
            ]);
        }
        let _ = write!(text, "\n{lines}");
    }
    text
}

/// What a step said: its result, or why it failed.
fn answer(step: &SagaStep) -> String {
    let result = match (&step.result, step.result_encoding.as_deref()) {
        (Some(result), Some("base64")) => Some(format!("{result} (base64)")),
        (result, _) => result.clone(),
    };
    human::one_line(&result.or_else(|| step.reason.clone()).unwrap_or_default(), SHOWN)
}

fn attempt(entry: &TimelineEntry) -> String {
    let undo = if entry.phase == "undo" { "undo " } else { "" };
    match entry.attempt {
        Some(attempt) => format!("{undo}{attempt}"),
        None => undo.trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use chaski_protocol::admin::SagaFailure;
    use expect_test::expect;

    use super::*;

    fn step(name: &str, outcome: &str, result: Option<&str>, reason: Option<&str>) -> SagaStep {
        SagaStep {
            name: name.to_owned(),
            outcome: outcome.to_owned(),
            attempts: 1,
            result: result.map(str::to_owned),
            result_encoding: result.map(|_| "utf8".to_owned()),
            reason: reason.map(str::to_owned),
            undo_attempts: 0,
            undone: false,
        }
    }

    fn entry(second: u32, step: &str, phase: &str, what: &str) -> TimelineEntry {
        TimelineEntry {
            at: format!("2026-01-01T00:00:0{second}.000Z"),
            step: Some(step.to_owned()).filter(|step| !step.is_empty()),
            phase: phase.to_owned(),
            attempt: (!step.is_empty()).then_some(1),
            what: what.to_owned(),
            detail: if what == "failed" { "no\ncarrier".to_owned() } else { String::new() },
        }
    }

    #[test]
    fn a_saga_is_shown_with_its_timeline() {
        let reserve = SagaStep {
            undone: true,
            undo_attempts: 2,
            ..step("reserve", "completed", Some("{\"shelf\":7}"), None)
        };
        let saga = SagaView {
            id: "o-17".to_owned(),
            name: "order".to_owned(),
            state: "compensated".to_owned(),
            began_at: "2026-01-01T00:00:00.000Z".to_owned(),
            changed_at: "2026-01-01T00:00:04.000Z".to_owned(),
            deadline: "2026-01-01T00:05:00.000Z".to_owned(),
            detail: "step `ship` failed".to_owned(),
            steps: vec![reserve, step("ship", "failed", None, Some("no carrier"))],
            pending: vec!["ship".to_owned()],
            failed: Some(SagaFailure { step: Some("ship".to_owned()), reason: "no carrier".to_owned() }),
            timeline: vec![
                entry(0, "reserve", "forward", "sent"),
                entry(1, "ship", "forward", "failed"),
                entry(2, "", "undo", "compensating"),
                entry(3, "reserve", "undo", "completed"),
            ],
        };
        let now = "2026-01-01T00:01:00Z".parse().expect("a time");
        expect![[r#"
            saga               order/o-17
            state              compensated
            detail             step `ship` failed
            failed             ship: no carrier
            began              2026-01-01T00:00:00.000Z, 1m ago
            changed            2026-01-01T00:00:04.000Z, 56s ago
            deadline           2026-01-01T00:05:00.000Z
            answers that wait  ship

            STEP     OUTCOME            ATTEMPTS  UNDO  ANSWER
            reserve  completed, undone         1     2  {"shelf":7}
            ship     failed                    1     0  no carrier

            TIME                      STEP     ATTEMPT  WHAT          DETAIL
            2026-01-01T00:00:00.000Z  reserve  1        sent
            2026-01-01T00:00:01.000Z  ship     1        failed        no carrier
            2026-01-01T00:00:02.000Z  -        undo     compensating
            2026-01-01T00:00:03.000Z  reserve  undo 1   completed
        "#]]
        .assert_eq(&show(&saga, now));
    }

    #[test]
    fn a_list_tells_how_long_each_rests() {
        let saga = SagaSummary {
            id: "o-17".to_owned(),
            name: "order".to_owned(),
            sequence: 7,
            state: "parked".to_owned(),
            began_at: "2026-01-01T00:00:00.000Z".to_owned(),
            changed_at: "2026-01-01T00:00:05.000Z".to_owned(),
            detail: "step `ship` failed: no carrier".to_owned(),
        };
        let now = "2026-01-01T02:00:05Z".parse().expect("a time");
        expect![[r#"
            SAGA        STATE   BEGAN                     UNCHANGED FOR  DETAIL
            order/o-17  parked  2026-01-01T00:00:00.000Z             2h  step `ship` failed: no carrier
        "#]]
        .assert_eq(&table(&[saga], now));
    }
}
