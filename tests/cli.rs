//! What the commands print, and their exit codes.

mod node;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use meridian::config::{Shared, load_zones};
use meridian::demand::Estimator;
use meridian::demand::asked::Asked;
use meridian::demand::layout::Layout;
use meridian::demand::profile::Saved;
use meridian::geo::{CellId, CountryCode, Database, Point};
use meridian::health::Verdict;
use meridian::pilot::saved::Learned;
use meridian::server::tap;
use meridian::snapshot::{Served, Snapshot};
use meridian::state::directory::Directory;
use meridian::state::file::{self, Kind};
use meridian::steering::learn;
use node::{Files, LONDON, ZONE};
use serde_json::Value;

/// Exit code, standard output and standard error.
fn run(files: &Files, arguments: &[&str]) -> (i32, String, String) {
    let output = files.command(arguments).env("NO_COLOR", "1").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Without the numbers that differ from run to run.
fn steady(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.parse::<u32>() {
        Ok(number) if number > 1_000_000_000 => "SERIAL".to_owned(),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn explain_tells_each_step_and_says_when_it_had_only_files() {
    let files = Files::new(ZONE);
    files.put("meridian.toml", "[admin]\nlisten = \"127.0.0.1:1\"\n");
    let (code, out, err) = run(&files, &["explain", "live.stream.example", "--client", LONDON]);
    assert_eq!((code, err.as_str()), (0, ""));
    insta::assert_snapshot!(steady(&out), @r"
    no running server was asked: verdicts unknown, all taken as up
    live.stream.example. A for 81.2.69.0/24
      zone      stream.example. serial SERIAL from zones/stream.example.toml
      location  51.51, -0.13  GB  Europe
                location, country: world.mmdb (bundled)
                continent: continent of GB
      stream    live: nearest by the stream's own settings
      cell      1; the answer is for 81.0.0.0/14

           region  cost ms    km  state  why
       ->  eu            8     0  up     the nearest that is up
           us          126  5917  up     118 ms more

      eu  192.0.2.21       unprobed  <- given

    ;; status: NOERROR, flags: qr aa
    ; CLIENT-SUBNET: 81.2.69.0/24/14
    ;; QUESTION SECTION:
    ;live.stream.example. IN A

    ;; ANSWER SECTION:
    live.stream.example. 20 IN A 192.0.2.21
    ");
}

#[test]
fn explain_asks_the_running_server_first() {
    let files = Files::new(ZONE);
    let node = files.serve();
    let url = format!("http://{}", node.admin);
    let (code, out, _) = run(&files, &["explain", "live.stream.example", "AAAA", "--client", LONDON, "--server", &url]);
    assert_eq!(code, 0);
    assert!(out.starts_with("live.stream.example. AAAA for 81.2.69.0/24\n"), "{out}");
    let (code, out, _) =
        run(&files, &["explain", "live.stream.example", "--client", LONDON, "--server", &url, "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert_eq!(json["basis"], "server");
    assert_eq!(json["steering"]["chosen"], "eu");
    assert_eq!(json["answer"]["answer"][0], "live.stream.example. 20 IN A 192.0.2.21");
    let path = format!("/v1/explain?name=live.stream.example&client={LONDON}");
    let (status, body) = node.http("GET", &path);
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &told["steering"]), (200, &json["steering"]));
    for path in ["/v1/explain", "/v1/explain?name=a&client=b", "/v1/explain?name=a..b&client=192.0.2.1"] {
        let (status, body) = node.http("GET", path);
        assert!(status == 400 && body.starts_with(r#"{"error":""#), "{path}: {status} {body}");
    }
}

#[test]
fn explain_takes_the_files_that_are_named_though_a_server_answers() {
    let files = Files::new(ZONE);
    let node = files.serve();
    files.put("meridian.toml", format!("[admin]\nlisten = \"{}\"\n", node.admin));
    std::fs::create_dir(files.path("next")).unwrap();
    files.put("next/stream.example.toml", ZONE.replace("192.0.2.21", "192.0.2.77"));
    let explain = |more: &[&str]| {
        let arguments = [&["explain", "live.stream.example", "--client", LONDON, "--json"], more].concat();
        let json: Value = serde_json::from_str(&run(&files, &arguments).1).unwrap();
        (json["basis"].clone(), json["answer"]["answer"][0].clone())
    };
    let answer = |address: &str| Value::from(format!("live.stream.example. 20 IN A {address}"));
    assert_eq!(explain(&[]), ("server".into(), answer("192.0.2.21")));
    assert_eq!(explain(&["--zones", "next"]), ("files".into(), answer("192.0.2.77")));
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/geoip/world.mmdb");
    assert_eq!(explain(&["--geoip", bundled]).0, "files");
    let both = ["explain", "a", "--client", LONDON, "--zones", "next", "--server", "http://127.0.0.1:1"];
    assert_eq!(run(&files, &both).0, 2, "one or the other");
}

#[test]
fn explain_with_words_that_make_no_question_is_wrong_usage() {
    let files = Files::new(ZONE);
    for arguments in [
        &["explain", "live.stream.example"][..],
        &["explain", "live.stream.example", "--client", "London"],
        &["explain", "live.stream.example", "ADDRESS", "--client", LONDON],
        &["explain", "a..b", "--client", LONDON],
    ] {
        assert_eq!(run(&files, arguments).0, 2, "{arguments:?}");
    }
    let named = ["explain", "live.stream.example", "--client", LONDON, "--server", "http://127.0.0.1:1"];
    let (code, out, err) = run(&files, &named);
    assert_eq!((code, out.as_str()), (1, ""), "a server that was named must answer");
    assert_eq!(err, "meridian: http://127.0.0.1:1: nobody listens there\n");
}

#[test]
fn check_exits_1_on_an_error_and_0_without() {
    let files = Files::new(ZONE);
    assert_eq!(run(&files, &["check"]), (0, "1 zone, 0 errors, 0 warnings\n".into(), String::new()));
    files.put("zones/stream.example.toml", ZONE.replace("London", "Nowhereville"));
    let (code, out, _) = run(&files, &["check"]);
    assert!(code == 1 && out.starts_with("zones/stream.example.toml:10:8: "), "{out}");
}

#[test]
fn delegation_prints_what_the_parent_needs() {
    let files = Files::new(ZONE);
    let (code, out, _) = run(&files, &["delegation", "stream.example"]);
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "; to put in the parent zone of stream.example.\n\
             stream.example. 86400 IN NS ns1.example.net.\n\
             stream.example. 86400 IN NS ns2.example.net.\n"
        )
    );
    assert_eq!(run(&files, &["delegation", "other.example"]).0, 1);
    assert_eq!(run(&files, &["delegation", "a..b"]).0, 2);
}

#[test]
fn geoip_inspect_tells_who_said_what() {
    let files = Files::new(ZONE);
    let (code, out, _) = run(&files, &["geoip", "inspect", "81.2.69.142", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["country"]["value"]), (0, &Value::from("GB")));
    let missing = ["geoip", "inspect", "81.2.69.142", "--geoip", "none.mmdb"];
    let (code, out, err) = run(&files, &missing);
    assert!(code == 1 && out.is_empty() && err.starts_with("none.mmdb:1:1: "), "{err}");
}

#[test]
fn usage_and_attribution_are_told() {
    let files = Files::new(ZONE);
    assert_eq!(run(&files, &["frobnicate"]).0, 2);
    assert_eq!(run(&files, &["serve", "--listen", "localhost"]).0, 2);
    let (code, out, _) = run(&files, &["--version"]);
    assert!(code == 0 && out.contains("DB-IP") && out.contains("GeoNames") && out.contains("CC BY 4.0"), "{out}");
    let (code, out, _) = run(&files, &["completions", "bash"]);
    assert!(code == 0 && out.contains("complete -F _meridian"), "{out}");
}

#[test]
fn the_bundled_zone_has_no_fault_and_needs_no_server_to_be_up() {
    let zone = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/zones/stream.example.toml")).unwrap();
    let files = Files::new(&zone);
    assert_eq!(run(&files, &["check"]), (0, "1 zone, 0 errors, 0 warnings\n".into(), String::new()));
    let node = files.serve();
    assert_eq!(node.dig("www.stream.example", LONDON), "198.51.100.11 198.51.100.12 live.stream.example.");
}

const SIZED: &str = r#"
zone = "stream.example"
ns   = ["ns1.example.net", "ns2.example.net"]

[region.us]
near = "Ashburn"
a    = ["192.0.2.11"]
capacity = "10000 sessions"
cost = 0.02

[region.eu]
near = "London"
a    = ["192.0.2.21"]
capacity = "10000 sessions"

[region.ap]
near = "Singapore"
a    = ["192.0.2.31"]
capacity = "30000 sessions"

[stream.live]
"#;

#[test]
fn simulate_tells_load_and_latency_before_and_after_a_loss() {
    let files = Files::new(SIZED);
    let (code, out, err) = run(&files, &["simulate", "--lose", "eu", "--total", "18000 sessions"]);
    assert_eq!((code, err.as_str()), (0, ""));
    insta::assert_snapshot!(out, @r"
    18000 sessions given, spread by the databases' addresses
     region  sessions  capacity  in use  share  mean km  p95 km  mean ms  p95 ms  price ms  money/h
     ap          4802     30000    16 %   27 %     4249    6299       93     134         0        -
     eu          4852     10000    49 %   27 %     1382    4940       36     107         0        -
     us          8346     10000    83 %   46 %     1802    7646       44     161        27   375.57
     all        18000     50000    36 %  100 %     2342    6299       55     134         -   375.57

    without eu:
     region     sessions  capacity  in use  share  mean km  p95 km  mean ms  p95 ms  price ms  money/h
     ap             8909     30000    30 %   49 %     6808   10899      144     226         0        -
     eu (lost)         0     10000     0 %    0 %        -       -        -       -         0        -
     us             9091     10000    91 %   51 %     2135    7250       51     153       101   409.09
     all           18000     50000    36 %  100 %     4448   10737       97     223         -   409.09

    27 % of the viewers are served elsewhere than before; us is fullest with 91 % of its capacity; 95 % of the viewers are within 223 ms, before within 134 ms
    ");
    let (code, out, _) = run(&files, &["simulate", "--stream", "live"]);
    assert!(code == 0 && out.starts_with("35000 sessions assumed (70 % of the capacities written"), "{out}");
    assert!(!out.contains("elsewhere"), "nothing was asked for: {out}");
}

#[test]
fn simulate_exits_1_where_the_others_have_too_little_room() {
    let files = Files::new(SIZED);
    let lose = ["simulate", "--lose", "ap", "--total", "24000 sessions", "--json"];
    let (code, out, _) = run(&files, &lose);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["after"]["regions"]["ap"]["load_sessions"]), (1, &Value::from(0.0)));
    assert!(json["after"]["regions"]["us"]["utilization"].as_f64().unwrap() > 1.1, "{out}");
    assert!(json["before"]["moved_share"] == 0.0 && json["gap"].as_f64().unwrap() < 0.01, "{out}");
    let (code, ..) = run(&files, &["simulate", "--total", "24000", "--demand", "1.3"]);
    assert_eq!(code, 0);
    let added = ["--add", "jp=near:Tokyo,30000 sessions"];
    assert_eq!(run(&files, &[&lose[..], &added].concat()).0, 0, "with one region more there is room");
}

#[test]
fn simulate_audits_every_single_loss() {
    let files = Files::new(SIZED);
    let (code, out, _) = run(&files, &["simulate", "--all-n-1", "--total", "24000 sessions"]);
    assert_eq!(code, 1);
    insta::assert_snapshot!(out, @r"
    24000 sessions given, spread by the databases' addresses
     without  moved  fullest        in use  too small by  needs        or  unserved  p95 ms
     ap        35 %  eu and 1 more   120 %          2008  12008  60.0Gbps         -     219
     eu        35 %  us               96 %             -      -         -         -     270
     us        53 %  eu               96 %             -      -         -         -     326

    1 of 3 regions cannot be lost: the others would have too little room
    ");
    let (code, out, _) = run(&files, &["simulate", "--all-n-1", "--total", "24000 sessions", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["losses"][0]["lost"]), (1, &Value::from("ap")));
    let short = json["losses"][0]["too_small"].as_array().unwrap().iter().map(|small| &small["short_sessions"]);
    assert!((short.filter_map(Value::as_f64).sum::<f64>() - 4_000.0).abs() < 5.0, "{out}");
    assert_eq!(run(&files, &["simulate", "--all-n-1", "--total", "9000"]).0, 0);
}

#[test]
fn simulate_draws_maps() {
    let files = Files::new(SIZED);
    assert_eq!(run(&files, &["simulate", "--lose", "eu", "--svg", "loss.svg", "--total", "18000"]).0, 0);
    let svg = std::fs::read_to_string(files.path("loss.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("without eu") && svg.contains("eu (gone)"));
    let (code, _, err) = run(&files, &["simulate", "--svg", "nowhere/loss.svg"]);
    assert!(code == 1 && err.starts_with("meridian: nowhere/loss.svg: "), "{err}");
}

#[test]
fn simulate_with_names_that_are_none_is_wrong_usage() {
    let files = Files::new(SIZED);
    for (arguments, told) in [
        (&["--lose", "eus"][..], "no stream has a region \"eus\"; did you mean \"eu\"?"),
        (&["--drain", "moscow"], "no stream has a region \"moscow\"; there are ap, eu, us"),
        (&["--stream", "lives"], "no stream \"lives\"; did you mean \"live\"?"),
        (&["--zone", "steam.example"], "no zone \"steam.example\" in the files; did you mean \"stream.example\"?"),
        (&["--add", "uk=near:Londom"], "--add: \"Londom\" is no city we know; did you mean \"London\""),
        (&["--add", "eu=near:Paris"], "--add: zone stream.example has a region \"eu\" already"),
        (&["--total", "many"], "--total \"many\" is no number of sessions"),
    ] {
        let (code, out, err) = run(&files, &[&["simulate"], arguments].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.starts_with(&format!("meridian: {told}")), "{err}");
    }
    for demand in ["-1", "NaN", "1e9", "much"] {
        assert_eq!(run(&files, &["simulate", "--demand", demand]).0, 2, "{demand}");
    }
    files.put("zones/stream.example.toml", SIZED.replace("London", "Nowhereville"));
    assert_eq!(run(&files, &["simulate"]).0, 1);
}

/// A state directory of a node that was asked for live, 10 times a second, from a cell near Aberdeen; and where that is. `scale`: what its
/// regions told of queries.
fn record(files: &Files, scale: Option<f64>) -> (PathBuf, Option<Point>) {
    let loaded = load_zones(&[files.path("zones/stream.example.toml")], &Shared::default());
    let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
    let snapshot = Snapshot::compile(zones, &Arc::new(Database::bundled()), |_| Verdict::Up, None);
    let (mut teller, reader) = tap::ring();
    let (begin, start) = (Instant::now(), "2026-11-22T23:00:00Z".parse::<Timestamp>().unwrap());
    let at = |second: u64| Timestamp::from_second(start.as_second() + second as i64).unwrap();
    let layout = Layout::of(&snapshot);
    let (aberdeen, cells) = (Point::new(57.1, -2.1).unwrap(), snapshot.geography().facts.iter().enumerate());
    let british = cells.filter(|(_, facts)| facts.country == CountryCode::parse("GB") && facts.blocks > 0);
    let far = |location: Option<Point>| location.map_or(f64::MAX, |location| location.distance_km(aberdeen));
    let nearest = british.min_by(|(_, a), (_, b)| far(a.location).total_cmp(&far(b.location)));
    let (cell, place) = nearest.map(|(cell, facts)| (CellId(cell as u16), facts.location)).unwrap();
    let mut estimator = Estimator::new(vec![reader], layout, Saved::default(), begin, at(0));
    for second in 0..300 {
        teller.begin(snapshot.epoch());
        (0..10).for_each(|n| teller.tell(Asked::new(0, cell, (second * 10 + n) << 33)));
        teller.publish();
        estimator.drain(begin + Duration::from_secs(second + 1), at(second + 1), || ());
    }
    let mut saved = estimator.save(at(300));
    if scale.is_some() {
        saved.pilot.regions.insert("stream.example/eu".into(), Learned { scale, dwell_s: Some(600.0) });
    }
    let state = files.path("state");
    std::fs::create_dir_all(&state).unwrap();
    file::write(&state, Kind::Demand, &saved).unwrap();
    (state, place)
}

/// Viewers at a place measured eu and us.
fn measure(state: &Path, place: Option<Point>, eu_ms: f64, us_ms: f64) {
    let mut learned = learn::Learned::new();
    let at = "2026-11-22T23:05:00Z".parse().unwrap();
    let (london, ashburn) = (Point::new(51.5, -0.1), Point::new(39.0, -77.5));
    for n in 0..400u32 {
        for (name, location, rtt_ms) in [("eu", london, eu_ms), ("us", ashburn, us_ms)] {
            let sample = learn::Sample {
                client: learn::Key::new(place, CountryCode::parse("GB"), Some(2856)),
                cell: None,
                block: learn::Block::of(Ipv4Addr::from(n << 8).into()),
                region: learn::Region { zone: None, name, location },
                rtt_ms,
                loss: None,
                reporter: learn::Reporter::of("beacon"),
            };
            learned.feed(&sample, at).unwrap();
        }
    }
    file::write(state, Kind::Rtt, &learned.saved()).unwrap();
}

fn json_of(files: &Files, arguments: &[&str]) -> Value {
    let (code, out, err) = run(files, &[arguments, &["--json"]].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn simulate_on_what_a_node_recorded_says_so_and_leaves_its_directory_to_it() {
    let files = Files::new(SIZED);
    let (state, _) = record(&files, Some(0.5));
    // The node works, and holds its directory.
    let _held = Directory::open(&state, Duration::ZERO).unwrap();
    let (code, out, err) = run(&files, &["simulate", "--state", "state", "--lose", "eu"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let first = out.lines().next().unwrap();
    let (sessions, rest) = first.split_once(' ').unwrap();
    assert!((sessions.parse::<f64>().unwrap() / 3000.0 - 1.0).abs() < 0.02, "10/s x 0.5 x 600 s: {first}");
    assert_eq!(
        rest,
        "sessions, as recorded 2026-11-22 23:05 UTC; no scale of ap, us: the mean of the others; costs by distance, none is learned"
    );
    let json = json_of(&files, &["simulate", "--state", "state", "--demand", "1.3"]);
    let load = |side: &str, region: &str| json[side]["regions"][region]["load_sessions"].as_f64().unwrap();
    assert!(load("before", "eu") > 2_900.0 && load("before", "us") < 1.0, "{json}");
    assert!((load("after", "eu") / load("before", "eu") - 1.3).abs() < 0.01, "{json}");
    let json = json_of(&files, &["simulate", "--state", "state", "--total", "5000 sessions"]);
    assert!((json["before"]["regions"]["eu"]["load_sessions"].as_f64().unwrap() - 5000.0).abs() < 10.0, "{json}");
    let mut names: Vec<_> = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["demand.json", "lock"]);
}

#[test]
fn simulate_without_a_scale_says_that_the_sum_is_assumed() {
    let files = Files::new(SIZED);
    record(&files, None);
    let (code, out, _) = run(&files, &["simulate", "--state", "state"]);
    assert!(
        code == 0 && out.starts_with("35000 sessions assumed (70 % of the capacities written; no region has told yet")
    );
    let (code, out, _) = run(&files, &["simulate", "--state", "state", "--total", "900"]);
    assert!(code == 0 && out.starts_with("900 sessions given, spread as recorded 2026-11-22 23:05 UTC"), "{out}");
}

#[test]
fn simulate_sends_viewers_where_a_node_learned_that_it_costs_least() {
    let files = Files::new(SIZED);
    let (state, place) = record(&files, Some(0.5));
    let share = || {
        let json = json_of(&files, &["simulate", "--state", "state"]);
        let us = json["before"]["regions"]["us"].clone();
        (us["share"].as_f64().unwrap(), us["mean_ms"].as_f64())
    };
    assert_eq!(share(), (0.0, None));
    measure(&state, place, 250.0, 40.0);
    let (part, ms) = share();
    assert!(part > 0.99 && ms.is_some_and(|ms| ms < 60.0), "{part} {ms:?}");
    let (_, out, _) = run(&files, &["simulate", "--state", "state"]);
    assert!(out.lines().next().unwrap().ends_with("; costs learned"), "{out}");
}

#[test]
fn simulate_tells_of_a_state_directory_that_says_nothing_and_exits_1() {
    let files = Files::new(SIZED);
    let told = |expected: &str| {
        let (code, out, err) = run(&files, &["simulate", "--state", "state"]);
        assert_eq!((code, out.as_str()), (1, ""), "{expected}");
        assert!(err.starts_with(&format!("meridian: {expected}")) && err.contains("help: "), "{err}");
    };
    told("--state state: there is no such directory");
    let state = files.path("state");
    std::fs::create_dir(&state).unwrap();
    told("state/demand.json is not there: it would hold the queries/s of each stream");
    record(&files, Some(0.5));
    let sound = std::fs::read_to_string(state.join("demand.json")).unwrap();
    files.put("state/demand.json", sound.replace("600.0", "900.0"));
    told("state/demand.json cannot be used: its checksum does not fit");
    files.put("state/demand.json", "{}");
    told("state/demand.json cannot be used: it is not a state file of Meridian");
    files.put("state/demand.json", sound.replacen("demand", "orders", 1));
    told("state/demand.json cannot be used: it holds orders, not demand");
    file::write(&state, Kind::Demand, &Saved::default()).unwrap();
    told("state/demand.json: no query was recorded yet");
    files.put("state/demand.json", &sound);
    files.put("state/rtt.json", "meridian-state 1 rtt 00\n{}");
    told("state/rtt.json cannot be used: its checksum does not fit");
    let mut names: Vec<_> = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["demand.json", "rtt.json"], "nothing is set aside, and nothing locked");
    std::fs::remove_file(state.join("rtt.json")).unwrap();
    let (code, _, err) = run(&files, &["simulate", "--state", "state", "--at", "Tue 04:00"]);
    assert!(code == 1 && err.contains("what is usual on Tue at 04:00 UTC is not known yet"), "{err}");
    for wrong in [&["--at", "Sat 20:00"][..], &["--state", "state", "--at", "Saturday"]] {
        assert_eq!(run(&files, &[&["simulate"], wrong].concat()).0, 2, "{wrong:?}");
    }
}

#[test]
fn diff_on_what_a_node_recorded_moves_the_viewers_that_there_were() {
    let files = Files::new(SIZED);
    let (state, place) = record(&files, Some(0.5));
    files.put("next.toml", SIZED.replace("[stream.live]", "[stream.more]\n[stream.live]").replace("London", "Sydney"));
    let moved = || {
        let (code, out, err) = run(&files, &["diff", "next.toml", "--state", "state"]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        let json = json_of(&files, &["diff", "next.toml", "--state", "state"]);
        let sessions = json["before"]["regions"]["eu"]["load_sessions"].as_f64().unwrap();
        (json["streams"][0]["moved_share"].as_f64().unwrap(), sessions, out)
    };
    let (share, sessions, out) = moved();
    assert!(share > 0.99 && (sessions / 3000.0 - 1.0).abs() < 0.02, "all of the 3000 were at eu, which leaves: {out}");
    assert!(
        out.contains(
            " sessions over 2 streams, as recorded 2026-11-22 23:05 UTC; nobody asked for more.stream.example;"
        ),
        "{out}"
    );
    assert!(out.contains("; costs by distance, none is learned\n"), "{out}");
    let json = json_of(&files, &["diff", "next.toml", "--state", "state", "--total", "5000 sessions"]);
    assert!((json["before"]["regions"]["eu"]["load_sessions"].as_f64().unwrap() - 5000.0).abs() < 10.0, "{json}");
    // They were never at eu: it is far from them as they measured it.
    measure(&state, place, 250.0, 40.0);
    let (share, sessions, out) = moved();
    assert!(share < 0.01 && sessions < 1.0 && out.contains("; costs learned\n"), "{out}");
    let (code, out, err) = run(&files, &["diff", "next.toml", "--state", "none"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("meridian: --state none: there is no such directory"), "{err}");
}

#[test]
fn diff_tells_what_changes_and_who_goes_elsewhere() {
    let files = Files::new(SIZED);
    let next = SIZED
        .replace("London", "Frankfurt")
        .replace("30000", "20000")
        .replace("[stream.live]", "[stream.live]\nttl = \"10s\"\n[records]\nwww = { A = \"192.0.2.80\" }");
    files.put("next.toml", next);
    let (code, out, err) = run(&files, &["diff", "next.toml", "--total", "15000 sessions"]);
    assert_eq!((code, err.as_str()), (0, ""));
    insta::assert_snapshot!(out, @r"
    zone stream.example changed
      ~ region ap: capacity 30000 sessions -> 20000 sessions
      ~ region eu: place London -> Frankfurt
      ~ stream live: TTL 20s -> 10s
      + record www A

    live.stream.example: 0.2 % of the viewers go elsewhere
      0.2 % ap -> eu

    15000 sessions given, spread by the databases' addresses
     region  share  in use  mean ms  share then  in use then  mean ms then
     ap       27 %    13 %       93        26 %         20 %            92
     eu       27 %    40 %       35        27 %         41 %            33
     us       47 %    70 %       44        47 %         70 %            44
    ");
    let (code, out, _) = run(&files, &["diff", "zones", "next.toml", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["zones"][0]["change"]), (0, &Value::from("changed")));
    assert_eq!(json["streams"][0]["stream"], "live.stream.example");
    assert_eq!(run(&files, &["diff", "zones"]), (0, "nothing changes\n".into(), String::new()));
}

#[test]
fn diff_of_directories_tells_zones_that_come_and_go_and_of_faulty_files_only_the_faults() {
    let files = Files::new(SIZED);
    std::fs::create_dir(files.path("next")).unwrap();
    files.put("next/plain.example.toml", "zone = \"plain.example\"\nns = [\"ns1.example.net\"]\n");
    let (code, out, _) = run(&files, &["diff", "next"]);
    assert!(code == 0 && out.starts_with("zone stream.example removed\nzone plain.example added\n"), "{out}");
    files.put("next/plain.example.toml", "zone = \"plain.example\"\n");
    let (code, out, err) = run(&files, &["diff", "next"]);
    assert!(code == 1 && out.is_empty() && err.contains("next/plain.example.toml:"), "{err}");
    assert_eq!(run(&files, &["diff"]).0, 2);
    assert_eq!(run(&files, &["diff", "zones", "next", "more"]).0, 2);
}

#[test]
fn check_warns_of_a_loss_that_would_be_too_much() {
    let files = Files::new(SIZED);
    let (code, out, _) = run(&files, &["check"]);
    assert_eq!(code, 0);
    insta::assert_snapshot!(out, @r"
    zones/stream.example.toml:21:9: warning: ap cannot be lost: eu lacks 7508 sessions, us lacks 7493 sessions
      at 70 % of all capacity, spread by the databases' addresses, the others should have room for the viewers of any one region
      help: give eu room for 17508 sessions, or keep the load lower; see `meridian simulate --all-n-1`
    1 zone, 0 errors, 1 warning
    ");
}

#[test]
fn the_table_of_round_trip_times_is_judged_by_check_and_diff_as_by_serve() {
    let files = Files::new(SIZED);
    files.put("meridian.toml", "[steering]\nrtt = \"rtt.csv\"\n");
    files.put("next.toml", SIZED.replace("London", "Paris"));
    let told = |part: &str| {
        for arguments in [&["check"][..], &["check", "--json"], &["diff", "next.toml"], &["simulate"]] {
            let (code, out, err) = run(&files, arguments);
            assert!(code == 1 && format!("{out}{err}").contains(part), "{arguments:?}: {out}{err}");
        }
    };
    told("can't read the table of round-trip times");
    files.put("rtt.csv", "prefix,region,ms\n81.2.69.0/24,eu,NaN\n");
    told(" is no round-trip time");
    files.put("rtt.csv", "prefix,region,ms\n81.2.69.0/25,eu,20\n");
    told("81.2.69.0/25 is finer than /24");
    files.put("rtt.csv", "prefix,region,ms\n81.2.69.0/24,ue,20\n");
    let (code, out, _) = run(&files, &["check"]);
    assert!(code == 0 && out.contains("rtt.csv:2:14: warning: no zone uses a region ue"), "{out}");
    let (code, out, _) = run(&files, &["check", "next.toml"]);
    assert!(code == 0 && !out.contains("no zone uses"), "other files need not have all regions: {out}");
    files.put("rtt.csv", "prefix,region,ms\n81.2.69.0/24,eu,20\n");
    let (code, out, _) = run(&files, &["check"]);
    assert!(code == 0 && !out.contains("rtt.csv"), "{out}");
}

#[test]
fn simulate_takes_no_other_unit_than_the_zone_has_unless_a_session_is_written() {
    let files = Files::new(SIZED);
    for (arguments, place) in [
        (["--add", "sa=near:Sao Paulo,40Gbps"], "--add: \"40Gbps\" is in bits/s"),
        (["--total", "40Gbps"], "--total: \"40Gbps\" is in bits/s"),
    ] {
        let (code, out, err) = run(&files, &["simulate", arguments[0], arguments[1]]);
        assert!(code == 2 && out.is_empty() && err.contains(place), "{err}");
        let (rule, mend) = ("only by what a session takes", "session = \"5Mbps\" at the top of");
        assert!(err.contains(rule) && err.contains(mend), "{err}");
    }
    files.put("next.toml", SIZED.replace("London", "Paris"));
    let (code, _, err) = run(&files, &["diff", "next.toml", "--total", "40Gbps"]);
    assert!(code == 2 && err.contains("--total: \"40Gbps\" is in bits/s"), "{err}");
    files.put("zones/stream.example.toml", SIZED.replace("ns   =", "session = \"4Mbps\"\nns   ="));
    let (code, out, err) = run(&files, &["simulate", "--total", "40Gbps", "--add", "sa=near:Sao Paulo,40Gbps"]);
    assert!(code == 0 && out.starts_with("10000 sessions given"), "{out}{err}");
    files.put("zones/stream.example.toml", SIZED.replace("000 sessions", "Gbps"));
    let (code, _, err) = run(&files, &["simulate", "--add", "sa=near:Sao Paulo,400 sessions"]);
    assert!(code == 2 && err.contains("\"400 sessions\" is in sessions"), "{err}");
    let (code, out, err) = run(&files, &["simulate", "--total", "4000 sessions"]);
    assert!(code == 0 && out.starts_with("4000 sessions given"), "a count needs no unit: {out}{err}");
}

#[test]
fn check_says_of_losses_what_simulate_computes() {
    let files = Files::new(SIZED);
    let region = |name: &str, near: &str, n: u32, capacity: u32| {
        format!("[region.{name}]\nnear = \"{near}\"\na = [\"192.0.2.{n}\"]\ncapacity = \"{capacity} sessions\"\n")
    };
    let zone = |eu: u32| {
        let all = [("us", "Ashburn"), ("eu", "London"), ("ap", "Singapore"), ("sa", "São Paulo"), ("jp", "Tokyo")];
        let regions =
            all.iter().zip(1..).map(|((name, near), n)| region(name, near, n, if *name == "eu" { eu } else { 10_000 }));
        let head = "zone = \"stream.example\"\nns = [\"ns1.example.net\", \"ns2.example.net\"]\n";
        format!("{head}{}[stream.live]\n", regions.collect::<String>())
    };
    files.put("zones/stream.example.toml", zone(10_000));
    assert_eq!(run(&files, &["check"]), (0, "1 zone, 0 errors, 0 warnings\n".into(), String::new()));
    // As large as all others together.
    files.put("zones/stream.example.toml", zone(40_000));
    let (code, out, _) = run(&files, &["check"]);
    assert_eq!(code, 0);
    assert!(out.contains("warning: eu cannot be lost: ") && out.contains("1 zone, 0 errors, 1 warning"), "{out}");
    let (_, audit, _) = run(&files, &["simulate", "--all-n-1"]);
    let lacks = out.split(" lacks ").nth(1).and_then(|rest| rest.split(' ').next()).expect("how many");
    assert!(
        audit.lines().any(|line| line.starts_with(" eu ") && line.contains(&format!(" {lacks} "))),
        "{audit}\n{out}"
    );
}
