//! Every guest was built, is described, and is as small as promised; the useful ones pass their own tests.

use std::{path::Path, process::Command};

use chaski_filters::{NOT_WASM, builtin, builtins, hostile, hostile_guests};
use wit_component::ComponentEncoder;

/// What the router does at deploy.
fn component(wasm: &[u8]) -> Result<Vec<u8>, String> {
    let encoder = ComponentEncoder::default().module(wasm).map_err(|error| format!("{error:#}"))?;
    encoder.validate(true).encode().map_err(|error| format!("{error:#}"))
}

#[test]
fn every_guest_becomes_a_component_but_those_that_must_not() {
    for guest in builtins().iter().chain(hostile_guests()) {
        let made = component(guest.wasm);
        match guest.name {
            "import-unknown" => {
                let error = made.expect_err("its import is not of the world");
                assert!(error.contains("wasi:clocks/monotonic-clock"), "{error}");
            }
            // Without the contract's custom section it becomes a component that exports nothing, or none.
            "wrong-world" => assert!(!made.is_ok_and(|bytes| contains(&bytes, b"describe"))),
            name => assert!(contains(&made.expect(name), b"describe"), "{name}"),
        }
    }
    assert!(component(NOT_WASM).is_err());
    assert_eq!(builtin("split").map(|guest| guest.name), Some("split"));
    assert_eq!(hostile("trap").map(|guest| guest.name), Some("trap"));
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn every_guest_is_a_core_module_with_a_readme_of_five_lines() {
    for guest in builtins().iter().chain(hostile_guests()) {
        assert!(guest.wasm.starts_with(b"\0asm\x01\0\0\0"), "{} is a core module", guest.name);
        assert_eq!(guest.readme.lines().count(), 5, "the README of {}", guest.name);
        assert!(guest.readme.starts_with(&format!("# {}\n", guest.name)), "{}", guest.name);
        assert!(guest.summary().ends_with('.'), "{}: {}", guest.name, guest.summary());
    }
}

/// A guest that is new needs a limit here too.
#[test]
fn guests_are_small_and_stay_so() {
    for guest in builtins() {
        let limit_kib = match guest.name {
            // They read headers and ids, and compare text and numbers.
            "eu-only" | "header-match" | "sample" => 32,
            // They keep state, and hash or count.
            "dedup-by-content" | "throttle" => 40,
            // They hold a reader and a writer of JSON.
            "content-router" | "json-match" | "redact" | "schema-check" | "split" => 96,
            "average" | "collect" | "first-n" | "lowest-quote" | "majority-vote" | "merge-objects" => 96,
            "order-compensation" | "skip-steps" => 96,
            // It holds a whole language: parser, standard library, JSON.
            "cel" => 960,
            name => panic!("{name} has no limit of its size"),
        };
        let (name, size) = (guest.name, guest.wasm.len());
        assert!(
            size <= limit_kib * 1024,
            "{name} takes {size} bytes, and should stay within {limit_kib} KiB"
        );
    }
}

/// The same bytes wherever it was built: what panics name must not be a place of this machine.
#[test]
fn guests_hold_no_paths_of_this_machine() {
    let here =
        env!("CARGO_MANIFEST_DIR").strip_suffix("/filters").expect("this crate lies in the repository");
    for guest in builtins().iter().chain(hostile_guests()) {
        assert!(!contains(guest.wasm, here.as_bytes()), "{} names {here}", guest.name);
        assert!(!contains(guest.wasm, b"/.cargo/registry"), "{} names cargo's folder", guest.name);
    }
}

/// The page on modules lists the filters that come with the router, so that one can be found.
#[test]
fn the_page_on_modules_lists_every_useful_guest() {
    let page = include_str!("../../sdk/MODULES.md");
    for guest in builtins() {
        assert!(page.contains(&format!("| `{}` |", guest.name)), "{} is not listed", guest.name);
    }
}

/// The guests are a workspace of their own, which an outer `cargo test` doesn't reach: this runs their tests.
#[test]
fn the_guests_own_tests_pass() {
    let mut arguments = vec!["test".to_owned()];
    for guest in builtins() {
        // With the version, since the guest `cel` depends on a crate of that name.
        arguments.extend(["-p".to_owned(), format!("{}@0.1.0", guest.name)]);
    }
    cargo(&arguments);
}

/// An author who runs `cargo check` is not told that the module is dead code, which only the router's side calls.
#[test]
fn checking_guests_natively_warns_of_nothing() {
    let said = cargo(&["check", "--workspace", "--all-targets"].map(str::to_owned));
    assert!(!said.contains("warning"), "{said}");
}

/// Runs cargo natively in the guests' workspace. Answers what it says.
#[track_caller]
fn cargo(arguments: &[String]) -> String {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments).current_dir(guests).arg("--target-dir").arg(env!("CARGO_TARGET_TMPDIR"));
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    let output = cargo.output().expect("cargo can be run");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    said
}
