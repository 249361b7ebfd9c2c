//! The machines and regions that may report load, whatever zones use them.
//!
//! A machine is what shares a public address or a probed socket, in whatever zone; a region is a name with its machines.
//! So the same region of ten thousand zones is one, and its load is counted once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::settings::{self, Family};
use crate::health::Target;
use crate::snapshot::Snapshot;

/// Position in [`Known::machines`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineId(pub u32);

/// Position in [`Known::regions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(pub u32);

/// What a zone file says of a region's size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Size {
    /// Configured capacity in sessions.
    pub capacity: Option<f64>,
    /// Bits per second of a session, for reports in bits per second.
    pub session_bits: Option<f64>,
}

impl Size {
    /// Of two for the same machines, the one by which they are full sooner. Its session goes with it: bits per second are
    /// compared with a capacity in bits per second only where both are divided by the same.
    fn careful(self, other: Size) -> Size {
        let order = |size: &Size| [size.capacity, size.session_bits].map(|figure| figure.unwrap_or(f64::INFINITY));
        if order(&other) < order(&self) { other } else { self }
    }
}

/// The size of a region, as its zone's file has it.
fn size(zone: &settings::Zone, region: &settings::Region) -> Size {
    let capacity = region.capacity.as_ref().map(|capacity| capacity.sessions);
    Size { capacity, session_bits: Some(zone.session_bits) }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Public addresses, sorted.
    pub addresses: Vec<IpAddr>,
    /// The regions it is of, sorted.
    pub regions: Vec<RegionId>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    pub name: Arc<str>,
    /// Sorted, each once.
    pub members: Vec<Member>,
    pub size: Size,
    /// A zone that uses it, and its position there: to ask a snapshot about it.
    pub sample: (u32, u8),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    pub machine: MachineId,
    /// Of the answers, among the region's machines.
    pub weight: f64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    pub machines: Vec<Machine>,
    pub regions: Vec<Region>,
    by_address: HashMap<IpAddr, MachineId>,
    by_probe: HashMap<SocketAddr, MachineId>,
    /// By zone: its regions, in its order.
    by_zone: HashMap<Arc<str>, Arc<[RegionId]>>,
    by_name: HashMap<Arc<str>, Vec<RegionId>>,
}

/// Why a region's name names none, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRegion {
    Unknown,
    /// The zone is not known.
    UnknownZone,
    /// Zones have different regions of the name.
    Ambiguous,
}

impl Known {
    /// What the zones of a snapshot use. Linear in the zones and their distinct regions.
    pub fn of(snapshot: &Snapshot) -> Known {
        // Zones that say the same are looked at once.
        let fleets: Vec<(u32, u32)> =
            (0..snapshot.fleets()).filter_map(|fleet| Some((fleet, snapshot.zones_of(fleet).next()?))).collect();
        let of = |zone: u32| &*snapshot.zones()[zone as usize].zone;
        let regions_of = |zone: u32| &of(zone).regions;
        let mut union = Union::default();
        for region in fleets.iter().flat_map(|(_, zone)| regions_of(*zone)) {
            for server in region.servers.iter() {
                union.add(server);
            }
        }
        let mut known = union.known();
        let mut ids: HashMap<(Arc<str>, Vec<MachineId>), RegionId> = HashMap::new();
        for (fleet, zone) in fleets {
            let regions = regions_of(zone).iter().enumerate();
            let of_zone: Arc<[RegionId]> = regions
                .map(|(r, region)| known.region(region, size(of(zone), region), (zone, r as u8), &mut ids))
                .collect();
            for zone in snapshot.zones_of(fleet) {
                known.by_zone.insert(snapshot.zones()[zone as usize].zone.label(), Arc::clone(&of_zone));
            }
        }
        for (id, region) in known.regions.iter().enumerate() {
            let id = RegionId(id as u32);
            known.by_name.entry(Arc::clone(&region.name)).or_default().push(id);
            for member in &region.members {
                known.machines[member.machine.0 as usize].regions.push(id);
            }
        }
        known
    }

    fn region(
        &mut self,
        region: &settings::Region,
        size: Size,
        sample: (u32, u8),
        ids: &mut HashMap<(Arc<str>, Vec<MachineId>), RegionId>,
    ) -> RegionId {
        let mut members: Vec<Member> = Vec::with_capacity(region.servers.len());
        for server in region.servers.iter() {
            let address = Family::BOTH.into_iter().find_map(|family| server.address(family));
            let Some(&machine) = address.and_then(|address| self.by_address.get(&address)) else { continue };
            let weight = f64::from(server.weight.get());
            match members.iter_mut().find(|member| member.machine == machine) {
                Some(member) => member.weight += weight,
                None => members.push(Member { machine, weight }),
            }
        }
        members.sort_by_key(|member| member.machine);
        let key = (Arc::clone(&region.name), members.iter().map(|member| member.machine).collect());
        let next = RegionId(self.regions.len() as u32);
        let id = *ids.entry(key).or_insert(next);
        match self.regions.get_mut(id.0 as usize) {
            None => self.regions.push(Region { name: Arc::clone(&region.name), members, size, sample }),
            Some(first) => first.size = first.size.careful(size),
        }
        id
    }

    /// One region of machines of one weight and one address each.
    #[cfg(test)]
    pub(super) fn for_tests(name: &str, addresses: &[&str], size: Size) -> Known {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let ids = || (0..).map(MachineId);
        let machine = |address: &IpAddr| Machine { addresses: vec![*address], regions: vec![RegionId(0)] };
        let members = ids().take(addresses.len()).map(|machine| Member { machine, weight: 1.0 }).collect();
        Known {
            machines: addresses.iter().map(machine).collect(),
            regions: vec![Region { name: name.into(), members, size, sample: (0, 0) }],
            by_address: addresses.into_iter().zip(ids()).collect(),
            by_name: [(name.into(), vec![RegionId(0)])].into(),
            ..Known::default()
        }
    }

    /// The machine with this public address.
    pub fn machine(&self, address: IpAddr) -> Option<MachineId> {
        self.by_address.get(&address).copied()
    }

    /// The machine that is probed there.
    pub fn probed(&self, target: &Target) -> Option<MachineId> {
        self.by_probe.get(&target.address).copied().or_else(|| self.machine(target.address.ip()))
    }

    /// The regions of a zone in its order; by its label, in lower case and without the final dot.
    pub fn of_zone(&self, zone: &str) -> Option<&[RegionId]> {
        self.by_zone.get(zone).map(|regions| &**regions)
    }

    /// The region of this name, in this zone where one is given. Errors: there is none, or more than one.
    pub fn find(&self, name: &str, zone: Option<&str>) -> Result<RegionId, NoRegion> {
        match zone {
            Some(zone) => {
                let mut regions = self.of_zone(zone).ok_or(NoRegion::UnknownZone)?.iter();
                let found = regions.find(|id| *self.regions[id.0 as usize].name == *name);
                found.copied().ok_or(NoRegion::Unknown)
            }
            None => match self.by_name.get(name).map(|ids| &ids[..]) {
                Some([id]) => Ok(*id),
                Some(_) => Err(NoRegion::Ambiguous),
                None => Err(NoRegion::Unknown),
            },
        }
    }

    pub fn region_at(&self, id: RegionId) -> &Region {
        &self.regions[id.0 as usize]
    }

    pub fn regions(&self) -> impl Iterator<Item = (RegionId, &Region)> {
        self.regions.iter().enumerate().map(|(id, region)| (RegionId(id as u32), region))
    }
}

/// Servers that share an address or a probed socket become one.
#[derive(Default)]
struct Union {
    /// By server, as met: the one it was joined to, or itself.
    parents: Vec<u32>,
    addresses: HashMap<IpAddr, u32>,
    probes: HashMap<SocketAddr, u32>,
}

impl Union {
    fn root(&mut self, mut at: u32) -> u32 {
        while self.parents[at as usize] != at {
            let above = self.parents[self.parents[at as usize] as usize];
            self.parents[at as usize] = above;
            at = above;
        }
        at
    }

    fn add(&mut self, server: &settings::Server) {
        let new = self.parents.len() as u32;
        self.parents.push(new);
        for address in Family::BOTH.into_iter().filter_map(|family| server.address(family)) {
            let first = *self.addresses.entry(address).or_insert(new);
            self.join(first, new);
        }
        if let Some(probe) = server.probe {
            let first = *self.probes.entry(probe).or_insert(new);
            self.join(first, new);
        }
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        // The earlier one, so that the order is that of the files.
        self.parents[a.max(b) as usize] = a.min(b);
    }

    fn known(mut self) -> Known {
        let mut known = Known::default();
        let mut ids: HashMap<u32, MachineId> = HashMap::new();
        let mut addresses: Vec<(IpAddr, u32)> = std::mem::take(&mut self.addresses).into_iter().collect();
        addresses.sort_unstable_by_key(|(address, server)| (*server, *address));
        for (address, server) in addresses {
            let root = self.root(server);
            let machine = *ids.entry(root).or_insert_with(|| {
                known.machines.push(Machine { addresses: vec![], regions: vec![] });
                MachineId(known.machines.len() as u32 - 1)
            });
            known.machines[machine.0 as usize].addresses.push(address);
            known.by_address.insert(address, machine);
        }
        known.machines.iter_mut().for_each(|machine| machine.addresses.sort_unstable());
        for (probe, server) in std::mem::take(&mut self.probes) {
            // Every server has an address.
            if let Some(machine) = ids.get(&self.root(server)) {
                known.by_probe.insert(probe, *machine);
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_zones_that_differ_the_smaller_capacity_counts_with_its_own_session() {
        let size = |capacity: Option<f64>, bits: f64| Size { capacity, session_bits: Some(bits) };
        // 10 Gbit/s are 2000 sessions of 5 Mbit/s, and 500 of 20.
        let (few, many) = (size(Some(500.0), 20e6), size(Some(2000.0), 5e6));
        let nowhere = size(None, 1e6);
        for [a, b, wanted] in [[few, many, few], [many, few, few], [nowhere, many, many], [few, nowhere, few]] {
            assert_eq!(a.careful(b), wanted);
        }
        assert_eq!(
            size(Some(9.0), 5e6).careful(size(Some(9.0), 2e6)),
            size(Some(9.0), 2e6),
            "more sessions for the bits"
        );
    }
}
