//! At least once on the way, once in the books: the effect and the message's id are written in one transaction of the
//! consumer's own database (SQLite here), so a second delivery of the same message changes nothing.

use std::time::Duration;

use anyhow::Context as _;
use chaski_client::{Delivery, Message};
use futures::TryStreamExt as _;
use rusqlite::Connection;

const QUEUE: &str = "examples.deposits";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = chaski_examples::connect().await?;
    chaski_examples::fresh_queue(&client, QUEUE, &[], &[]).await?;
    for soles in 1..=20u32 {
        client.publish_pipelined(Message::new(QUEUE, soles.to_string())).await?;
    }
    client.flush().await?;

    // A file of yours in real life.
    let mut books = Connection::open_in_memory()?;
    books.execute_batch(
        "create table seen (id text primary key);
         create table account (balance integer not null);
         insert into account values (0);",
    )?;
    let mut deposits = client.consume(QUEUE).await?;
    let (mut booked, mut skipped, mut crashes) = (0, 0, 0);
    while booked + skipped < 20 + crashes {
        let deposit = deposits.try_next().await?.context("the queue is gone")?;
        match book(&mut books, &deposit)? {
            true => booked += 1,
            false => skipped += 1,
        }
        if deposit.attempt() == 1 && booked % 5 == 0 {
            // We "die" between the books and the ack: the router can't know, and delivers it again.
            crashes += 1;
            deposit.nack_after(Duration::from_millis(20)).await?;
        } else {
            deposit.ack().await?;
        }
    }

    let balance: u32 = books.query_row("select balance from account", [], |row| row.get(0))?;
    println!(
        "{booked} deposits booked, {crashes} delivered again, {skipped} of these skipped: {balance} soles"
    );
    anyhow::ensure!(
        balance == (1..=20).sum::<u32>() && skipped == crashes && crashes > 0,
        "the books are wrong"
    );
    client.close().await;
    Ok(())
}

/// Books a deposit once, however often it is delivered; false when it was booked before.
fn book(books: &mut Connection, deposit: &Delivery) -> anyhow::Result<bool> {
    let soles: u32 = std::str::from_utf8(deposit.payload())?.parse()?;
    let both = books.transaction()?;
    if both.execute("insert or ignore into seen values (?1)", [deposit.message_id()])? == 0 {
        return Ok(false);
    }
    both.execute("update account set balance = balance + ?1", [soles])?;
    both.commit()?;
    Ok(true)
}
