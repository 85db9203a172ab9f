//! Where the router under measurement is: the one that the user named, or a child of the bench.

use std::path::PathBuf;

use chaski_client::Client;

use super::usage;
use crate::child::Router;
use crate::context::Context;

/// Bytes of unconfirmed publishes that the client allows.
const IN_FLIGHT_BYTES: usize = 256 << 20;

/// A router, and how to reach it; every call of [`Target::connect`] is a new connection.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    url: String,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    /// Known of a child only.
    pid: Option<u32>,
}

impl Target {
    /// The router that the command line names.
    pub(crate) fn named(context: &Context) -> Target {
        let identity = context.cert.clone().zip(context.key_file.clone());
        Target { url: context.url.clone(), ca: context.ca.clone(), identity, pid: None }
    }

    /// A child.
    pub(crate) fn child(router: &Router) -> Target {
        Target {
            url: router.url().to_owned(),
            ca: Some(router.setup().ca()),
            identity: None,
            pid: Some(router.pid()),
        }
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        // The works keep their own windows; the client's must not be the narrower one.
        let mut builder =
            Client::builder().in_flight(chaski_protocol::MAX_IN_FLIGHT).in_flight_bytes(IN_FLIGHT_BYTES);
        if let Some(ca) = &self.ca {
            builder = builder.ca_file(ca);
        }
        if let Some((certificate, key)) = &self.identity {
            builder = builder.identity_files(certificate, key);
        }
        Ok(builder.connect(&self.url).await?)
    }

    /// Bytes that the router has written to its files, where its process is known.
    pub(crate) fn written(&self) -> anyhow::Result<Option<u64>> {
        self.pid.map(usage::written).transpose()
    }
}
