//! Gathers and sagas in a snapshot: rows that name their settings by number, each settings told once, before the first row that
//! needs it. Nobody vouches for what comes back.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::codec::{Kept, Payload};
use crate::config::Durability;
use crate::effect::SagaCause;
use crate::gather::{Ended, Gather, Phase as GatherPhase, Recipient};
use crate::gathers::Gathers;
use crate::hash::HashKey;
use crate::ids::{Millis, Sequence};
use crate::pages::PageMap;
use crate::saga::{Line, Run, Saga};
use crate::saga_settings::SagaSettings;
use crate::saga_table::Phase;
use crate::sagas::Sagas;
use crate::scatter_settings::ScatterSettings;

/// Gathers, with the settings that none before them had.
#[derive(Encode, Decode)]
pub(crate) struct GatherRows {
    settings: Vec<ScatterSettings>,
    rows: Vec<(Sequence, GatherRow)>,
}

/// Sagas, likewise.
#[derive(Encode, Decode)]
pub(crate) struct SagaRows {
    settings: Vec<SagaSettings>,
    rows: Vec<(Sequence, SagaRow)>,
}

#[derive(Encode, Decode)]
struct GatherRow {
    scatter: String,
    settings: u32,
    request: Kept,
    reply_to: Option<String>,
    asked: Sequence,
    began_at: Millis,
    recipients: Vec<Recipient>,
    events: Vec<u16>,
    phase: GatherPhase,
    ended: Option<Ended>,
}

#[derive(Encode, Decode)]
struct SagaRow {
    name: String,
    id: String,
    settings: u32,
    input: Kept,
    reply_to: Option<String>,
    began_at: Millis,
    changed_at: Millis,
    deadline: Option<Millis>,
    phase: Phase,
    parked: Option<String>,
    runs: Vec<Run>,
    current: Vec<u16>,
    payloads: Vec<(u16, Payload)>,
    plan: Vec<(u16, Option<Payload>)>,
    cause: Option<SagaCause>,
    retries: u32,
    acks: Vec<u16>,
    timeline: Vec<Line>,
    until: Option<Millis>,
}

/// Settings that were told, in order; each once.
struct Told<T>(Vec<Arc<T>>);

impl<T: Clone> Told<T> {
    /// The number of these settings; new ones are told.
    fn number(&mut self, settings: &Arc<T>, new: &mut Vec<T>) -> u32 {
        // The latest are the likeliest.
        if let Some(place) = self.0.iter().rposition(|known| Arc::ptr_eq(known, settings)) {
            return place as u32;
        }
        self.0.push(settings.clone());
        new.push((**settings).clone());
        self.0.len() as u32 - 1
    }
}

/// Gathers and sagas as they were; yields their rows. Can go to another thread.
pub(crate) struct SteeringImage {
    gathers: PageMap<Arc<Gather>>,
    next_gather: u64,
    scatters: Told<ScatterSettings>,
    sagas: PageMap<Arc<Saga>>,
    next_saga: u64,
    definitions: Told<SagaSettings>,
}

impl SteeringImage {
    pub(crate) fn new(gathers: &Gathers, sagas: &Sagas) -> SteeringImage {
        SteeringImage {
            gathers: gathers.rows().clone(),
            next_gather: 0,
            scatters: Told(Vec::new()),
            sagas: sagas.rows().clone(),
            next_saga: 0,
            definitions: Told(Vec::new()),
        }
    }

    /// The next gathers, about so many bytes of them. None means that there are no more.
    pub(crate) fn next_gathers(&mut self, bytes: usize) -> Option<GatherRows> {
        let mut part = GatherRows { settings: Vec::new(), rows: Vec::new() };
        let mut size = 0;
        for (number, gather) in self.gathers.range(self.next_gather..) {
            if size >= bytes {
                break;
            }
            self.next_gather = number + 1;
            if gather.settings.durability == Durability::Memory {
                continue;
            }
            size += gather.bytes() as usize;
            let settings = self.scatters.number(&gather.settings, &mut part.settings);
            part.rows.push((Sequence(number), GatherRow::new(gather, settings)));
        }
        (!part.rows.is_empty()).then_some(part)
    }

    /// The next sagas, likewise.
    pub(crate) fn next_sagas(&mut self, bytes: usize) -> Option<SagaRows> {
        let mut part = SagaRows { settings: Vec::new(), rows: Vec::new() };
        let mut size = 0;
        for (number, saga) in self.sagas.range(self.next_saga..) {
            if size >= bytes {
                break;
            }
            self.next_saga = number + 1;
            size += 256 + saga.payload_bytes() as usize + 32 * (saga.runs.len() + saga.timeline.len());
            let settings = self.definitions.number(&saga.settings, &mut part.settings);
            part.rows.push((Sequence(number), SagaRow::new(saga, settings)));
        }
        (!part.rows.is_empty()).then_some(part)
    }
}

/// Settings that came back, in order.
#[derive(Default)]
pub(crate) struct Restored {
    scatters: Vec<Arc<ScatterSettings>>,
    definitions: Vec<Arc<SagaSettings>>,
}

impl Restored {
    /// Takes gathers back.
    pub(crate) fn gathers(
        &mut self,
        key: HashKey,
        reserved: u64,
        part: GatherRows,
        gathers: &mut Gathers,
    ) -> Result<(), &'static str> {
        self.scatters.extend(part.settings.into_iter().map(Arc::new));
        for (number, row) in part.rows {
            let settings =
                self.scatters.get(row.settings as usize).ok_or("a gather has no settings")?.clone();
            let places = row.recipients.len();
            let possible = row.events.iter().all(|place| (*place as usize) < places)
                && (row.phase == GatherPhase::Ended) == row.ended.is_some();
            if !possible || !(1..=reserved).contains(&number.0) || gathers.get(number).is_some() {
                return Err("a gather is impossible");
            }
            let request = row.request.0;
            let hash = key.message(request.topic(), request.id());
            let gather = Gather {
                scatter: row.scatter.into(),
                settings,
                request,
                reply_to: row.reply_to.map(Into::into),
                asked: row.asked,
                began_at: row.began_at,
                recipients: row.recipients,
                events: row.events,
                phase: row.phase,
                ended: row.ended,
                call: 0,
            };
            gathers.insert(number, hash, gather);
        }
        Ok(())
    }

    /// Takes sagas back.
    pub(crate) fn sagas(
        &mut self,
        key: HashKey,
        reserved: u64,
        part: SagaRows,
        sagas: &mut Sagas,
    ) -> Result<(), &'static str> {
        self.definitions.extend(part.settings.into_iter().map(Arc::new));
        for (number, row) in part.rows {
            let settings =
                self.definitions.get(row.settings as usize).ok_or("a saga has no settings")?.clone();
            let steps = settings.steps.len();
            let known = |step: u16| (step as usize) < steps;
            let blamed = match row.cause {
                Some(SagaCause::Step { step, .. }) => known(step),
                _ => true,
            };
            let possible = row.runs.len() == steps
                && blamed
                && row.current.iter().chain(&row.acks).all(|step| known(*step))
                && row.payloads.iter().all(|(step, _)| known(*step))
                && row
                    .plan
                    .iter()
                    .all(|(step, _)| known(*step) && settings.steps[*step as usize].compensate.is_some())
                && row.timeline.iter().all(|line| line.step.is_none_or(known))
                && !row.timeline.is_empty()
                && row.phase.is_over() == row.until.is_some();
            if !possible || !(1..=reserved).contains(&number.0) || sagas.get(number).is_some() {
                return Err("a saga is impossible");
            }
            sagas.insert(key, number, row.saga(settings));
        }
        Ok(())
    }
}

impl GatherRow {
    fn new(gather: &Gather, settings: u32) -> GatherRow {
        GatherRow {
            scatter: gather.scatter.to_string(),
            settings,
            request: Kept(gather.request.clone()),
            reply_to: gather.reply_to.as_deref().map(str::to_owned),
            asked: gather.asked,
            began_at: gather.began_at,
            recipients: gather.recipients.clone(),
            events: gather.events.clone(),
            phase: gather.phase,
            ended: gather.ended.clone(),
        }
    }
}

impl SagaRow {
    fn new(saga: &Saga, settings: u32) -> SagaRow {
        let payload = |bytes: &bytes::Bytes| Payload(bytes.clone());
        SagaRow {
            name: saga.name.to_string(),
            id: saga.id.to_string(),
            settings,
            input: Kept(saga.input.clone()),
            reply_to: saga.reply_to.as_deref().map(str::to_owned),
            began_at: saga.began_at,
            changed_at: saga.changed_at,
            deadline: saga.deadline,
            phase: saga.phase,
            parked: saga.parked.as_deref().map(str::to_owned),
            runs: saga.runs.clone(),
            current: saga.current.to_vec(),
            payloads: saga.payloads.iter().map(|(step, bytes)| (*step, payload(bytes))).collect(),
            plan: saga.plan.iter().map(|(step, bytes)| (*step, bytes.as_ref().map(payload))).collect(),
            cause: saga.cause.as_deref().cloned(),
            retries: saga.retries,
            acks: saga.acks.clone(),
            timeline: saga.timeline.clone(),
            until: saga.until,
        }
    }

    fn saga(self, settings: Arc<SagaSettings>) -> Saga {
        Saga {
            name: self.name.into(),
            id: self.id.into(),
            settings,
            input: self.input.0,
            reply_to: self.reply_to.map(Into::into),
            began_at: self.began_at,
            changed_at: self.changed_at,
            deadline: self.deadline,
            phase: self.phase,
            parked: self.parked.map(Into::into),
            runs: self.runs,
            current: self.current.into(),
            payloads: self.payloads.into_iter().map(|(step, payload)| (step, payload.0)).collect(),
            plan: self.plan.into_iter().map(|(step, payload)| (step, payload.map(|it| it.0))).collect(),
            cause: self.cause.map(Box::new),
            retries: self.retries,
            acks: self.acks,
            timeline: self.timeline,
            until: self.until,
            lines: 0,
            call: 0,
            timer: None,
        }
    }
}
