//! `chaski trace` and `publish --trace`: what happens to one message and why, as a dry run or for real.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chaski_broker::{Command, Confirmation, Filtered, Millis, Publish, PublishError, PublisherId, Way};
use chaski_protocol::admin::{TraceDead, TracePublished, TraceResult, TraceStep, TraceView};
use chaski_protocol::{Code, DEFAULT_PRIORITY, Head, Refusal};
use tokio::sync::mpsc;

use crate::driver::publish_refusal;
use crate::message;
use crate::modules::{Place, Resolved, Seen, Subject, Trace, Work, now_ms};
use crate::shard::{Input, Outcome, Shard, View};

/// A message that is asked about.
pub(super) struct Asked {
    pub(super) topic: String,
    pub(super) id: Option<String>,
    pub(super) key: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    /// Base64.
    pub(super) payload: String,
    pub(super) priority: Option<u8>,
    pub(super) ttl_ms: Option<u64>,
    pub(super) reply_to: Option<String>,
    /// For real.
    pub(super) publish: bool,
}

/// Takes a message through its filters, and publishes it where that is asked for.
pub(super) async fn trace(shard: &Shard, request: Asked) -> Result<TraceView, Refusal> {
    let view = shard.view();
    let subject = subject(&view, &request)?;
    let topic = subject.topic_text().to_owned();
    let id = chaski_modules::Message::id(&subject).to_owned();
    let resolved = view.resolve(&topic);
    let routes = match &resolved {
        Resolved::Direct(_) => Vec::new(),
        Resolved::Through(plan) => plan.routes.iter().map(ToString::to_string).collect(),
    };
    let trace = Trace::default();
    let mut work = Work::new(&view.filters, &view.filters.plan_of(&topic), subject.clone());
    work.traced(&trace);
    let published = if request.publish {
        Some(publish(shard, &view, &subject, work).await?)
    } else {
        let mut works = [work];
        shard.modules().judge_dry(&mut works, shard).await?;
        let [work] = works;
        work.finish_filtered().map_err(|error| publish_refusal(&PublishError::Judge(error)))?;
        None
    };
    let told = trace.take();
    let end = told.end.unwrap_or_default();
    let takers = takers(shard, &end).await?;
    Ok(TraceView {
        topic,
        id,
        routes,
        steps: told.steps.into_iter().map(step).collect(),
        results: results(&view, &subject, &end, &takers),
        dropped: end.dropped.into(),
        rejected: end.dead.len() as u64,
        dead: end
            .dead
            .iter()
            .map(|dead| TraceDead {
                queue: dead.info.queue.clone().unwrap_or_else(|| "chaski".to_owned()),
                reason: dead.info.reason.name().to_owned(),
                detail: Some(dead.info.detail.clone()),
            })
            .collect(),
        published,
    })
}

/// The message that is asked about, checked as a client's own.
fn subject(view: &View, request: &Asked) -> Result<Subject, Refusal> {
    let payload = STANDARD
        .decode(&request.payload)
        .map_err(|error| Refusal::new(Code::BadRequest, format!("the payload is not base64: {error}")))?;
    let id = request.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let head = Head {
        topic: &request.topic,
        id: &id,
        key: request.key.as_deref(),
        reply_to: request.reply_to.as_deref(),
        headers: request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        priority: request.priority.unwrap_or(DEFAULT_PRIORITY),
        ttl_ms: request.ttl_ms,
        timestamp_ms: now_ms(),
        ..Head::default()
    };
    let composed = message::compose(&head, &payload);
    message::check(&composed.body, view.max_payload, view.max_headers, None)?;
    Ok(Subject::of(composed, Millis(head.timestamp_ms)))
}

/// Publishes it as a client would, and waits for the confirm.
async fn publish(
    shard: &Shard,
    view: &View,
    subject: &Subject,
    work: Work,
) -> Result<TracePublished, Refusal> {
    let mut works = [work];
    shard.modules().judge(&mut works).await;
    let [work] = works;
    let (way, job) = if work.is_done() {
        let filtered =
            work.finish_filtered().map_err(|error| publish_refusal(&PublishError::Judge(error)))?;
        (Way::Filtered(Box::new(filtered)), None)
    } else {
        (Way::Pending, Some(shard.modules().jobs().file(vec![work])))
    };
    let (answers, mut answered) = mpsc::unbounded_channel();
    let publisher = PublisherId(shard.next_id());
    shard.send(Input::OpenPublisher(publisher, answers)).await?;
    let publish = Publish {
        publisher: Some(publisher),
        connection: None,
        number: 1,
        rules: view.version(),
        mandatory: false,
        message: subject.message.clone(),
        hash: None,
        way,
        job,
    };
    shard.command(Command::Publish(publish)).await?;
    let answer = answered.recv().await;
    shard.send(Input::ClosePublisher(publisher)).await?;
    match answer.and_then(|answers| answers.into_iter().next()).map(|answered| answered.outcome) {
        Some(Outcome::Publish(Ok(confirmation))) => Ok(confirmed(confirmation)),
        Some(Outcome::Publish(Err(error))) => Err(publish_refusal(&error)),
        _ => Err(Code::ShuttingDown.into()),
    }
}

fn confirmed(confirmation: Confirmation) -> TracePublished {
    let Confirmation { sequence, duplicate, routed, dropped, rejected } = confirmation;
    let [routed, dropped, rejected] = [routed, dropped, rejected].map(u64::from);
    TracePublished { sequence: sequence.map(|sequence| sequence.0), duplicate, routed, dropped, rejected }
}

/// How many subscriptions take each result, and what it begins.
async fn takers(shard: &Shard, end: &Filtered) -> Result<Vec<(u64, Vec<String>)>, Refusal> {
    let topics: Vec<Option<String>> = end
        .results
        .iter()
        .map(|result| {
            result.subscriptions.then(|| String::from_utf8_lossy(result.message.topic()).into_owned())
        })
        .collect();
    let counted = shard.inspect(move |broker| {
        let look = |topic: &Option<String>| match topic {
            Some(topic) => (broker.subscriptions_of(topic), broker.begun_by(topic)),
            None => (0, Vec::new()),
        };
        topics.iter().map(look).collect()
    });
    Ok(counted.await?)
}

fn results(
    view: &View,
    subject: &Subject,
    end: &Filtered,
    takers: &[(u64, Vec<String>)],
) -> Vec<TraceResult> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    end.results
        .iter()
        .zip(takers)
        .map(|(result, (subscriptions, begins))| TraceResult {
            id: text(result.message.id()),
            topic: text(result.message.topic()),
            queues: result
                .targets
                .iter()
                .filter_map(|queue| view.filters.queue_name(*queue))
                .map(str::to_owned)
                .collect(),
            subscriptions: *subscriptions,
            begins: begins.clone(),
            changed: result.message.body != subject.message.body,
        })
        .collect()
}

fn step(seen: Seen) -> TraceStep {
    let place = match seen.place {
        Place::Route(name) => format!("route {name}"),
        Place::Queue(name) => format!("queue {name}"),
    };
    TraceStep {
        place,
        hop: seen.hop,
        module: seen.module,
        digest: seen.digest.unwrap_or_default(),
        verdict: seen.verdict.to_owned(),
        detail: seen.detail,
        cpu_us: seen.took.as_secs_f64() * 1e6,
    }
}
