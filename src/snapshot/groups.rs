//! Steered names that are steered alike: one plan over one fleet. Where regions can be full, what the solver of prices
//! published stands in place of the plan's own rankings.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::settings::Zone;
use crate::steering::plan::Rankings;

use super::chunks::Chunks;
use super::geography::Geography;
use super::{Served, Snapshot, SteeredName};

/// Steered names of one fleet that ask for the same.
pub struct Group {
    pub fleet: u32,
    pub plan: u32,
    /// Positions among the snapshot's streams; never empty.
    pub streams: Vec<u32>,
}

/// Groups the streams, and gives each the number of its group.
pub(super) fn compile(streams: &mut [SteeredName]) -> Vec<Group> {
    let mut ids: HashMap<(u32, u32), u32> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for (position, stream) in streams.iter_mut().enumerate() {
        let (fleet, plan) = (stream.fleet, stream.plan);
        stream.group = *ids.entry((fleet, plan)).or_insert_with(|| {
            groups.push(Group { fleet, plan, streams: vec![] });
            groups.len() as u32 - 1
        });
        groups[stream.group as usize].streams.push(position as u32);
    }
    groups
}

/// The rankings to begin with: those that were published before for the same streams, where cells and regions are still the
/// same, so that a reload of something else sends nobody elsewhere; otherwise the plans' own.
pub(super) fn rankings(
    groups: &[Group],
    zones: &[Served],
    streams: &[SteeredName],
    geography: &Arc<Geography>,
    previous: Option<&Snapshot>,
) -> Chunks<Arc<Rankings>> {
    let previous = previous.filter(|previous| Arc::ptr_eq(&previous.compiled.geography, geography));
    let published: HashMap<_, u32> = previous.map(solved).unwrap_or_default();
    let of = |group: &Group| {
        let plan = &geography.plans[group.plan as usize];
        let stream = &streams[group.streams[0] as usize];
        let zone = &zones[stream.zone as usize].zone;
        let known = published.get(&(zone.name.clone(), zone.streams[stream.stream as usize].owner.clone()));
        let known = known.zip(previous).filter(|(_, previous)| {
            let before = previous.compiled.zones.iter().find(|before| before.zone.name == zone.name);
            before.is_some_and(|before| same_regions(&before.zone, zone))
        });
        let known = known.filter(|(id, previous)| previous.compiled.groups[**id as usize].plan == group.plan);
        known.map_or_else(|| plan.prior.clone(), |(id, previous)| previous.rankings.get(*id as usize).clone())
    };
    groups.iter().map(of).collect()
}

/// The groups with rankings of the solver, by the zone and owner of each of their streams.
fn solved(snapshot: &Snapshot) -> HashMap<(hickory_proto::rr::Name, hickory_proto::rr::Name), u32> {
    let groups = snapshot.compiled.groups.iter().enumerate();
    let solved = groups.filter(|(id, _)| snapshot.rankings.get(*id).is_solved());
    solved
        .flat_map(|(id, group)| {
            group.streams.iter().map(move |&position| {
                let stream = &snapshot.compiled.streams[position as usize];
                let zone = &snapshot.compiled.zones[stream.zone as usize].zone;
                ((zone.name.clone(), zone.streams[stream.stream as usize].owner.clone()), id as u32)
            })
        })
        .collect()
}

fn same_regions(before: &Zone, now: &Zone) -> bool {
    before.regions.iter().map(|region| &region.name).eq(now.regions.iter().map(|region| &region.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Shared, read_zone};
    use crate::geo::{CellId, Database};
    use crate::health::Verdict;

    const ZONE: &str = r#"
        zone = "stream.example"
        ns   = ["ns1.example.net"]
        [region.us]
        at = [39.0, -77.5]
        a  = ["192.0.2.1"]
        capacity = "100 sessions"
        [region.eu]
        at = [51.5, -0.1]
        a  = ["192.0.2.11"]
        [stream.live]
        [stream.vod]
        [stream.paid]
        regions = ["eu"]
    "#;

    fn zones(text: &str) -> Vec<Served> {
        let zone = read_zone("zone.toml".as_ref(), text.into(), 0, &Shared::default()).zone.expect("a sound zone");
        vec![Served { zone: Arc::new(zone), serial: 1 }]
    }

    fn first(snapshot: &Snapshot, group: u32) -> u8 {
        snapshot.rankings_of(group).ranking(CellId(0))[0].region
    }

    #[test]
    fn what_the_solver_published_outlives_a_reload_of_something_else() {
        let database = Arc::new(Database::empty());
        let before = Snapshot::compile(zones(ZONE), &database, |_| Verdict::Up, None);
        assert_eq!(before.groups().len(), 2, "live and vod are steered alike");
        let prior = before.rankings_of(0).clone();
        let spec = &before.geography().plans[before.groups()[0].plan as usize].spec;
        let other = Rankings::solved(
            (0..prior.cells())
                .map(|cell| spec.rank_by(prior.ranking(CellId(cell as u16)), &[(1, 3), (0, 1)], [].into_iter())),
        );
        let solved = before.with_rankings([(0, Arc::new(other))]);
        assert_eq!((first(&before, 0), first(&solved, 0), first(&solved, 1)), (0, 1, 1));
        let again = Snapshot::compile(
            zones(&ZONE.replace("[stream.vod]", "[stream.new]")),
            &database,
            |_| Verdict::Up,
            Some(&solved),
        );
        assert_eq!(first(&again, 0), 1, "the same regions and cells");
        let renamed = ZONE.replace("[region.us]", "[region.usa]");
        let fresh = Snapshot::compile(zones(&renamed), &database, |_| Verdict::Up, Some(&solved));
        assert_eq!(first(&fresh, 0), 0, "other regions");
    }
}
