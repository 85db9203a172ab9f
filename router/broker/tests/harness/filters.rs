//! Filters as the tests play them: what a server would send that ran some, and how it judges what waits.

use super::*;

/// Nothing yet: results and letters are added.
pub fn filtered() -> Filtered {
    Filtered::default()
}

/// Rules with these modules.
pub fn with_modules(rules: Rules, modules: &[&str]) -> Rules {
    let pins = modules.iter().map(|name| ModulePin {
        name: (*name).to_owned(),
        binary: Some([7; 32]),
        signature: None,
    });
    Rules { modules: pins.collect(), ..rules }
}

/// A write, with the time at which it is over if there is one.
pub fn put(key: &str, value: &str, expires_ms: Option<u64>) -> StateWrite {
    let value = Bytes::copy_from_slice(value.as_bytes());
    StateWrite { key: key.into(), entry: Some(StateEntry { value, expires_ms }) }
}

/// The removal of an entry.
pub fn delete(key: &str) -> StateWrite {
    StateWrite { key: key.into(), entry: None }
}

/// What filters say of a death. The broker sets the times.
pub fn death(reason: DeadReason, detail: &str) -> DeadInfo {
    DeadInfo {
        reason,
        detail: detail.into(),
        queue: None,
        route: Some("r".into()),
        scatter: None,
        saga: None,
        module: Some("m".into()),
        digest: Some("sha256:07".into()),
        attempts: 0,
        first_at: Millis(0),
        last_at: Millis(0),
    }
}

impl World {
    /// A result that goes to everybody whom its topic reaches.
    pub fn result(&self, draft: Draft) -> Outgoing {
        let targets = self.broker.bindings().resolve(&draft.topic);
        Outgoing { message: draft.build(), targets, subscriptions: true, unroutable: None }
    }

    /// The same, of a filter that routed it there.
    pub fn routed(&self, draft: Draft) -> Outgoing {
        let info = death(DeadReason::Unroutable, "nobody takes it");
        let letter = Stillborn { message: draft.clone().build(), queue: None, info };
        Outgoing { unroutable: Some(Box::new(letter)), ..self.result(draft) }
    }

    /// A copy that one queue's binding changed.
    pub fn copy(&self, draft: Draft, queue: &str) -> Outgoing {
        let queue = self.broker.queue_id(queue).expect("the queue is there");
        Outgoing {
            message: draft.build(),
            targets: Targets::from([queue]),
            subscriptions: false,
            unroutable: None,
        }
    }

    /// What a route's filter took out; with a queue, a binding's.
    pub fn stillborn(&self, draft: Draft, queue: Option<&str>, info: DeadInfo) -> Stillborn {
        let info = DeadInfo {
            queue: queue.map(str::to_owned),
            route: info.route.filter(|_| queue.is_none()),
            ..info
        };
        let queue = queue.map(|name| self.broker.queue_id(name).expect("the queue is there"));
        Stillborn { message: draft.build(), queue, info }
    }

    /// A publish with its way; its number.
    #[track_caller]
    pub fn send(&mut self, draft: &Draft, mandatory: bool, way: Way, job: Option<JobId>) -> u64 {
        let number = self.draw();
        let rules = self.broker.bindings().version();
        let (publisher, message) = (Some(PublisherId(1)), draft.build());
        self.call(Command::Publish(Publish {
            publisher,
            connection: Some(ConnectionId(1)),
            number,
            rules,
            mandatory,
            message,
            hash: None,
            way,
            job,
        }));
        number
    }

    /// A publish of which filters made this.
    #[track_caller]
    pub fn try_publish_as(
        &mut self,
        draft: &Draft,
        mandatory: bool,
        filtered: Filtered,
    ) -> Result<Confirmation, PublishError> {
        let number = self.send(draft, mandatory, Way::Filtered(Box::new(filtered)), None);
        self.confirms.remove(&number).expect("a publish is answered")
    }

    /// See [`World::try_publish_as`]; not refused.
    #[track_caller]
    pub fn publish_as(&mut self, draft: &Draft, filtered: Filtered) -> Confirmation {
        self.try_publish_as(draft, false, filtered).expect("a publish that isn't refused")
    }

    /// A publish that waits for filters with state: its number and its work.
    #[track_caller]
    pub fn send_pending(&mut self, draft: &Draft) -> (u64, JobId) {
        let job = JobId(self.draw());
        (self.send(draft, false, Way::Pending, Some(job)), job)
    }

    /// A transaction of these publishes, without acks: its number and its work, if any of them waits for it.
    #[track_caller]
    pub fn send_transaction_of(
        &mut self,
        id: &str,
        parts: Vec<(Draft, Way, bool)>,
        acks: Option<(&str, &Delivery)>,
    ) -> (u64, JobId) {
        let (number, job) = (self.draw(), JobId(self.draw()));
        let bindings = self.broker.bindings();
        let pending = parts.iter().any(|(_, way, _)| matches!(way, Way::Pending));
        let acks =
            acks.map(|(queue, delivery)| (bindings.queue_id(queue), delivery.sequence, delivery.lease));
        let publishes = parts.into_iter().map(|(draft, way, mandatory)| (draft.build(), way, mandatory));
        self.call(Command::Transaction(Transaction {
            publisher: PublisherId(1),
            number,
            connection: ConnectionId(1),
            id: Bytes::copy_from_slice(id.as_bytes()),
            rules: bindings.version(),
            acks: acks.into_iter().collect(),
            publishes: publishes.collect(),
            job: pending.then_some(job),
        }));
        (number, job)
    }

    /// What filters with state wrote and found; whether it was taken.
    #[track_caller]
    pub fn judge(
        &mut self,
        writes: Vec<(&str, Vec<StateWrite>)>,
        jobs: Vec<(JobId, Result<Vec<Filtered>, JudgeError>)>,
    ) -> bool {
        self.judge_all(writes, jobs) == JudgedOutcome::Taken
    }

    /// The same, with what became of it.
    #[track_caller]
    pub fn judge_all(
        &mut self,
        writes: Vec<(&str, Vec<StateWrite>)>,
        jobs: Vec<(JobId, Result<Vec<Filtered>, JudgeError>)>,
    ) -> JudgedOutcome {
        let ticket = Ticket(self.draw());
        let writes = writes.into_iter().map(|(module, writes)| (module.to_owned(), writes)).collect();
        self.call(Command::Judged { ticket, writes, jobs });
        self.judged.remove(&ticket).expect("a judgement is answered at once")
    }

    /// A judgement of one publish that passes it on as it is.
    #[track_caller]
    pub fn let_pass(&mut self, job: JobId, draft: &Draft) {
        let judgement = Filtered { results: vec![self.result(draft.clone())], stateful: true, ..filtered() };
        assert!(self.judge(Vec::new(), vec![(job, Ok(vec![judgement]))]));
    }

    /// A module's state as text.
    pub fn state(&self, module: &str) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).expect("a test's state is text").to_owned();
        let state = self.broker.module_state(module).into_iter().flat_map(ModuleState::iter);
        state.map(|(key, entry)| (text(key), text(&entry.value))).collect()
    }

    /// New rules with these queues and modules; the named states may go.
    #[track_caller]
    pub fn reload_modules(
        &mut self,
        queues: &[Queue],
        modules: &[&str],
        drop_states: &[&str],
    ) -> Result<RulesVersion, RulesRefused> {
        let rules = with_modules(rules(self.broker.rules().version.0 + 1, queues), modules);
        let ticket = Ticket(self.draw());
        let drop_states = drop_states.iter().map(|name| (*name).to_owned()).collect();
        self.call(Command::ApplyRules { ticket, rules, drop_queues: Vec::new(), drop_states });
        self.applied.remove(&ticket).expect("a rules change is answered")
    }

    /// Ids of everything in a queue, in its order.
    pub fn held(&self, queue: &str) -> Vec<String> {
        self.browse(queue).iter().map(|browsed| part(&self.body(&browsed.body), 1)).collect()
    }
}
