//! What the examples share: the way to the router, and queues that are empty at the start of every run. The stories are in
//! `src/bin/`, and nothing here is needed to tell them.

pub mod books;
pub mod orders;

use anyhow::Context as _;
use chaski_client::Client;
use toml_edit::{DocumentMut, Item, Table};

/// The router of `CHASKI_URL`, or the one that `chaski serve --dev` starts.
pub async fn connect() -> anyhow::Result<Client> {
    let url = std::env::var("CHASKI_URL").unwrap_or_else(|_| "quic://127.0.0.1:7447".to_owned());
    Client::connect(&url)
        .await
        .with_context(|| format!("no router at {url}: start one with `chaski serve --dev`"))
}

/// A new, empty queue; what an earlier run left of it goes. Without patterns it takes the topic of its own name. Settings are
/// `(key, value)` in the spelling of the rules: `("ordering", "\"key\"")`.
pub async fn fresh_queue(
    client: &Client,
    name: &str,
    bind: &[&str],
    settings: &[(&str, &str)],
) -> anyhow::Result<()> {
    let admin = client.admin();
    if admin.queue_list().await?.iter().any(|queue| queue.name == name) {
        admin.dlq_purge(name).await?;
        admin.queue_delete(name, true).await?;
    }
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    admin.queue_create(name, bind.iter().map(|pattern| (*pattern).to_owned()).collect(), settings).await?;
    Ok(())
}

/// Takes these tables into the rules in force, each in the place of one with its name; all other rules stay as they are.
pub async fn add_rules(client: &Client, document: &str) -> anyhow::Result<()> {
    let admin = client.admin();
    let mut rules: DocumentMut = admin.rules_show().await?.document.parse()?;
    let more: DocumentMut = document.parse()?;
    for (kind, tables) in more.iter() {
        let known = rules.entry(kind).or_insert_with(|| {
            let mut empty = Table::new();
            empty.set_implicit(true);
            Item::Table(empty)
        });
        let known = known.as_table_mut().with_context(|| format!("`{kind}` of the rules is no table"))?;
        for (name, table) in tables.as_table().into_iter().flatten() {
            known.insert(name, table.clone());
        }
    }
    admin.rules_apply(rules.to_string(), Vec::new(), Vec::new(), Vec::new(), Vec::new()).await?;
    Ok(())
}
