//! Administrative calls: one typed method for each verb, one stream each.

mod modules;
mod sagas;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use chaski_protocol::admin::{
    AdminRequest, Count, DeadView, Done, MessageView, ModuleDeployed, ModuleVersionView, ModuleView,
    QueueView, RulesChange, RulesCheck, RulesDiff, RulesEntry, RulesView, StateEntryView, Status,
};
use chaski_protocol::frames::{Open, Opening};
use chaski_protocol::{MAX_ADMIN_FRAME, decode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::base64;
use crate::client::Client;
use crate::error::AdminError;
use crate::frames::{self, Ended};
use crate::link::{Link, NoLink};

pub use modules::{Deploy, Shadow, Trace};

/// Administrative calls of a client. A call that was sent when the connection broke is not sent again: it may have been done.
///
/// ```no_run
/// # async fn example(client: chaski_client::Client) -> Result<(), chaski_client::AdminError> {
/// let admin = client.admin();
/// admin.queue_create("billing", vec!["orders.*.created".into()], vec![]).await?;
/// let queue = admin.queue_show("billing").await?;
/// println!("{} ready, {} dead", queue.ready, queue.dead);
/// let moved = admin.dlq_redrive("billing").reason("max_deliver").limit(100).await?;
/// println!("{} sent back", moved.count);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty => $value:expr),*) -> $answer:ty = $verb:ident;)*) => {
        impl Admin {
            $(
                $(#[$doc])*
                pub async fn $name(&self, $($argument: $kind),*) -> Result<$answer, AdminError> {
                    self.call(AdminRequest::$verb { $($argument: $value),* }).await
                }
            )*
        }
    };
}

verbs! {
    /// A queue by name.
    queue_show(queue: impl Into<String> => queue.into()) -> QueueView = QueueShow;
    /// A new queue, as a new rules version. Without patterns it binds to the topic of its own name; settings are `(key, value)`
    /// in the rules' spelling: `("ordering", "\"key\"")`.
    queue_create(queue: impl Into<String> => queue.into(), bind: Vec<String> => bind, set: Vec<(String, String)> => set)
        -> RulesChange = QueueCreate;
    /// Removes a queue, as a new rules version; one with messages only with `drop_messages`.
    queue_delete(queue: impl Into<String> => queue.into(), drop_messages: bool => drop_messages) -> RulesChange = QueueDelete;
    /// Removes ready, delayed and parked messages.
    queue_purge(queue: impl Into<String> => queue.into()) -> Count = QueuePurge;
    /// Stops deliveries.
    queue_pause(queue: impl Into<String> => queue.into()) -> Done = QueuePause;
    /// Goes on with deliveries.
    queue_resume(queue: impl Into<String> => queue.into()) -> Done = QueueResume;
    /// Removes a message that is not leased, by its id.
    queue_cancel(queue: impl Into<String> => queue.into(), id: impl Into<String> => id.into()) -> Done = QueueCancel;
    /// Lets a parked key go on.
    queue_unpark(queue: impl Into<String> => queue.into(), key: impl Into<String> => key.into()) -> Done = QueueUnpark;
    /// Looks at messages without taking them: those after a sequence, 1,000 at most.
    peek(queue: impl Into<String> => queue.into(), after: u64 => after, limit: u32 => limit) -> Vec<MessageView> = Peek;
    /// A queue's dead letters after a sequence, 1,000 at most.
    dlq_show(queue: impl Into<String> => queue.into(), after: u64 => after, limit: u32 => limit) -> Vec<MessageView> = DlqShow;
    /// Removes a queue's dead letters.
    dlq_purge(queue: impl Into<String> => queue.into()) -> Count = DlqPurge;
    /// Checks a rules document (TOML); nothing changes.
    rules_check(document: impl Into<String> => document.into()) -> RulesCheck = RulesCheck;
    /// What a rules document would change. `files` is what [`upload_files`](Admin::upload_files) answers of it,
    /// `signatures` what [`signatures`](Admin::signatures) does.
    rules_diff(document: impl Into<String> => document.into(), files: Vec<(String, String)> => files,
        signatures: Vec<(String, String)> => signatures) -> RulesDiff = RulesDiff;
    /// Applies a rules document. `files` is what [`upload_files`](Admin::upload_files) answers of it,
    /// `signatures` what [`signatures`](Admin::signatures) does. A queue that vanishes with messages
    /// in it must be named in `drop_queues`, a module that vanishes with its state in `drop_states`.
    rules_apply(document: impl Into<String> => document.into(), files: Vec<(String, String)> => files,
        signatures: Vec<(String, String)> => signatures,
        drop_queues: Vec<String> => drop_queues, drop_states: Vec<String> => drop_states) -> RulesChange = RulesApply;
    /// A new version equal to an earlier one.
    rules_rollback(version: u64 => version, drop_queues: Vec<String> => drop_queues, drop_states: Vec<String> => drop_states)
        -> RulesChange = RulesRollback;
    /// A module by name.
    module_show(name: impl Into<String> => name.into()) -> ModuleView = ModuleShow;
    /// The versions that a module had, the newest first.
    module_history(name: impl Into<String> => name.into()) -> Vec<ModuleVersionView> = ModuleHistory;
    /// Brings a module's version before the current one back, as a new rules version.
    module_rollback(name: impl Into<String> => name.into()) -> ModuleDeployed = ModuleRollback;
    /// Makes a module's shadow the live one, as a new rules version.
    module_promote(name: impl Into<String> => name.into()) -> ModuleDeployed = ModulePromote;
    /// A page of a module's state: one key, or those after a key, 1,000 at most. Keys that are no UTF-8 are written `base64:` and
    /// their base64.
    module_state(name: impl Into<String> => name.into(), key: Option<String> => key, after: Option<String> => after,
        limit: u32 => limit) -> Vec<StateEntryView> = ModuleState;
}

impl Admin {
    pub(crate) fn new(client: Client) -> Admin {
        Admin { client }
    }

    /// How the router is.
    pub async fn status(&self) -> Result<Status, AdminError> {
        self.call(AdminRequest::Status).await
    }

    /// Every queue by name, dead-letter queues left out.
    pub async fn queue_list(&self) -> Result<Vec<QueueView>, AdminError> {
        self.call(AdminRequest::QueueList).await
    }

    /// Queues with dead letters.
    pub async fn dlq_list(&self) -> Result<Vec<DeadView>, AdminError> {
        self.call(AdminRequest::DlqList).await
    }

    /// Moves a queue's dead letters back: `.await` moves all, after settings such as [`Redrive::reason`] those alone.
    pub fn dlq_redrive(&self, queue: impl Into<String>) -> Redrive {
        Redrive {
            admin: self.clone(),
            queue: queue.into(),
            reason: None,
            id: None,
            payload: None,
            headers: Vec::new(),
            limit: None,
        }
    }

    /// The rules in force.
    pub async fn rules_show(&self) -> Result<RulesView, AdminError> {
        self.call(AdminRequest::RulesShow).await
    }

    /// Every version of the rules, the newest first.
    pub async fn rules_history(&self) -> Result<Vec<RulesEntry>, AdminError> {
        self.call(AdminRequest::RulesHistory).await
    }

    /// Every module of the rules by name.
    pub async fn module_list(&self) -> Result<Vec<ModuleView>, AdminError> {
        self.call(AdminRequest::ModuleList).await
    }

    /// Any request; the answer as it is.
    pub async fn raw(&self, request: AdminRequest) -> Result<Value, AdminError> {
        self.call(request).await
    }

    async fn call<T: DeserializeOwned>(&self, request: AdminRequest) -> Result<T, AdminError> {
        let link = self.link().await?;
        let json = serde_json::to_vec(&request).expect("requests are plain data");
        let opened = frames::open(&link.connection, &Open::Admin, &json, MAX_ADMIN_FRAME).await;
        let (mut send, _reader, first) = opened.map_err(unanswered)?;
        // The answer is here already.
        let _ = send.finish();
        answer(&first)
    }

    async fn link(&self) -> Result<Arc<Link>, AdminError> {
        self.client.shared().patient_link().await.map_err(|error| match error {
            NoLink::Timeout => AdminError::Unreachable("the router cannot be reached".to_owned()),
            NoLink::Closed => AdminError::Closed,
        })
    }
}

fn unanswered(ended: Ended) -> AdminError {
    match ended {
        Ended::Refused(refusal) => AdminError::Refused(refusal),
        Ended::Broken(detail) => AdminError::BadAnswer(detail),
        Ended::Lost => AdminError::Unreachable(
            "the connection was lost before the answer came; look whether the change was made".to_owned(),
        ),
    }
}

fn answer<T: DeserializeOwned>(frame: &[u8]) -> Result<T, AdminError> {
    match decode::<Opening<'_>>(frame) {
        Ok((Opening::Answer, length)) => {
            serde_json::from_slice(&frame[length..]).map_err(|error| AdminError::BadAnswer(error.to_string()))
        }
        other => Err(AdminError::BadAnswer(format!("{other:?} is no answer here"))),
    }
}

/// A redrive about to begin: `.await` it.
#[must_use = "a redrive begins when it is awaited"]
#[derive(Clone, Debug)]
pub struct Redrive {
    admin: Admin,
    queue: String,
    reason: Option<String>,
    id: Option<String>,
    payload: Option<String>,
    headers: Vec<(String, String)>,
    limit: Option<u64>,
}

impl Redrive {
    /// Only those that died for this reason.
    pub fn reason(mut self, reason: impl Into<String>) -> Redrive {
        self.reason = Some(reason.into());
        self
    }

    /// Only the one with this id.
    pub fn id(mut self, id: impl Into<String>) -> Redrive {
        self.id = Some(id.into());
        self
    }

    /// With [`id`](Redrive::id): another payload.
    pub fn payload(mut self, payload: impl AsRef<[u8]>) -> Redrive {
        self.payload = Some(base64::encode(payload.as_ref()));
        self
    }

    /// With [`id`](Redrive::id): sets a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Redrive {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// At most so many.
    pub fn limit(mut self, limit: u64) -> Redrive {
        self.limit = Some(limit);
        self
    }
}

impl IntoFuture for Redrive {
    type Output = Result<Count, AdminError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Redrive { admin, queue, reason, id, payload, headers, limit } = self;
            admin.call(AdminRequest::DlqRedrive { queue, reason, id, payload, headers, limit }).await
        })
    }
}
