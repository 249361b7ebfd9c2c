//! A plan: what a steered name asks for, and the order of regions it gives each place.

use std::hash::{Hash, Hasher};

use crate::config::settings::Policy;
use crate::geo::{Place, Point};

use super::cost::predicted_ms;

/// What decides the order of regions of a steered name. Names with equal specs share one [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Where no rule matches, and behind the regions of a rule that matches.
    pub own: Choice,
    /// `(from, choice)` in order; the first whose `from` is true of the place wins. `from` is an index into the
    /// distinct sets that the places were built with.
    pub rules: Vec<(usize, Choice)>,
}

/// Regions and the manner of choosing among them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Never empty; each region once.
    pub options: Vec<Contender>,
    pub policy: Policy,
    /// Addresses in an answer.
    pub answers: u8,
}

/// A region among those to choose from.
#[derive(Clone, Debug)]
pub struct Contender {
    pub region: u8,
    pub location: Option<Point>,
    /// ms
    pub bias: i32,
}

impl Contender {
    fn identity(&self) -> (u8, Option<(u64, u64)>, i32) {
        (self.region, self.location.map(|at| (at.lat().to_bits(), at.lon().to_bits())), self.bias)
    }
}

impl PartialEq for Contender {
    fn eq(&self, other: &Contender) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Contender {}

impl Hash for Contender {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// One region in a [`Ranking`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ranked {
    pub region: u8,
    /// Addresses to give when this region is chosen.
    pub answers: u8,
    /// Share among the regions of the same tier; at least 1.
    pub weight: u16,
    /// Position behind the last region of this one's tier. Regions of a tier are chosen among by weight; the next tier
    /// is looked at when none of them is up.
    pub tier_end: u8,
}

/// All the regions that a place may be sent to, best first.
pub type Ranking = Box<[Ranked]>;

impl Spec {
    /// Position in `rules` of the rule that applies to `place`.
    pub fn rule_for(&self, place: &Place) -> Option<usize> {
        self.rules.iter().position(|(from, _)| place.matches(*from))
    }

    /// The order of regions for a place at `location` to which `rule` applies.
    pub fn rank(&self, rule: Option<usize>, location: Option<Point>) -> Ranking {
        let mut ranking = Vec::with_capacity(self.own.options.len());
        if let Some(rule) = rule {
            self.rules[rule].1.append_to(&mut ranking, location);
        }
        self.own.append_to(&mut ranking, location);
        ranking.into()
    }
}

impl Choice {
    /// Predicted cost of an option, bias included, ms. `None` without a location on either side.
    pub fn cost_ms(&self, option: &Contender, location: Option<Point>) -> Option<f64> {
        Some(predicted_ms(location?, option.location?) + f64::from(option.bias))
    }

    fn append_to(&self, ranking: &mut Vec<Ranked>, location: Option<Point>) {
        let fresh: Vec<usize> = (0..self.options.len())
            .filter(|&i| !ranking.iter().any(|ranked| ranked.region == self.options[i].region))
            .collect();
        let start = ranking.len();
        let entry = |i: usize, weight, tier_end: usize| Ranked {
            region: self.options[i].region,
            answers: self.answers,
            weight,
            tier_end: u8::try_from(tier_end).expect("a zone has at most 64 regions"),
        };
        match &self.policy {
            Policy::Weighted(weights) => {
                let taking: Vec<usize> = fresh.into_iter().filter(|&i| weights[i] > 0).collect();
                let end = start + taking.len();
                ranking.extend(taking.into_iter().map(|i| entry(i, weights[i], end)));
            }
            Policy::Priority => {
                ranking.extend(fresh.into_iter().enumerate().map(|(n, i)| entry(i, 1, start + n + 1)));
            }
            Policy::Nearest => {
                let mut by_cost: Vec<(f64, usize)> = fresh
                    .into_iter()
                    // Unplaced clients keep the order written; so do equal costs, as the sort is stable.
                    .map(|i| (self.cost_ms(&self.options[i], location).unwrap_or(0.0), i))
                    .collect();
                by_cost.sort_by(|a, b| a.0.total_cmp(&b.0));
                ranking.extend(by_cost.into_iter().enumerate().map(|(n, (_, i))| entry(i, 1, start + n + 1)));
            }
        }
    }
}

/// A spec compiled for one set of cells.
#[derive(Debug)]
pub struct Plan {
    pub spec: Spec,
    pub(super) rankings: Vec<Ranking>,
    pub(super) ranking_of_cell: Box<[u16]>,
    /// By ranking: how many cells have it.
    pub(super) cells: Box<[u32]>,
}

impl Plan {
    pub fn ranking(&self, cell: crate::geo::CellId) -> &[Ranked] {
        &self.rankings[usize::from(self.ranking_of_cell[usize::from(cell.0)])]
    }

    /// Every distinct ranking, with the number of cells that have it.
    pub fn rankings(&self) -> impl Iterator<Item = (&[Ranked], u32)> {
        self.rankings.iter().map(|ranking| &**ranking).zip(self.cells.iter().copied())
    }

    /// Whether the client's address can change the order of regions.
    pub fn is_geographic(&self) -> bool {
        self.rankings.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lat: f64, lon: f64) -> Option<Point> {
        Point::new(lat, lon)
    }

    fn choice(policy: Policy, options: &[(u8, Option<Point>, i32)]) -> Choice {
        let options = options.iter().map(|&(region, location, bias)| Contender { region, location, bias }).collect();
        Choice { options, policy, answers: 2 }
    }

    fn regions(ranking: &[Ranked]) -> Vec<u8> {
        ranking.iter().map(|ranked| ranked.region).collect()
    }

    const LONDON: (f64, f64) = (51.51, -0.13);
    const PARIS: (f64, f64) = (48.86, 2.35);
    const TOKYO: (f64, f64) = (35.69, 139.69);

    fn world() -> [(u8, Option<Point>, i32); 3] {
        [(0, at(TOKYO.0, TOKYO.1), 0), (1, at(PARIS.0, PARIS.1), 0), (2, at(LONDON.0, LONDON.1), 0)]
    }

    #[test]
    fn nearest_orders_by_distance_and_unplaced_clients_keep_the_order_written() {
        let spec = Spec { own: choice(Policy::Nearest, &world()), rules: vec![] };
        assert_eq!(regions(&spec.rank(None, at(52.0, 0.0))), [2, 1, 0]);
        assert_eq!(regions(&spec.rank(None, None)), [0, 1, 2]);
    }

    #[test]
    fn bias_moves_the_border() {
        let mut options = world();
        options[1].2 = -10;
        let spec = Spec { own: choice(Policy::Nearest, &options), rules: vec![] };
        assert_eq!(regions(&spec.rank(None, at(LONDON.0, LONDON.1))), [1, 2, 0], "344 km cost 7 ms, the bias gives 10");
    }

    #[test]
    fn weight_zero_takes_none_and_the_rest_is_one_tier() {
        let spec = Spec { own: choice(Policy::Weighted(vec![3, 0, 1]), &world()), rules: vec![] };
        let ranking = spec.rank(None, None);
        assert_eq!(regions(&ranking), [0, 2]);
        assert!(ranking.iter().all(|ranked| ranked.tier_end == 2));
    }

    #[test]
    fn behind_the_regions_of_a_rule_come_the_streams_own() {
        let rule = choice(Policy::Priority, &world()[..1]);
        let spec = Spec { own: choice(Policy::Nearest, &world()), rules: vec![(0, rule)] };
        assert_eq!(regions(&spec.rank(Some(0), at(52.0, 0.0))), [0, 2, 1]);
    }
}
