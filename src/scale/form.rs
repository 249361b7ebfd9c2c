//! The JSON of `GET /v1/scale` and of the webhook: the form of KEDA's metrics-api scaler, whose `valueLocation` is
//! `regions.NAME.desired_replicas` (STEERING §9).
//!
//! What is not known is left out, so that nobody takes it for 0.

use serde::{Deserialize, Serialize};

use crate::pilot::scale::{Region, Size, Unknown};

/// Fields are added, never renamed or removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionForm {
    pub desired_replicas: u32,
    pub desired_in_15m: u32,
    pub desired_after_loss: u32,
    /// The region whose loss that is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub worst_loss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub utilization: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub planned_utilization: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unconstrained_utilization: Option<f64>,
    pub price_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sessions: Option<u64>,
    pub unconstrained_starts_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub admission_per_s: Option<f64>,
}

impl RegionForm {
    pub fn of(size: &Size) -> RegionForm {
        RegionForm {
            desired_replicas: size.desired.now,
            desired_in_15m: size.desired.in_15m,
            desired_after_loss: size.desired.after_loss,
            worst_loss: size.worst_loss.as_deref().map(str::to_owned),
            utilization: size.utilization.and_then(plain),
            planned_utilization: size.planned.and_then(plain),
            unconstrained_utilization: size.unconstrained.and_then(plain),
            price_ms: plain(size.price_ms).unwrap_or(0.0),
            // Saturates.
            sessions: size.sessions.and_then(plain).map(|sessions| sessions.round() as u64),
            unconstrained_starts_per_s: plain(size.unconstrained_rate).unwrap_or(0.0),
            admission_per_s: size.admission.and_then(plain),
        }
    }
}

/// Four digits after the point are as much as anybody reads. JSON knows no infinity.
fn plain(value: f64) -> Option<f64> {
    value.is_finite().then(|| (value * 1e4).round() / 1e4).filter(|value| value.is_finite())
}

/// A region of which nothing can be said, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownForm {
    pub region: String,
    pub because: String,
}

impl UnknownForm {
    pub fn of(name: &str, why: Unknown) -> UnknownForm {
        UnknownForm { region: name.to_owned(), because: why.to_string() }
    }
}

/// Known or not, under the name that it is shown by.
pub fn of(name: &str, region: &Region) -> Result<RegionForm, UnknownForm> {
    region.size.as_ref().map(RegionForm::of).map_err(|why| UnknownForm::of(name, *why))
}
