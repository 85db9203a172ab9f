//! Many queues in one change of the rules, and the rules as they were afterwards.

use std::fmt::Write as _;

use chaski_client::Client;

use super::load::{self, Durability};

/// Queues that were added to the rules in force.
pub(crate) struct Added {
    document: String,
    names: Vec<String>,
}

impl Added {
    /// Adds queues, each with its patterns, in one version.
    pub(crate) async fn apply(
        client: &Client,
        queues: &[(String, Vec<String>)],
        durability: Durability,
    ) -> anyhow::Result<Added> {
        let document = client.admin().rules_show().await?.document;
        let mut extended = document.clone();
        for (name, patterns) in queues {
            write!(
                extended,
                "\n[queue.{}]\nbind = {}\n",
                serde_json::to_string(name)?,
                serde_json::to_string(patterns)?
            )?;
            for (key, value) in load::settings(durability) {
                writeln!(extended, "{key} = {value}")?;
            }
        }
        client.admin().rules_apply(&extended, Vec::new(), Vec::new(), Vec::new()).await?;
        Ok(Added { document, names: queues.iter().map(|(name, _)| name.clone()).collect() })
    }

    /// Puts the rules back as they were; the queues go with their messages.
    pub(crate) async fn remove(self, client: &Client) -> anyhow::Result<()> {
        client.admin().rules_apply(&self.document, Vec::new(), self.names, Vec::new()).await?;
        Ok(())
    }
}
