//! The committed bindings are what wit-bindgen makes of `sdk/wit/chaski.wit`. `UPDATE_BINDINGS=1` writes them anew.

use std::{fs, path::Path};

use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};
use wit_bindgen_rust::{Opts, WithOption};

/// What all worlds have, which the others take from the bindings of `filter`.
const SHARED: [(&str, &str); 2] = [
    ("chaski:module/types@1.0.0", "crate::bindings::filter::chaski::module::types"),
    ("chaski:module/log@1.0.0", "crate::bindings::filter::chaski::module::log"),
];

/// The bindings of one world, as Rust source.
fn generate(world: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(root.join("wit")).expect("chaski.wit is valid");
    let world_id = resolve.select_world(&[package], Some(world)).expect("the world exists");
    let own = |(name, path): &(&str, &str)| ((*name).into(), WithOption::Path((*path).into()));
    let opts = Opts {
        with: if world == "filter" { vec![] } else { SHARED.iter().map(own).collect() },
        format: true,
        generate_all: true,
        generate_unused_types: true,
        runtime_path: Some("::wit_bindgen::rt".into()),
        pub_export_macro: true,
        export_macro_name: Some(format!("__export_{world}")),
        default_bindings_module: Some(format!("::chaski_guest::bindings::{world}")),
        ..Opts::default()
    };
    let mut files = Files::default();
    opts.build().generate(&mut resolve, world_id, &mut files).expect("bindings can be generated");
    let (_, source) = files.iter().find(|(name, _)| name.ends_with(".rs")).expect("one Rust file");
    without_type_of_imports(std::str::from_utf8(source).expect("Rust source is UTF-8"))
}

/// The source without the static that describes the world's imports by themselves: the one that comes with the exports
/// describes them too, and each is 1.5 KiB of every guest.
fn without_type_of_imports(source: &str) -> String {
    let begin =
        source.rfind("#[rustfmt::skip]\n#[cfg(target_arch = \"wasm32\")]\n#[unsafe(").expect("it is there");
    let end = source.rfind("#[inline(never)]").expect("a function follows it");
    let (before, cut, after) = (&source[..begin], &source[begin..end], &source[end..]);
    assert!(cut.contains("-with-all-of-its-exports-removed") && !cut.contains("fn "), "{cut}");
    [before, after].concat()
}

#[track_caller]
fn check(world: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bindings").join(format!("{world}.rs"));
    let generated = generate(world);
    if std::env::var_os("UPDATE_BINDINGS").is_some() {
        fs::write(&path, &generated).expect("the bindings can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} is not what chaski.wit yields: run with UPDATE_BINDINGS=1",
        path.display()
    );
}

#[test]
fn filter_bindings_are_current() {
    check("filter");
}

#[test]
fn aggregator_bindings_are_current() {
    check("aggregator");
}

#[test]
fn compensator_bindings_are_current() {
    check("compensator");
}
