//! A directory written by format version 1 is read forever. It is made by `cargo run -p chaski-journal --example fixture`.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chaski_journal::{DiskStorage, Position, open};
use common::{record, replayed, small};

fn fixture() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1");
    for entry in std::fs::read_dir(committed).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    let path = directory.path().to_owned();
    (directory, path)
}

#[test]
fn format_version_1_is_read() {
    let (_directory, path) = fixture();
    let mut recovery = open(Arc::new(DiskStorage::new(&path).unwrap()), small()).unwrap();
    assert_eq!(recovery.snapshot().unwrap().position(), Position(20));
    assert_eq!(replayed(&mut recovery).unwrap(), (1..=42).map(record).collect::<Vec<_>>());
    assert_eq!(recovery.last_now_ms(), 1_700_000_000_041);
    assert_eq!(recovery.cut(), None);
    assert!(recovery.start(|_| {}).is_ok());
}

#[test]
fn format_version_1_is_what_is_written() {
    // Magic, version, and where the first numbers stand: FORMAT.md, Segments.
    let (_directory, path) = fixture();
    let bytes = std::fs::read(path.join("00000000000000000001.seg")).unwrap();
    assert_eq!(bytes[..8], *b"CHASKISG");
    assert_eq!(bytes[8..12], 1_u32.to_le_bytes());
    assert_eq!(bytes[16..24], 1_u64.to_le_bytes());
    assert_eq!(bytes[32..40], 1_u64.to_le_bytes());
    assert_eq!(bytes[128..132], 0xC4A5_B7E9_u32.to_le_bytes());
}
