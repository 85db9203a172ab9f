//! `chaski request`: asks, waits for the reply, and prints it.

use std::path::PathBuf;
use std::time::Duration;

use chaski_client::Message;

use crate::context::Context;
use crate::input;
use crate::message::Arrival;
use crate::{args, out, stop};

/// Asks, and prints the reply's payload as it is
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  chaski request price.get '{\"item\":\"potato\"}' --timeout 5s")]
pub(crate) struct Args {
    /// The topic
    topic: String,
    /// The payload; without it and --file, stdin is read if it is no terminal
    #[arg(conflicts_with = "file")]
    payload: Option<String>,
    /// The payload is a file (`-` for stdin)
    #[arg(long, value_name = "F")]
    file: Option<PathBuf>,
    /// How long to wait for the reply
    #[arg(long, value_name = "D", default_value = "30s", value_parser = args::duration)]
    timeout: Duration,
    /// The request's id: asked again with it, an answered request gets the same reply
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The ordering key
    #[arg(long, value_name = "K")]
    key: Option<String>,
    /// A header; may be given again
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = args::pair)]
    headers: Vec<(String, String)>,
}

/// Asks.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let payload = input::payload(args.payload.as_deref(), args.file.as_deref()).await?;
    stop::with(async |mut stop| {
        let mut message = Message::new(&args.topic, payload);
        if let Some(id) = &args.id {
            message = message.id(id);
        }
        if let Some(key) = &args.key {
            message = message.key(key);
        }
        for (name, value) in &args.headers {
            message = message.header(name, value);
        }
        let client = context.connect().await?;
        let reply = tokio::select! {
            reply = client.request(message).timeout(args.timeout) => reply?,
            () = stop.requested() => {
                let sentence = "stopped while waiting for the reply";
                return Err(crate::failure::fail(chaski_protocol::Code::ShuttingDown, sentence));
            }
        };
        if context.json {
            out::json(&Arrival::passed(&reply).json())?;
        } else {
            out::bytes(reply.payload())?;
            if !reply.payload().ends_with(b"\n") {
                out::bytes(b"\n")?;
            }
        }
        client.close().await;
        Ok(())
    })
    .await
}
