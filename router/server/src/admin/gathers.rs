//! `chaski gather`: what scatters have asked, and who has answered.

use chaski_broker::{GatherState, GatherView as Gather, Sequence};
use chaski_protocol::admin::{GatherView, RecipientView};
use chaski_protocol::{Code, MAX_PAGE, Refusal, shown};

use crate::modules::now_ms;
use crate::render::rfc3339;
use crate::shard::Shard;

/// One page by number.
pub(super) async fn list(shard: &Shard, after: u64, limit: u32) -> Result<Vec<GatherView>, Refusal> {
    let limit = limit.min(MAX_PAGE) as usize;
    let gathers = shard.inspect(move |broker| broker.gathers(Sequence(after), limit)).await?;
    let now = now_ms();
    Ok(gathers.into_iter().map(|(number, gather)| view(gather, Some(number.0), now)).collect())
}

/// One gather.
pub(super) async fn show(shard: &Shard, id: String) -> Result<GatherView, Refusal> {
    let wanted = id.clone();
    let gather = shard.inspect(move |broker| broker.gather(&wanted)).await?;
    gather.map(|gather| view(gather, None, now_ms())).ok_or_else(|| {
        let detail = format!(
            "there is no gather `{}`, and none is remembered; `chaski gather list` names those there are",
            shown(&id)
        );
        Refusal::new(Code::UnknownId, detail)
    })
}

fn view(gather: Gather, sequence: Option<u64>, now_ms: u64) -> GatherView {
    let under_way = matches!(gather.state, GatherState::Open | GatherState::Finishing);
    let recipients = gather.recipients.into_iter().map(|recipient| RecipientView {
        name: recipient.name,
        state: recipient.state.name().to_owned(),
        reason: recipient.reason,
        at: recipient.at.map(rfc3339),
    });
    GatherView {
        id: gather.id,
        scatter: gather.scatter,
        sequence,
        state: gather.state.name().to_owned(),
        began_at: rfc3339(gather.began_at),
        left_ms: if under_way { gather.deadline.0.saturating_sub(now_ms) } else { 0 },
        recipients: recipients.collect(),
    }
}

#[cfg(test)]
mod tests {
    use chaski_broker::{Millis, RecipientState, RecipientView as Recipient};
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_gather_tells_who_has_answered_and_what_time_is_left() {
        let recipient = |name: &str, state, reason: Option<&str>, at| Recipient {
            name: name.to_owned(),
            state,
            reason: reason.map(str::to_owned),
            at,
        };
        let gather = Gather {
            id: "q-1".to_owned(),
            scatter: "quote".to_owned(),
            state: GatherState::Open,
            began_at: Millis(0),
            deadline: Millis(2_000),
            recipients: vec![
                recipient("a", RecipientState::Failed, Some("no stock"), Some(Millis(7))),
                recipient("b", RecipientState::Asked, None, None),
            ],
        };
        let open = view(gather.clone(), Some(7), 500);
        expect![[r#"{"id":"q-1","scatter":"quote","sequence":7,"state":"open","began_at":"1970-01-01T00:00:00.000Z","left_ms":1500,"recipients":[{"name":"a","state":"failed","reason":"no stock","at":"1970-01-01T00:00:00.007Z"},{"name":"b","state":"asked","reason":null,"at":null}]}"#]]
        .assert_eq(&serde_json::to_string(&open).unwrap());
        let ended = Gather { state: GatherState::Answered, ..gather };
        assert_eq!(view(ended, None, 500).left_ms, 0);
    }
}
