//! The data directory: locked, read-only, damaged, or from the future.

use std::path::{Path, PathBuf};

use chaski_it::{Router, Setup, eventually, run};

/// Ten messages, each confirmed before the next: so all but the last are surely before the last known sync.
fn filled() -> Setup {
    let router = Router::with_rules("[queue.q]\n");
    for n in 0..10 {
        router.cli(&["publish", "q", &format!("needle-{n}")]).ok();
    }
    router.kill()
}

/// The segments, oldest first.
fn segments(data: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(data).expect("the data directory is there");
    let mut segments: Vec<PathBuf> = files.map(|file| file.expect("it can be listed").path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    assert!(!segments.is_empty());
    segments
}

/// Flips a bit of the first occurrence of `needle`; answers the file.
fn flip(data: &Path, needle: &[u8]) -> PathBuf {
    for path in segments(data) {
        let mut bytes = std::fs::read(&path).expect("it can be read");
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).expect("it can be written");
            return path;
        }
    }
    panic!("{} is in no segment", String::from_utf8_lossy(needle));
}

#[test]
fn a_second_router_on_the_same_data_is_refused_with_the_first_ones_process() {
    let router = Router::start();
    let second = Setup::default().data(router.setup().data_directory());
    let output = second.try_start().expect_err("the directory is in use").refused("data_locked");
    assert!(output.error().contains(&router.pid().to_string()), "{}", output.error());
    assert!(output.error().contains(router.setup().data_directory().to_str().expect("a plain path")));
    router.cli(&["status"]).ok();
}

#[test]
fn a_killed_routers_lock_holds_nobody_up() {
    let router = Router::start().crash();
    router.cli(&["status"]).ok();
}

#[test]
fn a_read_only_data_directory_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let setup = filled();
    let data = setup.data_directory().to_owned();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o555)).expect("it is ours");
    for file in std::fs::read_dir(&data).expect("it is ours") {
        let path = file.expect("it can be listed").path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444)).expect("it is ours");
    }
    let output =
        setup.clone().unprivileged().try_start().expect_err("it can't write").refused("data_read_only");
    assert!(output.error().contains(data.to_str().expect("a plain path")), "{}", output.error());
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[test]
fn damage_before_the_last_sync_refuses_the_start_and_repair_tells_what_is_lost() {
    let setup = filled();
    let data = setup.data_directory().to_owned();
    let damaged = flip(&data, b"needle-4");
    let before = std::fs::read(&damaged).expect("it can be read");
    let output = setup.clone().try_start().expect_err("it must not start").refused("journal_corrupt");
    let file = damaged.file_name().and_then(|name| name.to_str()).expect("a plain name");
    assert!(output.error().contains(file), "the segment is named: {}", output.error());
    assert!(output.error().contains("offset"), "the place is named: {}", output.error());
    assert!(output.error().contains("chaski repair"), "the way out is named: {}", output.error());
    assert_eq!(std::fs::read(&damaged).expect("it can be read"), before, "nothing was changed");

    // It only tells, until it is told to apply.
    let path = data.to_str().expect("a plain path");
    let report = run(setup.command(&["repair", "--data", path]), b"").ok();
    assert!(report.stdout.contains(file), "{}", report.stdout);
    setup.clone().try_start().expect_err("nothing was changed").refused("journal_corrupt");

    run(setup.command(&["repair", "--data", path, "--apply"]), b"").ok();
    let router = setup.start();
    let left: Vec<String> = router
        .all(&["consume", "q", "--peek"])
        .iter()
        .map(|message| message["payload"].as_str().expect("text").to_owned())
        .collect();
    let expected: Vec<String> = (0..4).map(|n| format!("needle-{n}")).collect();
    assert_eq!(left, expected, "the log ends before the damage");
    // What was cut is set aside, not deleted.
    let aside = walk(&data).into_iter().any(|path| {
        std::fs::read(&path).is_ok_and(|bytes| bytes.windows(8).any(|window| window == b"needle-7"))
    });
    assert!(aside, "{:?}", walk(&data));
    router.cli(&["publish", "q", "more"]).ok();
}

#[test]
fn repair_of_a_sound_journal_says_so() {
    let setup = filled();
    let path = setup.data_directory().to_str().expect("a plain path").to_owned();
    run(setup.command(&["repair", "--data", &path]), b"").ok();
    let router = setup.start();
    assert_eq!(router.count("q", "ready"), 10);
    let output = run(router.command(&["repair", "--data", &path]), b"");
    output.refused("data_locked");
}

#[test]
fn a_torn_tail_is_cut_and_everything_confirmed_is_there() {
    let setup = filled();
    // Garbage behind the last batch, as an append that a power cut tore.
    let last = segments(setup.data_directory()).pop().expect("there is one");
    let bytes = std::fs::read(&last).expect("it can be read");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("it holds batches") + 1;
    let mut torn = bytes.clone();
    let end = (used + 300).min(torn.len());
    torn[used..end].fill(0xa5);
    std::fs::write(&last, torn).expect("it can be written");
    let router = setup.start();
    assert_eq!(router.count("q", "ready"), 10);
}

#[test]
fn a_newer_format_is_refused() {
    let setup = filled();
    let first = segments(setup.data_directory()).remove(0);
    let mut bytes = std::fs::read(&first).expect("it can be read");
    // FORMAT.md: the version at 8, the header's checksum at 124.
    bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..124]);
    bytes[124..128].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&first, bytes).expect("it can be written");
    let output = setup.try_start().expect_err("it must not start").refused("format_newer");
    assert!(output.error().contains('2'), "{}", output.error());
}

#[test]
fn a_backlog_over_several_segments_survives_a_crash() {
    let router = Setup::default().rules("[queue.q]\n").arg("--segment-size=1MiB").start();
    let line = "x".repeat(1000);
    let half_a_segment: String = (0..500).map(|_| format!("{line}\n")).collect();
    // Each command ends confirmed, so no batch is larger than half a segment, however slow the disk is.
    for _ in 0..8 {
        router.cli_with(&["publish", "q", "--lines"], half_a_segment.as_bytes()).ok();
    }
    assert!(segments(router.setup().data_directory()).len() >= 4);
    let router = router.crash();
    assert_eq!(router.count("q", "ready"), 4000);
    let all = router.cli(&["consume", "q", "--count", "4000"]).ok();
    assert_eq!(all.stdout.matches(&line).count(), 4000);
}

/// Whether the journal's first segment is gone, and two snapshots stand.
fn trimmed(data: &Path) -> bool {
    let snapshots = walk(data).into_iter().filter(|path| path.extension().is_some_and(|e| e == "snapshot"));
    let first = segments(data).remove(0);
    snapshots.count() == 2 && !first.ends_with("00000000000000000001.seg")
}

#[test]
fn old_segments_go_and_what_still_lives_in_them_moves_and_survives_a_crash() {
    let setup = Setup::default().rules("[queue.q]\n[queue.keep]\n");
    let router = setup.arg("--segment-size=1MiB").arg("--snapshot-after=2MiB").start();
    let data = router.setup().data_directory().to_owned();
    let kept = format!("kept {}", "k".repeat(500));
    for n in 0..10 {
        router.cli(&["publish", "keep", &kept, "--id", &format!("kept-{n}")]).ok();
    }
    let lines: String = (0..1500).map(|_| format!("{}\n", "x".repeat(1000))).collect();
    let mut rounds = 0;
    while !trimmed(&data) {
        rounds += 1;
        assert!(rounds < 60, "nothing was trimmed: {:?}", walk(&data));
        router.cli_with(&["publish", "q", "--lines"], lines.as_bytes()).ok();
        router.cli(&["consume", "q", "--count", "1500"]).ok();
    }
    let router = router.crash();
    assert_eq!((router.count("keep", "ready"), router.count("q", "messages")), (10, 0));
    let left = router.all(&["consume", "keep", "--count", "10"]);
    for (n, message) in left.iter().enumerate() {
        assert_eq!(
            (&message["id"], &message["payload"]),
            (&format!("kept-{n}").into(), &kept.as_str().into())
        );
    }
    let again = router.one(&["publish", "keep", &kept, "--id", "kept-3"]);
    assert_eq!(again["duplicate"], true, "the dedup window is in the snapshot too");
}

#[test]
fn a_low_disk_refuses_publishes_and_consumers_go_on() {
    let setup = filled().arg("--low-disk=1000TiB");
    let router = setup.start();
    let output = chaski_it::run(router.command(&["publish", "q", "x", "--id", "1"]), b"");
    output.refused("disk_low");
    let status = router.cli(&["status", "--json"]).refused("disk_low").one();
    assert_eq!(status["alarms"][0]["alarm"], "disk_low");
    router.cli(&["consume", "q", "--count", "10"]).ok();
    assert_eq!(router.count("q", "messages"), 0);
}

#[test]
fn a_full_disk_refuses_loses_nothing_and_goes_on_when_there_is_room() {
    let Some(setup) = Setup::default().small_disk() else {
        eprintln!("not tested here: this system lets no test mount a small disk");
        return;
    };
    let router = setup.rules("[queue.q]\n").arg("--segment-size=32MiB").arg("--low-disk=1B").start();
    let lines: String = (0..100_000).map(|n| format!("{n} {}\n", "x".repeat(1000))).collect();
    let output =
        router.cli_with(&["publish", "q", "--lines", "--json"], lines.as_bytes()).refused("disk_full");
    let confirmed = output.stdout.lines().count() as u64;
    assert!(confirmed > 100, "{confirmed}");
    assert_eq!(router.count("q", "messages"), confirmed, "what was refused is not stored");
    let (status, why) = router.http("/readyz");
    assert!(status == 503 && why.contains("disk_full"), "{status} {why}");

    router.make_room();
    eventually("the router has seen the room", || (router.http("/readyz").0 == 200).then_some(()));
    router.cli(&["publish", "q", "after"]).ok();
    let all = router.all(&["consume", "q", "--count", &(confirmed + 1).to_string()]);
    for (n, message) in all.iter().take(confirmed as usize).enumerate() {
        assert!(message["payload"].as_str().is_some_and(|payload| payload.starts_with(&format!("{n} x"))));
    }
    assert_eq!((&all[confirmed as usize]["payload"], router.count("q", "messages")), (&"after".into(), 0));
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory).expect("it can be listed") {
        let path = file.expect("it can be listed").path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}
