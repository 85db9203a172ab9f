//! How a module's params become the fields of its `#[params]` struct.

pub use crate::bindings::filter::chaski::module::types::{ParamKind, ParamValue};

/// A type that a field of a `#[params]` struct can have. The `json` attribute takes any other that serde reads.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the type of a param",
    label = "not text, a number, true or false, nor an `Option` of one of them",
    note = "`#[json]` on the field takes any type that serde reads; or implement `FromParam`"
)]
pub trait FromParam: Sized {
    /// The kind of value that the rules must give.
    const KIND: ParamKind;
    /// Whether the rules must give it at all.
    const REQUIRED: bool = true;

    /// Reads the value. An error says what is wrong with it.
    fn from_param(value: ParamValue) -> Result<Self, String>;

    /// What a param that the rules don't give is; none where it is required.
    fn absent() -> Option<Self> {
        None
    }
}

impl FromParam for String {
    const KIND: ParamKind = ParamKind::Text;
    fn from_param(value: ParamValue) -> Result<Self, String> {
        match value {
            ParamValue::Text(text) => Ok(text),
            _ => Err("must be text".into()),
        }
    }
}

impl FromParam for bool {
    const KIND: ParamKind = ParamKind::Boolean;
    fn from_param(value: ParamValue) -> Result<Self, String> {
        match value {
            ParamValue::Boolean(value) => Ok(value),
            _ => Err("must be true or false".into()),
        }
    }
}

impl FromParam for f64 {
    const KIND: ParamKind = ParamKind::Number;
    fn from_param(value: ParamValue) -> Result<Self, String> {
        match value {
            ParamValue::Number(number) => Ok(number),
            ParamValue::Integer(number) => Ok(number as f64),
            _ => Err("must be a number".into()),
        }
    }
}

macro_rules! whole_numbers {
    ($($type:ty: $range:literal),*) => {$(
        impl FromParam for $type {
            const KIND: ParamKind = ParamKind::Integer;
            fn from_param(value: ParamValue) -> Result<Self, String> {
                match value {
                    ParamValue::Integer(number) => number.try_into().map_err(|_| concat!("must be ", $range).into()),
                    _ => Err("must be a whole number".into()),
                }
            }
        }
    )*};
}

whole_numbers! {
    i64: "a whole number of 64 bits",
    i32: "a whole number of 32 bits",
    u64: "a whole number that is not negative",
    u32: "a whole number from 0 to 4294967295",
    u8: "a whole number from 0 to 255"
}

impl<T: FromParam> FromParam for Option<T> {
    const KIND: ParamKind = T::KIND;
    const REQUIRED: bool = false;
    fn from_param(value: ParamValue) -> Result<Self, String> {
        T::from_param(value).map(Some)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}
