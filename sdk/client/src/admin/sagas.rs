//! Gathers and sagas: what there are, and an operator's commands. A saga is named `NAME/ID`; its id alone does where one definition has it.

use chaski_protocol::admin::{AdminRequest, GatherView, SagaSteered, SagaSummary, SagaView};

use super::Admin;
use crate::base64;
use crate::error::AdminError;

/// What one page has at most.
const PAGE: u32 = chaski_protocol::MAX_PAGE;

impl Admin {
    /// Every gather in progress, and those that are remembered, in the order in which they began.
    pub async fn gathers(&self) -> Result<Vec<GatherView>, AdminError> {
        let mut all: Vec<GatherView> = Vec::new();
        loop {
            let after = all.last().and_then(|gather| gather.sequence).unwrap_or(0);
            let page: Vec<GatherView> = self.call(AdminRequest::GatherList { after, limit: PAGE }).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// The gather that the request with this id began.
    pub async fn gather(&self, id: impl Into<String>) -> Result<GatherView, AdminError> {
        self.call(AdminRequest::GatherShow { id: id.into() }).await
    }

    /// Every saga that has not ended, and those that are remembered, in the order in which they began; with a state (`"parked"`) only
    /// those in it.
    pub async fn sagas(&self, state: Option<&str>) -> Result<Vec<SagaSummary>, AdminError> {
        let mut all: Vec<SagaSummary> = Vec::new();
        loop {
            let after = all.last().map_or(0, |saga| saga.sequence);
            let state = state.map(str::to_owned);
            let page: Vec<SagaSummary> =
                self.call(AdminRequest::SagaList { state, after, limit: PAGE }).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// One saga, with its steps and what happened to it.
    pub async fn saga(&self, saga: impl Into<String>) -> Result<SagaView, AdminError> {
        self.call(AdminRequest::SagaShow { saga: saga.into() }).await
    }

    /// A parked saga goes on: what failed is tried once more.
    pub async fn saga_retry(&self, saga: impl Into<String>) -> Result<SagaSteered, AdminError> {
        self.call(AdminRequest::SagaRetry { saga: saga.into() }).await
    }

    /// A step of a parked saga counts as completed with this result; while it compensates, as undone.
    pub async fn saga_skip(
        &self,
        saga: impl Into<String>,
        step: impl Into<String>,
        result: impl AsRef<[u8]>,
    ) -> Result<SagaSteered, AdminError> {
        let payload = Some(base64::encode(result.as_ref()));
        self.call(AdminRequest::SagaSkip { saga: saga.into(), step: step.into(), payload }).await
    }

    /// A saga is compensated now; without `compensate` it ends as it stands.
    pub async fn saga_abort(
        &self,
        saga: impl Into<String>,
        compensate: bool,
    ) -> Result<SagaSteered, AdminError> {
        self.call(AdminRequest::SagaAbort { saga: saga.into(), compensate }).await
    }
}
