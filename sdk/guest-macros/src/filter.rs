//! `#[filter]`: reads the signature, and writes the glue from a batch's columns to a call of the function.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{
    Attribute, Error, FnArg, Ident, ItemFn, LitStr, Pat, PatType, Path, Result, ReturnType, Token, Type,
    parse::ParseStream, parse::Parser, spanned::Spanned,
};

const PARAMETERS: &str = "topic, key, id, payload, priority, timestamp, headers, now, state, params, \
    `#[header(\"NAME\")] name: Option<&str>` and `#[json] name: T`";

/// What the signature asks for.
#[derive(Default)]
struct Signature {
    /// The fields that every message brings, in the order of the columns.
    fields: Vec<TokenStream>,
    /// One `let` for each parameter, from `row`, `params`, `declared` and `state`.
    bindings: Vec<TokenStream>,
    arguments: Vec<Ident>,
    params: Option<Type>,
    keeps_state: bool,
    takes_headers: bool,
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let reads = parse_reads.parse2(arguments)?;
    let mut function: ItemFn =
        syn::parse2(item).map_err(|error| Error::new(error.span(), "`#[filter]` belongs on a function"))?;
    check_shape(&function)?;
    let mut signature = Signature::default();
    for input in &mut function.sig.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                return Err(Error::new_spanned(receiver, "a filter is a free function, without `self`"));
            }
            FnArg::Typed(parameter) => signature.add(parameter, reads.is_some())?,
        }
    }
    if let Some(reads) = &reads {
        if !signature.takes_headers || signature.params.is_none() {
            let sentence = "`reads` needs the parameters `headers: &Headers` and `params: &Params`";
            return Err(Error::new_spanned(reads, sentence));
        }
        let limit: syn::Stmt = syn::parse_quote! {
            #[cfg(not(target_family = "wasm"))]
            let __declared: ::std::vec::Vec<::std::string::String> =
                ::chaski_guest::runtime::Declared::declared(#reads(params)).expect("the params can be read");
        };
        let shadow: syn::Stmt = syn::parse_quote! {
            #[cfg(not(target_family = "wasm"))]
            let headers = &headers.limited_to(&__declared);
        };
        function.block.stmts.splice(0..0, [limit, shadow]);
    }
    Ok(glue(&function, &signature, reads.as_ref()))
}

/// `reads = PATH`, or nothing.
fn parse_reads(input: ParseStream<'_>) -> Result<Option<Path>> {
    if input.is_empty() {
        return Ok(None);
    }
    let name: Ident = input.parse()?;
    if name != "reads" {
        return Err(Error::new(name.span(), "the one argument of `#[filter]` is `reads = Params::fields`"));
    }
    input.parse::<Token![=]>()?;
    input.parse().map(Some)
}

fn check_shape(function: &ItemFn) -> Result<()> {
    let sig = &function.sig;
    if let Some(asyncness) = &sig.asyncness {
        return Err(Error::new_spanned(asyncness, "a filter can't be async: it has nothing to wait for"));
    }
    if !sig.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &sig.generics,
            "a filter can't be generic, and needs no named lifetimes",
        ));
    }
    if matches!(sig.output, ReturnType::Default) {
        return Err(Error::new_spanned(sig, "a filter answers with a verdict: add `-> Verdict`"));
    }
    Ok(())
}

/// Without the feature, says so.
pub(crate) fn check_json(attribute: &Attribute) -> Result<()> {
    if cfg!(feature = "serde_json") {
        return Ok(());
    }
    let sentence = "`#[json]` needs the feature: chaski-guest = { …, features = [\"serde_json\"] }";
    Err(Error::new_spanned(attribute, sentence))
}

impl Signature {
    fn add(&mut self, parameter: &mut PatType, reads: bool) -> Result<()> {
        let Pat::Ident(pattern) = &*parameter.pat else {
            return Err(Error::new_spanned(&parameter.pat, "a filter's parameter is a name, not a pattern"));
        };
        let (name, span) = (pattern.ident.to_string(), parameter.ty.span());
        let name = name.trim_start_matches('_');
        let (mut header, mut json) = (None, false);
        for attribute in std::mem::take(&mut parameter.attrs) {
            if attribute.path().is_ident("header") {
                let literal = attribute.parse_args::<LitStr>().map_err(|_| {
                    Error::new_spanned(&attribute, "a header is named by text: `#[header(\"region\")]`")
                })?;
                header = Some(literal);
            } else if attribute.path().is_ident("json") {
                check_json(&attribute)?;
                json = true;
            } else {
                parameter.attrs.push(attribute);
            }
        }
        let value = if let Some(header) = header {
            let column = self.column(quote!(Header(#header.into())));
            quote_spanned!(span=> row.optional_text(#column))
        } else if json {
            let column = self.column(quote!(Payload));
            quote_spanned! {span=> match ::chaski_guest::runtime::json(row.bytes(#column)) {
                ::core::result::Result::Ok(body) => body,
                ::core::result::Result::Err(verdict) => return verdict,
            }}
        } else {
            self.named(name, pattern.ident.span(), &parameter.ty, reads)?
        };
        let argument = format_ident!("argument_{}", self.arguments.len());
        let ty = &parameter.ty;
        self.bindings.push(quote_spanned!(span=> let #argument: #ty = #value;));
        self.arguments.push(argument);
        Ok(())
    }

    /// The value of a parameter that its name tells.
    fn named(&mut self, name: &str, at: Span, ty: &Type, reads: bool) -> Result<TokenStream> {
        let span = ty.span();
        Ok(match name {
            "topic" | "id" => {
                let field = if name == "topic" { quote!(Topic) } else { quote!(Id) };
                let column = self.column(field);
                quote_spanned!(span=> row.text(#column))
            }
            "key" => {
                let column = self.column(quote!(Key));
                quote_spanned!(span=> row.optional_text(#column))
            }
            "payload" => {
                let column = self.column(quote!(Payload));
                quote_spanned!(span=> row.bytes(#column))
            }
            "priority" => {
                let column = self.column(quote!(Priority));
                quote_spanned!(span=> row.byte(#column))
            }
            "timestamp" => {
                let column = self.column(quote!(Timestamp));
                quote_spanned!(span=> row.time(#column))
            }
            "headers" => {
                self.takes_headers = true;
                if reads {
                    quote_spanned!(span=> &row.declared_headers(FIELDS, declared))
                } else {
                    let column = self.column(quote!(Headers));
                    quote_spanned!(span=> &row.headers(#column))
                }
            }
            "now" => quote_spanned!(span=> row.now()),
            "state" => {
                self.keeps_state = true;
                quote_spanned!(span=> &state)
            }
            "params" => {
                let Type::Reference(reference) = ty else {
                    return Err(Error::new_spanned(ty, "a filter borrows its params: `params: &Params`"));
                };
                self.params = Some((*reference.elem).clone());
                quote_spanned!(span=> params)
            }
            other => {
                let sentence = format!("a filter can't read `{other}`. Its parameters can be: {PARAMETERS}");
                return Err(Error::new(at, sentence));
            }
        })
    }

    /// The number of a field's column, which is added unless it is there.
    fn column(&mut self, field: TokenStream) -> usize {
        let text = field.to_string();
        self.fields.iter().position(|known| known.to_string() == text).unwrap_or_else(|| {
            self.fields.push(field);
            self.fields.len() - 1
        })
    }
}

/// The function, and beside it the module that calls it.
fn glue(function: &ItemFn, signature: &Signature, reads: Option<&Path>) -> TokenStream {
    let Signature { fields, bindings, arguments, params, keeps_state, .. } = signature;
    let (name, count) = (&function.sig.ident, fields.len());
    let params = params.as_ref().map_or(quote!(()), |ty| quote!(#ty));
    let declared = reads.map_or(
        quote!(::std::vec::Vec::new()),
        |reads| quote!(runtime::Declared::declared(#reads(&params))?),
    );
    let output = match &function.sig.output {
        ReturnType::Type(_, ty) => {
            quote_spanned!(ty.span()=> let verdict: ::chaski_guest::Verdict = #name(#(#arguments),*);)
        }
        ReturnType::Default => unreachable!("a filter without an answer is refused"),
    };
    quote! {
        #function

        #[doc(hidden)]
        #[allow(dead_code)]
        pub(crate) struct __ChaskiModule;

        #[allow(unused_variables, clippy::all)]
        const _: () = {
            use ::chaski_guest::runtime::{self, Field, Guest, ParamSet};

            const FIELDS: usize = #count;

            ::std::thread_local! {
                static CONFIGURED: ::core::cell::OnceCell<(#params, ::std::vec::Vec<::std::string::String>)> =
                    const { ::core::cell::OnceCell::new() };
            }

            impl Guest for __ChaskiModule {
                fn describe() -> runtime::Description {
                    runtime::install_panic_hook();
                    runtime::describe::<#params>(
                        ::core::env!("CARGO_PKG_NAME"),
                        ::core::env!("CARGO_PKG_VERSION"),
                        #keeps_state,
                    )
                }

                fn configure(
                    params: ::std::vec::Vec<runtime::Param>,
                ) -> ::core::result::Result<::std::vec::Vec<Field>, ::std::string::String> {
                    runtime::install_panic_hook();
                    let params = <#params as ParamSet>::read(params)?;
                    let declared: ::std::vec::Vec<::std::string::String> = #declared;
                    let mut fields: ::std::vec::Vec<Field> = ::std::vec![#(Field::#fields),*];
                    fields.extend(declared.iter().cloned().map(Field::Header));
                    CONFIGURED.with(|configured| { let _ = configured.set((params, declared)); });
                    ::core::result::Result::Ok(fields)
                }

                fn filter(batch: runtime::Batch) -> runtime::Answer {
                    CONFIGURED.with(|configured| {
                        let (params, declared) = configured.get().expect("configure comes before filter");
                        let state = runtime::router_state();
                        runtime::judge(&batch, |row| {
                            #(#bindings)*
                            #output
                            verdict
                        })
                    })
                }
            }

            // Natively nothing else calls these, and what the author wrote for them would count as dead.
            #[cfg(not(target_family = "wasm"))]
            const _: (
                fn() -> runtime::Description,
                fn(::std::vec::Vec<runtime::Param>)
                    -> ::core::result::Result<::std::vec::Vec<Field>, ::std::string::String>,
                fn(runtime::Batch) -> runtime::Answer,
            ) = (__ChaskiModule::describe, __ChaskiModule::configure, __ChaskiModule::filter);

            #[cfg(target_family = "wasm")]
            ::chaski_guest::bindings::filter::__export_filter!(
                __ChaskiModule with_types_in ::chaski_guest::bindings::filter
            );
        };
    }
}
