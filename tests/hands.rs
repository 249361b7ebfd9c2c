//! The operator's hands on a running node: orders by the command line, asked with dig, kept through kill -9.

mod node;

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use node::{Files, LONDON, Node, ZONE, wait_for};

/// Runs a command against a node.
fn run(files: &Files, node: &Node, arguments: &[&str]) -> Output {
    files.command(arguments).env("MERIDIAN_SERVER", format!("http://{}", node.admin)).output().unwrap()
}

/// Runs a command that has to be done, and gives what it prints.
fn done(files: &Files, node: &Node, arguments: &[&str]) -> String {
    let output = run(files, node, arguments);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    out
}

fn json(files: &Files, node: &Node, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(files, node, arguments)).unwrap()
}

fn region<'a>(status: &'a Value, name: &str) -> &'a Value {
    let regions = status["zones"][0]["regions"].as_array().unwrap();
    regions.iter().find(|region| region["name"] == name).unwrap()
}

/// TTL of the first answer.
fn ttl(node: &Node, subnet: &str) -> u32 {
    let answer = node.dig_all("live.stream.example", &[&format!("+subnet={subnet}"), "+noall", "+answer"]);
    answer.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_drained_region_is_left_and_taken_again() {
    let files = Files::new(ZONE);
    let node = files.serve();
    assert_eq!((node.dig("live.stream.example", LONDON).as_str(), ttl(&node, LONDON)), ("192.0.2.21", 20));
    done(&files, &node, &["drain", "eu", "--over", "1h", "--reason", "slowly"]);
    assert_eq!(ttl(&node, LONDON), 10, "while it drains");
    done(&files, &node, &["drain", "eu", "--over", "0s", "--reason", "at once"]);
    node.wait_for_answer(LONDON, "192.0.2.11");
    assert_eq!(ttl(&node, LONDON), 20, "nothing moves any more");
    let status = json(&files, &node, &["status", "--json"]);
    assert_eq!(region(&status, "eu")["mode"], "drained");
    assert_eq!(status["orders"][0]["left"], 0.0);
    let explained = done(
        &files,
        &node,
        &["explain", "live.stream.example", "--client", LONDON, "--server", &format!("http://{}", node.admin)],
    );
    assert!(explained.contains("drained by the operator"), "{explained}");

    let refused = run(&files, &node, &["drain", "us", "--reason", "too much"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(told.contains("would leave 0 of 2 regions") && told.contains("--anyway"), "{told}");

    done(&files, &node, &["undrain", "eu"]);
    let status = json(&files, &node, &["status", "--json"]);
    assert_eq!(region(&status, "eu")["mode"], "ramping", "from a tenth on");
    assert_eq!(ttl(&node, LONDON), 10);
    let events = done(&files, &node, &["events"]);
    for word in ["order given", "drained", "order refused", "order lifted", "ramp started"] {
        assert!(events.contains(word), "{word}: {events}");
    }
}

#[test]
fn a_drain_moves_blocks_one_after_another_and_each_once() {
    let files = Files::new(ZONE);
    let node = files.serve();
    // All are nearest to London. Blocks of one place leave one after another, not together.
    let blocks: Vec<String> = (0..40).map(|n| format!("81.{}.{}.0/24", 128 + n / 10, n % 10 * 16)).collect();
    let answers = || -> BTreeMap<&str, String> {
        blocks.iter().map(|block| (block.as_str(), node.dig("live.stream.example", block))).collect()
    };
    let before = answers();
    let here: Vec<&str> =
        before.iter().filter(|(_, answer)| *answer == "192.0.2.21").map(|(block, _)| *block).collect();
    assert!(here.len() >= 30, "{before:?}");
    done(&files, &node, &["drain", "eu", "--over", "4s", "--reason", "test"]);
    let mut left: Vec<usize> = vec![];
    let mut gone: Vec<&str> = vec![];
    wait_for("the drain ends", || {
        let now = answers();
        assert!(gone.iter().all(|block| now[block] == "192.0.2.11"), "whoever left stays away");
        gone = here.iter().copied().filter(|block| now[block] == "192.0.2.11").collect();
        left.push(here.len() - gone.len());
        gone.len().eq(&here.len()).then_some(())
    });
    assert!(left.iter().any(|left| (3..=here.len() - 3).contains(left)), "not all at once: {left:?}");
}

#[test]
fn verdicts_orders_and_events_outlive_kill_9() {
    // Nobody listens there: down before anything is asked.
    let dead = "ramp = \"0s\"\nserver = [{ a = \"192.0.2.21\", probe = \"127.0.0.1:9\" }]\ncheck = { tcp = 9 }";
    let third = "[region.ap]\nnear = \"Singapore\"\na = [\"192.0.2.31\"]\n[stream.live]";
    let zone = ZONE.replace("a    = [\"192.0.2.21\"]", dead).replace("[stream.live]", third);
    let files = Files::new(&zone);
    let mut node = files.serve();
    node.wait_for_answer(LONDON, "192.0.2.11");
    done(&files, &node, &["drain", "us", "--over", "0s", "--for", "2h", "--reason", "disks"]);
    node.wait_for_answer(LONDON, "192.0.2.31");
    // Written behind, within a moment.
    std::thread::sleep(Duration::from_millis(500));
    let orders = done(&files, &node, &["orders", "--json"]);
    let before = events(&files, &node);
    node.child.kill().unwrap();
    node.child.wait().unwrap();

    let node = files.serve();
    assert_eq!(node.dig("live.stream.example", LONDON), "192.0.2.31", "the very first answer");
    assert_eq!(done(&files, &node, &["orders", "--json"]), orders);
    let after = events(&files, &node);
    assert_eq!(after[..before.len()], before);
    assert_eq!(after[before.len()]["kind"], "started", "and no word of what was known");
    assert!(!after[before.len()..].iter().any(|event| event["kind"] == "server_down"), "{after:?}");
}

/// All events, which are printed a line each.
fn events(files: &Files, node: &Node) -> Vec<Value> {
    let lines = done(files, node, &["events", "--json", "--limit", "1000"]);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_not_understood_is_told_and_changes_nothing() {
    let files = Files::new(ZONE);
    let node = files.serve();
    for (arguments, word) in [
        (&["drain", "atlantis", "--reason", "x"][..], "atlantis"),
        (&["force", "down", "192.0.2.99", "--reason", "x"], "192.0.2.99"),
        (&["lift", "7"], "7"),
        (&["undrain", "eu"], "eu"),
        (&["drain", "eu", "--zone", "other.example", "--reason", "x"], "other.example"),
    ] {
        let output = run(&files, &node, arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.contains(word), "{arguments:?}: {told}");
    }
    assert_eq!(run(&files, &node, &["drain", "eu"]).status.code(), Some(2), "a reason is asked for");
    assert_eq!(json(&files, &node, &["orders", "--json"])["orders"], serde_json::json!([]));
}
