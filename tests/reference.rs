//! Wire answers against two other readings of the same zones: the reference beside this file, and the Catalog of
//! hickory-server.
//!
//! Zones are generated from a handful of labels, so that names collide, enclose each other, go missing in between,
//! fall under wildcards and zone cuts, and alias each other in chains and loops.

#[path = "reference/catalog.rs"]
mod catalog;
#[path = "reference/generate.rs"]
mod generate;
#[path = "reference/mod.rs"]
mod reference;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use meridian::answer::{Client, Outcome, Transport, UDP_PAYLOAD, respond};
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::snapshot::{Served, Snapshot};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use catalog::{Oracle, section};
use generate::{Question, World};
use reference::{Reference, Rr};

const SERIAL: u32 = 2026;

fn compile(world: &World) -> Snapshot {
    let served = world.zones.iter().map(|zone| Served { zone: Arc::new(zone.clone()), serial: SERIAL }).collect();
    let verdict = |target: &meridian::health::Target| match world.is_down(target.address) {
        true => Verdict::Down,
        false => Verdict::Up,
    };
    Snapshot::compile(served, &Arc::new(Database::empty()), verdict, None)
}

fn query(question: &Question) -> Message {
    let mut message = Message::new(question.id, MessageType::Query, OpCode::Query);
    let mut query = Query::query(question.name.clone(), question.rtype);
    query.set_query_class(question.class);
    message.add_query(query);
    if let Some(payload) = question.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        if let Some((address, source)) = question.subnet {
            edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new(address, source, 0)));
        }
        message.set_edns(edns);
    }
    message
}

fn ask(snapshot: &Snapshot, question: &Question, transport: Transport) -> (Message, usize) {
    let wire = query(question).to_vec().unwrap();
    let client = Client { address: question.client, port: 4096, transport };
    let mut out = vec![0; if transport == Transport::Udp { UDP_PAYLOAD } else { 65_535 }];
    match respond(snapshot, &wire, client, &mut out) {
        Outcome::Answered { length, rcode, .. } => {
            let answer = Message::from_vec(&out[..length]).expect("answers can be decoded");
            let high = answer.edns.as_ref().map_or(0, Edns::rcode_high);
            assert_eq!(u16::from(high) << 4 | u16::from(answer.metadata.response_code.low()), rcode);
            (answer, length)
        }
        Outcome::Dropped => panic!("{question:?} was dropped"),
    }
}

/// What every answer has, whatever it says.
fn check_frame(question: &Question, answer: &Message) -> Result<(), TestCaseError> {
    prop_assert_eq!(answer.metadata.id, question.id);
    prop_assert_eq!(answer.metadata.message_type, MessageType::Response);
    prop_assert!(!answer.metadata.recursion_available);
    prop_assert_eq!(answer.queries.len(), 1);
    prop_assert!(answer.queries[0].name().eq_case(&question.name), "the case of the question is kept");
    prop_assert_eq!(answer.queries[0].query_type(), question.rtype);
    prop_assert_eq!(answer.queries[0].query_class(), question.class);
    prop_assert_eq!(answer.edns.is_some(), question.edns.is_some(), "OPT if and only if asked");
    Ok(())
}

fn subnet_of(answer: &Message) -> Option<ClientSubnet> {
    match answer.edns.as_ref()?.option(EdnsCode::Subnet)? {
        EdnsOption::Subnet(subnet) => Some(*subnet),
        other => panic!("{other:?} is no client subnet"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_the_reference(
        (world, questions) in generate::world().prop_flat_map(|world| {
            let questions = prop::collection::vec(generate::question(&world), 1..40);
            (Just(world), questions)
        }),
    ) {
        let snapshot = compile(&world);
        let is_down = |address: SocketAddr| world.is_down(address);
        let reference = Reference::new(world.zones.iter().map(|zone| (zone, SERIAL)), &is_down);
        for question in &questions {
            let expected = reference.answer(&question.name, question.rtype, question.class);
            let (answer, length) = ask(&snapshot, question, Transport::Tcp);
            check_frame(question, &answer)?;
            if let Some(mismatch) = expected.mismatch(&answer) {
                return Err(TestCaseError::fail(format!(
                    "{mismatch} of {} {}\n{world:?}\nexpected {expected:?}\nanswered {answer}",
                    question.name, question.rtype,
                )));
            }
            let subnet = subnet_of(&answer);
            prop_assert_eq!(subnet.map(|subnet| (subnet.addr(), subnet.source_prefix())), question.subnet);
            if expected.scope_zero {
                prop_assert!(subnet.is_none_or(|subnet| subnet.scope_prefix() == 0), "{answer}");
            }

            // Over UDP the same comes, or a truncated answer that keeps the OPT record (RFC 6891 §7).
            let (over_udp, _) = ask(&snapshot, question, Transport::Udp);
            check_frame(question, &over_udp)?;
            if over_udp.metadata.truncation {
                let limit = question.edns.map_or(512, |payload| usize::from(payload).clamp(512, UDP_PAYLOAD));
                prop_assert!(length > limit, "truncated without need: {answer}");
            } else {
                prop_assert_eq!(expected.mismatch(&over_udp), None);
            }
        }
    }
}

/// Whether `owner` is a wildcard that can stand in for `name`.
fn is_below_wildcard(name: &Name, owner: &Name) -> bool {
    owner.is_wildcard() && owner != name && owner.base_name().zone_of(name)
}

proptest! {
    #[test]
    fn static_answers_are_those_of_hickory_servers_catalog(
        (world, questions) in generate::static_world().prop_flat_map(|world| {
            let questions = prop::collection::vec(generate::question(&world), 1..40);
            (Just(world), questions)
        }),
    ) {
        let snapshot = compile(&world);
        let oracle = Oracle::new(&world.zones, SERIAL);
        for question in questions.iter().filter(|question| catalog::answers_properly(question)) {
            let (ours, _) = ask(&snapshot, question, Transport::Tcp);
            let theirs = oracle.ask(query(question).to_vec().unwrap());
            // It knows no NODATA of wildcards (RFC 4592 §2.2.1) and looks for one above every name, whatever exists in
            // between (§3.3.1).
            let mut wildcards = world.zones[0].records.iter().map(|rrset| &rrset.owner);
            if ours.answers.is_empty() && wildcards.any(|owner| is_below_wildcard(&question.name, owner)) {
                continue;
            }
            let differs = || format!("{} {}\n{world:?}\nours {ours}\ntheirs {theirs}", question.name, question.rtype);
            prop_assert_eq!(ours.metadata.authoritative, theirs.metadata.authoritative, "{}", differs());
            // The rcode of a chain is that of its start there, not of its end (RFC 6604 §3), and not all of it is given.
            if let Some(alias) = ours.answers.first().filter(|first| first.record_type() == RecordType::CNAME) {
                prop_assert!(section(&theirs.answers).contains(&Rr::from(alias)), "{}", differs());
                continue;
            }
            prop_assert_eq!(ours.metadata.response_code, theirs.metadata.response_code, "{}", differs());
            prop_assert_eq!(section(&ours.answers), section(&theirs.answers), "{}", differs());
        }
    }
}

#[test]
fn the_reference_can_tell_right_from_wrong() {
    let zone = generate::zone_of_records("example.", &[("a.example.", RecordType::A, "\u{1}\u{2}\u{3}\u{4}")]);
    let is_down = |_: SocketAddr| false;
    let reference = Reference::new([(&zone, SERIAL)], &is_down);
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let a = reference.answer(&name("a.example."), RecordType::A, DNSClass::IN);
    let missing = reference.answer(&name("b.example."), RecordType::A, DNSClass::IN);
    assert_eq!((a.rcode, missing.rcode), (ResponseCode::NoError, ResponseCode::NXDomain));
    assert_eq!((a.answer.len(), missing.authority.len()), (1, 1));
    let mut answer = Message::response(1, OpCode::Query);
    assert!(a.mismatch(&answer).is_some() && missing.mismatch(&answer).is_some());
    answer.metadata.authoritative = true;
    assert_eq!(a.mismatch(&answer).as_deref(), Some("answer"));
}

/// A property over zones says little when its zones are dull.
#[test]
fn generated_questions_meet_every_kind_of_answer() {
    let mut runner = TestRunner::deterministic();
    let mut met = BTreeMap::<&str, u32>::new();
    for _ in 0..400 {
        let world = generate::world().new_tree(&mut runner).unwrap().current();
        let is_down = |address: SocketAddr| world.is_down(address);
        let reference = Reference::new(world.zones.iter().map(|zone| (zone, SERIAL)), &is_down);
        let questions = prop::collection::vec(generate::question(&world), 20);
        for question in questions.new_tree(&mut runner).unwrap().current() {
            let expected = reference.answer(&question.name, question.rtype, question.class);
            let answered = !expected.answer.is_empty() || expected.choice.is_some();
            let existing = expected.rcode == ResponseCode::NoError;
            let choices = expected.choice.as_ref().map_or(0, |choice| choice.regions.len());
            let is_wild = || {
                let owned =
                    |name: &Name| world.zones.iter().any(|zone| zone.records.iter().any(|rr| rr.owner == *name));
                !owned(&question.name) && expected.answer.iter().any(|rr| rr.is_owned_by(&question.name))
            };
            for (kind, is_met) in [
                ("REFUSED", expected.rcode == ResponseCode::Refused),
                ("NXDOMAIN", expected.rcode == ResponseCode::NXDomain && !answered),
                ("NXDOMAIN behind a CNAME", expected.rcode == ResponseCode::NXDomain && answered),
                ("NODATA", existing && !answered && expected.authoritative),
                ("NODATA behind a CNAME", answered && existing && !expected.authority.is_empty()),
                ("referral with glue", !expected.authoritative && !expected.additional.is_empty()),
                ("referral without glue", !expected.authoritative && !expected.authority.is_empty()),
                ("referral behind a CNAME", answered && expected.authority.iter().any(|rr| rr.is_a(RecordType::NS))),
                ("DS at a cut", existing && answered && question.rtype == RecordType::DS),
                ("wildcard", existing && is_wild()),
                ("chain", expected.answer.len() > 3),
                ("chain to a steered name", !expected.answer.is_empty() && expected.choice.is_some()),
                ("one region to choose", choices == 1),
                ("several regions to choose from", choices > 1),
            ] {
                *met.entry(kind).or_default() += u32::from(is_met);
            }
        }
    }
    assert!(met.values().all(|&count| count >= 10), "{met:#?}");
}
