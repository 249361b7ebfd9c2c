//! Simulated years of probing in virtual time: how often a healthy server is taken for dead, and how soon a dead one is
//! noticed. A [`Tracker`] and a [`Judge`] are driven as the prober and the control loop drive them.
//!
//! ```text
//! cargo test --release --lib simulated_years -- --ignored --nocapture
//! ```
//!
//! prints the figures of long runs. What a probe is, over a network that loses packets:
//!
//! * on a kept connection a request and a response. Either lost, it is sent again after 200 ms, then 400 ms, and so on:
//!   the smallest time-out of Linux, without the tail loss probes that often make it faster.
//! * on a new connection a SYN and its answer before that; either lost, the SYN is sent again after 1 s, 2 s, and so on
//!   (RFC 6298 §2).
//!
//! Long quiet times are skipped, not played: how many regular probes in a row meet no loss is drawn from its
//! distribution, and the next probe goes out that much later.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::judge::{Group, Judge, Rules as Court, Vote};
use super::rtt::Rtts;
use super::tracker::{ProbeId, Rules, Sample, Tracker};
use super::{Target, Verdict};
use crate::config::settings::{Check, CheckKind};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// The defaults of a zone file.
const RULES: Rules = Rules { every: ms(500), fall: 3, rise: 10 };
const TIMEOUT: Duration = ms(250);
/// Between regular probes, on average: 90 to 100 % of `every`.
const PACE: Duration = ms(475);

/// SplitMix64, seeded: the same figures at each run.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// Exponentially distributed.
    fn wait(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }
}

/// How the network treats packets.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// A probe gets no answer at all with this chance.
    Probes(f64),
    /// Each packet is lost with this chance.
    Packets(f64),
    /// Each packet is lost with the chance `within` while a burst lasts, none between; bursts and the time between them
    /// are exponentially distributed (Gilbert and Elliott).
    Bursts { between: Duration, length: Duration, within: f64 },
}

/// The network between the prober and a server that is well until it dies.
struct Network {
    loss: Loss,
    rtt: Duration,
    /// From then on it is so much slower.
    jump: Option<(Duration, Duration)>,
    random: Random,
    /// The burst that is or comes next.
    burst: (Duration, Duration),
    dead: Option<(Duration, Death)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Its sockets close, and new connections are refused.
    Killed,
    /// Nothing is answered any more.
    Silent,
}

impl Network {
    fn new(loss: Loss, rtt: Duration, seed: u64) -> Network {
        let mut random = Random(seed);
        let burst = match loss {
            Loss::Bursts { between, length, .. } => {
                let from = random.wait(between);
                (from, from + random.wait(length))
            }
            _ => (Duration::MAX, Duration::MAX),
        };
        Network { loss, rtt, jump: None, random, burst, dead: None }
    }

    fn rtt(&self, at: Duration) -> Duration {
        self.jump.filter(|(from, _)| at >= *from).map_or(self.rtt, |(_, rtt)| rtt)
    }

    /// Moves on to the burst that ends after `at`.
    fn pass(&mut self, at: Duration) {
        let Loss::Bursts { between, length, .. } = self.loss else { return };
        while self.burst.1 < at {
            let from = self.burst.1 + self.random.wait(between);
            self.burst = (from, from + self.random.wait(length));
        }
    }

    /// How many of the next regular probes meet no loss, from `at` on.
    fn quiet(&mut self, at: Duration) -> u64 {
        let lossy = match self.loss {
            Loss::Probes(p) => p,
            Loss::Packets(p) => 1.0 - (1.0 - p) * (1.0 - p),
            Loss::Bursts { .. } => {
                self.pass(at);
                // Up to 10 s before the burst, so that the play goes on before it.
                return (self.burst.0.saturating_sub(at + ms(10_000)).as_millis() / PACE.as_millis()) as u64;
            }
        };
        // Geometric. The probe that does meet a loss is drawn by `reply`.
        ((1.0 - self.random.unit()).ln() / (1.0 - lossy).ln()) as u64
    }

    /// Whether a packet sent then arrives.
    fn arrives(&mut self, at: Duration) -> bool {
        match self.loss {
            Loss::Probes(_) => true,
            Loss::Packets(p) => !self.random.chance(p),
            Loss::Bursts { within, .. } => at < self.burst.0 || at > self.burst.1 || !self.random.chance(within),
        }
    }

    /// From sending something to its answer, sent again after `again`, twice that, and so on; `None`: longer than anybody
    /// waits. `lost`: the first attempt is known to be.
    fn round_trip(&mut self, at: Duration, again: Duration, lost: bool) -> Option<Duration> {
        let rtt = self.rtt(at);
        let mut sent = Duration::ZERO;
        for attempt in 0..5 {
            if !(lost && attempt == 0) && self.arrives(at + sent) && self.arrives(at + sent + rtt / 2) {
                return Some(sent + rtt);
            }
            sent += again * (1 << attempt);
        }
        None
    }

    /// How the probe ends and after how long; `None`: never.
    fn reply(&mut self, at: Duration, fresh: bool) -> Option<(Duration, bool)> {
        self.pass(at);
        if let Loss::Probes(p) = self.loss
            && self.random.chance(p)
        {
            return None;
        }
        let dead = self.dead.filter(|(from, _)| *from <= at).map(|(_, death)| death);
        if dead == Some(Death::Silent) {
            return None;
        }
        let connected = if fresh { self.round_trip(at, ms(1_000), false)? } else { Duration::ZERO };
        if dead.is_some() {
            return Some((connected, false));
        }
        Some((connected + self.round_trip(at + connected, ms(200), false)?, true))
    }

    /// As `reply` for a regular probe that does meet a loss.
    fn unlucky(&mut self, at: Duration) -> Option<(Duration, bool)> {
        match self.loss {
            Loss::Probes(_) => None,
            Loss::Bursts { .. } => self.reply(at, false),
            Loss::Packets(_) => Some((self.round_trip(at, ms(200), true)?, true)),
        }
    }
}

/// One server and who watches it. Times are since the start.
struct Simulation {
    network: Network,
    tracker: Tracker,
    judge: Judge,
    target: Target,
    start: Instant,
    now: Duration,
    coming: Vec<(Duration, ProbeId, Sample)>,
    /// Whose measured times make the time-out of regular probes.
    adaptive: Option<Rtts>,
    downs: Vec<Duration>,
}

impl Simulation {
    fn new(network: Network, adaptive: bool, seed: u64) -> Simulation {
        let start = Instant::now();
        let check = Check {
            kind: CheckKind::Tcp,
            every: RULES.every,
            timeout: TIMEOUT,
            adaptive,
            fall: 3,
            rise: 10,
            port: 1,
            heartbeat: None,
            load: Default::default(),
        };
        let target = Target { address: ([192, 0, 2, 1], 1).into(), check: Arc::new(check), beats_of: None };
        let mut judge = Judge::new(Court::default());
        judge.retain([(target.clone(), Group(0))], start);
        Simulation {
            network,
            tracker: Tracker::new(RULES, Verdict::Unknown, start, seed),
            judge,
            target,
            start,
            now: Duration::ZERO,
            coming: vec![],
            adaptive: adaptive.then(Rtts::default),
            downs: vec![],
        }
    }

    /// Plays until `end`, or until the first down when told so. Skips quiet times where nothing can be learned from them.
    fn run(&mut self, end: Duration, skip: bool, stop_at_down: bool) {
        while !stop_at_down || self.downs.is_empty() {
            let due = self.tracker.next().map(|plan| (plan.at.duration_since(self.start).max(self.now), plan.fresh));
            let first = (0..self.coming.len()).min_by_key(|index| self.coming[*index].0);
            match first {
                Some(index) if due.is_none_or(|(due, _)| self.coming[index].0 <= due) => {
                    if self.coming[index].0 > end {
                        return;
                    }
                    let (at, id, sample) = self.coming.swap_remove(index);
                    self.now = at;
                    self.report(id, sample);
                }
                _ => {
                    let (mut at, fresh) = due.expect("there is always something to wait for");
                    let up = self.tracker.is_settled() && self.tracker.verdict() == Verdict::Up;
                    let unlucky = skip && !fresh && up && self.coming.is_empty();
                    if unlucky {
                        at += PACE.mul_f64(self.network.quiet(at) as f64);
                    }
                    if at > end {
                        return;
                    }
                    self.now = at;
                    self.send(fresh, unlucky);
                }
            }
        }
    }

    fn send(&mut self, fresh: bool, unlucky: bool) {
        let id = self.tracker.sent(self.start + self.now);
        let reply = if unlucky { self.network.unlucky(self.now) } else { self.network.reply(self.now, fresh) };
        let timeout = match &self.adaptive {
            Some(rtts) if !fresh => rtts.timeout(TIMEOUT),
            _ => TIMEOUT,
        };
        if reply.is_none_or(|(took, _)| took > timeout) {
            self.coming.push((self.now + timeout, id, Sample::Silence("no answer".into())));
        }
        if let Some((took, good)) = reply {
            let sample = if good { Sample::Success { rtt: took } } else { Sample::Hard("refused".into()) };
            self.coming.push((self.now + took, id, sample));
        }
    }

    /// The server has died; the last that it sent arrives at `last`.
    fn die(&mut self, last: Duration, death: Death) {
        let unanswered: Vec<_> = self
            .coming
            .extract_if(.., |(at, _, sample)| *at > last && matches!(sample, Sample::Success { .. }))
            .collect();
        for (at, id, sample) in unanswered {
            let Sample::Success { rtt } = sample else { continue };
            if death == Death::Killed {
                self.coming.retain(|(_, other, _)| *other != id);
                self.coming.push((last, id, Sample::Stale));
            } else if !self.coming.iter().any(|(_, other, _)| *other == id) && rtt <= TIMEOUT {
                self.coming.push((at - rtt + TIMEOUT, id, Sample::Silence("no answer".into())));
            }
        }
        if death == Death::Killed {
            self.run(last, false, true);
            self.now = last;
            self.tracker.idle_closed(self.start + last);
        }
    }

    fn report(&mut self, id: ProbeId, sample: Sample) {
        let now = self.start + self.now;
        if let (Some(rtts), Sample::Success { rtt }) = (&mut self.adaptive, &sample) {
            rtts.note(*rtt);
        }
        let silence = matches!(sample, Sample::Silence(_));
        let report = self.tracker.report(id, sample, now);
        if silence && !report.keep_waiting {
            self.coming.retain(|(_, other, _)| *other != id);
        }
        if report.drop_others {
            self.coming.clear();
        }
        if self.judge.due().is_some_and(|due| due <= now) {
            self.judge.tick(now);
        }
        if let Some(change) = report.change {
            let vote = Vote { vantage: "local".into(), verdict: change.verdict, cause: change.cause };
            let ruling = self.judge.vote(&self.target, vote, now);
            if change.verdict == Verdict::Down && ruling.is_some() {
                self.downs.push(self.now);
            }
        }
    }
}

/// False downs in so many years.
fn false_downs(loss: Loss, rtt: Duration, years: u32) -> usize {
    let mut simulation = Simulation::new(Network::new(loss, rtt, 7), false, 11);
    simulation.run(YEAR * years, true, false);
    simulation.downs.len()
}

/// From a death at any time of the interval to the ruling, sorted.
fn detections(loss: Loss, rtt: Duration, death: Death, count: u64) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..count)
        .map(|seed| {
            let mut network = Network::new(loss, rtt, seed * 7919);
            let dies = ms(5_000) + PACE.mul_f64(network.random.unit() * 4.0);
            network.dead = Some((dies, death));
            let mut simulation = Simulation::new(network, false, seed);
            simulation.run(dies, false, false);
            simulation.downs.clear();
            simulation.die(dies + rtt / 2, death);
            simulation.run(dies + ms(60_000), false, true);
            simulation.downs.first().map_or(Duration::MAX, |down| *down - dies)
        })
        .collect();
    times.sort();
    times
}

fn at(times: &[Duration], share: f64) -> Duration {
    times[((times.len() - 1) as f64 * share).round() as usize]
}

const BURSTS: Loss = Loss::Bursts { between: Duration::from_secs(10), length: ms(100), within: 1.0 };

#[test]
fn at_one_percent_loss_less_than_one_healthy_server_in_a_year_is_taken_for_dead() {
    for rtt in [20, 80] {
        for loss in [Loss::Probes(0.01), Loss::Packets(0.01)] {
            let downs = false_downs(loss, ms(rtt), 5);
            println!("{loss:?}, rtt {rtt} ms: {downs} false downs in 5 years");
            assert!(downs < 5, "{loss:?}, rtt {rtt} ms: {downs} in 5 years");
        }
    }
}

#[test]
fn the_simulated_loss_is_the_one_that_was_asked_for() {
    let mut network = Network::new(Loss::Packets(0.05), ms(20), 3);
    let slow =
        (0..100_000u64).filter(|n| network.reply(ms(500) * *n as u32, false).is_none_or(|r| r.0 > ms(20))).count();
    assert!((9_300..10_200).contains(&slow), "1 - 0.95²: {slow}");
    let mut network = Network::new(BURSTS, ms(20), 3);
    let slow = (0..200_000u32).filter(|n| network.reply(ms(500) * *n, false).is_none_or(|r| r.0 > ms(20))).count();
    assert!((1_500..3_200).contains(&slow), "100 ms in 10.1 s, and those that a burst meets half-way: {slow}");
    // Quiet times that are skipped have the right length too.
    let mut network = Network::new(Loss::Packets(0.01), ms(20), 3);
    let mean = (0..100_000).map(|_| network.quiet(ms(0))).sum::<u64>() as f64 / 1e5;
    assert!((48.0..50.5).contains(&mean), "(1 - q) / q: {mean}");
}

#[test]
fn skipped_and_played_out_quiet_times_give_the_same_rate() {
    let loss = Loss::Probes(0.2);
    let rate = |skip| {
        let mut simulation = Simulation::new(Network::new(loss, ms(20), 5), false, 5);
        simulation.run(YEAR / 100, skip, false);
        simulation.downs.len() as f64
    };
    let (skipped, played) = (rate(true), rate(false));
    assert!(played > 150.0 && (0.85..1.15).contains(&(skipped / played)), "{skipped} against {played}");
}

#[test]
fn a_dead_server_is_noticed_within_the_bound_and_the_goals() {
    let bound = RULES.every + TIMEOUT * 2 + ms(20) * RULES.fall;
    let times = detections(Loss::Packets(0.0), ms(20), Death::Silent, 2_000);
    assert!(
        at(&times, 0.5) <= ms(900) && at(&times, 0.99) <= ms(1_150) && at(&times, 1.0) <= bound,
        "{:?}",
        at(&times, 1.0)
    );
    let times = detections(Loss::Packets(0.0), ms(1), Death::Killed, 2_000);
    assert!(at(&times, 0.5) <= ms(10) && at(&times, 1.0) <= ms(50), "{:?}", at(&times, 1.0));
    // Loss does not make silence harder to see, only a refusal.
    let times = detections(Loss::Packets(0.05), ms(20), Death::Silent, 2_000);
    assert!(at(&times, 1.0) <= bound);
}

#[test]
fn a_jump_of_the_rtt_makes_no_healthy_server_down_nor_with_a_time_out_that_adapts() {
    for adaptive in [false, true] {
        for to in [60, 120, 180, 240] {
            for seed in 0..50 {
                let mut network = Network::new(Loss::Packets(0.0), ms(5), seed);
                network.jump = Some((ms(60_000), ms(to)));
                let mut simulation = Simulation::new(network, adaptive, seed);
                simulation.run(ms(600_000), false, false);
                assert!(simulation.downs.is_empty(), "to {to} ms, adaptive {adaptive}");
            }
        }
    }
}

/// A verdict knows only of monotonic time, so a step of the wall clock cannot touch it.
#[test]
fn no_wall_clock_enters_a_verdict() {
    for (file, text) in [
        ("tracker", include_str!("tracker.rs")),
        ("judge", include_str!("judge.rs")),
        ("damping", include_str!("damping.rs")),
        ("rtt", include_str!("rtt.rs")),
        ("patience", include_str!("patience.rs")),
        ("prober", include_str!("prober.rs")),
        ("probe", include_str!("probe.rs")),
        ("stats", include_str!("stats.rs")),
    ] {
        for clock in ["SystemTime", "Timestamp", "UNIX_EPOCH"] {
            assert!(!text.contains(clock), "{file}.rs uses {clock}");
        }
    }
}

/// Prints the figures.
#[test]
#[ignore = "simulates hundreds of server-years"]
fn simulated_years() {
    const YEARS: u32 = 100;
    println!("false downs a server-year, at the defaults:");
    for (loss, years) in [
        (Loss::Probes(0.01), YEARS),
        (Loss::Probes(0.05), 10),
        (Loss::Packets(0.01), YEARS),
        (Loss::Packets(0.05), 10),
        (BURSTS, 1),
        (Loss::Bursts { between: Duration::from_secs(20), length: ms(200), within: 1.0 }, 1),
        (Loss::Bursts { between: Duration::from_secs(10), length: ms(1_000), within: 0.1 }, 1),
    ] {
        for rtt in [20, 80] {
            let downs = false_downs(loss, ms(rtt), years);
            println!("  {loss:?}, rtt {rtt} ms: {:.3} ({downs} in {years} years)", downs as f64 / f64::from(years));
        }
    }
    println!("from death to ruling, rtt 20 ms, 20,000 deaths each:");
    for death in [Death::Killed, Death::Silent] {
        for loss in [0.0, 0.01, 0.05] {
            let times = detections(Loss::Packets(loss), ms(20), death, 20_000);
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| at(&times, share));
            println!("  {death:?}, {:.0} % of packets lost: p50 {p50:.0?}, p99 {p99:.0?}, max {max:.0?}", loss * 100.0);
        }
    }
}
