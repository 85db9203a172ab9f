//! The books of a shop, in SQLite: each entry is written in one transaction with the idempotency key under which it was made, so it is
//! made once, however often its step is delivered and whoever dies in between. They know nothing of steps and queues.

use std::ffi::OsString;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chaski_client::Seen;
use rusqlite::{Connection, OptionalExtension as _};

/// Entries by account, and the keys that were used.
pub struct Books(Mutex<Connection>);

impl Books {
    /// The books in this file, which goes on where it ended; without one, new books that go with the process.
    pub fn open(file: Option<OsString>) -> rusqlite::Result<Books> {
        let books = match file {
            Some(file) => Connection::open(file)?,
            None => Connection::open_in_memory()?,
        };
        books.execute_batch(
            "pragma journal_mode = wal;
             create table if not exists run (name text not null);
             insert into run select lower(hex(randomblob(8))) where not exists (select 1 from run);
             create table if not exists seen (key text primary key, closed integer not null);
             create table if not exists entries (account text not null, amount integer not null);",
        )?;
        Ok(Books(Mutex::new(books)))
    }

    /// What these books are called; other books are called otherwise.
    pub fn name(&self) -> rusqlite::Result<String> {
        self.lock().query_row("select name from run", [], |row| row.get(0))
    }

    /// Makes an entry under this key. False when it was made before; an error when the key is closed.
    pub fn enter(&self, key: &str, account: &str, amount: u32) -> Result<bool, String> {
        let mut books = self.lock();
        let mut enter = || {
            let both = books.transaction()?;
            if both.execute("insert or ignore into seen values (?1, false)", [key])? == 1 {
                both.execute("insert into entries values (?1, ?2)", (account, amount))?;
                both.commit()?;
                return Ok((true, false));
            }
            both.query_row("select closed from seen where key = ?1", [key], |row| Ok((false, row.get(0)?)))
        };
        match enter().map_err(|error: rusqlite::Error| error.to_string())? {
            (_, true) => Err("it is undone already, and is done no more".to_owned()),
            (entered, false) => Ok(entered),
        }
    }

    /// What the entries of each of these accounts add up to.
    pub fn totals<const N: usize>(&self, accounts: [&str; N]) -> rusqlite::Result<[u32; N]> {
        let (books, mut totals) = (self.lock(), [0; N]);
        for (total, account) in totals.iter_mut().zip(accounts) {
            let sum = "select coalesce(sum(amount), 0) from entries where account = ?1";
            *total = books.query_row(sum, [account], |row| row.get(0))?;
        }
        Ok(totals)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic ended was rolled back.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `Consumer::once` asks. A key is recorded with its entry; here only those are new that had no entry to make.
impl Seen for Books {
    type Error = rusqlite::Error;

    async fn check(&self, key: &str) -> rusqlite::Result<bool> {
        let found =
            self.lock().query_row("select 1 from seen where key = ?1", [key], |_| Ok(())).optional()?;
        Ok(found.is_some())
    }

    async fn record(&self, key: &str) -> rusqlite::Result<()> {
        self.lock().execute("insert or ignore into seen values (?1, false)", [key])?;
        Ok(())
    }

    async fn close(&self, key: &str) -> rusqlite::Result<bool> {
        // One statement, so no worker comes between the look and the closing. What has an entry stays as it is.
        let close =
            "insert into seen values (?1, true) on conflict (key) do update set key = key returning closed";
        let closed: bool = self.lock().query_row(close, [key], |row| row.get(0))?;
        Ok(!closed)
    }
}
