//! A sound core module that exports something else: for the check of the world. It doesn't use the SDK.

/// Adds two numbers, which nobody asked for.
#[unsafe(no_mangle)]
pub extern "C" fn add(left: i32, right: i32) -> i32 {
    left.wrapping_add(right)
}
