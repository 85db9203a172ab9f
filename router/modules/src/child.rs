//! Compilation in a process of its own, so that a compile bomb kills only itself: what is said between parent and child, and
//! the child's part. It knows one component and its limits, and no module.

use std::io::{self, Read, Write};

use rustix::process::{Resource, Rlimit, nice, setrlimit};

use crate::code;
use crate::digest::Digest;
use crate::engine;
use crate::limits::CompileLimits;

/// How a request begins. Another release says something else, so the two never misunderstand each other.
const MAGIC: &[u8; 8] = b"chaskiC1";

/// What the child answers first: whether code or a sentence follows.
pub(crate) const CODE: u8 = 0;
pub(crate) const SENTENCE: u8 = 1;

/// Writes a request: the limits that the child sets itself, then the component up to the end of the stream.
pub(crate) fn write_request(to: &mut impl Write, limits: &CompileLimits, component: &[u8]) -> io::Result<()> {
    to.write_all(MAGIC)?;
    to.write_all(&limits.address_space.to_le_bytes())?;
    to.write_all(&limits.cpu_seconds.to_le_bytes())?;
    to.write_all(&limits.nice.to_le_bytes())?;
    to.write_all(component)
}

/// The child's whole life: reads a request from `input`, limits *this process* by it, compiles, and answers to `output`. The
/// router's binary calls it from a command of its own, first thing in `main`, before any other thread is started.
pub fn compile_child(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut head = [0; 28];
    input.read_exact(&mut head)?;
    let (magic, numbers) = head.split_at(8);
    if magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no request to compile a module"));
    }
    let number = |at: usize| u64::from_le_bytes(numbers[at..at + 8].try_into().expect("eight bytes"));
    let niceness = i32::from_le_bytes(numbers[16..].try_into().expect("four bytes"));
    limit_this_process(number(0), number(8), niceness)?;
    let mut component = Vec::new();
    input.read_to_end(&mut component)?;
    match compile(&component) {
        Ok((compatibility, code)) => {
            output.write_all(&[CODE])?;
            output.write_all(&compatibility.0)?;
            output.write_all(&code)?;
        }
        Err(sentence) => {
            output.write_all(&[SENTENCE])?;
            output.write_all(sentence.as_bytes())?;
        }
    }
    output.flush()
}

fn compile(component: &[u8]) -> Result<(Digest, Vec<u8>), String> {
    let engine = engine::compiling().map_err(|error| format!("{error:#}"))?;
    let code = code::make(&engine, component)?;
    Ok((engine::compatibility(&engine), code))
}

fn limit_this_process(address_space: u64, cpu_seconds: u64, niceness: i32) -> io::Result<()> {
    let both = |value| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::As, both(address_space))?;
    // The soft limit's signal names the reason, the hard one's would not.
    let cpu = Rlimit { current: Some(cpu_seconds), maximum: Some(cpu_seconds + 1) };
    setrlimit(Resource::Cpu, cpu)?;
    setrlimit(Resource::Core, both(0))?;
    nice(niceness)?;
    Ok(())
}
