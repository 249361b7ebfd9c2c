use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::load::known::Size;
use crate::load::report::Figures;

/// A region of two machines of one weight.
fn board(capacity: Option<f64>) -> (Board, RegionId, [MachineId; 2]) {
    let known = Known::for_tests("eu", &["192.0.2.1", "192.0.2.2"], Size { capacity, session_bits: Some(5e6) });
    let mut board = Board::default();
    board.retain(Arc::new(known));
    (board, RegionId(0), [MachineId(0), MachineId(1)])
}

fn report(sessions: f64, capacity: Option<f64>) -> Report {
    Report::new(Figures { sessions: Some(sessions), capacity, ..Figures::default() }).unwrap()
}

fn at(start: Instant, s: f64) -> Instant {
    start + Duration::from_secs_f64(s)
}

const SESSION: Duration = Duration::from_secs(1200);

#[test]
fn a_region_is_the_sum_of_its_machines() {
    let (mut board, eu, [a, b]) = board(None);
    let now = Instant::now();
    board.hear(Source::Machine(a), &report(300.0, Some(500.0)), now).unwrap();
    board.hear(Source::Server("192.0.2.2".parse().unwrap()), &report(100.0, Some(300.0)), now).unwrap();
    let state = board.state(eu, |_| true, now);
    assert_eq!((state.sessions, state.capacity, state.utilization), (Some(400.0), Some(800.0), Some(0.5)));
    assert_eq!((state.trust, state.silent, state.room()), (Trust::Fresh, 0, Some(400.0)));
    let state = board.state(eu, |machine| machine == b, now);
    assert_eq!((state.sessions, state.capacity), (Some(100.0), Some(300.0)), "of what is up");
    let state = board.state(eu, |_| false, now);
    assert_eq!((state.sessions, state.room()), (None, None), "nothing is up");
}

#[test]
fn starts_that_most_machines_tell_stand_for_all_and_those_of_few_for_none() {
    let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    let known = Known::for_tests("eu", &addresses, Size { capacity: None, session_bits: None });
    let (mut board, eu, now) = (Board::default(), RegionId(0), Instant::now());
    board.retain(Arc::new(known));
    let figures = Figures { sessions: Some(100.0), capacity: Some(1000.0), ..Figures::default() };
    let telling = Figures { starts_per_s: Some(2.0), ..figures };
    for (machine, figures, starts) in [(0, telling, Some(2.0)), (1, figures, Some(2.0)), (2, figures, None)] {
        board.hear(Source::Machine(MachineId(machine)), &Report::new(figures).unwrap(), now).unwrap();
        let state = board.state(eu, |other| other.0 <= machine, now);
        assert_eq!(state.starts_per_s.map(|all| all / f64::from(machine + 1)), starts, "{machine} more tell none");
    }
    // What one server carries does not shrink as reports grow old.
    board.hear(Source::Machine(MachineId(0)), &Report::new(telling).unwrap(), at(now, 35.0)).unwrap();
    let state = board.state(eu, |_| true, at(now, 35.0));
    assert_eq!((state.capacity, state.nominal), (Some(2600.0), Some(3000.0)));
}

#[test]
fn a_configured_capacity_counts_for_the_part_that_is_up() {
    let (mut board, eu, [a, _]) = board(Some(1000.0));
    let now = Instant::now();
    board.hear(Source::Machine(a), &report(300.0, Some(9999.0)), now).unwrap();
    let state = board.state(eu, |machine| machine == a, now);
    assert_eq!((state.sessions, state.capacity), (Some(300.0), Some(500.0)));
    let state = board.state(eu, |_| true, now);
    assert_eq!(
        (state.sessions, state.capacity, state.silent),
        (Some(600.0), Some(850.0), 1),
        "the silent one is as full, and trusted less"
    );
}

#[test]
fn a_region_that_never_reported_has_seven_tenths_and_an_unknown_load() {
    let (board, eu, _) = board(Some(1000.0));
    let state = board.state(eu, |_| true, Instant::now());
    assert_eq!((state.capacity, state.sessions, state.room(), state.trust), (Some(700.0), None, None, Trust::Never));
}

#[test]
fn capacity_counts_less_as_reports_grow_old() {
    let (mut board, eu, _) = board(Some(1000.0));
    let start = Instant::now();
    board.hear(Source::Region(eu), &report(400.0, None), start).unwrap();
    for (age, capacity, trust) in [
        (3.0, 1000.0, Trust::Fresh),
        (3.1, 1000.0, Trust::Predicted),
        (10.1, 900.0, Trust::Doubtful),
        (30.1, 800.0, Trust::Poor),
        (180.1, 700.0, Trust::Lost),
    ] {
        let state = board.state(eu, |_| true, at(start, age));
        assert_eq!((state.capacity, state.sessions, state.trust), (Some(capacity), Some(400.0), trust), "{age} s");
    }
}

#[test]
fn who_reports_seldom_is_late_only_after_the_next_report_was_due() {
    let (mut board, eu, _) = board(Some(1000.0));
    let start = Instant::now();
    for report_at in [0.0, 20.0, 40.0] {
        board.hear(Source::Region(eu), &report(400.0, None), at(start, report_at)).unwrap();
    }
    let trust = |age| board.state(eu, |_| true, at(start, 40.0 + age)).trust;
    assert_eq!([trust(29.0), trust(31.0), trust(51.0)], [Trust::Predicted, Trust::Doubtful, Trust::Poor]);
    // A silence is no rhythm.
    for report_at in [41.0, 131.0] {
        board.hear(Source::Region(eu), &report(400.0, None), at(start, report_at)).unwrap();
    }
    assert_eq!(board.state(eu, |_| true, at(start, 143.0)).trust, Trust::Doubtful);
}

#[test]
fn one_machine_that_fell_silent_does_not_make_us_deaf_to_the_others() {
    let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    let known = Known::for_tests("eu", &addresses, Size { capacity: Some(900.0), session_bits: None });
    let (mut board, eu, start) = (Board::default(), RegionId(0), Instant::now());
    board.retain(Arc::new(known));
    for (machine, said) in [(0, 0.0), (1, 59.0), (2, 60.0)] {
        board.hear(Source::Machine(MachineId(machine)), &report(100.0, None), at(start, said)).unwrap();
    }
    let state = board.state(eu, |_| true, at(start, 60.0));
    assert_eq!((state.trust, state.majority, state.newest), (Trust::Poor, Trust::Fresh, Some(Duration::ZERO)));
    let state = board.state(eu, |machine| machine.0 < 2, at(start, 80.0));
    assert_eq!((state.trust, state.majority), (Trust::Poor, Trust::Doubtful));
}

#[test]
fn sessions_of_an_old_report_follow_what_is_sent() {
    let (mut board, eu, _) = board(Some(1000.0));
    let start = Instant::now();
    board.hear(Source::Region(eu), &report(400.0, None), start).unwrap();
    let mut after = |starts_per_s: f64, age: f64| {
        board.expect(eu, Expected { starts_per_s, session: SESSION });
        board.state(eu, |_| true, at(start, age)).sessions.unwrap()
    };
    assert_eq!(after(1.0, 3.0), 400.0, "of now");
    assert!((after(1.0, 120.0) - (1200.0 - 800.0 * (-0.1f64).exp())).abs() < 1e-6);
    assert!((after(0.0, 120.0) - 400.0 * (-0.1f64).exp()).abs() < 1e-6);
    assert_eq!(after(0.0, 36_000.0), after(0.0, 180.0), "it never becomes idle by itself");
    assert!(after(f64::INFINITY, 36_000.0).is_finite() && after(f64::NAN, 36_000.0).is_finite());
}

#[test]
fn bits_count_by_what_a_session_takes_and_shares_by_the_capacity() {
    let (mut board, eu, _) = board(Some(1000.0));
    let now = Instant::now();
    let bits = Report::new(Figures { bits_per_s: Some(1e9), ..Figures::default() }).unwrap();
    board.hear(Source::Region(eu), &bits, now).unwrap();
    assert_eq!(board.state(eu, |_| true, now).sessions, Some(200.0));
    let share = Report::new(Figures { utilization: Some(0.9), ..Figures::default() }).unwrap();
    board.hear(Source::Region(eu), &share, at(now, 10.0)).unwrap();
    let state = board.state(eu, |_| true, at(now, 10.0));
    assert_eq!((state.sessions, state.utilization), (Some(900.0), Some(0.9)), "the later word");
}

#[test]
fn the_machines_stand_for_the_region_once_all_have_reported_after_it() {
    let (mut board, eu, [a, b]) = board(Some(1000.0));
    let start = Instant::now();
    let sessions = |board: &Board, s: f64| board.state(eu, |_| true, at(start, s)).sessions;
    board.hear(Source::Region(eu), &report(500.0, None), start).unwrap();
    board.hear(Source::Machine(a), &report(100.0, None), at(start, 1.0)).unwrap();
    assert_eq!(sessions(&board, 1.0), Some(500.0));
    board.hear(Source::Machine(b), &report(150.0, None), at(start, 2.0)).unwrap();
    assert_eq!(sessions(&board, 2.0), Some(250.0));
    board.hear(Source::Region(eu), &report(300.0, None), at(start, 3.0)).unwrap();
    assert_eq!(sessions(&board, 3.0), Some(500.0 - 200.0 * (1.0 - (-0.6f64).exp())), "eased from what it said before");
}

#[test]
fn reports_of_strangers_are_refused_and_counted() {
    let (mut board, _, _) = board(None);
    let refused = board.hear(Source::Server("198.51.100.9".parse().unwrap()), &report(1.0, None), Instant::now());
    assert_eq!(refused.unwrap_err().why, Why::Unknown);
    assert_eq!(board.counts().refused[Why::Unknown as usize], 1);
    assert!(board.find("us", None).is_err() && board.find("eu", Some("other.example")).is_err());
}

#[test]
fn more_than_ten_times_what_a_region_can_carry_is_another_unit_or_a_lie() {
    let now = Instant::now();
    for (configured, sessions, is_taken) in
        [(Some(1000.0), 9_000.0, true), (Some(1000.0), 11_000.0, false), (None, 2e9, true)]
    {
        let (mut board, eu, [a, _]) = board(configured);
        for from in [Source::Region(eu), Source::Machine(a)] {
            assert_eq!(board.hear(from, &report(sessions, None), now).is_ok(), is_taken, "{from:?} {sessions}");
        }
        assert_eq!(board.counts().refused[Why::Figure as usize], if is_taken { 0 } else { 2 });
    }
}

#[test]
fn what_is_believed_outlives_a_reload_and_goes_with_its_machine() {
    let (mut board, eu, [a, _]) = board(None);
    let now = Instant::now();
    board.hear(Source::Machine(a), &report(300.0, Some(500.0)), now).unwrap();
    board.retain(Arc::new(Known::for_tests("eu", &["192.0.2.3", "192.0.2.1"], Size::default())));
    assert_eq!(board.state(eu, |machine| machine == MachineId(1), now).sessions, Some(300.0));
    board.retain(Arc::new(Known::for_tests("eu", &["192.0.2.3"], Size::default())));
    assert_eq!(board.state(eu, |_| true, now).sessions, None);
}

#[test]
fn each_step_of_staleness_is_told_once_and_so_is_its_end() {
    let (mut board, eu, _) = board(Some(1000.0));
    let start = Instant::now();
    let mut told = Vec::new();
    let mut look = |board: &mut Board, s: f64| {
        let state = board.state(eu, |_| true, at(start, s));
        told.extend(board.turn(eu, &state).map(|event| event.to_string()));
    };
    look(&mut board, 0.0);
    board.hear(Source::Region(eu), &report(400.0, None), start).unwrap();
    (0..40).for_each(|s| look(&mut board, f64::from(s)));
    board.hear(Source::Region(eu), &report(400.0, None), at(start, 40.0)).unwrap();
    look(&mut board, 40.0);
    assert_eq!(
        told,
        [
            "load of eu is reported",
            "load reports of eu went stale: 11 s old, 0.9 of the capacity counts",
            "load reports of eu went stale: 31 s old, 0.8 of the capacity counts",
            "load of eu is reported",
        ]
    );
}

fn reports() -> impl Strategy<Value = Vec<(u8, Figures, f64)>> {
    let value = |most: f64| prop::option::of(prop_oneof![Just(0.0), 0.0..10.0f64, 0.0..most]);
    let figures = (value(1e5), value(2.0), prop::option::of(1.0..1e5f64), value(1e11)).prop_map(
        |(sessions, utilization, capacity, bits_per_s)| Figures {
            sessions,
            utilization,
            capacity,
            bits_per_s,
            starts_per_s: None,
        },
    );
    prop::collection::vec((0u8..3, figures, 0.0..8.0f64), 0..30)
}

proptest! {
    #[test]
    fn stale_data_never_looks_like_an_idle_region(
        reports in reports(),
        configured in prop::option::of(1.0..1e5f64),
        starts in prop_oneof![Just(0.0), 0.0..100.0f64],
        up in 1u8..4,
        mut ages in prop::collection::vec(0.0..4000.0f64, 2..12),
    ) {
        let (mut board, eu, _) = board(configured);
        board.expect(eu, Expected { starts_per_s: starts, session: SESSION });
        let start = Instant::now();
        let mut s = 0.0;
        for (who, figures, pause) in reports {
            s += pause;
            let Ok(report) = Report::new(figures) else { continue };
            let from = if who == 2 { Source::Region(eu) } else { Source::Machine(MachineId(who.into())) };
            // Too many for its capacity, it is refused.
            let _ = board.hear(from, &report, at(start, s));
        }
        ages.sort_by(f64::total_cmp);
        let is_up = |machine: MachineId| up >> machine.0 & 1 == 1;
        let states: Vec<State> = ages.iter().map(|age| board.state(eu, is_up, at(start, s + age))).collect();
        for state in &states {
            for value in [state.sessions, state.utilization, state.capacity, state.load(), state.room()] {
                prop_assert!(value.is_none_or(|value| value.is_finite() && value >= 0.0), "{state:?}");
            }
        }
        for pair in states.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            prop_assert_eq!(before.room().is_some(), after.room().is_some());
            prop_assert!(after.capacity <= before.capacity);
            // What prediction by known starts explains.
            let left = before.sessions.unwrap_or(0.0) - after.sessions.unwrap_or(0.0);
            let (Some(room), Some(later)) = (before.room(), after.room()) else { continue };
            prop_assert!(later <= room + left.max(0.0) + 1e-6 * room.max(1.0), "{before:?} {after:?}");
        }
        // Viewers leave no faster than sessions end, and only for 180 s.
        if let (Some(first), Some(last)) = (states[0].sessions, states[states.len() - 1].sessions) {
            prop_assert!(last >= first * (-200.0f64 / 1200.0).exp() - 1e-6, "{first} {last}");
        }
    }
}
