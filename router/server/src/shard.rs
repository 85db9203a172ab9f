//! The handle of a shard: what sessions, rules, admin calls and metrics may ask of the driver. It owns no state of the broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use chaski_broker::{
    Attach, Bindings, Broker, Command, ConnectionId, ConsumerId, Delivery, Message, Millis, OperateError,
    Operation, Progress, PublisherId, QueueId, Rules, RulesRefused, RulesVersion, SubscriptionId,
};
use chaski_broker::{
    Attached, Confirmation, Lease, PublishError, Sequence, SettleError, TransactionError, UnknownQueue,
};
use chaski_broker::{JobId, JudgedOutcome, SagaState, SagaVerb, StateWrite, SteerError};
use chaski_journal::Reader;
use chaski_protocol::{Code, Refusal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::modules::{FilterSet, Filters, JobOutcome, Modules, Resolved};

/// What sessions see of the rules: replaced whole when a document is applied.
pub(crate) struct View {
    /// Topics to queues, with the rules version.
    pub bindings: Arc<Bindings>,
    /// The filters of each topic and queue.
    pub filters: Arc<FilterSet>,
    /// The limit of a payload in bytes.
    pub max_payload: u32,
    /// The limit of headers in bytes.
    pub max_headers: u32,
}

impl View {
    /// The version that this is a view of.
    pub(crate) fn version(&self) -> RulesVersion {
        self.bindings.version()
    }

    /// Where a topic leads.
    pub(crate) fn resolve(&self, topic: &str) -> Resolved {
        self.filters.resolve(topic)
    }
}

/// The driver is gone: the router stops.
#[derive(Copy, Clone, Debug, thiserror::Error)]
#[error("the router is stopping; connect again in a moment")]
pub struct Stopped;

impl From<Stopped> for Refusal {
    fn from(stopped: Stopped) -> Refusal {
        Refusal::new(Code::ShuttingDown, stopped.to_string())
    }
}

/// A body that can't be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the message's body cannot be read: {0}")]
pub(crate) struct BodyGone(pub String);

/// What every client is told when it changes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notices {
    pub(crate) dedup_window_ms: u64,
    pub(crate) max_payload: u32,
    pub(crate) max_headers: u32,
    pub(crate) stopping: bool,
}

/// An answer to a frame on a publish stream.
pub(crate) struct Answered {
    pub(crate) number: u64,
    pub(crate) outcome: Outcome,
}

/// What became of such a frame.
pub(crate) enum Outcome {
    Publish(Result<Confirmation, PublishError>),
    Transaction(Result<Arc<[Confirmation]>, TransactionError>),
    /// Refused by the session, before the broker.
    Refused(Refusal),
}

/// What a consumer's session is told.
pub(crate) enum ConsumerEvent {
    Attached(Result<Attached, UnknownQueue>),
    Deliver(Delivery),
    Settled { number: u64, outcome: Result<(), SettleError> },
    Lost(Vec<(Sequence, Lease)>),
    Detached,
}

/// A message for a subscription.
pub(crate) struct Passed {
    pub(crate) published_at: Millis,
    pub(crate) body: Bytes,
    pub(crate) dropped: u64,
}

/// Rules that are ready to be put in force.
pub(crate) struct NewRules {
    pub(crate) rules: Rules,
    /// Queues that may vanish with messages in them.
    pub(crate) drop_queues: Vec<String>,
    /// Modules whose state may go.
    pub(crate) drop_states: Vec<String>,
    /// The modules, ready to judge.
    pub(crate) filters: Arc<Filters>,
}

/// What the driver takes in.
pub(crate) enum Input {
    Commands(Vec<Command>),
    OpenPublisher(PublisherId, mpsc::UnboundedSender<Vec<Answered>>),
    ClosePublisher(PublisherId),
    OpenConsumer(Attach, mpsc::UnboundedSender<Vec<ConsumerEvent>>),
    CloseConsumer {
        consumer: ConsumerId,
        release: bool,
    },
    OpenSubscription {
        subscription: SubscriptionId,
        connection: ConnectionId,
        pattern: String,
        passed: mpsc::UnboundedSender<Vec<Passed>>,
    },
    CloseSubscription(SubscriptionId),
    Inspect(Box<dyn FnOnce(&Broker) + Send>),
    Operate(QueueId, Operation, oneshot::Sender<Result<Progress, OperateError>>),
    /// A definition's name, a saga's id, and what to do.
    Steer(String, String, SagaVerb, oneshot::Sender<Result<SagaState, SteerError>>),
    ApplyRules(Box<NewRules>, oneshot::Sender<Result<RulesVersion, RulesRefused>>),
    /// What filters that keep state made of jobs.
    Judged(Vec<(String, Vec<StateWrite>)>, Vec<(JobId, JobOutcome)>, oneshot::Sender<JudgedOutcome>),
    /// Bodies read from a segment that is to go.
    Relocate(Vec<(chaski_broker::Position, Bytes)>),
    /// A snapshot ended.
    Snapshotted(Result<chaski_journal::SnapshotInfo, String>),
    Stop(oneshot::Sender<()>),
}

/// What the journal and its disk look like.
#[derive(Clone, Debug, Default)]
pub(crate) struct JournalInfo {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of the last snapshot.
    pub snapshot_bytes: u64,
    /// Free bytes on its disk.
    pub free_bytes: u64,
}

pub(crate) struct Shared {
    pub(crate) view: ArcSwap<View>,
    pub(crate) journal: Mutex<JournalInfo>,
    /// Alarms of the server itself (disk, clock) by name, each with its sentence.
    pub(crate) alarms: Mutex<BTreeMap<&'static str, String>>,
    pub(crate) notices: watch::Sender<Notices>,
    pub(crate) reader: Reader,
    pub(crate) started_ms: u64,
    pub(crate) modules: Arc<Modules>,
    ids: AtomicU64,
}

/// A handle; cheap to clone.
#[derive(Clone)]
pub(crate) struct Shard {
    input: mpsc::Sender<Input>,
    shared: Arc<Shared>,
}

/// A handle that doesn't keep the shard running.
pub(crate) struct WeakShard {
    input: mpsc::WeakSender<Input>,
    shared: Arc<Shared>,
}

impl WeakShard {
    /// What all handles share.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// A handle, as long as somebody else has one.
    pub(crate) fn upgrade(&self) -> Option<Shard> {
        Some(Shard { input: self.input.upgrade()?, shared: Arc::clone(&self.shared) })
    }
}

impl Shard {
    pub(crate) fn new(
        input: mpsc::Sender<Input>,
        view: View,
        notices: Notices,
        reader: Reader,
        started_ms: u64,
        modules: Arc<Modules>,
    ) -> Shard {
        let shared = Arc::new(Shared {
            view: ArcSwap::from_pointee(view),
            journal: Mutex::default(),
            alarms: Mutex::default(),
            notices: watch::Sender::new(notices),
            reader,
            started_ms,
            modules,
            ids: AtomicU64::new(1),
        });
        Shard { input, shared }
    }

    /// A number that names a connection, stream or subscription; never used twice in this process.
    pub(crate) fn next_id(&self) -> u64 {
        self.shared.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) async fn send(&self, input: Input) -> Result<(), Stopped> {
        self.input.send(input).await.map_err(|_| Stopped)
    }

    /// Takes commands; waits for room.
    pub(crate) async fn command(&self, command: Command) -> Result<(), Stopped> {
        self.send(Input::Commands(vec![command])).await
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.shared.reader
    }

    pub(crate) fn notices(&self) -> watch::Receiver<Notices> {
        self.shared.notices.subscribe()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Looks at the state between two batches. Keep it short: the driver waits.
    pub(crate) async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Broker) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        let look = Box::new(move |broker: &Broker| {
            // Whoever asked may be gone.
            let _ = answer.send(look(broker));
        });
        self.send(Input::Inspect(look)).await?;
        answered.await.map_err(|_| Stopped)
    }

    /// One operation on a queue, answered when durable. Repeat it while its progress says `more`.
    pub(crate) async fn operate(
        &self,
        queue: QueueId,
        operation: Operation,
    ) -> Result<Result<Progress, OperateError>, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.send(Input::Operate(queue, operation, answer)).await?;
        answered.await.map_err(|_| Stopped)
    }

    /// An operator's command on a saga, answered when durable.
    pub(crate) async fn steer(
        &self,
        name: String,
        id: String,
        verb: SagaVerb,
    ) -> Result<Result<SagaState, SteerError>, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.send(Input::Steer(name, id, verb, answer)).await?;
        answered.await.map_err(|_| Stopped)
    }

    /// Applies rules; answered when they are durable and the sessions see them.
    pub(crate) async fn apply_rules(
        &self,
        rules: NewRules,
    ) -> Result<Result<RulesVersion, RulesRefused>, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.send(Input::ApplyRules(Box::new(rules), answer)).await?;
        answered.await.map_err(|_| Stopped)
    }

    /// Hands in what filters that keep state made of jobs.
    pub(crate) async fn judged(
        &self,
        writes: Vec<(String, Vec<StateWrite>)>,
        jobs: Vec<(JobId, JobOutcome)>,
    ) -> Result<JudgedOutcome, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.send(Input::Judged(writes, jobs, answer)).await?;
        answered.await.map_err(|_| Stopped)
    }

    /// The modules, and the work that they have under way.
    pub(crate) fn modules(&self) -> &Arc<Modules> {
        &self.shared.modules
    }

    /// A handle that doesn't keep the shard running.
    pub(crate) fn downgrade(&self) -> WeakShard {
        WeakShard { input: self.input.downgrade(), shared: Arc::clone(&self.shared) }
    }

    /// Publishes a message of the router's own.
    pub(crate) async fn announce(&self, message: Message) -> Result<(), Stopped> {
        self.command(Command::Announce { message }).await
    }

    /// What sessions see of the rules now.
    pub(crate) fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// The journal and its disk.
    pub(crate) fn journal(&self) -> JournalInfo {
        self.shared.journal.lock().expect("nobody panics with it").clone()
    }

    /// Alarms of the server itself: name and sentence.
    pub(crate) fn alarms(&self) -> Vec<(&'static str, String)> {
        let alarms = self.shared.alarms.lock().expect("nobody panics with it");
        alarms.iter().map(|(name, detail)| (*name, detail.clone())).collect()
    }

    /// When the router started: milliseconds since 1970.
    pub(crate) fn started_ms(&self) -> u64 {
        self.shared.started_ms
    }
}

/// Reads the blocks at these positions on the journal's reader threads, in the same order.
pub(crate) async fn read_bodies(
    reader: &Reader,
    positions: Vec<chaski_broker::Position>,
) -> Result<Vec<Result<Bytes, BodyGone>>, Stopped> {
    let (answer, answered) = oneshot::channel();
    let wanted = positions.iter().map(|position| chaski_journal::Position(position.0)).collect();
    reader.read(wanted, move |records| {
        let bodies = records.into_iter().map(|(_, record)| match record {
            Err(error) => Err(BodyGone(error.to_string())),
            Ok(record) => match chaski_broker::body_of(&record) {
                Ok(Some(range)) => Ok(record.slice(range)),
                Ok(None) => Err(BodyGone("the record has none".to_owned())),
                Err(error) => Err(BodyGone(error.to_string())),
            },
        });
        let _ = answer.send(bodies.collect::<Vec<_>>());
    });
    answered.await.map_err(|_| Stopped)
}
