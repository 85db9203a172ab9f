//! What a filter answers about one message.

use crate::Message;

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Pass,
    /// It ends here. To its publisher that is a success.
    Drop,
    /// It goes to the dead letters, with this reason.
    Reject(String),
    /// It goes on, changed.
    Transform(Message),
    /// It is sent to these topics instead, and its chain of filters ends. With no topics it is dropped.
    Route(Vec<String>),
    /// It ends, and these go on in its place, each a copy of it with changes. With none it is dropped.
    Split(Vec<Message>),
}

impl Verdict {
    /// [`Verdict::Pass`] if `condition` holds, else [`Verdict::Drop`].
    pub fn pass_if(condition: bool) -> Self {
        if condition { Self::Pass } else { Self::Drop }
    }

    /// [`Verdict::Reject`] with a reason.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }

    /// [`Verdict::Transform`] with the changes.
    pub fn transform(changes: Message) -> Self {
        Self::Transform(changes)
    }

    /// [`Verdict::Route`] to some topics.
    pub fn route<T: Into<String>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self::Route(topics.into_iter().map(Into::into).collect())
    }

    /// [`Verdict::Split`] into several messages.
    pub fn split(children: impl IntoIterator<Item = Message>) -> Self {
        Self::Split(children.into_iter().collect())
    }
}
