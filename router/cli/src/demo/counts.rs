//! What the demo counted, whether it adds up, and how it is shown. It measures nothing itself.

use std::collections::BTreeMap;

use serde::Serialize;

/// One network's queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Network {
    /// Events of it in the file.
    pub(super) published: u64,
    /// Of these, processed by its consumer; each counts once.
    pub(super) processed: u64,
    /// Deliveries of events that had been processed: the crash gave them back before their ack was on disk.
    pub(super) again: u64,
    /// Events that came before one that is earlier in the file.
    pub(super) out_of_order: u64,
}

/// Everything that was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Events in the file.
    pub(super) events: u64,
    /// Publishes that were confirmed as new, before and after the crash.
    pub(super) confirmed: u64,
    /// Publishes without a confirm when the router was killed; the client sent them again by itself.
    pub(super) unconfirmed_at_kill: u64,
    /// Second publishes that were confirmed as duplicates.
    pub(super) duplicates: u64,
    /// By network.
    pub(super) networks: BTreeMap<String, Network>,
    /// Events that the watch looked at and found weak.
    pub(super) quiet: u64,
    /// Events that the watch copied to `alerts`.
    pub(super) alerts: u64,
    /// Messages that came out of `alerts`.
    pub(super) alerts_received: u64,
    /// Events by kind, as their consumers saw them.
    pub(super) kinds: BTreeMap<String, u64>,
    /// Explosions and quarry blasts in the dead-letter queue.
    pub(super) dead: u64,
    /// Moved back from there.
    pub(super) redriven: u64,
    /// Then processed.
    pub(super) accepted: u64,
    /// Messages left in any queue at the end, dead letters among them.
    pub(super) left: u64,
    /// From the kill until the router listened again, in milliseconds.
    pub(super) restart_ms: u64,
    /// The whole demo, in milliseconds.
    pub(super) elapsed_ms: u64,
}

impl Counts {
    /// What does not add up, as sentences; empty when all is well. `strong` and `blasts` are the file's own counts.
    pub(super) fn problems(&self, strong: u64, blasts: u64) -> Vec<String> {
        let mut problems = Vec::new();
        let mut expect = |what: &str, found: u64, expected: u64| {
            if found != expected {
                problems.push(format!("{what}: {found}, where {expected} were expected"));
            }
        };
        expect("publishes confirmed", self.confirmed, self.events);
        expect("duplicates confirmed", self.duplicates, self.events);
        expect("events through the networks' queues", self.processed(), self.events);
        expect("events by kind", self.kinds.values().sum(), self.events);
        expect("alerts and quiet events together", self.alerts + self.quiet, self.events);
        expect("alerts", self.alerts, strong);
        expect("messages out of alerts", self.alerts_received, strong);
        expect("dead letters", self.dead, blasts);
        expect("dead letters redriven", self.redriven, blasts);
        expect("redriven blasts processed", self.accepted, blasts);
        expect("messages left", self.left, 0);
        for (name, network) in &self.networks {
            expect(&format!("events of {name}"), network.processed, network.published);
            expect(&format!("events of {name} out of order"), network.out_of_order, 0);
        }
        problems
    }

    fn processed(&self) -> u64 {
        self.networks.values().map(|network| network.processed).sum()
    }

    /// The closing table.
    pub(super) fn table(&self) -> String {
        let mut text =
            format!("{:<12} {:>9} {:>9} {:>9}   {}\n", "network", "published", "processed", "again", "order");
        let mut row = |name: &str, published: u64, processed: u64, again: u64, order: &str| {
            text.push_str(&format!("{name:<12} {published:>9} {processed:>9} {again:>9}   {order}\n"));
        };
        for (name, network) in &self.networks {
            let order = if network.out_of_order == 0 { "kept" } else { "BROKEN" };
            row(name, network.published, network.processed, network.again, order);
        }
        let again = self.networks.values().map(|network| network.again).sum();
        row("total", self.events, self.processed(), again, "");
        let kinds: Vec<String> =
            self.kinds.iter().map(|(kind, count)| format!("{count} {}", kind.replace('-', " "))).collect();
        text.push_str(&format!(
            "\nby kind      {} = {}\nby strength  {} alerts + {} quiet = {}\nduplicates   {} refused to be stored twice\n",
            kinds.join(" + "),
            self.kinds.values().sum::<u64>(),
            self.alerts,
            self.quiet,
            self.alerts + self.quiet,
            self.duplicates,
        ));
        text.push_str(&format!(
            "dead letters {} kept, {} redriven, {} processed\nleft         {} messages in any queue\n",
            self.dead, self.redriven, self.accepted, self.left
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Counts {
        let network = |count| Network { published: count, processed: count, ..Network::default() };
        Counts {
            events: 10,
            confirmed: 10,
            duplicates: 10,
            networks: [("ak".to_owned(), network(4)), ("ci".to_owned(), network(6))].into(),
            quiet: 7,
            alerts: 3,
            alerts_received: 3,
            kinds: [("earthquake".to_owned(), 8), ("quarry-blast".to_owned(), 2)].into(),
            dead: 2,
            redriven: 2,
            accepted: 2,
            ..Counts::default()
        }
    }

    #[test]
    fn counts_that_add_up_have_no_problem() {
        assert_eq!(whole().problems(3, 2), Vec::<String>::new());
    }

    #[test]
    fn each_count_that_is_off_is_named() {
        let mut lost = whole();
        lost.networks.get_mut("ci").expect("it is there").processed = 5;
        assert_eq!(
            lost.problems(3, 2),
            [
                "events through the networks' queues: 9, where 10 were expected",
                "events of ci: 5, where 6 were expected"
            ]
        );
        let mut unordered = whole();
        unordered.networks.get_mut("ak").expect("it is there").out_of_order = 1;
        assert_eq!(unordered.problems(3, 2), ["events of ak out of order: 1, where 0 were expected"]);
        assert_eq!(whole().problems(4, 2).len(), 2, "alerts, and messages out of alerts");
    }

    #[test]
    fn the_table_adds_up_on_paper_too() {
        let table = whole().table();
        assert!(table.contains("total               10        10         0"), "{table}");
        assert!(table.contains("8 earthquake + 2 quarry blast = 10"), "{table}");
        assert!(table.contains("3 alerts + 7 quiet = 10"), "{table}");
    }
}
