//! A plan: what a steered name asks for, and the order of regions it gives each place.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::config::settings::Policy;
use crate::geo::{CellId, Place, Point};

use super::cost::predicted_ms;
use super::pick::Mask;

/// What decides the order of regions of a steered name. Names with equal specs share one [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Where no rule matches, and behind the regions of a rule that matches.
    pub own: Choice,
    /// `(from, choice)` in order; the first whose `from` is true of the place wins. `from` is an index into the
    /// distinct sets that the places were built with.
    pub rules: Vec<(usize, Choice)>,
    /// Some of the regions have an end to what they take, so clients are also told apart for the load that they bring.
    pub by_load: bool,
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

    /// The order of regions where `head`, pairs of region and weight, is to be chosen among first, and `order` says in which
    /// order the other regions of the same choice follow. Behind them all is as in [`Spec::rank`].
    pub fn rank_by(&self, prior: &[Ranked], head: &[(u8, u16)], order: impl Iterator<Item = u8>) -> Ranking {
        let mut ranking: Vec<Ranked> = Vec::with_capacity(prior.len());
        let of = |region: u8| prior.iter().find(|ranked| ranked.region == region);
        let chosen = head.iter().filter_map(|&(region, weight)| Some(Ranked { weight: weight.max(1), ..*of(region)? }));
        ranking.extend(chosen);
        let end = ranking.len() as u8;
        ranking.iter_mut().for_each(|ranked| ranked.tier_end = end);
        for region in order {
            let Some(ranked) = of(region).filter(|_| !ranking.iter().any(|known| known.region == region)) else {
                continue;
            };
            ranking.push(Ranked { weight: 1, tier_end: ranking.len() as u8 + 1, ..*ranked });
        }
        // What is left keeps its tiers, wherever they end now.
        let mut left = prior;
        while let Some(first) = left.first() {
            let tier_end = first.tier_end;
            let length = left.iter().take_while(|ranked| ranked.tier_end == tier_end).count();
            let start = ranking.len();
            for ranked in &left[..length] {
                if !ranking.iter().any(|known| known.region == ranked.region) {
                    ranking.push(*ranked);
                }
            }
            let end = ranking.len() as u8;
            ranking[start..].iter_mut().for_each(|ranked| ranked.tier_end = end);
            left = &left[length..];
        }
        ranking.into()
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
    /// What it gives while nothing is known but geography.
    pub prior: Arc<Rankings>,
    /// By cell: the rule that applies there. Empty where the plan has no rules.
    pub(super) rule_of_cell: Box<[Option<u16>]>,
}

impl Plan {
    /// Position in the spec's rules of the one that applies to a cell.
    pub fn rule(&self, cell: CellId) -> Option<usize> {
        self.rule_of_cell.get(usize::from(cell.0)).copied().flatten().map(usize::from)
    }

    /// What is chosen among first in a cell: the regions of its rule, else the stream's own.
    pub fn choice(&self, cell: CellId) -> &Choice {
        self.rule(cell).map_or(&self.spec.own, |rule| &self.spec.rules[rule].1)
    }
}

/// Cell → order of regions.
#[derive(Clone, Debug, PartialEq)]
pub struct Rankings {
    list: Vec<Ranking>,
    of_cell: Box<[u16]>,
    /// By ranking: how many cells have it.
    cells: Box<[u32]>,
    /// Regions whose answers should not live long: they are nearly full, or something is about to happen.
    brief: Mask,
    /// The first tiers are shares that the solver of prices gave; otherwise geography alone.
    solved: bool,
}

impl Rankings {
    /// `list[of_cell[c]]` for every cell `c`.
    pub(super) fn new(list: Vec<Ranking>, of_cell: Box<[u16]>) -> Rankings {
        let mut cells = vec![0; list.len()].into_boxed_slice();
        of_cell.iter().for_each(|&ranking| cells[usize::from(ranking)] += 1);
        Rankings { list, of_cell, cells, brief: 0, solved: false }
    }

    /// By the solver of prices: a ranking for each cell, in order; there are at most 65,536 cells.
    pub fn solved(rankings: impl Iterator<Item = Ranking>) -> Rankings {
        let mut ids: HashMap<Ranking, u16, foldhash::fast::RandomState> = HashMap::default();
        let mut list = Vec::new();
        let of_cell = rankings.map(|ranking| {
            *ids.entry(ranking).or_insert_with_key(|ranking| {
                list.push(ranking.clone());
                (list.len() - 1) as u16
            })
        });
        let of_cell = of_cell.collect();
        Rankings { solved: true, ..Rankings::new(list, of_cell) }
    }

    pub fn with_brief(self, brief: Mask) -> Rankings {
        Rankings { brief, ..self }
    }

    #[inline]
    pub fn brief(&self) -> Mask {
        self.brief
    }

    #[inline]
    pub fn is_solved(&self) -> bool {
        self.solved
    }

    #[inline]
    pub fn ranking(&self, cell: CellId) -> &[Ranked] {
        &self.list[usize::from(self.of_cell[usize::from(cell.0)])]
    }

    /// Every distinct ranking, with the number of cells that have it.
    pub fn iter(&self) -> impl Iterator<Item = (&[Ranked], u32)> {
        self.list.iter().map(|ranking| &**ranking).zip(self.cells.iter().copied())
    }

    /// How many cells there are.
    pub fn cells(&self) -> usize {
        self.of_cell.len()
    }

    /// Whether the client's address can change the order of regions.
    #[inline]
    pub fn is_geographic(&self) -> bool {
        self.list.len() > 1
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
        let spec = Spec { own: choice(Policy::Nearest, &world()), rules: vec![], by_load: false };
        assert_eq!(regions(&spec.rank(None, at(52.0, 0.0))), [2, 1, 0]);
        assert_eq!(regions(&spec.rank(None, None)), [0, 1, 2]);
    }

    #[test]
    fn bias_moves_the_border() {
        let mut options = world();
        options[1].2 = -10;
        let spec = Spec { own: choice(Policy::Nearest, &options), rules: vec![], by_load: false };
        assert_eq!(regions(&spec.rank(None, at(LONDON.0, LONDON.1))), [1, 2, 0], "344 km cost 7 ms, the bias gives 10");
    }

    #[test]
    fn weight_zero_takes_none_and_the_rest_is_one_tier() {
        let spec = Spec { own: choice(Policy::Weighted(vec![3, 0, 1]), &world()), rules: vec![], by_load: false };
        let ranking = spec.rank(None, None);
        assert_eq!(regions(&ranking), [0, 2]);
        assert!(ranking.iter().all(|ranked| ranked.tier_end == 2));
    }

    #[test]
    fn behind_the_regions_of_a_rule_come_the_streams_own() {
        let rule = choice(Policy::Priority, &world()[..1]);
        let spec = Spec { own: choice(Policy::Nearest, &world()), rules: vec![(0, rule)], by_load: false };
        assert_eq!(regions(&spec.rank(Some(0), at(52.0, 0.0))), [0, 2, 1]);
    }

    #[test]
    fn what_the_solver_chose_comes_first_and_no_region_is_lost() {
        let rule = choice(Policy::Nearest, &world()[..2]);
        let spec = Spec { own: choice(Policy::Priority, &world()), rules: vec![(0, rule)], by_load: true };
        let prior = spec.rank(Some(0), at(52.0, 0.0));
        assert_eq!(regions(&prior), [1, 0, 2]);
        let solved = spec.rank_by(&prior, &[(0, 7), (1, 0)], [1, 0].into_iter());
        assert_eq!(regions(&solved), [0, 1, 2]);
        let tiers: Vec<_> = solved.iter().map(|ranked| (ranked.weight, ranked.tier_end)).collect();
        assert_eq!(tiers, [(7, 2), (1, 2), (1, 3)]);
        let solved = spec.rank_by(&prior, &[(2, 1)], [].into_iter());
        let tiers: Vec<_> = solved.iter().map(|ranked| (ranked.region, ranked.tier_end)).collect();
        assert_eq!(tiers, [(2, 1), (1, 2), (0, 3)], "what the solver does not know of comes behind, each in its place");
        let solved = spec.rank_by(&prior, &[(9, 1), (0, 1)], [1].into_iter());
        assert_eq!(regions(&solved), [0, 1, 2], "a region that is not of the plan is left out");
        assert_eq!(solved.iter().map(|ranked| ranked.tier_end).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
