//! What sagas tell: the outcome to who began one, or asks again, and each line of the timeline to who watches.

use crate::begins::Begin;
use crate::broker::Broker;
use crate::command::DiskState;
use crate::config::Durability;
use crate::effect::{Output, Wait};
use crate::ids::{Millis, Position, Sequence};
use crate::message::{Message, OutcomeMessage, Own, ProgressMessage};
use crate::messages::RequestName;
use crate::publish::Plan;
use crate::saga::SagaFact;

impl Broker {
    /// Tells who watches this saga what its last line says.
    pub(crate) fn tell_progress(&mut self, number: Sequence, position: Position, output: &mut Output) {
        let watched = !self.subscriptions.is_empty() || self.bindings.any_reserved();
        if !watched || self.out_of_numbers() {
            return;
        }
        let saga = self.saga_row(number);
        let topic = format!("$chaski.saga.{}.{}", percent(&saga.name), percent(&saga.id));
        let mut plan = self.resolve(&topic);
        if plan.targets.is_empty() && plan.subscriptions.is_empty() {
            return;
        }
        plan.after = Wait { position, durability: Durability::Fsync };
        let line = saga.timeline.last().expect("a saga's first line tells that it began");
        let view = saga.line_view(line);
        let sequence = Sequence(self.draw(output));
        let saga = self.saga_row(number);
        let message = (self.render)(Own::Progress(ProgressMessage {
            topic: &topic,
            name: &saga.name,
            id: &saga.id,
            state: saga.state(),
            line: &view,
            sequence,
        }));
        let now = self.now;
        self.store_own(now, message, plan, output);
    }

    /// Sends who began it the outcome.
    pub(crate) fn tell_saga_outcome(
        &mut self,
        now: Millis,
        number: Sequence,
        wait: Wait,
        output: &mut Output,
    ) {
        let saga = self.saga_row(number);
        let Some(reply_to) = saga.reply_to.as_deref().map(str::to_owned) else { return };
        let name = RequestName::named(&saga.input, &reply_to);
        if self.out_of_numbers() {
            return;
        }
        let message = self.outcome_message(now, number, &reply_to, output);
        self.answer_with(now, &name, &reply_to, message, wait, output);
    }

    fn outcome_message(
        &mut self,
        now: Millis,
        number: Sequence,
        reply_to: &str,
        output: &mut Output,
    ) -> Message {
        let sequence = Sequence(self.draw(output));
        let saga = self.saga_row(number);
        (self.render)(Own::Outcome(OutcomeMessage {
            reply_to,
            name: &saga.name,
            id: &saga.id,
            state: saga.state(),
            results: saga.results(),
            failed: saga.failure(),
            compensated: saga.undone().into_iter().map(|step| &*saga.step(step).name).collect(),
            sequence,
            now,
        }))
    }

    /// Who began this saga asks again: it joins, or gets the outcome.
    pub(crate) fn repeat_saga(
        &mut self,
        now: Millis,
        number: Sequence,
        message: &Message,
        output: &mut Output,
    ) {
        let Some(reply_to) = message.reply_to() else { return };
        let reply_to = String::from_utf8_lossy(reply_to).into_owned();
        let saga = self.saga_row(number);
        if !saga.phase.is_over() {
            // A full disk takes no record: who asks once more joins then.
            if saga.reply_to.as_deref() != Some(&*reply_to) && self.disk != DiskState::Full {
                self.note_saga(now, number, SagaFact::Moved { reply_to }, output);
            }
            return;
        }
        if !self.out_of_numbers() {
            // Its end may be on its way to the disk only.
            let after = Wait { position: self.position, durability: Durability::Fsync };
            let answer = self.outcome_message(now, number, &reply_to, output);
            let plan = Plan { after, ..self.resolve(&reply_to) };
            self.store_own(now, answer, plan, output);
        }
    }

    /// The start of a saga came again, as the dedup window knows; false: it is none.
    pub(crate) fn repeated_saga(
        &mut self,
        now: Millis,
        message: &Message,
        first: Sequence,
        output: &mut Output,
    ) -> bool {
        let id = String::from_utf8_lossy(message.id());
        let by_topic = self.begins.of(message.topic()).iter().find_map(|begin| match begin {
            Begin::Saga(name, _) => self.sagas.find(self.hash_key, name, &id),
            Begin::Gather(_) => None,
        });
        let Some(number) = by_topic.or_else(|| self.sagas.get(first).map(|_| first)) else { return false };
        self.repeat_saga(now, number, message, output);
        true
    }
}

/// A name or id as one token of a topic.
fn percent(text: &str) -> String {
    use std::fmt::Write;
    let mut token = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '.' | '*' | '>' | '%') || character.is_whitespace() || character.is_control() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(token, "%{byte:02X}");
            }
        } else {
            token.push(character);
        }
    }
    token
}
