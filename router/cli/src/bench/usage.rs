//! What a process uses, as Linux tells it below `/proc`.

use std::time::Duration;

use anyhow::Context as _;

/// Resident bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = read(pid, "status")?;
    Ok(field(&status, "VmRSS:").context("no VmRSS in /proc; is this Linux?")? * 1024)
}

/// Bytes that it handed to write calls on files since it started.
pub(crate) fn written(pid: u32) -> anyhow::Result<u64> {
    let io = read(pid, "io")?;
    field(&io, "wchar:").context("no wchar in /proc")
}

/// Processor time of all its threads that live.
pub(crate) fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("the router is gone")? {
        // A thread may end between the listing and the look.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let on_cpu = text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        nanoseconds += on_cpu.context("no schedstat in /proc")?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// The number behind `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        assert!(resident(pid).expect("readable") > 1 << 20);
        assert!(written(pid).is_ok());
        assert!(processor_time(pid).is_ok());
        assert!(resident(u32::MAX).is_err());
    }
}
