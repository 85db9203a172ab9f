//! The input of the demo: a week of seismic events, carried in the binary. It knows nothing of routers.

use anyhow::Context as _;
use bytes::Bytes;
use chaski_client::Message;
use serde::Deserialize;
use serde_json::value::RawValue;

const FILE: &str = include_str!("../../../../examples/data/earthquakes.ndjson");

/// The rules that route them.
pub(super) const RULES: &str = include_str!("../../../../examples/rules/earthquakes.toml");

/// One event, as a line of the file has it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Event {
    /// `quake.<network>.<kind>`.
    pub(super) topic: String,
    /// The network, which is the ordering key.
    pub(super) key: String,
    /// The event's own id.
    pub(super) id: String,
    headers: std::collections::BTreeMap<String, String>,
    payload: Box<RawValue>,
}

impl Event {
    /// `earthquake`, `explosion` or `quarry-blast`.
    pub(super) fn kind(&self) -> &str {
        self.topic.rsplit('.').next().unwrap_or_default()
    }

    /// Its magnitude, as its header has it; the module reads the payload's.
    pub(super) fn magnitude(&self) -> f64 {
        self.headers.get("mag").and_then(|magnitude| magnitude.parse().ok()).unwrap_or_default()
    }

    /// What is published, under the event's own id: published again, it is the same message.
    pub(super) fn message(&self) -> Message {
        let payload = Bytes::copy_from_slice(self.payload.get().as_bytes());
        let message = Message::new(&self.topic, payload).id(&self.id).key(&self.key);
        self.headers.iter().fold(message, |message, (name, value)| message.header(name, value))
    }
}

/// All events, in the order of their time.
pub(super) fn all() -> anyhow::Result<Vec<Event>> {
    let lines = FILE.lines().enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("earthquakes.ndjson, line {}", number + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_what_its_readme_says() {
        let events = all().expect("every line is an event");
        assert_eq!(events.len(), 1707);
        assert_eq!(events.iter().filter(|event| event.magnitude() >= 4.5).count(), 85);
        let kinds = ["earthquake", "explosion", "quarry-blast"];
        let counts = kinds.map(|kind| events.iter().filter(|event| event.kind() == kind).count());
        assert_eq!(counts, [1679, 15, 13]);
    }

    #[test]
    fn every_network_has_a_queue_in_the_rules() {
        for event in all().expect("every line is an event") {
            assert!(RULES.contains(&format!("[queue.network-{}]", event.key)), "{}", event.key);
            assert!(RULES.contains(&format!("\"quake.{}.>\"", event.key)), "{}", event.key);
        }
    }
}
