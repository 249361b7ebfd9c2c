//! How viewers come to a region, as its reports show it: sessions now, session starts, and how long a session lasts.
//!
//! Reports are noisy: a third of a percent of a region's sessions is as many as begin there in four seconds, and prices that
//! follow each report would send viewers to and fro. So sessions and starts are tracked: what is expected to come is added
//! and what is expected to leave taken away, and of what the next report differs a part is believed
//! (a Luenberger observer of two states). What our own plan changes is known before any report shows it, and is put in
//! as it happens.

use std::time::Instant;

use crate::load::{State, Trust};

use super::balance::{Balance, DWELL_MEMORY_S};
use crate::steering::dwell;

/// Time constant in which reports are believed, s.
const LOAD_MEMORY_S: f64 = 15.0;
/// The same while viewers come back who lost a region: then much is surmise, and reports are what is known.
const HASTY_MEMORY_S: f64 = 5.0;
/// Time constant of starts that are told, s.
const STARTS_MEMORY_S: f64 = 20.0;
/// Changes of the number of sessions are told apart from chance over at least this, s.
const STRIDE_S: f64 = 10.0;
/// What differs by more than this part, and by more than chance, is believed at once: so much for each second since the last
/// report, up to five.
const JUMP: f64 = 0.1;
const LONGEST_JUMP_S: f64 = 5.0;
/// Sessions differ by chance by no more than so many times the root of their number.
const CHANCE: f64 = 4.0;
/// Time constant in which a length is believed that follows from sessions alone, s: at first the shorter, since anything that
/// was seen is better than what is taken for granted, and longer as more was seen.
const BELIEF_S: (f64, f64) = (60.0, 300.0);
/// Once it was seen for so long, s, hardly anything is left in it of what was taken for granted.
const TAUGHT_S: f64 = 120.0;
/// Time constant in which regions come to one length, s: much less than they take to learn one.
const COMMON_S: f64 = 60.0;

/// What is expected to happen to a region between two looks, starts/s.
#[derive(Clone, Copy, Debug, Default)]
pub struct Push {
    /// How many more come than before, since answers of before run out.
    pub change: f64,
    /// Viewers who lost another region and come here.
    pub returning: f64,
}

/// Of one region. Every figure is finite and within its bounds, whatever is fed.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Sessions and starts/s, as tracked, and when.
    track: Option<Track>,
    stride: Option<Stride>,
    balance: Balance,
    dwell_s: f64,
    /// For how long it was seen, s; 0: never.
    taught_s: f64,
    /// Starts are told, so that the length is known and not guessed.
    tells: bool,
    /// What another length made of starts/s since that was last asked for.
    revised: f64,
}

/// A piece of time over which the number of sessions changes by more than chance.
#[derive(Clone, Copy, Debug)]
struct Stride {
    /// Sessions and time at its start.
    sessions: f64,
    at: Instant,
    /// How often it was fed, and the sum of queries/s.
    count: u32,
    asked: f64,
    /// How often starts were told, and the sum of starts/s.
    told: u32,
    starts: f64,
}

#[derive(Clone, Copy, Debug)]
struct Track {
    sessions: f64,
    starts: f64,
    at: Instant,
    /// When the last report came.
    heard: Instant,
    since: Instant,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow {
            track: None,
            stride: None,
            balance: Balance::default(),
            dwell_s: dwell::USUAL_S,
            taught_s: 0.0,
            tells: false,
            revised: 0.0,
        }
    }
}

impl Flow {
    /// What was kept over a restart.
    pub fn restored(dwell_s: f64) -> Flow {
        Flow { dwell_s: dwell::bounded(dwell_s), taught_s: BELIEF_S.1, ..Flow::default() }
    }

    /// Mean length of a session, s.
    pub fn dwell_s(&self) -> f64 {
        self.dwell_s
    }

    /// Whether the length follows from what was seen, and is not just taken for granted.
    pub fn is_taught(&self) -> bool {
        self.taught_s >= TAUGHT_S
    }

    /// Viewers stay for as long in one region as in another, so what one region shows of that soon holds for all: else a
    /// region that has learned it and one that has not would take the same viewers for other numbers of sessions. Each that
    /// was ever taught weighs as much as its sessions. Those that tell starts teach the others and keep their own.
    pub fn share_length(flows: &mut [Flow], elapsed_s: f64) {
        let (mut gone, mut weight) = (0.0, 0.0);
        for flow in flows.iter().filter(|flow| flow.taught_s > 0.0) {
            let sessions = flow.sessions().unwrap_or(0.0);
            (gone, weight) = (gone + sessions / flow.dwell_s, weight + sessions);
        }
        let common = gone / weight;
        if !(common > 0.0 && common.is_finite()) {
            return;
        }
        let part = -(-elapsed_s / COMMON_S).exp_m1();
        for flow in flows.iter_mut().filter(|flow| !flow.tells) {
            let own = 1.0 / flow.dwell_s;
            flow.believe(1.0 / (own + part * (common - own)));
        }
    }

    /// Sessions now; `None` while nothing fresh is reported.
    pub fn sessions(&self) -> Option<f64> {
        self.track.map(|track| track.sessions)
    }

    /// Starts/s, of which some seconds of reports have told; `None` before.
    pub fn starts(&self) -> Option<f64> {
        let track = self.track?;
        (track.at.saturating_duration_since(track.since).as_secs_f64() >= STRIDE_S).then_some(track.starts)
    }

    /// By what factor starts became others since this was last asked, only because another length is believed.
    pub fn take_revision(&mut self) -> f64 {
        let revised = std::mem::take(&mut self.revised);
        let starts = self.track.map_or(0.0, |track| track.starts);
        let factor = starts / (starts - revised);
        if factor > 0.0 && factor.is_finite() { factor } else { 1.0 }
    }

    /// Takes in what is believed of the region now. `asked`: queries/s that led there. `calm`: what comes is what viewers want.
    /// Otherwise viewers come back who lost another region, and that tells nothing of starts.
    pub fn feed(&mut self, state: &State, push: Push, asked: f64, calm: bool, now: Instant) {
        // Where most reports are late, loads are predictions of ours: nothing is to be learned from them.
        let newest = state.newest.filter(|_| state.majority <= Trust::Predicted).map(|age| age.as_secs_f64());
        let (Some(newest), Some(load)) = (newest, state.load().filter(|load| load.is_finite())) else {
            (self.track, self.stride) = (None, None);
            return;
        };
        let sound = |rate: f64| if rate.is_finite() { rate } else { 0.0 };
        let told = state.starts_per_s.map(|rate| sound(rate).max(0.0));
        self.tells = told.is_some();
        let elapsed = self.track.map_or(0.0, |track| now.saturating_duration_since(track.at).as_secs_f64());
        // A report that was there before has been believed already.
        let is_news = self.track.is_none() || newest <= elapsed;
        let steady = told.unwrap_or(load / self.dwell_s);
        let track = self.track.get_or_insert(Track { sessions: load, starts: steady, at: now, heard: now, since: now });
        track.at = now;
        track.starts = (track.starts + sound(push.change)).max(0.0);
        let lasting = (track.starts + sound(push.returning).max(0.0)) * self.dwell_s;
        track.sessions = lasting + (track.sessions - lasting) * (-elapsed / self.dwell_s).exp();
        let error = load - track.sessions;
        let since = now.saturating_duration_since(track.heard).as_secs_f64().max(elapsed);
        let (larger, jump) = (track.sessions.max(load), JUMP * since.clamp(1.0, LONGEST_JUMP_S));
        if is_news && error.abs() > jump * larger + CHANCE * larger.sqrt() {
            (track.sessions, track.heard) = (load, now);
            // Nobody came or left so fast: this report is wrong or those before were, and what they told of starts with them.
            self.stride = None;
            if calm {
                (track.starts, track.since) = (steady, now);
                self.balance = Balance::default();
            }
            return;
        }
        self.measure(load, told, sound(asked).max(0.0), calm, is_news, now);
        let Some(track) = self.track.as_mut().filter(|_| is_news) else { return };
        track.heard = now;
        let part = -(-since / if calm { LOAD_MEMORY_S } else { HASTY_MEMORY_S }).exp_m1();
        track.sessions += part * error;
        if let (Some(told), true) = (told, calm) {
            track.starts += -(-since / STARTS_MEMORY_S).exp_m1() * (told - track.starts);
        } else if calm && since > 0.0 {
            // Critically damped: both settle without swinging.
            track.starts = (track.starts + part * part / 4.0 * error / since).max(0.0);
        }
    }

    /// Learns how long sessions last.
    fn measure(&mut self, sessions: f64, told: Option<f64>, asked: f64, calm: bool, is_news: bool, now: Instant) {
        let begun = Stride { sessions, at: now, count: 0, asked: 0.0, told: 0, starts: 0.0 };
        let Some(stride) = self.stride.as_mut().filter(|_| calm) else {
            self.stride = Some(begun);
            return;
        };
        (stride.count, stride.asked) = (stride.count + 1, stride.asked + asked);
        if let Some(told) = told {
            (stride.told, stride.starts) = (stride.told + 1, stride.starts + told);
        }
        let stride = *stride;
        let length_s = now.saturating_duration_since(stride.at).as_secs_f64();
        if length_s < STRIDE_S || !is_news {
            return;
        }
        self.stride = Some(begun);
        let growth = (sessions - stride.sessions) / length_s;
        let mean = (stride.sessions + sessions) / 2.0;
        if stride.told > 0 {
            // What does not stay of those who come has left. 1/D is learned, as noise makes that too high as often as too low.
            let most = 1.0 / dwell::LEAST_S;
            let left = stride.starts / f64::from(stride.told) - growth;
            if mean > 0.0 && left.is_finite() {
                let part = -(-length_s / DWELL_MEMORY_S).exp_m1();
                let gone = 1.0 / self.dwell_s;
                let gone = gone + part * ((left / mean).clamp(-most, most) - gone);
                self.taught_s += length_s;
                self.believe(1.0 / dwell::bounded_rate(gone));
            }
            return;
        }
        self.balance.feed(mean, growth, stride.asked / f64::from(stride.count), length_s);
        if let Some(dwell_s) = self.balance.dwell_s() {
            self.taught_s += length_s;
            let (gone, memory_s) = (1.0 / self.dwell_s, self.taught_s.clamp(BELIEF_S.0, BELIEF_S.1));
            self.believe(1.0 / (gone - (-length_s / memory_s).exp_m1() * (1.0 / dwell_s - gone)));
        }
    }

    /// Where sessions last longer than was thought, fewer began, unless it is told how many did.
    fn believe(&mut self, dwell_s: f64) {
        if let Some(track) = self.track.as_mut().filter(|_| !self.tells) {
            let before = track.starts;
            track.starts = (before + track.sessions * (1.0 / dwell_s - 1.0 / self.dwell_s)).max(0.0);
            self.revised += track.starts - before;
        }
        self.dwell_s = dwell_s;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Queries/s.
    const ASKED: f64 = 5.0;

    fn state(sessions: f64, starts_per_s: Option<f64>) -> State {
        State {
            sessions: Some(sessions),
            utilization: None,
            capacity: Some(1e6),
            nominal: Some(1e6),
            starts_per_s,
            age: Some(Duration::from_secs(1)),
            trust: Trust::Fresh,
            newest: Some(Duration::from_secs(1)),
            majority: Trust::Fresh,
            silent: 0,
        }
    }

    /// Sessions of so many seconds that start at 50/s; reports differ by 0.3 %, one way and the other.
    fn run(seconds: u64, dwell: f64, tell: bool) -> Flow {
        let (mut flow, start, mut sessions) = (Flow::default(), Instant::now(), 1000.0f64);
        for second in 0..seconds {
            let noise = if second / 3 % 2 == 0 { 1.003 } else { 0.997 };
            let state = state(sessions * noise, tell.then_some(50.0));
            flow.feed(&state, Push::default(), ASKED, true, start + Duration::from_secs(second));
            sessions += 50.0 - sessions / dwell;
        }
        flow
    }

    #[test]
    fn where_starts_are_told_their_length_is_learned_while_the_region_still_fills() {
        let flow = run(1800, 600.0, true);
        assert!((flow.dwell_s() - 600.0).abs() < 60.0, "{}", flow.dwell_s());
        assert!((flow.starts().unwrap() - 50.0).abs() < 0.1, "{flow:?}");
    }

    #[test]
    fn where_only_sessions_are_told_starts_follow_from_them_within_minutes() {
        let flow = run(300, dwell::USUAL_S, false);
        assert!((flow.starts().unwrap() - 50.0).abs() < 2.5, "{flow:?}");
        let flow = run(6000, dwell::USUAL_S, false);
        assert!((flow.starts().unwrap() - 50.0).abs() < 2.5, "{flow:?}");
        let sessions = flow.sessions().unwrap();
        assert!((sessions / 60_000.0 - 1.0).abs() < 0.01, "{sessions}");
        assert!((flow.dwell_s() / dwell::USUAL_S - 1.0).abs() < 0.1, "{flow:?}");
    }

    #[test]
    fn what_one_region_shows_of_how_long_viewers_stay_holds_for_all() {
        let start = Instant::now();
        // Viewers of the first come and go, those of the second do not, and the third tells its starts.
        let mut flows = [(); 3].map(|()| Flow::default());
        let mut sessions = [6000.0, 3000.0, 1000.0];
        for second in 0..1800u32 {
            let starts = [20.0 + 8.0 * (f64::from(second) / 80.0).sin(), 10.0, 4.0];
            for (at, flow) in flows.iter_mut().enumerate() {
                let state = state(sessions[at], (at == 2).then_some(starts[at]));
                let now = start + Duration::from_secs(second.into());
                flow.feed(&state, Push::default(), starts[at] / 2.0, true, now);
            }
            Flow::share_length(&mut flows, 1.0);
            for (at, dwell) in [300.0, 300.0, 250.0].into_iter().enumerate() {
                sessions[at] += starts[at] - sessions[at] / dwell;
            }
        }
        let [told, untold, own] = flows.each_ref().map(Flow::dwell_s);
        assert!((told / 300.0 - 1.0).abs() < 0.2 && (untold / told - 1.0).abs() < 0.1, "{told} {untold}");
        assert!((own / 250.0 - 1.0).abs() < 0.1, "{own}");
    }

    #[test]
    fn what_the_plan_changes_is_known_before_reports_show_it() {
        let mut flow = run(3000, dwell::USUAL_S, false);
        let (before, sessions) = (flow.starts().unwrap(), flow.sessions().unwrap());
        let now = flow.track.unwrap().at;
        let state = state(sessions, None);
        flow.feed(&state, Push { change: -20.0, returning: 0.0 }, ASKED, true, now + Duration::from_secs(1));
        assert!((flow.starts().unwrap() - before + 20.0).abs() < 0.5);
        assert!(flow.sessions().unwrap() < sessions);
    }

    #[test]
    fn viewers_who_come_back_are_sessions_and_no_demand() {
        let mut flow = run(3000, dwell::USUAL_S, false);
        let (before, mut sessions) = (flow.starts().unwrap(), flow.sessions().unwrap());
        let now = flow.track.unwrap().at;
        for second in 1..=60 {
            sessions += 200.0 + before - sessions / dwell::USUAL_S;
            let push = Push { change: 0.0, returning: 200.0 };
            flow.feed(&state(sessions, None), push, ASKED, false, now + Duration::from_secs(second));
        }
        assert_eq!(flow.starts(), Some(before));
        assert!((flow.sessions().unwrap() / sessions - 1.0).abs() < 0.005);
    }

    #[test]
    fn starts_that_absurd_reports_made_up_are_forgotten_within_minutes() {
        let mut flow = run(900, dwell::USUAL_S, false);
        let (before, begin) = (flow.starts().unwrap(), flow.track.unwrap().at);
        let now = |second: u64| begin + Duration::from_secs(second);
        let sessions = flow.sessions().unwrap();
        for second in 1..=60 {
            let wrong = [0.0, 10.0, 3e4, 2e9][second as usize / 3 % 4];
            flow.feed(&state(wrong, None), Push::default(), ASKED, true, now(second));
        }
        for second in 61..=120 {
            flow.feed(&state(sessions, None), Push::default(), ASKED, true, now(second));
        }
        let after = flow.starts().unwrap();
        assert!((0.5..2.0).contains(&(after / before)), "{before} {after}");
        assert!((flow.dwell_s() / dwell::USUAL_S - 1.0).abs() < 0.2, "{flow:?}");
    }

    #[test]
    fn nothing_is_learned_from_predictions_or_from_lies() {
        let (mut flow, start) = (Flow::default(), Instant::now());
        let old = State { majority: Trust::Poor, ..state(500.0, Some(9.0)) };
        let lies = [state(f64::INFINITY, None), state(f64::NAN, Some(f64::NAN)), state(10.0, Some(f64::INFINITY))];
        for (second, state) in [old].iter().chain(&lies).cycle().take(400).enumerate() {
            let push = Push { change: f64::NAN, returning: f64::INFINITY };
            flow.feed(state, push, f64::NAN, true, start + Duration::from_secs(second as u64));
            assert!(flow.dwell_s().is_finite() && flow.sessions().is_none_or(f64::is_finite), "{flow:?}");
        }
        assert!(flow.starts().is_none(), "{flow:?}");
    }
}
