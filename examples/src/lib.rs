//! What the examples share: the way to the router, and queues that are empty at the start of every run. The stories are in
//! `src/bin/`, and nothing here is needed to tell them.

use anyhow::Context as _;
use chaski_client::Client;

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
