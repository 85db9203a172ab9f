//! Blobs by digest: whole or absent after a crash at any operation, durable once `put` has returned, verified when read.

mod common;

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use bytes::Bytes;
use chaski_journal::sim::{Lies, Operation, SimStorage};
use chaski_journal::{BlobDigest, BlobError, Blobs, DiskStorage, Journal, Progress, Storage, open};
use common::script::{copy, outcomes};
use common::{append, recover, small};

/// Pages so small that a blob has several.
const PAGE: usize = 64;
const FIRST: &[u8] = &[b'1'; 300];
const SECOND: &[u8] = &[b'2'; 130];

fn file(bytes: &[u8]) -> String {
    let digest = BlobDigest::of(bytes).to_string();
    format!("blobs/{}", digest.strip_prefix("sha256:").unwrap())
}

fn started(storage: &SimStorage) -> (impl Journal, Blobs, common::Told) {
    let (journal, _, told) = recover(storage, small()).unwrap();
    let blobs = journal.blobs();
    (journal, blobs, told)
}

/// What was put and confirmed before the power went; the disk lies once the log has begun.
fn script(storage: &SimStorage, lies: Lies) -> Vec<&'static [u8]> {
    let mut kept = Vec::new();
    let Ok((mut journal, ..)) = recover(storage, small()) else { return kept };
    storage.set_lies(lies);
    let blobs = journal.blobs();
    for bytes in [FIRST, SECOND, FIRST] {
        match blobs.put(bytes) {
            Ok(_) => kept.push(bytes),
            Err(_) => return kept,
        }
        append(&mut journal, 1, false);
    }
    kept
}

/// Each blob is whole or absent, the confirmed ones are whole, and nothing unfinished outlives a start.
fn check(disk: &SimStorage, kept: &[&[u8]]) -> Result<(), String> {
    let (_journal, blobs, _) = started(disk);
    let unfinished = |name: &String| name.ends_with(".tmp");
    if let Some(name) = disk.files().into_iter().find(unfinished) {
        return Err(format!("{name} outlives a start"));
    }
    for bytes in [FIRST, SECOND] {
        match blobs.get(BlobDigest::of(bytes)) {
            Ok(Some(found)) => assert_eq!(found, bytes),
            Ok(None) if kept.contains(&bytes) => return Err("a confirmed blob is lost".to_owned()),
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// Every crash of the script with these lies; the first thing that is wrong.
fn crash_everywhere(lies: Lies) -> Result<(), String> {
    let whole = SimStorage::new(PAGE);
    assert_eq!(script(&whole, Lies::default()).len(), 3, "it runs to its end");
    for at in 0..=whole.operations().len() {
        let storage = SimStorage::new(PAGE);
        storage.die_at(at);
        let kept = script(&storage, lies);
        for (choice, disk) in outcomes(&storage, 256) {
            check(&disk, &kept).map_err(|wrong| format!("crash {at}, choice {choice}: {wrong}"))?;
        }
    }
    Ok(())
}

#[test]
fn every_crash_leaves_a_blob_whole_or_absent_and_keeps_what_put_returned() {
    crash_everywhere(Lies::default()).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn checker_catches_syncs_that_do_nothing() {
    let wrong = crash_everywhere(Lies { sync: true, sync_dir: false }).expect_err("a planted bug");
    assert!(wrong.contains("is damaged"), "{wrong}");
    let wrong = crash_everywhere(Lies { sync: false, sync_dir: true }).expect_err("a planted bug");
    assert!(wrong.contains("lost"), "{wrong}");
}

#[test]
fn blob_that_a_killed_process_left_is_durable_once_put_again() {
    let whole = SimStorage::new(PAGE);
    script(&whole, Lies::default());
    for at in 0..=whole.operations().len() {
        let storage = SimStorage::new(PAGE);
        storage.die_at(at);
        script(&storage, Lies::default());
        // The operating system lives on: nothing is lost, and nothing is more durable than before.
        let next = storage.killed();
        let (_journal, blobs, _) = started(&next);
        blobs.put(FIRST).unwrap();
        check(&next.crash(|_| false), &[FIRST]).unwrap_or_else(|wrong| panic!("killed at {at}: {wrong}"));
    }
}

#[test]
fn blob_on_a_full_disk_is_refused_whole_and_the_log_goes_on() {
    let storage = SimStorage::new(PAGE);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    let blobs = journal.blobs();
    blobs.put(SECOND).unwrap();
    let files = storage.files();
    storage.set_capacity(Some(files.iter().map(|name| storage.bytes(name).unwrap().len() as u64).sum()));
    let error = blobs.put(FIRST).unwrap_err();
    assert!(matches!(error, BlobError::NoRoom { bytes: 300, .. }), "{error}");
    assert_eq!(storage.files(), files, "nothing of it stays");
    append(&mut journal, 1, true);
    storage.set_capacity(None);
    assert_eq!(blobs.put(FIRST), Ok(BlobDigest::of(FIRST)));
}

#[test]
fn failing_disk_ends_the_log_and_no_blob_is_written_any_more() {
    for wanted in [Operation::Write, Operation::Sync, Operation::SyncDir] {
        let storage = SimStorage::new(PAGE);
        let (_journal, blobs, told) = started(&storage);
        let before = storage.operations().len();
        let probe = copy(&storage);
        let (_probed, others, _) = started(&probe);
        let base = probe.operations().len();
        others.put(FIRST).unwrap();
        let offset = probe.operations()[base..].iter().position(|operation| *operation == wanted).unwrap();
        storage.fail_at(before + offset, ErrorKind::Other);
        let error = blobs.put(FIRST).unwrap_err();
        assert!(matches!(error, BlobError::Io { .. }), "{wanted:?}: {error}");
        assert!(matches!(told.lock().unwrap().last(), Some(Progress::Failed(_))), "{wanted:?}");
        let after = storage.operations().len();
        assert_eq!(blobs.put(SECOND), Err(BlobError::Ended));
        assert_eq!(blobs.remove(BlobDigest::of(FIRST)), Err(BlobError::Ended));
        assert_eq!(storage.operations().len(), after);
    }
}

#[test]
fn damaged_blob_is_named_and_mended_by_putting_it_again() {
    let storage = SimStorage::new(PAGE);
    let (_journal, blobs, _) = started(&storage);
    let digest = blobs.put(FIRST).unwrap();
    let whole = storage.bytes(&file(FIRST)).unwrap();
    let mut flipped = whole.clone();
    flipped[77] ^= 1;
    for damaged in [flipped, whole[..299].to_vec(), Vec::new()] {
        storage.set_bytes(&file(FIRST), damaged);
        let error = blobs.get(digest).unwrap_err();
        let expected = BlobError::Damaged { digest, file: format!("sim/{}", file(FIRST)) };
        assert_eq!(error, expected, "{error}");
        blobs.put(FIRST).unwrap();
        assert_eq!(blobs.get(digest), Ok(Some(Bytes::from_static(FIRST))));
    }
}

#[test]
fn blobs_are_listed_and_removed() {
    let storage = SimStorage::new(PAGE);
    let (journal, blobs, _) = started(&storage);
    assert_eq!(blobs.list(), Ok(vec![]));
    let empty = blobs.put(b"").unwrap();
    let second = blobs.put(SECOND).unwrap();
    // What is not named as a blob is left alone, and is none.
    for other in ["blobs/notes.txt", &file(FIRST).to_uppercase().replace("BLOBS", "blobs")] {
        storage.set_bytes(other, b"not ours".to_vec());
    }
    let mut expected = vec![(empty, 0), (second, SECOND.len() as u64)];
    expected.sort_unstable();
    let listed = |blobs: &Blobs| {
        let blobs = blobs.list().unwrap();
        blobs.iter().map(|blob| (blob.digest, blob.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(listed(&blobs), expected);
    let times = blobs.list().unwrap();
    let time = |digest| times.iter().find(|blob| blob.digest == digest).unwrap().modified;
    assert!(time(empty) < time(second));
    blobs.remove(empty).unwrap();
    blobs.remove(empty).expect("gone is gone");
    assert_eq!(listed(&blobs), [(second, SECOND.len() as u64)]);
    assert_eq!(blobs.get(empty), Ok(None));
    drop(journal);
    assert_eq!(blobs.get(second), Err(BlobError::Ended), "a handle does not keep the directory");
    let (_journal, blobs, _) = started(&storage);
    assert_eq!(listed(&blobs), [(second, SECOND.len() as u64)], "a start leaves them alone");
}

#[test]
fn blobs_on_a_real_disk_are_for_this_user_alone() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let storage: Arc<dyn Storage> = Arc::new(DiskStorage::new(directory.path()).unwrap());
        open(storage, small()).unwrap().start(|_| {}).unwrap()
    };
    let journal = start();
    let blobs = journal.blobs();
    assert_eq!(blobs.list(), Ok(vec![]));
    let digest = blobs.put(FIRST).unwrap();
    assert_eq!(blobs.put(FIRST), Ok(digest));
    let path = directory.path().join(file(FIRST));
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&directory.path().join("blobs")), 0o700);
    let unfinished = path.with_extension("tmp");
    std::fs::write(&unfinished, b"half").unwrap();
    Box::new(journal).close();
    let journal = start();
    let blobs = journal.blobs();
    assert!(!unfinished.exists());
    assert_eq!(blobs.get(digest), Ok(Some(Bytes::from_static(FIRST))));
    let listed = blobs.list().unwrap();
    assert_eq!(listed.iter().map(|blob| (blob.digest, blob.bytes)).collect::<Vec<_>>(), [(digest, 300)]);
    assert!(listed[0].modified.elapsed().is_ok());
    std::fs::write(&path, b"something else").unwrap();
    let error = blobs.get(digest).unwrap_err().to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    blobs.remove(digest).unwrap();
    assert!(!path.exists());
}
