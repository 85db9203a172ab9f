//! What the broker shows of its gathers and sagas. Changes nothing.

use crate::begins::Begin;
use crate::broker::Broker;
use crate::gather::{Gather, Outcome, Phase, Stand};
use crate::ids::Sequence;
use crate::saga::{Line, Saga};
use crate::views::{
    GatherState, GatherView, RecipientState, RecipientView, SagaPage, SagaState, SagaSummary, SagaView,
    StepView, TimelineView,
};

/// Sagas that one look goes through: less than a millisecond, for which publishes wait.
const SAGAS_A_LOOK: usize = 1_000;

impl Broker {
    /// Gathers after this number, in order, with their numbers; those that are remembered among them.
    pub fn gathers(&self, after: Sequence, limit: usize) -> Vec<(Sequence, GatherView)> {
        let rows = self.gathers.rows().range(after.0.saturating_add(1)..).take(limit);
        rows.map(|(number, gather)| (Sequence(number), gather.view())).collect()
    }

    /// The latest gather that a message with this id began.
    pub fn gather(&self, id: &str) -> Option<GatherView> {
        let of_topic = |topic| self.gathers.of_request(self.hash_key.message(topic, id.as_bytes()));
        let number = self.gathers.topics().filter_map(of_topic).max()?;
        self.gathers.get(number).map(Gather::view)
    }

    /// Sagas after this number, in order; those that are remembered among them. Looks at a bounded number of them: the page says where
    /// to go on.
    pub fn sagas(&self, state: Option<SagaState>, after: Sequence, limit: usize) -> SagaPage {
        if state == Some(SagaState::Parked) {
            let parked = self.sagas.parked(after).take(limit);
            let sagas = parked.map(|number| self.saga_row(number).summary(number)).collect();
            return SagaPage { sagas, next: None };
        }
        let mut page = SagaPage::default();
        for (looked, (number, saga)) in self.sagas.rows().range(after.0.saturating_add(1)..).enumerate() {
            if looked == SAGAS_A_LOOK {
                page.next = Some(Sequence(number - 1));
                break;
            }
            if page.sagas.len() == limit {
                break;
            }
            if state.is_none_or(|state| saga.state() == state) {
                page.sagas.push(saga.summary(Sequence(number)));
            }
        }
        page
    }

    /// What a message on this topic begins, in the document's order: `scatter NAME`, `saga NAME`.
    pub fn begun_by(&self, topic: &str) -> Vec<String> {
        let begins = self.begins.of(topic.as_bytes()).iter();
        begins
            .map(|begin| match begin {
                Begin::Gather(scatter) => format!("scatter {}", scatter.name),
                Begin::Saga(name, _) => format!("saga {name}"),
            })
            .collect()
    }

    /// One saga.
    pub fn saga(&self, name: &str, id: &str) -> Option<SagaView> {
        let number = self.sagas.find(self.hash_key, name, id)?;
        Some(self.saga_row(number).view(number))
    }

    /// How many gathers there are, by scatter and state.
    pub fn gather_counts(&self) -> Vec<(String, GatherState, u64)> {
        self.gathers.counts().map(|(scatter, state, count)| (scatter.to_owned(), state, count)).collect()
    }

    /// How many sagas there are, by definition and state.
    pub fn saga_counts(&self) -> Vec<(String, SagaState, u64)> {
        self.sagas.counts().map(|(name, state, count)| (name.to_owned(), state, count)).collect()
    }

    /// Answers to sagas that changed nothing, by kind, since the start.
    pub fn answers_ignored(&self) -> [(&'static str, u64); 3] {
        let ignored = self.sagas.ignored;
        [("duplicate", ignored.duplicate), ("late", ignored.late), ("foreign", ignored.foreign)]
    }

    /// The binaries that gathers and sagas under way are pinned to: not to be removed.
    pub fn pinned_binaries(&self) -> Vec<[u8; 32]> {
        let pinned = self.gathers.pins.binaries().chain(self.sagas.pins.binaries());
        let mut binaries: Vec<[u8; 32]> = pinned.collect();
        binaries.sort_unstable();
        binaries.dedup();
        binaries
    }
}

impl Gather {
    pub(crate) fn state(&self) -> GatherState {
        match (self.phase, &self.ended) {
            (Phase::Open, _) => GatherState::Open,
            (Phase::Finishing(_), _) => GatherState::Finishing,
            (Phase::Ended, Some(ended)) if matches!(ended.outcome, Outcome::Answered(_)) => {
                GatherState::Answered
            }
            (Phase::Ended, _) => GatherState::Failed,
        }
    }

    fn view(&self) -> GatherView {
        let recipients = self.recipients.iter().map(|recipient| {
            let (state, reason, at) = match &recipient.stand {
                Stand::Asked => (RecipientState::Asked, None, None),
                Stand::Answered { at, .. } => (RecipientState::Answered, None, Some(*at)),
                Stand::Failed { at, reason } => (RecipientState::Failed, Some(reason.clone()), Some(*at)),
                Stand::Silent => (RecipientState::Silent, None, None),
            };
            RecipientView { name: recipient.name.to_string(), state, reason, at }
        });
        GatherView {
            id: String::from_utf8_lossy(self.request.id()).into_owned(),
            scatter: self.scatter.to_string(),
            state: self.state(),
            began_at: self.began_at,
            deadline: self.deadline(),
            recipients: recipients.collect(),
        }
    }
}

impl Saga {
    fn summary(&self, number: Sequence) -> SagaSummary {
        let current = || {
            let names = self.current.iter().map(|step| &*self.step(*step).name);
            names.collect::<Vec<_>>().join(", ")
        };
        let detail = match self.state() {
            SagaState::Running => current(),
            SagaState::Compensating => match self.plan.first() {
                Some((step, _)) => format!("undoing {}", self.step(*step).name),
                None => "asking its compensator".to_owned(),
            },
            SagaState::Parked => self.parked.as_deref().unwrap_or_default().to_owned(),
            SagaState::Completed => String::new(),
            SagaState::Compensated | SagaState::Aborted => {
                self.failure().map(|(_, reason)| reason.to_owned()).unwrap_or_default()
            }
        };
        SagaSummary {
            name: self.name.to_string(),
            id: self.id.to_string(),
            number,
            state: self.state(),
            began_at: self.began_at,
            changed_at: self.changed_at,
            detail,
        }
    }

    fn view(&self, number: Sequence) -> SagaView {
        SagaView {
            summary: self.summary(number),
            deadline: self.deadline.unwrap_or_else(|| self.began_at.after(self.settings.timeout_ms)),
            steps: self.step_views(),
            pending: self.acks.iter().map(|step| self.step(*step).name.clone()).collect(),
            failed: self.failure().map(|(step, reason)| (step.to_owned(), reason.to_owned())),
            timeline: self.timeline.iter().map(|line| self.line_view(line)).collect(),
        }
    }

    pub(crate) fn step_views(&self) -> Vec<StepView> {
        let runs = self.settings.steps.iter().zip(&self.runs);
        runs.map(|(step, run)| StepView {
            name: step.name.clone(),
            outcome: run.outcome,
            attempts: run.attempts,
            result: run.result.as_ref().map(|result| result.0.clone()),
            reason: run.reason.as_deref().map(str::to_owned),
            undo_attempts: run.undo_attempts,
            undone: run.undone,
        })
        .collect()
    }

    pub(crate) fn line_view(&self, line: &Line) -> TimelineView {
        TimelineView {
            at: line.at,
            step: line.step.map(|step| self.step(step).name.clone()),
            undo: line.undo,
            attempt: line.attempt,
            what: line.what.name().to_owned(),
            detail: line.detail.as_deref().unwrap_or_default().to_owned(),
        }
    }
}
