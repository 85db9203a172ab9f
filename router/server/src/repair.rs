//! What `chaski repair` says: the journal's report as a sentence each for people, and as JSON.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use chaski_journal::{Options, RepairReport};
use serde::Serialize;

use crate::start::{StartError, storage};

/// What a damaged data directory loses.
#[derive(Clone, Debug, Serialize)]
pub struct Repair {
    /// Nothing is damaged.
    pub sound: bool,
    /// Whether it was carried out.
    pub applied: bool,
    /// Records that are lost, as far as headers tell.
    pub records_lost: u64,
    /// Each damage, oldest first.
    pub lost: Vec<Lost>,
    /// Files that are (or would be) set aside below `lost/`.
    pub set_aside: Vec<String>,
}

/// One damage.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    /// The segment.
    pub segment: u64,
    /// Where in it.
    pub offset: u64,
    /// The first and last record concerned.
    pub positions: Option<(u64, u64)>,
    /// What is wrong.
    pub what: String,
    /// Whether everything behind it is lost too.
    pub ends_log: bool,
}

/// The explicit operator command for a damaged journal: says what is lost, and with `apply` carries it out.
pub fn repair(data: &Path, apply: bool) -> Result<Repair, StartError> {
    let report = chaski_journal::repair(Arc::new(storage(data)?), Options::default(), apply)?;
    Ok(Repair::from(report))
}

impl From<RepairReport> for Repair {
    fn from(report: RepairReport) -> Repair {
        let (sound, records_lost) = (report.is_sound(), report.records_lost());
        let lost = report.lost.into_iter().map(|lost| Lost {
            segment: lost.segment,
            offset: lost.offset,
            positions: lost.positions.map(|positions| (positions.start().0, positions.end().0)),
            what: lost.what,
            ends_log: lost.ends_log,
        });
        Repair {
            sound,
            applied: report.applied,
            records_lost,
            lost: lost.collect(),
            set_aside: report.set_aside,
        }
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sound {
            return f.write_str("nothing is damaged");
        }
        for lost in &self.lost {
            write!(f, "segment {}, offset {}: {}", lost.segment, lost.offset, lost.what)?;
            match lost.positions {
                Some((first, last)) => write!(f, "; records {first} to {last} are lost")?,
                None => f.write_str("; no record is lost by it")?,
            }
            f.write_str(if lost.ends_log { ", and the log ends before them\n" } else { "\n" })?;
        }
        for name in &self.set_aside {
            writeln!(f, "set aside below lost/: {name}")?;
        }
        match self.applied {
            true => write!(f, "repaired: {} records are lost; the router can start", self.records_lost),
            false => {
                write!(f, "nothing was changed; --apply goes on without these {} records", self.records_lost)
            }
        }
    }
}
