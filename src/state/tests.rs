use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use super::directory::{Directory, OpenError};
use super::file::{Fault, Kind, read, set_aside, sweep, write};
use super::keeper::{Keeper, Pace, Restored};
use super::verdicts::{Ramp, Remembered, Saved, check_digest};
use crate::config::settings::{Check, CheckKind};
use crate::health::{Target, Verdict};
use crate::journal::{self, Note};
use crate::orders::{Action, Book, Draft, Facts, Subject, guard};
use crate::world::Belief;

const NO_PATIENCE: Duration = Duration::ZERO;

fn start(directory: &Path) -> (Keeper, Restored) {
    Keeper::start_within(directory, NO_PATIENCE)
}

fn names(directory: &Path) -> HashSet<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn asides(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = names(directory).into_iter().filter(|name| name.contains(".corrupt-")).collect();
    names.sort();
    names
}

fn note(cause: &str) -> Note {
    Note::new(journal::Kind::Reloaded, cause)
}

fn causes(restored: &Restored) -> Vec<String> {
    restored.journal.since(0, usize::MAX).iter().map(|entry| entry.note.cause.clone()).collect()
}

fn saved(last: u8, up: bool) -> Saved {
    let since = Timestamp::from_second(1_772_359_200).unwrap();
    let address = ([192, 0, 2, last], 443).into();
    Saved { address, check: "00".into(), up, cause: "status 503".into(), since, damped: None, soft: false }
}

fn remembered(last: u8) -> Remembered {
    let ramp = Ramp {
        zone: "stream.example".into(),
        region: "eu-west".into(),
        progress_s: 12.5,
        of_s: 300.0,
        left: None,
        alone: false,
    };
    Remembered { verdicts: (0..=last).map(|n| saved(n, n % 2 == 0)).collect(), ramps: vec![ramp] }
}

/// A book with as many drains as given.
fn book(orders: u64) -> Book {
    let servers = vec![guard::ServerFacts { addresses: vec![("192.0.2.1".parse().unwrap(), true)] }];
    let region = |n| guard::RegionFacts { name: format!("r{n}").into(), min_up: None, servers: servers.clone() };
    let regions = (0..=orders).map(region).collect();
    let zone = guard::ZoneFacts { name: "stream.example".into(), min_regions: 1, regions, streams: vec![] };
    let (facts, mut book) = (Facts { zones: vec![zone] }, Book::default());
    for n in 0..orders {
        let draft = Draft {
            subject: Subject::Region(format!("r{n}").into()),
            zone: None,
            action: Action::Drain { over: Duration::from_secs(120) },
            from: None,
            lasting: None,
            reason: "kernel update".into(),
            author: "ann".into(),
            anyway: false,
        };
        book.give(draft, &facts, Timestamp::from_second(1_772_359_200).unwrap()).expect("a region is left");
    }
    book
}

fn fault(directory: &Path, kind: Kind) -> Fault {
    read::<Book>(directory, kind).expect_err("a fault")
}

/// Bytes of a good `orders.json`.
fn good() -> Vec<u8> {
    let directory = tempdir().unwrap();
    write(directory.path(), Kind::Orders, &book(2)).unwrap();
    fs::read(directory.path().join("orders.json")).unwrap()
}

/// A directory whose `orders.json` holds these bytes.
fn holding(bytes: &[u8]) -> TempDir {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("orders.json"), bytes).unwrap();
    directory
}

#[test]
fn what_is_written_is_read() {
    let directory = tempdir().unwrap();
    assert_eq!(read::<Book>(directory.path(), Kind::Orders).unwrap(), None);
    for orders in [3, 0, 1] {
        write(directory.path(), Kind::Orders, &book(orders)).unwrap();
        assert_eq!(read::<Book>(directory.path(), Kind::Orders).unwrap(), Some(book(orders)));
    }
    assert_eq!(names(directory.path()), ["orders.json".to_owned()].into(), "nothing is left beside it");
    let text = fs::read_to_string(directory.path().join("orders.json")).unwrap();
    assert!(text.starts_with("meridian-state 1 orders "), "{text}");
}

#[test]
fn a_file_cut_short_anywhere_is_set_aside() {
    let good = good();
    for cut in 0..good.len() {
        let directory = holding(&good[..cut]);
        let fault = fault(directory.path(), Kind::Orders);
        assert!(!directory.path().join("orders.json").exists());
        assert_eq!(fs::read(fault.aside.unwrap()).unwrap(), good[..cut], "cut at {cut}");
    }
}

#[test]
fn every_kind_of_damage_is_told() {
    let good = String::from_utf8(good()).unwrap();
    let cases = [
        (String::new(), "not a state file"),
        ("PNG".to_owned(), "not a state file"),
        ("{}".to_owned(), "not a state file"),
        ("meridian-state".to_owned(), "cut short"),
        ("meridian-state\n".to_owned(), "first line"),
        (good.replacen(" 1 ", " 2 ", 1), "version 2"),
        (good.replacen("orders", "verdicts", 1), "it holds verdicts, not orders"),
        (good.replacen("kernel", "colonel", 1), "checksum"),
        (good.clone() + "\n", "checksum"),
        (good.replacen('\n', " more\n", 1), "first line"),
    ];
    for (text, told) in cases {
        let directory = holding(text.as_bytes());
        let fault = fault(directory.path(), Kind::Orders).to_string();
        let aside = directory.path().join("orders.json.corrupt-").display().to_string();
        assert!(fault.contains(told) && fault.contains(&aside), "{fault:?} should say {told:?} and {aside}");
    }
}

#[test]
fn content_of_another_form_is_set_aside_though_its_checksum_fits() {
    let directory = tempdir().unwrap();
    write(directory.path(), Kind::Orders, &["not", "a", "book"]).unwrap();
    assert!(fault(directory.path(), Kind::Orders).aside.is_ok());
}

#[test]
fn what_is_no_regular_file_is_set_aside_and_never_waited_for() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("orders.json");
    fs::create_dir(&file).unwrap();
    fs::write(file.join("kept"), "x").unwrap();
    assert!(fault(directory.path(), Kind::Orders).aside.unwrap().join("kept").exists());

    let status = Command::new("mkfifo").arg(&file).status().expect("mkfifo of coreutils");
    assert!(status.success());
    assert!(fault(directory.path(), Kind::Orders).to_string().contains("no regular file"));

    symlink("/dev/zero", &file).unwrap();
    assert!(fault(directory.path(), Kind::Orders).to_string().contains("no regular file"));
    write(directory.path(), Kind::Orders, &book(1)).unwrap();
    assert_eq!(read::<Book>(directory.path(), Kind::Orders).unwrap(), Some(book(1)));
}

#[test]
fn a_file_far_too_long_is_not_read() {
    let directory = holding(b"");
    let file = fs::File::options().write(true).open(directory.path().join("orders.json")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(fault(directory.path(), Kind::Orders).to_string().contains("longer than 64 MiB"));
}

#[test]
fn few_files_set_aside_are_kept_and_the_oldest_goes_first() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("orders.json");
    let at = |second| UNIX_EPOCH + Duration::from_secs(second);
    for (content, second) in [("a", 100), ("b", 100), ("c", 99), ("d", 1000)] {
        fs::write(&file, content).unwrap();
        set_aside(&file, at(second)).unwrap();
    }
    fs::write(directory.path().join("verdicts.json.corrupt-1"), "of another name").unwrap();
    let left = ["orders.json.corrupt-100", "orders.json.corrupt-1000", "orders.json.corrupt-101"];
    assert_eq!(asides(directory.path())[..3], left);
    assert_eq!(fs::read_to_string(directory.path().join("orders.json.corrupt-101")).unwrap(), "b");
    assert_eq!(asides(directory.path()).len(), 4);
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_beside_it() {
    let directory = tempdir().unwrap();
    write(directory.path(), Kind::Orders, &book(1)).unwrap();
    // A number that JSON cannot say as a key.
    let unwritable = std::collections::BTreeMap::from([(vec![1], 1)]);
    let error = write(directory.path(), Kind::Orders, &unwritable).unwrap_err();
    assert!(error.to_string().contains("orders.json"), "{error}");
    assert_eq!(read::<Book>(directory.path(), Kind::Orders).unwrap(), Some(book(1)));
    assert_eq!(names(directory.path()).len(), 1);
    let in_the_way = directory.path().join("verdicts.json");
    fs::create_dir_all(in_the_way.join("x")).unwrap();
    assert!(write(directory.path(), Kind::Verdicts, &remembered(1)).is_err());
    assert_eq!(names(directory.path()).len(), 2);
    assert!(write(&directory.path().join("gone"), Kind::Orders, &book(1)).is_err());
}

#[test]
fn what_killed_writers_left_is_swept() {
    let directory = tempdir().unwrap();
    for name in ["orders.json.new-77", "serials.json.new", "orders.json", "orders.json.corrupt-7", "mine.new-7"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    sweep(directory.path());
    let left = ["orders.json", "orders.json.corrupt-7", "mine.new-7"].map(str::to_owned);
    assert_eq!(names(directory.path()), left.into());
}

proptest! {
    #[test]
    fn no_flipped_bit_is_taken_for_truth(position in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = good();
        let position = position.index(bytes.len());
        bytes[position] ^= 1 << bit;
        let directory = holding(&bytes);
        prop_assert!(read::<Book>(directory.path(), Kind::Orders).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let directory = holding(&bytes);
        prop_assert!(read::<Book>(directory.path(), Kind::Orders).is_err());
        let with_our_word = holding(&[b"meridian-state 1 ".as_slice(), &bytes].concat());
        prop_assert!(read::<Book>(with_our_word.path(), Kind::Orders).is_err());
    }
}

#[test]
fn a_directory_is_for_one_node_until_it_ends() {
    let parent = tempdir().unwrap();
    let path = parent.path().join("var/state");
    let first = Directory::open(&path, NO_PATIENCE).expect("made with its parents");
    let Err(error) = Directory::open(&path, NO_PATIENCE) else { panic!("it is locked") };
    let text = error.to_string();
    let us = std::process::id();
    assert!(matches!(error, OpenError::InUse { process: Some(process), .. } if process == us), "{text}");
    assert!(text.contains(&format!("in use by process {us}; give each node its own (--state DIR)")), "{text}");
    drop(first);
    Directory::open(&path, NO_PATIENCE).expect("it was let go of");
}

#[test]
fn a_successor_waits_for_its_predecessor() {
    let directory = tempdir().unwrap();
    let first = Directory::open(directory.path(), NO_PATIENCE).unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| Directory::open(directory.path(), Duration::from_secs(30)));
        std::thread::sleep(Duration::from_millis(50));
        drop(first);
        second.join().unwrap().expect("it was let go of in time");
    });
}

#[test]
fn a_place_that_cannot_be_a_state_directory_is_an_error() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    fs::create_dir_all(directory.path().join("other/lock")).unwrap();
    for path in [file, directory.path().join("other")] {
        let Err(error) = Directory::open(&path, NO_PATIENCE) else { panic!("{}", path.display()) };
        assert!(error.to_string().contains("cannot be used"), "{error}");
    }
}

#[test]
fn a_node_finds_what_it_left() {
    let directory = tempdir().unwrap();
    let (keeper, first) = start(directory.path());
    assert_eq!(first.orders, Book::default());
    assert_eq!((first.verdicts.len(), first.ramps.len(), causes(&first).len()), (0, 0, 0));
    keeper.save_orders(&book(2)).unwrap();
    keeper.save_verdicts(Arc::new(remembered(1)));
    keeper.save_verdicts(Arc::new(remembered(4)));
    for cause in ["one", "two"] {
        first.journal.note(Timestamp::now(), note(cause));
    }
    drop(keeper);
    let (keeper, second) = start(directory.path());
    assert_eq!(second.orders, book(2));
    assert_eq!(Remembered { verdicts: second.verdicts.clone(), ramps: second.ramps.clone() }, remembered(4));
    assert_eq!(causes(&second), ["one", "two"]);
    assert_eq!(second.journal.note(Timestamp::now(), note("three")), 3);
    assert_eq!(keeper.unwritten(), 0);
}

#[test]
fn damaged_files_cost_their_content_and_raise_an_alarm() {
    let directory = tempdir().unwrap();
    drop(start(directory.path()));
    fs::write(directory.path().join("orders.json"), "}").unwrap();
    fs::create_dir(directory.path().join("verdicts.json")).unwrap();
    fs::write(directory.path().join("events.jsonl"), "noise\n").unwrap();
    let (keeper, restored) = start(directory.path());
    assert_eq!((restored.orders.clone(), restored.verdicts.len()), (Book::default(), 0));
    let told = restored.journal.since(0, 10);
    assert!(told.iter().all(|entry| entry.note.kind == journal::Kind::Alarm));
    assert!(matches!(&causes(&restored)[..], [a, b] if a.contains("orders.json") && b.contains("verdicts.json")));
    assert_eq!(asides(directory.path()).len(), 3);
    keeper.save_orders(&book(1)).expect("the place is free again");
    drop(keeper);
    assert_eq!(start(directory.path()).1.orders, book(1));
}

#[test]
fn a_second_node_on_one_directory_keeps_its_state_in_memory() {
    let directory = tempdir().unwrap();
    let (first, _) = start(directory.path());
    first.save_orders(&book(1)).unwrap();
    let (second, restored) = start(directory.path());
    assert_eq!(second.directory(), None);
    assert!(second.not_kept().unwrap().contains("in use by process"));
    assert_eq!(first.not_kept(), None);
    assert!(causes(&restored)[0].contains("in use by process"));
    assert_eq!(restored.orders, Book::default(), "what the other does is not its own");
    second.save_orders(&book(2)).expect("there is nothing to do");
    second.save_verdicts(Arc::new(remembered(1)));
    restored.journal.note(Timestamp::now(), note("only in memory"));
    drop((first, second));
    let (_, restored) = start(directory.path());
    assert_eq!((restored.orders.clone(), causes(&restored).len()), (book(1), 0));
}

#[test]
fn orders_that_cannot_be_kept_are_an_error() {
    let parent = tempdir().unwrap();
    let path = parent.path().join("state");
    let (keeper, _) = start(&path);
    fs::remove_dir_all(&path).unwrap();
    assert!(keeper.save_orders(&book(1)).unwrap_err().to_string().contains("orders.json"));
}

#[test]
fn what_cannot_be_written_is_counted_and_writing_recovers() {
    let parent = tempdir().unwrap();
    let path = parent.path().join("state");
    let (keeper, restored) = start(&path);
    fs::remove_dir_all(&path).unwrap();
    restored.journal.note(Timestamp::now(), note("lost"));
    keeper.save_verdicts(Arc::new(remembered(3)));
    eventually(|| keeper.unwritten() == 1);
    fs::create_dir(&path).unwrap();
    restored.journal.note(Timestamp::now(), note("kept"));
    eventually(|| fs::read_to_string(path.join("events.jsonl")).is_ok_and(|text| text.contains("kept")));
    assert_eq!(causes(&restored), ["lost", "kept"], "memory has both");
    eventually(|| path.join("verdicts.json").exists());
    assert_eq!(read::<Remembered>(&path, Kind::Verdicts).unwrap(), Some(remembered(3)), "they were tried again");
    drop(keeper);
    let (keeper, restored) = start(&path);
    assert_eq!((causes(&restored), keeper.unwritten()), (vec!["kept".to_owned()], 0));
    assert_eq!(restored.journal.note(Timestamp::now(), note("new")), 3);
}

#[test]
fn verdicts_are_written_at_once_and_then_at_most_every_100_ms() {
    let begin = Instant::now();
    let after = |ms| begin + Duration::from_millis(ms);
    let mut pace = Pace::default();
    assert_eq!(pace.wait(begin), Duration::ZERO);
    pace.wrote(after(5), true);
    assert_eq!(pace.wait(after(5)), Duration::from_millis(100));
    assert_eq!(pace.wait(after(80)), Duration::from_millis(25));
    assert_eq!(pace.wait(after(105)), Duration::ZERO);
    pace.wrote(after(200), false);
    assert_eq!(pace.wait(after(200)), Duration::from_secs(1), "a disk that fails is left alone for a while");
}

#[test]
fn the_last_verdicts_stand_without_an_end_of_the_node() {
    let directory = tempdir().unwrap();
    let (keeper, _) = start(directory.path());
    for last in 0..50 {
        keeper.save_verdicts(Arc::new(remembered(last)));
    }
    eventually(|| {
        // Read as another program would: nothing is set aside while it is being replaced.
        read::<Remembered>(directory.path(), Kind::Verdicts).expect("never half") == Some(remembered(49))
    });
    drop(keeper);
}

#[test]
fn a_belief_comes_back_stale() {
    let check = Check {
        kind: CheckKind::Tcp,
        every: Duration::from_millis(500),
        timeout: Duration::from_millis(250),
        adaptive: false,
        fall: 3,
        rise: 10,
        port: 1935,
        heartbeat: None,
        load: Default::default(),
    };
    let target = Target { address: ([192, 0, 2, 11], 1935).into(), check: Arc::new(check.clone()), beats_of: None };
    let since = UNIX_EPOCH + Duration::from_millis(1_772_359_200_250);
    let belief =
        Belief { damped: Some(since + Duration::from_secs(60)), ..Belief::new(Verdict::Down, "refused".into(), since) };
    let saved = Saved::of(&target, &belief).expect("something is known");
    let again: Saved = serde_json::from_str(&serde_json::to_string(&saved).unwrap()).unwrap();
    let now = Timestamp::try_from(since).unwrap();
    assert_eq!(again.belief(now), Belief { stale: true, ..belief });
    assert_eq!(again.check, check_digest(&check));
    assert_ne!(again.check, check_digest(&Check { fall: 4, ..check.clone() }), "another check is another target");
    let unknown = Belief::new(Verdict::Unknown, "".into(), SystemTime::now());
    assert_eq!(Saved::of(&target, &unknown), None);
}

/// Set for the process that is killed: where it writes.
const VICTIM: &str = "MERIDIAN_TEST_STATE";

#[test]
#[ignore = "endless: run by killed_in_the_middle_of_writing_nothing_is_half, in a process of its own"]
fn writes_until_it_is_killed() {
    let directory = std::env::var_os(VICTIM).expect("told where to write");
    let (keeper, restored) = start(Path::new(&directory));
    for n in 0.. {
        let orders = n % 50;
        keeper.save_orders(&book(orders)).unwrap();
        keeper.save_verdicts(Arc::new(remembered((n % 200) as u8)));
        let id = restored.journal.note(Timestamp::now(), note(&"x".repeat((n % 400) as usize)));
        // What was told before stands.
        println!("orders {orders} id {id}");
    }
}

#[test]
fn killed_in_the_middle_of_writing_nothing_is_half() {
    let directory = tempdir().unwrap();
    let mut last = 0;
    for round in 0..12 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "state::tests::writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(VICTIM, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut told = lines.map_while(Result::ok).filter_map(|line| {
            let line = line.split_once("orders ")?.1.to_owned();
            let (orders, id) = line.split_once(" id ")?;
            Some((orders.parse::<u64>().ok()?, id.parse::<u64>().ok()?))
        });
        // Alive and writing; then killed at a moment that differs from round to round.
        let seen = told.nth(3).expect("it writes");
        std::thread::sleep(Duration::from_micros(1300 * round));
        victim.kill().unwrap();
        victim.wait().unwrap();
        let (orders, id) = told.last().unwrap_or(seen);

        let (keeper, restored) = start(directory.path());
        assert!(keeper.directory().is_some(), "the lock ended with its holder");
        let found = restored.orders.list().len() as u64;
        assert!(
            found == orders || found == (orders + 1) % 50,
            "orders are kept once they are taken: {orders}, {found}"
        );
        assert!(!restored.verdicts.is_empty());
        let entries = restored.journal.since(0, usize::MAX);
        assert!(entries.windows(2).all(|pair| pair[1].id == pair[0].id + 1), "no line is missing or torn");
        // The last ones may have been on their way to the thread that writes.
        let read = entries.last().map_or(0, |entry| entry.id);
        assert!(read > last && read + 50 > id, "{read} of {id}");
        last = read;
        assert_eq!(asides(directory.path()), [""; 0]);
        assert!(!names(directory.path()).iter().any(|name| name.contains(".new-")), "what was half-written is swept");
        drop(keeper);
    }
}

fn eventually(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_damped_verdict_comes_back_as_such_until_its_time_is_over() {
    let now = Timestamp::from_second(1_772_359_200).unwrap();
    let until = now + Duration::from_secs(70);
    let text = serde_json::to_string(&Saved { damped: Some(until), soft: true, ..saved(1, false) }).unwrap();
    let damped: Saved = serde_json::from_str(&text).unwrap();
    assert_eq!(damped.verdict(now), Verdict::Damped);
    assert_eq!(damped.damped_for(now), Some(Duration::from_secs(70)));
    assert_eq!(damped.belief(now).damped, Some(until.into()));
    assert_eq!((damped.verdict(until), damped.damped_for(until)), (Verdict::Up, None), "it had answered");
    let long_ago = now - Duration::from_secs(86_400);
    assert_eq!(damped.damped_for(long_ago), Some(Duration::from_secs(600)), "a clock set back makes it no longer");

    let hard = Saved { damped: Some(until), ..saved(1, false) };
    assert_eq!((hard.verdict(now), hard.verdict(until)), (Verdict::Down, Verdict::Down));
}
