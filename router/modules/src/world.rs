//! What a component asks for and offers: its world, found by its exports, and its imports, refused by name with the remedy.
//! It reads binaries and runs nothing.

use std::fmt;

use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload};

/// The package that the router speaks, without its version.
const PACKAGE: &str = "chaski:module/";
/// The version of the contract that this router has.
pub const CONTRACT: &str = "1.0.0";

/// What kind of module a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum World {
    /// Judges messages.
    Filter,
    /// Makes one answer of many.
    Aggregator,
    /// Decides how a saga goes on.
    Compensator,
}

impl World {
    const ALL: [World; 3] = [World::Filter, World::Aggregator, World::Compensator];

    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            World::Filter => "filter",
            World::Aggregator => "aggregator",
            World::Compensator => "compensator",
        }
    }

    /// Its name with the article, for sentences.
    pub(crate) fn a(self) -> &'static str {
        match self {
            World::Filter => "a filter",
            World::Aggregator => "an aggregator",
            World::Compensator => "a compensator",
        }
    }

    /// All that a component of this world exports.
    fn exports(self) -> &'static [&'static str] {
        match self {
            World::Filter => &["describe", "configure", "filter"],
            World::Aggregator => &["describe", "configure", "begin", "fold", "finish"],
            World::Compensator => &["describe", "configure", "advance", "compensate"],
        }
    }

    /// The interfaces with functions that it may import.
    fn imports(self) -> &'static [&'static str] {
        match self {
            World::Filter => &["log", "state"],
            World::Aggregator | World::Compensator => &["log"],
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Interfaces of types alone: importing one asks for nothing.
const TYPES: [&str; 4] = ["types", "columns", "gathering", "compensation"];

/// The names at a component's own border.
#[derive(Debug, Default)]
pub(crate) struct Border {
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Why a component is none of the contract's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// It exports what none of the worlds does, or not all that one does.
    #[error(
        "the module is of none of the worlds filter, aggregator and compensator of chaski:module@{CONTRACT}{}",
        missing_sentence(.nearest, .missing)
    )]
    Unknown {
        /// The world of which it exports the most.
        nearest: Option<World>,
        /// What it would still need for that.
        missing: Vec<&'static str>,
    },
    /// It was built for another version of the contract.
    #[error(
        "the module imports `{import}`, and this router has chaski:module@{CONTRACT}: rebuild it with that version"
    )]
    Version {
        /// The import's name.
        import: String,
    },
    /// It asks for something that no module gets.
    #[error("the module imports `{import}`, which the router does not give{}", remedy_sentence(.remedy))]
    Import {
        /// The import's name.
        import: String,
        /// What helps, where that is known.
        remedy: Option<&'static str>,
    },
}

fn missing_sentence(nearest: &Option<World>, missing: &[&'static str]) -> String {
    match nearest {
        Some(world) if !missing.is_empty() => {
            format!(": as {world} it lacks the export {}", missing.join(", "))
        }
        _ => ": build it with the guest SDK, or from chaski.wit".into(),
    }
}

fn remedy_sentence(remedy: &Option<&'static str>) -> String {
    remedy.map(|remedy| format!(": {remedy}")).unwrap_or_default()
}

/// The imports and exports of a component, without what lies nested in it.
pub(crate) fn border(component: &[u8]) -> Result<Border, wasmparser::BinaryReaderError> {
    let mut border = Border::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import?;
                    // A type asks for nothing.
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                        border.imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    border.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(border)
}

/// The names of the modules that a core module imports from, each once.
pub(crate) fn core_imports(module: &[u8]) -> Result<Vec<String>, wasmparser::BinaryReaderError> {
    let mut names: Vec<String> = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ImportSection(section) = payload? {
            for import in section.into_imports() {
                let import = import?;
                if !names.iter().any(|name| name == import.module) {
                    names.push(import.module.to_owned());
                }
            }
        }
    }
    Ok(names)
}

/// Whether these bytes begin as a component, a core module, or neither.
pub(crate) fn encoding(bytes: &[u8]) -> Option<Encoding> {
    match Parser::new(0).parse_all(bytes).next() {
        Some(Ok(Payload::Version { encoding, .. })) => Some(encoding),
        _ => None,
    }
}

/// Which world the component is of, when it asks for no more than that one gives.
pub(crate) fn check(border: &Border) -> Result<World, WorldError> {
    // Imports first: a component that was built for another host is told so, before it is told what it lacks.
    for import in &border.imports {
        check_import(import, World::Filter)?;
    }
    let has = |name: &&&str| border.exports.iter().any(|export| export == **name);
    let found = World::ALL.into_iter().max_by_key(|world| {
        let exports = world.exports();
        let count = exports.iter().filter(has).count();
        // A whole world wins over a part of a larger one.
        (count == exports.len(), count)
    });
    let world = found.expect("there are three worlds");
    let missing: Vec<_> = world.exports().iter().filter(|name| !has(name)).copied().collect();
    if !missing.is_empty() {
        let nothing = missing.len() == world.exports().len();
        return Err(WorldError::Unknown { nearest: (!nothing).then_some(world), missing });
    }
    for import in &border.imports {
        check_import(import, world)?;
    }
    Ok(world)
}

/// Whether a module of this world may import from an interface of this name.
pub(crate) fn check_import(import: &str, world: World) -> Result<(), WorldError> {
    let Some(rest) = import.strip_prefix(PACKAGE) else {
        return Err(WorldError::Import { import: import.into(), remedy: remedy(import) });
    };
    let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
    if version != CONTRACT {
        return Err(WorldError::Version { import: import.into() });
    }
    if world.imports().contains(&interface) || TYPES.contains(&interface) {
        return Ok(());
    }
    let remedy = (interface == "state").then_some("only a filter keeps state");
    Err(WorldError::Import { import: import.into(), remedy })
}

/// What is known to help against an import of this name.
fn remedy(import: &str) -> Option<&'static str> {
    if import.starts_with("wasi") {
        return Some(
            "modules have no WASI; with componentize-py pass `--stub-wasi`, with componentize-js switch all its \
             features off, in Rust build for `wasm32-unknown-unknown`",
        );
    }
    if import.starts_with("__wbindgen") {
        return Some(
            "modules have no JavaScript around them; leave out what needs wasm-bindgen, mostly a `js` feature",
        );
    }
    if import == "env" {
        return Some(
            "a symbol was left undefined by the linker; leave out the C library or `extern` block that it is of",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn border(imports: &[&str], exports: &[&str]) -> Border {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Border { imports: own(imports), exports: own(exports) }
    }

    #[test]
    fn the_world_is_found_by_the_exports() {
        for world in World::ALL {
            assert_eq!(check(&border(&["chaski:module/log@1.0.0"], world.exports())), Ok(world));
        }
    }

    #[test]
    fn what_a_component_lacks_is_named() {
        let error = check(&border(&[], &["describe", "configure", "begin"])).unwrap_err();
        assert!(error.to_string().ends_with("as aggregator it lacks the export fold, finish"), "{error}");
        let error = check(&border(&[], &["run"])).unwrap_err();
        assert!(error.to_string().ends_with("build it with the guest SDK, or from chaski.wit"), "{error}");
    }

    #[test]
    fn imports_are_refused_by_name_with_the_remedy() {
        let exports = World::Filter.exports();
        let refused = |import: &str| check(&border(&[import], exports)).unwrap_err().to_string();
        assert!(refused("wasi:cli/environment@0.2.0").contains("`wasi:cli/environment@0.2.0`"));
        assert!(refused("wasi:cli/environment@0.2.0").contains("--stub-wasi"));
        assert!(refused("chaski:module/log@2.0.0").contains("this router has chaski:module@1.0.0"));
        assert!(refused("chaski:module/clock@1.0.0").contains("does not give"));
        assert!(refused("acme:thing/x").ends_with("`acme:thing/x`, which the router does not give"));
        let aggregator = border(&["chaski:module/state@1.0.0"], World::Aggregator.exports());
        assert!(check(&aggregator).unwrap_err().to_string().ends_with("only a filter keeps state"));
    }
}
