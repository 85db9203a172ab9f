//! A consumer's leases against a router that is played by hand: who keeps them, how they end, and what a lost stream means.

use chaski_protocol::{MAX_COMMAND_FRAME, decode, next_frame};
use futures::FutureExt as _;

use super::*;

const ACK_WAIT_MS: u64 = 30_000;

fn consumer() -> ConsumerState {
    let state = ConsumerState::new("q".to_owned(), Vec::new(), 64);
    state.begin(ACK_WAIT_MS);
    state
}

fn arrive(state: &ConsumerState, sequences: std::ops::Range<u64>) {
    let parcel = |sequence| Parcel {
        message: Message::new("t", "x"),
        sequence,
        lease: sequence + 1000,
        attempt: 1,
        redelivered: false,
        published_at_ms: 0,
    };
    state.arrive(&mut sequences.map(parcel).collect());
}

/// The sequence and epoch of the next delivery, where there is one.
fn next(state: &ConsumerState) -> Option<(u64, u64)> {
    let mut context = Context::from_waker(Waker::noop());
    match state.poll_next(&mut context) {
        Poll::Ready(Some(Ok((epoch, parcel)))) => Some((parcel.sequence, epoch)),
        Poll::Ready(Some(Err(error))) => panic!("{error}"),
        Poll::Ready(None) | Poll::Pending => None,
    }
}

/// What the router is told, one line a frame.
fn told(state: &ConsumerState) -> Vec<String> {
    let mut bytes = bytes::BytesMut::new();
    while let Some(out) = state.take_output() {
        bytes.extend_from_slice(&out);
    }
    let mut lines = Vec::new();
    while let Some(frame) = next_frame(&mut bytes, MAX_COMMAND_FRAME).expect("frames") {
        lines.push(match decode::<ConsumeCommand<'_>>(&frame).expect("a command").0 {
            ConsumeCommand::Settle { sequence, verdict, .. } => {
                let length = decode::<ConsumeCommand<'_>>(&frame).expect("a command").1;
                let result = String::from_utf8_lossy(&frame[length..]);
                format!("settle {sequence} {verdict:?} {result}").trim_end().to_owned()
            }
            ConsumeCommand::Extend { leases } => {
                format!("extend {:?}", leases.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>())
            }
            other => format!("{other:?}"),
        });
    }
    lines
}

fn settle(
    state: &ConsumerState,
    (sequence, epoch): (u64, u64),
    verdict: Verdict<'_>,
) -> Option<Ticket<Settlement>> {
    state.settle(epoch, (sequence, sequence + 1000), verdict, &[])
}

#[test]
fn the_whole_buffer_is_extended_in_one_frame_and_what_the_application_has_is_not() {
    let state = consumer();
    assert_eq!(state.extend_every(), Duration::from_secs(10));
    state.extend_buffer();
    assert_eq!(told(&state), [""; 0], "there is nothing to extend");
    arrive(&state, 1..4);
    assert_eq!(next(&state), Some((1, 1)));
    state.extend_buffer();
    assert_eq!(told(&state), ["extend [2, 3]"]);
}

#[test]
fn a_lease_that_is_lost_in_the_buffer_is_never_seen() {
    let state = consumer();
    arrive(&state, 1..4);
    let first = next(&state).expect("it arrived");
    state.lost(&[(2, 1002), (1, 1001)]);
    assert_eq!(next(&state), Some((3, 1)));
    assert_eq!(next(&state), None);
    assert!(!state.extend(1, (1, 1001)), "the application's lease is known to be lost");
    assert!(state.extend(1, (3, 1003)));
    // The router has the last word on a settlement.
    assert!(settle(&state, first, Verdict::Ack).is_some());
}

#[test]
fn a_close_gives_back_what_nobody_saw_and_waits_for_the_rest() {
    let state = consumer();
    arrive(&state, 1..3);
    let seen = next(&state).expect("it arrived");
    state.begin_close();
    assert_eq!(told(&state), ["Close", "settle 2 Release"]);
    // One more was under way.
    arrive(&state, 3..4);
    assert_eq!(told(&state), ["settle 3 Release"]);
    state.closed_by_router();
    assert!(state.released().now_or_never().is_none());
    state.settled(2, &[]).expect("they were sent");
    assert!(state.released().now_or_never().is_some());
    assert!(!state.is_done(), "the application still holds one");
    let settling = settle(&state, seen, Verdict::Ack).expect("the stream lives");
    assert_eq!(told(&state), ["settle 1 Ack"]);
    state.settled(3, &[]).expect("it was sent");
    assert_eq!(settling.now_or_never(), Some(Ok(())));
    assert!(state.is_done());
    assert_eq!(next(&state), None);
}

#[test]
fn a_lost_stream_takes_every_lease_with_it_and_the_next_begins_anew() {
    let state = consumer();
    arrive(&state, 1..4);
    let (held, settled) = (next(&state).expect("there"), next(&state).expect("there"));
    let settling = settle(&state, settled, Verdict::Ack).expect("the stream lives");
    state.end();
    assert_eq!(settling.now_or_never(), Some(Err(SettleError::LeaseLost)));
    assert!(settle(&state, held, Verdict::Ack).is_none());
    assert_eq!(next(&state), None, "what lay in the buffer comes again by itself");
    assert_eq!(told(&state), [""; 0]);

    state.begin(ACK_WAIT_MS);
    arrive(&state, 3..4);
    let again = next(&state).expect("it came again");
    assert_eq!(again, (3, 2));
    assert!(settle(&state, held, Verdict::Ack).is_none(), "its epoch is over");
    let settling = settle(&state, again, Verdict::Ack).expect("the stream lives");
    state.settled(1, &[]).expect("numbers begin with 1 on each stream");
    assert_eq!(settling.now_or_never(), Some(Ok(())));
}

#[test]
fn refused_settlements_are_told_apart() {
    let state = consumer();
    arrive(&state, 1..4);
    let settling: Vec<_> = (0..3)
        .map(|_| {
            settle(&state, next(&state).expect("there"), Verdict::Nack { delay_ms: None }).expect("alive")
        })
        .collect();
    let (lost, not_allowed) = (Code::LeaseLost.number(), Code::NotAllowed.number());
    state.settled(3, &[(1, lost), (3, not_allowed)]).expect("they were sent");
    let answers: Vec<_> =
        settling.into_iter().map(|settling| settling.now_or_never().expect("answered")).collect();
    assert_eq!(answers[..2], [Err(SettleError::LeaseLost), Ok(())]);
    assert_eq!(answers[2].as_ref().unwrap_err().code(), Code::NotAllowed);
    assert!(state.settled(4, &[]).is_err(), "it was not sent");
}

#[test]
fn a_consumer_that_the_router_ends_says_why_and_then_ends() {
    let state = consumer();
    let gone = ConsumeError::Refused(Code::UnknownQueue.into());
    state.end();
    state.finish(Some(gone.clone()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(state.poll_next(&mut context), Poll::Ready(Some(Err(error))) if error == gone));
    assert!(matches!(state.poll_next(&mut context), Poll::Ready(None)));
}

#[test]
fn a_result_goes_behind_its_settlement_and_the_next_frame_is_whole() {
    let state = consumer();
    arrive(&state, 1..3);
    let (first, second) = (next(&state).expect("a delivery"), next(&state).expect("another"));
    let result = vec![b'x'; 1000];
    drop(state.settle(first.1, (first.0, first.0 + 1000), Verdict::Complete, &result));
    drop(settle(&state, second, Verdict::Ack));
    assert_eq!(told(&state), [format!("settle 1 Complete {}", "x".repeat(1000)), "settle 2 Ack".to_owned()]);
}
