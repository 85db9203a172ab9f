//! The modules' binaries that gathers or sagas under way began with, each with how many hold it: so that nobody walks them all to know.

use std::collections::BTreeMap;

/// How many hold each binary.
#[derive(Debug, Default)]
pub(crate) struct Pins(BTreeMap<[u8; 32], u64>);

impl Pins {
    /// One more holds it, if it has a module.
    pub(crate) fn hold(&mut self, binary: Option<[u8; 32]>) {
        if let Some(binary) = binary {
            *self.0.entry(binary).or_default() += 1;
        }
    }

    /// One of those that held it doesn't any more.
    pub(crate) fn let_go(&mut self, binary: Option<[u8; 32]>) {
        let Some(binary) = binary else { return };
        let held = self.0.get_mut(&binary).expect("what is let go was held");
        *held -= 1;
        if *held == 0 {
            self.0.remove(&binary);
        }
    }

    /// Each once.
    pub(crate) fn binaries(&self) -> impl Iterator<Item = [u8; 32]> {
        self.0.keys().copied()
    }
}
