//! `#[aggregator]`: from an `impl Aggregator` to the exports of its world.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{ImplItem, ItemImpl, Result, spanned::Spanned};

use crate::module::{Common, common, parse};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut item = parse("aggregator", "Aggregator", arguments, item)?;
    let json = take_json(&mut item)?;
    let ty = &item.self_ty;
    let Common { place, functions } = common(ty, quote!(Aggregator), false);
    // Where the state is named, so that an error about its type stands there.
    let state = item.items.iter().find_map(|item| match item {
        ImplItem::Type(state) if state.ident == "State" => Some(state.ty.span()),
        _ => None,
    });
    let span = state.unwrap_or_else(|| ty.span());
    let (encode, decode) = match json {
        true => (quote_spanned!(span=> state_into_json), quote_spanned!(span=> state_from_json)),
        false => (quote_spanned!(span=> state_into_bytes), quote_spanned!(span=> state_from_bytes)),
    };
    let state_ty = quote_spanned!(span=> <#ty as ::chaski_guest::Aggregator>::State);
    Ok(quote! {
        #item

        impl ::chaski_guest::Aggregating for #ty {
            fn encode(state: #state_ty) -> ::std::vec::Vec<u8> {
                ::chaski_guest::runtime::#encode::<#state_ty>(state)
            }

            fn decode(bytes: ::std::vec::Vec<u8>) -> #state_ty {
                ::chaski_guest::runtime::#decode::<#state_ty>(bytes)
            }
        }

        #[doc(hidden)]
        #[allow(dead_code)]
        pub(crate) struct __ChaskiModule;

        #[allow(unused_variables, clippy::all)]
        const _: () = {
            use ::chaski_guest::runtime::{self, gather};

            #place

            impl gather::Guest for __ChaskiModule {
                #functions

                fn begin(
                    request: gather::Message,
                    recipients: ::std::vec::Vec<::std::string::String>,
                ) -> ::std::vec::Vec<u8> {
                    with(|module| runtime::begin(module, request, recipients))
                }

                fn fold(state: ::std::vec::Vec<u8>, event: gather::Event) -> gather::Folded {
                    with(|module| runtime::fold(module, state, event))
                }

                fn finish(
                    state: ::std::vec::Vec<u8>,
                    why: gather::End,
                ) -> ::core::result::Result<gather::Response, ::std::string::String> {
                    with(|module| runtime::finish(module, state, why))
                }
            }

            // Natively nothing else calls these, and what the author wrote for them would count as dead.
            #[cfg(not(target_family = "wasm"))]
            const _: (
                fn() -> runtime::Description,
                fn(::std::vec::Vec<runtime::Param>) -> ::core::result::Result<(), ::std::string::String>,
                fn(gather::Message, ::std::vec::Vec<::std::string::String>) -> ::std::vec::Vec<u8>,
                fn(::std::vec::Vec<u8>, gather::Event) -> gather::Folded,
                fn(
                    ::std::vec::Vec<u8>,
                    gather::End,
                ) -> ::core::result::Result<gather::Response, ::std::string::String>,
            ) = (
                <__ChaskiModule as gather::Guest>::describe,
                <__ChaskiModule as gather::Guest>::configure,
                <__ChaskiModule as gather::Guest>::begin,
                <__ChaskiModule as gather::Guest>::fold,
                <__ChaskiModule as gather::Guest>::finish,
            );

            #[cfg(target_family = "wasm")]
            ::chaski_guest::bindings::aggregator::__export_aggregator!(
                __ChaskiModule with_types_in ::chaski_guest::bindings::aggregator
            );
        };
    })
}

/// Whether `#[json]` stands on `type State`. It is taken off.
fn take_json(item: &mut ItemImpl) -> Result<bool> {
    let mut json = false;
    for item in &mut item.items {
        let ImplItem::Type(state) = item else { continue };
        for attribute in std::mem::take(&mut state.attrs) {
            if attribute.path().is_ident("json") {
                crate::filter::check_json(&attribute)?;
                json = true;
            } else {
                state.attrs.push(attribute);
            }
        }
    }
    Ok(json)
}
