//! A new version of the rules: checked against what the queues hold, applied whole. It knows settings, not TOML.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::apply::ApplyError;
use crate::begins::Begins;
use crate::bindings::Bindings;
use crate::broker::Broker;
use crate::config::{Durability, ModulePin, OnPoison, Ordering, Overflow, QueueSettings, Rules, ShardLimits};
use crate::effect::{Effect, Held, Output, RulesRefused, Wait};
use crate::gather::{Phase, Stand};
use crate::ids::{Millis, QueueId, RulesVersion, Sequence, Ticket};
use crate::publish::LEAST_WINDOW_MS;
use crate::queue::{Kind, Queue};
use crate::queues::CHASKI;
use crate::record::Record;

/// Versions that are kept.
const HISTORY: usize = 100;

/// How the author of a version begins that came of a rules file.
pub const FILE_AUTHOR: &str = "file ";

/// One version of the rules, as history shows it.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct RulesEntry {
    /// Its number.
    pub version: RulesVersion,
    /// Who made it.
    pub author: String,
    /// When.
    pub applied_at: Millis,
    /// The document's text.
    pub document: String,
    /// The modules' binaries.
    pub modules: Vec<ModulePin>,
}

/// What may vanish with a change of the rules, though it is not empty.
#[derive(Copy, Clone)]
pub(crate) struct Drops<'a> {
    pub(crate) queues: &'a [String],
    pub(crate) states: &'a [String],
}

impl Broker {
    pub(crate) fn change_rules(
        &mut self,
        now: Millis,
        ticket: Ticket,
        rules: Rules,
        drops: Drops<'_>,
        output: &mut Output,
    ) {
        let version = rules.version;
        let (wait, outcome) = match self.check_rules(&rules, drops) {
            Ok(()) => {
                self.drop_states(drops.states, output);
                self.apply_live_rules(now, rules, output);
                (Wait { position: self.position, durability: Durability::Fsync }, Ok(version))
            }
            Err(refused) => (Wait::NOTHING, Err(refused)),
        };
        output.effects.push(Held { wait, effect: Effect::RulesApplied { ticket, outcome } });
    }

    fn check_rules(&self, rules: &Rules, drops: Drops<'_>) -> Result<(), RulesRefused> {
        if self.disk == crate::command::DiskState::Full {
            return Err(RulesRefused::DiskFull);
        }
        if rules.version.0 != self.rules.version.0 + 1 {
            return Err(RulesRefused::Version(self.rules.version));
        }
        let kept: BTreeSet<&str> = rules.queues.iter().map(|(name, _)| &**name).collect();
        for queue in self.queues.by_name() {
            let Kind::Ordinary { dead } = queue.kind else { continue };
            let messages = queue.len() + self.queues.queue(dead).len();
            let may_go = drops.queues.iter().any(|name| **name == *queue.name);
            if !kept.contains(&*queue.name) && messages > 0 && !may_go {
                return Err(RulesRefused::NotEmpty { queue: queue.name.to_string(), messages });
            }
        }
        self.check_needed(&kept)?;
        for (module, state) in self.states.iter() {
            if !rules.names(module) && !drops.states.iter().any(|name| name == module) {
                return Err(RulesRefused::StateNotEmpty { module: module.to_owned(), bytes: state.bytes() });
            }
        }
        for (name, settings) in &rules.queues {
            let Some(queue) = self.queues.id(name).map(|id| self.queues.queue(id)) else { continue };
            let Kind::Ordinary { dead } = queue.kind else { continue };
            let in_use = |setting| RulesRefused::InUse { queue: name.clone(), setting };
            if settings.ordering != queue.settings.ordering && queue.len() > 0 {
                return Err(in_use("ordering"));
            }
            // Dead letters are kept with their queue's durability.
            let held = queue.len() + self.queues.queue(dead).len();
            if settings.durability != queue.settings.durability && held > 0 {
                return Err(in_use("durability"));
            }
        }
        Ok(())
    }

    /// Queues that gathers and sagas under way send to can't go.
    fn check_needed(&self, kept: &BTreeSet<&str>) -> Result<(), RulesRefused> {
        let gone = |name: &str| !kept.contains(name) && self.queues.id(name).is_some();
        if !self.queues.by_name().any(|queue| !queue.is_dead() && gone(&queue.name)) {
            return Ok(());
        }
        for (_, gather) in self.gathers.rows().iter().filter(|(_, gather)| gather.phase == Phase::Open) {
            let asked =
                gather.recipients.iter().filter(|one| one.queue.is_some() && one.stand == Stand::Asked);
            if let Some(one) = asked.into_iter().find(|one| gone(&one.name)) {
                let (queue, by) = (one.name.to_string(), gather.scatter.to_string());
                return Err(RulesRefused::Needed { queue, by });
            }
        }
        for (_, saga) in self.sagas.rows().iter().filter(|(_, saga)| !saga.phase.is_over()) {
            let steps = saga.settings.steps.iter();
            let mut queues = steps.flat_map(|step| [Some(&step.queue), step.compensate.as_ref()]).flatten();
            if let Some(queue) = queues.find(|queue| gone(queue)) {
                return Err(RulesRefused::Needed { queue: queue.clone(), by: saga.name.to_string() });
            }
        }
        Ok(())
    }

    fn apply_live_rules(&mut self, now: Millis, rules: Rules, output: &mut Output) {
        // Whose time to live changes: their timers are set under the new one, a few at a time.
        let changed: Vec<QueueId> = rules
            .queues
            .iter()
            .filter_map(|(name, settings)| {
                let queue = self.queues.queue(self.queues.id(name)?);
                (queue.settings.ttl_ms != settings.ttl_ms).then_some(queue.id)
            })
            .collect();
        let kept: BTreeSet<&str> = rules.queues.iter().map(|(name, _)| &**name).collect();
        let gone: Vec<QueueId> = self
            .queues
            .iter()
            .filter(|queue| matches!(queue.kind, Kind::Ordinary { .. }) && !kept.contains(&*queue.name))
            .flat_map(|queue| match queue.kind {
                Kind::Ordinary { dead } => [queue.id, dead],
                Kind::Dead { .. } => [queue.id; 2],
            })
            .collect();
        for slot in self.consumers.slots(|consumer| gone.contains(&consumer.queue)) {
            let consumer = self.consumers.remove(slot).expect("it was just listed");
            output
                .effects
                .push(Held { wait: Wait::NOTHING, effect: Effect::Detached { consumer: consumer.id } });
        }
        self.commit(Record::Rules { at: now, rules: Box::new(rules) }, true, output);
        self.retimings.retain(|(id, _)| !changed.contains(id));
        self.retimings.extend(changed.into_iter().map(|id| (id, 0)));
        // Limits and single_active may let somebody take more, or another take over.
        for slot in self.consumers.slots(|_| true) {
            self.enlist(slot);
        }
        self.recount_alarms();
    }

    /// The change itself, live and in replay.
    pub(crate) fn apply_rules(&mut self, at: Millis, rules: &Rules) -> Result<(), ApplyError> {
        let current = self.rules.version.0;
        if rules.version.0 != current + 1 {
            return Err(ApplyError::Rules { current, found: rules.version.0 });
        }
        let kept: BTreeSet<&str> = rules.queues.iter().map(|(name, _)| &**name).collect();
        let reserved = kept.iter().find(|name| **name == "chaski" || name.ends_with(".dlq"));
        if let Some(name) = reserved {
            return Err(ApplyError::Name((*name).to_owned()));
        }
        let gone: Vec<(QueueId, QueueId)> = self
            .queues
            .iter()
            .filter(|queue| !kept.contains(&*queue.name))
            .filter_map(|queue| match queue.kind {
                Kind::Ordinary { dead } => Some((queue.id, dead)),
                Kind::Dead { .. } => None,
            })
            .collect();
        for (id, dead) in gone {
            self.drop_queue(id);
            self.drop_queue(dead);
        }
        for (name, settings) in &rules.queues {
            self.set_queue(name, settings);
        }
        self.queues.queue_mut(CHASKI).settings = Arc::new(chaski_settings(&rules.limits));
        self.dedup.set_max(rules.limits.dedup_max_entries);
        self.history.push_back(Arc::new(RulesEntry {
            version: rules.version,
            author: rules.author.clone(),
            applied_at: at,
            document: rules.document.clone(),
            modules: rules.modules.clone(),
        }));
        if self.history.len() > HISTORY {
            self.forget_a_version();
        }
        // A module's state goes with its name.
        self.states.retain(|module| rules.names(module));
        self.rules = Arc::new(rules.clone());
        if self.live {
            self.bind();
        }
        Ok(())
    }

    /// The oldest version goes. The last that came of each file stays, since it tells at a start whether the file has changed: many
    /// deploys must not make a restart apply it once more.
    fn forget_a_version(&mut self) {
        let last_of_its_file = |at: usize| {
            let author = &self.history[at].author;
            author.starts_with(FILE_AUTHOR)
                && !self.history.range(at + 1..).any(|later| later.author == *author)
        };
        let oldest = (0..self.history.len() - 1).find(|at| !last_of_its_file(*at)).unwrap_or(0);
        self.history.remove(oldest);
    }

    fn set_queue(&mut self, name: &str, settings: &QueueSettings) {
        let dead_settings = Arc::new(dead_settings(settings));
        let settings = Arc::new(settings.clone());
        if let Some(queue) = self.queues.id(name).map(|id| self.queues.queue_mut(id)) {
            queue.settings = settings;
            if let Kind::Ordinary { dead } = queue.kind {
                self.queues.queue_mut(dead).settings = dead_settings;
            }
            return;
        }
        let id = self.queues.next_id();
        let dead = QueueId(id.0 + 1);
        self.queues.insert(Queue::new(id, name, Kind::Ordinary { dead }, settings, self.hash_key));
        let kind = Kind::Dead { source: Some(id) };
        self.queues.insert(Queue::new(dead, &format!("{name}.dlq"), kind, dead_settings, self.hash_key));
    }

    /// The queue is gone at once. Live, its messages are let go a few at a time.
    fn drop_queue(&mut self, id: QueueId) {
        let Some(queue) = self.queues.remove(id) else { return };
        if self.live {
            self.drains.push(queue);
            return;
        }
        for (sequence, _) in queue.entries.iter() {
            self.messages.let_go(Sequence(sequence));
        }
    }

    /// Makes the bindings of the current rules.
    pub(crate) fn bind(&mut self) {
        let whole = self.window_told_ms == self.wanted_window_ms;
        let windows = self.queues.iter().map(|queue| queue.settings.dedup_window_ms);
        self.wanted_window_ms = windows.fold(LEAST_WINDOW_MS, u64::max);
        if whole {
            self.window_told_ms = self.wanted_window_ms;
        }
        let mut bindings = Bindings::new(self.rules.version, self.hash_key);
        for queue in self.queues.iter() {
            bindings.name(&queue.name, queue.id);
        }
        for (name, settings) in &self.rules.queues {
            let id = self.queues.id(name).expect("the rules' queues exist");
            bindings.bind(id, &settings.bind);
        }
        self.begins = Begins::new(self.hash_key, &self.rules, &bindings);
        self.bindings = Arc::new(bindings);
    }
}

/// A dead-letter queue's settings, from its queue's.
pub(crate) fn dead_settings(settings: &QueueSettings) -> QueueSettings {
    QueueSettings {
        bind: Vec::new(),
        ordering: Ordering::None,
        on_poison: OnPoison::Continue,
        single_active: false,
        max_deliver: None,
        ttl_ms: None,
        max_messages: settings.dead_max_messages,
        max_bytes: settings.dead_max_bytes,
        overflow: Overflow::DropOldest,
        dead_alarm: None,
        dead_max_messages: None,
        dead_max_bytes: None,
        ..settings.clone()
    }
}

/// The settings of `chaski.dlq`.
pub(crate) fn chaski_settings(limits: &ShardLimits) -> QueueSettings {
    QueueSettings {
        bind: Vec::new(),
        durability: Durability::Fsync,
        ordering: Ordering::None,
        on_poison: OnPoison::Continue,
        single_active: false,
        max_deliver: None,
        ack_wait_ms: 30_000,
        backoff_ms: vec![1_000, 5_000, 30_000, 120_000],
        dedup_window_ms: LEAST_WINDOW_MS,
        ttl_ms: None,
        max_messages: None,
        max_bytes: Some(limits.chaski_dlq_max_bytes),
        overflow: Overflow::DropOldest,
        dead_alarm: None,
        dead_max_messages: None,
        dead_max_bytes: None,
    }
}
