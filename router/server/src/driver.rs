//! The driver of one shard: the only owner of broker and journal. Inputs in, records to the journal, effects out when what they
//! wait for is durable. It never reads the disk, and never waits for a session.
//!
//! The broker runs ahead of the disk: while one batch is written and synced, commands fill the next (SEMANTICS, Effects and
//! durability). One batch of commands has one `now`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chaski_broker::{
    Broker, Command, DiskState, Durability, Effect, JobId, JudgeError, JudgedOutcome, Millis, OperateError,
    Output, Position, Progress, PublishError, RulesRefused, RulesVersion, SagaState, SteerError, Ticket,
};
use chaski_journal::{Batch, Journal, Room};
use tokio::sync::{mpsc, oneshot};

use crate::bodies::RecentBodies;
use crate::clock::Clock;
use crate::events;
use crate::held::{HeldEffects, Marks};
use crate::mailboxes::{IdMap, Mailboxes};
use crate::metrics;
use crate::modules::{Ask, Filters};
use crate::progress::ProgressCell;
use crate::shard::{Answered, ConsumerEvent, Input, NewRules, Outcome, Passed, Shared, WeakShard};
use crate::upkeep::Upkeep;

/// Inputs handled before effects go out and the journal is looked at again.
const INPUTS_A_TURN: usize = 32;

/// Records that the broker may pile up before they are encoded. Not after each command: moves of one queue share a record.
const RECORDS_A_GULP: usize = 1024;

/// A batch larger than this takes no more commands until the journal is ready for it.
const BATCH_BYTES: usize = 8 << 20;

/// A batch of this size is queued behind the one that is being synced, so that the disk never waits for the driver.
const QUEUE_BEHIND_BYTES: usize = 256 << 10;

/// Why the driver ended by itself: the state is discarded with the effects that were held.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal failed, so nothing more can be confirmed: {0}; what was confirmed is safe, look at the disk and start again"
)]
pub struct FatalError(pub String);

enum Waiting {
    Operation(oneshot::Sender<Result<Progress, OperateError>>),
    Rules(oneshot::Sender<Result<RulesVersion, RulesRefused>>, Arc<Filters>),
    Steered(oneshot::Sender<Result<SagaState, SteerError>>),
    Judged(oneshot::Sender<JudgedOutcome>),
}

pub(crate) struct Driver {
    pub(crate) broker: Broker,
    pub(crate) journal: Box<dyn Journal>,
    clock: Clock,
    shared: Arc<Shared>,
    shard: WeakShard,
    progress: Arc<ProgressCell>,
    marks: Marks,
    batch: Batch,
    /// Whether somebody waits for the fdatasync of `batch`.
    batch_sync: bool,
    now: Millis,
    output: Output,
    recent: RecentBodies,
    held: HeldEffects,
    publishers: Mailboxes<Answered>,
    /// Whether answers for publishers were left for this turn.
    confirms_wait: bool,
    consumers: Mailboxes<ConsumerEvent>,
    subscriptions: Mailboxes<Passed>,
    /// For aggregators and compensators, until the turn ends.
    asks: Vec<Ask>,
    waiting: IdMap<Waiting>,
    next_ticket: u64,
    /// Commands that effects led to.
    follow_up: Vec<Command>,
    upkeep: Upkeep,
    counts: metrics::PublishCounts,
    syncs: Vec<(u64, Duration)>,
    stopping: Option<oneshot::Sender<()>>,
}

impl Driver {
    /// `output`: what resuming yielded; its records are the first batch.
    pub(crate) fn new(
        broker: Broker,
        journal: Box<dyn Journal>,
        clock: Clock,
        shard: WeakShard,
        progress: Arc<ProgressCell>,
        output: Output,
        upkeep: Upkeep,
    ) -> Driver {
        let (marks, shared) = (progress.marks(), shard.shared());
        let mut driver = Driver {
            broker,
            journal,
            now: Millis(0),
            batch: Batch::new(0),
            clock,
            shared,
            shard,
            progress,
            marks,
            batch_sync: true,
            output,
            recent: RecentBodies::default(),
            held: HeldEffects::default(),
            publishers: Mailboxes::default(),
            confirms_wait: false,
            consumers: Mailboxes::default(),
            subscriptions: Mailboxes::default(),
            asks: Vec::new(),
            waiting: IdMap::default(),
            next_ticket: 1,
            follow_up: Vec::new(),
            upkeep,
            counts: metrics::PublishCounts::default(),
            syncs: Vec::new(),
            stopping: None,
        };
        driver.tick();
        driver.batch = Batch::new(driver.now.0);
        driver.absorb();
        driver
    }

    /// Runs until stopped or the journal fails.
    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> Result<(), FatalError> {
        let mut turn = Vec::with_capacity(INPUTS_A_TURN);
        loop {
            self.submit();
            if self.stopping.is_some()
                && self.batch.is_empty()
                && self.journal.in_flight() == 0
                && self.held.len() == 0
                && !self.publishers.is_dirty()
            {
                break;
            }
            let full = self.batch.bytes() >= BATCH_BYTES;
            let timeout = self.until_timeout();
            tokio::select! {
                biased;
                () = self.progress.changed() => {}
                count = inputs.recv_many(&mut turn, INPUTS_A_TURN), if !full => {
                    if count == 0 && self.stopping.is_none() {
                        // Every handle is gone, so nobody can ask for anything.
                        let (done, _) = oneshot::channel();
                        turn.push(Input::Stop(done));
                    }
                }
                // Once this worker has served those that were woken.
                () = tokio::task::yield_now(), if self.publishers.is_dirty() => {}
                () = tokio::time::sleep(timeout), if !full => {}
            }
            self.listen()?;
            self.turn(&mut turn);
        }
        let stopped = self.stopping.take();
        self.journal.close();
        if let Some(stopped) = stopped {
            let _ = stopped.send(());
        }
        Ok(())
    }

    /// One turn: inputs, timers, effects.
    fn turn(&mut self, inputs: &mut Vec<Input>) {
        self.tick();
        for input in inputs.drain(..) {
            self.input(input);
        }
        for command in std::mem::take(&mut self.follow_up) {
            self.handle(command);
        }
        if self.broker.next_timeout().is_some_and(|due| due <= self.now) {
            self.broker.handle_timeout(self.now, &mut self.output);
        }
        self.absorb();
        self.upkeep.look(self.now, self.marks.synced, &self.broker, &mut *self.journal, &self.shared);
        while let Some(effect) = self.held.release(self.marks) {
            self.perform(effect);
        }
        self.flush();
        if !self.asks.is_empty() {
            match self.shard.upgrade() {
                Some(shard) => self.shared.modules.steer(&mut self.asks, &shard),
                // The router stops.
                None => self.asks.clear(),
            }
        }
        self.counts.record();
    }

    /// Wakes the sessions that something is for. Whoever waits for a delivery or a reply goes first: confirms wait until the next turn,
    /// which comes at once, since waking two sessions at a time costs the first one the waking of another processor.
    fn flush(&mut self) {
        let later = !self.confirms_wait && (self.consumers.is_dirty() || self.subscriptions.is_dirty());
        self.confirms_wait = later && self.publishers.is_dirty();
        if !later {
            self.publishers.flush();
        }
        self.consumers.flush();
        self.subscriptions.flush();
    }

    /// A batch has one `now`: it moves only between batches.
    fn tick(&mut self) {
        if self.batch.is_empty() {
            self.now = self.clock.now();
            self.batch.set_now(self.now.0);
            match self.clock.alarm() {
                Some(detail) => self.raise("clock", detail),
                None => self.clear("clock"),
            }
        }
    }

    fn until_timeout(&self) -> Duration {
        // Upkeep looks at segments once a second; what effects led to waits for nothing.
        let upkeep = Duration::from_secs(1);
        if !self.follow_up.is_empty() || !self.asks.is_empty() {
            return Duration::ZERO;
        }
        match self.broker.next_timeout() {
            Some(due) => Duration::from_millis(due.0.saturating_sub(self.clock.now().0)).min(upkeep),
            None => upkeep,
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Commands(commands) => {
                self.broker.look_ahead(&commands);
                commands.into_iter().for_each(|command| self.handle(command));
            }
            Input::OpenPublisher(id, sender) => self.publishers.open(id.0, sender),
            Input::ClosePublisher(id) => self.publishers.close(id.0),
            Input::OpenConsumer(attach, sender) => {
                self.consumers.open(attach.consumer.0, sender);
                self.handle(Command::Attach(attach));
            }
            Input::CloseConsumer { consumer, release } => {
                self.handle(Command::Detach { consumer, release });
                self.consumers.close(consumer.0);
            }
            Input::OpenSubscription { subscription, connection, pattern, passed } => {
                self.subscriptions.open(subscription.0, passed);
                self.handle(Command::Subscribe { subscription, connection, pattern });
            }
            Input::CloseSubscription(subscription) => {
                self.handle(Command::Unsubscribe { subscription });
                self.subscriptions.close(subscription.0);
            }
            Input::Inspect(look) => look(&self.broker),
            Input::Operate(queue, operation, answer) => {
                let ticket = self.ticket(Waiting::Operation(answer));
                self.handle(Command::Operate { ticket, queue, operation });
            }
            Input::Steer(name, id, verb, answer) => {
                let ticket = self.ticket(Waiting::Steered(answer));
                self.handle(Command::Steer { ticket, name, id, verb });
            }
            Input::ApplyRules(new, answer) => {
                let NewRules { rules, drop_queues, drop_states, filters } = *new;
                let ticket = self.ticket(Waiting::Rules(answer, filters));
                self.handle(Command::ApplyRules { ticket, rules, drop_queues, drop_states });
            }
            Input::Judged(writes, jobs, answer) => {
                let ticket = self.ticket(Waiting::Judged(answer));
                self.handle(Command::Judged { ticket, writes, jobs });
            }
            Input::Relocate(bodies) => {
                self.upkeep.relocated(self.broker.position());
                self.handle(Command::Relocate { bodies });
            }
            Input::Snapshotted(outcome) => self.upkeep.snapshotted(outcome),
            Input::Stop(done) => {
                self.handle(Command::Shutdown);
                self.stopping = Some(done);
            }
        }
    }

    fn ticket(&mut self, waiting: Waiting) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, waiting);
        Ticket(ticket)
    }

    fn handle(&mut self, command: Command) {
        self.broker.handle(self.now, command, &mut self.output);
        if self.output.records.len() >= RECORDS_A_GULP {
            self.absorb();
        }
    }

    /// Takes what the broker yielded: records into the batch, effects to where they wait.
    fn absorb(&mut self) {
        let records = self.output.records.len() as u64;
        let mut position = Position(self.broker.position().0 - records);
        for record in self.output.records.drain(..) {
            position.0 += 1;
            self.batch.push(|buffer| record.encode(buffer));
            self.recent.push(position, record.into_body());
        }
        let mut effects = std::mem::take(&mut self.output.effects);
        for held in effects.drain(..) {
            self.batch_sync |=
                held.wait.durability == Durability::Fsync && held.wait.position > self.marks.synced;
            if let Some(effect) = self.held.hold(held, self.marks) {
                self.perform(effect);
            }
        }
        self.output.effects = effects;
    }

    /// Hands the batch over when the journal is ready for one.
    fn submit(&mut self) {
        let ready = match self.journal.in_flight() {
            0 => true,
            1 => self.batch.bytes() >= QUEUE_BEHIND_BYTES,
            _ => false,
        };
        if ready && !self.batch.is_empty() {
            let mut batch = std::mem::replace(&mut self.batch, Batch::new(self.now.0));
            // The broker counts positions, and the journal checks them.
            let first = self.broker.position().0 + 1 - batch.len() as u64;
            batch.expect_first(chaski_journal::Position(first));
            self.journal.append(batch, std::mem::take(&mut self.batch_sync));
        }
    }

    /// What the journal says.
    fn listen(&mut self) -> Result<(), FatalError> {
        let (marks, failed, room) = self.progress.take(&mut self.syncs);
        if let Some(failure) = failed {
            return Err(FatalError(failure.to_string()));
        }
        self.marks = marks;
        for (bytes, duration) in self.syncs.drain(..) {
            metrics::synced(bytes, duration);
        }
        if let Some(room) = room {
            self.room(room);
        }
        Ok(())
    }

    fn room(&mut self, room: Room) {
        let state = match room {
            Room::Plenty => DiskState::Plenty,
            Room::Low => DiskState::Low,
            Room::Full => DiskState::Full,
        };
        match state {
            DiskState::Plenty => {}
            DiskState::Low => self.raise(
                "disk_low",
                "the disk of the journal is low: publishes are refused until there is room; free some",
            ),
            DiskState::Full => self.raise(
                "disk_full",
                "the disk of the journal is full: nothing that must be journaled is taken; free some",
            ),
        }
        if state != DiskState::Low {
            self.clear("disk_low");
        }
        if state != DiskState::Full {
            self.clear("disk_full");
        }
        self.handle(Command::Disk(state));
    }

    fn raise(&mut self, alarm: &'static str, detail: impl Into<String>) {
        let mut alarms = self.shared.alarms.lock().expect("nobody panics with it");
        if alarms.contains_key(alarm) {
            return;
        }
        let detail = detail.into();
        tracing::warn!(alarm, %detail, "alarm raised");
        alarms.insert(alarm, detail.clone());
        drop(alarms);
        self.follow_up
            .push(Command::Announce { message: events::alarm_raised(alarm, None, &detail, self.now) });
    }

    fn clear(&mut self, alarm: &'static str) {
        let removed = self.shared.alarms.lock().expect("nobody panics with it").remove(alarm);
        if removed.is_some() {
            tracing::info!(alarm, "alarm cleared");
            self.follow_up.push(Command::Announce { message: events::alarm_cleared(alarm, None, self.now) });
        }
    }

    /// Does what an effect says, now that its wait is over.
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Confirm { publisher, number, outcome } => {
                self.counts.add(&outcome);
                self.publishers.post(publisher.0, Answered { number, outcome: Outcome::Publish(outcome) });
            }
            Effect::Transacted { publisher, number, outcome } => {
                self.publishers
                    .post(publisher.0, Answered { number, outcome: Outcome::Transaction(outcome) });
            }
            Effect::Attached { consumer, outcome } => {
                self.consumers.post(consumer.0, ConsumerEvent::Attached(outcome))
            }
            Effect::Detached { consumer } => {
                self.consumers.post(consumer.0, ConsumerEvent::Detached);
            }
            Effect::Deliver { consumer, mut delivery } => {
                if let chaski_broker::Body::At(position) = delivery.body
                    && let Some(body) = self.recent.get(position)
                {
                    delivery.body = chaski_broker::Body::Here(body);
                }
                self.consumers.post(consumer.0, ConsumerEvent::Deliver(delivery));
            }
            Effect::Settled { consumer, number, outcome } => {
                self.consumers.post(consumer.0, ConsumerEvent::Settled { number, outcome });
            }
            Effect::Extended { consumer, lost } => self.consumers.post(consumer.0, ConsumerEvent::Lost(lost)),
            Effect::Pass { subscription, published_at, body, dropped } => {
                self.subscriptions.post(subscription.0, Passed { published_at, body, dropped });
            }
            Effect::Invoke { job } => self.invoke(job),
            Effect::Spare { job } => self.shared.modules.jobs().spare(job),
            Effect::Judged { ticket, outcome } => {
                if let Some(Waiting::Judged(answer)) = self.waiting.remove(&ticket.0) {
                    let _ = answer.send(outcome);
                }
            }
            Effect::RulesApplied { ticket, outcome } => self.rules_applied(ticket, outcome),
            Effect::Done { ticket, outcome } => {
                if let Some(Waiting::Operation(answer)) = self.waiting.remove(&ticket.0) {
                    let _ = answer.send(outcome);
                }
            }
            Effect::Aggregate(call) => self.asks.push(Ask::Aggregate(call)),
            Effect::Gathered { gather } => self.asks.push(Ask::Forget(gather)),
            Effect::Advise(call) => self.asks.push(Ask::Advise(call)),
            Effect::Steered { ticket, outcome } => {
                if let Some(Waiting::Steered(answer)) = self.waiting.remove(&ticket.0) {
                    let _ = answer.send(outcome);
                }
            }
            Effect::DedupWindow { window_ms } => {
                self.shared.notices.send_modify(|notices| notices.dedup_window_ms = window_ms);
            }
            Effect::Reserved { through } => self.follow_up.push(Command::Reserved { through }),
            Effect::Event(event) => {
                events::log(&event);
                self.follow_up.push(Command::Announce { message: events::message(&event, self.now) });
            }
        }
    }

    /// Hands a job to its module's worker, or answers it at once where it can't wait.
    fn invoke(&mut self, job: JobId) {
        let Some(shard) = self.shard.upgrade() else { return };
        if let Some(outcome) = self.shared.modules.invoke(job, &shard) {
            let (answer, _) = oneshot::channel();
            let ticket = self.ticket(Waiting::Judged(answer));
            self.follow_up.push(Command::Judged { ticket, writes: Vec::new(), jobs: vec![(job, outcome)] });
        }
    }

    /// Swaps the sessions' view, then answers.
    fn rules_applied(&mut self, ticket: Ticket, outcome: Result<RulesVersion, RulesRefused>) {
        let Some(Waiting::Rules(answer, filters)) = self.waiting.remove(&ticket.0) else { return };
        if let Ok(version) = outcome {
            let view = crate::start::view(&self.broker, filters);
            self.shared.notices.send_modify(|notices| {
                notices.max_payload = view.max_payload;
                notices.max_headers = view.max_headers;
            });
            self.shared.view.store(Arc::new(view));
            let author = self.broker.rules().author.clone();
            tracing::info!(%version, %author, "rules applied");
            self.follow_up
                .push(Command::Announce { message: events::rules_applied(version, &author, self.now) });
        }
        let _ = answer.send(outcome);
    }
}

/// The sentence that a publisher reads.
pub(crate) fn publish_refusal(error: &PublishError) -> chaski_protocol::Refusal {
    use chaski_protocol::{Code, Refusal};
    match error {
        PublishError::QueueFull { queue } => {
            Refusal::new(Code::QueueFull, format!("queue `{queue}` is full and refuses; nothing was stored"))
        }
        PublishError::Unroutable { topic } => Refusal::new(
            Code::Unroutable,
            format!("no queue or subscription takes the topic `{topic}`; nothing was stored"),
        ),
        PublishError::NoResponders => Code::NoResponders.into(),
        PublishError::DiskLow => Code::DiskLow.into(),
        PublishError::DiskFull => Code::DiskFull.into(),
        PublishError::SagaTooLarge { bytes, limit } => {
            let detail = format!(
                "a message of {bytes} bytes, where a saga keeps at most {limit} (limits.saga_max_payload)"
            );
            Refusal::new(Code::PayloadTooLarge, detail)
        }
        PublishError::Judge(JudgeError::FilterFailed { detail }) => {
            Refusal::new(Code::FilterFailed, detail.clone())
        }
        PublishError::Judge(JudgeError::Busy { detail }) => Refusal::new(Code::Busy, detail.clone()),
        PublishError::Judge(JudgeError::ModuleMissing { detail }) => {
            Refusal::new(Code::ModuleMissing, detail.clone())
        }
    }
}

/// How long something took, for the log.
pub(crate) fn since(start: Instant) -> String {
    format!("{:.1} s", start.elapsed().as_secs_f64())
}
