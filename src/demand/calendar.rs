//! What the operator expects: demand and TTLs ahead of an event. Pure; time is passed in.
//!
//! ```text
//! weight 1 ┤            ╭──────────────────────╮
//!        0 ┼────────────╯                      ╰───────
//!        start − 15 min  − 5 min            end  + 5 min
//! ```
//!
//! From a quarter of an hour before the start demand is raised in a straight line, so that 5 minutes before it the plan is
//! that of the whole event; from the end it is let go within 5 minutes. An expectation never lowers what is measured. From
//! two TTLs before the start to the end answers live 10 s at most: caches that were filled before are empty in time.

use jiff::{SignedDuration, Timestamp};

use crate::config::settings::{Event, Expect};

const BEGIN: SignedDuration = SignedDuration::from_mins(15);
const WHOLE: SignedDuration = SignedDuration::from_mins(5);
const RELEASE: SignedDuration = SignedDuration::from_mins(5);

/// How much of an event's expectation counts at `now`, 0 to 1.
pub fn weight(event: &Event, now: Timestamp) -> f64 {
    let rise = (now.duration_since(event.start) + BEGIN).as_secs_f64() / (BEGIN - WHOLE).as_secs_f64();
    let fall = 1.0 - now.duration_since(event.end).as_secs_f64() / RELEASE.as_secs_f64();
    rise.min(fall).clamp(0.0, 1.0)
}

/// Session starts/s of a stream (its position among the zone's streams) at `now`, raised to what its events expect.
/// `measured` and `usual` are starts/s, the latter without events; `session_s` is the mean session, seconds. Sessions are
/// taken as a steady state: N of them are N / `session_s` starts/s.
pub fn raised(events: &[Event], stream: usize, now: Timestamp, measured: f64, usual: f64, session_s: f64) -> f64 {
    let clean = |rate: f64| if rate.is_finite() { rate.max(0.0) } else { 0.0 };
    let expected = events.iter().filter(|event| event.stream == stream).map(|event| {
        let weight = weight(event, now);
        match event.expect {
            Expect::Sessions(sessions) => weight * sessions / session_s.max(1.0),
            Expect::Times(times) if weight > 0.0 => clean(usual) * (1.0 + weight * (times - 1.0)),
            Expect::Times(_) => 0.0,
        }
    });
    expected.map(clean).fold(clean(measured), f64::max)
}

/// The same of streams that are measured together, each with the events of its zone: what each is asked for is not told apart,
/// so each is taken for an equal part. `usual`: `None` where that is not known; then what is measured may be the event already,
/// and sessions are expected in all and not beside it.
pub fn raised_together(
    streams: &[(&[Event], usize)],
    now: Timestamp,
    measured: f64,
    usual: Option<f64>,
    session_s: f64,
) -> f64 {
    let each = |usual: f64| -> f64 {
        let part = usual / streams.len() as f64;
        streams.iter().map(|(events, stream)| raised(events, *stream, now, part, part, session_s)).sum()
    };
    let expected = match usual {
        Some(usual) => each(usual),
        None => Some(each(0.0)).filter(|sessions| *sessions > 0.0).unwrap_or_else(|| each(measured)),
    };
    expected.max(measured)
}

/// Whether answers of a stream are to live [`BRIEF_TTL_S`] at most; `ttl_s` is its own.
pub fn brief_at(events: &[Event], stream: usize, ttl_s: u32, now: Timestamp) -> bool {
    let ahead = SignedDuration::from_secs(2 * i64::from(ttl_s));
    let mut events = events.iter().filter(|event| event.stream == stream);
    events.any(|event| event.start.duration_since(now) <= ahead && now < event.end)
}

/// Seconds that answers live at most around an event.
pub const BRIEF_TTL_S: u32 = 10;

/// Whether an event of a stream is going on or near, so that its rates say nothing of what is usual.
pub fn is_unusual(events: &[Event], stream: usize, now: Timestamp) -> bool {
    events.iter().any(|event| event.stream == stream && weight(event, now) > 0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::At;

    fn event(expect: Expect) -> Event {
        let (start, end) = ("2026-11-28T18:00:00Z", "2026-11-28T20:00:00Z");
        let at = At::start(std::path::Path::new("zone.toml"));
        Event { stream: 0, start: start.parse().unwrap(), end: end.parse().unwrap(), expect, at }
    }

    fn at(time: &str) -> Timestamp {
        format!("2026-11-28T{time}Z").parse().unwrap()
    }

    #[test]
    fn demand_rises_from_a_quarter_of_an_hour_before_and_is_let_go_after_the_end() {
        let event = event(Expect::Times(3.0));
        let cases = [("17:45:00", 0.0), ("17:50:00", 0.5), ("17:55:00", 1.0), ("19:59:59", 1.0)];
        for (time, expected) in cases.into_iter().chain([("20:02:30", 0.5), ("20:05:00", 0.0), ("03:00:00", 0.0)]) {
            assert!((weight(&event, at(time)) - expected).abs() < 1e-9, "{time}");
        }
    }

    #[test]
    fn an_expectation_raises_and_never_lowers() {
        let sessions = [event(Expect::Sessions(30_000.0))];
        assert_eq!(raised(&sessions, 0, at("18:00:00"), 2.0, 1.0, 1200.0), 25.0);
        assert_eq!(raised(&sessions, 0, at("17:50:00"), 2.0, 1.0, 1200.0), 12.5);
        assert_eq!(raised(&sessions, 0, at("18:00:00"), 40.0, 1.0, 1200.0), 40.0);
        assert_eq!(raised(&sessions, 1, at("18:00:00"), 2.0, 1.0, 1200.0), 2.0, "another stream's");
        let times = [event(Expect::Times(3.0))];
        assert_eq!(raised(&times, 0, at("17:50:00"), 2.0, 4.0, 1200.0), 8.0);
        assert_eq!(raised(&times, 0, at("12:00:00"), 2.0, 4.0, 1200.0), 2.0, "before it what is usual says nothing");
    }

    #[test]
    fn an_event_of_one_stream_brings_nothing_to_those_that_are_counted_with_it() {
        let whole = |expect, measured, usual| {
            let events = [event(expect)];
            let streams = [0, 1, 2, 3].map(|stream| (&events[..], stream));
            raised_together(&streams, at("18:30:00"), measured, usual, 1000.0)
        };
        assert_eq!(whole(Expect::Times(3.0), 40.0, Some(40.0)), 60.0, "a quarter of it three times");
        assert_eq!(whole(Expect::Times(3.0), 90.0, Some(40.0)), 90.0, "what is measured is never lowered");
        assert_eq!(whole(Expect::Times(3.0), 40.0, None), 60.0);
        assert_eq!(whole(Expect::Sessions(30_000.0), 40.0, Some(40.0)), 60.0, "30 a second beside 30 of the others");
        assert_eq!(whole(Expect::Sessions(30_000.0), 20.0, None), 30.0);
        assert_eq!(whole(Expect::Sessions(30_000.0), 50.0, None), 50.0, "it may be there already");
    }

    #[test]
    fn answers_are_brief_from_two_ttls_before_to_the_end() {
        let events = [event(Expect::Times(3.0))];
        let brief = |time: &str| brief_at(&events, 0, 300, at(time));
        assert_eq!(["17:49:59", "17:50:00", "19:59:59", "20:00:00"].map(brief), [false, true, true, false]);
        assert!(!brief_at(&events, 1, 300, at("18:00:00")));
    }

    proptest! {
        #[test]
        fn whatever_is_measured_the_rate_is_a_number(
            measured in any::<f64>(), usual in any::<f64>(), session in 0.0f64..1e5, second in -100_000i64..100_000,
        ) {
            let now = at("18:00:00").checked_add(SignedDuration::from_secs(second)).unwrap();
            for expect in [Expect::Sessions(1e9), Expect::Times(1000.0)] {
                let rate = raised(&[event(expect)], 0, now, measured, usual.min(1e12), session);
                prop_assert!(rate.is_finite() && rate >= 0.0);
                prop_assert!(!measured.is_finite() || rate >= measured);
            }
        }
    }
}
