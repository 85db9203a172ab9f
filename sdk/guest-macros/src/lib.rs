//! The attribute macros of chaski-guest, which re-exports and documents them: they turn an ordinary function or struct into what
//! the bindings of `chaski.wit` ask for, and know nothing of how those look in memory.

use proc_macro::TokenStream;

mod aggregator;
mod compensator;
mod filter;
mod module;
mod params;

/// Makes a filter of a function: its parameters say what it reads, its answer is the verdict.
///
/// | parameter | what it is |
/// | --- | --- |
/// | `topic: &str`, `id: &str` | of the message |
/// | `key: Option<&str>` | its ordering key |
/// | `payload: &[u8]` | its body |
/// | `priority: u8` | 0 to 9 |
/// | `timestamp: u64` | when the router took it, in milliseconds since 1970 |
/// | `headers: &Headers` | all its headers, or those that `reads` names |
/// | `#[header("NAME")] any_name: Option<&str>` | one header |
/// | `#[json] any_name: T` | its body as JSON, with the feature `serde_json`; a body that doesn't fit is rejected |
/// | `now: u64` | the batch's time, in milliseconds since 1970 |
/// | `state: &State` | the module's durable table |
/// | `params: &T` | what the rules give; `T` has `#[params]` |
///
/// The router copies what is named here and nothing else. `#[filter(reads = Params::fields)]` names a function from `&Params`
/// to a `Vec<String>` of headers, for those whose names only the params tell; reading any other panics, natively too. It can
/// answer `Result<Vec<String>, String>` as well: then an error refuses the rules, with its sentence.
///
/// The module's name and version are the package's. A package has one filter.
#[proc_macro_attribute]
pub fn filter(arguments: TokenStream, item: TokenStream) -> TokenStream {
    filter::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes an aggregator of an `impl Aggregator for TYPE`, where `TYPE` has `#[params]`. `#[json]` on its `type State` keeps the state
/// as JSON, with the feature `serde_json`; without it the state is a type with `StateBytes`.
///
/// The module's name and version are the package's. A package has one module.
#[proc_macro_attribute]
pub fn aggregator(arguments: TokenStream, item: TokenStream) -> TokenStream {
    aggregator::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a compensator of an `impl Compensator for TYPE`, where `TYPE` has `#[params]`. The router calls `advance` where the
/// `impl` has a function of that name.
///
/// The module's name and version are the package's. A package has one module.
#[proc_macro_attribute]
pub fn compensator(arguments: TokenStream, item: TokenStream) -> TokenStream {
    compensator::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Lets a struct be the `params` of a module. Each field is a param of its name: text (`String`), a whole number (`i64`,
/// `i32`, `u64`, `u32`, `u8`), a number (`f64`), true or false (`bool`), or an `Option` of one of them, which the rules may
/// leave out. `#[default(VALUE)]` on a field makes it optional too; `#[json]` takes any type that serde reads, with the
/// feature `serde_json`. A struct without fields takes no params.
#[proc_macro_attribute]
pub fn params(arguments: TokenStream, item: TokenStream) -> TokenStream {
    params::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
