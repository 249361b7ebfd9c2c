//! Gauges of the regions that are steered by load. What is not known is absent: an alert can tell it from 0.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Labels, counter, family, gauges};
use crate::pilot::scale::{Region, Scale, Size};
use crate::scale::Board;

type Values<N> = Vec<(Vec<(&'static str, String)>, N)>;

pub fn encode(board: &Board, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let scale = board.scale();
    let desired = known(&scale, |labels, size| {
        let of = |when: &str, servers: u32| {
            let mut labels = labels.clone();
            labels.push(("when", when.to_owned()));
            (labels, servers)
        };
        let desired = size.desired;
        vec![of("now", desired.now), of("15m", desired.in_15m), of("loss", desired.after_loss)]
    });
    gauges(encoder, "region_desired_servers", "Servers that the region should have", desired)?;
    let each = |value: &dyn Fn(&Size) -> Option<f64>| {
        known(&scale, |labels, size| value(size).map(|value| (labels, value)).into_iter().collect())
    };
    let of_capacity = "Part of the capacity that counts now:";
    let help = format!("{of_capacity} in use, as reported or predicted");
    gauges(encoder, "region_utilization", &help, each(&|size| size.utilization))?;
    let help = format!("{of_capacity} in use in a minute, as planned");
    gauges(encoder, "region_planned_utilization", &help, each(&|size| size.planned))?;
    let help = format!("{of_capacity} in use in the end if no region had a price");
    gauges(encoder, "region_unconstrained_utilization", &help, each(&|size| size.unconstrained))?;
    gauges(encoder, "region_price_ms", "What a region costs beyond its distance", each(&|size| Some(size.price_ms)))?;
    let help = "Session starts per second that would come if no region had a price";
    gauges(encoder, "region_unconstrained_starts_per_second", help, each(&|size| Some(size.unconstrained_rate)))?;
    let help = "Session starts per second that may be let in";
    gauges(encoder, "region_admission_per_second", help, each(&|size| size.admission))?;
    let help = "Sessions, as reported or predicted";
    gauges(encoder, "region_sessions", help, each(&|size| size.sessions))?;
    markets(&scale, encoder)?;
    let mut deliveries = family(encoder, "scale_webhooks", "Requests of the webhook, by outcome", MetricType::Counter)?;
    let tally = &board.tally;
    for (outcome, count) in [("delivered", &tally.delivered), ("failed", &tally.failed), ("given_up", &tally.given_up)]
    {
        let labels: Labels<'_> = vec![("outcome", outcome)];
        counter(&mut deliveries, labels, count.load(Relaxed))?;
    }
    Ok(())
}

/// What is the same for all regions of a market.
fn markets(scale: &Scale, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (mut stages, mut gaps, mut moved) = (Values::new(), Values::new(), Values::new());
    for (labels, region) in labelled(scale) {
        let mut staged = labels.clone();
        staged.push(("stage", region.stage.word().to_owned()));
        stages.push((staged, 1u32));
        gaps.extend(region.gap.filter(|gap| gap.is_finite()).map(|gap| (labels.clone(), gap)));
        moved.push((labels, region.moved));
    }
    gauges(encoder, "region_steering_stage", "1 for the stage that the steering by load is in", stages)?;
    let help = "How far the plan may be from the best, as a part of its cost; of all regions that share streams";
    gauges(encoder, "region_solve_gap", help, gaps)?;
    let help = "Part of the traffic that the last step sent elsewhere; of all regions that share streams";
    gauges(encoder, "region_moved_share", help, moved)
}

/// Each region with its labels: the zone where several regions have its name.
fn labelled(scale: &Scale) -> Vec<(Vec<(&'static str, String)>, &Region)> {
    let labels = |name: String, region: &Region| {
        let zone = region.zone().filter(|_| name != *region.name).map(|zone| ("zone", zone.to_string()));
        zone.into_iter().chain([("region", region.name.to_string())]).collect()
    };
    scale.named().into_iter().map(|(name, region)| (labels(name, region), region)).collect()
}

fn known<N>(scale: &Scale, values: impl Fn(Vec<(&'static str, String)>, &Size) -> Values<N>) -> Values<N> {
    let sized = labelled(scale).into_iter().filter_map(|(labels, region)| Some((labels, region.size.as_ref().ok()?)));
    sized.flat_map(|(labels, size)| values(labels, size)).collect()
}
