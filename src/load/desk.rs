//! A [`Board`] that several threads share: probes, beats and the admin API write to it, whoever steers reads from it.
//!
//! Of the control side only: nothing that answers queries takes its lock. The lock is held for as long as it takes to
//! note a few numbers, or to add up the regions.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::warn;

use super::board::{Board, Counts, Event, Source, State};
use super::gauge::Heard;
use super::known::{Known, MachineId, Region, RegionId};
use super::report::{Fault, Figures, Report};
use super::reporter::Expected;
use crate::config::settings::Family;
use crate::health::beats::packet::Load;
use crate::health::{Reports, Target};
use crate::snapshot::Snapshot;

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Desk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    board: Board,
    /// Of the snapshot that it knows servers and regions from.
    generation: u64,
    /// Targets of which it was told since then that a report of theirs could not be taken.
    told: HashSet<SocketAddr>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change to it is whole, whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the servers and regions of this snapshot may report, and no others. An older snapshot than the last changes nothing. Linear in the zones.
    pub fn retain(&self, snapshot: &Snapshot) {
        let known = Arc::new(Known::of(snapshot));
        let mut inner = self.lock();
        if snapshot.generation() >= inner.generation {
            inner.generation = snapshot.generation();
            inner.board.retain(known);
            inner.told.clear();
        }
    }

    pub fn known(&self) -> Arc<Known> {
        Arc::clone(self.lock().board.known())
    }

    pub fn counts(&self) -> Counts {
        self.lock().board.counts()
    }

    /// Takes a report. Errors: nobody of that name is known.
    pub fn hear(&self, from: Source, report: &Report, now: Instant) -> Result<Heard, Fault> {
        self.lock().board.hear(from, report, now)
    }

    /// Counts a report that could not be read.
    pub fn refuse(&self, fault: Fault) -> Fault {
        self.lock().board.refuse(fault)
    }

    /// The region of this name; see [`Known::find`].
    pub fn find(&self, name: &str, zone: Option<&str>) -> Result<RegionId, Fault> {
        self.lock().board.find(name, zone)
    }

    /// Whether a server is of a region of this name, in this zone where one is given.
    pub fn is_of(&self, server: IpAddr, region: &str, zone: Option<&str>) -> bool {
        let known = self.known();
        let Some(machine) = known.machine(server) else { return false };
        let of_zone = zone.map(|zone| known.of_zone(zone).unwrap_or_default());
        known.machines[machine.0 as usize]
            .regions
            .iter()
            .any(|id| *known.region_at(*id).name == *region && of_zone.is_none_or(|regions| regions.contains(id)))
    }

    /// What is believed of all regions, in the order of [`Known::regions`], and what of it is worth noting. `snapshot`
    /// tells which servers are up; `expected` what is sent to a region. To be called about once a second by whoever
    /// steers, and by nobody else.
    pub fn states(
        &self,
        snapshot: &Snapshot,
        expected: impl Fn(RegionId, &Region) -> Expected,
        now: Instant,
    ) -> (Arc<Known>, Vec<State>, Vec<Event>) {
        let known = self.known();
        let up = ups(&known, snapshot);
        let mut inner = self.lock();
        let mut events = Vec::new();
        if !Arc::ptr_eq(&known, inner.board.known()) {
            // A reload came between. The next second sees it whole.
            let known = Arc::clone(inner.board.known());
            let states = known.regions().map(|(id, _)| inner.board.state(id, |_| true, now)).collect();
            return (known, states, events);
        }
        let mut states = Vec::with_capacity(known.regions.len());
        for (id, region) in known.regions() {
            inner.board.expect(id, expected(id, region));
            let state = inner.board.state(id, |machine| up[id.0 as usize].contains(&machine), now);
            events.extend(inner.board.turn(id, &state));
            states.push(state);
        }
        (known, states, events)
    }

    /// The same for who only wants to know: with what was said to be sent last, and nothing is noted.
    pub fn look(&self, snapshot: &Snapshot, now: Instant) -> (Arc<Known>, Vec<State>) {
        let known = self.known();
        let up = ups(&known, snapshot);
        let inner = self.lock();
        let same = Arc::ptr_eq(&known, inner.board.known());
        let known = Arc::clone(inner.board.known());
        let is_up = |id: RegionId, machine: MachineId| !same || up[id.0 as usize].contains(&machine);
        let states = known.regions().map(|(id, _)| inner.board.state(id, |machine| is_up(id, machine), now)).collect();
        (known, states)
    }
}

/// By region: the machines that viewers are given to, in any family. A region that the snapshot does not have where it is
/// thought to be (a reload is going on) counts as up.
fn ups(known: &Known, snapshot: &Snapshot) -> Vec<Vec<MachineId>> {
    let up = |region: &Region| {
        let (zone, position) = region.sample;
        let served = snapshot.zones().get(zone as usize);
        let same = served.and_then(|served| served.zone.regions.get(usize::from(position)));
        if same.is_none_or(|same| same.name != region.name) {
            return region.members.iter().map(|member| member.machine).collect();
        }
        let (fleet, state) = snapshot.fleet(zone);
        let members = Family::BOTH.into_iter().flat_map(|family| {
            let members = fleet.members(position, family).iter();
            members.filter(move |member| state.is_up(usize::from(position), family, member, snapshot.verdicts()))
        });
        let mut up: Vec<MachineId> = members.filter_map(|member| known.machine(member.address)).collect();
        up.sort_unstable();
        up.dedup();
        up
    };
    known.regions.iter().map(up).collect()
}

impl Reports for Desk {
    fn hear(&self, target: &Target, outcome: Result<Report, Fault>) {
        let mut inner = self.lock();
        let board = &mut inner.board;
        let heard = match outcome {
            Ok(report) => {
                let from = board.known().probed(target).map_or(Source::Server(target.address.ip()), Source::Machine);
                board.hear(from, &report, now()).map(|_| ())
            }
            Err(fault) => Err(board.refuse(fault)),
        };
        let Err(fault) = heard else { return };
        let is_new = inner.told.insert(target.address);
        drop(inner);
        // All are counted; of each target the first is told, so that nobody has to wonder why a region is not steered.
        if is_new {
            warn!("load of {} cannot be taken: {fault}", target.address);
        }
    }

    fn beat(&self, server: IpAddr, load: &Load) {
        let report = Report::new(Figures {
            sessions: load.sessions.map(|sessions| sessions as f64),
            utilization: load.cpu_permille.map(|permille| f64::from(permille) / 1000.0),
            bits_per_s: load.bits_per_s.map(|bits| bits as f64),
            ..Figures::default()
        });
        let mut inner = self.lock();
        // What is refused is counted.
        let _ = match report {
            Ok(report) => inner.board.hear(Source::Server(server), &report, now()).map(|_| ()),
            Err(fault) => Err(inner.board.refuse(fault)),
        };
    }
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
