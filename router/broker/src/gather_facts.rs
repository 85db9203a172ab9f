//! What facts do to gathers: a part of `apply`, so it decides nothing.

use std::sync::Arc;

use crate::apply::ApplyError;
use crate::broker::Broker;
use crate::codec::Kept;
use crate::gather::{Ended, Gather, GatherFact, Phase, Recipient, Stand};
use crate::ids::{Millis, QueueId, Sequence};
use crate::owners::Owner;

impl Broker {
    pub(crate) fn apply_gather(
        &mut self,
        number: Sequence,
        at: Millis,
        fact: &GatherFact,
    ) -> Result<(), ApplyError> {
        if let GatherFact::Begun { scatter, request, asked, recipients } = fact {
            return self.apply_gather_begun(number, at, scatter, request, *asked, recipients);
        }
        let found = self.gathers.get(number).filter(|gather| gather.phase != Phase::Ended);
        let gather = found.ok_or(ApplyError::Gather(number))?;
        if let GatherFact::Replied { recipient, .. } | GatherFact::Failed { recipient, .. } = fact
            && !gather.awaits(*recipient)
        {
            return Err(ApplyError::Gather(number));
        }
        self.gathers.change(number, |gather| match fact.clone() {
            GatherFact::Begun { .. } => unreachable!("it was handled before"),
            GatherFact::Replied { recipient, reply } => {
                gather.recipients[recipient as usize].stand =
                    Stand::Answered { at, reply: Some(Box::new(reply)) };
                gather.events.push(recipient);
            }
            GatherFact::Failed { recipient, reason } => {
                gather.recipients[recipient as usize].stand = Stand::Failed { at, reason };
                gather.events.push(recipient);
            }
            GatherFact::Moved { reply_to } => gather.reply_to = Some(reply_to.into_boxed_str()),
            GatherFact::Finishing { why } => {
                gather.phase = Phase::Finishing(why);
                gather.fall_silent();
            }
            GatherFact::Ended { outcome, until } => {
                gather.phase = Phase::Ended;
                gather.fall_silent();
                gather.forget_bodies();
                gather.ended = Some(Ended { outcome, until });
            }
        });
        Ok(())
    }

    fn apply_gather_begun(
        &mut self,
        number: Sequence,
        at: Millis,
        scatter: &str,
        request: &Kept,
        asked: Sequence,
        recipients: &[(Option<QueueId>, String)],
    ) -> Result<(), ApplyError> {
        let settings = self.rules.scatter(scatter).ok_or(ApplyError::Gather(number))?.clone();
        if self.gathers.get(number).is_some() || number.0 == 0 || recipients.len() > u16::MAX as usize {
            return Err(ApplyError::Number(number.0));
        }
        self.draw_through(number.0)?;
        let recipients = recipients.iter().map(|(queue, name)| Recipient {
            queue: *queue,
            name: queue
                .and_then(|id| self.queues.get(id))
                .map_or_else(|| Arc::from(&**name), |it| it.name.clone()),
            stand: Stand::Asked,
        });
        let request = request.0.clone();
        let hash = self.hash_key.message(request.topic(), request.id());
        let reply_to =
            request.reply_to().map(|bytes| String::from_utf8_lossy(bytes).into_owned().into_boxed_str());
        let gather = Gather {
            scatter: scatter.into(),
            settings,
            reply_to,
            request,
            asked,
            began_at: at,
            recipients: recipients.collect(),
            events: Vec::new(),
            phase: Phase::Open,
            ended: None,
            call: 0,
        };
        self.gathers.insert(number, hash, gather);
        if self.live {
            self.owners.own(asked, Owner::Gather(number));
        }
        Ok(())
    }
}

impl Gather {
    /// Whoever has not answered by now stays silent.
    fn fall_silent(&mut self) {
        for recipient in &mut self.recipients {
            if recipient.stand == Stand::Asked {
                recipient.stand = Stand::Silent;
            }
        }
    }

    /// What was needed for the answer only. Of the request its name is left.
    fn forget_bodies(&mut self) {
        self.request = self.request.head_only();
        for recipient in &mut self.recipients {
            if let Stand::Answered { reply, .. } = &mut recipient.stand {
                *reply = None;
            }
        }
    }
}
