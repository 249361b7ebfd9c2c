//! What a change of verdicts or standings does to the answers: the part of the cells that is sent elsewhere.
//!
//! Counts cells, not clients: what is known without looking at the load.

use std::collections::{BTreeMap, HashMap};

use crate::config::settings::Family;
use crate::steering::pick;

use super::Snapshot;

/// The effect on one zone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ZoneEffect {
    /// The part of the cells that is sent elsewhere, the mean over the zone's steered names; 0 to 1.
    pub moved: f64,
    /// By region: the part of the cells before and after.
    pub shares: BTreeMap<u8, (f64, f64)>,
}

/// The effect on `zone` of the change from one snapshot to a later one of the same compilation. Takes time in proportion
/// to the distinct rankings of the zone's names, so it belongs behind the publishing, not before it.
pub fn between(before: &Snapshot, after: &Snapshot, zone: u32) -> ZoneEffect {
    debug_assert!(before.is_kin(after), "shares of two compilations cannot be compared cell by cell");
    let mut effect = ZoneEffect::default();
    // Names that share a plan, and what they need, are alike.
    let mut alike: HashMap<_, (usize, u32)> = HashMap::new();
    let streams = after.streams();
    for position in after.streams_of(zone) {
        let stream = &streams[position];
        alike.entry((stream.group, stream.needs)).or_insert((position, 0)).1 += 1;
    }
    let names: u32 = alike.values().map(|(_, count)| count).sum();
    for (position, count) in alike.into_values() {
        let stream = &streams[position];
        // Most clients have IPv4; names without it are judged by IPv6.
        let (fleet, _) = after.fleet(zone);
        let family = if fleet.declared(Family::V4) & stream.regions != 0 { Family::V4 } else { Family::V6 };
        let rankings = after.rankings(stream);
        let cells: u32 = rankings.iter().map(|(_, cells)| cells).sum();
        for (ranking, weight) in rankings.iter() {
            let weight = f64::from(weight) / f64::from(cells.max(1)) * f64::from(count) / f64::from(names);
            let mut changes: BTreeMap<u8, (f64, f64)> = BTreeMap::new();
            for (is_after, snapshot) in [(false, before), (true, after)] {
                let field = snapshot.field(stream, family);
                let candidates = pick::candidates(ranking, &field);
                for (region, part) in pick::expected(ranking, candidates, field.open) {
                    let (was, is) = changes.entry(region).or_default();
                    *(if is_after { is } else { was }) += part;
                }
            }
            for (region, (was, is)) in changes {
                effect.moved += weight * (is - was).abs() / 2.0;
                let (before, after) = effect.shares.entry(region).or_default();
                (*before, *after) = (*before + weight * was, *after + weight * is);
            }
        }
    }
    effect
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::config::{Shared, load_zones};
    use crate::geo::Database;
    use crate::health::Verdict;
    use crate::snapshot::standing::{Share, Standing};
    use crate::snapshot::{Served, TargetId};

    const ZONE: &str = r#"
        zone = "stream.example"
        ns   = ["ns1.example.net"]
        [check]
        tcp = 1935
        [region.us]
        a  = ["192.0.2.1"]
        [region.eu]
        a  = ["192.0.2.11"]
        [region.ap]
        a  = ["192.0.2.21"]
        [stream.first]
        policy = "priority"
        [stream.even]
        policy = "weighted"
        weights = { us = 1, eu = 1, ap = 2 }
    "#;

    fn snapshot() -> Snapshot {
        let dir = tempfile::tempdir().unwrap();
        let file: PathBuf = dir.path().join("zone.toml");
        std::fs::write(&file, ZONE).unwrap();
        let loaded = load_zones(&[file], &Shared::default());
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
        Snapshot::compile(zones, &Arc::new(Database::empty()), |_| Verdict::Up, None)
    }

    fn percent(effect: &ZoneEffect) -> (f64, Vec<(u8, f64, f64)>) {
        let round = |part: f64| (part * 1000.0).round() / 10.0;
        let shares = effect.shares.iter().map(|(region, (was, is))| (*region, round(*was), round(*is)));
        (round(effect.moved), shares.collect())
    }

    #[test]
    fn a_lost_region_moves_its_cells_to_the_next() {
        let before = snapshot();
        let after = before.with_verdicts(&[(TargetId(0), Verdict::Down)]);
        let effect = between(&before, &after, 0);
        // All of the first stream, and a quarter of the second.
        assert_eq!(percent(&effect), (62.5, vec![(0, 62.5, 0.0), (1, 12.5, 66.7), (2, 25.0, 33.3)]));
    }

    #[test]
    fn a_drain_moves_its_part_and_nothing_else() {
        let before = snapshot();
        let half = |part| ((0, 2), Standing { share: Share::of(part), ..Standing::default() });
        let after = before.with_standings([half(0.5)]);
        let (moved, _) = percent(&between(&before, &after, 0));
        assert!((8.0..=17.0).contains(&moved), "half of the quarter that it has: {moved}");
        assert_eq!(percent(&between(&after, &after, 0)).0, 0.0);
    }
}
