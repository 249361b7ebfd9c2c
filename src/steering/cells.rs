//! Cells: places that every plan ranks alike.
//!
//! The answer path needs a cell, not a place: an address block has one cell, a plan has one ranking a cell. As places of
//! one cell are never told apart, blocks of different places join into wider ECS scopes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::geo::{CellId, CountryCode, Place, Point, Square};

use super::plan::{Plan, Ranking, Rankings, Spec};

/// Above this the places are made coarser: the tables that hang on a cell stay small, and ids fit 16 bits.
pub const MAX_CELLS: usize = 50_000;

/// Grids tried in turn, degrees; `None` is the databases' own resolution.
const GRAINS: [Option<f64>; 7] = [None, Some(1.0), Some(2.0), Some(4.0), Some(10.0), Some(30.0), Some(360.0)];

/// How many networks have cells of their own, tried in turn before places are made coarser: the largest come first.
const NETWORKS: [u32; 4] = [25_000, 12_000, 6_000, 3_000];
/// Cells times plans steered by load, above which networks are not told apart: each such cell is a row to be solved every
/// second, and what may be solved together is limited.
const NETWORK_ROWS: usize = 100_000;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

pub struct Cells {
    /// By place.
    pub of_place: Vec<CellId>,
    /// In the order of the specs given.
    pub plans: Vec<Plan>,
    /// By cell. Empty where no spec is steered by load.
    pub facts: Vec<Facts>,
    /// Degrees that places had to be coarsened to.
    pub grain: Option<f64>,
    pub count: usize,
}

/// The places of a cell, taken together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// The mean, weighted by addresses. `None`: no database places them.
    pub location: Option<Point>,
    pub country: Option<CountryCode>,
    pub square: Option<Square>,
    /// Number of IPv4 /24 blocks that a database places here: as good a guess as any of how many viewers there are.
    pub blocks: u32,
    /// Of all its clients. `None`: all networks that have no cell of their own.
    pub asn: Option<u32>,
    /// Cells of one square and country have one number, counted from 0.
    pub group: u32,
}

/// Places that lie near enough to each other to bring their load together. Where load is steered, those of two are never one
/// cell: a part of them may have to go elsewhere.
type Neighbourhood = (Option<Square>, Option<CountryCode>);

fn neighbourhood(place: &Place, location: Option<Point>) -> Neighbourhood {
    (location.map(Square::of), place.country)
}

/// Groups places by what the specs make of them. Place 0 is in cell 0.
///
/// Costs about places × specs × regions distance computations; 130,000 places and ten regions take 0.1 s.
pub fn build(places: &[Place], specs: &[Spec]) -> Cells {
    by_network(places, specs)
        .or_else(|| GRAINS.into_iter().find_map(|grain| build_at(places, specs, Fineness::plain(grain), MAX_CELLS)))
        // Only rules can still tell so many places apart. Those beyond the limit are steered as the unknown place is.
        .unwrap_or_else(|| build_capped(places, specs))
}

/// With the largest networks apart, as many of them as fit; `None`: none is to be told apart, or too much else is.
fn by_network(places: &[Place], specs: &[Spec]) -> Option<Cells> {
    let by_load = specs.iter().filter(|spec| spec.by_load).count();
    if by_load == 0 || places.iter().all(|place| place.network.is_none()) {
        return None;
    }
    let limit = MAX_CELLS.min(NETWORK_ROWS / by_load);
    let at = |networks| build_at(places, specs, Fineness { grain: None, networks }, limit);
    NETWORKS.into_iter().find_map(at)
}

/// What is told apart.
#[derive(Clone, Copy)]
struct Fineness {
    /// Degrees; `None`: the databases' own.
    grain: Option<f64>,
    /// This many networks, the largest of all.
    networks: u32,
}

impl Fineness {
    fn plain(grain: Option<f64>) -> Fineness {
        Fineness { grain, networks: 0 }
    }

    fn asn(self, place: &Place) -> Option<u32> {
        place.network.filter(|network| network.rank < self.networks).map(|network| network.asn)
    }
}

fn build_at(places: &[Place], specs: &[Spec], fineness: Fineness, limit: usize) -> Option<Cells> {
    let grain = fineness.grain;
    let groups = Groups::new(places, grain);
    let mut cell_of_group = vec![0u32; groups.list.len()];
    let mut count = 1;
    if specs.iter().any(|spec| spec.by_load) {
        let mut split: Map<(Neighbourhood, Option<u32>), u32> = Map::default();
        for (group, cell) in groups.list.iter().zip(&mut cell_of_group) {
            let next = split.len() as u32;
            let sample = &places[group.sample];
            let key = (neighbourhood(sample, group.location), fineness.asn(sample));
            *cell = *split.entry(key).or_insert(next);
        }
        count = split.len();
        if count > limit {
            return None;
        }
    }
    let mut interned = Vec::with_capacity(specs.len());
    for spec in specs {
        let mut rankings: Map<Ranking, u16> = Map::default();
        let mut split: Map<(u32, u16), u32> = Map::default();
        for (group, cell) in groups.list.iter().zip(&mut cell_of_group) {
            let ranking = spec.rank(spec.rule_for(&places[group.sample]), group.location);
            let next = rankings.len();
            let ranking = match rankings.get(&ranking) {
                Some(&known) => known,
                None => {
                    let id = u16::try_from(next).ok()?;
                    rankings.insert(ranking, id);
                    id
                }
            };
            let next = split.len() as u32;
            *cell = *split.entry((*cell, ranking)).or_insert(next);
            if split.len() > limit {
                return None;
            }
        }
        count = split.len();
        interned.push((spec, rankings));
    }
    let plans =
        interned.into_iter().map(|(spec, rankings)| plan(places, spec, rankings, &groups, &cell_of_group, count));
    let by_load = specs.iter().any(|spec| spec.by_load);
    Some(Cells {
        plans: plans.collect(),
        facts: if by_load { facts(places, &groups, &cell_of_group, count, fineness) } else { Vec::new() },
        of_place: groups.of_place.iter().map(|&group| CellId(cell_of_group[group as usize] as u16)).collect(),
        grain,
        count,
    })
}

fn plan(
    places: &[Place],
    spec: &Spec,
    interned: Map<Ranking, u16>,
    groups: &Groups,
    cell_of_group: &[u32],
    count: usize,
) -> Plan {
    let mut ranking_of_cell = vec![0u16; count].into_boxed_slice();
    let mut rule_of_cell = vec![None; if spec.rules.is_empty() { 0 } else { count }].into_boxed_slice();
    let mut seen = vec![false; count];
    for (group, &cell) in groups.list.iter().zip(cell_of_group) {
        if !std::mem::replace(&mut seen[cell as usize], true) {
            let rule = spec.rule_for(&places[group.sample]);
            ranking_of_cell[cell as usize] = interned[&spec.rank(rule, group.location)];
            if let Some(of_cell) = rule_of_cell.get_mut(cell as usize) {
                *of_cell = rule.and_then(|rule| u16::try_from(rule).ok());
            }
        }
    }
    let mut rankings = vec![Ranking::default(); interned.len()];
    for (ranking, id) in interned {
        rankings[usize::from(id)] = ranking;
    }
    Plan { spec: spec.clone(), prior: Arc::new(Rankings::new(rankings, ranking_of_cell)), rule_of_cell }
}

fn facts(places: &[Place], groups: &Groups, cell_of_group: &[u32], count: usize, fineness: Fineness) -> Vec<Facts> {
    let mut numbers: Map<Neighbourhood, u32> = Map::default();
    let unknown = Facts { location: None, country: None, square: None, blocks: 0, asn: None, group: 0 };
    let mut facts: Vec<Option<Facts>> = vec![None; count];
    let mut sums = vec![(0.0, 0.0, 0.0); count];
    for (place, &group) in places.iter().zip(&groups.of_place) {
        let cell = cell_of_group[group as usize] as usize;
        let known = facts[cell].get_or_insert_with(|| {
            let neighbourhood = neighbourhood(place, groups.list[group as usize].location);
            let next = numbers.len() as u32;
            let group = *numbers.entry(neighbourhood).or_insert(next);
            let asn = fineness.asn(place);
            Facts { country: place.country, square: neighbourhood.0, asn, group, ..unknown }
        });
        if let Some(at) = place.location {
            known.blocks += place.v4_blocks;
            let weight = (place.weight as f64).max(1.0);
            let (sum, lat, lon) = sums[cell];
            sums[cell] = (sum + weight, lat + weight * at.lat(), lon + weight * at.lon());
        }
    }
    let mean = |(sum, lat, lon): (f64, f64, f64)| if sum > 0.0 { Point::new(lat / sum, lon / sum) } else { None };
    let all = facts.into_iter().zip(sums);
    all.map(|(known, sums)| Facts { location: mean(sums), ..known.unwrap_or(unknown) }).collect()
}

fn build_capped(places: &[Place], specs: &[Spec]) -> Cells {
    let kept = &places[..places.len().min(MAX_CELLS)];
    let mut cells = build_at(kept, specs, Fineness::plain(GRAINS[GRAINS.len() - 1]), MAX_CELLS)
        .expect("as many places as cells are allowed make at most as many cells");
    cells.of_place.resize(places.len(), CellId(0));
    cells
}

/// Places joined on a grid, within one country and one truth of the rules.
struct Groups {
    of_place: Vec<u32>,
    list: Vec<Group>,
}

struct Group {
    /// Any place of the group: all have the same truth of the rules.
    sample: usize,
    /// The mean of the places, weighted by their number of addresses.
    location: Option<Point>,
}

impl Groups {
    fn new(places: &[Place], grain: Option<f64>) -> Groups {
        let Some(grain) = grain else {
            return Groups {
                of_place: (0..places.len() as u32).collect(),
                list: places.iter().enumerate().map(|(sample, p)| Group { sample, location: p.location }).collect(),
            };
        };
        type Key<'a> = (Option<CountryCode>, Option<(i32, i32)>, &'a [u64]);
        let mut ids: Map<Key<'_>, u32> = Map::default();
        let mut sums: Vec<(usize, f64, f64, f64)> = Vec::new();
        let of_place = places
            .iter()
            .enumerate()
            .map(|(index, place)| {
                let square = |at: Point| ((at.lat() / grain).floor() as i32, (at.lon() / grain).floor() as i32);
                let id = *ids.entry((place.country, place.location.map(square), &place.truth)).or_insert_with(|| {
                    sums.push((index, 0.0, 0.0, 0.0));
                    sums.len() as u32 - 1
                });
                if let Some(at) = place.location {
                    let weight = (place.weight as f64).max(1.0);
                    let sum = &mut sums[id as usize];
                    (sum.1, sum.2, sum.3) = (sum.1 + weight, sum.2 + weight * at.lat(), sum.3 + weight * at.lon());
                }
                id
            })
            .collect();
        // A grid square never crosses the date line, so a plain mean of degrees lies inside it.
        let mean = |&(sample, weight, lat, lon): &(usize, f64, f64, f64)| Group {
            sample,
            location: if weight > 0.0 { Point::new(lat / weight, lon / weight) } else { None },
        };
        Groups { of_place, list: sums.iter().map(mean).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Policy;
    use crate::steering::plan::{Choice, Contender};

    fn place(lat: f64, lon: f64, truth: u64) -> Place {
        Place {
            location: Point::new(lat, lon),
            country: None,
            network: None,
            weight: 1,
            v4_blocks: 1,
            truth: [truth].into(),
        }
    }

    fn unknown() -> Place {
        Place { location: None, country: None, network: None, weight: 0, v4_blocks: 0, truth: [0].into() }
    }

    fn two_regions(rules: Vec<(usize, Choice)>) -> Spec {
        let options = [(0, 50.0, 0.0), (1, 40.0, -75.0)].map(|(region, lat, lon)| Contender {
            region,
            location: Point::new(lat, lon),
            bias: 0,
        });
        Spec { own: Choice { options: options.to_vec(), policy: Policy::Nearest, answers: 2 }, rules, by_load: false }
    }

    #[test]
    fn places_ranked_alike_share_a_cell() {
        let places = [unknown(), place(51.0, 1.0, 0), place(48.0, 2.0, 0), place(41.0, -74.0, 0)];
        let cells = build(&places, &[two_regions(vec![])]);
        assert_eq!(cells.count, 2, "the unknown place keeps the order written, which is Europe's");
        assert_eq!(cells.of_place, [0, 0, 0, 1].map(CellId));
        assert_eq!(cells.plans[0].prior.ranking(CellId(1))[0].region, 1);
    }

    #[test]
    fn a_rule_splits_places_of_one_location() {
        let places = [unknown(), place(51.0, 1.0, 0), place(51.0, 1.0, 1)];
        let mut rule = two_regions(vec![]).own;
        rule.options.remove(0);
        let cells = build(&places, &[two_regions(vec![(0, rule)])]);
        assert_ne!(cells.of_place[1], cells.of_place[2]);
        assert_eq!(
            cells.plans[0].prior.ranking(cells.of_place[2]).iter().map(|r| r.region).collect::<Vec<_>>(),
            [1, 0]
        );
    }

    #[test]
    fn without_plans_the_world_is_one_cell() {
        let cells = build(&[unknown(), place(1.0, 1.0, 0)], &[]);
        assert_eq!(cells.of_place, [CellId(0), CellId(0)]);
    }

    #[test]
    fn too_many_cells_coarsen_the_places() {
        let mut places = vec![unknown()];
        places.extend((0..60).map(|i| place(50.0 + f64::from(i) / 100.0, f64::from(i % 7) / 10.0, 0)));
        let spec = {
            let options = (0..8).map(|i| Contender {
                region: i,
                location: Point::new(50.0 + f64::from(i) / 13.0, f64::from(i * i % 7) / 10.0),
                bias: 0,
            });
            Spec {
                own: Choice { options: options.collect(), policy: Policy::Nearest, answers: 1 },
                rules: vec![],
                by_load: false,
            }
        };
        let specs = [spec];
        let fine = build_at(&places, &specs, Fineness::plain(None), MAX_CELLS).unwrap();
        assert!(fine.count > 8, "{}", fine.count);
        assert!(build_at(&places, &specs, Fineness::plain(None), 8).is_none());
        let coarse = build_at(&places, &specs, Fineness::plain(Some(1.0)), 8).unwrap();
        assert_eq!(coarse.count, 2, "the unknown place and one square");
    }

    /// `count` networks at each of ten places of one square, the first of a square with the most addresses.
    fn networked(count: u32, by_load: bool) -> (Vec<Place>, [Spec; 1]) {
        let mut places = vec![unknown()];
        for at in 0..10 {
            for rank in 0..count {
                let network = Some(crate::geo::Network { asn: 64500 + rank, rank });
                places.push(Place { network, ..place(51.0 + f64::from(at) / 100.0, 1.0, 0) });
            }
            places.push(place(51.0 + f64::from(at) / 100.0, 1.0, 0));
        }
        let spec = Spec { by_load, ..two_regions(vec![]) };
        (places, [spec])
    }

    #[test]
    fn the_largest_networks_of_a_square_have_cells_of_their_own() {
        let (places, specs) = networked(3, true);
        let cells = build(&places, &specs);
        assert_eq!((cells.count, cells.grain), (5, None), "the unknown, three networks, and the others");
        let facts = |place: usize| cells.facts[usize::from(cells.of_place[place].0)];
        assert_eq!([1, 2, 3, 4].map(|place| facts(place).asn), [Some(64500), Some(64501), Some(64502), None]);
        assert_eq!(facts(1).blocks, 10);
        assert!((2..5).all(|place| facts(place).group == facts(1).group && facts(place).square == facts(1).square));
    }

    #[test]
    fn without_capacities_networks_make_no_cells() {
        let (places, specs) = networked(3, false);
        let cells = build(&places, &specs);
        assert_eq!((cells.count, cells.facts.len()), (1, 0));
    }

    #[test]
    fn smaller_networks_are_given_up_before_places_are_made_coarser() {
        let (places, specs) = networked(30_000, true);
        let cells = build(&places[..30_010], &specs);
        assert_eq!((cells.count, cells.grain), (25_002, None));
        // Each plan has rows of its own.
        let plans: Vec<Spec> = (0..7)
            .map(|i| {
                let mut spec = specs[0].clone();
                spec.own.answers = i;
                spec
            })
            .collect();
        let cells = build(&places[..30_010], &plans);
        assert_eq!((cells.count, cells.grain), (12_002, None));
        let many: Vec<Spec> = (0..50)
            .map(|i| {
                let mut spec = specs[0].clone();
                spec.own.answers = i;
                spec
            })
            .collect();
        assert_eq!(build(&places[..30_010], &many).count, 2);
    }
}
