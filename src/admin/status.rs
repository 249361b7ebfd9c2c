//! `/v1/status`: the node at one instant, put together from what the control loop, the probes and the counters know.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::rates::Recent;
use super::{Admin, orders, view};
use crate::config::settings::{Family, Region, Server};
use crate::health::stats::{Stats, TargetStats};
use crate::health::{Target, Verdict};
use crate::load::State;
use crate::load::known::{Known, RegionId};
use crate::pilot;
use crate::pilot::view::{RegionView, Stage};
use crate::snapshot::standing::{Forced, Standing};
use crate::snapshot::{Served, TargetId};
use crate::status::{
    LoadStatus, RegionLoad, RegionStatus, RegionSteering, ServerStatus, SnapshotStatus, Status, TargetStatus,
    ZoneStatus,
};
use crate::world::View;

/// What agents beside the servers report.
pub trait Agents: Send + Sync {
    /// The last report of the server with this public address.
    fn load(&self, address: IpAddr) -> Option<LoadStatus>;
    /// Since the last heartbeat of what is probed there. `None`: none came yet, or none is expected.
    fn last_beat(&self, target: &Target) -> Option<Duration>;
}

/// The regions that the pilot looks at.
pub type Steered<'a> = HashMap<RegionId, (Stage, &'a RegionView)>;

/// Everything that a status is made of, at one instant.
pub struct Facts<'a, S> {
    pub view: &'a View,
    /// What holds of a region of a zone.
    pub standing: S,
    pub stats: &'a Stats,
    pub agents: &'a dyn Agents,
    pub recent: &'a Recent,
    /// What is believed of the regions that are known to report.
    pub loads: (Arc<Known>, Vec<State>),
    pub steered: Steered<'a>,
    pub snapshot_age: Duration,
    pub started: SystemTime,
    pub now: SystemTime,
    /// The same instant on the clock of the probes.
    pub instant: Instant,
}

pub async fn status(extract::State(admin): extract::State<Admin>) -> Response {
    let Some(view) = view(&admin.events).await else { return orders::silent() };
    let now = SystemTime::now();
    let facts = Facts {
        standing: |zone, region| view.snapshot.standing(zone, region),
        stats: &admin.stats,
        agents: &*admin.agents,
        recent: &admin.rates.recent(),
        loads: admin.loads.look(&view.snapshot, tokio::time::Instant::now().into_std()),
        steered: steered(&view.steering),
        snapshot_age: admin.rates.age(view.snapshot.generation(), now),
        started: admin.started,
        now,
        instant: tokio::time::Instant::now().into_std(),
        view: &view,
    };
    Json(facts.status()).into_response()
}

/// What lies outside of what can be told (it begins in the year -9999) is taken for the epoch.
pub fn timestamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn unix(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl<'a, S: Fn(u32, u8) -> &'a Standing> Facts<'a, S> {
    pub fn status(&self) -> Status {
        let snapshot = &self.view.snapshot;
        let stats = self.stats.targets();
        let stats: HashMap<&Target, &TargetStats> = stats.iter().map(|stats| (&*stats.target, &**stats)).collect();
        let zones = snapshot.zones().iter().enumerate();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: unix(self.now),
            started: unix(self.started),
            snapshot: SnapshotStatus { generation: snapshot.generation(), age_s: self.snapshot_age.as_secs_f64() },
            qps: self.recent.qps,
            zones: zones.map(|(z, served)| self.zone(z as u32, served, &stats)).collect(),
            orders: self.view.order_status.to_vec(),
            kept: self.view.not_kept.is_none(),
            not_kept_because: self.view.not_kept.as_deref().map(str::to_owned),
        }
    }

    fn zone(&self, z: u32, served: &Served, stats: &HashMap<&Target, &TargetStats>) -> ZoneStatus {
        let name = served.zone.label();
        let of_zone = |(of, rate): (&(_, _), &f64)| -> Option<f64> {
            let (zone, _): &(std::sync::Arc<str>, std::sync::Arc<str>) = of;
            (**zone == *name).then_some(*rate)
        };
        let all: f64 = self.recent.by_region.iter().filter_map(of_zone).sum();
        let regions = served.zone.regions.iter().enumerate();
        let regions = regions.map(|(r, region)| self.region(z, r as u8, region, (&name, all), stats)).collect();
        ZoneStatus {
            qps: self.recent.by_zone.get(&*name).copied().unwrap_or(0.0),
            serial: served.serial,
            regions,
            name: name.to_string(),
        }
    }

    fn region(
        &self,
        z: u32,
        r: u8,
        region: &Region,
        (zone, all): (&str, f64),
        stats: &HashMap<&Target, &TargetStats>,
    ) -> RegionStatus {
        let (fleet, state) = self.view.snapshot.fleet(z);
        let standing = (self.standing)(z, r);
        let up = |family| (!fleet.members(r, family).is_empty()).then(|| state.up(family) >> r & 1 == 1);
        let of = (zone.into(), region.name.clone());
        let answers_per_s = self.recent.by_region.get(&of).copied().unwrap_or(0.0);
        let servers = region.servers.iter().enumerate();
        RegionStatus {
            name: region.name.to_string(),
            near: region.near.as_deref().map(str::to_owned),
            up_v4: up(Family::V4),
            up_v6: up(Family::V6),
            mode: standing.describe().to_owned(),
            share_allowed: standing.share.part(),
            share_of_answers: (all > 0.0).then(|| answers_per_s / all),
            answers_per_s,
            load: self.load(zone, r),
            steering: self.steering(zone, r),
            servers: servers.map(|(s, server)| self.server(z, r, (s, server), standing, stats)).collect(),
        }
    }

    fn steering(&self, zone: &str, r: u8) -> Option<RegionSteering> {
        let (known, _) = &self.loads;
        let id = known.of_zone(zone)?.get(usize::from(r))?;
        // Around a reload the pilot may still number them otherwise.
        let named = |of: &&(Stage, &RegionView)| of.1.name == known.regions[id.0 as usize].name;
        let (stage, region) = self.steered.get(id).filter(named)?;
        Some(RegionSteering {
            stage: stage.word().to_owned(),
            utilization: region.utilization,
            planned: region.planned,
            price_ms: region.price_ms,
            starts_per_s: region.rate,
        })
    }

    fn load(&self, zone: &str, r: u8) -> Option<RegionLoad> {
        let (known, states) = &self.loads;
        let id = known.of_zone(zone)?.get(usize::from(r))?;
        let State { sessions, utilization, capacity, age, trust, .. } = *states.get(id.0 as usize)?;
        Some(RegionLoad { sessions, utilization, capacity, age_s: age?.as_secs_f64(), trust: trust.word().to_owned() })
    }

    fn server(
        &self,
        z: u32,
        r: u8,
        (s, server): (usize, &Server),
        standing: &Standing,
        stats: &HashMap<&Target, &TargetStats>,
    ) -> ServerStatus {
        let (fleet, _) = self.view.snapshot.fleet(z);
        let addresses: Vec<IpAddr> = Family::BOTH.into_iter().filter_map(|family| server.address(family)).collect();
        let mut targets: Vec<TargetId> = Vec::new();
        for member in Family::BOTH.into_iter().flat_map(|family| fleet.members(r, family)) {
            if let Some(target) = member.target.filter(|target| member.server == s && !targets.contains(target)) {
                targets.push(target);
            }
        }
        let forced = standing.servers.iter().find(|(position, _)| *position == s).map(|(_, forced)| word(*forced));
        ServerStatus {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            weight: server.weight.get(),
            targets: targets.into_iter().map(|target| self.target(target, stats)).collect(),
            forced: forced.map(str::to_owned),
            load: addresses.iter().find_map(|address| self.agents.load(*address)),
        }
    }

    fn target(&self, id: TargetId, stats: &HashMap<&Target, &TargetStats>) -> TargetStatus {
        let target = &self.view.snapshot.targets()[id.0 as usize];
        let (belief, stats) = (self.view.beliefs.get(target), stats.get(target));
        let verdict = match self.view.snapshot.verdict(id) {
            Verdict::Unknown => "unknown",
            Verdict::Up => "up",
            Verdict::Down => "down",
            Verdict::Damped => "damped",
        };
        let damped = belief.and_then(|belief| belief.damped?.duration_since(self.now).ok());
        TargetStatus {
            probed: target.address.to_string(),
            verdict: verdict.to_owned(),
            stale: belief.is_some_and(|belief| belief.stale),
            damped_s: damped.map(|left| left.as_secs_f64()),
            cause: belief.map(|belief| belief.cause.to_string()).filter(|cause| !cause.is_empty()),
            since: belief.map(|belief| unix(belief.since)),
            rtt_ms: stats.and_then(|stats| stats.last_rtt()).map(|rtt| rtt.as_secs_f64() * 1e3),
            last_result_s: stats.map_or(0.0, |stats| stats.since_result(self.instant).as_secs_f64()),
            last_beat_s: self.agents.last_beat(target).map(|since| since.as_secs_f64()),
        }
    }
}

fn steered(view: &pilot::View) -> Steered<'_> {
    let markets = view.markets.iter();
    markets.flat_map(|market| market.regions.iter().map(|region| (region.id, (market.stage, region)))).collect()
}

fn word(forced: Forced) -> &'static str {
    match forced {
        Forced::Up => "up",
        Forced::Down => "down",
    }
}
