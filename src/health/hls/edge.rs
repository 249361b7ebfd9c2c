//! Whether the live edge of a playlist moves on. Pure; time is passed in.
//!
//! A live playlist gets a new segment no later than one and a half target durations after the last (RFC 8216 §6.2.2).
//! One whose edge stands longer than `stale` target durations is frozen: the server answers, and viewers see a still.
//!
//! Any edge that was not there just before counts as movement, a lower one too: an encoder that starts anew counts from
//! the beginning. Edges that were seen lately do not, so that two frozen servers behind one address, asked by turns,
//! are not taken for a moving one.

use std::fmt;
use std::time::{Duration, Instant};

use super::playlist::{Edge, Media};

/// Edges that are remembered. As many frozen servers behind one address are seen through; and an encoder that starts
/// anew with the numbers of just now is believed after so many segments.
const REMEMBERED: usize = 4;

/// What was seen of one target's playlist.
#[derive(Clone, Debug)]
pub struct EdgeWatch {
    /// Target durations.
    stale: u32,
    /// The newest last.
    seen: Vec<Edge>,
    /// When the last movement was known; `None` before the first playlist.
    moved: Option<Instant>,
}

/// The edge stands for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub edge: Edge,
    pub since: Duration,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "live edge stands at {} for {:.1}s", self.edge, self.since.as_secs_f64())
    }
}

impl EdgeWatch {
    /// `stale`: target durations without movement that make a failure.
    pub fn new(stale: u32) -> EdgeWatch {
        EdgeWatch { stale, seen: Vec::with_capacity(REMEMBERED), moved: None }
    }

    /// A playlist that was asked for at `asked` and has come at `got`. The first one is always well.
    ///
    /// Movement counts from when it was known, standing up to when the playlist was asked for: what lies between is the
    /// network's delay, or this machine's, and an answer that was read late is no standing edge.
    pub fn observe(&mut self, media: &Media, asked: Instant, got: Instant) -> Result<(), Standing> {
        if !self.seen.contains(&media.edge) {
            if self.seen.len() == REMEMBERED {
                self.seen.remove(0);
            }
            self.seen.push(media.edge);
            self.moved = Some(self.moved.map_or(got, |moved| moved.max(got)));
            return Ok(());
        }
        let Some(moved) = self.moved else { return Ok(()) };
        let since = asked.saturating_duration_since(moved);
        if since < media.target.saturating_mul(self.stale) {
            return Ok(());
        }
        Err(Standing { edge: media.edge, since })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TARGET: Duration = Duration::from_secs(2);
    const EVERY: Duration = Duration::from_millis(500);

    fn edge(segment: u64) -> Edge {
        Edge { discontinuity: 0, segment, part: 0 }
    }

    fn media(edge: Edge) -> Media {
        Media { target: TARGET, edge, playable: true, ended: false }
    }

    /// Time of a test, and what is seen at it.
    struct Seen {
        watch: EdgeWatch,
        now: Instant,
    }

    impl Seen {
        fn new() -> Seen {
            Seen { watch: EdgeWatch::new(3), now: Instant::now() }
        }

        fn after(&mut self, time: Duration, edge: Edge) -> Result<(), Standing> {
            self.now += time;
            self.watch.observe(&media(edge), self.now, self.now)
        }
    }

    #[test]
    fn the_first_playlist_is_well_and_the_edge_may_stand_for_three_target_durations() {
        let mut seen = Seen::new();
        assert_eq!(seen.after(EVERY, edge(1234)), Ok(()));
        assert_eq!(seen.after(Duration::from_millis(5_999), edge(1234)), Ok(()));
        let standing = seen.after(Duration::from_millis(101), edge(1234)).unwrap_err();
        assert_eq!(standing.to_string(), "live edge stands at 1234 for 6.1s");
    }

    #[test]
    fn an_edge_that_moves_is_well_however_long_and_heals_what_stood() {
        let mut seen = Seen::new();
        for segment in 0..100 {
            assert_eq!(seen.after(TARGET, edge(segment)), Ok(()));
        }
        assert!(seen.after(TARGET * 3, edge(99)).is_err());
        assert!(seen.after(EVERY, edge(99)).is_err());
        assert_eq!(seen.after(EVERY, edge(100)), Ok(()));
        assert_eq!(seen.after(TARGET, edge(100)), Ok(()));
    }

    #[test]
    fn a_part_or_a_discontinuity_is_movement() {
        let mut seen = Seen::new();
        let at = |discontinuity, part| Edge { discontinuity, segment: 7, part };
        for edge in [at(0, 0), at(0, 1), at(0, 2), at(1, 0), at(1, 1)] {
            assert_eq!(seen.after(TARGET * 2, edge), Ok(()));
        }
        assert_eq!(seen.after(TARGET * 4, at(1, 1)).unwrap_err().to_string(), "live edge stands at 7.1 for 8.0s");
    }

    #[test]
    fn an_encoder_that_starts_anew_counts_as_movement() {
        let mut seen = Seen::new();
        for segment in [5_000, 5_001, 0, 1, 2] {
            assert_eq!(seen.after(TARGET * 2, edge(segment)), Ok(()));
        }
    }

    #[test]
    fn frozen_servers_that_are_asked_by_turns_do_not_look_as_if_they_moved() {
        let mut seen = Seen::new();
        let start = seen.now;
        let frozen = [100, 98, 103].map(edge).into_iter().cycle();
        let down = frozen.into_iter().position(|edge| seen.after(EVERY, edge).is_err()).unwrap();
        assert_eq!(down, 14, "the third edge is news after 1.5 s, and 6 s later it stands: {:?}", seen.now - start);
    }

    #[test]
    fn an_answer_that_is_read_late_is_no_standing_edge() {
        let mut watch = EdgeWatch::new(3);
        let start = Instant::now();
        watch.observe(&media(edge(1)), start, start).unwrap();
        let asked = start + TARGET;
        assert_eq!(watch.observe(&media(edge(1)), asked, asked + TARGET * 100), Ok(()));
        assert!(watch.observe(&media(edge(1)), start + TARGET * 4, start + TARGET * 4).is_err());
    }

    #[test]
    fn the_target_duration_in_force_is_that_of_the_playlist_of_now() {
        let mut watch = EdgeWatch::new(2);
        let start = Instant::now();
        watch.observe(&media(edge(1)), start, start).unwrap();
        let later = start + TARGET * 5;
        let longer = Media { target: TARGET * 10, ..media(edge(1)) };
        assert_eq!(watch.observe(&longer, later, later), Ok(()));
        assert!(watch.observe(&media(edge(1)), later, later).is_err());
    }

    proptest! {
        /// Whatever is seen: an edge that has not changed for long is found, and one that is new never is.
        #[test]
        fn only_what_was_seen_before_can_stand(edges in prop::collection::vec(0u64..6, 1..60), step_ms in 1u64..10_000) {
            let mut seen = Seen::new();
            let mut known: Vec<u64> = Vec::new();
            for segment in edges {
                let outcome = seen.after(Duration::from_millis(step_ms), edge(segment));
                if outcome.is_err() {
                    prop_assert!(known.contains(&segment));
                }
                known.push(segment);
                prop_assert!(seen.watch.seen.len() <= REMEMBERED);
            }
            let last = *known.last().unwrap();
            prop_assert!(seen.after(TARGET * 3, edge(last)).is_err());
        }
    }
}
