//! The orders of the example of sagas: what is in them, and which of them go wrong.

use chaski_client::Delivery;
use serde_json::{Value, json};

/// How many there are: `ORDERS` of the environment, or 60.
pub fn count() -> u32 {
    std::env::var("ORDERS").ok().and_then(|count| count.parse().ok()).unwrap_or(60)
}

/// An order. Every seventh has a card that is declined, every fifth an address that is unreachable.
pub fn order(number: u32) -> String {
    json!({
        "units": number % 3 + 1,
        "soles": number,
        "declined": number.is_multiple_of(7),
        "unreachable": number.is_multiple_of(5),
    })
    .to_string()
}

/// The order that began the saga of this step.
pub fn of(step: &Delivery) -> Value {
    step.step().and_then(|step| step.input_as().ok()).unwrap_or_default()
}

/// Its `units` or `soles`.
pub fn amount(order: &Value, what: &str) -> u32 {
    order[what].as_u64().and_then(|amount| u32::try_from(amount).ok()).unwrap_or(0)
}
