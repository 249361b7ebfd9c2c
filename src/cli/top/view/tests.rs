use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::cli::status::tests::{example, steered_example};

fn entry(id: u64) -> Entry {
    let text = format!(
        r#"{{"id":{id},"at":"2026-05-01T21:59:{:02}Z","kind":"server_down","zone":"stream.example",
        "region":"tokyo","server":"192.0.2.41","cause":"connection refused"}}"#,
        id % 60
    );
    serde_json::from_str(&text).unwrap()
}

fn screen() -> Screen {
    let mut screen = Screen::new("http://127.0.0.1:8053".to_owned(), true);
    screen.hear(News::Status(Box::new(example()), (1..=9).map(entry).collect()));
    screen
}

fn drawn(screen: &mut Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn all_of_it_fits_a_small_terminal() {
    insta::assert_snapshot!(drawn(&mut screen(), 80, 24));
}

#[test]
fn a_larger_terminal_has_the_curve() {
    let mut screen = screen();
    for qps in [0.0, 500.0, 1000.0, 4000.0] {
        screen.hear(News::Status(Box::new(Status { qps, ..example() }), vec![]));
    }
    insta::assert_snapshot!(drawn(&mut screen, 120, 32));
}

#[test]
fn regions_that_are_steered_by_load_have_their_columns() {
    let mut screen = Screen::new("http://127.0.0.1:8053".to_owned(), true);
    screen.hear(News::Status(Box::new(steered_example()), vec![]));
    let text = drawn(&mut screen, 120, 32);
    let line =
        |what: &str| text.lines().find(|line| line.contains(what)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert!(line("answers/s").join(" ").contains("used planned price ms steering"), "{text}");
    assert!(line("London").join(" ").contains("81 % 83 % 22.5 steered"), "{text}");
    let text = drawn(&mut screen, 80, 24);
    assert!(text.contains("london") && text.contains("DOWN"), "what mattered before is there all the same: {text}");
}

#[test]
fn before_the_first_answer_it_says_whom_it_asks() {
    let mut screen = Screen::new("http://127.0.0.1:8053".to_owned(), true);
    assert!(drawn(&mut screen, 80, 24).contains("asking http://127.0.0.1:8053"));
}

#[test]
fn a_server_that_is_silent_is_told_and_what_it_said_last_stays() {
    let mut screen = screen();
    screen.hear(News::Silent("nobody listens there".to_owned()));
    let text = drawn(&mut screen, 80, 24);
    assert!(text.contains("http://127.0.0.1:8053 does not answer, trying again: nobody listens there"), "{text}");
    assert!(text.contains("frankfurt"), "{text}");
    screen.hear(News::Status(Box::new(example()), vec![]));
    assert!(!drawn(&mut screen, 80, 24).contains("does not answer"));
}

#[test]
fn the_chosen_region_s_servers_are_shown() {
    let mut screen = screen();
    assert!(drawn(&mut screen, 80, 24).contains("servers of london of stream.example"));
    (0..9).for_each(|_| screen.go(Move::Down));
    let text = drawn(&mut screen, 80, 24);
    assert!(text.contains("servers of tokyo of") && text.contains("connection refused"), "{text}");
    // One of the regions goes with a reload.
    let mut status = example();
    status.zones[0].regions.pop();
    screen.hear(News::Status(Box::new(status), vec![]));
    assert!(drawn(&mut screen, 80, 24).contains("servers of frankfurt of"));
    (0..9).for_each(|_| screen.go(Move::Up));
    assert!(drawn(&mut screen, 80, 24).contains("servers of london of"));
}

#[test]
fn older_events_stay_in_place_while_newer_ones_come() {
    let mut screen = screen();
    assert!(drawn(&mut screen, 80, 24).contains("21:59:09"));
    screen.go(Move::Older);
    let before = drawn(&mut screen, 80, 24);
    assert!(
        before.contains("21:59:06") && !before.contains("21:59:07") && before.contains("events, 3 newer"),
        "{before}"
    );
    screen.hear(News::Status(Box::new(example()), vec![entry(10)]));
    assert!(drawn(&mut screen, 80, 24).contains("events, 4 newer"));
    (0..2).for_each(|_| screen.go(Move::Newer));
    assert!(drawn(&mut screen, 80, 24).contains("21:59:10"));
    screen.hear(News::Status(Box::new(example()), (11..=2000).map(entry).collect()));
    assert_eq!(screen.events.len(), EVENTS, "memory has an end");
}

#[test]
fn a_journal_that_began_anew_is_told_and_what_was_seen_before_stays() {
    let mut screen = screen();
    screen.hear(News::Anew);
    screen.hear(News::Status(Box::new(example()), vec![entry(1)]));
    let text = drawn(&mut screen, 80, 24);
    assert!(text.contains("events, the journal began anew") && text.contains("21:59:09"), "{text}");
    assert_eq!(screen.events.len(), 10);
}

#[test]
fn no_size_of_terminal_and_no_number_of_regions_is_too_much() {
    let mut status = example();
    let region = status.zones[0].regions[0].clone();
    status.zones[0].regions = vec![region; 64];
    let server = status.zones[0].regions[3].servers[0].clone();
    status.zones[0].regions[3].servers = vec![server; 200];
    let order = status.orders[0].clone();
    status.orders = vec![order; 50];
    for (width, height) in [(1, 1), (80, 1), (1, 24), (20, 5), (80, 24), (80, 12), (300, 100)] {
        let mut screen = Screen::new("http://127.0.0.1:8053".to_owned(), false);
        drawn(&mut screen, width, height);
        screen.hear(News::Status(Box::new(status.clone()), (1..=9).map(entry).collect()));
        (0..50).for_each(|_| screen.go(Move::Down));
        drawn(&mut screen, width, height);
    }
    let mut screen = Screen::new("http://127.0.0.1:8053".to_owned(), false);
    screen.hear(News::Status(Box::new(status), vec![entry(1)]));
    (0..50).for_each(|_| screen.go(Move::Down));
    let text = drawn(&mut screen, 80, 24);
    assert!(text.contains("regions, 51 of 64") && text.contains("21:59:01"), "{text}");
}
