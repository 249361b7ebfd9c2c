//! Zone files of any content: no panic, and either a sound zone or a complaint at a place in the file.

use std::collections::HashSet;
use std::path::Path;

use meridian::config::settings::{MAX_REGIONS, Policy, Steering, Zone};
use meridian::config::{Shared, ZoneFile, read_zone};
use proptest::prelude::*;

const FULL: &str = include_str!("config/good/full.toml");

fn read(text: &str) -> ZoneFile {
    read_zone(Path::new("tests/config/good/any.toml"), text.to_owned(), 1, &Shared::default())
}

/// What `config::settings` promises.
fn assert_sound(zone: &Zone) {
    assert!(zone.name.is_fqdn() && !zone.ns.is_empty() && zone.regions.len() <= MAX_REGIONS);
    let mut owners = HashSet::new();
    for stream in &zone.streams {
        assert!(zone.name.zone_of(&stream.owner) && owners.insert(&stream.owner));
        assert!((5..=86_400).contains(&stream.ttl));
        assert_steering(zone, &stream.steering);
        stream.rules.iter().for_each(|rule| assert_steering(zone, &rule.steering));
        assert!(stream.rules.iter().all(|rule| !rule.from.is_empty()));
    }
    for region in &zone.regions {
        assert!(!region.servers.is_empty() && region.min_up != Some(0));
        assert!(region.servers.iter().all(|server| server.a.is_some() || server.aaaa.is_some()));
        let Some(check) = &region.check else { continue };
        assert!(check.timeout < check.every && check.every.as_millis() >= 50);
        assert!(check.fall > 0 && check.rise > 0 && check.port > 0);
    }
    let mut rrsets = HashSet::new();
    for rrset in &zone.records {
        assert!(zone.name.zone_of(&rrset.owner) && !rrset.rdata.is_empty());
        assert!(rrsets.insert((&rrset.owner, rrset.rtype)));
        assert_eq!(rrset.rdata.iter().collect::<HashSet<_>>().len(), rrset.rdata.len());
    }
}

fn assert_steering(zone: &Zone, steering: &Steering) {
    let regions: HashSet<u8> = steering.regions.iter().copied().collect();
    assert!(!regions.is_empty() && regions.len() == steering.regions.len());
    assert!(regions.iter().all(|region| usize::from(*region) < zone.regions.len()));
    assert_eq!(steering.bias.len(), steering.regions.len());
    assert!((1..=16).contains(&steering.answers));
    match &steering.policy {
        Policy::Nearest => assert!(regions.iter().all(|r| zone.regions[usize::from(*r)].location.is_some())),
        Policy::Priority => {}
        Policy::Weighted(weights) => {
            assert!(weights.len() == steering.regions.len() && weights.iter().any(|weight| *weight > 0));
        }
    }
}

fn assert_zone_or_complaint(text: &str) {
    let found = read(text);
    let errors = found.faults.iter().filter(|fault| fault.is_error()).count();
    assert_eq!(found.zone.is_none(), errors > 0, "{text}\n{:?}", found.faults);
    if let Some(zone) = &found.zone {
        assert_sound(zone);
    }
    for fault in &found.faults {
        let line = text.split('\n').nth(fault.at.line as usize - 1).expect("a line of the file");
        assert!(fault.at.column as usize <= line.chars().count() + 1, "{fault}\n{text}");
        assert!(!fault.what.is_empty());
    }
}

/// A change to a file such as an editor slip makes.
#[derive(Clone, Debug)]
enum Slip {
    Cut { at: usize, length: usize },
    Insert { at: usize, text: String },
    RepeatLine { line: usize },
    DropLine { line: usize },
    MoveLine { from: usize, to: usize },
}

fn slip() -> impl Strategy<Value = Slip> {
    let token = prop::sample::select(vec![
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "=",
        ".",
        ",",
        "#",
        "\n",
        " ",
        "\\",
        "*",
        "@",
        "0",
        "-1",
        "é",
        "\u{feff}",
        "\t",
        "[stream.",
        "[[region.eu-west.server]]\n",
        "{}",
        "[]",
        "\"\"",
        "'''",
        "\"\"\"",
        "A = ",
        "x.y = ",
        "\"0s\"",
        "99999999999999999999",
        "1979-05-27",
        "true",
        "nan",
        "\r\n",
        "\0",
        "[check]\n",
        "TXT",
        "NS",
        "CNAME",
        "DNAME",
        "*.",
        "weighted",
        "ttl = \"1d\"\n",
    ]);
    let any = 0..FULL.len();
    prop_oneof![
        (any.clone(), 1..40usize).prop_map(|(at, length)| Slip::Cut { at, length }),
        (any.clone(), token).prop_map(|(at, text)| Slip::Insert { at, text: text.to_owned() }),
        any.clone().prop_map(|line| Slip::RepeatLine { line }),
        any.clone().prop_map(|line| Slip::DropLine { line }),
        (any.clone(), any).prop_map(|(from, to)| Slip::MoveLine { from, to }),
    ]
}

fn make(slips: &[Slip]) -> String {
    let mut text: Vec<char> = FULL.chars().collect();
    for slip in slips {
        let mut lines: Vec<String> = String::from_iter(&text).split_inclusive('\n').map(str::to_owned).collect();
        let n = lines.len().max(1);
        match slip {
            Slip::Cut { at, length } => {
                let start = at % (text.len() + 1);
                text.drain(start..(start + length).min(text.len()));
                continue;
            }
            Slip::Insert { at, text: new } => {
                let at = at % (text.len() + 1);
                text.splice(at..at, new.chars());
                continue;
            }
            _ if lines.is_empty() => continue,
            Slip::RepeatLine { line } => lines.insert(line % n, lines[line % n].clone()),
            Slip::DropLine { line } => drop(lines.remove(line % n)),
            Slip::MoveLine { from, to } => {
                let moved = lines.remove(from % n);
                lines.insert(to % n, moved);
            }
        }
        text = lines.concat().chars().collect();
    }
    String::from_iter(text)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2000), ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_zone_or_a_complaint(text in any::<String>(), toml in r#"([a-z]{1,6}|[\[\]{}="'.,*@#\n 0-9]){0,80}"#) {
        assert_zone_or_complaint(&text);
        assert_zone_or_complaint(&toml);
    }

    #[test]
    fn a_zone_with_slips_is_a_zone_or_a_complaint(slips in prop::collection::vec(slip(), 1..6)) {
        assert_zone_or_complaint(&make(&slips));
    }
}

#[test]
fn an_unknown_key_in_any_table_of_the_full_zone_is_reported_at_its_place() {
    let mut places: Vec<(usize, &str)> = vec![(0, "unheard_of = 1\n")];
    let mut offset = 0;
    for line in FULL.split_inclusive('\n') {
        offset += line.len();
        if line.starts_with('[') {
            places.push((offset, "unheard_of = 1\n"));
        }
    }
    places.extend(FULL.match_indices("{ ").map(|(at, _)| (at + 2, "unheard_of = 1, ")));
    assert!(places.len() > 15, "every kind of table");
    for (at, key) in places {
        let text = format!("{}{key}{}", &FULL[..at], &FULL[at..]);
        let faults = read(&text).faults;
        let [fault] = &faults[..] else { panic!("one fault for the key at byte {at}, not {faults:#?}") };
        let line = FULL[..at].matches('\n').count() as u32 + 1;
        assert!(fault.is_error() && fault.what.contains("unheard_of"), "{fault}");
        assert_eq!(fault.at.line, line, "{fault}");
        let column = FULL[..at].rsplit('\n').next().unwrap().chars().count() as u32 + 1;
        // Of a region or an owner name that is not there, the wrong value may be the complaint.
        assert!([column, column + "unheard_of = ".len() as u32].contains(&fault.at.column), "{fault}");
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow_of_the_stack() {
    for open in ["[", "{a=", "[{a="] {
        assert_zone_or_complaint(&format!("zone = {}", open.repeat(100_000)));
    }
    assert_zone_or_complaint(&format!("[{}]", vec!["a"; 100_000].join(".")));
    assert_zone_or_complaint(&format!("{} = 1", vec!["a"; 100_000].join(".")));
}

#[test]
fn a_file_of_many_faults_is_read_in_time() {
    let owners: String = (0..20_000).map(|n| format!("n{n} = {{ A = [\"é\", \"192.0.2.256\"] }}\n")).collect();
    let started = std::time::Instant::now();
    assert_eq!(read(&format!("zone = \"x.example\"\nns = [\"ns.example\"]\n[records]\n{owners}")).faults.len(), 10_001);
    // All of it on one line: places must not be counted from the beginning of the line each time.
    let values: String = (0..20_000).map(|_| "\"é\", ").collect();
    let faults =
        read(&format!("zone = \"x.example\"\nns = [\"ns.example\"]\n[records]\nw = {{ A = [{values}] }}\n")).faults;
    assert_eq!(faults.len(), 10_001);
    assert!(faults[10_000].what.contains("10000 more faults"), "{}", faults[10_000]);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
