//! Lines to the router's log; natively to the test's.

use crate::Level;

/// Writes a line to the router's log: `log!("took {n}")`, or with a level `log!(warn, "took {n}")`. The levels are `trace`,
/// `debug`, `info` (the default), `warn` and `error`. The router keeps 16 lines a call, 1 KiB of each.
#[macro_export]
macro_rules! log {
    (trace, $($line:tt)+) => { $crate::runtime::write_log($crate::Level::Trace, &::std::format!($($line)+)) };
    (debug, $($line:tt)+) => { $crate::runtime::write_log($crate::Level::Debug, &::std::format!($($line)+)) };
    (info, $($line:tt)+) => { $crate::runtime::write_log($crate::Level::Info, &::std::format!($($line)+)) };
    (warn, $($line:tt)+) => { $crate::runtime::write_log($crate::Level::Warn, &::std::format!($($line)+)) };
    (error, $($line:tt)+) => { $crate::runtime::write_log($crate::Level::Error, &::std::format!($($line)+)) };
    ($($line:tt)+) => { $crate::runtime::write_log($crate::Level::Info, &::std::format!($($line)+)) };
}

pub(crate) fn write(level: Level, line: &str) {
    #[cfg(target_family = "wasm")]
    crate::bindings::filter::chaski::module::log::write(level, line);
    #[cfg(not(target_family = "wasm"))]
    crate::testing::record(level, line);
}
