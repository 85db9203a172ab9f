//! Compiles every guest below `guests/` to WebAssembly, and writes the table that `src/lib.rs` includes.
//!
//! It uses the same toolchain as this build and a target folder of its own in `OUT_DIR`. Where the toolchain lacks the wasm
//! target it is installed by `rustup`; where that fails, the error names the command.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, exit},
};

const TARGET: &str = "wasm32-unknown-unknown";

/// One guest's folder.
struct Guest {
    name: String,
    folder: PathBuf,
    hostile: bool,
}

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let guests = find_guests(&root.join("guests"));
    watch(&root, &guests);
    ensure_target();
    compile(&root.join("guests"), &out.join("guests"));
    let table = table(&guests, &out.join("guests").join(TARGET).join("release"));
    fs::write(out.join("guests.rs"), table)
        .unwrap_or_else(|error| fail(&format!("the table can't be written: {error}")));
}

/// The folders with a manifest, by name.
fn find_guests(folder: &Path) -> Vec<Guest> {
    let mut guests = Vec::new();
    for (folder, hostile) in [(folder.to_path_buf(), false), (folder.join("hostile"), true)] {
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| fail(&format!("{}: {error}", folder.display())));
        for folder in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if folder.join("Cargo.toml").is_file() {
                let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                guests.push(Guest { name, folder, hostile });
            }
        }
    }
    guests.sort_by(|left, right| left.name.cmp(&right.name));
    guests
}

/// Tells cargo when to run this again. Each file's folder is named by itself, since a target folder can lie among them.
fn watch(root: &Path, guests: &[Guest]) {
    let sdk = root.join("../sdk");
    let mut watched =
        vec![root.join("build.rs"), root.join("guests/Cargo.toml"), root.join("guests/Cargo.lock")];
    let crates = [sdk.join("guest"), sdk.join("guest-macros")];
    for folder in crates.iter().chain(guests.iter().map(|guest| &guest.folder)) {
        watched.extend([folder.join("Cargo.toml"), folder.join("src")]);
    }
    watched.extend(guests.iter().map(|guest| guest.folder.join("README.md")));
    for path in watched {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// Installs the wasm target unless the toolchain has it.
fn ensure_target() {
    let rustc = variable("RUSTC");
    let libraries = Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let libraries = libraries.unwrap_or_else(|error| fail(&format!("{rustc} can't be run: {error}")));
    if Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
        return;
    }
    println!("cargo::warning=the target {TARGET} is missing: running `rustup target add {TARGET}`");
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    if !added.is_ok_and(|status| status.success()) {
        fail(&format!("the guests need the target {TARGET}; install it with: rustup target add {TARGET}"));
    }
}

/// Runs the inner cargo on the guests' workspace.
fn compile(workspace: &Path, target_folder: &Path) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo.args(["build", "--workspace", "--release", "--target", TARGET, "--target-dir"]).arg(target_folder);
    cargo.current_dir(workspace);
    // What was meant for the outer build's crates must not reach the guests: clippy, coverage, native CPU features.
    let foreign = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"];
    for name in foreign.iter().chain(&["CARGO_TARGET_DIR", "CARGO_BUILD_RUSTFLAGS", "RUSTDOCFLAGS"]) {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", without_local_paths(workspace));
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("the guests can't be compiled ({status}); see cargo's own output")),
        Err(error) => fail(&format!("cargo can't be run: {error}")),
    }
}

/// The flags by which the places that panics name tell nothing of this machine: so a guest is the same bytes, and has the same
/// size and digest, wherever it was built.
fn without_local_paths(workspace: &Path) -> String {
    let mut prefixes = Vec::new();
    if let Some(repository) = workspace.ancestors().nth(2) {
        prefixes.push((repository.to_path_buf(), "chaski"));
    }
    let default_home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"));
    if let Some(home) = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(default_home) {
        prefixes.push((home, "cargo"));
    }
    let flag = |(from, to): &(PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
    prefixes.iter().map(flag).collect::<Vec<_>>().join("\x1f")
}

/// The source of the two tables.
fn table(guests: &[Guest], built: &Path) -> String {
    let rows = |hostile| {
        let mut rows = String::new();
        for guest in guests.iter().filter(|guest| guest.hostile == hostile) {
            let wasm = built.join(format!("{}.wasm", guest.name.replace('-', "_")));
            let readme = guest.folder.join("README.md");
            rows += &format!(
                "    Guest {{ name: {:?}, world: {:?}, readme: include_str!({readme:?}), wasm: include_bytes!({wasm:?}) }},\n",
                guest.name,
                world(&guest.folder)
            );
        }
        rows
    };
    format!(
        "static BUILTINS: &[Guest] = &[\n{}];\n\nstatic HOSTILE: &[Guest] = &[\n{}];\n",
        rows(false),
        rows(true)
    )
}

/// What a guest is, by the attribute that makes it one.
fn world(folder: &Path) -> &'static str {
    let source = folder.join("src/lib.rs");
    let source =
        fs::read_to_string(&source).unwrap_or_else(|error| fail(&format!("{}: {error}", source.display())));
    let is = |world: &&str| source.contains(&format!("#[{world}"));
    ["aggregator", "compensator"].into_iter().find(is).unwrap_or("filter")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("cargo sets {name} for a build script")))
}

fn fail(sentence: &str) -> ! {
    println!("cargo::error={sentence}");
    exit(1)
}
