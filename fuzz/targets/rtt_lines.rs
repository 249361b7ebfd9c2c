//! Lines of `POST /v1/rtt` and imported tables of any bytes: no panic, what is taken keeps its rules, and whatever is
//! learned of it leaves costs that are numbers.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use meridian::admin::rtt::Line;
use meridian::config::rtt::parse;
use meridian::geo::Point;
use meridian::steering::learn::{Block, Key, Learned, Region, Reporter, Sample};

fuzz_target!(|input: &[u8]| {
    let (rows, faults) = parse(Path::new("rtt.csv"), input);
    assert!(rows.iter().all(|row| (1.0..=2000.0).contains(&row.ms)));
    assert!(faults.iter().all(|fault| fault.at.line >= 1));
    let mut learned = Learned::new();
    let client = Key::new(Point::new(51.5, -0.1), None, Some(64500));
    for (second, line) in input.split(|byte| *byte == b'\n').enumerate() {
        let Ok(line) = Line::read(line) else { continue };
        let sample = Sample {
            client,
            cell: None,
            block: Block::of(line.prefix.addr()),
            region: Region { zone: line.zone.as_deref(), name: &line.region, location: Point::new(48.9, 2.3) },
            rtt_ms: line.rtt_ms,
            loss: line.loss,
            reporter: Reporter::of("fuzz"),
        };
        let now = jiff::Timestamp::from_second(second as i64).expect("a time of this century");
        let _ = learned.feed(&sample, now);
        let cost = learned.cost(&client, &sample.region, now);
        assert!(cost.ms().is_finite() && cost.ms() > 0.0, "{cost:?}");
    }
});
