//! Compensation and operators: what is undone, in which order, what parks a saga, and how it goes on. SEMANTICS, Sagas.

use super::gathers::{inbox, received};
use super::harness::*;
use super::sagas::{order, start};
use bytes::Bytes;
use chaski_broker::*;

fn state(world: &World) -> SagaState {
    world.saga_state("order", "o1")
}

fn steer(world: &mut World, verb: SagaVerb) -> Result<SagaState, SteerError> {
    world.steer("order", "o1", verb)
}

fn skip(world: &mut World, step: &str, payload: &str) -> Result<SagaState, SteerError> {
    steer(world, SagaVerb::Skip { step: step.to_owned(), payload: payload.to_owned().into() })
}

/// A saga of three steps of which the last one just failed.
fn failed(steps: Vec<StepSettings>) -> World {
    let last = steps.last().unwrap().queue.clone();
    let before: Vec<String> = steps[..steps.len() - 1].iter().map(|step| step.queue.clone()).collect();
    let mut world = order(steps);
    world.publish(start("o1"));
    for queue in before {
        world.does(&queue, &format!("{queue}'s"));
    }
    world.fails(&last, "no van", false);
    world
}

/// One that parked beyond its pivot, `card`; `ship` failed, `bill` never began.
fn beyond() -> World {
    let mut world =
        order(vec![step_with("card", |step| step.pivot = true), saga_step("ship"), saga_step("bill")]);
    world.publish(start("o1"));
    world.does("card", "charged");
    world.fails("ship", "no van", false);
    assert_eq!(state(&world), SagaState::Parked);
    world
}

/// A step with so much time that its queue's worker may take as long as it likes.
fn slow(name: &str) -> StepSettings {
    step_with(name, |step| step.timeout_ms = 3_600_000)
}

/// One of which the compensation of `card` failed; `stock` is still to be undone.
fn parked_undoing() -> World {
    let mut world = failed(vec![saga_step("stock"), slow("card"), saga_step("ship")]);
    world.fails("undo.card", "bank closed", false);
    assert_eq!(state(&world), SagaState::Parked);
    world
}

#[test]
fn a_failed_step_undoes_those_before_it_last_first() {
    let mut world = order(vec![saga_step("stock"), saga_step("card"), saga_step("ship")]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    world.publish(start("o1"));
    world.does("stock", "reserved");
    world.does("card", "charged");
    world.fails("ship", "no van", false);
    assert_eq!(state(&world), SagaState::Compensating);
    assert_eq!(world.shown("undo.stock"), None, "one after another");
    assert_eq!(world.does("undo.card", ""), "order/o1/card/undo/1");
    assert_eq!(world.does("undo.stock", ""), "order/o1/stock/undo/1");
    assert_eq!(state(&world), SagaState::Compensated);
    let outcome = "compensated [stock=reserved card=charged] failed ship: no van undone [card stock]";
    assert_eq!(received(&mut world, inbox), [outcome]);
}

#[test]
fn compensation_carries_all_and_what_failed_whatever_its_step_carried() {
    let input = |name: &str| step_with(name, |step| step.payload = StepPayload::Input);
    let mut world = failed(vec![input("stock"), saga_step("ship")]);
    assert_eq!(world.shown("undo.stock").unwrap().1, "3 hats [stock=stock's] failed ship: no van");
}

#[test]
fn step_without_compensate_has_nothing_to_undo() {
    let plain = |name: &str| step_with(name, |step| step.compensate = None);
    let world = failed(vec![plain("stock"), plain("card"), saga_step("ship")]);
    assert_eq!(state(&world), SagaState::Compensated);
}

#[test]
fn compensation_is_retried_with_the_default_backoff_and_parks_after_five_failures() {
    let mut world = failed(vec![slow("stock"), saga_step("ship")]);
    let mut ids = vec![world.fails("undo.stock", "bank closed", true)];
    for wait_ms in [1_000, 5_000, 30_000, 120_000] {
        world.advance(wait_ms * 9 / 10 - 1);
        assert_eq!(world.shown("undo.stock"), None, "before {wait_ms}");
        world.advance(wait_ms / 5 + 1);
        ids.push(world.fails("undo.stock", "bank closed", true));
    }
    assert_eq!(ids, [1, 2, 3, 4, 5].map(|attempt| format!("order/o1/stock/undo/{attempt}")));
    assert_eq!(state(&world), SagaState::Parked);
    let step = world.step_of("order", "o1", "stock");
    assert_eq!((step.undo_attempts, step.undone), (5, false));
}

#[test]
fn compensation_that_nobody_answers_times_out_and_is_tried_again() {
    let mut world = failed(vec![saga_step("stock"), saga_step("ship")]);
    let delivery = world.takes("undo.stock");
    world.advance(5_000);
    assert_eq!(world.ends("undo.stock", &delivery, Verdict::Ack), Err(SettleError::LeaseLost));
    world.advance(1_100);
    assert_eq!(world.does("undo.stock", ""), "order/o1/stock/undo/2");
    assert_eq!(state(&world), SagaState::Compensated);
}

#[test]
fn rejected_compensation_parks_at_once_with_a_letter_an_event_and_an_alarm() {
    for reject in [true, false] {
        let mut world = failed(vec![saga_step("stock"), saga_step("ship")]);
        let delivery = world.takes("undo.stock");
        let reason = || "bank closed".to_owned();
        let verdict = match reject {
            true => Verdict::Reject { reason: reason() },
            false => Verdict::Fail { reason: reason(), retryable: false },
        };
        world.ends("undo.stock", &delivery, verdict).unwrap();
        assert_eq!(state(&world), SagaState::Parked);
        let letters = world.letters("chaski");
        let info = &letters["order/o1/stock/undo/1"];
        assert_eq!(info.reason, DeadReason::CompensationFailed);
        assert_eq!((info.detail.as_str(), info.attempts), ("bank closed", 1));
        assert_eq!(info.saga.as_deref(), Some("order/o1"));
        assert_eq!(info.queue.as_deref(), Some("undo.stock"));
        assert_eq!(world.counts("undo.stock.dlq"), [0; 4], "the answer itself makes no letter");
        let why = "the compensation of `stock` failed: bank closed".to_owned();
        let parked = Event::SagaParked { saga: "order".into(), id: "o1".into(), reason: why };
        let raised = Event::AlarmRaised { alarm: "saga_parked", queue: "order".into() };
        assert_eq!(world.events, [parked, raised]);
    }
}

#[test]
fn letters_of_failed_compensations_are_copies_that_nobody_redrives() {
    let mut world = parked_undoing();
    let letter = world.browse("chaski.dlq")[0].sequence;
    let edited = Operation::RedriveEdited { sequence: letter, message: draft("undo.card", "x").build() };
    assert_eq!(world.operate("chaski", edited), Err(OperateError::NotAllowed));
    let select = Select { reason: Some(DeadReason::CompensationFailed), ..Select::default() };
    let all = Operation::Redrive { select, limit: 9 };
    assert_eq!(world.operate("chaski", all), Err(OperateError::NotAllowed));
    assert_eq!(world.counts("chaski.dlq"), [1, 0, 0, 0]);
}

#[test]
fn alarm_stands_while_a_saga_is_parked_and_is_cleared_with_the_last() {
    let mut world = beyond();
    world.publish(start("o2"));
    world.does("card", "");
    world.fails("ship", "no van", false);
    world.publish(start("o3"));
    let parked = |world: &World, after| -> Vec<String> {
        let parked = world.broker.sagas(Some(SagaState::Parked), after, 9).sagas;
        parked.into_iter().map(|saga| saga.id).collect()
    };
    assert_eq!(parked(&world, Sequence(0)), ["o1", "o2"]);
    let first = world.broker.saga("order", "o1").unwrap().summary.number;
    assert_eq!(parked(&world, first), ["o2"]);
    let alarm = |count| Alarm { alarm: "saga_parked", queue: "order".into(), count };
    assert_eq!(world.broker.alarms(), [alarm(2)]);
    world.snapshot();
    world.restart();
    assert_eq!(parked(&world, Sequence(0)), ["o1", "o2"]);
    assert_eq!(world.broker.alarms(), [alarm(2)]);
    let raised = Event::AlarmRaised { alarm: "saga_parked", queue: "order".into() };
    assert_eq!(world.events.iter().filter(|event| **event == raised).count(), 1, "once, for the first");
    let cleared = Event::AlarmCleared { alarm: "saga_parked", queue: "order".into() };
    world.steer("order", "o1", SagaVerb::Abort { compensate: false }).unwrap();
    assert!(!world.events.contains(&cleared));
    world.steer("order", "o2", SagaVerb::Retry).unwrap();
    assert!(world.events.contains(&cleared));
    assert_eq!(parked(&world, Sequence(0)), [""; 0]);
    assert_eq!(world.broker.alarms(), []);
}

#[test]
fn retry_beyond_the_pivot_tries_what_failed_once_more() {
    let mut world = beyond();
    assert_eq!(steer(&mut world, SagaVerb::Retry), Ok(SagaState::Running));
    assert_eq!(world.does("ship", "sent"), "order/o1/ship/2");
    world.does("bill", "");
    assert_eq!(state(&world), SagaState::Completed);
}

#[test]
fn retry_of_a_failed_compensation_gives_it_five_attempts_anew() {
    let mut world = parked_undoing();
    assert_eq!(steer(&mut world, SagaVerb::Retry), Ok(SagaState::Compensating));
    assert_eq!(world.fails("undo.card", "bank closed", true), "order/o1/card/undo/2");
    for wait_ms in [1_100, 5_500, 33_000] {
        world.advance(wait_ms);
        world.fails("undo.card", "bank closed", true);
        assert_eq!(state(&world), SagaState::Compensating);
    }
    world.advance(132_000);
    assert_eq!(world.does("undo.card", ""), "order/o1/card/undo/6");
    world.does("undo.stock", "");
    assert_eq!(state(&world), SagaState::Compensated);
}

#[test]
fn skipped_step_is_completed_with_the_operators_result() {
    let mut world = beyond();
    assert_eq!(skip(&mut world, "ship", "by hand"), Ok(SagaState::Running));
    assert_eq!(world.shown("bill").unwrap().1, "3 hats [card=charged ship=by hand]");
    world.does("bill", "");
    assert_eq!(state(&world), SagaState::Completed);
    assert_eq!(world.broker.saga("order", "o1").unwrap().failed, None);
}

#[test]
fn skip_of_a_later_step_leaves_out_that_one_only() {
    let mut world = order(vec![
        step_with("card", |step| step.pivot = true),
        saga_step("ship"),
        saga_step("bill"),
        saga_step("mail"),
    ]);
    world.publish(start("o1"));
    world.does("card", "");
    world.fails("ship", "no van", false);
    assert_eq!(skip(&mut world, "bill", ""), Ok(SagaState::Running));
    assert_eq!(world.does("ship", ""), "order/o1/ship/2");
    assert_eq!(state(&world), SagaState::Running);
    assert_eq!(world.shown("bill"), None);
    world.does("mail", "");
    assert_eq!(state(&world), SagaState::Completed);
}

#[test]
fn skip_while_undoing_counts_that_compensation_as_done() {
    let mut world = parked_undoing();
    assert_eq!(skip(&mut world, "card", ""), Ok(SagaState::Compensating));
    world.does("undo.stock", "");
    assert_eq!(state(&world), SagaState::Compensated);
    assert_eq!(world.shown("undo.card"), None);
    // One that is not the next, and the last one.
    let mut world = parked_undoing();
    skip(&mut world, "stock", "").unwrap();
    assert_eq!(world.does("undo.card", ""), "order/o1/card/undo/2");
    assert_eq!(state(&world), SagaState::Compensated);
}

#[test]
fn abort_compensates_now_wherever_the_saga_is() {
    // Running, with an attempt in somebody's hands.
    let mut world = order(vec![saga_step("stock"), saga_step("card")]);
    world.publish(start("o1"));
    world.does("stock", "");
    let delivery = world.takes("card");
    assert_eq!(steer(&mut world, SagaVerb::Abort { compensate: true }), Ok(SagaState::Compensating));
    assert_eq!(world.ends("card", &delivery, Verdict::Ack), Err(SettleError::LeaseLost));
    world.does("undo.card", "");
    world.does("undo.stock", "");
    assert_eq!(state(&world), SagaState::Compensated);
    // Beyond the pivot: an operator may.
    let mut world = beyond();
    assert_eq!(steer(&mut world, SagaVerb::Abort { compensate: true }), Ok(SagaState::Compensating));
    world.does("undo.card", "");
    assert_eq!(state(&world), SagaState::Compensated);
    // Parked while undoing: it goes on.
    let mut world = parked_undoing();
    assert_eq!(steer(&mut world, SagaVerb::Abort { compensate: true }), Ok(SagaState::Compensating));
    assert_eq!(world.does("undo.card", ""), "order/o1/card/undo/2");
}

#[test]
fn abort_without_compensation_ends_it_as_it_stands() {
    let mut world = order(vec![saga_step("stock"), saga_step("card")]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    world.publish(start("o1"));
    world.does("stock", "reserved");
    let delivery = world.takes("card");
    assert_eq!(steer(&mut world, SagaVerb::Abort { compensate: false }), Ok(SagaState::Aborted));
    assert_eq!(world.ends("card", &delivery, Verdict::Ack), Err(SettleError::LeaseLost));
    assert_eq!(received(&mut world, inbox), ["aborted [stock=reserved] undone []"]);
    assert_eq!(world.counts("undo.stock"), [0; 4]);
    let mut world = parked_undoing();
    assert_eq!(steer(&mut world, SagaVerb::Abort { compensate: false }), Ok(SagaState::Aborted));
}

#[track_caller]
fn refused(world: &mut World, verb: SagaVerb, why: &str) {
    let before = world.broker.position();
    let outcome = steer(world, verb);
    assert!(
        matches!(&outcome, Err(SteerError::NotAllowed { detail }) if detail.contains(why)),
        "{outcome:?} says nothing of {why:?}"
    );
    assert_eq!(world.broker.position(), before, "a refusal changes nothing");
}

fn skipping(step: &str) -> SagaVerb {
    SagaVerb::Skip { step: step.to_owned(), payload: Bytes::new() }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let abort = || SagaVerb::Abort { compensate: true };
    let mut world = order(vec![saga_step("stock")]);
    world.publish(start("o1"));
    refused(&mut world, SagaVerb::Retry, "not parked");
    refused(&mut world, skipping("stock"), "not parked");
    world.does("stock", "");
    for verb in [SagaVerb::Retry, skipping("stock"), abort(), SagaVerb::Abort { compensate: false }] {
        refused(&mut world, verb, "ended");
    }
    assert_eq!(world.steer("order", "o2", SagaVerb::Retry), Err(SteerError::UnknownSaga));
    assert_eq!(world.steer("other", "o1", SagaVerb::Retry), Err(SteerError::UnknownSaga));

    let mut world = failed(vec![saga_step("stock"), saga_step("ship")]);
    refused(&mut world, abort(), "already");
    refused(&mut world, SagaVerb::Retry, "not parked");

    let mut world = beyond();
    assert_eq!(skip(&mut world, "nothing", ""), Err(SteerError::UnknownStep));
    refused(&mut world, skipping("card"), "complete already");
    let large = SagaVerb::Skip { step: "ship".into(), payload: vec![b'x'; 2 << 20].into() };
    refused(&mut world, large, "too large a result".trim_start_matches("too "));

    let mut world = parked_undoing();
    refused(&mut world, skipping("ship"), "not to be undone");
    world.call(Command::Disk(DiskState::Full));
    assert_eq!(steer(&mut world, SagaVerb::Retry), Err(SteerError::DiskFull));
}

#[test]
fn operators_word_is_answered_once_it_is_durable() {
    let mut world = beyond();
    world.sync_at_once = false;
    let ticket = Ticket(world.draw());
    let (name, id) = ("order".to_owned(), "o1".to_owned());
    world.call(Command::Steer { ticket, name, id, verb: SagaVerb::Retry });
    assert!(!world.steered.contains_key(&ticket));
    world.sync();
    assert_eq!(world.steered[&ticket], Ok(SagaState::Running));
}

#[test]
fn retry_after_the_time_of_the_whole_is_not_cut_short() {
    let mut world = order(vec![step_with("card", |step| step.pivot = true), saga_step("ship")]);
    world.publish(start("o1"));
    world.does("card", "");
    world.fails("ship", "no van", false);
    world.advance(600_000);
    steer(&mut world, SagaVerb::Retry).unwrap();
    world.advance(1_000);
    assert_eq!(world.does("ship", ""), "order/o1/ship/2");
    assert_eq!(state(&world), SagaState::Completed);
}

#[test]
fn pending_answers_are_those_that_nobody_acted_upon() {
    let mut world = failed(vec![saga_step("stock"), saga_step("card"), saga_step("ship")]);
    let pending = |world: &World| world.broker.saga("order", "o1").unwrap().pending;
    assert_eq!(pending(&world), [""; 0]);
    world.does("undo.card", "");
    assert_eq!(pending(&world), [""; 0], "the next compensation followed from it");
    world.does("undo.stock", "");
    assert_eq!(pending(&world), [""; 0]);
    assert_eq!(pending(&beyond()), ["ship"], "a parked one's last answer leads nowhere yet");
}
