//! What becomes of round-trip times, for the metrics.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{counter, family};
use crate::admin::rtt::{Counts, Why};

pub(super) fn encode(counts: &Counts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Round-trip times of POST /v1/rtt by what became of them: taken, or why they were refused";
    let mut samples = family(encoder, "rtt_samples", help, MetricType::Counter)?;
    counter(&mut samples, vec![("outcome", "taken")], counts.taken())?;
    for why in Why::ALL {
        counter(&mut samples, vec![("outcome", why.label())], counts.refused(why))?;
    }
    Ok(())
}
