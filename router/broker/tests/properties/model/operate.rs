//! Rules and operators' commands.

use super::*;

impl Model {
    pub(crate) fn apply(&mut self, rules: &Rules, drop: &[String]) -> Result<RulesVersion, RulesRefused> {
        if rules.version.0 != self.rules.version.0 + 1 {
            return Err(RulesRefused::Version(self.rules.version));
        }
        let kept = |name: &str| rules.queues.iter().any(|(kept, _)| kept == name);
        let held = |name: &String| {
            let letters = self.queues.get(&format!("{name}.dlq")).map_or(0, |queue| queue.entries.len());
            (self.queue(name).entries.len() + letters) as u64
        };
        let ordinary: Vec<String> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.source.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        for name in &ordinary {
            if !kept(name) && held(name) > 0 && !drop.contains(name) {
                return Err(RulesRefused::NotEmpty { queue: name.clone(), messages: held(name) });
            }
        }
        for name in ordinary.iter().filter(|name| !kept(name)) {
            for name in [name.clone(), format!("{name}.dlq")] {
                let queue = self.queues.remove(&name).expect("both are there");
                for consumer in queue.consumers {
                    self.consumers.remove(&consumer);
                }
            }
        }
        for (name, settings) in &rules.queues {
            let letters = dead_settings(settings);
            match self.queues.get_mut(name) {
                Some(queue) => {
                    queue.settings = settings.clone();
                    self.queue_mut(&format!("{name}.dlq")).settings = letters;
                }
                None => {
                    self.queues.insert(name.clone(), Queue::new(settings.clone(), None));
                    self.queues.insert(format!("{name}.dlq"), Queue::new(letters, Some(name.clone())));
                }
            }
        }
        self.rules = rules.clone();
        Ok(rules.version)
    }

    /// `name` is an ordinary queue.
    pub(crate) fn operate(&mut self, name: &str, operation: &Operation) -> Result<Progress, OperateError> {
        let letters = format!("{name}.dlq");
        let one = Progress { count: 1, ..Progress::default() };
        match operation {
            Operation::Purge { limit } => Ok(self.purge(name, *limit)),
            Operation::PurgeDead { limit } => Ok(self.purge(&letters, *limit)),
            Operation::Pause | Operation::Resume => {
                self.queue_mut(name).paused = matches!(operation, Operation::Pause);
                Ok(one)
            }
            Operation::Cancel { id } => {
                let queue = self.queue_mut(name);
                let found = queue.entries.iter().filter(|(_, entry)| {
                    entry.draft.id.as_bytes() == &id[..] && !matches!(entry.state, State::Leased { .. })
                });
                // What waits for its time goes first.
                let found = found.min_by_key(|(sequence, entry)| (!entry.scheduled, **sequence));
                let sequence = found.map(|(sequence, _)| *sequence).ok_or(OperateError::UnknownId)?;
                let entry = self.queue_mut(name).entries.remove(&sequence).expect("it was just found");
                self.settled(name, &entry);
                Ok(one)
            }
            Operation::Unpark { key } => {
                let key = std::str::from_utf8(key).expect("a test's key is text");
                self.queue_mut(name).parked.remove(key).map(|_| one).ok_or(OperateError::UnknownId)
            }
            Operation::Redrive { select, limit } => Ok(self.redrive(name, &letters, select, *limit)),
            Operation::RedriveEdited { .. } | Operation::RedriveAs { .. } => {
                unreachable!("a test of its own")
            }
        }
    }

    fn purge(&mut self, name: &str, limit: u64) -> Progress {
        let mut progress = Progress::default();
        while let Some(sequence) = self.queue(name).oldest_unleased() {
            if progress.count == limit {
                progress.more = true;
                break;
            }
            let entry = self.queue_mut(name).entries.remove(&sequence).expect("it was just found");
            self.settled(name, &entry);
            self.free_key(name, sequence, &entry);
            progress.count += 1;
        }
        progress
    }

    fn redrive(&mut self, name: &str, letters: &str, select: &Select, limit: u64) -> Progress {
        let now = self.now;
        let chosen: Vec<Sequence> = self
            .queue(letters)
            .entries
            .iter()
            .filter(|(sequence, entry)| {
                let info = entry.dead.as_ref().expect("a dead letter says why");
                !matches!(entry.state, State::Leased { .. })
                    && info.reason != DeadReason::FilterError
                    && select.reason.is_none_or(|reason| reason == info.reason)
                    && select.id.as_ref().is_none_or(|id| entry.draft.id.as_bytes() == &id[..])
                    && select.through.is_none_or(|through| **sequence <= through)
            })
            .map(|(sequence, _)| *sequence)
            .collect();
        let mut progress = Progress { more: chosen.len() as u64 > limit, ..Progress::default() };
        for sequence in chosen.into_iter().take(limit as usize) {
            if !self.queue(letters).entries.contains_key(&sequence) {
                continue;
            }
            if self.queue(name).settings.overflow == Overflow::Reject && self.queue(name).full(1) {
                (progress.full, progress.more) = (true, true);
                break;
            }
            let Some(entry) = self.queue_mut(letters).entries.remove(&sequence) else { continue };
            self.free_key(letters, sequence, &entry);
            let due = entry.draft.deliver_at.filter(|due| *due > now);
            let entry = Entry {
                state: due.map_or(State::Ready, |due| State::Delayed(due, due)),
                attempts: 0,
                first_at: None,
                lives_from: due.unwrap_or(now),
                dead: None,
                scheduled: due.is_some(),
                moved: self.next_position(),
                ..entry
            };
            self.queue_mut(name).entries.insert(sequence, entry);
            while self.queue(name).full(0) {
                let free = |entry: &Entry| !matches!(entry.state, State::Leased { .. });
                let mut others = self.queue(name).entries.iter();
                let other = others.find(|(other, entry)| **other != sequence && free(entry));
                let evicted = other.map_or(sequence, |(other, _)| *other);
                self.evict(name, evicted);
            }
            progress.count += 1;
        }
        progress
    }
}

/// SEMANTICS, Dead letters: what a dead-letter queue has of its queue.
pub(super) fn dead_settings(settings: &QueueSettings) -> QueueSettings {
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
        ..settings.clone()
    }
}
