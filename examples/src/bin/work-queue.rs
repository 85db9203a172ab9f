//! Competing consumers: three workers share one queue, and a slow one gets less, since each has credit for one job.

use std::time::Duration;

use chaski_client::{Client, Message};
use futures::TryStreamExt as _;
use tokio::sync::mpsc;

const JOBS: usize = 60;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = chaski_examples::connect().await?;
    chaski_examples::fresh_queue(&client, "examples.jobs", &[], &[]).await?;

    for job in 0..JOBS {
        // Pipelined: this waits for room only, the confirms come together below.
        client.publish_pipelined(Message::new("examples.jobs", format!("job {job}"))).await?;
    }
    client.flush().await?;
    println!("{JOBS} jobs are stored");

    let (done, mut finished) = mpsc::channel(JOBS);
    let mut workers = tokio::task::JoinSet::new();
    for (name, pace) in [("quick", 1), ("steady", 3), ("slow", 9)] {
        workers.spawn(work(client.clone(), name, Duration::from_millis(pace), done.clone()));
    }
    let mut jobs = std::collections::BTreeMap::new();
    for _ in 0..JOBS {
        tokio::select! {
            Some(name) = finished.recv() => *jobs.entry(name).or_insert(0) += 1,
            Some(ended) = workers.join_next() => ended??,
        }
    }
    println!("done: {jobs:?}");
    let left = client.admin().queue_show("examples.jobs").await?.messages;
    anyhow::ensure!(left == 0, "{left} jobs are left");
    println!("every job was done once, and none is left");
    client.close().await;
    Ok(())
}

async fn work(
    client: Client,
    name: &'static str,
    pace: Duration,
    done: mpsc::Sender<&'static str>,
) -> anyhow::Result<()> {
    let mut jobs = client.consume("examples.jobs").credit(1).await?;
    while let Some(job) = jobs.try_next().await? {
        tokio::time::sleep(pace).await; // the work
        job.ack().await?;
        done.send(name).await?;
    }
    Ok(())
}
