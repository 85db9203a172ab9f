//! Runs the user's command for a delivery: payload on stdin, the rest in the environment, the exit code as the verdict. It
//! knows no connection; whoever calls it settles.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use chaski_protocol::{MAX_PAYLOAD_CEILING, MAX_REASON};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::message::Arrival;

/// The exit code that sends a message to the dead-letter queue: `EX_DATAERR` of sysexits.h.
const REJECT: i32 = 65;

/// How long pipes are read after the command has ended: what it left running may hold them open for ever.
const LINGER: Duration = Duration::from_secs(1);

/// What a command gets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    /// Variables; those without a value are removed.
    environment: Vec<(String, Option<OsString>)>,
    payload: Bytes,
}

/// Where the command's stdout goes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stdout {
    /// To this program's.
    Inherit,
    /// To this program's stderr, where its stdout is JSON.
    Stderr,
    /// Into [`Ending::Done`].
    Capture,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Exit code 0, with what it printed where that is captured.
    Done(Vec<u8>),
    /// Exit code 65, with the last line of its stderr.
    Rejected(String),
    /// Anything else, in words.
    Failed(String),
}

impl Job {
    /// For an arrival, in an environment that has more variables.
    pub(crate) fn new(arrival: &Arrival<'_>, more: &[(&'static str, OsString)], payload: Bytes) -> Job {
        let head = &arrival.head;
        let mut environment: Vec<(String, Option<OsString>)> =
            more.iter().map(|(name, value)| ((*name).to_owned(), Some(value.clone()))).collect();
        let mut set = |name: &str, value: Option<String>| {
            // A variable ends at its first NUL, so none can hold one.
            let value = value.map(|value| value.replace('\0', "\u{fffd}").into());
            environment.push((format!("CHASKI_{name}"), value));
        };
        set("TOPIC", Some(head.topic.to_owned()));
        set("ID", Some(head.id.to_owned()));
        set("KEY", head.key.map(str::to_owned));
        set("REPLY_TO", head.reply_to.map(str::to_owned));
        set("CORRELATION_ID", head.correlation_id.map(str::to_owned));
        if let Some(lease) = &arrival.lease {
            set("QUEUE", Some(lease.queue.to_owned()));
            set("SEQUENCE", Some(lease.sequence.to_string()));
            set("ATTEMPT", Some(lease.attempt.to_string()));
            set("REDELIVERED", Some(lease.redelivered.to_string()));
        }
        for (name, value) in &head.headers {
            set(&format!("HEADER_{}", variable(name)), Some((*value).to_owned()));
        }
        Job { environment, payload }
    }

    /// Runs `sh -c COMMAND` to its end. Dropped, it kills the command and what that started.
    pub(crate) async fn run(&self, command: &str, stdout: Stdout) -> std::io::Result<Ending> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).stdin(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A group of its own: Ctrl-C asks this program to finish, and so the command isn't interrupted by it.
        shell.process_group(0);
        shell.stdout(match stdout {
            Stdout::Inherit => Stdio::inherit(),
            Stdout::Stderr => std::io::stderr().into(),
            Stdout::Capture => Stdio::piped(),
        });
        for (name, value) in &self.environment {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let mut running = Running { child: shell.spawn()?, ended: false };
        let (mut printed, mut complaints) = (Vec::new(), Tail::default());
        let status = {
            let (stdin, out, err) =
                (running.child.stdin.take(), running.child.stdout.take(), running.child.stderr.take());
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A command needs not read what it gets.
                    let _ = stdin.write_all(&self.payload).await;
                }
            };
            let pipes =
                async { tokio::join!(feed, collect(out, &mut printed), pass_on(err, &mut complaints)) };
            tokio::pin!(pipes);
            tokio::select! {
                status = running.wait() => {
                    let status = status?;
                    let _ = tokio::time::timeout(LINGER, pipes).await;
                    status
                }
                _ = &mut pipes => running.wait().await?,
            }
        };
        Ok(ending(status, printed, &complaints))
    }
}

/// `X-Trace-Id` → `X_TRACE_ID`.
fn variable(header: &str) -> String {
    let byte = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() as char } else { '_' };
    header.bytes().map(byte).collect()
}

fn ending(status: ExitStatus, printed: Vec<u8>, complaints: &Tail) -> Ending {
    if status.success() && printed.len() > MAX_PAYLOAD_CEILING as usize {
        return Ending::Failed(format!(
            "it printed more than the {MAX_PAYLOAD_CEILING} bytes of any payload"
        ));
    }
    match status.code() {
        Some(0) => Ending::Done(printed),
        Some(REJECT) => {
            let reason = complaints.last_line();
            Ending::Rejected(if reason.is_empty() { format!("exit code {REJECT}") } else { reason })
        }
        Some(code) => Ending::Failed(format!("exit code {code}")),
        None => Ending::Failed(status.to_string()),
    }
}

/// Reads all of it, up to one byte more than any payload has.
async fn collect(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    if let Some(pipe) = pipe {
        // A pipe that fails has ended.
        let _ = pipe.take(u64::from(MAX_PAYLOAD_CEILING) + 1).read_to_end(into).await;
    }
}

/// Passes stderr on, and remembers its end.
async fn pass_on(pipe: Option<impl AsyncRead + Unpin>, tail: &mut Tail) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let _ = std::io::stderr().write_all(&buffer[..length]);
        tail.push(&buffer[..length]);
    }
}

/// The last bytes of a text: enough for a reason, and bounded.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let excess = self.0.len().saturating_sub(8 * MAX_REASON);
        self.0.drain(..excess);
    }

    /// The last line that says something, cut to what a reason may have.
    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        line[..line.floor_char_boundary(MAX_REASON)].to_owned()
    }
}

/// A command that runs; dropped before its end, it and all that it started are killed.
struct Running {
    child: Child,
    ended: bool,
}

impl Running {
    async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.ended = true;
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let (false, Some(pid)) = (self.ended, pid) {
            // It may have ended meanwhile.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use chaski_protocol::Head;

    use super::*;
    use crate::message::Lease;

    fn job(payload: &'static [u8]) -> Job {
        let arrival = Arrival {
            lease: Some(Lease { queue: "billing", sequence: 17, attempt: 2, redelivered: true }),
            head: Head {
                topic: "orders.eu",
                id: "o-1",
                headers: vec![("X-Trace.id", "t\0t")],
                ..Head::default()
            },
            payload,
            published_at: SystemTime::UNIX_EPOCH,
        };
        Job::new(&arrival, &[("CHASKI_URL", "quic://r:1".into())], Bytes::from_static(payload))
    }

    async fn run(command: &str) -> Ending {
        job(b"two llamas").run(command, Stdout::Capture).await.expect("sh is there")
    }

    #[tokio::test]
    async fn the_command_gets_payload_and_facts() {
        let printed =
            run("cat; echo; echo $CHASKI_QUEUE $CHASKI_TOPIC $CHASKI_ID $CHASKI_SEQUENCE $CHASKI_ATTEMPT \
             $CHASKI_REDELIVERED $CHASKI_HEADER_X_TRACE_ID ${CHASKI_KEY-none} $CHASKI_URL")
            .await;
        let expected = "two llamas\nbilling orders.eu o-1 17 2 true t\u{fffd}t none quic://r:1\n";
        assert_eq!(printed, Ending::Done(expected.into()));
    }

    #[tokio::test]
    async fn the_exit_code_is_the_verdict() {
        assert_eq!(run("exit 0").await, Ending::Done(Vec::new()));
        assert_eq!(
            run("echo first >&2; echo 'no such customer' >&2; echo >&2; exit 65").await,
            Ending::Rejected("no such customer".to_owned())
        );
        assert_eq!(run("exit 65").await, Ending::Rejected("exit code 65".to_owned()));
        assert_eq!(run("exit 3").await, Ending::Failed("exit code 3".to_owned()));
        assert!(matches!(run("kill -9 $$").await, Ending::Failed(why) if why.contains('9')));
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_does_not_hold_it_up() {
        // `sleep` keeps both pipes open for a minute: the answer comes long before that, or the test runner complains.
        let ended = tokio::time::timeout(Duration::from_secs(30), run("sleep 60 & echo done")).await;
        assert_eq!(ended, Ok(Ending::Done(b"done\n".to_vec())));
    }

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let mut tail = Tail::default();
        tail.push(&vec![b'x'; 100_000]);
        tail.push("\n".as_bytes());
        tail.push("ß".repeat(1000).as_bytes());
        assert_eq!(tail.last_line(), "ß".repeat(MAX_REASON / 2));
    }
}
