//! The child process that the tests compile in: it knows `compile_child` and, where it is told a file, leaves in it what became of
//! its own priority and limits.

use rustix::process::{Resource, getpriority_process, getrlimit};

fn main() -> std::io::Result<()> {
    chaski_modules::compile_child(std::io::stdin(), std::io::stdout())?;
    if let Some(file) = std::env::args_os().nth(1) {
        let nice = getpriority_process(None)?;
        let core = getrlimit(Resource::Core);
        std::fs::write(file, format!("nice {nice}, core {:?} {:?}", core.current, core.maximum))?;
    }
    Ok(())
}
