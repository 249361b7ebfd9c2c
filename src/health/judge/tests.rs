//! The rules in virtual time.

use proptest::prelude::*;

use super::*;
use crate::config::settings::{Check, CheckKind};
use crate::health::damping::LONGEST;
use Verdict::{Down, Unknown, Up};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn target(number: u8) -> Target {
    let check = Check {
        kind: CheckKind::Tcp,
        every: s(1),
        timeout: s(1) / 2,
        adaptive: false,
        fall: 3,
        rise: 10,
        port: 1,
        heartbeat: None,
        load: Default::default(),
    };
    Target { address: ([192, 0, 2, number], 1935).into(), check: Arc::new(check), beats_of: None }
}

fn vote(vantage: &str, verdict: Verdict) -> Vote {
    let cause = if verdict == Up { "answered in 1ms" } else { "refused" };
    Vote { vantage: vantage.into(), verdict, cause: cause.into() }
}

/// A judge of so many targets, each a group of its own.
fn court(targets: u8, now: Instant) -> Judge {
    let mut judge = Judge::new(Rules::default());
    judge.retain((0..targets).map(|n| (target(n), Group(n.into()))), now);
    judge
}

fn verdict(judge: &Judge, number: u8) -> Verdict {
    judge.ruling(&target(number)).unwrap().verdict
}

/// The local vantage sees one target fall and rise `times` times, a second each; the time after it.
fn flap(judge: &mut Judge, times: u32, mut now: Instant) -> Instant {
    for _ in 0..times {
        judge.vote(&target(0), vote("local", Down), now);
        now += s(1);
        judge.vote(&target(0), vote("local", Up), now);
        now += s(1);
    }
    now
}

/// Ticks whenever it is due, until `end`.
fn pass(judge: &mut Judge, end: Instant) -> Vec<(Instant, Ruling)> {
    let mut rulings = Vec::new();
    while let Some(due) = judge.due().filter(|due| *due <= end) {
        rulings.extend(judge.tick(due).into_iter().map(|(_, ruling)| (due, ruling)));
        assert!(judge.due().is_none_or(|next| next > due), "a tick settles what was due");
    }
    rulings
}

#[test]
fn the_vote_of_a_single_vantage_decides_with_its_cause() {
    let now = Instant::now();
    let mut judge = court(1, now);
    for (wanted, cause) in [(Up, "answered in 1ms"), (Down, "refused"), (Up, "answered in 1ms")] {
        let ruling = judge.vote(&target(0), vote("local", wanted), now).unwrap();
        assert_eq!((ruling.verdict, &*ruling.cause, ruling.soft), (wanted, cause, false));
    }
}

#[test]
fn a_vote_that_changes_nothing_gives_no_ruling() {
    let now = Instant::now();
    let mut judge = court(1, now);
    assert!(judge.vote(&target(0), vote("local", Up), now).is_some());
    assert_eq!(judge.vote(&target(0), vote("local", Up), now), None);
    assert_eq!(judge.tick(now), []);
}

#[test]
fn a_target_that_is_not_judged_is_not_voted_on() {
    let now = Instant::now();
    let mut judge = court(1, now);
    assert_eq!(judge.vote(&target(9), vote("local", Down), now), None);
    judge.restore(&target(9), Down, None, now);
    assert!(judge.ruling(&target(9)).is_none() && !judge.is_stale(&target(9)) && !judge.uncertain(&target(9), now));
}

#[test]
fn two_of_three_vantages_decide() {
    let now = Instant::now();
    let mut judge = court(5, now);
    for vantage in ["local", "fra", "iad"] {
        for number in 0..5 {
            judge.vote(&target(number), vote(vantage, Up), now);
        }
    }
    assert_eq!(judge.vote(&target(0), vote("local", Down), now), None);
    let ruling = judge.vote(&target(0), vote("iad", Down), now).unwrap();
    assert_eq!((ruling.verdict, &*ruling.cause), (Down, "refused (2 of 3 vantages)"));
    assert_eq!(judge.vote(&target(0), vote("fra", Down), now), None);
    assert_eq!(verdict(&judge, 1), Up);
}

#[test]
fn a_tie_leaves_what_held_before() {
    let now = Instant::now();
    for before in [Up, Down] {
        let after = if before == Up { Down } else { Up };
        let mut judge = court(1, now);
        judge.vote(&target(0), vote("local", before), now);
        judge.vote(&target(0), vote("fra", before), now);
        assert_eq!(judge.vote(&target(0), vote("fra", after), now), None);
        assert_eq!(verdict(&judge, 0), before);
    }
}

#[test]
fn a_vantage_that_sees_more_than_half_of_the_groups_down_is_not_trusted() {
    let now = Instant::now();
    let mut judge = court(4, now);
    for number in 0..4 {
        for vantage in ["local", "fra", "iad"] {
            judge.vote(&target(number), vote(vantage, Up), now);
        }
    }
    // fra has seen target 0 die, rightly, with iad; then its own network dies.
    judge.vote(&target(0), vote("iad", Down), now);
    assert_eq!(judge.vote(&target(0), vote("fra", Down), now).unwrap().verdict, Down);
    judge.vote(&target(1), vote("fra", Down), now);
    assert!(judge.is_trusted("fra"), "two of four are not more than half");
    judge.vote(&target(2), vote("fra", Down), now);
    assert!(!judge.is_trusted("fra") && judge.is_trusted("iad"));
    // Of those trusted, local and iad disagree about target 0: what held stays.
    assert_eq!(judge.due(), Some(now));
    assert_eq!(judge.tick(now), []);
    assert_eq!([0, 1, 2, 3].map(|n| verdict(&judge, n)), [Down, Up, Up, Up]);
    // Another vantage alone decides nothing against local, though fra agrees.
    judge.vote(&target(1), vote("iad", Down), now);
    assert_eq!(verdict(&judge, 1), Up);
}

#[test]
fn losing_trust_changes_the_rulings_on_other_targets_at_the_next_tick() {
    let now = Instant::now();
    let mut judge = court(4, now);
    for number in 0..4 {
        for vantage in ["local", "fra", "iad", "sin"] {
            judge.vote(&target(number), vote(vantage, Up), now);
        }
    }
    for vantage in ["local", "fra", "iad"] {
        judge.vote(&target(0), vote(vantage, Down), now);
    }
    assert_eq!(verdict(&judge, 0), Down);
    // Local and sin now see it well; with fra and iad there is a tie, which ends when fra loses its trust.
    assert_eq!(judge.vote(&target(0), vote("local", Up), now), None);
    judge.vote(&target(1), vote("fra", Down), now);
    judge.vote(&target(2), vote("fra", Down), now);
    let changed = judge.tick(now);
    assert_eq!(
        changed.iter().map(|(target, ruling)| (target.clone(), ruling.verdict)).collect::<Vec<_>>(),
        [(target(0), Up)]
    );
}

#[test]
fn when_no_vantage_is_trusted_all_are() {
    let now = Instant::now();
    let mut judge = court(4, now);
    for number in 0..4 {
        for vantage in ["local", "fra", "iad"] {
            judge.vote(&target(number), vote(vantage, Up), now);
        }
    }
    for number in 0..4 {
        for vantage in ["local", "fra", "iad"] {
            judge.vote(&target(number), vote(vantage, Down), now);
        }
    }
    judge.tick(now);
    assert_eq!([0, 1, 2, 3].map(|n| verdict(&judge, n)), [Down; 4]);
}

#[test]
fn with_one_or_two_vantages_even_all_down_is_believed() {
    let now = Instant::now();
    for vantages in [&["local"][..], &["local", "fra"]] {
        let mut judge = court(4, now);
        for verdict in [Up, Down] {
            for number in 0..4 {
                vantages.iter().for_each(|vantage| drop(judge.vote(&target(number), vote(vantage, verdict), now)));
            }
        }
        assert_eq!([0, 1, 2, 3].map(|n| verdict(&judge, n)), [Down; 4]);
    }
}

#[test]
fn the_votes_of_a_silent_vantage_are_dropped_but_never_our_own() {
    let now = Instant::now();
    let mut judge = court(2, now);
    judge.vote(&target(0), vote("local", Up), now);
    for vantage in ["fra", "iad"] {
        judge.vote(&target(0), vote(vantage, Down), now);
        judge.vote(&target(1), vote(vantage, Up), now);
    }
    // After its first vote iad saw all of one group down.
    judge.tick(now);
    assert_eq!(verdict(&judge, 0), Down);
    judge.heard("fra", now + s(5));
    assert_eq!(judge.due(), Some(now + s(10)));
    // A tie of local and fra.
    assert_eq!(pass(&mut judge, now + s(14)), []);
    assert_eq!(verdict(&judge, 0), Down);
    let rulings = pass(&mut judge, now + s(100_000));
    assert_eq!((rulings[0].0, rulings[0].1.verdict), (now + s(15), Up));
    assert!(!judge.is_stale(&target(0)));
    // Nobody is left who saw target 1.
    assert!(judge.is_stale(&target(1)));
    assert_eq!(verdict(&judge, 1), Up);
    assert_eq!(judge.due(), None);
}

#[test]
fn a_target_without_votes_turns_stale_with_a_ruling() {
    let now = Instant::now();
    let mut judge = court(1, now);
    judge.vote(&target(0), vote("fra", Down), now);
    let rulings = pass(&mut judge, now + s(60));
    assert_eq!(rulings.len(), 1);
    assert!(rulings[0].1.stale && rulings[0].1.uncertain && rulings[0].1.verdict == Down);
}

#[test]
fn a_vote_can_be_taken_back() {
    let now = Instant::now();
    let mut judge = court(1, now);
    assert_eq!(judge.vote(&target(0), vote("local", Unknown), now), None, "there was none");
    judge.vote(&target(0), vote("local", Down), now);
    let ruling = judge.vote(&target(0), vote("local", Unknown), now).unwrap();
    assert!(ruling.stale && ruling.verdict == Down);
}

#[test]
fn more_vantages_than_the_bound_are_not_heard_but_our_own_always_is() {
    let now = Instant::now();
    let mut judge = court(1, now);
    for number in 0..1_000 {
        judge.vote(&target(0), vote(&format!("v{number}"), Down), now);
    }
    judge.vote(&target(0), vote("local", Up), now);
    assert_eq!((judge.seats.len(), judge.cases[0].votes.len()), (MAX_VANTAGES, MAX_VANTAGES));
    assert!(judge.seats.contains_key("local"));
}

#[test]
fn a_restored_verdict_is_stale_until_a_vote_and_the_first_good_one_makes_it_up() {
    let now = Instant::now();
    for (before, after) in [(Up, Up), (Up, Down), (Down, Up), (Down, Down)] {
        let mut judge = court(1, now);
        judge.restore(&target(0), before, None, now);
        assert_eq!(verdict(&judge, 0), before);
        assert!(judge.is_stale(&target(0)) && judge.uncertain(&target(0), now));
        assert_eq!(judge.due(), None);
        let ruling = judge.vote(&target(0), vote("local", after), now).expect("a ruling even if it confirms");
        assert_eq!((ruling.verdict, ruling.stale), (after, false));
        assert!(!judge.is_stale(&target(0)));
        // What comes from disk later than the votes is no news.
        judge.restore(&target(0), before, None, now);
        assert_eq!(verdict(&judge, 0), after);
    }
}

#[test]
fn a_target_that_was_damped_before_the_start_stays_softly_down_for_the_time_that_was_left() {
    let now = Instant::now();
    for before in [Verdict::Damped, Down] {
        let mut judge = court(1, now);
        judge.restore(&target(0), before, Some(s(70)), now);
        let soft = judge.ruling(&target(0)).unwrap().soft;
        assert_eq!((verdict(&judge, 0), soft), (Down, before == Verdict::Damped), "as it was");
        judge.vote(&target(0), vote("local", Up), now + s(1));
        let ruling = judge.ruling(&target(0)).unwrap();
        assert_eq!((ruling.verdict, ruling.soft, ruling.damped_until), (Down, true, Some(now + s(70))));
        let rulings = pass(&mut judge, now + s(70));
        assert_eq!(rulings.iter().map(|(at, ruling)| (*at, ruling.verdict)).collect::<Vec<_>>(), [(now + s(70), Up)]);
    }
}

#[test]
fn the_third_fall_in_a_row_keeps_a_target_down_softly_until_it_has_been_quiet() {
    let start = Instant::now();
    let mut judge = court(1, start);
    judge.vote(&target(0), vote("local", Up), start);
    let now = flap(&mut judge, 2, start + s(1));
    assert_eq!(verdict(&judge, 0), Up);
    let ruling = judge.vote(&target(0), vote("local", Down), now).unwrap();
    assert!(!ruling.soft && ruling.damped_until.is_some(), "it really is down: {ruling:?}");
    let ruling = judge.vote(&target(0), vote("local", Up), now + s(1)).unwrap();
    assert_eq!((ruling.verdict, ruling.soft), (Down, true));
    assert_eq!(&*ruling.cause, "kept down for going up and down too often; answered in 1ms");
    let until = ruling.damped_until.unwrap();
    assert!((s(85)..s(95)).contains(&(until - now)), "{:?}", until - now);
    // A minute more of uncertainty ends by itself too.
    let rulings = pass(&mut judge, now + s(3_600));
    let told: Vec<_> = rulings.iter().map(|(at, ruling)| (*at, ruling.verdict, ruling.uncertain)).collect();
    assert_eq!(told[0], (until, Up, true));
    assert_eq!(told[1..].iter().map(|told| (told.1, told.2)).collect::<Vec<_>>(), [(Up, false)]);
    assert_eq!(&*rulings[0].1.cause, "answered in 1ms");
    assert_eq!(judge.due(), None);
}

#[test]
fn a_start_damps_nothing() {
    let now = Instant::now();
    let mut judge = court(1, now);
    judge.vote(&target(0), vote("local", Down), now);
    assert!(!judge.uncertain(&target(0), now));
    assert_eq!(judge.cases[0].damping.penalty(now), 0.0);
    flap(&mut judge, 2, now);
    assert_eq!(verdict(&judge, 0), Up, "the first down was the start");
}

#[test]
fn a_target_that_was_down_lately_is_uncertain_for_a_minute() {
    let start = Instant::now();
    let mut judge = court(1, start);
    judge.vote(&target(0), vote("local", Up), start);
    assert!(!judge.uncertain(&target(0), start));
    flap(&mut judge, 1, start);
    assert!(judge.uncertain(&target(0), start + s(59)));
    let rulings = pass(&mut judge, start + s(100));
    assert_eq!(rulings.iter().map(|(at, r)| (*at - start, r.uncertain)).collect::<Vec<_>>(), [(s(60), false)]);
    assert!(!judge.uncertain(&target(0), start + s(60)));
}

#[test]
fn a_target_that_flaps_for_ever_is_let_go_after_ten_minutes_and_caught_again() {
    let start = Instant::now();
    let mut judge = court(1, start);
    let mut now = start;
    judge.vote(&target(0), vote("local", Up), now);
    let (mut held, mut longest, mut spells) = (None, Duration::ZERO, 0);
    while now < start + s(7_200) {
        now = flap(&mut judge, 1, now);
        judge.tick(now);
        match judge.ruling(&target(0)).unwrap().damped_until {
            Some(_) => longest = longest.max(now - *held.get_or_insert(now)),
            None => spells += u32::from(held.take().is_some()),
        }
    }
    assert!(longest <= LONGEST + s(2), "{longest:?}");
    assert!((10..=12).contains(&spells), "{spells} suppressions in two hours");
}

#[test]
fn a_reload_keeps_votes_and_penalties_of_targets_that_stay_and_forgets_the_others() {
    let start = Instant::now();
    let mut judge = court(3, start);
    for number in 0..3 {
        judge.vote(&target(number), vote("local", Up), start);
    }
    let now = flap(&mut judge, 3, start);
    let until = judge.ruling(&target(0)).unwrap().damped_until;
    assert!(until.is_some());
    // In another order, in two groups, and with a new one before it.
    let kept = [(target(7), Group(1)), (target(0), Group(2)), (target(0), Group(9)), (target(0), Group(9))];
    judge.retain(kept, now);
    assert_eq!(judge.cases.len(), 2);
    assert_eq!((verdict(&judge, 0), verdict(&judge, 7)), (Down, Unknown));
    assert!(judge.ruling(&target(1)).is_none());
    assert_eq!(judge.seats["local"].tally, HashMap::from([(Group(2), (1, 0)), (Group(9), (1, 0))]));
    let rulings = pass(&mut judge, now + s(3_600));
    assert_eq!((Some(rulings[0].0), rulings[0].1.verdict), (until, Up));
    judge.retain([], now);
    assert_eq!((judge.due(), judge.cases.len(), judge.wakes.len()), (None, 0, 0));
}

#[test]
fn who_voted_is_stale_and_damped_keeps_its_words() {
    let start = Instant::now();
    let mut judge = court(1, start);
    judge.vote(&target(0), vote("fra", Up), start);
    for second in 0..3 {
        judge.vote(&target(0), vote("fra", Down), start + s(second));
        judge.vote(&target(0), vote("fra", Up), start + s(second));
    }
    let cause = judge.ruling(&target(0)).unwrap().cause.clone();
    pass(&mut judge, start + s(30));
    let ruling = judge.ruling(&target(0)).unwrap();
    assert!(ruling.stale && ruling.soft);
    assert_eq!(ruling.cause, cause);
}

#[derive(Clone, Debug)]
enum Step {
    Vote(u8, u8, Verdict),
    Heard(u8),
    Restore(u8, Verdict, Option<u64>),
    Retain(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = || prop_oneof![4 => Just(Up), 4 => Just(Down), 1 => Just(Unknown)];
    prop_oneof![
        12 => (0u8..6, 0u8..5, verdict()).prop_map(|(t, v, verdict)| Step::Vote(t, v, verdict)),
        2 => (0u8..5).prop_map(Step::Heard),
        1 => (0u8..6, verdict(), proptest::option::of(0u64..2_000)).prop_map(|(t, verdict, damped)| Step::Restore(t, verdict, damped)),
        1 => (0u8..6).prop_map(Step::Retain),
        6 => (0u64..20_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_counts_are_true_and_soft_means_damped(
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        const NAMES: [&str; 5] = ["local", "fra", "iad", "sin", "gru"];
        let mut now = Instant::now();
        let mut judge = court(6, now);
        for step in steps {
            match step {
                Step::Vote(t, v, verdict) => {
                    let before = judge.ruling(&target(t)).cloned();
                    let ruling = judge.vote(&target(t), vote(NAMES[v as usize], verdict), now);
                    let after = judge.ruling(&target(t)).cloned();
                    match (before, &after) {
                        (Some(before), Some(after)) => prop_assert_eq!(ruling.is_some(), after.differs(&before)),
                        _ => prop_assert_eq!(ruling, None),
                    }
                }
                Step::Heard(v) => judge.heard(NAMES[v as usize], now),
                Step::Restore(t, verdict, damped) => judge.restore(&target(t), verdict, damped.map(s), now),
                Step::Retain(n) => judge.retain((0..n).map(|n| (target(n), Group((n / 2).into()))), now),
                Step::Wait(ms) => {
                    now += Duration::from_millis(ms);
                    pass(&mut judge, now);
                }
            }
            for case in &judge.cases {
                let Ruling { verdict, damped_until, soft, stale, uncertain, .. } = case.ruling.clone();
                prop_assert!(!soft || (verdict == Down && damped_until.is_some()));
                prop_assert!(damped_until.is_none_or(|until| until > now && until <= now + LONGEST));
                prop_assert!(!stale || (case.votes.is_empty() && uncertain && verdict != Unknown));
            }
            for (name, seat) in &judge.seats {
                let mut tally: HashMap<Group, (u32, u32)> = HashMap::new();
                for case in &judge.cases {
                    for vote in case.votes.iter().filter(|vote| vote.vantage == *name) {
                        for group in &case.groups {
                            let entry = tally.entry(*group).or_default();
                            *entry = (entry.0 + 1, entry.1 + u32::from(vote.verdict == Down));
                        }
                    }
                }
                let down = tally.values().filter(|(voted, down)| down * 2 > *voted).count();
                prop_assert_eq!((&seat.tally, seat.down), (&tally, down));
            }
            let wakes = judge.cases.iter().enumerate().filter_map(|(place, case)| Some((case.wake?, place)));
            prop_assert_eq!(&judge.wakes, &wakes.collect::<BTreeSet<_>>());
        }
    }
}
