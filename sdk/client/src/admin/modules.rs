//! Modules and traces: what needs more than one frame, or has settings. Binaries are uploaded first and then named by their digest.

use std::collections::BTreeMap;
use std::future::{Future, IntoFuture};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use chaski_protocol::MAX_ADMIN_FRAME;
use chaski_protocol::admin::{AdminRequest, ModuleDeployed, ModuleView, TraceView, Uploaded};
use chaski_protocol::frames::Open;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Admin, answer, unanswered};
use crate::base64;
use crate::error::AdminError;
use crate::frames;
use crate::message::Message;

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, AdminError>> + Send>>;

impl Admin {
    /// Brings a module's binary to the router; its digest names it from then on. Nothing uses it yet.
    pub async fn upload(&self, wasm: impl Into<Bytes>) -> Result<String, AdminError> {
        let (link, wasm) = (self.link().await?, wasm.into());
        let open = Open::Upload { bytes: wasm.len() as u64 };
        let first =
            frames::upload(&link.connection, &open, wasm, MAX_ADMIN_FRAME).await.map_err(unanswered)?;
        answer(&first).map(|Uploaded { digest }| digest)
    }

    /// Uploads every module file that a rules document names, each once, and answers which digest stands for which path: what
    /// [`rules_apply`](Admin::rules_apply) takes. Relative paths begin at `directory`. A document that is no TOML names none.
    pub async fn upload_files(
        &self,
        document: &str,
        directory: impl AsRef<Path>,
    ) -> Result<Vec<(String, String)>, AdminError> {
        let mut files = Vec::new();
        for path in module_files(document) {
            let file = directory.as_ref().join(&path);
            let wasm = tokio::fs::read(&file)
                .await
                .map_err(|error| AdminError::File { file: file.clone(), reason: error.to_string() })?;
            files.push((path, self.upload(wasm).await?));
        }
        Ok(files)
    }

    /// The signatures that lie beside the module files that a rules document names, each as `FILE.sig` with 64 bytes: what
    /// [`rules_apply`](Admin::rules_apply) takes. A file without one is left out; where the rules trust keys, the router refuses it.
    pub async fn signatures(
        &self,
        document: &str,
        directory: impl AsRef<Path>,
    ) -> Result<Vec<(String, String)>, AdminError> {
        let mut signatures = Vec::new();
        for path in module_files(document) {
            let mut file = directory.as_ref().join(&path).into_os_string();
            file.push(".sig");
            match tokio::fs::read(&file).await {
                Ok(signature) => signatures.push((path, base64::encode(&signature))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(AdminError::File { file: file.into(), reason: error.to_string() });
                }
            }
        }
        Ok(signatures)
    }

    /// Uploads a binary and gives it to a module, as a new rules version: `.await` it, after settings such as [`Deploy::params`]. A
    /// name that the rules don't know makes a new `[module.NAME]`.
    pub fn deploy(&self, name: impl Into<String>, wasm: impl Into<Bytes>) -> Deploy {
        Deploy { name: Some(name.into()), ..self.deploy_described(wasm) }
    }

    /// As [`deploy`](Admin::deploy), under the name that the module says of itself.
    pub fn deploy_described(&self, wasm: impl Into<Bytes>) -> Deploy {
        Deploy {
            admin: self.clone(),
            name: None,
            wasm: wasm.into(),
            signature: None,
            params: None,
            force: false,
        }
    }

    /// Uploads a binary and runs it beside the live one, without any effect: `.await` it, after settings such as
    /// [`Shadow::for_time`].
    pub fn module_shadow(&self, name: impl Into<String>, wasm: impl Into<Bytes>) -> Shadow {
        Shadow { admin: self.clone(), name: name.into(), wasm: wasm.into(), signature: None, for_ms: None }
    }

    /// What would become of a message, and why; nothing is stored or delivered unless [`Trace::publish`] is asked for. `.await` it.
    pub fn trace(&self, message: Message) -> Trace {
        Trace { admin: self.clone(), message, publish: false }
    }
}

/// The files that the document's modules name, as written, each once.
fn module_files(document: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        module: BTreeMap<String, Module>,
    }
    #[derive(Deserialize)]
    struct Module {
        file: Option<String>,
    }
    // What is wrong with the document is for the router to say, with its line.
    let modules = toml::from_str(document).map(|Document { module }| module).unwrap_or_default();
    let mut files: Vec<_> = modules.into_values().filter_map(|module| module.file).collect();
    files.sort();
    files.dedup();
    files
}

/// A deploy about to begin: `.await` it.
#[must_use = "a deploy begins when it is awaited"]
#[derive(Clone, Debug)]
pub struct Deploy {
    admin: Admin,
    name: Option<String>,
    wasm: Bytes,
    signature: Option<String>,
    params: Option<Map<String, Value>>,
    force: bool,
}

impl Deploy {
    /// An Ed25519 signature over the binary, 64 bytes: needed where the rules name trusted keys.
    pub fn signature(mut self, signature: impl AsRef<[u8]>) -> Deploy {
        self.signature = Some(base64::encode(signature.as_ref()));
        self
    }

    /// What the module is given, in the place of what the rules have.
    pub fn params(mut self, params: Map<String, Value>) -> Deploy {
        self.params = Some(params);
        self
    }

    /// Even if this version rolled itself back before, or fails on the messages that were judged last.
    pub fn force(mut self) -> Deploy {
        self.force = true;
        self
    }
}

impl IntoFuture for Deploy {
    type Output = Result<ModuleDeployed, AdminError>;
    type IntoFuture = Boxed<ModuleDeployed>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Deploy { admin, name, wasm, signature, params, force } = self;
            let digest = admin.upload(wasm).await?;
            admin.call(AdminRequest::ModuleDeploy { name, digest, signature, params, force }).await
        })
    }
}

/// A shadow about to begin: `.await` it.
#[must_use = "a shadow begins when it is awaited"]
#[derive(Clone, Debug)]
pub struct Shadow {
    admin: Admin,
    name: String,
    wasm: Bytes,
    signature: Option<String>,
    for_ms: Option<u64>,
}

impl Shadow {
    /// As [`Deploy::signature`].
    pub fn signature(mut self, signature: impl AsRef<[u8]>) -> Shadow {
        self.signature = Some(base64::encode(signature.as_ref()));
        self
    }

    /// It ends by itself after this time; otherwise when it is promoted or another takes its place.
    pub fn for_time(mut self, time: Duration) -> Shadow {
        self.for_ms = Some(crate::message::millis(time));
        self
    }
}

impl IntoFuture for Shadow {
    type Output = Result<ModuleView, AdminError>;
    type IntoFuture = Boxed<ModuleView>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Shadow { admin, name, wasm, signature, for_ms } = self;
            let digest = admin.upload(wasm).await?;
            admin.call(AdminRequest::ModuleShadow { name, digest, signature, for_ms }).await
        })
    }
}

/// A trace about to begin: `.await` it.
#[must_use = "a trace begins when it is awaited"]
#[derive(Clone, Debug)]
pub struct Trace {
    admin: Admin,
    message: Message,
    publish: bool,
}

impl Trace {
    /// Publishes the message for real; its confirmation is part of the answer.
    pub fn publish(mut self) -> Trace {
        self.publish = true;
        self
    }
}

impl IntoFuture for Trace {
    type Output = Result<TraceView, AdminError>;
    type IntoFuture = Boxed<TraceView>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Trace { admin, message, publish } = self;
            let head = message.published_head();
            let text = |text: &str| text.to_owned();
            let request = AdminRequest::Trace {
                topic: text(head.topic),
                id: Some(text(head.id)),
                key: head.key.map(text),
                headers: head.headers.iter().map(|(name, value)| (text(name), text(value))).collect(),
                payload: base64::encode(message.payload()),
                priority: Some(head.priority),
                ttl_ms: head.ttl_ms,
                reply_to: head.reply_to.map(text),
                publish,
            };
            admin.call(request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::module_files;

    #[test]
    fn the_files_of_a_document_are_named_once() {
        let document = "[module.b]\nfile = \"b.wasm\"\n[module.a]\nfile = \"../a.wasm\"\n[module.c]\nfile = \"b.wasm\"\n[module.d]\n\
                        builtin = \"cel\"\n[queue.q]\n";
        assert_eq!(module_files(document), ["../a.wasm", "b.wasm"]);
        assert_eq!(module_files("[queue.q]"), [] as [&str; 0]);
        assert_eq!(module_files("no TOML at all"), [] as [&str; 0]);
    }
}
