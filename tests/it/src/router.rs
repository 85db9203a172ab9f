//! A router of the test's own: the real binary on free ports, in a temporary directory, killed at the latest with its test.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use chaski_client::Client;
use tempfile::TempDir;

use crate::cli::{Output, Running, run, signal, wait};
use crate::{PATIENCE, binary};

/// How a router is started. Everything lies below `directory`, which goes with the last who holds it.
#[derive(Clone, Debug)]
pub struct Setup {
    directory: Arc<TempDir>,
    data: PathBuf,
    rules: Option<PathBuf>,
    tls: Vec<String>,
    extra: Vec<String>,
    listen: String,
    admin: String,
    nobody: bool,
    small_disk: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let directory =
            tempfile::Builder::new().prefix("chaski-it-").tempdir().expect("there is room for tests");
        Setup {
            data: directory.path().join("data"),
            directory: Arc::new(directory),
            rules: None,
            tls: vec!["--dev".to_owned()],
            extra: Vec::new(),
            listen: "127.0.0.1:0".to_owned(),
            admin: "127.0.0.1:0".to_owned(),
            nobody: false,
            small_disk: false,
        }
    }
}

impl Setup {
    /// A rules file with this text, given as `--rules`.
    pub fn rules(mut self, document: &str) -> Setup {
        let path = self.directory.path().join("rules.toml");
        std::fs::write(&path, document).expect("the test's directory can be written");
        self.rules = Some(path);
        self
    }

    /// Certificates instead of `--dev`.
    pub fn tls(mut self, arguments: &[&str]) -> Setup {
        self.tls = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// One more argument of `serve`.
    pub fn arg(mut self, argument: &str) -> Setup {
        self.extra.push(argument.to_owned());
        self
    }

    /// Another data directory.
    pub fn data(mut self, data: impl Into<PathBuf>) -> Setup {
        self.data = data.into();
        self
    }

    /// For tests of permissions: as a user who may do nothing, when the tests run as root, whom nothing stops.
    pub fn unprivileged(mut self) -> Setup {
        self.nobody = rustix::process::geteuid().is_root();
        self
    }

    /// The data directory is a disk of its own of 192 MiB, and half of it is taken by a file that [`Router::make_room`]
    /// removes. `None` where the system lets nobody mount.
    pub fn small_disk(mut self) -> Option<Setup> {
        std::fs::create_dir_all(&self.data).expect("the test's directory can be written");
        let tried =
            Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs"]).arg(&self.data).output();
        self.small_disk = true;
        tried.is_ok_and(|tried| tried.status.success()).then_some(self)
    }

    /// The data directory.
    pub fn data_directory(&self) -> &Path {
        &self.data
    }

    /// A path below the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where commands and router keep the `--dev` authority.
    pub fn config(&self) -> PathBuf {
        self.path("config")
    }

    /// A `chaski` command that sees none of the user's own settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("chaski"));
        command.args(arguments).env("XDG_CONFIG_HOME", self.config()).current_dir(self.directory.path());
        for name in ["CHASKI_URL", "CHASKI_CA", "CHASKI_CERT", "CHASKI_KEY_FILE", "RUST_LOG"] {
            command.env_remove(name);
        }
        command
    }

    /// Starts it, and waits until it listens; or answers how it ended.
    pub fn try_start(self) -> Result<Router, Box<Output>> {
        std::fs::create_dir_all(self.config()).expect("the test's directory can be written");
        let mut command = match (self.small_disk, self.nobody) {
            (true, _) => self.command_on_small_disk(),
            (false, true) => self.nobodys_command(),
            (false, false) => self.command(&["serve"]),
        };
        command.args(&self.tls).args(["--listen", &self.listen, "--admin", &self.admin]);
        command.arg("--data").arg(&self.data);
        if let Some(rules) = &self.rules {
            command.arg("--rules").arg(rules);
        }
        command.args(&self.extra).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the router starts");
        let log = Log::follow(child.stderr.take().expect("it is piped"));
        let Some(line) = log.find(|line| line.contains("listening on quic://")) else {
            let code = wait(&mut child, "chaski serve");
            let stderr = log.lines().join("\n");
            return Err(Box::new(Output {
                command: "chaski serve".to_owned(),
                code,
                stdout: String::new(),
                stderr,
            }));
        };
        let address = |scheme: &str| {
            let (_, rest) = line.split_once(scheme).unwrap_or_else(|| panic!("no {scheme} in `{line}`"));
            rest.chars().take_while(|c| c.is_ascii_digit() || ".:[]".contains(*c)).collect::<String>()
        };
        let setup = Setup { listen: address("quic://"), admin: address("http://"), ..self };
        Ok(Router { child, log, setup })
    }

    /// `chaski serve` where a small disk is mounted, which only this process sees and which goes with it.
    fn command_on_small_disk(&self) -> Command {
        let script = r#"mount -t tmpfs -o size=192m tmpfs "$0" &&
            dd if=/dev/zero of="$0/ballast" bs=1M count=96 status=none && exec "$@""#;
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script]).arg(&self.data).arg(binary("chaski")).arg("serve");
        command.env("XDG_CONFIG_HOME", self.config()).current_dir(self.directory.path());
        command
    }

    /// `chaski serve` as `nobody`, who gets a copy of the program within reach.
    fn nobodys_command(&self) -> Command {
        use std::os::unix::fs::PermissionsExt as _;
        use std::os::unix::process::CommandExt as _;
        let allow = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
                .expect("the test's own directory");
        };
        let program = self.path("chaski");
        std::fs::copy(binary("chaski"), &program).expect("there is room for a copy");
        allow(self.directory.path(), 0o755);
        allow(&program, 0o755);
        let config = self.path("nobody");
        std::fs::create_dir_all(&config).expect("the test's own directory");
        allow(&config, 0o777);
        let mut command = Command::new(program);
        command
            .arg("serve")
            .env("XDG_CONFIG_HOME", config)
            .current_dir(self.directory.path())
            .uid(65_534)
            .gid(65_534);
        command
    }

    /// Starts it, and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Router {
        self.try_start().unwrap_or_else(|output| panic!("the router does not start: {}", output.stderr))
    }
}

/// A running router.
#[derive(Debug)]
pub struct Router {
    child: Child,
    log: Log,
    setup: Setup,
}

impl Router {
    /// One with `--dev` and no rules.
    #[track_caller]
    pub fn start() -> Router {
        Setup::default().start()
    }

    /// One with `--dev` and these rules.
    #[track_caller]
    pub fn with_rules(document: &str) -> Router {
        Setup::default().rules(document).start()
    }

    /// How it was started, with the addresses that it has.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("quic://{}", self.setup.listen)
    }

    /// The QUIC address.
    pub fn address(&self) -> SocketAddr {
        self.setup.listen.parse().expect("the router prints addresses")
    }

    /// The `--dev` authority that it is trusted by.
    pub fn ca(&self) -> PathBuf {
        self.setup.config().join("chaski/dev/ca.pem")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Waits for a line of its log.
    #[track_caller]
    pub fn wait_log(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.log.find(wanted).unwrap_or_else(|| panic!("the router ended; its log: {:#?}", self.log()))
    }

    /// Writes the rules file anew, as an editor does: another file, renamed.
    pub fn write_rules(&self, document: &str) {
        let path = self.setup.rules.as_ref().expect("it was started with rules");
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, document).expect("the test's directory can be written");
        std::fs::rename(&fresh, path).expect("the test's directory can be written");
    }

    /// A command that asks this router.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.setup.command(arguments);
        command.env("CHASKI_URL", self.url());
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        run(self.command(arguments), b"")
    }

    /// Runs a command to its end, with `input` on its stdin.
    #[track_caller]
    pub fn cli_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        run(self.command(arguments), input)
    }

    /// Runs a command with `--json`, which must succeed with one line.
    #[track_caller]
    pub fn one(&self, arguments: &[&str]) -> serde_json::Value {
        self.cli(&[arguments, &["--json"]].concat()).ok().one()
    }

    /// Runs a command with `--json`, which must succeed.
    #[track_caller]
    pub fn all(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        self.cli(&[arguments, &["--json"]].concat()).ok().json()
    }

    /// One number of `queue show`.
    #[track_caller]
    pub fn count(&self, queue: &str, what: &str) -> u64 {
        let view = self.one(&["queue", "show", queue]);
        view[what].as_u64().unwrap_or_else(|| panic!("no count {what} in {view}"))
    }

    /// A command in the background.
    #[track_caller]
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// A client of the SDK.
    pub async fn client(&self) -> Client {
        crate::within("a connection", Client::builder().ca_file(self.ca()).connect(&self.url()))
            .await
            .unwrap_or_else(|error| panic!("no connection: {error}"))
    }

    /// What the admin address answers: status and body.
    pub fn http(&self, path: &str) -> (u16, String) {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(&self.setup.admin).expect("the admin address listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a duration above zero");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.setup.admin)
            .expect("it takes a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers with text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        (status, body.to_owned())
    }

    /// SIGKILL; what is left is enough to start it again, on the same addresses.
    pub fn kill(mut self) -> Setup {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be waited for");
        self.setup.clone()
    }

    /// Removes what fills half of its own disk.
    pub fn make_room(&self) {
        let inside = format!("/proc/{}/root{}/ballast", self.pid(), self.setup.data.display());
        std::fs::remove_file(inside).expect("the disk has its ballast");
    }

    /// SIGSTOP: it is there and says nothing, until it is killed.
    pub fn freeze(&self) {
        signal(&self.child, rustix::process::Signal::STOP);
    }

    /// SIGTERM; it must end with 0.
    #[track_caller]
    pub fn stop(mut self) -> Setup {
        signal(&self.child, rustix::process::Signal::TERM);
        let code = wait(&mut self.child, "chaski serve");
        assert_eq!(code, 0, "the router's log: {:#?}", self.log());
        self.setup.clone()
    }

    /// SIGKILL and a start on the same data and addresses.
    #[track_caller]
    pub fn crash(self) -> Router {
        self.kill().start()
    }

    /// SIGTERM and a start on the same data and addresses.
    #[track_caller]
    pub fn restart(self) -> Router {
        self.stop().start()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("the router's log:\n{}", self.log.lines().join("\n"));
        }
    }
}

/// The lines of a router's stderr, as they come.
#[derive(Clone, Debug)]
struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn follow(from: std::process::ChildStderr) -> Log {
        let log = Log(Arc::default());
        let writer = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                writer.change(|lines| lines.lines.push(line));
            }
            writer.change(|lines| lines.ended = true);
        });
        log
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        let (lines, changed) = &*self.0;
        change(&mut lines.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    /// The first line that is wanted, once it is there; `None` when the process ended without it.
    #[track_caller]
    fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let begun = Instant::now();
        let (lines, changed) = &*self.0;
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.lines.iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            if lines.ended {
                return None;
            }
            assert!(begun.elapsed() < PATIENCE, "the line does not come; the log: {:#?}", lines.lines);
            lines = changed.wait_timeout(lines, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
