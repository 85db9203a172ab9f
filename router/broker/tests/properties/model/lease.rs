//! Deliveries, how they end, and what time does.

use super::*;

impl Model {
    pub(crate) fn attach(&mut self, id: ConsumerId, connection: u64, queue: &str, credit: u32) -> bool {
        let Some(found) = self.queues.get_mut(queue) else { return false };
        found.consumers.push(id);
        let consumer = Consumer { queue: queue.to_owned(), connection, credit, unsent: VecDeque::new() };
        self.consumers.insert(id, consumer);
        true
    }

    pub(crate) fn set_credit(&mut self, id: ConsumerId, credit: u32) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.credit = credit;
        }
    }

    pub(crate) fn sent(&mut self, id: ConsumerId, count: u32) {
        for _ in 0..count {
            let Some(lease) = self.consumers.get_mut(&id).and_then(|consumer| consumer.unsent.pop_front())
            else {
                return;
            };
            self.start_lease(id, lease, false);
        }
    }

    /// The leases that are lost.
    pub(crate) fn extend(&mut self, id: ConsumerId, leases: &[(Sequence, Lease)]) -> Vec<(Sequence, Lease)> {
        let mut lost = Vec::new();
        for (sequence, lease) in leases {
            if self.held(id).iter().any(|(_, held, holding)| held == sequence && holding == lease) {
                self.start_lease(id, *lease, true);
            } else {
                lost.push((*sequence, *lease));
            }
        }
        lost
    }

    /// Sets the end of a lease; a renewal only that of one that has begun.
    fn start_lease(&mut self, id: ConsumerId, lease: Lease, renew: bool) {
        let Some(consumer) = self.consumers.get(&id) else { return };
        let (now, queue) = (self.now, consumer.queue.clone());
        let queue = self.queue_mut(&queue);
        let ack_wait_ms = queue.settings.ack_wait_ms;
        for entry in queue.entries.values_mut() {
            if let State::Leased { lease: held, ends, .. } = &mut entry.state
                && *held == lease
                && ends.is_some() == renew
            {
                *ends = Some(now.after(ack_wait_ms));
            }
        }
    }

    /// What a consumer holds: queue, message, lease.
    pub(crate) fn held(&self, id: ConsumerId) -> Vec<(String, Sequence, Lease)> {
        let Some(consumer) = self.consumers.get(&id) else { return Vec::new() };
        let entries = self.queue(&consumer.queue).entries.iter();
        let held = entries.filter_map(|(sequence, entry)| match entry.state {
            State::Leased { consumer: holder, lease, .. } if holder == id => {
                Some((consumer.queue.clone(), *sequence, lease))
            }
            _ => None,
        });
        held.collect()
    }

    pub(crate) fn detach(&mut self, id: ConsumerId, release: bool) {
        for (queue, sequence, _) in self.held(id) {
            if release {
                self.release(&queue, sequence);
            } else {
                self.fail_delivery(&queue, sequence, (0, 0));
            }
        }
        if let Some(consumer) = self.consumers.remove(&id) {
            self.queue_mut(&consumer.queue).consumers.retain(|other| *other != id);
        }
    }

    pub(crate) fn disconnect(&mut self, connection: u64) {
        let theirs = self.consumers.iter().filter(|(_, consumer)| consumer.connection == connection);
        for id in theirs.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.detach(id, false);
        }
        self.subscriptions.retain(|_, subscription| subscription.connection != connection);
    }

    pub(crate) fn settle(
        &mut self,
        id: ConsumerId,
        sequence: Sequence,
        lease: Lease,
        verdict: &Verdict,
    ) -> Result<(), SettleError> {
        let held = self.held(id);
        let found = held.into_iter().find(|(_, held, holding)| (*held, *holding) == (sequence, lease));
        let (name, ..) = found.ok_or(SettleError::LeaseLost)?;
        let queue = self.queue(&name);
        if queue.source.is_some() && matches!(verdict, Verdict::Reject { .. } | Verdict::Fail { .. }) {
            return Err(SettleError::NotAllowed);
        }
        let draft = queue.entries[&sequence].draft.clone();
        let backoff = self.backoff(&name, sequence);
        match verdict {
            Verdict::Ack | Verdict::Complete { .. } => self.ack(&name, sequence),
            Verdict::Nack { delay_ms } => {
                let wait = delay_ms.map_or(backoff, |ms| (ms, ms));
                self.fail_delivery(&name, sequence, wait);
            }
            Verdict::Reject { .. } => self.bury(&name, sequence, DeadReason::Rejected),
            Verdict::Fail { .. } if draft.reply_to.is_some() => {
                self.ack(&name, sequence);
                self.owed.push((draft, "Failed"));
            }
            Verdict::Fail { retryable: true, .. } => self.fail_delivery(&name, sequence, backoff),
            Verdict::Fail { .. } => self.bury(&name, sequence, DeadReason::Rejected),
            Verdict::Release => self.release(&name, sequence),
            Verdict::Failed { .. } => unreachable!("a test of its own"),
        }
        Ok(())
    }

    /// The least and the greatest wait after the current delivery.
    fn backoff(&self, name: &str, sequence: Sequence) -> (u64, u64) {
        let queue = self.queue(name);
        let attempts = queue.entries[&sequence].attempts as usize;
        let steps = &queue.settings.backoff_ms;
        let step = steps[attempts.min(steps.len()) - 1];
        (step - step / 10, step + step / 10)
    }

    pub(crate) fn ack(&mut self, name: &str, sequence: Sequence) {
        let queue = self.queue_mut(name);
        queue.acked += 1;
        let entry = queue.entries.remove(&sequence).expect("it was leased");
        self.settled(name, &entry);
        self.free_key(name, sequence, &entry);
    }

    fn release(&mut self, name: &str, sequence: Sequence) {
        let entry = self.queue_mut(name).entries.get_mut(&sequence).expect("it was leased");
        entry.attempts -= 1;
        entry.state = State::Ready;
    }

    fn fail_delivery(&mut self, name: &str, sequence: Sequence, (least, most): (u64, u64)) {
        let now = self.now;
        let queue = self.queue_mut(name);
        let max = queue.settings.max_deliver;
        let entry = queue.entries.get_mut(&sequence).expect("it was leased");
        if max.is_some_and(|max| entry.attempts >= max) {
            self.bury(name, sequence, DeadReason::MaxDeliver);
            return;
        }
        let delayed = State::Delayed(now.after(least), now.after(most));
        entry.state = if most == 0 { State::Ready } else { delayed };
    }

    /// The broker drew a wait: within the bounds?
    #[track_caller]
    pub(crate) fn know_delay(&mut self, queue: &str, sequence: Sequence, until: Millis) {
        let Some(entry) = self.queues.get_mut(queue).and_then(|queue| queue.entries.get_mut(&sequence))
        else {
            return;
        };
        if let State::Delayed(least, most) = &mut entry.state {
            assert!(
                *least <= until && until <= *most,
                "{sequence} waits until {until}, not {least} to {most}"
            );
            (*least, *most) = (until, until);
        }
    }

    /// A message leaves its queue for the dead-letter queue.
    pub(crate) fn bury(&mut self, name: &str, sequence: Sequence, reason: DeadReason) {
        let now = self.now;
        let queue = self.queue_mut(name);
        assert!(queue.source.is_none(), "a dead letter of {name} dies again");
        queue.died += 1;
        let mut entry = queue.entries.remove(&sequence).expect("it is there");
        let moved = self.next_position();
        self.settled(name, &entry);
        let queue = self.queue_mut(name);
        if queue.settings.on_poison == OnPoison::ParkKey
            && let Some(key) = queue.key(&entry).cloned()
        {
            queue.parked.entry(key).or_default().insert(sequence);
        }
        if entry.draft.reply_to.is_some() {
            self.owed.push((entry.draft.clone(), "Rejected"));
        }
        entry.dead = Some(DeadInfo {
            reason,
            detail: String::new(),
            queue: Some(name.to_owned()),
            route: None,
            scatter: None,
            saga: None,
            module: None,
            digest: None,
            attempts: entry.attempts,
            first_at: entry.first_at.unwrap_or(now),
            last_at: now,
        });
        let letter =
            Entry { state: State::Ready, scheduled: false, attempts: 0, first_at: None, moved, ..entry };
        let letters = format!("{name}.dlq");
        let fits = self.make_room(&letters);
        self.queue_mut(&letters).entries.insert(sequence, letter);
        if !fits {
            self.evict(&letters, sequence);
        }
    }

    /// A dead letter is none any more.
    pub(crate) fn free_key(&mut self, name: &str, sequence: Sequence, entry: &Entry) {
        let source = self.queue(name).source.clone();
        if let (Some(source), Some(key)) = (source, &entry.draft.key)
            && let Some(source_queue) = self.queues.get_mut(&source)
            && let Some(letters) = source_queue.parked.get_mut(key)
        {
            letters.remove(&sequence);
            if letters.is_empty() {
                source_queue.parked.remove(key);
            }
        }
    }

    /// The broker delivers: was it the next one, and to somebody who may have it?
    #[track_caller]
    pub(crate) fn delivered(&mut self, wait: Wait, id: ConsumerId, delivery: &Delivery, call: &Call) {
        let now = self.now;
        let Delivery { sequence, lease, .. } = *delivery;
        let consumer =
            self.consumers.get(&id).unwrap_or_else(|| panic!("{id} is gone, and gets {delivery:?}"));
        let name = consumer.queue.clone();
        assert!(self.may_take(id), "{id} may not take {delivery:?} of {name}");
        let queue = self.queue_mut(&name);
        assert!(!queue.paused, "{name} is paused");
        assert_eq!(queue.next(), Some(sequence), "the next one of {name}");
        assert_eq!(wait.durability.min(queue.settings.durability), queue.settings.durability);
        let max_deliver = queue.settings.max_deliver;
        let entry = queue.entries.get_mut(&sequence).expect("it is the next one");
        assert!(max_deliver.is_none_or(|max| delivery.attempt <= max), "attempts beyond max_deliver");
        assert_eq!(delivery.attempt, entry.attempts + 1, "attempt of {sequence} in {name}");
        assert_eq!(delivery.redelivered, entry.redelivered, "redelivered of {sequence} in {name}");
        assert_eq!(delivery.published_at, entry.published_at);
        assert_eq!(delivery.dead.as_deref().map(without_detail), entry.dead);
        let position = call.positions.get(&sequence);
        assert!(
            wait.durability == Durability::Memory
                || position.is_none_or(|position| wait.position >= *position),
            "the delivery of {sequence} in {name} waits for less than its record"
        );
        if queue.settings.durability != Durability::Memory {
            assert!(
                wait.position.0 >= entry.moved,
                "{sequence} moved to {name} by a record of {}",
                entry.moved
            );
            let settled = entry.draft.key.as_ref().and_then(|key| queue.settled.get(key)).copied();
            assert!(
                wait.position.0 >= settled.unwrap_or(0),
                "{sequence} of {name} waits for {wait:?}, not for the record that settled its key's previous message"
            );
        }
        entry.attempts += 1;
        entry.redelivered = true;
        entry.first_at.get_or_insert(now);
        entry.scheduled = false;
        entry.state = State::Leased { consumer: id, lease, ends: None };
        self.consumers.get_mut(&id).expect("it was just found").unsent.push_back(lease);
    }

    /// What would be delivered now, and lived out its time or was delivered as often as new rules permit, dies instead.
    pub(crate) fn bury_worn_out(&mut self) {
        for name in self.queues.keys().cloned().collect::<Vec<_>>() {
            loop {
                let queue = self.queue(&name);
                let wanted = !queue.paused && queue.consumers.iter().any(|id| self.may_take(*id));
                let Some(sequence) = queue.next().filter(|_| wanted) else { break };
                let entry = &queue.entries[&sequence];
                let reason = if queue.expires(entry).is_some_and(|at| at <= self.now) {
                    DeadReason::Expired
                } else if queue.settings.max_deliver.is_some_and(|max| entry.attempts >= max) {
                    DeadReason::MaxDeliver
                } else {
                    break;
                };
                self.bury(&name, sequence, reason);
                self.answer_owed();
            }
        }
    }

    fn may_take(&self, id: ConsumerId) -> bool {
        let consumer = &self.consumers[&id];
        let queue = self.queue(&consumer.queue);
        let first = queue.consumers.first() == Some(&id);
        (self.held(id).len() as u32) < consumer.credit && (!queue.settings.single_active || first)
    }

    /// Nobody who could have a message is left without.
    #[track_caller]
    pub(crate) fn nothing_undelivered(&self) {
        for (name, queue) in self.queues.iter().filter(|(_, queue)| !queue.paused) {
            let taker = queue.consumers.iter().find(|id| self.may_take(**id));
            if let (Some(taker), Some(sequence)) = (taker, queue.next()) {
                panic!("{taker} could have {sequence} of {name}");
            }
        }
    }

    /// Whatever is due happens, in each queue in order of time: a full dead-letter queue keeps the last to die.
    pub(crate) fn timeouts(&mut self) {
        for name in self.queues.keys().cloned().collect::<Vec<_>>() {
            while let Some((_, sequence)) = self.queue(&name).first_due(self.now) {
                if matches!(self.queue(&name).entries[&sequence].state, State::Leased { .. }) {
                    self.end_leases(&name);
                    continue;
                }
                let now = self.now;
                let queue = self.queue_mut(&name);
                if queue.expires(&queue.entries[&sequence]).is_some_and(|at| at <= now) {
                    self.bury(&name, sequence, DeadReason::Expired);
                    continue;
                }
                let entry = queue.entries.get_mut(&sequence).expect("it is due");
                entry.state = State::Ready;
                entry.scheduled = false;
            }
        }
    }

    /// All leases of a queue that are over end, the first to be over first.
    fn end_leases(&mut self, name: &str) {
        let mut over: Vec<(Millis, Lease, Sequence)> = self
            .queue(name)
            .entries
            .iter()
            .filter_map(|(sequence, entry)| match entry.state {
                State::Leased { ends: Some(ends), lease, .. } => Some((ends, lease, *sequence)),
                _ => None,
            })
            .filter(|(ends, ..)| *ends <= self.now)
            .collect();
        over.sort();
        for (_, _, sequence) in over {
            let backoff = self.backoff(name, sequence);
            self.fail_delivery(name, sequence, backoff);
        }
    }

    /// When something happens by itself.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        self.queues.values().filter_map(|queue| queue.first_due(Millis(u64::MAX))).map(|(due, _)| due).min()
    }
}

/// Sentences are the broker's own.
pub(crate) fn without_detail(info: &DeadInfo) -> DeadInfo {
    DeadInfo { detail: String::new(), ..info.clone() }
}
