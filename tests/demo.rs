//! The demo without a terminal, as a script or CI would run it.

mod node;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use node::{Files, Node, ZONE};
use serde_json::Value;

#[test]
fn killing_and_reviving_a_region_moves_the_answers_of_its_viewers() {
    let files = Files::new(ZONE);
    let listen = node::free_address().to_string();
    let mut command = files.command(&["demo", "--listen", &listen, "--admin", "127.0.0.1:0", "--log", "json"]);
    command.stdout(Stdio::piped());
    let mut node = Node::start(command);
    let mut told = BufReader::new(node.child.stdout.take().unwrap()).lines();
    let first = told.next().unwrap().unwrap();
    assert_eq!(first, format!("Meridian demo: DNS on {}, admin on http://{}", node.dns, node.admin));
    let london = |node: &Node| node.dig("live.stream.example", "81.2.69.0/24");
    assert_eq!(london(&node), "198.51.100.11 198.51.100.12");

    let act = |path: &str| -> Value {
        let (status, body) = node.http("POST", path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    };
    let killed = act("/demo/kill/london");
    assert_eq!(killed["viewer"], "London");
    assert!(killed["milliseconds"].as_f64().unwrap() < 2000.0, "{killed}");
    assert_eq!(london(&node), "198.51.100.21 198.51.100.22", "Frankfurt is next");
    act("/demo/revive/london");
    assert_eq!(london(&node), "198.51.100.11 198.51.100.12");
    let frozen = act("/demo/freeze/london");
    assert!(frozen["milliseconds"].as_f64().unwrap() < 4000.0, "two target durations of a second: {frozen}");
    assert_eq!(london(&node), "198.51.100.21 198.51.100.22", "Frankfurt is next");
    act("/demo/revive/london");
    assert_eq!(london(&node), "198.51.100.11 198.51.100.12");
    act("/demo/hang/london/1");
    assert_eq!(london(&node), "198.51.100.12", "half a region is still up");
    for path in ["/demo/kill/atlantis", "/demo/kill/london/3", "/demo/paint/london"] {
        assert_eq!(node.http("POST", path).0, 404, "{path}");
    }
    assert_eq!(node.http("GET", "/demo/kill/london").0, 405, "a look changes nothing");
    // Told in the tick in which it is seen, or the one before its cause is told.
    let last = "london server 1 hung: ";
    let lines: Vec<String> = told.by_ref().map_while(Result::ok).take_while(|line| !line.starts_with(last)).collect();
    node.signal("TERM");
    assert_eq!(node.wait(), Some(0));
    let as_started = format!("{} explain live.stream.example ", env!("CARGO_BIN_EXE_meridian"));
    for start in [
        as_started.as_str(),
        "london killed: the answer for London changed after ",
        "London (81.2.69.0/24): london, other addresses  198.51.100.12",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start:?} in {lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.contains("london -> london")), "{lines:#?}");
}
