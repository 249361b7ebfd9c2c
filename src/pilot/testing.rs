use std::sync::Arc;

use super::view::{MarketView, RegionView, Scaling, Stage};
use crate::load::Trust;
use crate::load::known::RegionId;

/// Mean length of a session, s.
pub const DWELL: f64 = 600.0;

/// Of 1000 sessions a server, ten of which are up, with so many starts/s.
pub fn region(name: &str, rate: f64) -> RegionView {
    RegionView {
        id: RegionId(0),
        name: name.into(),
        uses: vec![(0, 0)],
        sessions: Some(rate * DWELL),
        capacity: Some(10_000.0),
        counted: Some(10_000.0),
        trust: Trust::Fresh,
        majority: Trust::Fresh,
        closed: false,
        utilization: Some(rate * DWELL / 10_000.0),
        planned: Some(rate * DWELL / 10_000.0),
        price_ms: 0.0,
        rate,
        unconstrained_rate: rate,
        dwell_s: DWELL,
        scale: 1.0,
        scaling: Scaling {
            zones: vec![Arc::from([Arc::from("stream.example")])],
            servers: 10,
            servers_up: 10,
            server_capacity: Some(1000.0),
            admission: Some(7.0),
            ..Scaling::default()
        },
    }
}

/// Of one region that is half full and has a price.
pub fn market(name: &str, id: RegionId) -> MarketView {
    let half = Some(0.5);
    let region = RegionView { id, utilization: half, planned: half, price_ms: 12.0, ..region(name, 8.0) };
    MarketView { stage: Stage::Steered, regions: vec![region], ..MarketView::default() }
}
