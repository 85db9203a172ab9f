//! The parent's part of a compilation: it starts the child, feeds it, waits for it no longer than it may take, and tells by
//! what the child died. It must not know which module is compiled.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::Engine;

use crate::child::{CODE, SENTENCE, write_request};
use crate::code;
use crate::engine;
use crate::limits::CompileLimits;

/// Where compilations run.
#[derive(Debug, Clone)]
pub enum Compiler {
    /// In a child process: this program with these arguments must end up in [`compile_child`](crate::compile_child) with its
    /// standard input and output. For binaries from outside.
    Child {
        /// The program: the router's own binary.
        program: PathBuf,
        /// Its arguments.
        args: Vec<OsString>,
    },
    /// In this process, without limits. For an author's own module, as in `chaski module test`.
    InProcess,
}

/// Why a binary could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler refused it.
    #[error("the module could not be compiled: {reason}")]
    Refused {
        /// What the compiler says.
        reason: String,
    },
    /// It takes more CPU time than a compilation may.
    #[error(
        "the module takes more than {seconds} s of CPU time to compile: make it smaller, its functions above all"
    )]
    CpuTime {
        /// The limit.
        seconds: u64,
    },
    /// The child did not answer in time.
    #[error("the module was not compiled within {limit:?}")]
    WallTime {
        /// The limit.
        limit: Duration,
    },
    /// The child died, in all likelihood of its memory limit.
    #[error(
        "the module's compilation died ({status}), as it does at its memory limit of {address_space} bytes: make the module smaller"
    )]
    Died {
        /// How it ended.
        status: ExitStatus,
        /// The limit.
        address_space: u64,
    },
    /// The code is larger than allowed.
    #[error("the module's code has more than {limit} bytes: make the module smaller")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The child is of another build, or no child of ours at all.
    #[error("the program that compiles modules, {}, is not this build of the router: restart the router", .program.display())]
    Foreign {
        /// The program.
        program: PathBuf,
    },
    /// The child could not be started or talked to.
    #[error("the program that compiles modules, {}, could not be run: {error}", .program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The compiled code is not what the contract says.
    #[error(
        "the module's functions are not those of the contract: {reason}; rebuild it with this version's SDK"
    )]
    Types {
        /// What the linker says.
        reason: String,
    },
}

/// Compiles a component, wherever that is to be.
pub(crate) fn compile(
    compiler: &Compiler,
    engine: &Engine,
    limits: &CompileLimits,
    component: &[u8],
) -> Result<Vec<u8>, CompileError> {
    let Compiler::Child { program, args } = compiler else {
        return code::make(engine, component).map_err(|reason| CompileError::Refused { reason });
    };
    let spawn_error = |error| CompileError::Spawn { program: program.clone(), error };
    let mut child = Command::new(program)
        .args(args)
        // Each thread of the compiler reserves addresses, and a machine with many cores would use up the limit by that alone.
        .env("RAYON_NUM_THREADS", "4")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(spawn_error)?;
    let (answer, status) = converse(&mut child, limits, component).map_err(spawn_error)?;
    let Some(status) = status else { return Err(CompileError::WallTime { limit: limits.wall }) };
    // First of all: a child that has more to say finds nobody listening, and dies of that.
    if answer.len() as u64 > limits.code_bytes {
        return Err(CompileError::TooLarge { limit: limits.code_bytes });
    }
    if status.signal() == Some(SIGXCPU) || (status.signal() == Some(SIGKILL)) {
        return Err(CompileError::CpuTime { seconds: limits.cpu_seconds });
    }
    if !status.success() {
        return Err(CompileError::Died { status, address_space: limits.address_space });
    }
    let foreign = || CompileError::Foreign { program: program.clone() };
    match answer.split_first() {
        Some((&SENTENCE, reason)) => {
            Err(CompileError::Refused { reason: String::from_utf8_lossy(reason).into_owned() })
        }
        Some((&CODE, rest)) => match rest.split_at_checked(32) {
            Some((compatibility, code)) if compatibility == engine::compatibility(engine).0 => {
                Ok(code.to_vec())
            }
            _ => Err(foreign()),
        },
        _ => Err(foreign()),
    }
}

/// The signals by which a limit of CPU time ends a process: first the soft one, a second later the hard one.
const SIGXCPU: i32 = 24;
const SIGKILL: i32 = 9;

/// Sends the request and reads the answer. Without a status the child took too long, and was killed.
fn converse(
    child: &mut Child,
    limits: &CompileLimits,
    component: &[u8],
) -> io::Result<(Vec<u8>, Option<ExitStatus>)> {
    let deadline = Instant::now() + limits.wall;
    let mut stdin = child.stdin.take().expect("it was asked for");
    let stdout = child.stdout.take().expect("it was asked for");
    thread::scope(|scope| {
        // A child that dies early closes its end, and its status tells more than this error would.
        scope.spawn(move || write_request(&mut stdin, limits, component));
        let (told, answers) = mpsc::channel();
        let most = limits.code_bytes + 64;
        scope.spawn(move || {
            let mut answer = Vec::new();
            let read = stdout.take(most).read_to_end(&mut answer);
            // The receiver waits for it, or has given up.
            let _ = told.send(read.map(|_| answer));
        });
        let answer = match answers.recv_timeout(limits.wall) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                child.kill()?;
                child.wait()?;
                return Ok((Vec::new(), None));
            }
        };
        // Its output is at an end, so it is about to exit.
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                return Ok((answer?, Some(status)));
            }
            thread::sleep(Duration::from_millis(1));
        }
        child.kill()?;
        child.wait()?;
        Ok((answer?, None))
    })
}
