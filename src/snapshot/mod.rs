//! Everything an answer needs, compiled, immutable, and published with one swap.
//!
//! * [`names`]: every served name and its records in wire form.
//! * [`fleet`]: the regions of a zone, which of them are up, and their addresses in wire form.
//! * [`standing`]: what holds of a region besides verdicts: the operator's word, ramps and drains.
//! * [`effect`]: how many cells a change sends elsewhere.
//! * [`groups`]: streams steered alike, and what the solver of prices made of their plans.
//! * [`geography`]: the atlas (prefix → cell) and the plans (cell → order of regions).
//!
//! A verdict makes a new [`Snapshot`] that shares all of this but the state of the fleets that use its target. Zones with the
//! same regions, used alike, share one fleet.

mod alike;
pub mod chunks;
pub mod effect;
pub mod fleet;
pub mod geography;
pub mod groups;
pub mod names;
mod needs;
pub mod ring;
pub mod standing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use crate::config::settings::{Family, Policy, Server, Steering, Stream, Zone};
use crate::geo::Database;
use crate::health::{Target, Verdict};
use crate::server::counters::Counters;
use crate::steering::pick::{Field, Mask};
use crate::steering::plan::Rankings;

use alike::{Apart, Likeness};
use chunks::Chunks;
use fleet::{Fleet, FleetState};
use geography::{Geography, Wanted};
use groups::Group;
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
    /// By fleet: those compiled, then those of zones set apart.
    states: Chunks<Arc<FleetState>>,
    /// Zones that share no state with others though they could; `None`: there are none.
    apart: Option<Arc<Apart>>,
    /// By needs, those compiled and then those of zones set apart: the regions where they are met, by family.
    met: Arc<[[Mask; 2]]>,
    /// By group of streams: cell → order of regions.
    rankings: Chunks<Arc<Rankings>>,
}

/// What verdicts never change.
struct Compiled {
    /// Tells it from every other that this process compiles.
    epoch: u64,
    zones: Vec<Served>,
    names: Names,
    streams: Vec<SteeredName>,
    /// By zone, and one more at the end: where its streams begin.
    first_stream: Vec<u32>,
    fleets: Vec<Fleet>,
    /// By zone.
    fleet_of: Vec<u32>,
    /// By fleet: its zones.
    members: Vec<Vec<u32>>,
    geography: Arc<Geography>,
    groups: Vec<Group>,
    needs: Vec<Needs>,
    /// By fleet: the needs that hang on it.
    dependents: HashMap<u32, BTreeSet<u32>>,
    /// By fleet that has needs.
    uses: HashMap<u32, Uses>,
    targets: Vec<Target>,
    /// By target: the (fleet, region) pairs that it is part of.
    used_by: Vec<Vec<(u32, u8)>>,
    counters: Arc<Counters>,
}

/// A steered name, compiled.
pub struct SteeredName {
    /// Position in the snapshot's zones.
    pub zone: u32,
    /// Of its zone, as long as that is not set apart.
    fleet: u32,
    /// Position among the zone's streams.
    pub stream: u32,
    pub plan: u32,
    /// Position among the snapshot's groups.
    pub group: u32,
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
        Snapshot::compile_on(zones, geography, &plan_of_stream, verdict, previous)
    }

    /// For looking at worlds that may be instead of answering from one: every stream has cells as fine as those steered by
    /// load, and all `worlds` have the same cells, so that what their viewers get can be compared cell by cell. All servers
    /// count as up. `None`: more than `plans` different plans in all, too many to be looked at so closely.
    pub fn survey(worlds: Vec<Vec<Served>>, database: &Arc<Database>, plans: usize) -> Option<Vec<Snapshot>> {
        let (wanted, plan_of_stream) = Wanted::by(worlds.iter().flatten().map(|served| &*served.zone));
        if wanted.plans() > plans {
            return None;
        }
        let geography = Geography::new(database, wanted.finely(), None);
        let mut plans = &plan_of_stream[..];
        let compiled = worlds.into_iter().map(|zones| {
            let count = zones.iter().map(|served| served.zone.streams.len()).sum();
            let (own, others) = plans.split_at(count);
            plans = others;
            Snapshot::compile_on(zones, Arc::clone(&geography), own, |_| Verdict::Up, None)
        });
        Some(compiled.collect())
    }

    fn compile_on(
        zones: Vec<Served>,
        geography: Arc<Geography>,
        plan_of_stream: &[u32],
        verdict: impl Fn(&Target) -> Verdict,
        previous: Option<&Snapshot>,
    ) -> Snapshot {
        let mut targets = Targets::default();
        let mut streams = Vec::with_capacity(plan_of_stream.len());
        let mut first_stream = Vec::with_capacity(zones.len() + 1);
        let (mut fleets, mut members, mut fleet_of) = (vec![], vec![], Vec::with_capacity(zones.len()));
        let mut known: HashMap<Likeness<'_>, u32> = HashMap::new();
        for (z, served) in zones.iter().enumerate() {
            let zone = &*served.zone;
            let fleet = *known.entry(Likeness::of(zone, every)).or_insert_with(|| {
                let id = fleets.len() as u32;
                fleets.push(Fleet::new(zone, |region, server, family| {
                    let target = target_of(zone, region, server, family)?;
                    Some(targets.id(target, id, region as u8))
                }));
                members.push(vec![]);
                id
            });
            fleet_of.push(fleet);
            members[fleet as usize].push(z as u32);
            first_stream.push(streams.len() as u32);
            for (s, stream) in zone.streams.iter().enumerate() {
                streams.push(SteeredName {
                    zone: z as u32,
                    fleet,
                    stream: s as u32,
                    plan: plan_of_stream[streams.len()],
                    group: 0,
                    ttl: stream.ttl,
                    brief_ttl: stream.ttl.min(BRIEF_TTL),
                    needs: None,
                    regions: every(stream),
                    common: taking(&stream.steering),
                    fallback: stream.fallback.as_ref().map(|target| names::cname(target, stream.ttl)),
                });
            }
        }
        first_stream.push(streams.len() as u32);
        drop(known);
        let groups = groups::compile(&mut streams);
        let rankings = groups::rankings(&groups, &zones, &streams, &geography, previous);
        let needs = needs::compile(&zones, &fleet_of, &mut streams);
        let dependents = needs::dependents(&needs, &fleet_of);
        let uses = needs::uses(&streams);
        let verdicts: Arc<[Verdict]> = targets.list.iter().map(verdict).collect();
        let states: Chunks<_> = fleets.iter().map(|fleet| Arc::new(FleetState::new(fleet, &verdicts))).collect();
        let names = Names::new(&zones, &first_stream);
        let Targets { list: targets, used_by, .. } = targets;
        let counters = Arc::new(Counters::of(zones.iter().map(|served| &*served.zone)));
        static EPOCHS: AtomicU64 = AtomicU64::new(1);
        let compiled = Arc::new(Compiled {
            epoch: EPOCHS.fetch_add(1, Relaxed),
            zones,
            names,
            streams,
            first_stream,
            fleets,
            fleet_of,
            members,
            geography,
            groups,
            needs,
            dependents,
            uses,
            targets,
            used_by,
            counters,
        });
        let generation = previous.map_or(1, |previous| previous.generation + 1);
        let unmet = vec![[Mask::MAX; 2]; compiled.needs.len()];
        let mut snapshot =
            Snapshot { generation, compiled, verdicts, states, apart: None, met: unmet.into(), rankings };
        let all: BTreeSet<usize> = (0..snapshot.met.len()).collect();
        snapshot.judge_needs(all);
        snapshot
    }

    /// The next generation, with other verdicts. Judges only the regions they touch; takes microseconds.
    pub fn with_verdicts(&self, changes: &[(TargetId, Verdict)]) -> Snapshot {
        let mut verdicts: Arc<[Verdict]> = self.verdicts.clone();
        let list = Arc::make_mut(&mut verdicts);
        let mut touched: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for &(target, verdict) in changes {
            let before = std::mem::replace(&mut list[target.0 as usize], verdict);
            if !is_same(before, verdict) {
                for (fleet, region) in self.users(target) {
                    touched.entry(fleet).or_default().insert(usize::from(region));
                }
            }
        }
        let mut states = self.states.clone();
        for (&fleet, regions) in &touched {
            let state = Arc::make_mut(states.get_mut(fleet as usize));
            state.refresh(self.declared(fleet), regions.iter().copied(), &verdicts);
        }
        self.next(verdicts, states, touched.into_keys())
    }

    /// The next generation, with what else holds of regions, given as ((fleet, region), standing). As quick as a verdict.
    pub fn with_standings(&self, changes: impl IntoIterator<Item = ((u32, u8), Standing)>) -> Snapshot {
        let mut states = self.states.clone();
        let mut touched: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for ((fleet, region), standing) in changes {
            let region = usize::from(region);
            if Arc::make_mut(states.get_mut(fleet as usize)).set_standing(region, standing) {
                touched.entry(fleet).or_default().insert(region);
            }
        }
        for (&fleet, regions) in &touched {
            let state = Arc::make_mut(states.get_mut(fleet as usize));
            state.refresh(self.declared(fleet), regions.iter().copied(), &self.verdicts);
        }
        self.next(self.verdicts.clone(), states, touched.into_keys())
    }

    /// The next generation, in which each of these zones has a fleet of its own, so far in the same state. Without effect
    /// on those that have.
    pub fn with_apart(&self, zones: &[u32]) -> Snapshot {
        let mut next = self.next(self.verdicts.clone(), self.states.clone(), []);
        let mut apart = self.apart.as_deref().cloned().unwrap_or_default();
        let mut met = self.met.to_vec();
        for &zone in zones.iter().filter(|zone| self.shares(**zone)) {
            let shared = self.compiled.fleet_of[zone as usize];
            if apart.fleets.contains_key(&zone) {
                continue;
            }
            let own = next.states.len() as u32;
            apart.fleets.insert(zone, own);
            apart.zones.push(zone);
            next.states.push(Arc::clone(self.states.get(shared as usize)));
            for &needs in self.compiled.uses.get(&shared).into_iter().flat_map(|uses| &uses.needing) {
                apart.needs_of.insert((own, needs), met.len() as u32);
                apart.needs.push(self.compiled.needs[needs as usize].in_fleet(own));
                met.push(met[needs as usize]);
            }
        }
        (next.apart, next.met) = (Some(Arc::new(apart)), met.into());
        next
    }

    /// The next generation, with what the solver of prices made of these groups.
    pub fn with_rankings(&self, changes: impl IntoIterator<Item = (u32, Arc<Rankings>)>) -> Snapshot {
        let mut next = self.next(self.verdicts.clone(), self.states.clone(), []);
        for (group, rankings) in changes {
            debug_assert_eq!(rankings.cells(), next.rankings.get(group as usize).cells());
            *next.rankings.get_mut(group as usize) = rankings;
        }
        next
    }

    /// `touched`: the fleets of which servers came or went.
    fn next(
        &self,
        verdicts: Arc<[Verdict]>,
        states: Chunks<Arc<FleetState>>,
        touched: impl IntoIterator<Item = u32>,
    ) -> Snapshot {
        let mut stale = BTreeSet::new();
        if !self.met.is_empty() {
            let up = |states: &Chunks<Arc<FleetState>>, fleet| Family::BOTH.map(|family| states.get(fleet).up(family));
            for fleet in
                touched.into_iter().filter(|fleet| up(&self.states, *fleet as usize) != up(&states, *fleet as usize))
            {
                let dependents = self.compiled.dependents.get(&self.compiled_as(fleet));
                stale.extend(dependents.into_iter().flatten().map(|needs| *needs as usize));
                // Few, so all of them.
                stale.extend(self.compiled.needs.len()..self.met.len());
            }
        }
        let (compiled, apart, met) = (self.compiled.clone(), self.apart.clone(), self.met.clone());
        let (generation, rankings) = (self.generation + 1, self.rankings.clone());
        let mut next = Snapshot { generation, compiled, verdicts, states, apart, met, rankings };
        next.judge_needs(stale);
        next
    }

    /// Works out where these needs are met; the list stays the same one where nothing is another.
    fn judge_needs(&mut self, stale: BTreeSet<usize>) {
        for position in stale {
            let needs = match position.checked_sub(self.compiled.needs.len()) {
                None => &self.compiled.needs[position],
                Some(own) => &self.apart.as_ref().expect("needs behind the compiled ones are theirs").needs[own],
            };
            let met = needs.met(|fleet| self.fleet_at(fleet), |zone| self.fleet_of(zone));
            if self.met[position] != met {
                Arc::make_mut(&mut self.met)[position] = met;
            }
        }
    }

    /// The same as the successor of `current`, which may have moved on from the one this was compiled after.
    pub fn following(self, current: &Snapshot) -> Snapshot {
        Snapshot { generation: current.generation + 1, ..self }
    }

    /// Whether they differ in nothing but verdicts and standings.
    pub fn is_kin(&self, other: &Snapshot) -> bool {
        Arc::ptr_eq(&self.compiled, &other.compiled)
    }

    /// Whether cells have the same numbers in both.
    pub fn shares_cells(&self, other: &Snapshot) -> bool {
        Arc::ptr_eq(&self.compiled.geography, &other.compiled.geography)
    }

    /// Counts up by one with every snapshot made from another.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Of the load that numbered zones, streams, plans and cells: equal in all snapshots of it, and in no other.
    pub fn epoch(&self) -> u64 {
        self.compiled.epoch
    }

    pub fn zones(&self) -> &[Served] {
        &self.compiled.zones
    }

    /// Every distinct target of every zone.
    pub fn targets(&self) -> &[Target] {
        &self.compiled.targets
    }

    /// The (fleet, region) pairs that a target is part of.
    pub fn users(&self, target: TargetId) -> impl Iterator<Item = (u32, u8)> {
        let compiled = &self.compiled.used_by[target.0 as usize];
        let apart = self.apart.iter().flat_map(move |apart| {
            compiled.iter().flat_map(move |&(fleet, region)| {
                let own = apart.zones.iter().filter(move |zone| self.compiled.fleet_of[**zone as usize] == fleet);
                own.map(move |zone| (apart.fleets[zone], region))
            })
        });
        compiled.iter().copied().chain(apart)
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

    /// The positions of a zone's streams.
    pub fn streams_of(&self, zone: u32) -> Range<usize> {
        let first = |zone: u32| self.compiled.first_stream[zone as usize] as usize;
        first(zone)..first(zone + 1)
    }

    pub fn stream(&self, stream: u32) -> &SteeredName {
        &self.compiled.streams[stream as usize]
    }

    pub fn streams(&self) -> &[SteeredName] {
        &self.compiled.streams
    }

    /// Streams that are steered alike.
    pub fn groups(&self) -> &[Group] {
        &self.compiled.groups
    }

    /// Cell → order of regions, for a stream.
    #[inline]
    pub fn rankings(&self, stream: &SteeredName) -> &Rankings {
        self.rankings.get(stream.group as usize)
    }

    /// ... and for a group.
    pub fn rankings_of(&self, group: u32) -> &Arc<Rankings> {
        self.rankings.get(group as usize)
    }

    /// The settings that a steered name was compiled from.
    pub fn settings_of(&self, stream: &SteeredName) -> &Stream {
        &self.compiled.zones[stream.zone as usize].zone.streams[stream.stream as usize]
    }

    /// How many fleets there are.
    pub fn fleets(&self) -> u32 {
        self.states.len() as u32
    }

    /// The fleet of a zone.
    pub fn fleet_of(&self, zone: u32) -> u32 {
        let own = self.apart.as_ref().and_then(|apart| apart.fleets.get(&zone));
        own.copied().unwrap_or_else(|| self.compiled.fleet_of[zone as usize])
    }

    /// The zones of a fleet. None, if all that could share it were set apart.
    pub fn zones_of(&self, fleet: u32) -> impl Iterator<Item = u32> {
        let (shared, own) = match (fleet as usize).checked_sub(self.compiled.fleets.len()) {
            None => (&*self.compiled.members[fleet as usize], None),
            Some(position) => (&[][..], self.apart.as_ref().map(|apart| apart.zones[position])),
        };
        let is_apart = |zone: &u32| self.apart.as_ref().is_some_and(|apart| apart.fleets.contains_key(zone));
        shared.iter().copied().filter(move |zone| !is_apart(zone)).chain(own)
    }

    /// A zone with the regions of a fleet, for what the files say of them.
    pub fn sample(&self, fleet: u32) -> &Zone {
        &self.compiled.zones[self.compiled.members[self.compiled_as(fleet) as usize][0] as usize].zone
    }

    /// Whether a zone has its fleet in common with another.
    pub fn shares(&self, zone: u32) -> bool {
        self.zones_of(self.fleet_of(zone)).nth(1).is_some()
    }

    /// The compiled fleet behind one that may be set apart.
    fn compiled_as(&self, fleet: u32) -> u32 {
        match (fleet as usize).checked_sub(self.compiled.fleets.len()).zip(self.apart.as_ref()) {
            Some((position, apart)) => self.compiled.fleet_of[apart.zones[position] as usize],
            None => fleet,
        }
    }

    fn declared(&self, fleet: u32) -> &Fleet {
        &self.compiled.fleets[self.compiled_as(fleet) as usize]
    }

    pub fn fleet_at(&self, fleet: u32) -> (&Fleet, &FleetState) {
        (self.declared(fleet), self.states.get(fleet as usize))
    }

    /// The states of a compiled fleet: that of the zones that share it, and those of its zones that were set apart.
    pub fn states_of(&self, fleet: u32) -> impl Iterator<Item = &FleetState> {
        let shared = self.zones_of(fleet).next().map(|_| fleet);
        let apart = self.apart.iter().flat_map(move |apart| {
            let own = apart.zones.iter().filter(move |zone| self.compiled.fleet_of[**zone as usize] == fleet);
            own.map(|zone| apart.fleets[zone])
        });
        shared.into_iter().chain(apart).map(|fleet| self.states.get(fleet as usize).as_ref())
    }

    /// Of a zone.
    pub fn fleet(&self, zone: u32) -> (&Fleet, &FleetState) {
        (
            &self.compiled.fleets[self.compiled.fleet_of[zone as usize] as usize],
            self.states.get(self.fleet_of(zone) as usize),
        )
    }

    /// Of a stream's zone, without a look at the zone.
    pub fn fleet_for(&self, stream: &SteeredName) -> (&Fleet, &FleetState) {
        (&self.compiled.fleets[stream.fleet as usize], self.states.get(self.fleet_id(stream) as usize))
    }

    fn fleet_id(&self, stream: &SteeredName) -> u32 {
        if self.apart.is_none() { stream.fleet } else { self.fleet_of(stream.zone) }
    }

    pub fn standing(&self, zone: u32, region: u8) -> &Standing {
        self.states.get(self.fleet_of(zone) as usize).standing(region)
    }

    /// Where the needs of a fleet's streams are met.
    fn met(&self, fleet: u32, needs: u32) -> &[Mask; 2] {
        let own = self.apart.as_ref().and_then(|apart| apart.needs_of.get(&(fleet, needs)));
        &self.met[own.copied().unwrap_or(needs) as usize]
    }

    /// The regions of a stream's zone that are up for it: enough of their servers are, and what it needs is.
    pub fn up(&self, stream: &SteeredName, family: Family) -> Mask {
        let fleet = self.fleet_id(stream);
        let met = stream.needs.map_or(Mask::MAX, |needs| self.met(fleet, needs)[family as usize]);
        self.states.get(fleet as usize).up(family) & met
    }

    /// The regions of a fleet that are up and of use to one of its streams at least.
    pub fn usable(&self, fleet: u32, family: Family) -> Mask {
        self.states.get(fleet as usize).up(family) & self.of_use(fleet, family)
    }

    /// The regions of a fleet where what some stream needs is up, or where some needs nothing.
    pub fn of_use(&self, fleet: u32, family: Family) -> Mask {
        let uses = self.compiled.uses.get(&self.compiled_as(fleet));
        let met = |needs| self.met(fleet, needs)[family as usize];
        uses.map_or(Mask::MAX, |uses| uses.of_use(&self.compiled.needs, met))
    }

    /// The fleets with streams that need others, unless these needs are met where they were in `before`, of the same
    /// compilation.
    pub fn fleets_with_other_needs(&self, before: &Snapshot) -> impl Iterator<Item = u32> {
        let same = Arc::ptr_eq(&self.met, &before.met);
        let apart = self.apart.iter().flat_map(|apart| apart.needs.iter().map(|needs| needs.fleet));
        self.compiled.uses.keys().copied().chain(apart).filter(move |_| !same)
    }

    /// What clients of a stream may be sent to.
    pub fn field(&self, stream: &SteeredName, family: Family) -> Field<'_> {
        let (fleet, state) = self.fleet_for(stream);
        // The solver reckons with what a ramp or drain leaves of a region, so nobody is to be turned away by it as well.
        // A zone that was set apart is not what it reckons with.
        let is_apart = || self.apart.as_ref().is_some_and(|apart| apart.fleets.contains_key(&stream.zone));
        let open = if self.rankings(stream).is_solved() && !is_apart() { state.open_whole() } else { state.open() };
        let (declared, banned) = (fleet.declared(family), state.banned());
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

/// Whether a server is given under the one verdict where it is under the other.
fn is_same(a: Verdict, b: Verdict) -> bool {
    let taken_as = |verdict| if verdict == Verdict::Unknown { Verdict::Up } else { verdict };
    taken_as(a) == taken_as(b)
}

/// Every region that some client of a stream can be sent to, by rules too.
fn every(stream: &Stream) -> Mask {
    let rules = stream.rules.iter().map(|rule| taking(&rule.steering));
    rules.fold(taking(&stream.steering), |mask, regions| mask | regions)
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
    fn id(&mut self, target: Target, fleet: u32, region: u8) -> TargetId {
        let id = *self.ids.entry(target).or_insert_with_key(|target| {
            self.list.push(target.clone());
            self.used_by.push(Vec::new());
            TargetId(self.list.len() as u32 - 1)
        });
        let users = &mut self.used_by[id.0 as usize];
        // Region by region, so one that is known came last.
        if users.last() != Some(&(fleet, region)) {
            users.push((fleet, region));
        }
        id
    }
}

#[cfg(test)]
mod tests;
