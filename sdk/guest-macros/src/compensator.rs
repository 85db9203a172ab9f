//! `#[compensator]`: from an `impl Compensator` to the exports of its world.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Result;

use crate::module::{Common, common, has_function, parse};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let item = parse("compensator", "Compensator", arguments, item)?;
    let ty = &item.self_ty;
    let Common { place, functions } = common(ty, quote!(Compensator), has_function(&item, "advance"));
    Ok(quote! {
        #item

        #[doc(hidden)]
        #[allow(dead_code)]
        pub(crate) struct __ChaskiModule;

        #[allow(unused_variables, clippy::all)]
        const _: () = {
            use ::chaski_guest::runtime::{self, saga};

            #place

            impl saga::Guest for __ChaskiModule {
                #functions

                fn advance(history: saga::History) -> saga::Course {
                    with(|module| runtime::advance(module, history))
                }

                fn compensate(history: saga::History) -> saga::Plan {
                    with(|module| runtime::compensate(module, history))
                }
            }

            // Natively nothing else calls these, and what the author wrote for them would count as dead.
            #[cfg(not(target_family = "wasm"))]
            const _: (
                fn() -> runtime::Description,
                fn(::std::vec::Vec<runtime::Param>) -> ::core::result::Result<(), ::std::string::String>,
                fn(saga::History) -> saga::Course,
                fn(saga::History) -> saga::Plan,
            ) = (
                <__ChaskiModule as saga::Guest>::describe,
                <__ChaskiModule as saga::Guest>::configure,
                <__ChaskiModule as saga::Guest>::advance,
                <__ChaskiModule as saga::Guest>::compensate,
            );

            #[cfg(target_family = "wasm")]
            ::chaski_guest::bindings::compensator::__export_compensator!(
                __ChaskiModule with_types_in ::chaski_guest::bindings::compensator
            );
        };
    })
}
