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

/// What one version of the module decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Version {
    /// What it is.
    pub(super) name: String,
    /// Events of it that became alerts.
    pub(super) alerts: u64,
    /// Events that it dropped: they went through their network's queue, and there was no alert.
    pub(super) quiet: u64,
    /// Events that it failed on. Another version decided them in the end.
    pub(super) failed: u64,
    /// Events that had to become alerts, by the file.
    #[serde(skip)]
    pub(super) expected: u64,
}

/// The trucks of all missions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Trucks {
    /// Reserved for a mission.
    pub(super) reserved: u64,
    /// Of these, sent.
    pub(super) sent: u64,
    /// Of these, released because their mission was undone.
    pub(super) released: u64,
}

/// The money of all missions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Fund {
    /// Taken.
    pub(super) charged: u64,
    /// Of this, what missions that completed cost.
    pub(super) kept: u64,
    /// Of this, what was given back.
    pub(super) refunded: u64,
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
    /// The module's versions in the order of their deployment.
    pub(super) versions: Vec<Version>,
    /// Events that became alerts.
    pub(super) alerts: u64,
    /// Dead letters of `alerts`: the module failed on them.
    pub(super) failed: u64,
    /// Moved back from there, and judged by the version before.
    pub(super) judged_again: u64,
    /// Events by kind, as their consumers saw them.
    pub(super) kinds: BTreeMap<String, u64>,
    /// Explosions and quarry blasts in the dead-letter queue.
    pub(super) dead: u64,
    /// Moved back from there.
    pub(super) redriven: u64,
    /// Then processed.
    pub(super) accepted: u64,
    /// Events by station, as one answer to one question.
    pub(super) stations: BTreeMap<String, u64>,
    /// Sagas by the state in which they ended.
    pub(super) missions: BTreeMap<String, u64>,
    /// Their trucks.
    pub(super) trucks: Trucks,
    /// Their money.
    pub(super) fund: Fund,
    /// Messages left in any queue at the end, dead letters among them.
    pub(super) left: u64,
    /// From the kill until the router listened again, in milliseconds.
    pub(super) restart_ms: u64,
    /// The whole demo, in milliseconds.
    pub(super) elapsed_ms: u64,
}

impl Counts {
    /// What does not add up, as sentences; empty when all is well. `blasts` is the file's own count.
    pub(super) fn problems(&self, blasts: u64) -> Vec<String> {
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
        expect("alerts and quiet events together", self.decided(), self.events);
        for version in &self.versions {
            expect(
                &format!("alerts by the module's version `{}`", version.name),
                version.alerts,
                version.expected,
            );
        }
        expect("alerts", self.alerts, self.versions.iter().map(|version| version.alerts).sum());
        expect(
            "messages that the module failed on",
            self.failed,
            self.versions.iter().map(|version| version.failed).sum(),
        );
        expect("messages judged again", self.judged_again, self.failed);
        expect("dead letters", self.dead, blasts);
        expect("dead letters redriven", self.redriven, blasts);
        expect("redriven blasts processed", self.accepted, blasts);
        expect("events that the stations answered", self.stations.values().sum(), self.events);
        for state in ["completed", "compensated"] {
            expect(&format!("missions {state}"), self.missions.get(state).copied().unwrap_or_default(), 1);
        }
        expect("trucks sent or released", self.trucks.sent + self.trucks.released, self.trucks.reserved);
        expect("soles kept or refunded", self.fund.kept + self.fund.refunded, self.fund.charged);
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

    /// Events that a version of the module decided in the end.
    fn decided(&self) -> u64 {
        self.versions.iter().map(|version| version.alerts + version.quiet).sum()
    }

    /// The closing tables.
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
        text.push('\n');
        text.push_str(&self.verdicts());
        text.push_str(&format!(
            "\nby kind      {} = {}\nduplicates   {} refused to be stored twice\n",
            kinds.join(" + "),
            self.kinds.values().sum::<u64>(),
            self.duplicates,
        ));
        text.push_str(&format!(
            "dead letters {} kept, {} redriven, {} processed\n",
            self.dead, self.redriven, self.accepted
        ));
        let stations: Vec<String> =
            self.stations.iter().map(|(name, count)| format!("{count} {name}")).collect();
        text.push_str(&format!(
            "stations     {} = {}\n",
            stations.join(" + "),
            self.stations.values().sum::<u64>()
        ));
        let (trucks, fund) = (&self.trucks, &self.fund);
        text.push_str(&format!(
            "trucks       {} reserved = {} sent + {} released\n",
            trucks.reserved, trucks.sent, trucks.released
        ));
        text.push_str(&format!(
            "soles        {} charged = {} kept + {} refunded\n",
            fund.charged, fund.kept, fund.refunded
        ));
        text.push_str(&format!("left         {} messages in any queue\n", self.left));
        text
    }

    /// Who decided how much.
    fn verdicts(&self) -> String {
        let mut text = format!(
            "{:<22} {:>9} {:>9} {:>9} {:>9}\n",
            "module version", "decided", "alerts", "quiet", "failed"
        );
        let mut row = |name: &str, alerts: u64, quiet: u64, failed: u64| {
            let decided = alerts + quiet;
            text.push_str(&format!("{name:<22} {decided:>9} {alerts:>9} {quiet:>9} {failed:>9}\n"));
        };
        for version in &self.versions {
            row(&version.name, version.alerts, version.quiet, version.failed);
        }
        row("total", self.alerts, self.decided() - self.alerts, self.failed);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Counts {
        let network = |count| Network { published: count, processed: count, ..Network::default() };
        let version = |name: &str, alerts, quiet, failed| Version {
            name: name.to_owned(),
            alerts,
            quiet,
            failed,
            expected: alerts,
        };
        Counts {
            events: 10,
            confirmed: 10,
            duplicates: 10,
            networks: [("ak".to_owned(), network(4)), ("ci".to_owned(), network(6))].into(),
            versions: vec![version("gentle", 2, 3, 0), version("strict", 1, 4, 0), version("traps", 0, 0, 2)],
            alerts: 3,
            failed: 2,
            judged_again: 2,
            kinds: [("earthquake".to_owned(), 8), ("quarry-blast".to_owned(), 2)].into(),
            dead: 2,
            redriven: 2,
            accepted: 2,
            stations: [("north".to_owned(), 4), ("west".to_owned(), 6)].into(),
            missions: [("completed".to_owned(), 1), ("compensated".to_owned(), 1)].into(),
            trucks: Trucks { reserved: 5, sent: 2, released: 3 },
            fund: Fund { charged: 50, kept: 20, refunded: 30 },
            ..Counts::default()
        }
    }

    #[test]
    fn counts_that_add_up_have_no_problem() {
        assert_eq!(whole().problems(2), Vec::<String>::new());
    }

    #[test]
    fn each_count_that_is_off_is_named() {
        let mut lost = whole();
        lost.networks.get_mut("ci").expect("it is there").processed = 5;
        assert_eq!(
            lost.problems(2),
            [
                "events through the networks' queues: 9, where 10 were expected",
                "events of ci: 5, where 6 were expected"
            ]
        );
        let mut unordered = whole();
        unordered.networks.get_mut("ak").expect("it is there").out_of_order = 1;
        assert_eq!(unordered.problems(2), ["events of ak out of order: 1, where 0 were expected"]);
        let mut dropped = whole();
        dropped.versions[1].alerts = 0;
        dropped.alerts = 2;
        assert_eq!(
            dropped.problems(2),
            [
                "alerts and quiet events together: 9, where 10 were expected",
                "alerts by the module's version `strict`: 0, where 1 were expected"
            ]
        );
        let forgotten = Counts { judged_again: 1, ..whole() };
        assert_eq!(forgotten.problems(2), ["messages judged again: 1, where 2 were expected"]);
        let mut kept = whole();
        kept.trucks.released = 2;
        kept.fund.refunded = 31;
        kept.stations.remove("west");
        assert_eq!(
            kept.problems(2),
            [
                "events that the stations answered: 4, where 10 were expected",
                "trucks sent or released: 4, where 5 were expected",
                "soles kept or refunded: 51, where 50 were expected"
            ]
        );
    }

    #[test]
    fn the_table_adds_up_on_paper_too() {
        let table = whole().table();
        assert!(table.contains("total               10        10         0"), "{table}");
        assert!(table.contains("8 earthquake + 2 quarry blast = 10"), "{table}");
        assert!(table.contains("4 north + 6 west = 10"), "{table}");
        assert!(table.contains("5 reserved = 2 sent + 3 released"), "{table}");
        assert!(table.contains("50 charged = 20 kept + 30 refunded"), "{table}");
        assert!(table.contains("strict                         5         1         4         0"), "{table}");
        assert!(table.contains("total                         10         3         7         2"), "{table}");
    }
}
