//! Messages and rules as the tests write them. A test's block is text, `topic|id|key|reply_to|correlation|payload`, so that a
//! delivered body can be read again.

use bytes::Bytes;
use chaski_broker::{
    Durability, Fields, Message, Millis, OnPoison, Ordering, Overflow, Own, QueueSettings, Rules,
    RulesVersion, ShardLimits, Span, StepContent,
};

/// A message to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    pub topic: String,
    pub id: String,
    pub key: Option<String>,
    pub reply_to: Option<String>,
    pub correlation: Option<String>,
    pub priority: u8,
    pub ttl_ms: Option<u64>,
    pub deliver_at: Option<Millis>,
    pub payload: String,
}

/// A message of priority 4 with nothing else.
pub fn draft(topic: &str, id: &str) -> Draft {
    Draft { topic: topic.into(), id: id.into(), priority: 4, ..Draft::default() }
}

impl Draft {
    pub fn key(self, key: &str) -> Draft {
        Draft { key: Some(key.into()), ..self }
    }

    pub fn reply_to(self, topic: &str) -> Draft {
        Draft { reply_to: Some(topic.into()), ..self }
    }

    pub fn correlation(self, id: &str) -> Draft {
        Draft { correlation: Some(id.into()), ..self }
    }

    pub fn priority(self, priority: u8) -> Draft {
        Draft { priority, ..self }
    }

    pub fn ttl(self, ms: u64) -> Draft {
        Draft { ttl_ms: Some(ms), ..self }
    }

    pub fn deliver_at(self, at: Millis) -> Draft {
        Draft { deliver_at: Some(at), ..self }
    }

    pub fn payload(self, payload: &str) -> Draft {
        Draft { payload: payload.into(), ..self }
    }

    /// What a block and its fields say.
    pub fn of(message: &Message) -> Draft {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).expect("a test's block is text").to_owned();
        Draft {
            topic: text(message.topic()),
            id: text(message.id()),
            key: message.key().map(text),
            reply_to: message.reply_to().map(text),
            correlation: message.correlation_id().map(text),
            priority: message.fields.priority,
            ttl_ms: message.fields.ttl_ms,
            deliver_at: message.fields.deliver_at,
            payload: part(&message.body, 5),
        }
    }

    /// The block and its fields.
    pub fn build(&self) -> Message {
        let parts = [
            Some(self.topic.as_str()),
            Some(self.id.as_str()),
            self.key.as_deref(),
            self.reply_to.as_deref(),
            self.correlation.as_deref(),
            Some(self.payload.as_str()),
        ];
        let (mut body, mut spans) = (String::new(), [None; 6]);
        for (part, span) in parts.into_iter().zip(&mut spans) {
            if let Some(part) = part {
                *span = Some(Span { start: body.len() as u32, len: part.len() as u32 });
                body.push_str(part);
            }
            body.push('|');
        }
        let [topic, id, key, reply_to, correlation_id, _] = spans;
        let fields = Fields {
            topic: topic.expect("it is always there"),
            id: id.expect("it is always there"),
            key,
            reply_to,
            correlation_id,
            priority: self.priority,
            ttl_ms: self.ttl_ms,
            deliver_at: self.deliver_at,
        };
        Message { body: Bytes::from(body), fields }
    }
}

/// One part of a block: 0 topic, 1 id, 2 key, 3 reply_to, 4 correlation id, 5 payload.
pub fn part(body: &[u8], number: usize) -> String {
    let text = std::str::from_utf8(body).expect("a test's block is text");
    text.split('|').nth(number).expect("a test's block has six parts").to_owned()
}

/// What the broker itself says, as a test's block.
pub fn render(own: Own<'_>) -> Message {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match own {
        Own::Status(reply) => {
            let payload = format!("{:?}: {}", reply.status, reply.reason);
            draft(reply.reply_to, &format!("status-{}", reply.sequence))
                .correlation(reply.request_id)
                .payload(&payload)
                .build()
        }
        Own::Asked(asked) => {
            let mut draft = Draft::of(asked.request).reply_to(asked.reply_to);
            draft.priority = asked.priority.unwrap_or(draft.priority);
            draft.ttl_ms = asked.ttl_ms.or(draft.ttl_ms);
            draft.build()
        }
        Own::Answer(answer) => {
            let counts = format!("{}/{}/{}", answer.asked, answer.answered, answer.failed);
            let payload = format!("{} ({counts})", text(answer.payload));
            draft(answer.reply_to, &format!("answer-{}", answer.sequence))
                .correlation(answer.request_id)
                .payload(&payload)
                .build()
        }
        Own::Step(step) => {
            let undo = if step.undo.is_some() { "/undo" } else { "" };
            let id = format!("{}/{}/{}{undo}/{}", step.name, step.id, step.step, step.attempt);
            let payload = match step.payload {
                StepContent::Input => part(&step.input.body, 5),
                StepContent::Bytes(bytes) => text(bytes),
                StepContent::All { results, failed } => {
                    let results: Vec<String> =
                        results.iter().map(|(name, bytes)| format!("{name}={}", text(bytes))).collect();
                    let failed =
                        failed.map(|(step, why)| format!(" failed {step}: {why}")).unwrap_or_default();
                    format!("{} [{}]{failed}", part(&step.input.body, 5), results.join(" "))
                }
            };
            draft(step.queue, &id).payload(&payload).build()
        }
        Own::Outcome(outcome) => {
            let results: Vec<String> =
                outcome.results.iter().map(|(name, bytes)| format!("{name}={}", text(bytes))).collect();
            let failed =
                outcome.failed.map(|(step, why)| format!(" failed {step}: {why}")).unwrap_or_default();
            let undone = outcome.compensated.join(" ");
            let payload =
                format!("{} [{}]{failed} undone [{undone}]", outcome.state.name(), results.join(" "));
            draft(outcome.reply_to, &format!("outcome-{}", outcome.sequence))
                .correlation(outcome.id)
                .payload(&payload)
                .build()
        }
        Own::Progress(progress) => {
            let step = progress.line.step.as_deref().unwrap_or("-");
            let payload = format!("{} {step} {}", progress.state.name(), progress.line.what);
            draft(progress.topic, &format!("progress-{}", progress.sequence)).payload(&payload).build()
        }
    }
}

/// A queue to be, with DESIGN's defaults.
#[derive(Clone, Debug)]
pub struct Queue {
    pub name: String,
    pub settings: QueueSettings,
}

/// A queue bound to its own name.
pub fn queue(name: &str) -> Queue {
    let settings = QueueSettings {
        bind: vec![name.to_owned()],
        durability: Durability::Fsync,
        ordering: Ordering::None,
        on_poison: OnPoison::Continue,
        single_active: false,
        max_deliver: Some(5),
        ack_wait_ms: 30_000,
        backoff_ms: vec![1_000, 5_000, 30_000, 120_000],
        dedup_window_ms: 120_000,
        ttl_ms: None,
        max_messages: None,
        max_bytes: None,
        overflow: Overflow::Reject,
        dead_alarm: Some(1),
        dead_max_messages: None,
        dead_max_bytes: None,
    };
    Queue { name: name.to_owned(), settings }
}

impl Queue {
    /// Changes its settings.
    pub fn with(mut self, change: impl FnOnce(&mut QueueSettings)) -> Queue {
        change(&mut self.settings);
        self
    }

    pub fn bind(self, patterns: &[&str]) -> Queue {
        self.with(|settings| settings.bind = patterns.iter().map(|pattern| (*pattern).to_owned()).collect())
    }

    pub fn durability(self, durability: Durability) -> Queue {
        self.with(|settings| settings.durability = durability)
    }

    pub fn by_key(self) -> Queue {
        self.with(|settings| settings.ordering = Ordering::Key)
    }

    pub fn park_key(self) -> Queue {
        self.with(|settings| (settings.ordering, settings.on_poison) = (Ordering::Key, OnPoison::ParkKey))
    }

    pub fn max_deliver(self, max: u32) -> Queue {
        self.with(|settings| settings.max_deliver = Some(max))
    }

    pub fn max_messages(self, max: u64, overflow: Overflow) -> Queue {
        self.with(|settings| (settings.max_messages, settings.overflow) = (Some(max), overflow))
    }

    pub fn ttl(self, ms: u64) -> Queue {
        self.with(|settings| settings.ttl_ms = Some(ms))
    }
}

/// A document of these queues.
pub fn rules(version: u64, queues: &[Queue]) -> Rules {
    Rules {
        version: RulesVersion(version),
        author: "test".into(),
        document: format!("# {version}"),
        queues: queues.iter().map(|queue| (queue.name.clone(), queue.settings.clone())).collect(),
        limits: ShardLimits::default(),
        modules: Vec::new(),
        failed: Vec::new(),
        scatters: Vec::new(),
        sagas: Vec::new(),
    }
}
