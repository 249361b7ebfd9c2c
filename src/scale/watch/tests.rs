use std::sync::Arc;

use super::*;
use crate::pilot::scale::{Desired, Region, Size, Unknown};
use crate::pilot::view::Stage;

const SECOND: Duration = Duration::from_secs(1);

fn webhook() -> Webhook {
    let url = "http://127.0.0.1/".parse().unwrap();
    Webhook { url, above: 0.85, below: 0.60, every: 60 * SECOND, token: None, ca: None }
}

pub fn region(name: &str, size: Result<(f64, u32), Unknown>) -> Region {
    let size = size.map(|(planned, now)| Size {
        desired: Desired { now, in_15m: now, after_loss: now + 2 },
        utilization: Some(0.81),
        planned: Some(planned),
        unconstrained: Some(1.12),
        price_ms: 22.5,
        sessions: Some(48_211.0),
        unconstrained_rate: 80.0,
        admission: Some(66.0),
        worst_loss: Some("ams".into()),
    });
    let zones = vec![Arc::from([Arc::from("stream.example")])];
    Region { name: name.into(), zones, stage: Stage::Steered, gap: Some(0.001), moved: 0.0, size }
}

struct Run {
    watch: Watch,
    now: Instant,
}

impl Run {
    fn new() -> Run {
        Run { watch: Watch::new(&webhook()), now: Instant::now() }
    }

    /// Why something is told of the region after so many seconds.
    fn after(&mut self, seconds: u32, size: Result<(f64, u32), Unknown>) -> Vec<Because> {
        self.now += seconds * SECOND;
        let news = self.watch.look(&Scale { regions: vec![region("fra", size)] }, self.now);
        news.into_values().flat_map(|told| told.because).collect()
    }
}

#[test]
fn a_crossing_is_told_once_and_between_the_thresholds_nothing_is() {
    let mut run = Run::new();
    assert_eq!(run.after(0, Ok((0.70, 10))), [Because::First]);
    assert_eq!(run.after(60, Ok((0.849, 10))), []);
    assert_eq!(run.after(1, Ok((0.85, 10))), [Because::Above]);
    for planned in [0.86, 0.84, 0.61, 0.90, 0.70] {
        assert_eq!(run.after(60, Ok((planned, 10))), []);
    }
    assert_eq!(run.after(1, Ok((0.60, 10))), [Because::Below]);
    assert_eq!(run.after(60, Ok((0.84, 10))), []);
    assert_eq!(run.after(60, Ok((0.90, 12))), [Because::Above, Because::Desired]);
}

#[test]
fn of_one_region_no_more_is_told_than_once_in_a_while_and_then_how_it_is() {
    let mut run = Run::new();
    assert_eq!(run.after(0, Ok((0.90, 10))), [Because::First, Because::Above]);
    assert_eq!(run.after(30, Ok((0.50, 9))), []);
    assert_eq!(run.after(29, Ok((0.50, 11))), []);
    assert_eq!(run.after(1, Ok((0.50, 11))), [Because::Below, Because::Desired]);
    // What has changed back meanwhile is no news.
    assert_eq!(run.after(30, Ok((0.90, 12))), []);
    assert_eq!(run.after(20, Ok((0.50, 11))), []);
    assert_eq!(run.after(600, Ok((0.50, 11))), []);
}

#[test]
fn of_what_is_not_known_nothing_is_told() {
    let mut run = Run::new();
    assert_eq!(run.after(0, Err(Unknown::Unreported)), []);
    assert_eq!(run.after(1, Ok((0.90, 10))), [Because::First, Because::Above]);
    assert_eq!(run.after(600, Err(Unknown::Unreported)), []);
    assert_eq!(run.after(1, Ok((0.90, 10))), [], "it is as it was told");
    run.watch.look(&Scale::default(), run.now);
    assert!(run.watch.regions.is_empty(), "what is gone is forgotten");
}
