//! What was learned of regions and is kept over a restart.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::flow::Flow;
use super::scales::RANGE;

/// What was learned of regions, by zone and name (`live.example/eu`); kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    pub regions: HashMap<Arc<str>, Learned>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// Session starts for a query; `None`: never told.
    pub scale: Option<f64>,
    /// Mean length of a session, s; `None`: nothing showed it.
    pub dwell_s: Option<f64>,
}

impl Learned {
    /// Within the bounds that learning keeps, whatever a file says.
    pub fn sound(self) -> Learned {
        let scale = self.scale.filter(|scale| *scale > 0.0 && scale.is_finite());
        Learned {
            scale: scale.map(|scale| scale.clamp(RANGE.0, RANGE.1)),
            dwell_s: self.dwell_s.map(|dwell_s| Flow::restored(dwell_s).dwell_s()),
        }
    }
}
