//! From an answer's columns to verdicts: every length, index, end, kind and text is checked, since a module may say
//! anything. It knows the contract, and nothing of calls.

use crate::bindings::Answer;
use crate::bindings::chaski::module::columns::Edits;
use crate::limits::{GATHER_STATE_BYTES, RESULTS};
use crate::verdict::{Changes, Child, HeaderChange, Verdict};

/// How an answer breaks the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the sentences say it")]
pub enum Lie {
    #[error("it gave {got} verdicts for {wanted} messages")]
    Verdicts { got: usize, wanted: usize },
    #[error("it gave the verdict {number}, which there is not")]
    Verdict { number: u8 },
    #[error("it gave {got} edits, and at most {limit} are taken")]
    TooManyEdits { got: usize, limit: usize },
    #[error("its edits have {kinds} kinds, {indexes} indexes and {ends} ends, which must be as many of each")]
    Lengths { kinds: usize, indexes: usize, ends: usize },
    #[error("edit {edit} concerns message {index} of {count}, or falls behind the edit before it")]
    Index { edit: usize, index: u32, count: usize },
    #[error("edit {edit} concerns message {index}, whose verdict is not `edited`")]
    NotEdited { edit: usize, index: u32 },
    #[error("message {index} has the verdict `edited`, and no edit")]
    NoEdits { index: usize },
    #[error(
        "edit {edit} ends at byte {end}, which lies outside the {bytes} bytes or before the end of the edit before it"
    )]
    End { edit: usize, end: u32, bytes: usize },
    #[error("{left} bytes of the edits belong to none of them")]
    BytesLeft { left: usize },
    #[error("edit {edit} has the kind {kind}, which there is not")]
    Kind { edit: usize, kind: u8 },
    #[error("edit {edit} carries text that is not UTF-8")]
    Utf8 { edit: usize },
    #[error("edit {edit} carries {got} bytes, and its kind takes {wanted}")]
    Size { edit: usize, got: usize, wanted: usize },
    #[error("edit {edit} sets the priority {priority}, and the highest is 9")]
    Priority { edit: usize, priority: u8 },
    #[error("edit {edit} names a header that is empty, not ASCII, or begins with `chaski-`")]
    Header { edit: usize },
    #[error(
        "edit {edit} is a `reject` beside other edits of its message, or an edit between `child` edits that has no child"
    )]
    Mixed { edit: usize },
    #[error("message {index} has {got} results, and at most {RESULTS} are taken")]
    TooManyResults { index: usize, got: usize },
    #[error("its state has {got} bytes, and at most {GATHER_STATE_BYTES} are kept")]
    State { got: usize },
    #[error("it gave a payload of {got} bytes, and at most {limit} are taken")]
    Payload { got: usize, limit: usize },
    #[error("it gave headers of {got} bytes, and at most {limit} are taken")]
    Headers { got: usize, limit: usize },
    #[error(
        "its response has the header `{name}`, whose name is empty, not ASCII, begins with `chaski-`, or is there twice"
    )]
    ResponseHeader { name: String },
    #[error("it names the step `{step}`, which the saga has not")]
    NoStep { step: String },
    #[error("it would send the step `{step}`, which {why}")]
    NotToSend { step: String, why: &'static str },
    #[error("it would undo the step `{step}`, which {why}")]
    NotToUndo { step: String, why: &'static str },
}

/// The verdicts on `count` messages, or the first lie.
pub(crate) fn check(answer: Answer, count: usize, most_edits: usize) -> Result<Vec<Verdict>, Lie> {
    let Answer { verdicts, edits } = answer;
    if verdicts.len() != count {
        return Err(Lie::Verdicts { got: verdicts.len(), wanted: count });
    }
    if edits.is_none() && verdicts.iter().all(|&verdict| verdict < 2) {
        let plain = |&verdict| if verdict == 0 { Verdict::Pass } else { Verdict::Drop };
        return Ok(verdicts.iter().map(plain).collect());
    }
    let edits = edits.unwrap_or(Edits { kinds: vec![], indexes: vec![], ends: vec![], bytes: vec![] });
    check_shape(&edits, count, most_edits)?;
    let mut reader = Reader { edits: &edits, next: 0 };
    let mut checked = Vec::with_capacity(count);
    for (index, verdict) in verdicts.into_iter().enumerate() {
        checked.push(match verdict {
            0 => Verdict::Pass,
            1 => Verdict::Drop,
            2 => reader.message(index)?,
            number => return Err(Lie::Verdict { number }),
        });
    }
    match reader.peek() {
        Some(index) => Err(Lie::NotEdited { edit: reader.next, index }),
        None => Ok(checked),
    }
}

/// Checks what concerns all edits: as many of each list, indexes and ends that never fall and stay inside.
fn check_shape(edits: &Edits, count: usize, most_edits: usize) -> Result<(), Lie> {
    let Edits { kinds, indexes, ends, bytes } = edits;
    if kinds.len() != indexes.len() || kinds.len() != ends.len() {
        return Err(Lie::Lengths { kinds: kinds.len(), indexes: indexes.len(), ends: ends.len() });
    }
    if kinds.len() > most_edits {
        return Err(Lie::TooManyEdits { got: kinds.len(), limit: most_edits });
    }
    let (mut last_index, mut last_end) = (0, 0);
    for (edit, (&index, &end)) in indexes.iter().zip(ends).enumerate() {
        if index < last_index || index as usize >= count {
            return Err(Lie::Index { edit, index, count });
        }
        if end < last_end || end as usize > bytes.len() {
            return Err(Lie::End { edit, end, bytes: bytes.len() });
        }
        (last_index, last_end) = (index, end);
    }
    match bytes.len() - last_end as usize {
        0 => Ok(()),
        left => Err(Lie::BytesLeft { left }),
    }
}

/// Reads the edits in order, message by message. Their shape was checked before.
struct Reader<'a> {
    edits: &'a Edits,
    next: usize,
}

impl<'a> Reader<'a> {
    /// The message that the next edit concerns.
    fn peek(&self) -> Option<u32> {
        self.edits.indexes.get(self.next).copied()
    }

    /// The next edit, when it concerns this message.
    fn take(&mut self, index: usize) -> Option<(usize, u8, &'a [u8])> {
        let edit = self.next;
        if self.peek()? as usize != index {
            return None;
        }
        let start = if edit == 0 { 0 } else { self.edits.ends[edit - 1] };
        self.next += 1;
        let bytes = &self.edits.bytes[start as usize..self.edits.ends[edit] as usize];
        Some((edit, self.edits.kinds[edit], bytes))
    }

    /// What the edits of one message make of it.
    fn message(&mut self, index: usize) -> Result<Verdict, Lie> {
        if let Some(earlier) = self.peek().filter(|&earlier| (earlier as usize) < index) {
            return Err(Lie::NotEdited { edit: self.next, index: earlier });
        }
        let Some((edit, kind, bytes)) = self.take(index) else { return Err(Lie::NoEdits { index }) };
        match kind {
            REJECT => {
                if let Some((edit, ..)) = self.take(index) {
                    return Err(Lie::Mixed { edit });
                }
                Ok(Verdict::Reject { reason: text(edit, bytes)? })
            }
            CHILD => self.children(index, edit, bytes),
            kind => {
                let mut whole = Child::default();
                apply(&mut whole, edit, kind, bytes)?;
                while let Some((edit, kind, bytes)) = self.take(index) {
                    apply(&mut whole, edit, kind, bytes)?;
                }
                results(index, whole.topics.len())?;
                Ok(match whole {
                    Child { topics, changes } if topics.is_empty() => Verdict::Transform(Box::new(changes)),
                    Child { topics, changes } => Verdict::Route { topics, changes: Box::new(changes) },
                })
            }
        }
    }

    fn children(&mut self, index: usize, edit: usize, bytes: &[u8]) -> Result<Verdict, Lie> {
        size(edit, bytes, 0)?;
        let mut children = vec![Child::default()];
        while let Some((edit, kind, bytes)) = self.take(index) {
            if kind == CHILD {
                size(edit, bytes, 0)?;
                children.push(Child::default());
            } else {
                apply(children.last_mut().expect("the first was put there"), edit, kind, bytes)?;
            }
        }
        results(index, children.iter().map(|child| child.topics.len().max(1)).sum())?;
        Ok(Verdict::Split(children))
    }
}

// The kinds, by their numbers in chaski.wit.
const REJECT: u8 = 0;
const ROUTE: u8 = 1;
const CHILD: u8 = 2;
const SET_PAYLOAD: u8 = 3;
const SET_KEY: u8 = 4;
const REMOVE_KEY: u8 = 5;
const SET_HEADER: u8 = 6;
const REMOVE_HEADER: u8 = 7;
const SET_PRIORITY: u8 = 8;
const SET_TTL: u8 = 9;
const REMOVE_TTL: u8 = 10;
const SET_DELIVER_AT: u8 = 11;
const REMOVE_DELIVER_AT: u8 = 12;

fn apply(child: &mut Child, edit: usize, kind: u8, bytes: &[u8]) -> Result<(), Lie> {
    let Child { topics, changes } = child;
    let Changes { payload, key, headers, priority, ttl_ms, deliver_at_ms } = changes;
    match kind {
        // Neither can follow or precede these: a reject is alone, and a child begins what is its own.
        REJECT | CHILD => return Err(Lie::Mixed { edit }),
        ROUTE => topics.push(text(edit, bytes)?),
        SET_PAYLOAD => *payload = Some(bytes.to_vec()),
        SET_KEY => *key = Some(Some(text(edit, bytes)?)),
        REMOVE_KEY => *key = size(edit, bytes, 0).map(|()| Some(None))?,
        SET_HEADER => {
            let (length, rest) =
                bytes.split_first_chunk().ok_or(Lie::Size { edit, got: bytes.len(), wanted: 4 })?;
            let length = u32::from_le_bytes(*length) as usize;
            let wanted = length.saturating_add(4);
            let (name, value) =
                rest.split_at_checked(length).ok_or(Lie::Size { edit, got: bytes.len(), wanted })?;
            headers.push(HeaderChange::Set { name: header(edit, name)?, value: text(edit, value)? });
        }
        REMOVE_HEADER => headers.push(HeaderChange::Remove { name: header(edit, bytes)? }),
        SET_PRIORITY => {
            size(edit, bytes, 1)?;
            match bytes[0] {
                level @ 0..=9 => *priority = Some(level),
                priority => return Err(Lie::Priority { edit, priority }),
            }
        }
        SET_TTL => *ttl_ms = Some(Some(number(edit, bytes)?)),
        REMOVE_TTL => *ttl_ms = size(edit, bytes, 0).map(|()| Some(None))?,
        SET_DELIVER_AT => *deliver_at_ms = Some(Some(number(edit, bytes)?)),
        REMOVE_DELIVER_AT => *deliver_at_ms = size(edit, bytes, 0).map(|()| Some(None))?,
        kind => return Err(Lie::Kind { edit, kind }),
    }
    Ok(())
}

fn text(edit: usize, bytes: &[u8]) -> Result<String, Lie> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Lie::Utf8 { edit })
}

fn header(edit: usize, bytes: &[u8]) -> Result<String, Lie> {
    let name = text(edit, bytes)?;
    match name.is_ascii() && !name.is_empty() && !name.starts_with("chaski-") {
        true => Ok(name),
        false => Err(Lie::Header { edit }),
    }
}

fn number(edit: usize, bytes: &[u8]) -> Result<u64, Lie> {
    size(edit, bytes, 8)?;
    Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

fn size(edit: usize, bytes: &[u8], wanted: usize) -> Result<(), Lie> {
    match bytes.len() == wanted {
        true => Ok(()),
        false => Err(Lie::Size { edit, got: bytes.len(), wanted }),
    }
}

fn results(index: usize, got: usize) -> Result<(), Lie> {
    match got <= RESULTS {
        true => Ok(()),
        false => Err(Lie::TooManyResults { index, got }),
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
