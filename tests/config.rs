//! Zone files: the good ones become settings, the bad ones a transcript of complaints.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use meridian::config::settings::{CheckKind, Policy, Transport, Zone};
use meridian::config::{Shared, load_zones};
use meridian::geo::{Continent, CountryCode, Match, SubdivisionCode};

/// Reads a file that has to be in order, without even a warning.
fn good(name: &str) -> Zone {
    let path = Path::new("tests/config/good").join(name);
    let mut loaded = load_zones(&[path], &Shared::default());
    assert!(loaded.diagnostics.is_empty(), "{}", transcript(&loaded.diagnostics));
    loaded.zones.remove(0)
}

fn transcript(diagnostics: &[meridian::config::Diagnostic]) -> String {
    diagnostics.iter().map(|d| format!("{d}\n")).collect()
}

#[test]
fn the_shortest_zone_steers_its_apex_over_all_regions() {
    let zone = good("shortest.toml");
    assert_eq!(zone.name.to_ascii(), "live.example.com.");
    assert_eq!(zone.soa.contact.to_ascii(), "hostmaster.live.example.com.");
    assert_eq!(zone.min_regions, 1);
    let [stream] = &zone.streams[..] else { panic!("one stream") };
    assert_eq!(stream.owner, zone.name);
    assert_eq!(
        (stream.ttl, &stream.steering.regions[..], &stream.steering.policy),
        (20, &[0, 1, 2][..], &Policy::Nearest)
    );
    let check = zone.regions[0].check.as_ref().expect("a check");
    let CheckKind::Https { http, ca: None } = &check.kind else { panic!("https without a private CA") };
    assert_eq!((http.path.as_str(), http.host.as_str(), check.port), ("/healthz", "live.example.com", 443));
    assert_eq!((check.every, check.timeout), (Duration::from_millis(500), Duration::from_millis(250)));
    assert_eq!((check.fall, check.rise), (3, 10));
}

#[test]
fn a_time_out_that_adapts_has_an_upper_bound_and_is_inherited_like_a_fixed_one() {
    let zone = good("timeout-auto.toml");
    let checks = zone.regions.iter().map(|region| region.check.as_ref().expect("a check"));
    let timing: Vec<_> =
        checks.map(|check| (check.every.as_millis(), check.timeout.as_millis(), check.adaptive)).collect();
    assert_eq!(timing, [(200, 100, true), (5_000, 250, true), (500, 200, false)]);
}

#[test]
fn the_full_zone_means_what_it_says() {
    let zone = good("full.toml");
    assert_eq!(zone.regions.iter().map(|r| &*r.name).collect::<Vec<_>>(), ["eu-west", "us-east"]);
    assert_eq!(zone.min_regions, 2);
    let [london, ashburn] = &zone.regions[..] else { panic!("two regions") };
    assert_eq!(london.servers.len(), 4, "each address of the short form is a server");
    assert_eq!((london.min_up, london.near.as_deref()), (Some(1), Some("London")));
    let check = london.check.as_ref().expect("a check");
    assert_eq!((check.every, check.timeout), (Duration::from_millis(250), Duration::from_millis(100)));
    let CheckKind::Https { http, ca: Some(ca) } = &check.kind else { panic!("the inherited kind") };
    assert_eq!((http.status.as_slice(), http.contains.as_deref()), (&[200][..], Some("ok")));
    assert_eq!(ca.certificates.len(), 1);

    let [server] = &ashburn.servers[..] else { panic!("one server") };
    assert_eq!(server.a, Some(Ipv4Addr::new(198, 51, 100, 11)));
    assert_eq!(server.aaaa, Some("2001:db8:2::11".parse::<Ipv6Addr>().unwrap()));
    assert_eq!((server.weight.get(), server.probe), (2, Some("127.0.0.11:8081".parse().unwrap())));

    assert_eq!(london.ramp, Duration::from_secs(300));
    assert_eq!((london.capacity.as_ref().unwrap().sessions, london.cost), (8_000.0, Some(0.02)));

    let [live, login] = &zone.streams[..] else { panic!("two streams") };
    assert_eq!(live.needs.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&login.owner]);
    assert_eq!(live.owner.to_ascii(), "live.stream.example.");
    assert_eq!((live.ttl, live.steering.answers, &live.steering.bias[..]), (10, 2, &[-10, 0][..]));
    assert_eq!(live.fallback.as_ref().map(ToString::to_string).as_deref(), Some("live.backup.example.net."));
    let [isles, others] = &live.rules[..] else { panic!("two rules") };
    assert_eq!((&isles.steering.policy, isles.steering.answers), (&Policy::Priority, 2));
    assert_eq!((&others.steering.policy, &others.steering.regions[..]), (&Policy::Nearest, &[1][..]));
    let from: Vec<&Match> = others.from.iter().map(|(from, _)| from).collect();
    let expected = [
        &Match::Asn(64500),
        &Match::Prefix("203.0.113.0/24".parse().unwrap()),
        &Match::Subdivision(CountryCode(*b"US"), SubdivisionCode(*b"CA\0")),
        &Match::Continent(Continent::SouthAmerica),
    ];
    assert_eq!(from, expected);

    let line = |r: &meridian::zone::Rrset| format!("{} {} {}", r.owner, r.ttl, u16::from(r.rtype));
    let rrsets: Vec<String> = zone.records.iter().map(line).collect();
    let expected = [
        "stream.example. 300 15",
        "stream.example. 300 257",
        "stream.example. 300 16",
        "ns1.stream.example. 3600 1",
        "ns2.stream.example. 3600 1",
        "www.stream.example. 300 5",
        "child.stream.example. 86400 2",
        "ns1.child.stream.example. 300 1",
        "x.y.stream.example. 300 65280",
    ];
    assert_eq!(rrsets, expected);
    assert_eq!(&*zone.records[5].rdata[0], b"\x04live\x06stream\x07example\0");
    assert_eq!(&*zone.records[8].rdata[0], [10, 0, 0, 1]);
}

#[test]
fn playlists_and_programs_are_checks_too() {
    let zone = good("hls-and-exec.toml");
    let checks: Vec<_> = zone.regions.iter().map(|region| region.check.as_deref().expect("a check")).collect();
    let [london, ashburn, singapore, santiago] = &checks[..] else { panic!("four regions") };
    let CheckKind::Hls { http, transport: Transport::Tls(Some(_)), stale: 4 } = &london.kind else {
        panic!("{london:?}")
    };
    assert_eq!((http.path.as_str(), http.host.as_str(), london.port), ("/live/index.m3u8", "stream.example", 443));
    assert_eq!((&http.status[..], &http.contains), (&[200][..], &None));
    let CheckKind::Hls { http, transport: Transport::Plain, stale: 3 } = &ashburn.kind else { panic!("{ashburn:?}") };
    assert_eq!((http.path.as_str(), http.host.as_str(), ashburn.port), ("/live.m3u8", "origin.stream.example", 80));
    let CheckKind::Exec(exec) = &singapore.kind else { panic!("{singapore:?}") };
    assert_eq!((exec.program.to_str(), &exec.arguments[..]), (Some("/bin/sh"), &["-c".into(), "exit 0".into()][..]));
    assert_eq!((exec.host.as_deref(), singapore.port), (Some("stream.example"), 0), "the one stream, and no port");
    assert_eq!((singapore.every, singapore.timeout), (Duration::from_secs(10), Duration::from_secs(5)));
    let CheckKind::Exec(exec) = &santiago.kind else { panic!("{santiago:?}") };
    assert_eq!((exec.host.as_deref(), santiago.port), (Some("origin.stream.example"), 1935));
}

#[test]
fn events_have_a_stream_a_time_and_an_expectation() {
    let zone = good("events.toml");
    let events: Vec<_> = zone
        .events
        .iter()
        .map(|event| {
            let label = &*zone.streams[event.stream].label;
            format!("{label} {} {} {:?}", event.start, event.end, event.expect)
        })
        .collect();
    let expected = [
        "live 2100-11-28T18:00:00Z 2100-11-28T20:00:00Z Sessions(30000.0)",
        "other 2100-11-28T20:00:00Z 2100-11-29T00:00:00Z Times(1.5)",
        "live 2100-11-28T20:00:00Z 2100-11-28T20:30:00Z Times(3.0)",
    ];
    assert_eq!(events, expected);
}

#[test]
fn the_shortest_zone_is_that_of_the_docs() {
    let docs = std::fs::read_to_string("docs/zone-files.md").unwrap();
    let example = docs.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    assert_eq!(example, std::fs::read_to_string("tests/config/good/shortest.toml").unwrap());
}

#[test]
fn aliases_that_end_are_taken() {
    assert_eq!(good("aliases.toml").records.len(), 8);
}

#[test]
fn toml_1_1_is_read_too() {
    let zone = good("toml-1.1.toml");
    let [stream] = &zone.streams[..] else { panic!("one stream") };
    assert_eq!(stream.owner.to_ascii(), "*.game.stream.example.");
    assert_eq!((stream.steering.answers, stream.rules[0].steering.answers), (2, 1));
    assert_eq!(zone.regions[0].check, None, "without any check servers are always up");
}

#[test]
fn a_byte_order_mark_and_line_ends_of_windows_do_no_harm() {
    let path = Path::new("tests/config/good/windows.toml");
    assert_eq!(good("windows.toml").name.to_ascii(), "windows.example.");
    let text = std::fs::read_to_string(path).unwrap().replace("zone", "zoen");
    let faults = meridian::config::read_zone(path, text, 0, &Shared::default()).faults;
    assert!(faults.iter().any(|fault| fault.what == "unknown key `zoen`"), "{faults:?}");
}

/// Every file and directory in `tests/config/bad` has its complaints beside it, in a file of the same name that ends in
/// `.txt`. `BLESS=1` in the environment writes them anew.
#[test]
fn every_bad_file_gets_exactly_its_complaints() {
    let mut cases: Vec<_> = std::fs::read_dir("tests/config/bad").unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir() || path.extension().is_some_and(|e| e == "toml"));
    cases.sort();
    assert!(!cases.is_empty());
    let mut wrong = String::new();
    for case in cases {
        let loaded = load_zones(std::slice::from_ref(&case), &Shared::default());
        let got = transcript(&loaded.diagnostics);
        let beside = case.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&beside, &got).unwrap();
        }
        let expected = std::fs::read_to_string(&beside).unwrap_or_default();
        if got.is_empty() || got != expected {
            wrong += &format!("--- {}\n{got}", beside.display());
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{wrong}");
}
