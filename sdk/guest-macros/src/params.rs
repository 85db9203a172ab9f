//! `#[params]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Error, Expr, Fields, ItemStruct, Result, spanned::Spanned};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "`#[params]` takes no arguments"));
    }
    let mut item: ItemStruct = syn::parse2(item)
        .map_err(|error| Error::new(error.span(), "`#[params]` belongs on a struct with named fields"))?;
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(&item.generics, "params can't be generic"));
    }
    let mut specs = Vec::new();
    let mut readers = Vec::new();
    let fields = match &mut item.fields {
        Fields::Named(fields) => Some(&mut fields.named),
        // An aggregator or compensator that takes no params.
        Fields::Unit => None,
        Fields::Unnamed(_) => {
            return Err(Error::new_spanned(&item, "`#[params]` belongs on a struct with named fields"));
        }
    };
    for field in fields.into_iter().flatten() {
        let (mut json, mut default) = (false, None);
        for attribute in std::mem::take(&mut field.attrs) {
            if attribute.path().is_ident("json") {
                super::filter::check_json(&attribute)?;
                json = true;
            } else if attribute.path().is_ident("default") {
                default = Some(attribute.parse_args::<Expr>()?);
            } else {
                field.attrs.push(attribute);
            }
        }
        let (ident, ty) = (field.ident.as_ref().expect("the fields are named"), &field.ty);
        let name = ident.to_string().trim_start_matches("r#").to_owned();
        let optional = default.is_some();
        let default = match default {
            Some(text @ Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(_), .. })) => quote!(Some(#text.into())),
            Some(value) => quote!(Some(#value)),
            None => quote!(None),
        };
        if json {
            specs.push(quote!((#name, ::chaski_guest::runtime::ParamKind::Json, !#optional)));
            readers.push(quote_spanned!(ty.span()=>
                #ident: ::chaski_guest::runtime::json_param::<#ty>(&mut params, #name, #default)?));
        } else {
            specs.push(quote_spanned!(ty.span()=> (
                #name,
                <#ty as ::chaski_guest::FromParam>::KIND,
                <#ty as ::chaski_guest::FromParam>::REQUIRED && !#optional,
            )));
            readers.push(quote_spanned!(ty.span()=>
                #ident: ::chaski_guest::runtime::param::<#ty>(&mut params, #name, #default)?));
        }
    }
    let name = &item.ident;
    Ok(quote! {
        #item

        impl ::chaski_guest::runtime::ParamSet for #name {
            const SPECS: &'static [(&'static str, ::chaski_guest::runtime::ParamKind, bool)] = &[#(#specs),*];

            fn read(
                mut params: ::std::vec::Vec<::chaski_guest::runtime::Param>,
            ) -> ::core::result::Result<Self, ::std::string::String> {
                let _ = &mut params;
                ::core::result::Result::Ok(Self { #(#readers),* })
            }
        }
    })
}
