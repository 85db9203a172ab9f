//! A saga: an order reserves stock, charges a card and is shipped; where a step fails, what was done is undone. Cards are declined,
//! carriers missing, workers die, and the books balance all the same. Its rules are `rules/order-saga.toml`. With `BOOKS=FILE` the
//! books outlive the program: started again after a crash, it goes on where it was.

use std::collections::BTreeMap;
use std::time::Duration;

use chaski_client::{Client, ConsumeError, Delivery, Message};
use chaski_examples::{books::Books, orders};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = chaski_examples::connect().await?;
    chaski_examples::add_rules(&client, include_str!("../../rules/order-saga.toml")).await?;
    let books = Books::open(std::env::var_os("BOOKS"))?;
    let kept = tokio::select! {
        ended = work(&client, &books) => anyhow::bail!("the workers ended before the orders did: {ended:?}"),
        kept = place(&client, &books) => kept?,
    };
    let [reserved, shipped, released] = books.totals(["reserved", "shipped", "released"])?;
    let [charged, refunded] = books.totals(["charged", "refunded"])?;
    println!("{reserved} units reserved = {shipped} shipped + {released} released");
    println!("{charged} soles charged = {kept} kept + {refunded} refunded");
    anyhow::ensure!(reserved == shipped + released && charged == kept + refunded, "the books don't balance");
    client.close().await;
    Ok(())
}

/// Places the orders, each under its own id; answers the money of those that completed.
async fn place(client: &Client, books: &Books) -> anyhow::Result<u32> {
    let (run, orders) = (books.name()?, orders::count());
    let order = |number: u32| {
        // An order that is placed again joins the first, or gets its outcome: after a crash all are just placed again.
        let message = Message::new("examples.orders", orders::order(number)).id(format!("{run}-{number}"));
        async move { anyhow::Ok((number, client.request(message).timeout(Duration::from_secs(300)).await?)) }
    };
    let mut outcomes = futures::stream::iter(1..=orders).map(order).buffer_unordered(16);
    let (mut kept, mut states) = (0, BTreeMap::new());
    while let Some((number, outcome)) = outcomes.try_next().await? {
        let outcome: Value = serde_json::from_slice(outcome.payload())?;
        kept += if outcome["state"] == "completed" { number } else { 0 };
        let why = outcome["failed"]["reason"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        *states.entry(format!("{}{why}", outcome["state"].as_str().unwrap_or("?"))).or_insert(0) += 1;
    }
    println!("{orders} orders: {states:?}");
    Ok(kept)
}

async fn work(client: &Client, books: &Books) -> Result<(), ConsumeError> {
    // `once` undoes only what was done. Now and then a worker "dies" between books and answer, and gets the step again.
    let once = async |queue, account, what| {
        let worker = async |step: &Delivery| {
            let order = orders::of(step);
            let new = books.enter(&step.idempotency_key(), account, orders::amount(&order, what))?;
            let dies = new && orders::amount(&order, "soles").is_multiple_of(6);
            if dies { Err("no answer".to_owned()) } else { Ok(()) }
        };
        client.consume(queue).await?.once(books, 8, worker).await
    };
    // These can say no, and then the order is undone.
    let unless = async |no: &str, queue, account, what| {
        let worker = async |step: &Delivery| match orders::of(step) {
            order if order[no] == true => Err(no.to_owned()),
            order => books.enter(&step.idempotency_key(), account, orders::amount(&order, what)).map(|_| ""),
        };
        client.respond(queue, 8, worker).await
    };
    tokio::try_join!(
        once("examples.stock-reserve", "reserved", "units"),
        once("examples.stock-release", "released", "units"),
        unless("declined", "examples.card-charge", "charged", "soles"),
        once("examples.card-refund", "refunded", "soles"),
        unless("unreachable", "examples.ship", "shipped", "units"),
    )?;
    Ok(())
}
