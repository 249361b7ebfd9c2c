//! `meridian.toml`, what zones take from it, and `meridian check` over both.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use meridian::cli::check;
use meridian::config::admin::Access;
use meridian::config::settings::{CheckKind, Heartbeat, Node, Overrides, TcpLimits};
use meridian::config::{Loaded, load_node, load_zones};

const FILE: &str = "tests/config/node/meridian.toml";

fn zones() -> Loaded {
    let (node, shared, faults) = load_node(Some(Path::new(FILE))).unwrap();
    assert_eq!(faults, []);
    let loaded = load_zones(&[node.zones], &shared);
    assert_eq!(loaded.diagnostics, []);
    loaded
}

#[test]
fn a_node_is_what_its_file_says_with_paths_beside_it() {
    let (node, shared, faults) = load_node(Some(Path::new(FILE))).unwrap();
    assert_eq!(faults, []);
    let expected = Node {
        rtt: None,
        listen: vec!["127.0.0.1:5353".parse().unwrap(), "[::1]:5353".parse().unwrap()],
        zones: "tests/config/node/zones".into(),
        geoip: Some(vec!["tests/config/node/city.mmdb".into(), "/usr/share/GeoIP".into()]),
        workers: Some(2.try_into().unwrap()),
        cpus: vec![1, 3],
        state: "/var/lib/meridian".into(),
        admin: "127.0.0.1:9053".parse().unwrap(),
        access: Access::default(),
        tcp: TcpLimits {
            connections: 50,
            per_source: 5,
            idle: Duration::from_secs(30),
            read: Duration::from_secs(2),
            pipeline: 16,
        },
        heartbeat: None,
        scale: None,
    };
    assert_eq!(node, expected);
    assert_eq!(shared.regions.len(), 3);
}

#[test]
fn without_a_file_everything_has_a_default() {
    let node = Node::default();
    assert_eq!((node.zones, node.state, node.geoip), ("zones".into(), "state".into(), None));
    assert_eq!(node.listen, ["127.0.0.1:5300".parse().unwrap()]);
    assert_eq!(node.admin, "127.0.0.1:8053".parse().unwrap());
}

#[test]
fn flags_beat_the_file_and_silence_leaves_it() {
    let (node, ..) = load_node(Some(Path::new(FILE))).unwrap();
    assert_eq!(node.clone().with(Overrides::default()), node);
    let flags = Overrides {
        listen: vec!["0.0.0.0:53".parse().unwrap()],
        geoip: vec!["x.mmdb".into()],
        zones: Some("elsewhere".into()),
        ..Overrides::default()
    };
    let over = node.clone().with(flags);
    assert_eq!(over.listen, ["0.0.0.0:53".parse().unwrap()]);
    assert_eq!((over.zones, over.geoip), (PathBuf::from("elsewhere"), Some(vec!["x.mmdb".into()])));
    assert_eq!((over.state, over.admin), (node.state, node.admin));
}

#[test]
fn a_named_file_that_is_not_there_is_an_error() {
    let missing = "tests/config/node/missing.toml";
    assert!(load_node(Some(Path::new(missing))).unwrap_err().is_error());
    let (code, out) = run(&[], Some(missing), false);
    assert_eq!(code, 1);
    assert!(out.starts_with(&format!("{missing}:1:1: cannot be read: ")), "{out}");
    assert_eq!(out.lines().skip(1).collect::<Vec<_>>(), ["0 zones, 1 error, 0 warnings"], "no word on other files");
}

#[test]
fn zones_use_shared_regions_by_name() {
    let loaded = zones();
    let shared = loaded.zones.iter().find(|zone| zone.name.to_ascii() == "shared.example.").unwrap();
    let names: Vec<&str> = shared.regions.iter().map(|region| &*region.name).collect();
    assert_eq!(names, ["eu", "us"], "what no stream uses is left out");
    let steered: Vec<&str> = shared.streams[0].steering.regions.iter().map(|r| names[usize::from(*r)]).collect();
    assert_eq!(steered, ["us", "eu"], "in the order of the stream");
    let check = |region: usize| shared.regions[region].check.clone().unwrap();
    assert_eq!((check(0).port, check(1).port), (80, 8080));
    assert_eq!((check(0).every, check(0).fall), (Duration::from_secs(1), 2));
    let CheckKind::Http(http) = &check(0).kind else { panic!("the shared kind") };
    assert_eq!(http.host, "live.shared.example");
}

#[test]
fn a_zones_own_region_and_check_stand_over_the_shared_ones() {
    let loaded = zones();
    let own = loaded.zones.iter().find(|zone| zone.name.to_ascii() == "own.example.").unwrap();
    let names: Vec<&str> = own.regions.iter().map(|region| &*region.name).collect();
    assert_eq!(names, ["eu", "us", "ap"]);
    assert_eq!(own.regions[0].servers[0].a, Some("192.0.2.99".parse().unwrap()));
    let check = |region: usize| own.regions[region].check.clone().unwrap();
    assert_eq!((&check(0).kind, check(0).port, check(0).fall), (&CheckKind::Tcp, 1935, 5));
    assert_eq!((check(1).port, check(1).fall, check(1).every), (8080, 5, Duration::from_secs(1)));
}

#[test]
fn shared_regions_do_not_steer_a_plain_zone() {
    let loaded = zones();
    let plain = loaded.zones.iter().find(|zone| zone.name.to_ascii() == "plain.example.").unwrap();
    assert!(plain.streams.is_empty() && plain.regions.is_empty());
}

fn run(paths: &[&str], config: Option<&str>, json: bool) -> (u8, String) {
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let mut out = Vec::new();
    let code = check::run(&paths, config.map(Path::new), json, &mut out).unwrap();
    (code, String::from_utf8(out).unwrap())
}

#[test]
fn check_counts_what_it_found_and_says_by_its_code_whether_to_go_on() {
    assert_eq!(run(&["tests/config/node/zones/plain.toml"], None, false), (0, "1 zone, 0 errors, 0 warnings\n".into()));
    let (code, out) = run(&["tests/config/bad/duplicate-zone", "tests/config/bad/mixed-families.toml"], None, false);
    assert_eq!(code, 1);
    assert!(out.ends_with("3 zones, 2 errors, 2 warnings\n"), "{out}");
    let (code, out) = run(&["tests/config/bad/mixed-families.toml"], None, false);
    assert_eq!((code, out.lines().last()), (0, Some("1 zone, 0 errors, 2 warnings")), "warnings alone do not stop");
    let (code, out) = run(&["tests/config/nowhere"], None, false);
    assert_eq!((code, out.lines().last()), (1, Some("0 zones, 1 error, 0 warnings")));
}

#[test]
fn check_reads_the_databases_as_well() {
    let (code, out) = run(&[], Some(FILE), false);
    assert_eq!(code, 1);
    assert!(out.contains("tests/config/node/city.mmdb:1:1: "), "a database that is not there: {out}");
    let (code, out) = run(&["tests/config/good/full.toml"], None, false);
    assert_eq!(code, 0);
    // Its capacities are examples of how they are written.
    let known = [
        "40:9: warning: us-east cannot be lost: ",
        "49:13: warning: no loaded database knows AS64500",
        "49:42: warning: no loaded database knows US-CA",
    ];
    assert!(known.iter().all(|warning| out.contains(warning)), "the bundled database knows countries alone: {out}");
    assert!(out.ends_with("1 zone, 0 errors, 3 warnings\n"), "{out}");
}

#[test]
fn check_prints_json_when_asked() {
    let (code, out) = run(&["tests/config/bad/two-files"], None, true);
    assert_eq!(code, 1);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["zones"], 2);
    assert_eq!(value["errors"].as_u64(), value["diagnostics"].as_array().map(|list| list.len() as u64));
    let first = &value["diagnostics"][0];
    assert_eq!(first["file"], "tests/config/bad/two-files/a.toml");
    assert_eq!((&first["line"], &first["column"]), (&3.into(), &1.into()));
    assert_eq!((&first["severity"], &first["what"]), (&"error".into(), &"unknown key `fall`".into()));
    assert!(first["rule"].is_null() && first["help"].is_string());
}

#[test]
fn every_fault_of_the_nodes_file_comes_in_one_run() {
    let (code, out) = run(&["tests/config/good/shortest.toml"], Some("tests/config/node/broken/meridian.toml"), false);
    assert_eq!(code, 1);
    insta::assert_snapshot!(out);
}

#[test]
fn the_example_of_the_docs_is_in_order() {
    let docs = std::fs::read_to_string("docs/node.md").unwrap();
    let block = |start: &str| docs.split(start).nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let example = block("```toml\n");
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("heartbeat.keys");
    std::fs::write(&keys, block("```text\n")).unwrap();
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    let token = dir.path().join("scaler.token");
    std::fs::write(&token, "a-token-of-the-scaler").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let own = rcgen::generate_simple_self_signed(["ns1.example.net".to_owned()]).unwrap();
    std::fs::write(dir.path().join("admin-cert.pem"), own.cert.pem()).unwrap();
    std::fs::write(dir.path().join("admin-key.pem"), own.signing_key.serialize_pem()).unwrap();
    let file = dir.path().join("meridian.toml");
    std::fs::write(&file, example).unwrap();
    let (node, shared, faults) = load_node(Some(&file)).unwrap();
    assert_eq!(faults, []);
    assert_eq!((node.listen.len(), node.zones), (2, dir.path().join("zones")));
    assert_eq!(node.tcp, TcpLimits::default(), "the example shows the defaults");
    assert_eq!(shared.regions.len(), 1);
}

/// What is said of a `meridian.toml` with this `[heartbeat]`, beside a file of keys with this mode.
fn heartbeat(table: &str, keys: &str, mode: u32) -> (Option<Heartbeat>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let (file, key_file) = (folder.path().join("meridian.toml"), folder.path().join("heartbeat.keys"));
    std::fs::write(&file, format!("[heartbeat]\n{table}\n")).unwrap();
    std::fs::write(&key_file, keys).unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(mode)).unwrap();
    let (node, _, faults) = load_node(Some(&file)).unwrap();
    let folder = format!("{}/", folder.path().display());
    let said = faults.iter().map(|fault| format!("{}: {}", fault.at, fault.what).replace(&folder, "")).collect();
    let heartbeat = node
        .heartbeat
        .map(|heartbeat| Heartbeat { keys: heartbeat.keys.strip_prefix(&folder).unwrap().to_owned(), ..heartbeat });
    (heartbeat, said)
}

const KEYS: &str = "edge MDEyMzQ1Njc4OWFiY2RlZg== 192.0.2.0/24\n";

#[test]
fn heartbeats_are_received_where_the_file_says() {
    let expected = |listen: &str| {
        (Some(Heartbeat { listen: listen.parse().unwrap(), keys: "heartbeat.keys".into() }), Vec::<String>::new())
    };
    let keys = "keys = \"heartbeat.keys\"";
    assert_eq!(heartbeat(&format!("listen = \"[::1]:9054\"\n{keys}"), KEYS, 0o600), expected("[::1]:9054"));
    assert_eq!(heartbeat(keys, KEYS, 0o600), expected("0.0.0.0:8054"));
}

#[test]
fn faults_of_heartbeats_are_told_at_their_places_in_both_files() {
    let said = |table: &str, keys: &str, mode| heartbeat(table, keys, mode).1;
    let keys = "keys = \"heartbeat.keys\"";
    assert_eq!(
        said("listen = \"0.0.0.0:8054\"", KEYS, 0o600),
        ["meridian.toml:1:2: [heartbeat] names no file of keys"]
    );
    assert_eq!(
        said(&format!("{keys}\nlisten = \"8054\"\nkey = 1"), KEYS, 0o600),
        [
            "meridian.toml:3:10: `heartbeat.listen` is \"8054\", which is no address with a port",
            "meridian.toml:4:1: unknown key `key` in [heartbeat]",
        ]
    );
    assert_eq!(
        said(keys, &format!("{KEYS}\nshort c2hvcnQ=\n"), 0o600),
        ["heartbeat.keys:3:1: the secret of short has 5 bytes, fewer than 16"]
    );
    assert_eq!(said(keys, KEYS, 0o644), ["heartbeat.keys:1:1: everybody on this machine can read the keys"]);
    let missing = said("keys = \"missing.keys\"", KEYS, 0o600);
    assert!(missing[0].starts_with("meridian.toml:2:8: `heartbeat.keys`: missing.keys: No such file"), "{missing:?}");
    assert_eq!(said("keys = 3", KEYS, 0o600), ["meridian.toml:2:8: `heartbeat.keys` is a whole number, not a string"]);
}
