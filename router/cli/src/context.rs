//! What every command knows: where the router is, who asks, and whether the answer is JSON. Connections and administrative
//! calls begin here.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use chaski_client::Client;
use chaski_protocol::admin::AdminRequest;
use indicatif::ProgressBar;
use serde::de::DeserializeOwned;

use crate::cli::Connection;

/// An administrative call that takes longer than this shows that it is under way.
const QUIET: Duration = Duration::from_secs(1);

/// How long a command that failed may take to tell the router that it is gone.
const FAREWELL: Duration = Duration::from_secs(1);

/// The options that stand beside every command.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Where the router is.
    pub(crate) url: String,
    /// The certificate authority to trust.
    pub(crate) ca: Option<PathBuf>,
    /// The client's certificate.
    pub(crate) cert: Option<PathBuf>,
    /// Its key.
    pub(crate) key_file: Option<PathBuf>,
    /// The file with its token.
    pub(crate) token_file: Option<PathBuf>,
    /// Whether stdout is JSON, one object a line.
    pub(crate) json: bool,
    /// The clients that were made.
    clients: Arc<Mutex<Vec<Client>>>,
}

impl Context {
    /// From the command line and the environment; a variable that is empty counts as not set.
    pub(crate) fn new(connection: Connection, json: bool) -> Context {
        let Connection { url, ca, cert, key_file, token_file } = connection;
        let named = |file: Option<PathBuf>| file.filter(|file| !file.as_os_str().is_empty());
        let (ca, cert, key_file) = (named(ca), named(cert), named(key_file));
        Context { url, ca, cert, key_file, token_file, json, clients: Arc::default() }
    }

    /// Connects to the router.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        // Who sits at a terminal is told at once that the router refuses, and whether trying again can help.
        let mut builder = Client::builder().retry_refusals(false);
        if let Some(ca) = &self.ca {
            builder = builder.ca_file(ca);
        }
        match (&self.cert, &self.key_file) {
            (Some(cert), Some(key)) => builder = builder.identity_files(cert, key),
            (None, None) => {}
            (Some(_), None) => return Err(crate::failure::usage("--cert needs --key-file beside it")),
            (None, Some(_)) => return Err(crate::failure::usage("--key-file needs --cert beside it")),
        }
        if let Some(file) = &self.token_file {
            let token = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the token in {}", file.display()))?;
            builder = builder.token(token.trim());
        }
        let client = builder.connect(&self.url).await?;
        self.clients.lock().expect("nobody panics with it").push(client.clone());
        Ok(client)
    }

    /// Closes what a failed command left open, or the router would hold its connection and leases until they time out.
    pub(crate) async fn close(&self) {
        let clients = std::mem::take(&mut *self.clients.lock().expect("nobody panics with it"));
        let closed = futures::future::join_all(clients.iter().map(Client::close));
        // What doesn't end in this time is left to the router's own patience.
        let _ = tokio::time::timeout(FAREWELL, closed).await;
    }

    /// One administrative call on a connection of its own.
    pub(crate) async fn admin<T: DeserializeOwned>(&self, request: AdminRequest) -> anyhow::Result<T> {
        self.calling(async |client| ask(client, request).await).await
    }

    /// Administrative calls on a connection of their own.
    pub(crate) async fn calling<T>(
        &self,
        calls: impl AsyncFnOnce(&Client) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let client = self.connect().await?;
        let waiting = async {
            tokio::time::sleep(QUIET).await;
            // Hidden where stderr is no terminal.
            let spinner = ProgressBar::new_spinner().with_message("the router is at work");
            spinner.enable_steady_tick(Duration::from_millis(100));
            std::future::pending::<()>().await;
            drop(spinner);
        };
        let answer = tokio::select! {
            answer = calls(&client) => answer,
            () = waiting => unreachable!("it waits for ever"),
        };
        client.close().await;
        answer
    }

    /// The environment in which a command run by this one finds the same router.
    pub(crate) fn environment(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        let mut environment = vec![("CHASKI_URL", self.url.clone().into())];
        let files =
            [("CHASKI_CA", &self.ca), ("CHASKI_CERT", &self.cert), ("CHASKI_KEY_FILE", &self.key_file)];
        for (name, file) in files {
            if let Some(file) = file {
                environment.push((name, file.clone().into_os_string()));
            }
        }
        environment
    }
}

/// One administrative call.
pub(crate) async fn ask<T: DeserializeOwned>(client: &Client, request: AdminRequest) -> anyhow::Result<T> {
    let answer = client.admin().raw(request).await?;
    serde_json::from_value(answer).context("the router's answer is not what this version expects")
}
