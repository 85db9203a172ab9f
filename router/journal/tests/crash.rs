//! Power cuts at every operation of a scripted history, with every choice of what the disk kept: what was told as synced is
//! there, nothing is invented, and what is behind it is a prefix. The checker itself must catch planted bugs.

mod common;

use chaski_journal::sim::{Lies, SimStorage};
use common::recover;
use common::script::{Act, EXHAUSTIVE, History, PAGE, SAMPLED, SCRIPT, check, copy, options, outcomes, run};

#[test]
fn script_reaches_rotation_snapshots_recycling_and_holes() {
    let storage = SimStorage::new(PAGE);
    let history = run(&storage);
    let appended: u64 = SCRIPT
        .iter()
        .map(|act| match act {
            Act::Append(records, _) => *records,
            Act::AppendTwo => 2,
            _ => 0,
        })
        .sum();
    assert_eq!(history.appended, appended, "it ran to its end");
    assert!(history.synced < appended, "it ends with something to lose");
    assert!(history.trimmed > 10, "{history:?}");
    let names = storage.files();
    let count = |kind: &str| names.iter().filter(|name| name.ends_with(kind)).count();
    assert_eq!(count(".snapshot"), 2, "{names:?}");
    assert!(!names.contains(&"00000000000000000001.seg".to_owned()), "the first is trimmed: {names:?}");
    assert!(count(".seg") >= 3, "{names:?}");
    let most = |at| {
        let storage = SimStorage::new(PAGE);
        storage.die_at(at);
        run(&storage);
        storage.unsynced().len()
    };
    let choices: Vec<_> = (0..storage.operations().len()).map(most).collect();
    assert!(choices.iter().any(|count| (5..=EXHAUSTIVE).contains(count)), "{choices:?}");
}

/// Every crash of the script with these lies; the first thing that is wrong.
fn crash_everywhere(lies: Lies) -> Result<usize, String> {
    let whole = SimStorage::new(PAGE);
    run(&whole);
    let operations = whole.operations();
    let mut checked = 0;
    for at in 0..=operations.len() {
        let storage = SimStorage::new(PAGE);
        storage.set_lies(lies);
        storage.die_at(at);
        let history = run(&storage);
        for (choice, disk) in outcomes(&storage, SAMPLED) {
            check(&disk, &history).map_err(|wrong| {
                format!("crash before operation {at} ({:?}), choice {choice}: {wrong}", operations.get(at))
            })?;
            checked += 1;
        }
    }
    Ok(checked)
}

#[test]
fn every_crash_keeps_what_was_synced_and_invents_nothing() {
    let checked = crash_everywhere(Lies::default()).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(checked > 1000, "only {checked} crashes were tried");
}

#[test]
fn every_crash_during_recovery_keeps_what_was_synced() {
    let whole = SimStorage::new(PAGE);
    run(&whole);
    let operations = whole.operations().len();
    for at in (0..=operations).step_by(3) {
        let storage = SimStorage::new(PAGE);
        storage.die_at(at);
        let history = run(&storage);
        for pattern in [0, u64::MAX, 0x5555_5555_5555_5555] {
            let mut bits: u64 = pattern;
            let crashed = storage.crash(|_| {
                bits = bits.rotate_right(1);
                bits & 1 == 1
            });
            crash_recovery(&crashed, &history)
                .unwrap_or_else(|wrong| panic!("crash {at}, {pattern:x}: {wrong}"));
        }
    }
}

/// Crashes at each operation of one recovery.
fn crash_recovery(crashed: &SimStorage, history: &History) -> Result<(), String> {
    let whole = copy(crashed);
    drop(recover(&whole, options()).map_err(|error| error.to_string())?);
    for at in 0..=whole.operations().len() {
        let storage = copy(crashed);
        storage.die_at(at);
        let mut history = history.clone();
        if let Ok((_, records, _)) = recover(&storage, options()) {
            // Once it has started, all that it found is durable.
            history.synced = records.len() as u64;
        }
        for (choice, disk) in outcomes(&storage, 16) {
            check(&disk, &history)
                .map_err(|wrong| format!("recovery's operation {at}, choice {choice}: {wrong}"))?;
        }
    }
    Ok(())
}

#[test]
fn checker_catches_a_file_sync_that_does_nothing() {
    let wrong = crash_everywhere(Lies { sync: true, sync_dir: false }).expect_err("a planted bug");
    assert!(wrong.contains("crash before operation"), "{wrong}");
}

#[test]
fn checker_catches_a_directory_sync_that_does_nothing() {
    let wrong = crash_everywhere(Lies { sync: false, sync_dir: true }).expect_err("a planted bug");
    assert!(wrong.contains("lost"), "{wrong}");
}

#[test]
fn process_killed_at_every_operation_leaves_what_was_written_and_its_recovery_makes_it_durable() {
    let whole = SimStorage::new(PAGE);
    run(&whole);
    let operations = whole.operations();
    for at in 0..=operations.len() {
        let storage = SimStorage::new(PAGE);
        storage.die_at(at);
        let mut history = run(&storage);
        // The operating system lives on: nothing is lost, and nothing is more durable than before.
        let next = storage.killed();
        let wrong = |wrong| format!("killed before operation {at} ({:?}): {wrong}", operations.get(at));
        let (journal, records, _) =
            recover(&next, options()).unwrap_or_else(|error| panic!("{}", wrong(error.to_string())));
        drop(journal);
        let found = records.len() as u64;
        assert!(found >= history.written, "{}", wrong(format!("{found} of {} records", history.written)));
        history.synced = found;
        for (choice, disk) in outcomes(&next, SAMPLED) {
            check(&disk, &history)
                .unwrap_or_else(|error| panic!("{}", wrong(format!("choice {choice}: {error}"))));
        }
    }
}
