//! What `#[aggregator]` and `#[compensator]` share: the `impl` that they stand on, and a module's `describe` and `configure`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Error, ImplItem, ItemImpl, Result, Type, spanned::Spanned};

/// Reads the `impl` of this trait, or says what would be right.
pub(crate) fn parse(
    attribute: &str,
    name: &str,
    arguments: TokenStream,
    item: TokenStream,
) -> Result<ItemImpl> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, format!("`#[{attribute}]` takes no arguments")));
    }
    let place =
        format!("`#[{attribute}]` belongs on `impl {name} for YourType`, where `YourType` has `#[params]`");
    let item: ItemImpl = syn::parse2(item).map_err(|error| Error::new(error.span(), &place))?;
    let found = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
    if found.is_none_or(|segment| segment.ident != name) {
        let at: &dyn quote::ToTokens = match &item.trait_ {
            Some((_, path, _)) => path,
            None => &item.self_ty,
        };
        return Err(Error::new_spanned(at, &place));
    }
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(&item.generics, format!("a module can't be generic: {place}")));
    }
    Ok(item)
}

/// Whether the `impl` has a function of this name.
pub(crate) fn has_function(item: &ItemImpl, name: &str) -> bool {
    item.items.iter().any(|item| matches!(item, ImplItem::Fn(function) if function.sig.ident == name))
}

/// The module's place for its configured self, and the functions that every world has.
pub(crate) struct Common {
    /// Above the `impl` of the world's functions.
    pub(crate) place: TokenStream,
    /// Within it.
    pub(crate) functions: TokenStream,
}

/// `name` is the trait. `advances` is told in the description.
pub(crate) fn common(ty: &Type, name: TokenStream, advances: bool) -> Common {
    let place = quote! {
        ::std::thread_local! {
            static CONFIGURED: ::core::cell::OnceCell<#ty> = const { ::core::cell::OnceCell::new() };
        }

        fn with<R>(call: impl ::core::ops::FnOnce(&#ty) -> R) -> R {
            CONFIGURED.with(|configured| call(configured.get().expect("configure comes before other calls")))
        }
    };
    let params = quote_spanned!(ty.span()=> <#ty as ::chaski_guest::runtime::ParamSet>::read(params)?);
    let functions = quote! {
        fn describe() -> runtime::Description {
            runtime::install_panic_hook();
            let description = runtime::describe::<#ty>(
                ::core::env!("CARGO_PKG_NAME"),
                ::core::env!("CARGO_PKG_VERSION"),
                false,
            );
            runtime::Description { advances: #advances, ..description }
        }

        fn configure(
            params: ::std::vec::Vec<runtime::Param>,
        ) -> ::core::result::Result<(), ::std::string::String> {
            runtime::install_panic_hook();
            let module = #params;
            <#ty as ::chaski_guest::#name>::check(&module)?;
            CONFIGURED.with(|configured| { let _ = configured.set(module); });
            ::core::result::Result::Ok(())
        }
    };
    Common { place, functions }
}
