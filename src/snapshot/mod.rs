//! Everything an answer needs, compiled, immutable, and published with one swap.
//!
//! * [`names`]: every served name and its records in wire form.
//! * [`fleet`]: the regions of a zone, which of them are up, and their addresses in wire form.
//! * [`standing`]: what holds of a region besides verdicts: the operator's word, ramps and drains.
//! * [`effect`]: how many cells a change sends elsewhere.
//! * [`geography`]: the atlas (prefix → cell) and the plans (cell → order of regions).
//!
//! A verdict makes a new [`Snapshot`] that shares all of this but the state of the fleets that use its target.

pub mod effect;
pub mod fleet;
pub mod geography;
pub mod names;
mod needs;
pub mod ring;
pub mod standing;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::settings::{Family, Policy, Server, Steering, Stream, Zone};
use crate::geo::Database;
use crate::health::{Target, Verdict};
use crate::server::counters::Counters;
use crate::steering::pick::{Field, Mask};

use fleet::{Fleet, FleetState};
use geography::{Geography, Wanted};
use names::{Names, Records};
use needs::{Needs, Uses};
use standing::Standing;

/// Where readers find the snapshot of now. Only the control loop stores.
pub type Published = Arc<ArcSwap<Snapshot>>;

/// Seconds that an answer lives at most while its region is on the move or in doubt.
const BRIEF_TTL: u32 = 10;

/// Index into [`Snapshot::targets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub u32);

/// A zone and the serial it is served with.
#[derive(Clone)]
pub struct Served {
    pub zone: Arc<Zone>,
    pub serial: u32,
}

pub struct Snapshot {
    generation: u64,
    compiled: Arc<Compiled>,
    verdicts: Arc<[Verdict]>,
    /// By zone.
    fleets: Box<[Arc<FleetState>]>,
    /// By stream that needs others: the regions whose needs are met, by family.
    met: Box<[[Mask; 2]]>,
}

/// What verdicts never change.
struct Compiled {
    zones: Vec<Served>,
    names: Names,
    streams: Vec<SteeredName>,
    /// By zone.
    fleets: Vec<Fleet>,
    geography: Arc<Geography>,
    needs: Vec<Needs>,
    /// By zone that has needs.
    uses: HashMap<u32, Uses>,
    targets: Vec<Target>,
    /// By target: the (zone, region) pairs that it is part of.
    used_by: Vec<Vec<(u32, u8)>>,
    counters: Arc<Counters>,
}

/// A steered name, compiled.
pub struct SteeredName {
    /// Position in the snapshot's zones.
    pub zone: u32,
    /// Position among the zone's streams.
    pub stream: u32,
    pub plan: u32,
    pub ttl: u32,
    /// While something is on the move or in doubt.
    pub brief_ttl: u32,
    /// Position among the streams that need others.
    needs: Option<u32>,
    /// Every region that some client can be sent to, by rules too.
    pub regions: Mask,
    /// The regions that every client can be sent to: the stream's own.
    pub common: Mask,
    /// CNAME for when all of them are down.
    pub fallback: Option<Records>,
}

impl Snapshot {
    /// Compiles all zones. Takes from tens of milliseconds to seconds: never on a thread that answers.
    ///
    /// `verdict` tells what is believed of a target already (Unknown for a new one). What `previous` has in common
    /// is shared with it, and the generation follows on from its.
    pub fn compile(
        zones: Vec<Served>,
        database: &Arc<Database>,
        verdict: impl Fn(&Target) -> Verdict,
        previous: Option<&Snapshot>,
    ) -> Snapshot {
        let (wanted, plan_of_stream) = Wanted::by(zones.iter().map(|served| &*served.zone));
        let geography = Geography::new(database, wanted, previous.map(|previous| &previous.compiled.geography));
        let mut targets = Targets::default();
        let mut streams = Vec::with_capacity(plan_of_stream.len());
        let mut stream_base = Vec::with_capacity(zones.len());
        let mut fleets = Vec::with_capacity(zones.len());
        for (z, served) in zones.iter().enumerate() {
            stream_base.push(streams.len() as u32);
            for (s, stream) in served.zone.streams.iter().enumerate() {
                streams.push(SteeredName {
                    zone: z as u32,
                    stream: s as u32,
                    plan: plan_of_stream[streams.len()],
                    ttl: stream.ttl,
                    brief_ttl: stream.ttl.min(BRIEF_TTL),
                    needs: None,
                    regions: (stream.rules.iter().map(|rule| taking(&rule.steering)))
                        .fold(taking(&stream.steering), |mask, regions| mask | regions),
                    common: taking(&stream.steering),
                    fallback: stream.fallback.as_ref().map(|target| names::cname(target, stream.ttl)),
                });
            }
            fleets.push(Fleet::new(&served.zone, |region, server, family| {
                let target = target_of(&served.zone, region, server, family)?;
                Some(targets.id(target, z as u32, region as u8))
            }));
        }
        let needs = needs::compile(&zones, &mut streams);
        let uses = needs::uses(&streams);
        let verdicts: Arc<[Verdict]> = targets.list.iter().map(verdict).collect();
        let states = fleets.iter().map(|fleet| Arc::new(FleetState::new(fleet, &verdicts))).collect();
        let names = Names::new(&zones, &stream_base);
        let Targets { list, used_by, .. } = targets;
        let counters = Arc::new(Counters::of(zones.iter().map(|served| &*served.zone)));
        let compiled =
            Compiled { zones, names, streams, fleets, geography, needs, uses, targets: list, used_by, counters };
        let generation = previous.map_or(1, |previous| previous.generation + 1);
        Snapshot::new(generation, Arc::new(compiled), verdicts, states)
    }

    /// The next generation, with other verdicts. Judges only the regions they touch; takes microseconds.
    pub fn with_verdicts(&self, changes: &[(TargetId, Verdict)]) -> Snapshot {
        let mut verdicts: Arc<[Verdict]> = self.verdicts.clone();
        for &(target, verdict) in changes {
            Arc::make_mut(&mut verdicts)[target.0 as usize] = verdict;
        }
        let mut fleets = self.fleets.clone();
        for &(zone, region) in changes.iter().flat_map(|(target, _)| &self.compiled.used_by[target.0 as usize]) {
            let fleet = &self.compiled.fleets[zone as usize];
            Arc::make_mut(&mut fleets[zone as usize]).refresh(fleet, [usize::from(region)], &verdicts);
        }
        self.next(verdicts, fleets)
    }

    /// The next generation, with what else holds of regions, given as (zone, region, standing). As quick as a verdict.
    pub fn with_standings(&self, changes: impl IntoIterator<Item = (u32, u8, Standing)>) -> Snapshot {
        let mut fleets = self.fleets.clone();
        for (zone, region, standing) in changes {
            let fleet = &self.compiled.fleets[zone as usize];
            let state = Arc::make_mut(&mut fleets[zone as usize]);
            state.set_standing(usize::from(region), standing);
            state.refresh(fleet, [usize::from(region)], &self.verdicts);
        }
        self.next(self.verdicts.clone(), fleets)
    }

    fn next(&self, verdicts: Arc<[Verdict]>, fleets: Box<[Arc<FleetState>]>) -> Snapshot {
        Snapshot::new(self.generation + 1, self.compiled.clone(), verdicts, fleets)
    }

    fn new(
        generation: u64,
        compiled: Arc<Compiled>,
        verdicts: Arc<[Verdict]>,
        fleets: Box<[Arc<FleetState>]>,
    ) -> Snapshot {
        let met = compiled.needs.iter().map(|needs| needs.met(&compiled.fleets, &fleets)).collect();
        Snapshot { generation, compiled, verdicts, fleets, met }
    }

    /// The same as the successor of `current`, which may have moved on from the one this was compiled after.
    pub fn following(self, current: &Snapshot) -> Snapshot {
        Snapshot { generation: current.generation + 1, ..self }
    }

    /// Whether they differ in nothing but verdicts and standings.
    pub fn is_kin(&self, other: &Snapshot) -> bool {
        Arc::ptr_eq(&self.compiled, &other.compiled)
    }

    /// Counts up by one with every snapshot made from another.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn zones(&self) -> &[Served] {
        &self.compiled.zones
    }

    /// Every distinct target of every zone.
    pub fn targets(&self) -> &[Target] {
        &self.compiled.targets
    }

    /// The (zone, region) pairs that a target is part of.
    pub fn users(&self, target: TargetId) -> &[(u32, u8)] {
        &self.compiled.used_by[target.0 as usize]
    }

    pub fn verdict(&self, target: TargetId) -> Verdict {
        self.verdicts[target.0 as usize]
    }

    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    pub fn names(&self) -> &Names {
        &self.compiled.names
    }

    pub fn stream(&self, stream: u32) -> &SteeredName {
        &self.compiled.streams[stream as usize]
    }

    pub fn streams(&self) -> &[SteeredName] {
        &self.compiled.streams
    }

    /// The settings that a steered name was compiled from.
    pub fn settings_of(&self, stream: &SteeredName) -> &Stream {
        &self.compiled.zones[stream.zone as usize].zone.streams[stream.stream as usize]
    }

    pub fn fleet(&self, zone: u32) -> (&Fleet, &FleetState) {
        (&self.compiled.fleets[zone as usize], &self.fleets[zone as usize])
    }

    pub fn standing(&self, zone: u32, region: u8) -> &Standing {
        self.fleets[zone as usize].standing(region)
    }

    /// The regions of a stream's zone that are up for it: enough of their servers are, and what it needs is.
    pub fn up(&self, stream: &SteeredName, family: Family) -> Mask {
        let met = stream.needs.map_or(Mask::MAX, |needs| self.met[needs as usize][family as usize]);
        self.fleets[stream.zone as usize].up(family) & met
    }

    /// The regions of a zone that are up and of use to one of its streams at least.
    pub fn usable(&self, zone: u32, family: Family) -> Mask {
        self.fleets[zone as usize].up(family) & self.of_use(zone, family)
    }

    /// The regions of a zone where what some stream needs is up, or where some needs nothing.
    pub fn of_use(&self, zone: u32, family: Family) -> Mask {
        let uses = self.compiled.uses.get(&zone);
        uses.map_or(Mask::MAX, |uses| uses.of_use(&self.compiled.needs, &self.met, family))
    }

    /// The zones in which streams need others.
    pub fn zones_with_needs(&self) -> impl Iterator<Item = u32> {
        self.compiled.uses.keys().copied()
    }

    /// What clients of a stream may be sent to.
    pub fn field(&self, stream: &SteeredName, family: Family) -> Field<'_> {
        let (fleet, state) = self.fleet(stream.zone);
        let (declared, banned, open) = (fleet.declared(family), state.banned(), state.open());
        Field { up: self.up(stream, family), declared, banned, open }
    }

    pub fn geography(&self) -> &Geography {
        &self.compiled.geography
    }

    /// Where answers from this snapshot are counted: one set of counters a compilation, so that snapshots that differ
    /// in verdicts only count together.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.compiled.counters
    }
}

/// Where the address of a server is probed; `None` without a check, or without an address of the family.
fn target_of(zone: &Zone, region: usize, server: usize, family: Family) -> Option<Target> {
    let region = &zone.regions[region];
    let server: &Server = &region.servers[server];
    let check = region.check.clone()?;
    let address = server.address(family)?;
    let beats_of = check.heartbeat.map(|_| address);
    Some(Target { address: server.probe.unwrap_or((address, check.port).into()), check, beats_of })
}

/// The regions that clients may be sent to: weight 0 takes none.
fn taking(steering: &Steering) -> Mask {
    let takes = |position: usize| match &steering.policy {
        Policy::Weighted(weights) => weights[position] > 0,
        Policy::Nearest | Policy::Priority => true,
    };
    let regions = steering.regions.iter().enumerate().filter(|(position, _)| takes(*position));
    regions.fold(0, |mask, (_, region)| mask | 1 << region)
}

#[derive(Default)]
struct Targets {
    list: Vec<Target>,
    ids: HashMap<Target, TargetId>,
    used_by: Vec<Vec<(u32, u8)>>,
}

impl Targets {
    fn id(&mut self, target: Target, zone: u32, region: u8) -> TargetId {
        let id = *self.ids.entry(target).or_insert_with_key(|target| {
            self.list.push(target.clone());
            self.used_by.push(Vec::new());
            TargetId(self.list.len() as u32 - 1)
        });
        let users = &mut self.used_by[id.0 as usize];
        if !users.contains(&(zone, region)) {
            users.push((zone, region));
        }
        id
    }
}
