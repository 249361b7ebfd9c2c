use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::tempdir;

use super::log::{Log, ROTATED, Tail};
use super::*;

fn note(cause: &str) -> Note {
    Note { region: Some("eu-west".into()), ..Note::new(Kind::RegionDown, cause) }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_772_359_200 + second).expect("a time of this century")
}

fn entry(id: u64) -> Arc<Entry> {
    Arc::new(Entry { id, at: at((id % 1000) as i64), note: note(&format!("number {id}")) })
}

fn entries(ids: impl IntoIterator<Item = u64>) -> Vec<Arc<Entry>> {
    ids.into_iter().map(entry).collect()
}

fn ids<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> Vec<u64> {
    entries.into_iter().map(|entry| entry.id).collect()
}

fn since(journal: &Journal, after: u64, limit: usize) -> Vec<u64> {
    journal.since(after, limit).iter().map(|entry| entry.id).collect()
}

fn append(log: &mut Log, ids: impl IntoIterator<Item = u64>) {
    let entries = entries(ids);
    let (written, outcome) = log.append(&entries);
    outcome.expect("the disk takes it");
    assert_eq!(written, entries.len());
}

/// A directory with a journal of these ids.
fn written(directory: &Path, ids: impl IntoIterator<Item = u64>) {
    append(&mut Log::open(directory).0, ids);
}

fn read_back(directory: &Path) -> Tail {
    Log::open(directory).1
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn entries_are_numbered_in_their_order() {
    let journal = Journal::in_memory();
    assert_eq!(journal.note(at(0), note("first")), 1);
    assert_eq!(journal.note(at(0), note("second")), 2);
    assert_eq!(since(&journal, 0, 10), [1, 2]);
    assert_eq!(since(&journal, 1, 10), [2]);
    assert_eq!(since(&journal, 2, 10), [0; 0]);
    assert_eq!(since(&journal, u64::MAX, 10), [0; 0]);
    assert_eq!(since(&journal, 0, 1), [2], "the newest of them");
    assert_eq!(since(&journal, 0, 0), [0; 0]);
}

#[test]
fn memory_holds_the_newest() {
    let journal = Journal::in_memory();
    for second in 0..KEPT as i64 + 5 {
        journal.note(at(second), note("again"));
    }
    let all = since(&journal, 0, usize::MAX);
    assert_eq!((all.len(), all[0], all[KEPT - 1]), (KEPT, 6, KEPT as u64 + 5));
}

#[test]
fn memory_is_bounded_in_bytes_too() {
    let journal = Journal::in_memory();
    let shares =
        (0..1000).map(|n| (format!("{n:0>60} of {}", "z".repeat(200)), (0.0, f64::from(n) / 1000.0))).collect();
    let large = Note { effect: Some(Effect { moved: 1.0, shares }), ..note("large") };
    for second in 0..2000 {
        journal.note(at(second), large.clone());
    }
    let all = journal.since(0, usize::MAX);
    assert!((100..1000).contains(&all.len()), "{}", all.len());
    assert_eq!(all.last().map(|entry| entry.id), Some(2000));
    let effect = all[0].note.effect.as_ref().expect("it had one");
    assert_eq!(effect.shares.len(), MOST_SHARES);
    assert!(effect.shares.keys().all(|name| &name[57..60] > "800"), "those that changed most");
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let journal = Journal::in_memory();
    journal.note(at(0), Note { author: Some("é".repeat(400)), ..note(&"x".repeat(501)) });
    let entry = &journal.since(0, 1)[0];
    let (cause, author) = (&entry.note.cause, entry.note.author.as_ref().unwrap());
    assert!(cause.len() <= LONGEST_TEXT && cause.ends_with("x…"), "{cause}");
    assert!(author.len() <= LONGEST_TEXT && author.ends_with("é…"), "{author}");
    journal.note(at(0), note(&"x".repeat(500)));
    assert_eq!(journal.since(0, 1)[0].note.cause.len(), 500);
}

#[tokio::test]
async fn followers_get_every_entry_and_are_told_what_they_missed() {
    let journal = Journal::in_memory();
    journal.note(at(0), note("before"));
    let mut follower = journal.subscribe();
    journal.note(at(1), note("after"));
    assert_eq!(follower.recv().await.unwrap().id, 2);
    for second in 0..BEHIND as i64 + 10 {
        journal.note(at(second), note("many"));
    }
    assert!(matches!(follower.recv().await, Err(broadcast::error::RecvError::Lagged(10))));
    assert_eq!(follower.recv().await.unwrap().id, 13);
}

#[test]
fn noting_from_many_threads_keeps_one_order_everywhere() {
    let sunk = Arc::new(Mutex::new(vec![]));
    let sink = Arc::clone(&sunk);
    let journal = Journal::after(vec![], 0, Some(Box::new(move |entry| sink.lock().unwrap().push(entry.id))));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).map(|second| journal.note(at(second), note("x"))).collect::<Vec<_>>());
        }
    });
    let expected: Vec<u64> = (1..=800).collect();
    assert_eq!(*sunk.lock().unwrap(), expected);
    assert_eq!(since(&journal, 0, 1000), expected);
}

#[test]
fn a_line_is_one_flat_object() {
    let entry = Entry {
        id: 7,
        at: at(0),
        note: Note {
            zone: Some("stream.example".into()),
            server: Some("192.0.2.11".parse().unwrap()),
            author: Some("ann".into()),
            effect: Some(Effect {
                moved: 0.25,
                shares: [("eu-west of stream.example".to_owned(), (0.5, 0.25))].into(),
            }),
            ..note("status 503")
        },
    };
    let line = serde_json::to_string(&entry).unwrap();
    assert_eq!(
        line,
        r#"{"id":7,"at":"2026-03-01T10:00:00Z","kind":"region_down","zone":"stream.example","region":"eu-west","server":"192.0.2.11","cause":"status 503","author":"ann","effect":{"moved":0.25,"shares":{"eu-west of stream.example":[0.5,0.25]}}}"#
    );
    assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry);
}

#[test]
fn what_was_written_comes_back_and_ids_go_on() {
    let directory = tempdir().unwrap();
    written(directory.path(), 1..=3);
    let Tail { entries: read, last } = read_back(directory.path());
    assert_eq!(read, entries(1..=3).iter().map(|entry| (**entry).clone()).collect::<Vec<_>>());
    let journal = Journal::after(read, last, None);
    assert_eq!(journal.note(at(9), note("new")), 4);
    assert_eq!(since(&journal, 0, 10), [1, 2, 3, 4]);
}

#[test]
fn nothing_there_is_an_empty_journal() {
    let directory = tempdir().unwrap();
    let tail = read_back(directory.path());
    assert_eq!((tail.entries.len(), tail.last), (0, 0));
    let missing = directory.path().join("missing");
    let (mut log, tail) = Log::open(&missing);
    assert_eq!((tail.entries.len(), tail.last), (0, 0));
    assert!(log.append(&entries([1])).1.is_err(), "it says so when it is written to");
    fs::create_dir(&missing).unwrap();
    append(&mut log, [2]);
    assert_eq!(ids(&read_back(&missing).entries), [2], "and recovers");
}

#[test]
fn a_file_that_was_moved_away_is_made_anew() {
    let directory = tempdir().unwrap();
    let (mut log, _) = Log::open(directory.path());
    append(&mut log, [1]);
    let (file, moved) = (directory.path().join("events.jsonl"), directory.path().join("archived"));
    fs::rename(&file, &moved).unwrap();
    append(&mut log, [2]);
    assert_eq!(ids(&read_back(directory.path()).entries), [2]);
    fs::remove_file(&file).unwrap();
    append(&mut log, [3]);
    assert_eq!(ids(&read_back(directory.path()).entries), [3]);
    assert_eq!(fs::read_to_string(moved).unwrap().lines().count(), 1);
}

#[test]
fn a_torn_last_line_is_dropped_and_the_next_line_is_whole() {
    let directory = tempdir().unwrap();
    written(directory.path(), 1..=3);
    let file = directory.path().join("events.jsonl");
    let whole = fs::read(&file).unwrap();
    for cut in 1..whole.len() {
        fs::write(&file, &whole[..cut]).unwrap();
        let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        let (mut log, tail) = Log::open(directory.path());
        assert_eq!(ids(&tail.entries), (1..=lines).collect::<Vec<_>>(), "cut at {cut}");
        append(&mut log, [lines + 1]);
        assert_eq!(ids(&read_back(directory.path()).entries), (1..=lines + 1).collect::<Vec<_>>(), "cut at {cut}");
    }
}

#[test]
fn a_damaged_line_is_skipped() {
    let directory = tempdir().unwrap();
    written(directory.path(), 1..=5);
    let file = directory.path().join("events.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let later = r#"{"id":3,"at":"2026-03-01T10:00:00Z","kind":"not_known_yet","cause":""}"#;
    let deep = "[".repeat(100_000);
    for bad in ["", "{", "null", "\u{0}\u{0}", later, &deep] {
        let damaged = [lines[0], lines[1], bad, lines[3], lines[4], ""].join("\n");
        fs::write(&file, &damaged).unwrap();
        let tail = read_back(directory.path());
        assert_eq!((ids(&tail.entries), tail.last), (vec![1, 2, 4, 5], 5), "{:.20}", bad);
        assert_eq!(fs::read_to_string(&file).unwrap(), damaged, "the file stays as it is");
    }
}

#[test]
fn ids_of_lines_that_a_later_version_wrote_are_not_used_again() {
    let directory = tempdir().unwrap();
    written(directory.path(), 1..=2);
    let file = directory.path().join("events.jsonl");
    let text = fs::read_to_string(&file).unwrap() + "{\"id\":9,\"kind\":\"not_known_yet\"}\n";
    fs::write(&file, text).unwrap();
    let tail = read_back(directory.path());
    assert_eq!((ids(&tail.entries), tail.last), (vec![1, 2], 9));
    assert_eq!(Journal::after(tail.entries, tail.last, None).note(at(0), note("x")), 10);
}

#[test]
fn a_damaged_number_does_not_hide_what_came_before() {
    for wrong in [0, 2, 13, 15, 900, 1 << 53, u64::MAX] {
        let directory = tempdir().unwrap();
        written(directory.path(), [11, 12, 13, wrong, 15, 16]);
        let tail = read_back(directory.path());
        assert_eq!((ids(&tail.entries), tail.last), (vec![11, 12, 13, 15, 16], 16), "{wrong}");
    }
}

#[test]
fn a_file_that_is_no_journal_is_set_aside() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("events.jsonl");
    for foreign in [&b"\x7fELF\x02\x01\n\0\0"[..], b"no line end", b"\n\n\n"] {
        fs::write(&file, foreign).unwrap();
        let (mut log, tail) = Log::open(directory.path());
        assert_eq!(tail.entries.len(), 0);
        append(&mut log, [1]);
        assert_eq!(ids(&read_back(directory.path()).entries), [1]);
        let aside = names(directory.path()).into_iter().find(|name| name.starts_with("events.jsonl.corrupt-"));
        let aside = directory.path().join(aside.expect("a copy"));
        assert_eq!(fs::read(&aside).unwrap(), foreign);
        fs::remove_file(aside).unwrap();
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_directory_in_the_way_is_set_aside() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("events.jsonl");
    fs::create_dir(&file).unwrap();
    fs::write(file.join("kept"), "x").unwrap();
    written(directory.path(), [1]);
    assert_eq!(ids(&read_back(directory.path()).entries), [1]);
    let aside = names(directory.path()).into_iter().find(|name| name.contains(".corrupt-")).expect("moved");
    assert!(directory.path().join(aside).join("kept").exists());
}

#[test]
fn a_full_file_is_rotated_and_a_few_are_kept() {
    let directory = tempdir().unwrap();
    let line = serde_json::to_vec(&*entry(1)).unwrap().len() as u64 + 1;
    // Three lines a file, of one-digit numbers.
    let (mut log, _) = Log::rotating_at(directory.path(), 3 * line);
    for id in 1..=9 {
        append(&mut log, [id]);
    }
    assert_eq!(names(directory.path()), ["events.1.jsonl", "events.2.jsonl", "events.jsonl"]);
    let (mut log, tail) = Log::rotating_at(directory.path(), 3 * line);
    assert_eq!(ids(&tail.entries), (1..=9).collect::<Vec<_>>(), "read over all files, oldest first");
    for id in 10..=99 {
        append(&mut log, [id]);
    }
    assert_eq!(names(directory.path()).len(), ROTATED + 1);
    let (_, tail) = Log::rotating_at(directory.path(), 3 * line);
    assert_eq!((tail.last, tail.entries.last().map(|entry| entry.id)), (99, Some(99)));
    let read = ids(&tail.entries);
    assert!(read.windows(2).all(|pair| pair[1] == pair[0] + 1), "none is missing between: {read:?}");
    assert!(read.len() >= 2 * ROTATED, "{read:?}");
}

#[test]
fn one_append_of_many_rotates_between() {
    let directory = tempdir().unwrap();
    let (mut log, _) = Log::rotating_at(directory.path(), 100 << 10);
    append(&mut log, 1..=3000);
    for name in names(directory.path()) {
        let len = fs::metadata(directory.path().join(&name)).unwrap().len();
        assert!(len <= 101 << 10, "{name} has {len} bytes");
    }
    let (_, tail) = Log::rotating_at(directory.path(), 100 << 10);
    assert_eq!(ids(&tail.entries), (1..=3000).collect::<Vec<_>>());
}

#[test]
fn only_the_newest_are_read_back() {
    let directory = tempdir().unwrap();
    written(directory.path(), 1..=KEPT as u64 + 20);
    let tail = read_back(directory.path());
    assert_eq!((tail.entries.len(), tail.entries[0].id, tail.last), (KEPT, 21, KEPT as u64 + 20));
}

#[test]
fn a_rotation_that_fails_lets_no_file_grow_and_recovers() {
    let directory = tempdir().unwrap();
    let line = serde_json::to_vec(&*entry(1)).unwrap().len() as u64 + 1;
    let (mut log, _) = Log::rotating_at(directory.path(), 2 * line);
    append(&mut log, [1]);
    append(&mut log, [2]);
    // A file cannot take the place of a directory that holds something.
    let way = |number| directory.path().join(format!("events.{number}.jsonl"));
    (1..=ROTATED).for_each(|number| fs::create_dir_all(way(number).join("x")).unwrap());
    assert!(log.append(&entries([3])).1.is_err());
    assert!(log.append(&entries([4])).1.is_err());
    assert_eq!(fs::metadata(directory.path().join("events.jsonl")).unwrap().len(), 2 * line);
    (1..=ROTATED).for_each(|number| fs::remove_dir_all(way(number)).unwrap());
    append(&mut log, [5]);
    assert_eq!(ids(&read_back(directory.path()).entries), [1, 2, 5]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let directory = tempdir().unwrap();
        fs::write(directory.path().join("events.jsonl"), &bytes).unwrap();
        let (mut log, tail) = Log::open(directory.path());
        prop_assert!(tail.entries.is_empty());
        append(&mut log, [1]);
        prop_assert_eq!(ids(&read_back(directory.path()).entries), vec![1]);
    }

    #[test]
    fn one_damaged_byte_costs_at_most_two_lines(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let directory = tempdir().unwrap();
        written(directory.path(), 1..=20);
        let file = directory.path().join("events.jsonl");
        let mut bytes = fs::read(&file).unwrap();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        fs::write(&file, &bytes).unwrap();
        let read = ids(&read_back(directory.path()).entries);
        prop_assert!(read.is_sorted());
        // Its own, and the one that a lost line end joins it with.
        prop_assert!((1..=20).filter(|id| read.contains(id)).count() >= 18, "{:?}", read);
    }
}
