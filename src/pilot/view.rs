//! What others may know of the pilot: people by `explain` and `status`, scalers by the admin API.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::load::Trust;
use crate::load::known::RegionId;
use crate::steering::solve::Certificate;

/// How far a market is steered by load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// No region's load was ever reported: nearest, whatever capacities are written.
    #[default]
    Unreported,
    /// Reports come, or are so young that what becomes of them can be predicted.
    Steered,
    /// No report for minutes: smaller capacities, and loads that are predicted from what is sent there.
    Blind,
    /// No report for so long that nothing can be said any more: back to nearest, bit by bit.
    Returning,
}

impl Stage {
    pub fn word(self) -> &'static str {
        match self {
            Stage::Unreported => "unreported",
            Stage::Steered => "steered",
            Stage::Blind => "blind",
            Stage::Returning => "returning",
        }
    }

    /// What it means, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Stage::Unreported => "viewers go to the nearest region",
            Stage::Steered => "steered by load",
            Stage::Blind => "no load is reported any more: steered by what is predicted, with smaller capacities",
            Stage::Returning => "no load was reported for a quarter of an hour: back to the nearest region, bit by bit",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct View {
    pub markets: Vec<MarketView>,
}

impl View {
    /// Session starts for a query of a group, and the mean length of a session in s, over the regions that it may be sent to;
    /// both above 0, or `None`.
    pub fn scale_of(&self, group: u32) -> Option<(f64, f64)> {
        let market = self.markets.iter().find(|market| market.groups.contains(&group))?;
        let count = market.regions.len().max(1) as f64;
        let mean = |of: fn(&RegionView) -> f64| market.regions.iter().map(of).sum::<f64>() / count;
        let (scale, dwell_s) = (mean(|region| region.scale), mean(|region| region.dwell_s));
        (scale > 0.0 && dwell_s > 0.0).then_some((scale, dwell_s))
    }
}

#[derive(Clone, Debug, Default)]
pub struct MarketView {
    pub stage: Stage,
    pub regions: Vec<RegionView>,
    /// Positions of its groups among the snapshot's.
    pub groups: Vec<u32>,
    /// `None` before the first solve.
    pub certificate: Option<Certificate>,
    pub converged: bool,
    pub cold: bool,
    pub iterations: u32,
    /// Whether how long sessions last follows from what was seen, and is not just taken for granted.
    pub is_length_known: bool,
    /// Starts/s in all.
    pub demand: f64,
    /// Part of the traffic that the last step moved.
    pub moved: f64,
    /// When it was last looked at.
    pub at: Option<Instant>,
}

impl MarketView {
    /// What it waits for before it can be steered by load; `None`: it is, or was until lately.
    pub fn waits(&self) -> Option<Wait> {
        let trusts = || self.regions.iter().map(|region| region.majority);
        match self.stage {
            Stage::Steered | Stage::Blind | Stage::Returning => None,
            Stage::Unreported if trusts().any(|trust| !matches!(trust, Trust::Never | Trust::Lost)) => {
                Some(Wait::Scale)
            }
            Stage::Unreported if trusts().any(|trust| trust == Trust::Lost) => Some(Wait::ReportsAgain),
            Stage::Unreported => Some(Wait::Reports),
        }
    }

    /// How it is steered, and why not by load if it is not, for people.
    pub fn describe(&self) -> &'static str {
        self.waits().map_or_else(|| self.stage.describe(), Wait::describe)
    }
}

/// What a market that is not steered by load waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// No region ever reported its load.
    Reports,
    /// All that reported have stopped.
    ReportsAgain,
    /// Load is reported, but nobody asked yet, or not for long enough to know how many sessions a query stands for.
    Scale,
}

impl Wait {
    /// What it means, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Wait::Reports => "no load is reported, viewers go to the nearest region",
            Wait::ReportsAgain => "no load is reported any more, viewers go to the nearest region",
            Wait::Scale => {
                "load is reported, but it is not yet known what a query stands for: that takes a minute of reports and \
                 some tens of queries, and until then viewers go to the nearest region"
            }
        }
    }
}

/// Of one region of a market. Rates are session starts/s.
#[derive(Clone, Debug)]
pub struct RegionView {
    pub id: RegionId,
    pub name: Arc<str>,
    /// The (fleet, region) pairs that it is.
    pub uses: Vec<(u32, u8)>,
    /// Sessions now, as reported or predicted.
    pub sessions: Option<f64>,
    /// Sessions, as written; and as it counts now, by servers that are up, ramps, drains and the age of reports.
    pub capacity: Option<f64>,
    pub counted: Option<f64>,
    /// In the oldest report that counts.
    pub trust: Trust,
    /// At least so are the reports of half of its servers.
    pub majority: Trust,
    pub closed: bool,
    /// Sessions of the capacity that counts.
    pub utilization: Option<f64>,
    /// A minute ahead, as planned.
    pub planned: Option<f64>,
    pub price_ms: f64,
    /// What the plan sends there.
    pub rate: f64,
    /// What would come if no region had a price.
    pub unconstrained_rate: f64,
    /// Mean length of a session, s, as far as it was seen.
    pub dwell_s: f64,
    /// Session starts for a query.
    pub scale: f64,
    pub scaling: Scaling,
}

/// What the size of a region is reckoned from ([`super::scale`]). Rates are session starts/s.
#[derive(Clone, Debug, Default)]
pub struct Scaling {
    /// By use of the region: the zones, as [`Zone::label`](crate::config::settings::Zone::label) has them, sorted.
    pub zones: Vec<Arc<[Arc<str>]>>,
    /// Servers in the files, and those of them that are up.
    pub servers: u32,
    pub servers_up: u32,
    /// Sessions of one server. `None`: no capacity is written or reported.
    pub server_capacity: Option<f64>,
    /// What comes whatever the prices are: streams that are steered otherwise.
    pub fixed_rate: f64,
    /// The one other region whose loss would send most here, and how much, if no region had a price. `None`: no other
    /// region is open.
    pub worst_loss: Option<(Arc<str>, f64)>,
    /// The most that is foreseen to come within 15 minutes if no region had a price, as a multiple of what comes now.
    /// `None`: nothing is foreseen.
    pub ahead: Option<f64>,
    /// What may begin here so that it is at most [`super::scale::ADMIT`] full a minute later. `None`: no capacity counts.
    pub admission: Option<f64>,
}
