//! A router in a process of its own: this binary again, as `serve`. It never outlives the process that started it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How long a router may take until it listens: with a large journal it reads a snapshot first.
const START_LIMIT: Duration = Duration::from_secs(120);

/// What a router is started with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Its data directory.
    pub(crate) data: PathBuf,
    /// Its rules.
    pub(crate) rules: Option<PathBuf>,
    /// Where the `--dev` certificate authority is kept: not in the user's own configuration.
    pub(crate) config: PathBuf,
    /// Where it listens: the same again after a restart, so that clients find it.
    pub(crate) listen: String,
    /// Its administrative address.
    pub(crate) admin: String,
}

impl Setup {
    /// A router on free ports of loopback, with everything below `directory`.
    pub(crate) fn new(directory: &Path) -> Setup {
        Setup {
            data: directory.join("data"),
            rules: None,
            config: directory.join("config"),
            listen: "127.0.0.1:0".to_owned(),
            admin: "127.0.0.1:0".to_owned(),
        }
    }

    /// The certificate authority that clients trust.
    pub(crate) fn ca(&self) -> PathBuf {
        self.config.join("chaski/dev/ca.pem")
    }
}

/// A running router.
pub(crate) struct Router {
    process: Child,
    setup: Setup,
    url: String,
    pid: u32,
}

/// The line that `serve --json` prints once it listens.
#[derive(Deserialize)]
struct Listening {
    url: String,
    admin: String,
}

impl Router {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(setup: Setup) -> anyhow::Result<Router> {
        std::fs::create_dir_all(&setup.config)?;
        let mut command = Command::new(std::env::current_exe()?);
        // `bench child` replaces itself by `serve`, after it has asked to be killed when this process dies.
        command
            .args(["bench", "child", "--", "--json", "serve", "--dev", "--log", "warn"])
            .args(["--listen", &setup.listen, "--admin", &setup.admin])
            .arg("--data")
            .arg(&setup.data);
        if let Some(rules) = &setup.rules {
            command.arg("--rules").arg(rules);
        }
        command
            .env("XDG_CONFIG_HOME", &setup.config)
            .env_remove("CHASKI_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn().context("cannot start a router")?;
        let pid = process.id().context("the router ended at once")?;
        let mut lines = BufReader::new(process.stdout.take().context("the router has no output")?).lines();
        let mut complaints = process.stderr.take().context("the router has no error output")?;
        let line = tokio::time::timeout(START_LIMIT, lines.next_line())
            .await
            .context("the router did not listen within 2 minutes")??;
        let Some(line) = line else {
            let mut why = String::new();
            complaints.read_to_string(&mut why).await?;
            bail!("the router did not start: {}", why.trim());
        };
        let listening: Listening =
            serde_json::from_str(&line).with_context(|| format!("the router said `{line}`"))?;
        drain(lines, complaints);
        let setup = Setup {
            listen: address(&listening.url).to_owned(),
            admin: address(&listening.admin).to_owned(),
            ..setup
        };
        Ok(Router { process, setup, url: listening.url, pid })
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What it was started with, addresses as they came to be: [`Router::start`] with it is a restart.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// SIGKILL, as a crash would be; answers what a restart needs.
    pub(crate) async fn kill(mut self) -> anyhow::Result<Setup> {
        self.process.kill().await?;
        Ok(self.setup)
    }

    /// SIGTERM, and waits until it has ended in good order.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Setup> {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(
            pid.context("the router has no process id")?,
            rustix::process::Signal::TERM,
        )?;
        match tokio::time::timeout(START_LIMIT, self.process.wait()).await {
            Ok(status) => {
                let status = status?;
                anyhow::ensure!(status.success(), "the router ended with {status}");
            }
            Err(_) => bail!("the router did not stop within 2 minutes"),
        }
        Ok(self.setup)
    }
}

/// Keeps the router's pipes empty, and passes what it complains about on.
fn drain(
    mut lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    complaints: tokio::process::ChildStderr,
) {
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    tokio::spawn(async move {
        let mut complaints = BufReader::new(complaints).lines();
        while let Ok(Some(line)) = complaints.next_line().await {
            tracing::debug!(target: "chaski::child", "{line}");
        }
    });
}

/// `host:port` of a URL.
fn address(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Becomes `chaski ARGUMENTS`, killed by the system when the process that started this one dies.
pub(crate) fn replace_by(arguments: &[String]) -> anyhow::Result<std::convert::Infallible> {
    use std::os::unix::process::CommandExt as _;
    #[cfg(target_os = "linux")]
    {
        let starter = rustix::process::getppid();
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // It may have died before the request was made.
        anyhow::ensure!(rustix::process::getppid() == starter, "the process that started this one is gone");
    }
    let error = std::process::Command::new(std::env::current_exe()?).args(arguments).exec();
    Err(error).context("cannot become the router")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_what_a_restart_listens_on() {
        assert_eq!(address("quic://127.0.0.1:7447"), "127.0.0.1:7447");
        assert_eq!(address("http://127.0.0.1:7448/"), "127.0.0.1:7448");
        assert_eq!(address("[::1]:7447"), "[::1]:7447");
    }
}
