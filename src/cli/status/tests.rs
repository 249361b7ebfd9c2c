use super::*;
use crate::status::{OrderStatus, RegionSteering, SnapshotStatus, ZoneStatus};

const NOW: f64 = 1_777_672_800.0;

fn target(probed: &str, verdict: &str, cause: &str) -> TargetStatus {
    TargetStatus {
        probed: probed.to_owned(),
        verdict: verdict.to_owned(),
        stale: false,
        damped_s: None,
        cause: Some(cause.to_owned()),
        since: Some(NOW - 95.0),
        rtt_ms: Some(12.34),
        last_result_s: 0.3,
        last_beat_s: None,
    }
}

fn server(address: &str, targets: Vec<TargetStatus>) -> ServerStatus {
    ServerStatus { addresses: vec![address.to_owned()], weight: 1, targets, forced: None, load: None }
}

fn region(name: &str, near: &str, servers: Vec<ServerStatus>) -> RegionStatus {
    let up = servers.iter().any(|server| server_ease(server) != Ease::Bad);
    RegionStatus {
        name: name.to_owned(),
        near: Some(near.to_owned()),
        up_v4: Some(up),
        up_v6: None,
        mode: "steady".to_owned(),
        share_allowed: 1.0,
        share_of_answers: Some(0.25),
        answers_per_s: 512.0,
        load: None,
        steering: None,
        servers,
    }
}

/// A node with a region of every kind.
pub fn example() -> Status {
    let up = |address: &str| server(address, vec![target(address, "up", "status 200")]);
    let down = |address: &str| server(address, vec![target(address, "down", "connection refused")]);
    let mut draining = region("frankfurt", "Frankfurt", vec![up("192.0.2.31"), up("192.0.2.32")]);
    (draining.mode, draining.share_allowed) = ("draining".to_owned(), 0.415);
    let mut odd = up("192.0.2.12");
    odd.targets[0].verdict = "damped".to_owned();
    odd.targets[0].damped_s = Some(42.0);
    odd.targets[0].stale = true;
    let mut loaded = up("192.0.2.11");
    loaded.load =
        Some(LoadStatus { age_s: 0.1, sessions: Some(1234), bits_per_s: Some(8_100_000_000), cpu: Some(0.37) });
    let mut forced = up("192.0.2.22");
    forced.forced = Some("down".to_owned());
    let mut silent = region("tokyo", "Tokyo", vec![down("192.0.2.41"), forced]);
    (silent.share_of_answers, silent.answers_per_s) = (None, 0.0);
    Status {
        version: "0.1.0".to_owned(),
        at: NOW,
        started: NOW - 7800.0,
        snapshot: SnapshotStatus { generation: 17, age_s: 95.0 },
        qps: 2048.0,
        zones: vec![ZoneStatus {
            name: "stream.example".to_owned(),
            serial: 7,
            qps: 2040.0,
            regions: vec![region("london", "London", vec![loaded, odd]), draining, silent],
        }],
        orders: vec![
            OrderStatus {
                id: 3,
                action: "drain".to_owned(),
                subject: "frankfurt".to_owned(),
                zone: None,
                state: "draining".to_owned(),
                from: NOW - 70.0,
                until: Some(NOW + 7130.0),
                over_s: Some(120.0),
                reason: "kernel update".to_owned(),
                author: "alice".to_owned(),
                left: Some(0.415),
            },
            OrderStatus {
                id: 4,
                action: "force down".to_owned(),
                subject: "192.0.2.22".to_owned(),
                zone: Some("stream.example".to_owned()),
                state: "to come".to_owned(),
                from: NOW + 3600.0,
                until: None,
                over_s: None,
                reason: "disk\u{1b}[2J".to_owned(),
                author: "local".to_owned(),
                left: None,
            },
        ],
        kept: true,
        not_kept_because: None,
    }
}

fn plain(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
    lines.join("\n")
}

/// The same, some of it steered by load.
pub fn steered_example() -> Status {
    let mut status = example();
    let steering = |utilization, planned, price_ms, stage: &str| {
        Some(RegionSteering { stage: stage.to_owned(), utilization, planned, price_ms, starts_per_s: 12.34 })
    };
    let regions = &mut status.zones[0].regions;
    regions[0].steering = steering(Some(0.81), Some(0.834), 22.5, "steered");
    regions[1].steering = steering(Some(0.97), Some(1.02), 412.0, "steered");
    regions[2].steering = steering(None, None, 0.0, "unreported");
    status
}

#[test]
fn regions_that_are_steered_by_load_show_how() {
    let lines = page(&steered_example(), NOW);
    let from = lines.iter().position(|line| line.contains("price ms")).unwrap();
    let words = |at: usize| plain(&lines[at..=at]).split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    assert_eq!(words(from), "zone region starts/s used planned price ms steering");
    assert_eq!(words(from + 1), "stream.example london 12 81 % 83 % 22.5 steered");
    assert_eq!(words(from + 2), "stream.example frankfurt 12 97 % 102 % 412.0 steered");
    assert_eq!(words(from + 3), "stream.example tokyo 12 - - - unreported");
    assert!(lines[from + 2].starts_with(&BAD.to_string()) && lines[from + 3].starts_with(&ODD.to_string()));
    assert!(!plain(&page(&example(), NOW)).contains("price ms"));
}

#[test]
fn a_status_is_shown_as_tables() {
    insta::assert_snapshot!(plain(&page(&example(), NOW)));
}

#[test]
fn rows_are_coloured_by_how_much_is_wrong() {
    let lines = page(&example(), NOW);
    let style = |what: &str| {
        let line = lines.iter().find(|line| line.contains(what)).unwrap();
        [(BAD, Ease::Bad), (ODD, Ease::Odd)]
            .into_iter()
            .find(|(style, _)| line.starts_with(&style.to_string()))
            .map_or(Ease::Well, |(_, ease)| ease)
    };
    assert_eq!(style("London"), Ease::Well);
    assert_eq!(style("Frankfurt"), Ease::Odd);
    assert_eq!(style("Tokyo"), Ease::Bad);
    assert_eq!((style("192.0.2.11"), style("192.0.2.12"), style("192.0.2.41")), (Ease::Well, Ease::Bad, Ease::Bad));
}

#[test]
fn a_node_without_zones_is_one_line() {
    let status = Status { zones: vec![], orders: vec![], ..example() };
    assert_eq!(plain(&page(&status, NOW)), "meridian 0.1.0, up 2h 10m, 2048 queries/s, snapshot 17 of 1m 35s ago");
}

#[test]
fn a_node_that_keeps_nothing_over_a_restart_says_why_in_its_second_line() {
    let why = Some("the state directory state is in use by process 7".to_owned());
    let lines = page(&Status { kept: false, not_kept_because: why, ..example() }, NOW);
    let wanted = "not kept over a restart: the state directory state is in use by process 7";
    assert_eq!(plain(&lines[1..2]), wanted);
}

#[test]
fn the_status_of_an_older_node_can_be_read() {
    let mut status = json!(example());
    let fields = status.as_object_mut().unwrap();
    assert!(fields.remove("kept").is_some() && fields.remove("not_kept_because").is_some());
    assert_eq!(serde_json::from_value::<Status>(status).unwrap(), example());
}
