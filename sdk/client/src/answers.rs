//! Answers that come in the order of their questions, by the million: a question gets a ticket, a future that costs a counter
//! to hold and nothing to drop. 64 tickets share one allocation.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// Tickets in one allocation.
const GROUP: u64 = 64;

/// The questions that wait for an answer. Questions are numbered from 0.
pub(crate) struct Answers<T> {
    issued: u64,
    answered: u64,
    /// The first holds the slot of number `answered`, once it was issued.
    groups: VecDeque<Arc<Group<T>>>,
}

struct Group<T> {
    slots: Mutex<Vec<Slot<T>>>,
}

enum Slot<T> {
    Waiting,
    Polled(Waker),
    Done(T),
    Taken,
}

impl<T> Answers<T> {
    pub(crate) fn new() -> Answers<T> {
        Answers { issued: 0, answered: 0, groups: VecDeque::new() }
    }

    /// Questions asked so far.
    pub(crate) fn issued(&self) -> u64 {
        self.issued
    }

    /// Questions answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }

    /// Questions without an answer.
    pub(crate) fn waiting(&self) -> u64 {
        self.issued - self.answered
    }

    /// The next question's ticket.
    pub(crate) fn issue(&mut self) -> Ticket<T> {
        let slot = (self.issued % GROUP) as usize;
        if slot == 0 {
            let slots = (0..GROUP).map(|_| Slot::Waiting).collect();
            self.groups.push_back(Arc::new(Group { slots: Mutex::new(slots) }));
        }
        self.issued += 1;
        let group = self.groups.back().expect("the slot's group was just made or is still open");
        Ticket { group: Arc::clone(group), slot }
    }

    /// Answers the next `count` questions; `answer` is asked only for those whose ticket somebody holds. Whom to wake is added
    /// to `wakers`, for when no lock is held.
    pub(crate) fn resolve(&mut self, count: u64, mut answer: impl FnMut(u64) -> T, wakers: &mut Vec<Waker>) {
        debug_assert!(count <= self.waiting());
        let end = self.answered + count;
        while self.answered < end {
            let slot = self.answered % GROUP;
            let part = (GROUP - slot).min(end - self.answered);
            let group = self.groups.front().expect("an unanswered question has its group");
            // Tickets are the only other owners, and an issued slot gets no second ticket.
            if Arc::strong_count(group) > 1 {
                let mut slots = group.slots.lock().expect("nobody panics with it");
                for number in 0..part {
                    let done = Slot::Done(answer(self.answered + number));
                    let place = &mut slots[(slot + number) as usize];
                    if let Slot::Polled(waker) = std::mem::replace(place, done) {
                        wakers.push(waker);
                    }
                }
            }
            self.answered += part;
            if self.answered.is_multiple_of(GROUP) {
                self.groups.pop_front();
            }
        }
    }
}

/// The future of one answer. It may be dropped at any time.
pub(crate) struct Ticket<T> {
    group: Arc<Group<T>>,
    slot: usize,
}

impl<T> Future for Ticket<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slots = self.group.slots.lock().expect("nobody panics with it");
        let slot = &mut slots[self.slot];
        match slot {
            Slot::Done(_) => match std::mem::replace(slot, Slot::Taken) {
                Slot::Done(answer) => Poll::Ready(answer),
                _ => unreachable!("it was Done under the same lock"),
            },
            Slot::Polled(waker) if waker.will_wake(context.waker()) => Poll::Pending,
            Slot::Waiting | Slot::Polled(_) => {
                *slot = Slot::Polled(context.waker().clone());
                Poll::Pending
            }
            Slot::Taken => panic!("a ticket was polled after its answer"),
        }
    }
}

/// Wakes all, outside of every lock.
pub(crate) fn wake_all(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn each_ticket_gets_its_own_answer_in_order() {
        let mut answers = Answers::new();
        let mut tickets: VecDeque<_> = (0..200).map(|_| answers.issue()).collect();
        let mut wakers = Vec::new();
        for (count, end) in [(1, 1), (62, 63), (2, 65), (135, 200)] {
            answers.resolve(count, |number| number, &mut wakers);
            assert_eq!(answers.answered(), end);
        }
        for number in 0..200 {
            let ticket = tickets.pop_front().expect("200 of them");
            assert_eq!(ticket.now_or_never(), Some(number));
        }
        assert!(answers.groups.len() <= 1);
    }

    #[test]
    fn nobody_computes_answers_that_nobody_holds() {
        let mut answers = Answers::new();
        (0..64).for_each(|_| drop(answers.issue()));
        answers.resolve(64, |_| panic!("nobody asked"), &mut Vec::new());
        assert_eq!(answers.waiting(), 0);
        let ticket: Ticket<u64> = answers.issue();
        answers.resolve(1, |number| number, &mut Vec::new());
        assert_eq!(ticket.now_or_never(), Some(64));
    }
}
