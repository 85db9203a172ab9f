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
        let mut text = String::new();
        for (name, patterns) in queues {
            write!(
                text,
                "\n[queue.{}]\nbind = {}\n",
                serde_json::to_string(name)?,
                serde_json::to_string(patterns)?
            )?;
            for (key, value) in load::settings(durability) {
                writeln!(text, "{key} = {value}")?;
            }
        }
        let names = queues.iter().map(|(name, _)| name.clone()).collect();
        Added::apply_text(client, &text, names).await
    }

    /// Adds a piece of a document, that makes these queues among other things.
    pub(crate) async fn apply_text(client: &Client, text: &str, names: Vec<String>) -> anyhow::Result<Added> {
        let document = client.admin().rules_show().await?.document;
        let extended = format!("{document}\n{text}");
        client.admin().rules_apply(&extended, Vec::new(), Vec::new(), Vec::new(), Vec::new()).await?;
        Ok(Added { document, names })
    }

    /// Puts the rules back as they were; the queues go with their messages.
    pub(crate) async fn remove(self, client: &Client) -> anyhow::Result<()> {
        client.admin().rules_apply(&self.document, Vec::new(), Vec::new(), self.names, Vec::new()).await?;
        Ok(())
    }
}
