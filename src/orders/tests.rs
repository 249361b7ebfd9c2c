//! Orders in the field's words: a zone of three regions, times as hh:mm of one day.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::guard::{RegionFacts, ServerFacts, StreamFacts, ZoneFacts};
use super::*;
use crate::snapshot::standing::Forced;

fn at(time: &str) -> Timestamp {
    format!("2026-03-01T{time}Z").parse().expect("hh:mm:ss")
}

fn minutes(n: u64) -> Duration {
    Duration::from_mins(n)
}

/// A server: its addresses, `!` before those that the probes say are down.
fn server(text: &str) -> ServerFacts {
    let address = |word: &str| (word.trim_start_matches('!').parse().expect("an address"), !word.starts_with('!'));
    ServerFacts { addresses: text.split(' ').map(address).collect() }
}

fn region(name: &str, servers: &[&str]) -> RegionFacts {
    RegionFacts { name: name.into(), min_up: None, servers: servers.iter().map(|text| server(text)).collect() }
}

/// `live` over all regions, `game` over the first two.
fn zone(name: &str, min_regions: u8, regions: Vec<RegionFacts>) -> ZoneFacts {
    let all = (0..regions.len() as u8).collect();
    let streams = vec![
        StreamFacts { label: "live".into(), regions: all },
        StreamFacts { label: "game".into(), regions: vec![0, 1] },
    ];
    ZoneFacts { name: name.into(), min_regions, regions, streams }
}

fn facts() -> Facts {
    let regions = vec![
        region("eu-west", &["192.0.2.11 2001:db8:1::11", "192.0.2.12 2001:db8:1::12"]),
        region("us-east", &["198.51.100.11 2001:db8:2::11"]),
        region("ap", &["203.0.113.11"]),
    ];
    Facts { zones: vec![zone("stream.example", 1, regions)] }
}

fn with_min(min_regions: u8) -> Facts {
    let mut facts = facts();
    facts.zones[0].min_regions = min_regions;
    facts
}

fn draft(subject: Subject, action: Action) -> Draft {
    let (reason, author) = ("kernel update".to_owned(), "ann".to_owned());
    Draft { subject, zone: None, action, from: None, lasting: None, reason, author, anyway: false }
}

fn drain(region: &str) -> Draft {
    draft(Subject::Region(region.into()), Action::Drain { over: minutes(2) })
}

fn down(region: &str) -> Draft {
    draft(Subject::Region(region.into()), Action::ForceDown)
}

fn up(region: &str) -> Draft {
    draft(Subject::Region(region.into()), Action::ForceUp)
}

fn server_down(address: &str) -> Draft {
    draft(Subject::Server(ip(address)), Action::ForceDown)
}

fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

fn window(draft: Draft, from: &str, lasting: Duration) -> Draft {
    Draft { from: Some(at(from)), lasting: Some(lasting), ..draft }
}

fn give(book: &mut Book, draft: Draft, time: &str) -> u64 {
    book.give(draft, &facts(), at(time)).expect("an order that is taken").order.id
}

fn word(book: &Book, region: &str, time: &str) -> Word {
    book.words(at(time)).region("stream.example", region)
}

fn left(book: &Book, region: &str, time: &str) -> Option<f64> {
    word(book, region, time).left
}

fn refusal(book: &mut Book, draft: Draft, facts: &Facts, time: &str) -> String {
    refused(book, draft, facts, time).to_string()
}

fn refused(book: &mut Book, draft: Draft, facts: &Facts, time: &str) -> Refusal {
    let before = book.clone();
    let refusal = book.give(draft, facts, at(time)).expect_err("a refusal");
    assert_eq!(*book, before, "what is refused changes nothing");
    refusal
}

#[test]
fn a_drain_takes_the_share_away_evenly() {
    let mut book = Book::default();
    assert_eq!(left(&book, "eu-west", "10:00:00"), None);
    give(&mut book, drain("eu-west"), "10:00:00");
    assert_eq!(left(&book, "eu-west", "10:00:00"), Some(1.0));
    assert_eq!(left(&book, "eu-west", "10:00:30"), Some(0.75));
    assert_eq!(left(&book, "eu-west", "10:01:00"), Some(0.5));
    assert_eq!(left(&book, "eu-west", "10:02:00"), Some(0.0));
    assert_eq!(left(&book, "eu-west", "23:00:00"), Some(0.0), "until it is lifted");
    assert_eq!(left(&book, "us-east", "23:00:00"), None);
    assert_eq!(book.due(), Some(at("10:02:00")));
    assert!(matches!(&book.expire(&facts(), at("10:02:00"))[..], [(_, Turn::Emptied)]));
    assert_eq!(book.due(), None);
}

#[test]
fn a_drain_over_no_time_is_done_at_once() {
    let mut book = Book::default();
    give(&mut book, draft(Subject::Region("ap".into()), Action::Drain { over: Duration::ZERO }), "10:00:00");
    assert_eq!(left(&book, "ap", "10:00:00"), Some(0.0));
}

#[test]
fn a_clock_set_back_gives_no_more_than_the_whole_share() {
    let mut book = Book::default();
    give(&mut book, drain("ap"), "10:00:00");
    assert_eq!(left(&book, "ap", "09:00:00"), Some(1.0));
}

#[test]
fn a_clock_set_back_brings_no_share_back_and_neither_does_a_restart_with_a_wrong_clock() {
    let again = |book: &Book| -> Book { serde_json::from_str(&serde_json::to_string(book).unwrap()).unwrap() };
    let mut book = Book::default();
    give(&mut book, drain("ap"), "10:00:00");
    book.follow(at("10:01:30"));
    assert_eq!(left(&book, "ap", "09:00:00"), Some(0.25));
    assert_eq!(left(&again(&book), "ap", "09:00:00"), Some(0.25));
    assert_eq!(left(&again(&book), "ap", "10:01:45"), Some(0.125), "it goes on once the clock is right");
    let turns = book.expire(&facts(), at("10:02:00"));
    assert!(matches!(&turns[..], [(_, Turn::Emptied)]), "told, so that it is written: {turns:?}");
    let mut book = again(&book);
    assert_eq!(book.expire(&facts(), at("00:00:01")), []);
    assert_eq!(left(&book, "ap", "00:00:01"), Some(0.0));
    assert_eq!(book.status(at("00:00:01"))[0].state, "in force");
}

#[test]
fn an_order_ends_by_itself() {
    let mut book = Book::default();
    give(&mut book, Draft { lasting: Some(minutes(60)), ..down("ap") }, "10:00:00");
    assert_eq!(book.due(), Some(at("11:00:00")));
    assert_eq!(book.expire(&facts(), at("10:59:59")), []);
    assert_eq!(word(&book, "ap", "10:59:59").forced, Some(Forced::Down));
    assert_eq!(word(&book, "ap", "11:00:00").forced, None, "also before anybody has looked");
    let turns = book.expire(&facts(), at("11:00:00"));
    assert!(matches!(&turns[..], [(order, Turn::Ended)] if order.id == 1), "{turns:?}");
    assert_eq!(book.list(), []);
}

#[test]
fn a_window_begins_and_ends_at_its_times() {
    let mut book = Book::default();
    let id = give(&mut book, window(drain("eu-west"), "12:00:00", minutes(60)), "10:00:00");
    assert_eq!(book.due(), Some(at("12:00:00")));
    assert_eq!(left(&book, "eu-west", "12:30:00"), None, "not before it was begun");
    let turns = book.expire(&facts(), at("12:00:00"));
    assert!(matches!(&turns[..], [(order, Turn::Began)] if order.id == id), "{turns:?}");
    assert_eq!(left(&book, "eu-west", "12:01:00"), Some(0.5));
    assert_eq!(book.due(), Some(at("12:02:00")), "when it has come to nothing");
    book.expire(&facts(), at("12:02:00"));
    assert_eq!(book.due(), Some(at("13:00:00")));
    let turns = book.expire(&facts(), at("13:00:00"));
    assert!(matches!(&turns[..], [(_, Turn::Ended)]), "{turns:?}");
}

#[test]
fn a_drain_that_begins_late_still_begins_with_the_whole_share() {
    let mut book = Book::default();
    give(&mut book, window(drain("eu-west"), "12:00:00", minutes(60)), "10:00:00");
    book.expire(&facts(), at("12:10:00"));
    assert_eq!(left(&book, "eu-west", "12:10:00"), Some(1.0), "the node was down at 12:00");
    assert_eq!(book.due(), Some(at("12:12:00")));
}

#[test]
fn a_window_that_went_by_unseen_ends_without_having_begun() {
    let mut book = Book::default();
    give(&mut book, window(drain("eu-west"), "12:00:00", minutes(60)), "10:00:00");
    let turns = book.expire(&facts(), at("15:00:00"));
    assert!(matches!(&turns[..], [(_, Turn::Ended)]), "{turns:?}");
}

#[test]
fn a_new_drain_goes_on_from_where_the_old_one_was() {
    let mut book = Book::default();
    let first = give(&mut book, drain("eu-west"), "10:00:00");
    let slower = draft(Subject::Region("eu-west".into()), Action::Drain { over: minutes(10) });
    let given = book.give(slower, &facts(), at("10:01:00")).unwrap();
    assert_eq!(given.replaced.iter().map(|order| order.id).collect::<Vec<_>>(), [first]);
    assert_eq!(left(&book, "eu-west", "10:01:00"), Some(0.5), "no traffic comes back");
    assert_eq!(left(&book, "eu-west", "10:06:00"), Some(0.25));
    assert_eq!(book.list().len(), 1);
}

#[test]
fn a_drain_that_begins_beside_another_goes_on_from_what_is_left() {
    let mut book = Book::default();
    give(&mut book, Draft { lasting: Some(minutes(3)), ..drain("eu-west") }, "10:00:00");
    let beside = book.give(in_zone(drain("eu-west")), &facts(), at("10:01:00")).unwrap();
    assert_eq!(beside.replaced, [], "of another scope");
    book.lift(&Lift::Id(1), &facts()).unwrap();
    assert_eq!(left(&book, "eu-west", "10:01:00"), Some(0.5), "no traffic comes back");
    assert_eq!(left(&book, "eu-west", "10:02:00"), Some(0.25));
}

#[test]
fn a_drain_that_begins_by_its_time_goes_on_from_what_is_left() {
    for scope in [|draft| draft, in_zone] {
        let mut book = Book::default();
        give(&mut book, window(scope(drain("eu-west")), "12:00:00", minutes(60)), "10:00:00");
        let now = Draft { lasting: Some(minutes(20)), ..drain("eu-west") };
        give(&mut book, now, "11:59:00");
        book.expire(&facts(), at("12:00:00"));
        assert_eq!(left(&book, "eu-west", "12:00:00"), Some(0.5));
        book.expire(&facts(), at("12:19:00"));
        assert_eq!(left(&book, "eu-west", "12:19:00"), Some(0.0));
    }
}

#[test]
fn a_drain_of_every_zone_begins_whole_where_one_zone_alone_is_drained() {
    let mut facts = facts();
    facts.zones.push(ZoneFacts { name: "other.example".into(), ..facts.zones[0].clone() });
    let mut book = Book::default();
    book.give(in_zone(drain("eu-west")), &facts, at("10:00:00")).unwrap();
    book.give(drain("eu-west"), &facts, at("10:01:00")).unwrap();
    let left = |zone| book.words(at("10:01:00")).region(zone, "eu-west").left;
    assert_eq!((left("stream.example"), left("other.example")), (Some(0.5), Some(1.0)), "no jump anywhere");
}

#[test]
fn force_up_takes_the_place_of_force_down() {
    let mut book = Book::default();
    give(&mut book, down("ap"), "10:00:00");
    let given = book.give(up("ap"), &facts(), at("10:05:00")).unwrap();
    assert_eq!(given.replaced.len(), 1);
    assert_eq!(word(&book, "ap", "10:05:00").forced, Some(Forced::Up));
}

#[test]
fn a_drain_and_a_force_of_one_region_stand_beside_each_other() {
    let mut book = Book::default();
    give(&mut book, drain("ap"), "10:00:00");
    give(&mut book, up("ap"), "10:00:00");
    assert_eq!(word(&book, "ap", "10:01:00"), Word { forced: Some(Forced::Up), left: Some(0.5) });
}

#[test]
fn an_order_for_one_zone_and_one_for_all_stand_beside_each_other_and_the_latest_force_holds() {
    let mut book = Book::default();
    give(&mut book, Draft { zone: Some("Stream.Example.".into()), ..down("ap") }, "10:00:00");
    let all = give(&mut book, up("ap"), "10:00:01");
    assert_eq!(word(&book, "ap", "10:01:00").forced, Some(Forced::Up));
    book.lift(&Lift::Id(all), &facts()).unwrap();
    assert_eq!(word(&book, "ap", "10:01:00").forced, Some(Forced::Down));
    assert_eq!(book.words(at("10:01:00")).region("other.example", "ap").forced, None);
}

#[test]
fn of_several_drains_the_least_share_holds() {
    let mut book = Book::default();
    give(&mut book, drain("ap"), "10:00:00");
    let slow = Draft {
        zone: Some("stream.example".into()),
        ..draft(Subject::Region("ap".into()), Action::Drain { over: minutes(20) })
    };
    give(&mut book, slow, "10:00:00");
    assert_eq!(left(&book, "ap", "10:01:00"), Some(0.5));
}

#[test]
fn windows_at_other_times_are_kept_and_overlapping_ones_replaced() {
    let mut book = Book::default();
    give(&mut book, drain("ap"), "10:00:00");
    let noon = give(&mut book, window(drain("ap"), "12:00:00", minutes(60)), "10:00:00");
    let evening = give(&mut book, window(drain("ap"), "18:00:00", minutes(60)), "10:00:00");
    assert_eq!(book.list().len(), 3, "what is in force now stays in force");
    let given = book.give(window(drain("ap"), "12:30:00", minutes(60)), &facts(), at("10:00:00")).unwrap();
    assert_eq!(given.replaced.iter().map(|order| order.id).collect::<Vec<_>>(), [noon]);
    assert!(book.list().iter().any(|order| order.id == evening));
}

#[test]
fn a_server_is_forced_by_any_of_its_addresses() {
    let mut book = Book::default();
    give(&mut book, server_down("2001:db8:1::12"), "10:00:00");
    let words = book.words(at("10:00:00"));
    assert_eq!(words.server("stream.example", [ip("192.0.2.12"), ip("2001:db8:1::12")]), Some(Forced::Down));
    assert_eq!(words.server("stream.example", [ip("192.0.2.11"), ip("2001:db8:1::11")]), None);
}

#[test]
fn undrain_ends_what_has_begun_and_leaves_next_weeks_window() {
    let mut book = Book::default();
    let now = give(&mut book, drain("ap"), "10:00:00");
    let later = give(&mut book, window(drain("ap"), "18:00:00", minutes(60)), "10:00:00");
    let undrain = Lift::Drains { subject: Subject::Region("ap".into()), zone: None };
    let ids = |lifted: Lifted| lifted.orders.into_iter().map(|order| order.id).collect::<Vec<_>>();
    assert_eq!(ids(book.lift(&undrain, &facts()).unwrap()), [now]);
    assert_eq!(left(&book, "ap", "10:01:00"), None);
    assert_eq!(ids(book.lift(&undrain, &facts()).unwrap()), [later], "with nothing in force it means the window");
    assert!(book.lift(&undrain, &facts()).unwrap_err().to_string().contains("ap is not drained"));
}

#[test]
fn a_drain_of_every_zone_is_not_lifted_in_one() {
    let mut book = Book::default();
    let id = give(&mut book, drain("ap"), "10:00:00");
    let subject = Subject::Region("ap".into());
    let refused = book.lift(&Lift::Drains { subject, zone: Some("stream.example".into()) }, &facts()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("ap is not drained in stream.example alone; order {id} is about every zone: lift that")
    );
}

#[test]
fn lifting_a_force_leaves_the_drain() {
    let mut book = Book::default();
    give(&mut book, drain("ap"), "10:00:00");
    give(&mut book, down("ap"), "10:00:00");
    book.lift(&Lift::Forces { subject: Subject::Region("ap".into()), zone: None }, &facts()).unwrap();
    assert_eq!(word(&book, "ap", "10:01:00"), Word { forced: None, left: Some(0.5) });
}

#[test]
fn ids_are_never_used_again() {
    let mut book = Book::default();
    assert_eq!(give(&mut book, drain("ap"), "10:00:00"), 1);
    book.lift(&Lift::Id(1), &facts()).unwrap();
    assert_eq!(give(&mut book, drain("ap"), "10:00:00"), 2);
    assert_eq!(book.lift(&Lift::Id(1), &facts()).unwrap_err().to_string(), "no order 1 is in force or to come");
}

#[test]
fn drafts_about_nothing_are_refused_with_the_nearest_name() {
    let mut book = Book::default();
    let cases = [
        (drain("eu-wets"), "no zone has a region eu-wets; did you mean eu-west?"),
        (
            Draft { zone: Some("stream.exmaple".into()), ..drain("ap") },
            "no zone stream.exmaple is served here; did you mean stream.example?",
        ),
        (
            Draft { zone: Some("stream.example".into()), ..drain("nowhere") },
            "stream.example does not have a region nowhere",
        ),
        (server_down("192.0.2.99"), "no zone has a server 192.0.2.99"),
    ];
    for (draft, text) in cases {
        assert_eq!(refusal(&mut book, draft, &facts(), "10:00:00"), text);
    }
}

#[test]
fn drafts_beyond_the_bounds_are_refused() {
    let mut book = Book::default();
    let over = |over| draft(Subject::Region("ap".into()), Action::Drain { over });
    let lasting = |draft, lasting| Draft { lasting: Some(lasting), ..draft };
    let cases = [
        (Draft { reason: "x".repeat(501), ..drain("ap") }, "501 bytes"),
        (Draft { author: "x".repeat(501), ..drain("ap") }, "501 bytes"),
        (Draft { reason: "\u{1b}[31mred".into(), ..drain("ap") }, "control or format character"),
        (Draft { reason: "disk \u{202e}pu".into(), ..drain("ap") }, "the reason has"),
        (Draft { author: "a\u{2066}nn".into(), ..drain("ap") }, "the author has"),
        (Draft { reason: "two\nlines".into(), ..drain("ap") }, "line break"),
        (over(Duration::from_millis(24 * 3_600_000 + 1)), "24 hours"),
        (over(Duration::MAX), "24 hours"),
        (lasting(down("ap"), Duration::ZERO), "no time"),
        (lasting(down("ap"), LONGEST + Duration::from_secs(1)), "more than a year"),
        (lasting(down("ap"), Duration::MAX), "more than a year"),
        (lasting(drain("ap"), minutes(2)), "before the region is drained"),
        (Draft { from: Some(at("09:58:59")), ..drain("ap") }, "which is past"),
        (Draft { from: Some("2027-06-01T00:00:00Z".parse().unwrap()), ..drain("ap") }, "more than a year from now"),
        (Draft { from: Some(Timestamp::MAX), ..drain("ap") }, "more than a year from now"),
        (Draft { from: Some(Timestamp::MIN), ..drain("ap") }, "which is past"),
        (draft(Subject::Server(ip("192.0.2.11")), Action::Drain { over: minutes(2) }), "only regions are drained"),
    ];
    for (draft, text) in cases {
        let refused = refused(&mut book, draft, &facts(), "10:00:00");
        assert!(matches!(&refused, Refusal::Invalid(why) if why.contains(text)), "{refused:?} should say {text:?}");
    }
}

#[test]
fn a_beginning_a_moment_ago_means_now() {
    let mut book = Book::default();
    let given = book.give(Draft { from: Some(at("09:59:30")), ..drain("ap") }, &facts(), at("10:00:00")).unwrap();
    assert_eq!(given.order.from, at("10:00:00"));
    assert_eq!(left(&book, "ap", "10:00:00"), Some(1.0));
}

#[test]
fn the_thousand_and_first_order_is_refused() {
    let mut book = Book::default();
    let servers = (0..=MOST_ORDERS).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect::<Vec<_>>();
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let facts = Facts { zones: vec![zone("big.example", 1, vec![region("eu", &servers)])] };
    for server in &servers[..MOST_ORDERS] {
        book.give(draft(Subject::Server(ip(server)), Action::ForceUp), &facts, at("10:00:00")).unwrap();
    }
    let one_more = draft(Subject::Server(ip(servers[MOST_ORDERS])), Action::ForceUp);
    let refused = refused(&mut book, one_more, &facts, "10:00:00");
    assert!(matches!(&refused, Refusal::Full(why) if why.contains("1000 orders")), "{refused:?}");
    let replacing = draft(Subject::Server(ip(servers[0])), Action::ForceUp);
    book.give(replacing, &facts, at("10:00:00")).expect("it takes the place of another");
}

#[test]
fn a_drain_that_leaves_too_few_regions_is_refused_with_figures() {
    let mut book = Book::default();
    let mut facts = with_min(2);
    facts.zones[0].regions[2] = region("ap", &["!203.0.113.11"]);
    assert_eq!(
        refusal(&mut book, drain("eu-west"), &facts, "10:00:00"),
        "drain of eu-west would leave 1 of 3 regions of stream.example able to take clients (us-east); at least 2 are \
         asked for by `min_regions`. Give --anyway to do it all the same."
    );
    book.give(Draft { anyway: true, ..drain("eu-west") }, &facts, at("10:00:00")).expect("anyway");
}

#[test]
fn a_region_that_leaves_by_another_order_does_not_count() {
    let mut book = Book::default();
    book.give(drain("eu-west"), &with_min(2), at("10:00:00")).unwrap();
    let refused = refusal(&mut book, down("ap"), &with_min(2), "10:00:00");
    assert!(refused.starts_with("forcing ap down would leave 1 of 3 regions"), "{refused}");
    book.lift(&Lift::Id(1), &facts()).unwrap();
    book.give(down("ap"), &with_min(2), at("10:00:00")).expect("eu-west is back");
}

#[test]
fn draining_the_same_region_again_takes_nothing_away() {
    let mut book = Book::default();
    book.give(drain("eu-west"), &with_min(2), at("10:00:00")).unwrap();
    book.give(drain("eu-west"), &with_min(2), at("10:00:30")).expect("two were left before and are left now");
    book.give(down("eu-west"), &with_min(3), at("10:00:30")).expect("it was leaving already");
}

#[test]
fn a_region_that_is_down_may_be_drained_whatever_is_left() {
    let mut book = Book::default();
    let mut facts = with_min(3);
    facts.zones[0].regions[2] = region("ap", &["!203.0.113.11"]);
    book.give(drain("ap"), &facts, at("10:00:00")).expect("it takes no clients anyhow");
}

#[test]
fn no_steered_name_loses_its_last_region_of_an_address_type() {
    let mut book = Book::default();
    book.give(drain("eu-west"), &facts(), at("10:00:00")).unwrap();
    let refused = refusal(&mut book, drain("us-east"), &facts(), "10:00:00");
    let told = [
        "live of stream.example without a region able to take clients that ask for AAAA (of eu-west, us-east, ap)",
        "game of stream.example without a region able to take clients that ask for A (of eu-west, us-east)",
        "game of stream.example without a region able to take clients that ask for AAAA (of eu-west, us-east)",
        "Give --anyway",
    ];
    assert!(told.iter().all(|text| refused.contains(text)), "{refused}");
    book.give(drain("ap"), &facts(), at("10:00:00")).expect("us-east is left to all of them");
}

#[test]
fn forcing_a_server_down_counts_by_min_up() {
    let mut facts = facts();
    facts.zones[0].min_regions = 3;
    let mut book = Book::default();
    book.give(server_down("192.0.2.11"), &facts, at("10:00:00")).expect("half of eu-west's servers are enough");
    let refused = refusal(&mut book, server_down("192.0.2.12"), &facts, "10:00:00");
    assert!(refused.starts_with("forcing 192.0.2.12 down would leave 2 of 3 regions"), "{refused}");
    facts.zones[0].regions[0].min_up = Some(2);
    let mut book = Book::default();
    refusal(&mut book, server_down("192.0.2.11"), &facts, "10:00:00");
}

#[test]
fn a_region_forced_up_counts_as_able() {
    let mut facts = with_min(2);
    facts.zones[0].regions[2] = region("ap", &["!203.0.113.11"]);
    let mut book = Book::default();
    refusal(&mut book, drain("us-east"), &facts, "10:00:00");
    book.give(up("ap"), &facts, at("10:00:00")).unwrap();
    book.give(drain("us-east"), &facts, at("10:00:00")).expect("eu-west and ap");
}

#[test]
fn an_order_for_one_zone_is_judged_by_that_zone() {
    let mut facts = with_min(3);
    facts.zones.push(ZoneFacts { name: "other.example".into(), min_regions: 1, ..facts.zones[0].clone() });
    let mut book = Book::default();
    refusal(&mut book, drain("ap"), &facts, "10:00:00");
    book.give(Draft { zone: Some("other.example".into()), ..drain("ap") }, &facts, at("10:00:00")).unwrap();
}

#[test]
fn a_window_is_not_judged_by_what_the_probes_say_today() {
    let mut facts = with_min(2);
    facts.zones[0].regions[2] = region("ap", &["!203.0.113.11"]);
    let mut book = Book::default();
    book.give(window(drain("us-east"), "18:00:00", minutes(60)), &facts, at("10:00:00")).expect("ap may be up by then");
}

#[test]
fn windows_that_together_leave_too_little_are_refused_beforehand() {
    let mut book = Book::default();
    book.give(window(drain("eu-west"), "12:00:00", minutes(60)), &with_min(2), at("10:00:00")).unwrap();
    let refused = refusal(&mut book, window(drain("ap"), "12:30:00", minutes(60)), &with_min(2), "10:00:00");
    assert!(refused.contains("1 of 3 regions"), "{refused}");
    book.give(window(drain("ap"), "13:00:00", minutes(60)), &with_min(2), at("10:00:00")).expect("one after the other");
}

#[test]
fn a_window_that_would_leave_too_little_when_its_time_comes_does_not_begin() {
    let mut book = Book::default();
    let cautious = book.give(window(drain("us-east"), "12:00:00", minutes(60)), &with_min(2), at("10:00:00"));
    let id = cautious.unwrap().order.id;
    let mut facts = with_min(2);
    facts.zones[0].regions[2] = region("ap", &["!203.0.113.11"]);
    let turns = book.expire(&facts, at("12:00:00"));
    let [(order, Turn::Refused(text))] = &turns[..] else { panic!("{turns:?}") };
    assert_eq!(order.id, id);
    assert!(text.contains("1 of 3 regions of stream.example able to take clients (eu-west)"), "{text}");
    assert_eq!(left(&book, "us-east", "12:01:00"), None);
    assert_eq!(book.due(), None, "it is gone");

    let anyway = Draft { anyway: true, ..window(drain("us-east"), "12:00:00", minutes(60)) };
    book.give(anyway, &facts, at("10:00:00")).unwrap();
    assert!(matches!(&book.expire(&facts, at("12:00:00"))[..], [(_, Turn::Began)]));
}

#[test]
fn of_two_windows_that_begin_together_the_second_sees_the_first() {
    let mut book = Book::default();
    for name in ["eu-west", "ap"] {
        // At the time of giving, two are enough.
        book.give(window(drain(name), "12:00:00", minutes(60)), &with_min(1), at("10:00:00")).unwrap();
    }
    let turns = book.expire(&with_min(2), at("12:00:00"));
    assert!(matches!(&turns[..], [(_, Turn::Began), (_, Turn::Refused(_))]), "{turns:?}");
}

#[test]
fn what_ends_makes_room_for_what_begins_at_the_same_time() {
    let mut book = Book::default();
    book.give(Draft { lasting: Some(minutes(120)), ..drain("eu-west") }, &with_min(2), at("10:00:00")).unwrap();
    book.give(window(drain("ap"), "12:00:00", minutes(60)), &with_min(2), at("10:00:00")).unwrap();
    let turns = book.expire(&with_min(2), at("12:00:00"));
    assert!(matches!(&turns[..], [(_, Turn::Ended), (_, Turn::Began)]), "{turns:?}");
}

/// `us-east` and `ap` are down, so that `eu-west` must stay.
fn only_eu_west_is_up() -> Facts {
    let mut facts = facts();
    facts.zones[0].regions[1] = region("us-east", &["!198.51.100.11 !2001:db8:2::11"]);
    facts.zones[0].regions[2] = region("ap", &["!203.0.113.11"]);
    facts
}

fn in_zone(draft: Draft) -> Draft {
    Draft { zone: Some("stream.example".into()), ..draft }
}

fn ids(book: &Book) -> Vec<u64> {
    book.list().iter().map(|order| order.id).collect()
}

#[test]
fn a_force_that_begins_by_its_time_counts_more_than_one_given_after_it_but_begun_before() {
    let mut book = Book::default();
    let window_down = give(&mut book, window(in_zone(down("ap")), "12:00:00", minutes(60)), "10:00:00");
    let up_now = give(&mut book, up("ap"), "10:00:01");
    assert!(window_down < up_now);
    book.expire(&facts(), at("12:00:00"));
    assert_eq!(word(&book, "ap", "12:00:00").forced, Some(Forced::Down));
}

#[test]
fn the_last_to_begin_is_known_although_the_clock_was_set_back() {
    let mut book = Book::default();
    give(&mut book, in_zone(down("ap")), "10:00:00");
    give(&mut book, up("ap"), "09:00:00");
    assert_eq!(word(&book, "ap", "09:00:01").forced, Some(Forced::Up));
    let again: Book = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
    assert_eq!(word(&again, "ap", "09:00:01").forced, Some(Forced::Up), "over a restart too");
}

#[test]
fn a_window_that_begins_takes_the_place_of_those_of_its_kind_in_force() {
    let mut book = Book::default();
    let later = give(&mut book, window(down("ap"), "12:00:00", minutes(60)), "10:00:00");
    let now = give(&mut book, up("ap"), "10:00:01");
    let beside = [give(&mut book, in_zone(up("ap")), "10:00:02"), give(&mut book, drain("ap"), "10:00:02")];
    let turns = book.expire(&facts(), at("12:00:00"));
    let short: Vec<_> = turns.iter().map(|(order, turn)| (order.id, turn.clone())).collect();
    assert_eq!(short[..2], [(now, Turn::Replaced(later)), (later, Turn::Began)]);
    assert_eq!(ids(&book), [later, beside[0], beside[1]], "another zone and another kind stay");
    book.expire(&facts(), at("13:00:00"));
    assert_eq!(word(&book, "ap", "13:00:00").forced, Some(Forced::Up), "of its own zone");
}

#[test]
fn a_force_down_that_begins_under_a_force_up_is_judged_by_the_guard() {
    let mut book = Book::default();
    let facts = only_eu_west_is_up();
    book.give(window(down("eu-west"), "12:00:00", minutes(60)), &facts, at("10:00:00")).expect("others may be up then");
    let up_now = book.give(up("eu-west"), &facts, at("10:00:01")).unwrap().order.id;
    let turns = book.expire(&facts, at("12:00:00"));
    let [(_, Turn::Refused(text))] = &turns[..] else { panic!("{turns:?}") };
    assert!(text.contains("0 of 3 regions"), "{text}");
    assert_eq!(ids(&book), [up_now]);
}

#[test]
fn lifting_a_force_up_drops_the_force_down_under_it_that_would_leave_too_little() {
    let mut book = Book::default();
    give(&mut book, in_zone(down("eu-west")), "10:00:00");
    let cover = give(&mut book, up("eu-west"), "10:00:01");
    let lifted = book.lift(&Lift::Id(cover), &only_eu_west_is_up()).unwrap();
    assert_eq!(lifted.orders.iter().map(|order| order.id).collect::<Vec<_>>(), [cover]);
    let [(order, text)] = &lifted.dropped[..] else { panic!("{lifted:?}") };
    assert_eq!(order.id, 1);
    assert!(
        text.starts_with("uncovered by the end of order 2: forcing eu-west down in stream.example would"),
        "{text}"
    );
    assert!(text.contains("0 of 3 regions"), "{text}");
    assert_eq!(book.list(), []);
}

#[test]
fn a_force_up_that_ends_drops_the_force_down_under_it_that_would_leave_too_little() {
    let mut book = Book::default();
    give(&mut book, in_zone(down("eu-west")), "10:00:00");
    give(&mut book, Draft { lasting: Some(minutes(60)), ..up("eu-west") }, "10:00:01");
    assert_eq!(word(&book, "eu-west", "11:00:01").forced, Some(Forced::Up), "until the guard was asked");
    let turns = book.expire(&only_eu_west_is_up(), at("11:00:01"));
    assert!(matches!(&turns[..], [(_, Turn::Ended), (order, Turn::Dropped(_))] if order.id == 1), "{turns:?}");
    assert_eq!(word(&book, "eu-west", "11:00:01").forced, None);
}

#[test]
fn what_is_uncovered_and_leaves_enough_or_was_given_anyway_stays() {
    for (anyway, facts) in [(false, facts()), (true, only_eu_west_is_up())] {
        let mut book = Book::default();
        give(&mut book, Draft { anyway, ..in_zone(down("eu-west")) }, "10:00:00");
        let cover = give(&mut book, up("eu-west"), "10:00:01");
        assert_eq!(book.lift(&Lift::Id(cover), &facts).unwrap().dropped, []);
        assert_eq!(word(&book, "eu-west", "10:01:00").forced, Some(Forced::Down));
    }
}

#[test]
fn servers_forced_down_under_their_forced_up_region_are_judged_when_it_is_lifted() {
    let mut book = Book::default();
    let cover = give(&mut book, up("eu-west"), "10:00:00");
    let first = give(&mut book, server_down("192.0.2.11"), "10:00:01");
    let second = give(&mut book, server_down("192.0.2.12"), "10:00:02");
    let lifted = book.lift(&Lift::Id(cover), &only_eu_west_is_up()).unwrap();
    let dropped: Vec<u64> = lifted.dropped.iter().map(|(order, _)| order.id).collect();
    assert_eq!((dropped, ids(&book)), (vec![second], vec![first]), "half of its servers are enough");
}

#[test]
fn the_end_of_a_force_up_drops_nothing_that_held_all_along() {
    let mut facts = with_min(2);
    facts.zones[0].regions[2] = region("ap", &["!203.0.113.11"]);
    let mut book = Book::default();
    let cover = book.give(up("ap"), &facts, at("10:00:00")).unwrap().order.id;
    book.give(down("us-east"), &facts, at("10:00:00")).expect("eu-west and ap");
    book.give(drain("us-east"), &facts, at("10:00:00")).expect("it is leaving already");
    assert_eq!(book.lift(&Lift::Id(cover), &facts).unwrap().dropped, [], "us-east may be in the middle of its repair");
}

#[test]
fn status_tells_state_and_share() {
    let mut book = Book::default();
    give(&mut book, drain("eu-west"), "10:00:00");
    give(&mut book, server_down("203.0.113.11"), "10:00:00");
    give(&mut book, window(drain("eu-west"), "12:00:00", minutes(60)), "10:00:00");
    let status = book.status(at("10:01:30"));
    let short: Vec<_> = status.iter().map(|s| (s.id, &*s.action, &*s.subject, &*s.state, s.over_s, s.left)).collect();
    assert_eq!(
        short,
        [
            (1, "drain", "eu-west", "draining", Some(120.0), Some(0.25)),
            (2, "force down", "203.0.113.11", "in force", None, None),
            (3, "drain", "eu-west", "to come", Some(120.0), None),
        ]
    );
    assert_eq!(book.status(at("10:02:00"))[0].state, "in force");
    assert_eq!((status[0].from, status[0].until), (1_772_359_200.0, None));
}

#[test]
fn a_book_comes_back_from_its_json() {
    let mut book = Book::default();
    give(&mut book, drain("eu-west"), "10:00:00");
    give(&mut book, drain("eu-west"), "10:01:00");
    give(&mut book, server_down("2001:db8:1::12"), "10:00:00");
    give(&mut book, window(up("ap"), "12:00:00", minutes(60)), "10:00:00");
    let json = serde_json::to_string_pretty(&book).unwrap();
    insta::assert_snapshot!(json);
    assert_eq!(serde_json::from_str::<Book>(&json).unwrap(), book);
}

#[test]
fn a_book_that_breaks_its_own_rules_is_not_read() {
    let order = |id: u64, more: &str| {
        format!(
            r#"{{"order":{{"id":{id},"subject":{{"region":"ap"}},"action":{{"drain":{{"over_ms":1000}}}},"given":"2026-03-01T10:00:00Z","from":"2026-03-01T10:00:00Z","reason":"","author":"","anyway":false{more}}},"start":1.0}}"#
        )
    };
    let book = |next: u64, orders: &str| format!(r#"{{"next":{next},"orders":[{orders}]}}"#);
    let good = order(1, "");
    serde_json::from_str::<Book>(&book(2, &good)).expect("the good one");
    let bad = [
        book(1, &good),
        book(3, &format!("{good},{good}")),
        book(0, ""),
        book(u64::MAX, ""),
        book(2, &good.replace("1000", "86400001")),
        book(2, &good.replace(r#""start":1.0"#, r#""start":1.5"#)),
        book(2, &good.replace(r#""start":1.0"#, r#""start":null"#)),
        book(2, &good.replace(r#""start":1.0"#, r#""start":1.0,"left":-0.1"#)),
        book(2, &good.replace(r#"{"region":"ap"}"#, r#"{"server":"192.0.2.1"}"#)),
        book(2, &good.replace(r#""reason":"""#, &format!(r#""reason":"{}""#, "x".repeat(501)))),
        book(2, &order(1, r#","until":"2026-03-01T10:00:00Z""#)),
        book(2, &good.replace("drain", "dance")),
        book(2000, &(1..=1001).map(|id| order(id, "")).collect::<Vec<_>>().join(",")),
    ];
    for text in bad {
        assert!(serde_json::from_str::<Book>(&text).is_err(), "{}", &text[..text.len().min(300)]);
    }
}

/// What somebody may do with a book.
#[derive(Clone, Debug)]
enum Step {
    Give(Draft),
    Lift(Lift),
    Wait(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let subject = prop_oneof![
        4 => prop::sample::select(vec!["eu-west", "us-east", "ap", "nowhere"]).prop_map(|name| Subject::Region(name.into())),
        1 => prop::sample::select(vec!["192.0.2.11", "2001:db8:1::12", "203.0.113.11"]).prop_map(|a| Subject::Server(ip(a))),
    ];
    let zone =
        prop_oneof![3 => Just(None), 1 => Just(Some("stream.example".into())), 1 => Just(Some("no.example".into()))];
    let action = prop_oneof![
        3 => (0..600u64).prop_map(|s| Action::Drain { over: Duration::from_secs(s) }),
        1 => Just(Action::ForceDown),
        1 => Just(Action::ForceUp),
    ];
    let (later, lasting) = (prop::option::of(0..7200i64), prop::option::of(0..7200u64));
    let given = (subject.clone(), zone.clone(), action, later, lasting, any::<bool>());
    let given = given.prop_map(|(subject, zone, action, later, lasting, anyway)| {
        // Made relative to the time of giving below.
        let from = later.map(|s| Timestamp::from_second(s).unwrap());
        Draft { zone, from, lasting: lasting.map(Duration::from_secs), anyway, ..draft(subject, action) }
    });
    let lift = prop_oneof![
        (1..40u64).prop_map(Lift::Id),
        (subject.clone(), zone.clone()).prop_map(|(subject, zone)| Lift::Drains { subject, zone }),
        (subject, zone).prop_map(|(subject, zone)| Lift::Forces { subject, zone }),
    ];
    prop_oneof![
        5 => given.prop_map(Step::Give),
        2 => lift.prop_map(Step::Lift),
        3 => (0..4000u64).prop_map(|s| Step::Wait(Duration::from_secs(s))),
    ]
}

proptest! {
    #[test]
    fn any_sequence_of_orders_keeps_the_book_in_order(steps in prop::collection::vec(step(), 0..60)) {
        let (facts, mut now) = (facts(), at("10:00:00"));
        let mut book = Book::default();
        let mut highest = 0;
        for step in steps {
            let before = book.clone();
            match step {
                Step::Give(draft) => {
                    let from = draft.from.map(|later| now + Duration::from_secs(later.as_second() as u64));
                    match book.give(Draft { from, ..draft }, &facts, now) {
                        Ok(given) => {
                            prop_assert!(given.order.id > highest, "ids rise");
                            highest = given.order.id;
                            prop_assert_eq!(book.list().pop(), Some(given.order));
                            prop_assert_eq!(book.list().len() + given.replaced.len(), before.list().len() + 1);
                        }
                        Err(_) => prop_assert_eq!(&book, &before),
                    }
                }
                Step::Lift(lift) => match book.lift(&lift, &facts) {
                    Ok(Lifted { orders: gone, dropped }) => {
                        prop_assert!(!gone.is_empty());
                        // Only what a force up had covered, and what nobody had insisted on.
                        let covered = gone.iter().any(|order| order.action == Action::ForceUp);
                        prop_assert!(dropped.is_empty() || covered);
                        let droppable = |order: &Order| order.action == Action::ForceDown && !order.anyway;
                        prop_assert!(dropped.iter().all(|(order, _)| droppable(order)));
                        prop_assert_eq!(book.list().len() + gone.len() + dropped.len(), before.list().len());
                    }
                    Err(_) => prop_assert_eq!(&book, &before),
                },
                Step::Wait(time) => {
                    now += time;
                    book.expire(&facts, now);
                    prop_assert!(book.due().is_none_or(|due| due > now), "nothing is left undone");
                    prop_assert_eq!(book.expire(&facts, now), vec![], "once is enough");
                }
            }
            let list = book.list();
            prop_assert!(list.len() <= MOST_ORDERS);
            prop_assert!(list.is_sorted_by(|a, b| a.id < b.id));
            let words = book.words(now);
            for region in ["eu-west", "us-east", "ap"] {
                let left = words.region("stream.example", region).left;
                prop_assert!(left.is_none_or(|left| (0.0..=1.0).contains(&left)));
            }
            let again: Book = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
            prop_assert_eq!(again, book.clone());
        }
    }

    /// With every server up and nobody saying `anyway`, somewhere is always open.
    #[test]
    fn orders_that_were_not_forced_through_always_leave_enough(steps in prop::collection::vec(step(), 0..60)) {
        let (facts, mut now) = (with_min(2), at("10:00:00"));
        let mut book = Book::default();
        for step in steps {
            match step {
                Step::Give(draft) => {
                    let from = draft.from.map(|later| now + Duration::from_secs(later.as_second() as u64));
                    let _ = book.give(Draft { from, anyway: false, ..draft }, &facts, now);
                }
                Step::Lift(lift) => { let _ = book.lift(&lift, &facts); }
                Step::Wait(time) => {
                    now += time;
                    book.expire(&facts, now);
                }
            }
            // Counted by hand: nothing that the guard itself uses.
            let words = book.words(now);
            let closed = |name: &str, addresses: &[&str]| {
                let word = words.region("stream.example", name);
                let all_down = |a: &&str| words.server("stream.example", a.split(' ').map(ip)) == Some(Forced::Down);
                let forced_down = word.forced.map_or(addresses.iter().all(all_down), |forced| forced == Forced::Down);
                word.left.is_some() || forced_down
            };
            let closed = [
                closed("eu-west", &["192.0.2.11 2001:db8:1::11", "192.0.2.12 2001:db8:1::12"]),
                closed("us-east", &["198.51.100.11 2001:db8:2::11"]),
                closed("ap", &["203.0.113.11"]),
            ];
            prop_assert!(closed.iter().filter(|closed| **closed).count() <= 1, "{:?}", book);
            prop_assert!(!(closed[0] && closed[1]), "AAAA and game have a region left");
        }
    }
}
