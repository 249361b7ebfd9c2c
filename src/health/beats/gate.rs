//! Which beats count: those of an agent that answers now, each once, in order, and in time.
//!
//! A beat counts only with a nonce of this run of the node, which the node gave to this instance of the agent for this
//! server. So what was captured is of no use after either side has been restarted. Within a session sequence numbers
//! rise, so that nothing counts twice; and the time that a beat was sent, on the agent's monotonic clock, has to agree
//! with the time it came, so that beats that were held back do not count either. No wall clock is looked at.
//!
//! ```text
//! agent: beat without nonce ─► node: challenge (nonce) ─► agent: beat with nonce ─► a session
//! ```
//!
//! Nonces are not stored: they carry the time they were issued and a digest under a secret of this run.
//!
//! Pure but for the secret; times are microseconds since the node began to listen.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::packet::{Addresses, Beat, Nonce};

/// A session begins within this after its nonce was issued: the first beat may have been held back for no longer. An
/// agent answers a challenge at once, so this is a long time for any path.
pub const ESTABLISH_US: u64 = 2_000_000;

/// A beat may be that much later or earlier than the quickest beats of its session.
pub const TOLERANCE_US: u64 = 1_000_000;

/// While its session has heard a beat within this, an agent with an older nonce is not invited to take over.
pub const LIVE_US: u64 = 3_000_000;

/// How far two monotonic clocks may run apart, in microseconds a second: NTP slews a clock by 500 at most.
const DRIFT_US_PER_S: u64 = 1000;

/// Makes nonces, and knows its own.
pub struct Mint {
    secret: hmac::Key,
}

impl Mint {
    /// Errors: the system gives no random bytes.
    pub fn new() -> Result<Mint, ring::error::Unspecified> {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret)?;
        Ok(Mint { secret: hmac::Key::new(hmac::HMAC_SHA256, &secret) })
    }

    pub fn issue(&self, now: u64, server: &Addresses, instance: u64) -> Nonce {
        // 0 stands for "none" on the wire.
        let issued = now.max(1);
        let digest = hmac::sign(&self.secret, &Mint::text(issued, server, instance));
        let mut tag = [0; 16];
        tag.copy_from_slice(&digest.as_ref()[..16]);
        Nonce { issued, tag }
    }

    pub fn is_ours(&self, nonce: &Nonce, server: &Addresses, instance: u64) -> bool {
        let own = self.issue(nonce.issued, server, instance);
        // In constant time; both are 16 bytes.
        nonce.tag.iter().zip(own.tag).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }

    fn text(issued: u64, server: &Addresses, instance: u64) -> Vec<u8> {
        let mut text = Vec::with_capacity(40);
        text.extend(issued.to_be_bytes());
        text.extend(instance.to_be_bytes());
        server.write(&mut text);
        text
    }
}

/// When a packet came, as far as it is known: it may have waited in the socket since that was last seen empty.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub earliest: u64,
    pub latest: u64,
}

/// Why a beat does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Without a nonce, or with one of another run, server or instance.
    NoSession,
    /// With a nonce older than that of the session, or too old to begin one.
    StaleSession,
    /// Its sequence number was seen, or a later one was.
    Replayed,
    /// Held back, or dated ahead.
    OutOfTime,
}

/// What becomes of a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It counts. `begins`: it is the first of its session.
    Counts { begins: bool },
    /// It does not. `challenge`: an honest agent gets a new nonce for it.
    Refused { why: Refusal, challenge: bool },
}

#[derive(Clone, Copy, Debug)]
struct Session {
    issued: u64,
    sequence: u64,
    /// Arrival less time sent, of the quickest beat; wrapping, as either clock may begin anywhere.
    offset: i64,
    /// When that was seen.
    measured: u64,
    /// When a beat last counted.
    heard: u64,
}

/// The memory for one server: one session at most.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    session: Option<Session>,
}

impl Gate {
    /// Judges an authentic beat. `ours`: whether its nonce is one, as [`Mint::is_ours`] says.
    pub fn judge(&mut self, beat: &Beat, ours: bool, arrival: Arrival) -> Fate {
        let refused = |why, challenge| Fate::Refused { why, challenge };
        let Some(nonce) = beat.nonce.filter(|_| ours) else { return refused(Refusal::NoSession, true) };
        match &mut self.session {
            Some(session) if session.issued == nonce.issued => {
                if beat.sequence <= session.sequence {
                    return refused(Refusal::Replayed, false);
                }
                if !session.is_in_time(beat.sent, arrival) {
                    // Its own clock may have stood still (a machine that was suspended): a new session mends that.
                    return refused(Refusal::OutOfTime, true);
                }
                session.sequence = beat.sequence;
                session.heard = arrival.latest;
                Fate::Counts { begins: false }
            }
            // Two agents for one server must not take it from each other beat by beat.
            Some(session) if nonce.issued < session.issued => {
                refused(Refusal::StaleSession, arrival.latest.saturating_sub(session.heard) > LIVE_US)
            }
            _ if arrival.earliest.saturating_sub(nonce.issued) > ESTABLISH_US => refused(Refusal::StaleSession, true),
            _ => {
                self.session = Some(Session {
                    issued: nonce.issued,
                    sequence: beat.sequence,
                    offset: offset(arrival.latest, beat.sent),
                    measured: arrival.latest,
                    heard: arrival.latest,
                });
                Fate::Counts { begins: true }
            }
        }
    }
}

impl Session {
    fn is_in_time(&mut self, sent: u64, arrival: Arrival) -> bool {
        // Clocks run apart a little, so that the quickest way seen grows old; this also bounds by how much somebody on
        // the path can slow down all beats, little by little, without being noticed.
        let age = arrival.latest.saturating_sub(self.measured);
        let drift = (age / 1_000_000).saturating_mul(DRIFT_US_PER_S).min(i64::MAX as u64) as i64;
        let quickest = self.offset.saturating_add(drift);
        let tolerance = TOLERANCE_US as i64;
        // The differences of offsets are taken with wrapping for the same reason as the offsets.
        if offset(arrival.earliest, sent).wrapping_sub(quickest) > tolerance
            || offset(arrival.latest, sent).wrapping_sub(quickest) < -tolerance
        {
            return false;
        }
        let seen = offset(arrival.latest, sent);
        if seen.wrapping_sub(quickest) < 0 {
            (self.offset, self.measured) = (seen, arrival.latest);
        } else if drift >= DRIFT_US_PER_S as i64 {
            (self.offset, self.measured) = (quickest, self.measured + age / 1_000_000 * 1_000_000);
        }
        true
    }
}

fn offset(arrival: u64, sent: u64) -> i64 {
    arrival.wrapping_sub(sent) as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packet::{Load, State};
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn server() -> Addresses {
        Addresses::new(Some([192, 0, 2, 1].into()), None).unwrap()
    }

    /// A node and what it has seen, the time, and an agent whose clock shows `agent` more.
    struct Scene {
        mint: Mint,
        gate: Gate,
        now: u64,
        agent: u64,
    }

    const COUNTS: Fate = Fate::Counts { begins: false };
    const BEGINS: Fate = Fate::Counts { begins: true };
    const REPLAYED: Fate = Fate::Refused { why: Refusal::Replayed, challenge: false };
    const NO_SESSION: Fate = Fate::Refused { why: Refusal::NoSession, challenge: true };
    const OUT_OF_TIME: Fate = Fate::Refused { why: Refusal::OutOfTime, challenge: true };

    fn stale(challenge: bool) -> Fate {
        Fate::Refused { why: Refusal::StaleSession, challenge }
    }

    impl Scene {
        fn new(agent: u64) -> Scene {
            Scene { mint: Mint::new().unwrap(), gate: Gate::default(), now: 5 * SECOND, agent }
        }

        fn nonce(&self, instance: u64) -> Nonce {
            self.mint.issue(self.now, &server(), instance)
        }

        /// A beat sent now.
        fn beat(&self, instance: u64, nonce: impl Into<Option<Nonce>>, sequence: u64) -> Beat {
            let (state, load) = (State::Ready, Load::default());
            let sent = self.now.wrapping_add(self.agent);
            Beat { server: server(), instance, nonce: nonce.into(), sequence, sent, every_ms: 100, state, load }
        }

        fn judge(&mut self, beat: &Beat) -> Fate {
            self.judge_since(beat, self.now)
        }

        /// The socket was last seen empty at `earliest`.
        fn judge_since(&mut self, beat: &Beat, earliest: u64) -> Fate {
            let ours = beat.nonce.is_some_and(|nonce| self.mint.is_ours(&nonce, &beat.server, beat.instance));
            self.gate.judge(beat, ours, Arrival { earliest, latest: self.now })
        }

        /// Begins a session; gives its nonce.
        fn begin(&mut self, instance: u64) -> Nonce {
            let nonce = self.nonce(instance);
            self.now += 1000;
            let beat = self.beat(instance, nonce, 1);
            assert_eq!(self.judge(&beat), BEGINS);
            nonce
        }
    }

    #[test]
    fn a_session_begins_with_an_answered_challenge() {
        let mut scene = Scene::new(0);
        let bare = scene.beat(7, None, 1);
        assert_eq!(scene.judge(&bare), NO_SESSION);
        let nonce = scene.begin(7);
        scene.now += 100_000;
        let next = scene.beat(7, nonce, 2);
        assert_eq!(scene.judge(&next), COUNTS);
    }

    #[test]
    fn a_replayed_or_reordered_beat_does_not_count() {
        let mut scene = Scene::new(0);
        let nonce = scene.begin(7);
        let [second, third] = [2, 3].map(|n| scene.beat(7, nonce, n));
        assert_eq!(scene.judge(&third), COUNTS);
        assert_eq!(scene.judge(&third), REPLAYED);
        assert_eq!(scene.judge(&second), REPLAYED);
    }

    #[test]
    fn a_nonce_is_good_for_its_server_instance_and_run_only() {
        let mut scene = Scene::new(0);
        let nonce = scene.begin(7);
        let other = scene.beat(8, nonce, 9);
        assert_eq!(scene.judge(&other), NO_SESSION, "another instance");
        let server = Addresses::new(Some([192, 0, 2, 2].into()), None).unwrap();
        let other = Beat { server, ..scene.beat(7, nonce, 9) };
        assert_eq!(scene.judge(&other), NO_SESSION, "another server");
        scene.mint = Mint::new().unwrap();
        scene.gate = Gate::default();
        let captured = scene.beat(7, nonce, 9);
        assert_eq!(scene.judge(&captured), NO_SESSION, "the node was restarted");
    }

    #[test]
    fn what_was_captured_of_a_former_session_does_not_count() {
        let mut scene = Scene::new(0);
        let old = scene.begin(7);
        scene.now += SECOND;
        let captured = scene.beat(7, old, 50);
        let new = scene.begin(8);
        assert_eq!(scene.judge(&captured), stale(false), "the agent was restarted");
        scene.now += 100_000;
        let next = scene.beat(8, new, 2);
        assert_eq!(scene.judge(&next), COUNTS);
    }

    #[test]
    fn an_agent_with_an_older_nonce_is_invited_once_the_newer_one_is_silent() {
        let mut scene = Scene::new(0);
        let old = scene.begin(7);
        scene.now += SECOND;
        scene.begin(8);
        scene.now += LIVE_US;
        let beat = scene.beat(7, old, 60);
        assert_eq!(scene.judge(&beat), stale(false));
        scene.now += 1;
        assert_eq!(scene.judge(&beat), stale(true));
        let nonce = scene.nonce(7);
        let beat = scene.beat(7, nonce, 61);
        assert_eq!(scene.judge(&beat), BEGINS);
    }

    #[test]
    fn a_session_has_to_begin_soon_after_its_challenge() {
        for (wait, begins) in [(ESTABLISH_US, true), (ESTABLISH_US + 1, false)] {
            let mut scene = Scene::new(0);
            let nonce = scene.nonce(7);
            scene.now += wait;
            let beat = scene.beat(7, nonce, 1);
            assert_eq!(scene.judge(&beat), if begins { BEGINS } else { stale(true) }, "{wait}");
        }
    }

    #[test]
    fn a_beat_that_was_held_back_does_not_count() {
        let mut scene = Scene::new(0);
        let nonce = scene.begin(7);
        let held = scene.beat(7, nonce, 2);
        // Clocks may have run apart by a millisecond meanwhile.
        scene.now += TOLERANCE_US + DRIFT_US_PER_S + 1;
        assert_eq!(scene.judge(&held), OUT_OF_TIME);
        let fresh = scene.beat(7, nonce, 3);
        assert_eq!(scene.judge(&fresh), COUNTS, "the next one counts again");
    }

    #[test]
    fn a_beat_that_is_dated_ahead_does_not_count() {
        let mut scene = Scene::new(0);
        let nonce = scene.begin(7);
        let beat = |scene: &Scene, ahead| Beat { sent: scene.now + ahead, ..scene.beat(7, nonce, 2) };
        let ahead = beat(&scene, TOLERANCE_US + 1);
        assert_eq!(scene.judge(&ahead), OUT_OF_TIME);
        let just = beat(&scene, TOLERANCE_US);
        assert_eq!(scene.judge(&just), COUNTS);
    }

    #[test]
    fn an_agent_whose_clock_stood_still_comes_back_by_a_new_session() {
        let mut scene = Scene::new(0);
        let nonce = scene.begin(7);
        scene.now += 3600 * SECOND;
        scene.agent = scene.agent.wrapping_sub(3600 * SECOND);
        let beat = scene.beat(7, nonce, 2);
        assert_eq!(scene.judge(&beat), OUT_OF_TIME);
        let nonce = scene.nonce(7);
        let beat = scene.beat(7, nonce, 3);
        assert_eq!(scene.judge(&beat), BEGINS);
    }

    #[test]
    fn our_own_lateness_is_not_taken_for_that_of_the_beat() {
        let mut scene = Scene::new(0);
        let nonce = scene.begin(7);
        let empty = scene.now;
        let beat = scene.beat(7, nonce, 2);
        scene.now += 4 * SECOND;
        assert_eq!(scene.judge_since(&beat, empty), COUNTS);
    }

    #[test]
    fn clocks_that_run_apart_as_clocks_do_are_no_delay() {
        for drift in [-500i64, 500] {
            let mut scene = Scene::new(0);
            let nonce = scene.begin(7);
            for sequence in 2..100_000 {
                scene.now += SECOND;
                scene.agent = scene.agent.wrapping_add_signed(drift);
                let beat = scene.beat(7, nonce, sequence);
                assert_eq!(scene.judge(&beat), COUNTS, "{drift} after {sequence} s");
            }
        }
    }

    #[test]
    fn a_delay_that_grows_little_by_little_is_noticed() {
        let mut scene = Scene::new(0);
        let nonce = scene.begin(7);
        let mut delay = 0;
        let refused = (2..2000).find(|&sequence| {
            scene.now += SECOND;
            delay += 5000;
            let beat = Beat { sent: scene.now - delay, ..scene.beat(7, nonce, sequence) };
            scene.judge(&beat) != COUNTS
        });
        assert!(refused.is_some_and(|sequence| sequence < 300), "{refused:?}");
    }

    proptest! {
        // The agent's clock may begin anywhere, and only its own steps matter.
        #[test]
        fn it_does_not_matter_what_the_agents_clock_shows(agent: u64, steps in prop::collection::vec(1u64..900_000, 1..50)) {
            let mut scene = Scene::new(agent);
            let nonce = scene.begin(7);
            for (sequence, step) in (2..).zip(steps) {
                scene.now += step;
                let beat = scene.beat(7, nonce, sequence);
                prop_assert_eq!(scene.judge(&beat), COUNTS);
            }
        }

        #[test]
        fn whatever_is_recorded_counts_at_most_once(order in prop::collection::vec(0usize..20, 0..60), instance in 1u64..3) {
            let mut scene = Scene::new(0);
            let nonce = scene.nonce(instance);
            let recorded: Vec<Beat> = (1..=20).map(|sequence| scene.beat(instance, nonce, sequence)).collect();
            let mut counted = [0; 20];
            for index in order {
                if matches!(scene.judge(&recorded[index]), Fate::Counts { .. }) {
                    counted[index] += 1;
                }
            }
            prop_assert!(counted.iter().all(|count| *count <= 1), "{:?}", counted);
        }

        #[test]
        fn any_beat_is_judged_without_a_panic(sent: u64, sequence: u64, issued: u64, earliest: u64, latest: u64, ours: bool) {
            let mut scene = Scene::new(0);
            scene.begin(7);
            let beat = scene.beat(7, Nonce { issued, tag: [0; 16] }, sequence);
            scene.gate.judge(&Beat { sent, ..beat }, ours, Arrival { earliest, latest });
            scene.gate.judge(&Beat { sent: latest, ..beat }, ours, Arrival { earliest: sent, latest: sent });
        }
    }
}
