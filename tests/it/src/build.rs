//! Builds the programs under test once for a test run, in the profile and target directory of the tests themselves.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of a program of this workspace: `chaski`, or an example.
pub fn binary(name: &str) -> PathBuf {
    let path = directory().join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} was not built", path.display());
    path
}

/// Where programs lie: `target/debug`, from this test's own path `target/debug/deps/it-…`.
pub(crate) fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its path");
        let directory = test.parent().and_then(Path::parent).expect("tests lie in deps/").to_owned();
        build(&directory);
        directory
    })
}

fn build(directory: &Path) {
    let profile = directory.file_name().and_then(|name| name.to_str()).expect("profiles have plain names");
    let profile = if profile == "debug" { "dev" } else { profile };
    let target = directory.parent().expect("profiles lie in the target directory");
    // With the tests, which are built already: then their dependencies' features count too, as in `cargo test --workspace`, and nothing is
    // built twice.
    let output = Command::new(env!("CARGO"))
        .args(["build", "--workspace", "--bins", "--tests", "--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(crate::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo build failed:\n{}", String::from_utf8_lossy(&output.stderr));
}
