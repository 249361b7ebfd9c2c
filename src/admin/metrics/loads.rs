//! Load of regions, and what becomes of reports, for the metrics.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{counter, family, gauges};
use crate::load::report::Why;
use crate::load::{Desk, State};
use crate::snapshot::Snapshot;

pub(super) fn encode(desk: &Desk, snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let counts = desk.counts();
    let help = "Load reports by what became of them: believed, doubted until confirmed, or why they were refused";
    let mut reports = family(encoder, "load_reports", help, MetricType::Counter)?;
    counter(&mut reports, vec![("outcome", "believed")], counts.believed)?;
    counter(&mut reports, vec![("outcome", "doubted")], counts.doubted)?;
    for why in Why::ALL {
        counter(&mut reports, vec![("outcome", why.label())], counts.refused[why as usize])?;
    }
    let (known, states) = desk.look(snapshot, tokio::time::Instant::now().into_std());
    let mut regions = Vec::new();
    for served in snapshot.zones() {
        let zone = served.zone.label();
        for id in known.of_zone(&zone).unwrap_or_default() {
            // Of a region that nobody reports there is nothing to show.
            let Some(state) = states.get(id.0 as usize).filter(|state| state.age.is_some()) else { continue };
            let labels = vec![("zone", zone.to_string()), ("region", known.region_at(*id).name.to_string())];
            regions.push((labels, state));
        }
    }
    let mut gauge = |name, help, value: fn(&State) -> Option<f64>| {
        let values = regions.iter().filter_map(|(labels, state)| Some((labels.clone(), value(state)?)));
        gauges(encoder, name, help, values.collect())
    };
    gauge("region_load_sessions", "Sessions of the region, as reported or predicted", |state| state.sessions)?;
    gauge("region_load_utilization", "How full the region is; 1 is full", |state| state.utilization)?;
    gauge("region_load_capacity", "Sessions that the region can carry, as far as reports are trusted", |state| {
        state.capacity
    })?;
    gauge("load_report_age_seconds", "Age of the oldest load report of the region that counts", |state| {
        Some(state.age?.as_secs_f64())
    })
}
