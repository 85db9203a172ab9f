//! Client commands: run to their end, or in the background, line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PATIENCE;

/// What a command said, and its exit code.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// The rest.
    pub stderr: String,
}

impl Output {
    /// It ended with 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        assert_eq!(
            self.code, 0,
            "`{}` failed\nstdout: {}\nstderr: {}",
            self.command, self.stdout, self.stderr
        );
        self
    }

    /// It ended with 1, and its last line on stderr names `code`.
    #[track_caller]
    pub fn refused(self, code: &str) -> Output {
        let last = self.stderr.lines().last().unwrap_or_default();
        let begins = format!("error: {code}: ");
        assert!(
            self.code == 1 && last.starts_with(&begins) && last.len() > begins.len() + 5,
            "`{}` should be refused as {code}, not end with {}\nstdout: {}\nstderr: {}",
            self.command,
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    /// One JSON value a line.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("`{}` printed `{line}`: {error}", self.command))
        };
        self.stdout.lines().map(parse).collect()
    }

    /// The one JSON value.
    #[track_caller]
    pub fn one(&self) -> Value {
        let mut values = self.json();
        assert_eq!(values.len(), 1, "`{}` should print one line, not: {}", self.command, self.stdout);
        values.remove(0)
    }

    /// The last line on stderr.
    pub fn error(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }
}

/// Runs a command to its end, with `input` on its stdin.
#[track_caller]
pub fn run(mut command: Command, input: &[u8]) -> Output {
    let shown = show(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("`{shown}` does not start: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_owned();
    // A command that reads nothing closes its end: that is no failure of ours.
    std::thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().expect("it is piped"));
    let stderr = collect(child.stderr.take().expect("it is piped"));
    let code = wait(&mut child, &shown);
    let text = |from: mpsc::Receiver<Vec<u8>>| {
        let bytes = from.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("`{shown}` left its output open"));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Output { code, stdout: text(stdout), stderr: text(stderr), command: shown }
}

/// A command in the background. It ends with this value at the latest.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
    lines: mpsc::Receiver<String>,
    stderr: Option<mpsc::Receiver<Vec<u8>>>,
}

impl Running {
    /// Starts it, with nothing on its stdin.
    #[track_caller]
    pub fn start(mut command: Command) -> Running {
        let shown = show(&command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("`{shown}` does not start: {error}"));
        let (send, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("it is piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = collect(child.stderr.take().expect("it is piped"));
        Running { child, command: shown, lines, stderr: Some(stderr) }
    }

    /// The next line of its stdout.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(error) => {
                let said = self.said();
                panic!("`{}` prints no further line: {error}; {said}", self.command)
            }
        }
    }

    /// The next line of its stdout, as JSON.
    #[track_caller]
    pub fn json(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("`{}` printed `{line}`: {error}", self.command))
    }

    /// SIGTERM, as a service manager sends it; then waits.
    #[track_caller]
    pub fn terminate(self) -> Output {
        signal(&self.child, rustix::process::Signal::TERM);
        self.finish()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Waits until it ends by itself; its stdout is what was not read before.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        let code = wait(&mut self.child, &self.command);
        let mut stdout = String::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            stdout += &line;
            stdout.push('\n');
        }
        Output { command: self.command.clone(), code, stdout, stderr: self.said() }
    }

    fn said(&mut self) -> String {
        drop(self.child.kill());
        let bytes =
            self.stderr.take().and_then(|stderr| stderr.recv_timeout(PATIENCE).ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends a signal to a child that was not waited for.
pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    // It may have ended by itself.
    let _ = rustix::process::kill_process(pid.expect("a child has a process id"), signal);
}

/// Waits for a child's exit code; kills it and panics when it takes too long.
#[track_caller]
pub(crate) fn wait(child: &mut Child, command: &str) -> i32 {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status.code().unwrap_or(-1);
        }
        if begun.elapsed() > PATIENCE {
            drop(child.kill());
            panic!("`{command}` does not end");
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn collect(mut from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is what there is.
        drop(from.read_to_end(&mut bytes));
        drop(send.send(bytes));
    });
    receive
}

fn show(command: &Command) -> String {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        shown.push(' ');
        shown += &argument.to_string_lossy();
    }
    shown
}
