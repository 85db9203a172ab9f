//! Plays filters: what they make of messages, at once or behind the dedup check, and what they remember.

use chaski_broker::*;

use crate::harness::{Draft, death, delete, put};
use crate::model;
use crate::operation::{Judgement, Publish as Drawn};
use crate::run::{Run, TOPICS, pick};

/// Topics that results are sent to: not that of a `memory` queue alone, whose messages' numbers nobody tells.
const RESULTS: [usize; 8] = [0, 1, 2, 4, 5, 6, 7, 8];
const TTLS_MS: [Option<u64>; 4] = [None, Some(40), Some(900), Some(20_000)];

impl Run {
    #[track_caller]
    pub(crate) fn publish_filtered(&mut self, drawn: &Drawn, judgement: &Judgement) {
        let origin = self.message(drawn);
        let (said, judged) = self.judgement(&origin, judgement, false);
        let number = self.world.draw();
        let rules = self.world.broker.bindings().version();
        let (publisher, message) = (Some(PublisherId(1)), origin.build());
        let (mandatory, way) = (drawn.mandatory, Way::Filtered(Box::new(said)));
        let publish = Publish {
            publisher,
            connection: None,
            number,
            rules,
            mandatory,
            message,
            hash: None,
            way,
            job: None,
        };
        self.command(Command::Publish(publish), |model, call| {
            if model.awaits_first(&origin, number, call) {
                return;
            }
            let (wait, outcome) = model::confirmed(call, number).expect("a publish is answered");
            model.publish_filtered(&origin, mandatory, &judged, wait, &outcome, call);
        });
    }

    #[track_caller]
    pub(crate) fn pend(&mut self, drawn: &Drawn) {
        let origin = self.message(drawn);
        let (number, job) = (self.world.draw(), JobId(self.world.draw()));
        let rules = self.world.broker.bindings().version();
        let (publisher, message) = (Some(PublisherId(1)), origin.build());
        let (mandatory, way) = (drawn.mandatory, Way::Pending);
        let publish = Publish {
            publisher,
            connection: None,
            number,
            rules,
            mandatory,
            message,
            hash: None,
            way,
            job: Some(job),
        };
        self.command(Command::Publish(publish), |model, call| {
            model.pend(job, &origin, mandatory, number, call);
        });
    }

    #[track_caller]
    pub(crate) fn judge(&mut self, job: u8, fails: bool, judgement: &Judgement, writes: &[(u8, u8, bool)]) {
        let jobs: Vec<JobId> = self.model.pending.keys().copied().collect();
        let job = pick(&jobs, job).copied();
        let now = self.world.now;
        let said: Vec<StateWrite> = writes
            .iter()
            .map(|(key, ttl, deleted)| {
                let ends = TTLS_MS[usize::from(*ttl)].map(|ms| now.after(ms).0);
                let key = format!("k{key}");
                if *deleted { delete(&key) } else { put(&key, &format!("v{ttl}"), ends) }
            })
            .collect();
        let mut outcomes = Vec::new();
        let mut judged = None;
        if let Some(job) = job {
            let origin = self.model.pending[&job].origin.clone();
            let (filtered, plain) = self.judgement(&origin, judgement, true);
            let failed = JudgeError::FilterFailed { detail: "it failed".into() };
            outcomes.push((job, if fails { Err(failed) } else { Ok(vec![filtered]) }));
            judged = (!fails).then_some(plain);
        }
        let ticket = Ticket(self.world.draw());
        let writes = vec![("m".to_owned(), said.clone())];
        self.command(Command::Judged { ticket, writes, jobs: outcomes }, |model, call| {
            // What was written for a publish that is refused is not kept.
            if said.is_empty() || !job.is_some_and(|job| model.is_refused(job, call)) {
                model.write(&said);
            }
            if let Some(job) = job {
                model.judged(job, judged.as_ref(), call);
            }
        });
    }

    /// What filters say, and the same as the model takes it.
    fn judgement(&self, origin: &Draft, drawn: &Judgement, stateful: bool) -> (Filtered, model::Judgement) {
        let mut said = Filtered { dropped: u32::from(drawn.dropped), stateful, ..Filtered::default() };
        let mut plain = model::Judgement { dropped: said.dropped, stateful, ..model::Judgement::default() };
        for (number, (topic, routed)) in drawn.results.iter().enumerate() {
            let topic = TOPICS[RESULTS[usize::from(*topic)]].to_owned();
            let id = if number == 0 { origin.id.clone() } else { format!("{}/{number}", origin.id) };
            let draft = Draft { topic, id, payload: "changed".into(), ..origin.clone() };
            said.results.push(if *routed {
                self.world.routed(draft.clone())
            } else {
                self.world.result(draft.clone())
            });
            plain.results.push((draft, *routed));
        }
        for (queue, failed) in &drawn.dead {
            // Letters of a `memory` queue have numbers that nobody tells.
            let ordinary = self.model.queues.iter().filter(|(_, queue)| {
                queue.source.is_none() && queue.settings.durability != Durability::Memory
            });
            let names: Vec<&String> = ordinary.map(|(name, _)| name).collect();
            let queue = if *queue == 5 { None } else { pick(&names, *queue).copied() };
            let reason = if *failed { DeadReason::FilterError } else { DeadReason::Rejected };
            let stillborn =
                self.world.stillborn(origin.clone(), queue.map(String::as_str), death(reason, ""));
            plain.dead.push((queue.cloned(), stillborn.info.clone()));
            said.dead.push(stillborn);
        }
        (said, plain)
    }
}
