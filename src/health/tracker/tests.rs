//! The rules in virtual time: a scripted server answers the probes that a tracker plans.

use proptest::prelude::*;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const TIMEOUT: Duration = ms(250);
const RULES: Rules = Rules { every: ms(500), fall: 3, rise: 10 };

/// What the scripted server does with a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    /// Answers after this long, even if that is too late.
    After(Duration),
    /// Says no after this long.
    No(Duration),
    /// Never says anything.
    Nothing,
    /// The probe cannot be sent.
    Local,
    /// The kept connection was dead.
    Stale,
}
use Reply::{After, No, Nothing};

/// Runs a tracker against a server; all times are since the start.
struct Play {
    tracker: Tracker,
    start: Instant,
    now: Duration,
    /// (when, id, what): samples to come.
    coming: Vec<(Duration, ProbeId, Sample)>,
    sent: Vec<Sent>,
    changes: Vec<(Duration, Verdict, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    at: Duration,
    fresh: bool,
}

impl Play {
    fn new(rules: Rules) -> Play {
        Play::with_prior(rules, Verdict::Unknown)
    }

    fn with_prior(rules: Rules, prior: Verdict) -> Play {
        let start = Instant::now();
        let tracker = Tracker::new(rules, prior, start, 42);
        Play { tracker, start, now: Duration::ZERO, coming: vec![], sent: vec![], changes: vec![] }
    }

    /// Plays until `end`; `server` sees the time at which a probe is sent and how many went before.
    fn until(&mut self, end: Duration, mut server: impl FnMut(Duration, usize) -> Reply) -> &mut Play {
        loop {
            let due = self.tracker.next().map(|plan| plan.at.duration_since(self.start).max(self.now));
            self.coming.sort_by_key(|(at, ..)| *at);
            let arrives = self.coming.first().map(|(at, ..)| *at);
            match (arrives, due) {
                (Some(at), due) if at <= end && due.is_none_or(|due| at <= due) => {
                    self.now = at;
                    let (_, id, sample) = self.coming.remove(0);
                    self.report(id, sample);
                }
                (_, Some(due)) if due <= end => {
                    self.now = due;
                    let reply = server(due, self.sent.len());
                    self.send(reply);
                }
                _ => break,
            }
        }
        self.now = end;
        self
    }

    fn send(&mut self, reply: Reply) {
        let plan = self.tracker.next().unwrap();
        let id = self.tracker.sent(self.start + self.now);
        self.sent.push(Sent { at: self.now, fresh: plan.fresh });
        let no = || Sample::Hard("refused".into());
        let timeout = plan.timeout.unwrap_or(TIMEOUT);
        let silence = (self.now + timeout, id, Sample::Silence("no answer in 250ms".into()));
        match reply {
            After(rtt) if rtt < timeout => self.coming.push((self.now + rtt, id, Sample::Success { rtt })),
            After(rtt) => self.coming.extend([silence, (self.now + rtt, id, Sample::Success { rtt })]),
            No(rtt) if rtt < timeout => self.coming.push((self.now + rtt, id, no())),
            No(rtt) => self.coming.extend([silence, (self.now + rtt, id, no())]),
            Nothing => self.coming.push(silence),
            Reply::Local => self.coming.push((self.now, id, Sample::Local)),
            Reply::Stale => self.coming.push((self.now, id, Sample::Stale)),
        }
    }

    /// Whether the silent probe is still waited for.
    fn report(&mut self, id: ProbeId, sample: Sample) -> bool {
        let silence = matches!(sample, Sample::Silence(_));
        let report = self.tracker.report(id, sample, self.start + self.now);
        if silence && !report.keep_waiting {
            self.coming.retain(|(_, other, _)| *other != id);
        }
        if report.drop_others {
            self.coming.clear();
        }
        if let Some(change) = report.change {
            self.changes.push((self.now, change.verdict, change.cause.to_string()));
        }
        report.keep_waiting
    }

    /// A server that is up and settled, at the moment a probe has just been answered.
    fn up(rules: Rules) -> Play {
        let mut play = Play::new(rules);
        play.until(Duration::ZERO, |_, _| After(Duration::ZERO));
        assert_eq!(play.verdicts(), [Verdict::Up]);
        play.forget();
        play
    }

    fn down(rules: Rules) -> Play {
        let mut play = Play::new(rules);
        play.until(ms(3) * rules.fall, |_, _| No(Duration::ZERO));
        assert_eq!(play.verdicts(), [Verdict::Down]);
        play.forget();
        play
    }

    fn forget(&mut self) {
        self.changes.clear();
        self.sent.clear();
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.changes.iter().map(|(_, verdict, _)| *verdict).collect()
    }

    /// Times between the probes sent.
    fn gaps(&self) -> Vec<Duration> {
        self.sent.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }
}

#[test]
fn in_the_first_round_one_good_answer_is_up() {
    let mut play = Play::new(RULES);
    play.until(ms(100), |_, _| After(ms(12)));
    assert_eq!(play.changes, [(ms(12), Verdict::Up, "answered in 12ms".into())]);
    assert!(play.tracker.is_settled());
}

#[test]
fn in_the_first_round_down_needs_fall_failures() {
    let mut play = Play::new(RULES);
    play.until(ms(3), |_, _| No(Duration::ZERO));
    assert_eq!(play.verdicts(), []);
    assert_eq!(play.tracker.verdict(), Verdict::Unknown);
    play.until(ms(4), |_, _| No(Duration::ZERO));
    assert_eq!(play.changes, [(ms(4), Verdict::Down, "refused".into())]);
}

#[test]
fn without_a_result_the_verdict_stays_unknown_which_counts_as_up() {
    let mut play = Play::new(RULES);
    play.until(TIMEOUT, |_, _| Nothing);
    assert_eq!(play.tracker.verdict(), Verdict::Unknown);
    assert!(play.tracker.verdict().is_up() && !play.tracker.is_settled());
}

#[test]
fn a_first_failure_and_then_an_answer_is_up() {
    let mut play = Play::new(RULES);
    play.until(ms(10), |_, n| if n < 2 { No(ms(0)) } else { After(ms(1)) });
    assert_eq!(play.verdicts(), [Verdict::Up]);
}

#[test]
fn a_refused_probe_is_confirmed_two_ms_apart_on_new_connections() {
    let mut play = Play::up(RULES);
    play.until(ms(600), |_, _| No(Duration::ZERO));
    assert_eq!(play.verdicts(), [Verdict::Down]);
    assert_eq!(play.sent.iter().map(|sent| sent.fresh).collect::<Vec<_>>()[..3], [false, true, true]);
    assert_eq!(play.gaps()[..2], [ms(2), ms(2)]);
    assert_eq!(play.changes[0].0 - play.sent[0].at, ms(4));
}

#[test]
fn confirming_probes_do_not_wait_for_each_other() {
    let mut play = Play::up(RULES);
    play.until(ms(700), |_, _| No(ms(80)));
    let down = play.changes[0].0 - play.sent[0].at;
    assert_eq!(down, ms(80 + 2 + 2 + 80));
}

#[test]
fn with_fall_of_one_the_first_refusal_is_down() {
    let mut play = Play::up(Rules { fall: 1, ..RULES });
    play.until(ms(500), |_, _| No(ms(1)));
    assert_eq!(play.sent.len(), 1);
    assert_eq!(play.verdicts(), [Verdict::Down]);
}

#[test]
fn one_answer_among_refusals_clears_them() {
    let mut play = Play::up(RULES);
    play.until(ms(5_000), |_, n| if n % 3 == 2 { After(ms(0)) } else { No(ms(0)) });
    assert_eq!(play.verdicts(), []);
    assert!(play.sent.len() > 20, "{}", play.sent.len());
}

#[test]
fn after_silence_one_probe_more_than_fall_follows_on_new_connections_in_the_time_of_fall_of_them() {
    let mut play = Play::up(RULES);
    play.until(ms(1_200), |_, _| Nothing);
    let gap = ms(40) / 3;
    assert_eq!(play.gaps()[..4], [TIMEOUT, gap, gap, gap]);
    assert_eq!(play.sent[..5].iter().map(|sent| sent.fresh).collect::<Vec<_>>(), [false, true, true, true, true]);
    let first = play.sent[0].at;
    assert_eq!(play.changes, [(first + TIMEOUT * 2 + gap * 3, Verdict::Down, "no answer in 250ms".into())]);
}

#[test]
fn a_late_answer_of_the_silent_probe_clears_the_suspicion() {
    let mut play = Play::up(RULES);
    play.until(ms(3_000), |_, n| if n == 0 { After(ms(400)) } else { Nothing });
    let late = play.sent[0].at + ms(400);
    assert_eq!(play.sent[1..5].iter().filter(|sent| sent.at < late).count(), 4);
    let next = play.sent[5];
    assert!(next.at > late && !next.fresh, "back to the normal cadence: {next:?}");
}

#[test]
fn one_answer_to_a_confirming_probe_clears_silence() {
    for good in 1..=4 {
        let mut play = Play::up(RULES);
        play.until(ms(900), |_, n| if n == good { After(ms(9)) } else { Nothing });
        assert_eq!(play.verdicts(), [], "answer to probe {good}");
    }
}

#[test]
fn a_silent_server_that_begins_to_refuse_is_down_without_waiting_for_the_time_outs() {
    let mut play = Play::up(RULES);
    play.until(ms(1_200), |_, n| if n == 0 { Nothing } else { No(Duration::ZERO) });
    let first = play.sent[0].at;
    assert_eq!(play.changes, [(first + TIMEOUT + ms(4), Verdict::Down, "refused".into())]);
}

#[test]
fn the_silent_probe_counts_as_a_failure_once_it_is_refused() {
    let mut play = Play::up(RULES);
    play.until(ms(1_200), |_, n| if n == 0 { No(ms(255)) } else { No(ms(30)) });
    // Sent at 250; 255: the first is refused, 258 the next one, with which three are on their way or failed.
    let first = play.sent[0].at;
    let offsets: Vec<_> = play.sent[..3].iter().map(|sent| sent.at - first).collect();
    assert_eq!(offsets, [ms(0), ms(250), ms(255)]);
    assert_eq!(play.changes[0].0 - first, ms(285));
}

#[test]
fn silence_is_noticed_within_the_bound_wherever_in_the_interval_it_begins() {
    for fall in [1, 2, 3, 10] {
        for begins in (0..1_500).step_by(7).map(ms) {
            let rules = Rules { fall, ..RULES };
            let mut play = Play::up(rules);
            play.until(ms(4_000), |at, _| if at < begins { After(ms(0)) } else { Nothing });
            let bound = begins + rules.every + TIMEOUT * 2 + SILENCE_GAP * fall;
            assert_eq!(play.verdicts(), [Verdict::Down]);
            assert!(play.changes[0].0 <= bound, "fall {fall}, hung at {begins:?}: {:?}", play.changes[0]);
        }
    }
}

#[test]
fn down_needs_rise_answers_in_a_row_at_the_normal_cadence() {
    let mut play = Play::down(RULES);
    play.until(ms(6_000), |_, _| After(ms(1)));
    assert_eq!(play.verdicts(), [Verdict::Up]);
    assert_eq!(play.changes[0].2, "10 answers in a row");
    let tenth = play.sent[9].at + ms(1);
    assert_eq!(play.changes[0].0, tenth);
    assert!(play.gaps().iter().all(|gap| (ms(450)..=ms(500)).contains(gap)), "{:?}", play.gaps());
}

#[test]
fn a_failure_while_down_begins_the_count_anew_and_hurries_nothing() {
    for failure in [No(ms(0)), Nothing] {
        let mut play = Play::down(RULES);
        play.until(ms(9_200), |_, n| if n == 9 { failure } else { After(ms(0)) });
        assert_eq!(play.verdicts(), [], "{failure:?}");
        assert!(play.gaps().iter().all(|gap| *gap >= ms(450)), "{:?}", play.gaps());
        play.until(ms(12_000), |_, _| After(ms(0)));
        assert_eq!(play.verdicts(), [Verdict::Up]);
    }
}

#[test]
fn a_target_believed_down_owes_rise_answers_like_any_other() {
    let mut play = Play::with_prior(RULES, Verdict::Down);
    assert_eq!(play.tracker.verdict(), Verdict::Down);
    play.until(RULES.every * 7, |_, _| After(ms(5)));
    assert_eq!((play.verdicts(), play.tracker.is_settled()), (vec![], false), "it recovers, but is not back");
    play.until(RULES.every * 12, |_, _| After(ms(5)));
    assert_eq!((play.verdicts(), play.tracker.is_settled()), (vec![Verdict::Up], true));
    assert_eq!(play.changes[0].2, "10 answers in a row");
}

#[test]
fn the_first_failure_of_a_target_believed_down_settles_it_and_is_told_once() {
    for failure in [No(ms(0)), Nothing] {
        let mut play = Play::with_prior(RULES, Verdict::Down);
        play.until(RULES.every * 4, |_, _| failure);
        assert_eq!((play.verdicts(), play.tracker.is_settled()), (vec![Verdict::Down], true), "{failure:?}");
        play.until(RULES.every * 10, |_, _| After(ms(5)));
        assert_eq!(play.verdicts(), [Verdict::Down], "the answers are counted from there");
    }
}

#[test]
fn an_idle_close_only_brings_the_next_probe_forward() {
    let mut play = Play::up(RULES);
    play.until(ms(20), |_, _| unreachable!());
    play.tracker.idle_closed(play.start + ms(20));
    play.until(ms(400), |_, _| After(ms(0)));
    assert_eq!(play.sent[0].at, ms(20));
    assert_eq!(play.verdicts(), []);
}

#[test]
fn a_killed_server_is_down_four_ms_after_its_connection_closed() {
    let mut play = Play::up(RULES);
    play.until(ms(20), |_, _| unreachable!());
    play.tracker.idle_closed(play.start + ms(20));
    play.until(ms(30), |_, _| No(ms(0)));
    assert_eq!(play.changes, [(ms(24), Verdict::Down, "refused".into())]);
}

#[test]
fn a_server_that_closes_after_each_answer_is_not_probed_in_a_loop() {
    let mut play = Play::up(RULES);
    for _ in 0..20_000 {
        play.tracker.idle_closed(play.start + play.now);
        let end = play.now + ms(1);
        play.until(end, |_, _| After(ms(0)));
    }
    // 20 s at 500 ms: 40 regular probes, each followed by at most one that was brought forward.
    assert!((40..=90).contains(&play.sent.len()), "{}", play.sent.len());
}

#[test]
fn an_idle_close_while_a_probe_is_on_its_way_sends_no_second_one() {
    let mut play = Play::up(RULES);
    play.until(ms(500), |_, _| After(ms(200)));
    assert_eq!((play.sent.len(), play.tracker.next()), (1, None));
    play.tracker.idle_closed(play.start + play.now);
    assert_eq!(play.tracker.next(), None);
}

#[test]
fn an_idle_close_while_down_hurries_nothing() {
    let mut play = Play::down(RULES);
    let now = play.start + play.now;
    let before = play.tracker.next();
    play.tracker.idle_closed(now);
    assert_eq!(play.tracker.next(), before);
}

#[test]
fn a_stale_connection_is_no_failure_and_is_probed_again_at_once() {
    let mut play = Play::up(Rules { fall: 1, ..RULES });
    play.until(ms(600), |_, n| if n == 0 { Reply::Stale } else { After(ms(0)) });
    assert_eq!(play.verdicts(), []);
    assert_eq!(play.gaps()[0], ms(0));
}

#[test]
fn our_own_trouble_is_no_failure_of_the_server() {
    for fall in [1, 3] {
        let mut play = Play::up(Rules { fall, ..RULES });
        play.until(ms(60_000), |_, _| Reply::Local);
        assert_eq!(play.verdicts(), []);
        assert!((100..=140).contains(&play.sent.len()), "normal cadence: {}", play.sent.len());
    }
}

#[test]
fn our_own_trouble_between_failures_neither_counts_nor_clears() {
    let mut play = Play::up(RULES);
    play.until(ms(1_500), |_, n| if (1..4).contains(&n) { Reply::Local } else { No(ms(0)) });
    let gaps = play.gaps();
    assert_eq!(gaps[..5], [ms(2), LOCAL_GAP, LOCAL_GAP, LOCAL_GAP, ms(2)]);
    assert_eq!(play.verdicts(), [Verdict::Down]);
}

#[test]
fn a_report_of_a_former_round_is_ignored() {
    let mut play = Play::new(Rules { fall: 1, rise: 1, ..RULES });
    let id = play.tracker.sent(play.start);
    let silent = play.tracker.report(id, Sample::Silence("".into()), play.start + TIMEOUT);
    assert!(silent.keep_waiting);
    let second = play.tracker.sent(play.start + TIMEOUT);
    let down = play.tracker.report(second, Sample::Hard("refused".into()), play.start + TIMEOUT);
    assert!(down.drop_others && down.change.is_some());
    let late = play.tracker.report(id, Sample::Success { rtt: ms(1) }, play.start + TIMEOUT);
    assert_eq!(late, Report::default());
    assert_eq!(play.tracker.verdict(), Verdict::Down);
}

#[test]
fn targets_that_start_together_part_ways() {
    let mut seconds = Vec::new();
    for seed in 0..1_000 {
        let start = Instant::now();
        let mut tracker = Tracker::new(RULES, Verdict::Unknown, start, seed);
        let id = tracker.sent(start);
        let _ = tracker.report(id, Sample::Success { rtt: ms(0) }, start);
        seconds.push((tracker.next().unwrap().at - start).as_millis() / 50);
    }
    for slot in 1..10 {
        let here = seconds.iter().filter(|second| **second == slot).count();
        assert!((60..=160).contains(&here), "{here} of 1000 in the {slot}th 50 ms");
    }
}

/// Doubted 20 ms after a probe that was answered.
fn doubted(confirmations: u32, timeout: Duration) -> Play {
    let mut play = Play::up(RULES);
    play.until(ms(20), |_, _| unreachable!());
    play.tracker.doubt(play.start + ms(20), confirmations, timeout);
    play
}

#[test]
fn a_doubted_target_that_is_silent_is_down_when_the_doubts_own_probes_have_timed_out() {
    let mut play = doubted(2, ms(100));
    play.until(ms(400), |_, _| Nothing);
    assert_eq!(play.sent[..2], [Sent { at: ms(20), fresh: true }, Sent { at: ms(40), fresh: true }]);
    assert_eq!(play.changes, [(ms(140), Verdict::Down, "no answer in 250ms".into())]);
}

#[test]
fn one_answer_clears_a_doubt_and_the_cadence_goes_on() {
    for good in 0..2 {
        let mut play = doubted(2, ms(100));
        play.until(ms(100), |_, n| if n == good { After(ms(60)) } else { Nothing });
        assert!(!play.tracker.is_in_doubt());
        play.until(ms(2_000), |_, _| After(ms(1)));
        assert_eq!(play.verdicts(), [], "answer to probe {good}");
        assert!(play.gaps()[1..].iter().all(|gap| *gap >= ms(400)), "{:?}", play.gaps());
    }
}

#[test]
fn a_doubted_target_that_refuses_is_down_after_as_many_refusals_as_the_doubt_asks_for() {
    let mut play = doubted(2, ms(100));
    play.until(ms(400), |_, _| No(ms(0)));
    assert_eq!(play.changes, [(ms(22), Verdict::Down, "refused".into())]);
}

#[test]
fn a_doubt_never_needs_more_failures_than_fall() {
    let mut play = doubted(10, ms(100));
    play.until(ms(400), |_, _| No(ms(0)));
    assert_eq!(play.changes, [(ms(24), Verdict::Down, "refused".into())]);
    let mut play = doubted(0, ms(100));
    play.until(ms(400), |_, _| Nothing);
    assert_eq!(play.changes[0].0, ms(120), "none is taken for one");
}

#[test]
fn an_answer_to_the_probe_that_was_on_its_way_clears_a_doubt() {
    let mut play = Play::up(RULES);
    let sent = play.tracker.next().unwrap().at - play.start;
    play.until(sent, |_, _| After(ms(380)));
    play.until(sent + ms(200), |_, _| unreachable!());
    play.tracker.doubt(play.start + play.now, 2, ms(200));
    // Its own time-out passes at 250; the doubt's probes would time out at 400.
    play.until(sent + ms(399), |_, _| Nothing);
    assert!(!play.tracker.is_in_doubt());
    assert_eq!(play.verdicts(), []);
}

#[test]
fn the_time_out_of_the_probe_that_was_on_its_way_is_no_failure_in_a_doubt() {
    let mut play = Play::up(Rules { fall: 1, ..RULES });
    let sent = play.tracker.next().unwrap().at - play.start;
    play.until(sent + ms(200), |_, _| Nothing);
    play.tracker.doubt(play.start + play.now, 2, ms(100));
    play.until(sent + ms(319), |_, _| Nothing);
    assert_eq!(play.verdicts(), []);
    play.until(sent + ms(320), |_, _| Nothing);
    assert_eq!(play.verdicts(), [Verdict::Down]);
}

#[test]
fn a_doubt_hurries_a_silence_that_is_being_confirmed() {
    let mut play = Play::up(RULES);
    let sent = play.tracker.next().unwrap().at - play.start;
    play.until(sent + ms(300), |_, _| Nothing);
    assert_eq!(play.sent.len(), 5);
    play.tracker.doubt(play.start + play.now, 2, ms(100));
    play.until(sent + ms(2_000), |_, _| Nothing);
    assert_eq!(play.changes[0].0 - sent, ms(300 + 20 + 100), "without the doubt it is 540 ms");
}

#[test]
fn a_doubt_of_a_target_that_is_down_or_in_doubt_changes_nothing() {
    let mut play = Play::down(RULES);
    let before = play.tracker.next();
    play.tracker.doubt(play.start + play.now, 2, ms(100));
    assert_eq!(play.tracker.next(), before);
    let mut play = doubted(2, ms(100));
    for step in 0..200 {
        play.until(ms(20 + step), |_, _| Nothing);
        play.tracker.doubt(play.start + play.now, 2, ms(500));
        if !play.changes.is_empty() {
            break;
        }
    }
    assert_eq!((play.sent.len(), play.changes[0].0), (2, ms(140)));
}

#[test]
fn our_own_trouble_settles_no_doubt() {
    let mut play = doubted(2, ms(100));
    play.until(ms(500), |_, _| Reply::Local);
    assert!(play.tracker.is_in_doubt());
    play.until(ms(1_000), |_, _| Nothing);
    assert_eq!(play.verdicts(), [Verdict::Down]);
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        (0u64..600).prop_map(|rtt| After(ms(rtt))),
        (0u64..600).prop_map(|rtt| No(ms(rtt))),
        Just(Nothing),
        Just(Reply::Local),
        Just(Reply::Stale),
    ]
}

proptest! {
    /// A model that only counts: it sees the samples in the order in which the tracker does.
    #[test]
    fn verdicts_change_only_after_fall_or_rise_results_in_a_row(
        fall in 1u32..6,
        rise in 1u32..6,
        every in 260u64..1_000,
        replies in proptest::collection::vec(reply(), 1..120),
        closes in proptest::collection::vec(0u64..20_000, 0..10),
    ) {
        let rules = Rules { every: ms(every), fall, rise };
        let mut play = Play::new(rules);
        let mut script = replies.into_iter();
        let (mut failures, mut successes) = (0u32, 0u32);
        let mut settled = false;
        loop {
            let plan = play.tracker.next();
            // There is always something to wait for, and never for longer than `every`.
            prop_assert!(plan.is_some() || !play.coming.is_empty());
            if let Some(plan) = plan {
                let due = plan.at.duration_since(play.start);
                prop_assert!(due <= play.now + rules.every.max(LOCAL_GAP), "{due:?} at {:?}", play.now);
            }
            play.coming.sort_by_key(|(at, ..)| *at);
            let due = plan.map(|plan| plan.at.duration_since(play.start).max(play.now));
            let arrives = play.coming.first().map(|(at, ..)| *at);
            if let Some(at) = arrives.filter(|at| due.is_none_or(|due| *at <= due)) {
                play.now = at;
                if closes.iter().any(|close| ms(*close) <= at) && plan.is_none() {
                    play.tracker.idle_closed(play.start + at);
                }
                let (_, id, sample) = play.coming.remove(0);
                let result = sample.clone();
                let before = play.changes.len();
                let still_waited_for = play.report(id, sample);
                match result {
                    Sample::Success { .. } => (failures, successes) = (0, successes + 1),
                    // The first silence is a suspicion, not yet a failure.
                    Sample::Silence(_) if still_waited_for => {}
                    Sample::Hard(_) | Sample::Silence(_) => (failures, successes) = (failures + 1, 0),
                    _ => {}
                }
                if let Some((_, verdict, _)) = play.changes.get(before) {
                    match verdict {
                        Verdict::Down => prop_assert!(failures >= fall, "down after {failures} of {fall}"),
                        _ if settled => prop_assert!(successes >= rise, "up after {successes} of {rise}"),
                        _ => prop_assert!(successes >= 1),
                    }
                    settled = true;
                    (failures, successes) = (0, 0);
                }
            } else {
                play.now = due.unwrap();
                let Some(reply) = script.next() else { break };
                play.send(reply);
            }
        }
    }
}

#[test]
fn a_cleared_doubt_leaves_an_ordinary_suspicion_that_one_answer_ends() {
    let mut play = doubted(2, ms(100));
    play.until(ms(60), |_, _| Nothing);
    play.tracker.clear_doubt(play.start + ms(60));
    assert!(!play.tracker.is_in_doubt());
    play.until(ms(2_000), |_, n| if n < 2 { Nothing } else { After(ms(1)) });
    assert_eq!(play.verdicts(), [], "time-outs of the doubt's own probes count for nothing");
}

#[test]
fn a_silent_target_is_down_however_often_it_is_doubted_and_cleared() {
    let mut play = Play::up(RULES);
    play.until(ms(20), |_, _| unreachable!());
    let mut now = ms(20);
    while play.verdicts().is_empty() && now < ms(5_000) {
        play.tracker.doubt(play.start + now, 2, ms(100));
        play.until(now + ms(30), |_, _| Nothing);
        play.tracker.clear_doubt(play.start + now + ms(30));
        now += ms(120);
        play.until(now, |_, _| Nothing);
    }
    assert_eq!(play.verdicts(), [Verdict::Down]);
    assert!(play.changes[0].0 <= ms(500), "{:?}", play.changes);
}

#[test]
fn a_refusal_counts_though_the_doubt_was_cleared() {
    let mut play = doubted(2, ms(100));
    play.until(ms(21), |_, _| No(ms(0)));
    play.tracker.clear_doubt(play.start + ms(21));
    play.until(ms(100), |_, _| No(ms(0)));
    assert_eq!(play.changes, [(ms(24), Verdict::Down, "refused".into())]);
}

#[test]
fn clearing_without_a_doubt_does_nothing() {
    let mut play = Play::up(RULES);
    play.tracker.clear_doubt(play.start);
    play.until(ms(2_000), |_, _| After(ms(1)));
    assert!(play.gaps()[1..].iter().all(|gap| *gap >= ms(400)), "{:?}", play.gaps());
}
