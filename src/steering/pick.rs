//! One region of a ranking, for one client.

use super::key::mix;
use super::plan::Ranked;
use super::share::Share;

/// Regions as bits: bit `r` is region `r`.
pub type Mask = u64;

/// How much of what they would get the regions take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Those that take anything.
    any: Mask,
    /// Those that take a part.
    partial: Mask,
    shares: Box<[Share]>,
}

impl Open {
    /// Every one of so many regions takes all it gets.
    pub fn all(regions: usize) -> Open {
        Open { any: Mask::MAX, partial: 0, shares: vec![Share::FULL; regions].into() }
    }

    pub fn set(&mut self, region: usize, share: Share) {
        let bit = 1 << region;
        self.shares[region] = share;
        self.any = if share > Share::NONE { self.any | bit } else { self.any & !bit };
        self.partial =
            if share > Share::NONE && share < Share::FULL { self.partial | bit } else { self.partial & !bit };
    }

    pub fn share(&self, region: u8) -> Share {
        self.shares[usize::from(region)]
    }

    /// Whether a region takes the client of a key: always the same clients, and more of them the higher its share.
    fn takes(&self, region: u8, key: u64) -> bool {
        self.partial >> region & 1 == 0 || {
            // Apart from what `rendezvous` draws from the key.
            let draw = mix(key ^ mix(u64::from(region) | 1 << 32)) >> 48;
            draw < u64::from(self.shares[usize::from(region)].bits())
        }
    }
}

/// What may be chosen from, of one family.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    pub up: Mask,
    /// Regions with an address of the family.
    pub declared: Mask,
    /// Regions forced down.
    pub banned: Mask,
    pub open: &'a Open,
}

/// The region that everybody with this ranking gets, whatever their key: the first that is up and takes clients, where
/// it takes all it gets and no other of its tier does. `None` says nothing; ask [`candidates`].
pub fn undisputed<'a>(ranking: &'a [Ranked], field: &Field<'_>) -> Option<&'a Ranked> {
    let Field { up, declared, open, .. } = *field;
    let takes = up & declared & open.any;
    let position = ranking.iter().position(|ranked| takes >> ranked.region & 1 == 1)?;
    let first = &ranking[position];
    let is_alone = usize::from(first.tier_end) == position + 1;
    (is_alone && open.partial >> first.region & 1 == 0).then_some(first)
}

/// The regions to choose among: those that are up and take clients; else those that are up, though drained; else (all
/// down) all that declare the type, as if they were up, the drained later and those forced down last.
pub fn candidates(ranking: &[Ranked], field: &Field<'_>) -> Mask {
    let ranked = ranking.iter().fold(0, |mask, ranked| mask | 1 << ranked.region);
    let declared = field.declared;
    let (up, lent) = (field.up & declared, declared & !field.banned);
    let any = field.open.any;
    [up & any, up, lent & any, lent].into_iter().find(|mask| ranked & mask != 0).unwrap_or(declared)
}

/// The first tier with a candidate, cut to its candidates. Empty when no region of the ranking is one.
pub fn tier(ranking: &[Ranked], candidates: Mask) -> impl Iterator<Item = &Ranked> + Clone {
    let is_candidate = move |ranked: &&Ranked| candidates >> ranked.region & 1 == 1;
    let first = ranking.iter().position(|ranked| is_candidate(&ranked)).unwrap_or(ranking.len());
    let end = ranking.get(first).map_or(first, |ranked| usize::from(ranked.tier_end));
    ranking.get(first..end).unwrap_or_default().iter().filter(is_candidate)
}

/// Whether the key decides: there is more than one candidate in the first tier, or the one there takes only a part.
pub fn is_split(ranking: &[Ranked], candidates: Mask, open: &Open) -> bool {
    let mut tier = tier(ranking, candidates);
    tier.next().is_some_and(|first| open.partial >> first.region & 1 == 1) || tier.next().is_some()
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick<'a> {
    pub ranked: &'a Ranked,
    /// A region that takes a part was asked on the way, so the choice will not last.
    pub moving: bool,
}

/// One of the candidates: by weight within a tier, tier after tier while regions that take a part do not take this key.
/// When none takes it, all have only a part to take, and it goes to one of them in proportion to those parts, so that a
/// region that takes less and less comes to nothing evenly even then. `None` only without candidates.
pub fn pick<'a>(ranking: &'a [Ranked], candidates: Mask, open: &Open, key: u64) -> Option<Pick<'a>> {
    let first = rendezvous(tier(ranking, candidates), key)?;
    let mut moving = open.partial >> first.region & 1 == 1;
    let (mut asked, mut left) = (first, candidates);
    loop {
        if open.takes(asked.region, key) {
            return Some(Pick { ranked: asked, moving });
        }
        left &= !(1 << asked.region);
        match rendezvous(tier(ranking, left), key) {
            Some(next) => asked = next,
            None => {
                let all = ranking.iter().filter(|ranked| candidates >> ranked.region & 1 == 1);
                let by_part = |ranked: &Ranked| f64::from(ranked.weight) * open.share(ranked.region).part();
                return Some(Pick { ranked: drawn(all, key, by_part).unwrap_or(first), moving });
            }
        }
        moving = true;
    }
}

/// The part of the keys that each candidate gets, as (region, part), parts summing up to 1. Exact but within a tier that
/// holds several regions of which some take a part.
pub fn expected(ranking: &[Ranked], candidates: Mask, open: &Open) -> Vec<(u8, f64)> {
    let mut parts: Vec<(u8, f64)> = Vec::new();
    let (mut rest, mut left) = (1.0, candidates);
    while rest > 0.0 {
        let tier: Vec<&Ranked> = tier(ranking, left).collect();
        if tier.is_empty() {
            break;
        }
        let taken = |ranked: &Ranked| f64::from(ranked.weight) * open.share(ranked.region).part();
        let sum: f64 = tier.iter().map(|ranked| taken(ranked)).sum();
        let refused: f64 = tier.iter().map(|ranked| 1.0 - open.share(ranked.region).part()).product();
        if sum > 0.0 {
            parts.extend(tier.iter().map(|ranked| (ranked.region, rest * (1.0 - refused) * taken(ranked) / sum)));
        }
        rest *= refused;
        left &= tier.iter().fold(Mask::MAX, |mask, ranked| mask & !(1 << ranked.region));
    }
    if rest > 0.0 {
        let all = || ranking.iter().filter(|ranked| candidates >> ranked.region & 1 == 1);
        let by_part = |ranked: &Ranked| f64::from(ranked.weight) * open.share(ranked.region).part();
        let sum: f64 = all().map(by_part).sum();
        // Where all are drained, nobody is asked for a part.
        let first: Vec<&Ranked> = self::tier(ranking, candidates).collect();
        let weights: f64 = first.iter().map(|ranked| f64::from(ranked.weight)).sum();
        match sum > 0.0 {
            true => parts.extend(all().map(|ranked| (ranked.region, rest * by_part(ranked) / sum))),
            false => parts.extend(first.iter().map(|r| (r.region, rest * f64::from(r.weight) / weights))),
        }
    }
    parts
}

/// How a region of the first tier fares in the draw for one key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    pub region: u8,
    /// Of the key and the region, in (0, 1].
    pub hash: f64,
    /// The region's part of the weights that are drawn among, 0 to 1.
    pub share: f64,
    /// −ln(hash) / share: the least is asked first.
    pub score: f64,
    /// Whether it takes this key: one that ramps or drains takes a part of all keys.
    pub takes: bool,
}

/// How [`pick`] draws among the first tier, the one asked first leading. The first that takes the key is what is picked.
/// Empty where fewer than two are drawn among. For people: allocates.
pub fn draws(ranking: &[Ranked], candidates: Mask, open: &Open, key: u64) -> Vec<Draw> {
    let whole: f64 = tier(ranking, candidates).map(|ranked| f64::from(ranked.weight)).sum();
    let draw = |ranked: &Ranked| {
        let share = f64::from(ranked.weight) / whole;
        let score = -hash(ranked, key).ln() / share;
        Draw { region: ranked.region, hash: hash(ranked, key), share, score, takes: open.takes(ranked.region, key) }
    };
    let mut draws: Vec<Draw> = tier(ranking, candidates).map(draw).collect();
    if draws.len() < 2 {
        draws.clear();
    }
    draws.sort_by(|a, b| a.score.total_cmp(&b.score));
    draws
}

/// Weighted rendezvous hashing: the region with the least −ln(h(key, region)) / weight. Losing one moves only those who
/// were on it. `None` only for an empty tier.
fn rendezvous<'a>(mut tier: impl Iterator<Item = &'a Ranked> + Clone, key: u64) -> Option<&'a Ranked> {
    let all = tier.clone();
    let first = tier.next()?;
    if tier.next().is_none() { Some(first) } else { drawn(all, key, |ranked| f64::from(ranked.weight)) }
}

/// The one with the least −ln(h(key, region)) / weight.
fn drawn<'a>(among: impl Iterator<Item = &'a Ranked>, key: u64, weight: impl Fn(&Ranked) -> f64) -> Option<&'a Ranked> {
    let mut best: Option<(f64, &Ranked)> = None;
    for ranked in among {
        let score = score(ranked, key) / weight(ranked);
        if best.is_none_or(|(least, _)| score < least) {
            best = Some((score, ranked));
        }
    }
    best.map(|(_, ranked)| ranked)
}

/// −ln(h(key, region)).
fn score(ranked: &Ranked, key: u64) -> f64 {
    -hash(ranked, key).ln()
}

/// h(key, region), uniform in (0, 1].
fn hash(ranked: &Ranked, key: u64) -> f64 {
    let hash = mix(key ^ mix(u64::from(ranked.region)));
    // 53 bits, shifted into (0, 1], so that the logarithm is finite.
    ((hash >> 11) + 1) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(tiers: &[&[(u8, u16)]]) -> Vec<Ranked> {
        let mut all = Vec::new();
        for tier in tiers {
            let tier_end = (all.len() + tier.len()) as u8;
            all.extend(tier.iter().map(|&(region, weight)| Ranked { region, answers: 1, weight, tier_end }));
        }
        all
    }

    fn chosen(ranking: &[Ranked], field: &Field<'_>, key: u64) -> Option<u8> {
        let candidates = candidates(ranking, field);
        let chosen = super::pick(ranking, candidates, field.open, key).map(|pick| pick.ranked.region);
        if let Some(undisputed) = undisputed(ranking, field) {
            assert_eq!(chosen, Some(undisputed.region), "the short way leads to the same region");
            assert!(!is_split(ranking, candidates, field.open));
        }
        chosen
    }

    fn pick(ranking: &[Ranked], up: Mask, declared: Mask, key: u64) -> Option<u8> {
        chosen(ranking, &Field { up, declared, banned: 0, open: &Open::all(8) }, key)
    }

    fn open(shares: &[(usize, f64)]) -> Open {
        let mut open = Open::all(8);
        shares.iter().for_each(|&(region, part)| open.set(region, Share::of(part)));
        open
    }

    /// The part of the keys that each region gets.
    fn parts(ranking: &[Ranked], up: Mask, open: &Open) -> [f64; 8] {
        const KEYS: u64 = 40_000;
        let field = Field { up, declared: 0xFF, banned: 0, open };
        let mut parts = [0.0; 8];
        for key in 0..KEYS {
            parts[usize::from(chosen(ranking, &field, mix(key)).unwrap())] += 1.0 / KEYS as f64;
        }
        parts
    }

    #[test]
    fn the_first_region_that_is_up_is_taken() {
        let order = ranking(&[&[(2, 1)], &[(0, 1)], &[(1, 1)]]);
        assert_eq!(pick(&order, 0b111, 0b111, 7), Some(2));
        assert_eq!(pick(&order, 0b011, 0b111, 7), Some(0));
        assert_eq!(pick(&order, 0b011, 0b010, 7), Some(1), "region 0 does not declare the type");
    }

    #[test]
    fn all_regions_down_keeps_the_order() {
        let order = ranking(&[&[(2, 1)], &[(0, 1)]]);
        assert_eq!(pick(&order, 0, 0b111, 7), Some(2));
        assert_eq!(pick(&order, 0b010, 0b111, 7), Some(2), "region 1 is up but not of this ranking");
        assert_eq!(pick(&order, 0, 0b010, 7), None, "none of the ranking declares the type");
    }

    #[test]
    fn a_region_takes_the_part_it_may_and_the_next_takes_the_rest() {
        let order = ranking(&[&[(0, 1)], &[(1, 1)], &[(2, 1)]]);
        for part in [0.1, 0.5, 0.93] {
            let parts = parts(&order, 0b111, &open(&[(0, part)]));
            assert!((parts[0] - part).abs() < 0.01 && (parts[1] - (1.0 - part)).abs() < 0.01, "{part}: {parts:?}");
        }
        assert_eq!(parts(&order, 0b111, &open(&[(0, 0.0)]))[0], 0.0, "drained");
        assert!(parts(&order, 0b001, &open(&[(0, 0.0)]))[0] > 0.999, "drained, but nothing else is up");
        assert!(parts(&order, 0b000, &open(&[(0, 0.0)]))[1] > 0.999, "all down: the drained one still comes later");
    }

    #[test]
    fn a_region_that_takes_less_and_less_comes_to_nothing_evenly_even_beside_one_that_takes_a_part() {
        let order = ranking(&[&[(0, 1)], &[(1, 1)]]);
        let shares: Vec<f64> = (0..=50).map(|step| f64::from(step) / 50.0).collect();
        // The other takes at least what has left.
        let first = |part: f64| parts(&order, 0b11, &open(&[(0, part), (1, (1.0 - part).max(0.1))]))[0];
        let way: Vec<f64> = shares.iter().map(|part| first(*part)).collect();
        assert!(way[0] < 0.001 && way[50] > 0.999, "{way:?}");
        assert!(way.windows(2).all(|two| two[1] >= two[0] && two[1] - two[0] < 0.04), "{way:?}");
    }

    #[test]
    fn whoever_has_left_a_draining_region_stays_away() {
        let order = ranking(&[&[(0, 3), (1, 1)], &[(2, 1)]]);
        let field = |open| Field { up: 0b111, declared: 0b111, banned: 0, open };
        let steps = [1.0, 0.8, 0.5, 0.2, 0.01, 0.0].map(|part| open(&[(0, part)]));
        for key in (0..5_000).map(mix) {
            let way: Vec<u8> = steps.iter().map(|open| chosen(&order, &field(open), key).unwrap()).collect();
            let changes = way.windows(2).filter(|two| two[0] != two[1]).count();
            assert!(changes <= 1 && way[5] != 0, "{way:?}");
        }
    }

    #[test]
    fn a_region_forced_down_is_not_given_even_when_all_are_down() {
        let order = ranking(&[&[(0, 1)], &[(1, 1)]]);
        let open = Open::all(8);
        let field = |banned| Field { up: 0, declared: 0b11, banned, open: &open };
        assert_eq!(chosen(&order, &field(0b01), 7), Some(1));
        assert_eq!(chosen(&order, &field(0b11), 7), Some(0), "all forced down: an answer all the same");
    }

    #[test]
    fn the_key_decides_only_where_it_can() {
        let order = ranking(&[&[(0, 1)], &[(1, 1)]]);
        assert!(!is_split(&order, 0b11, &open(&[])));
        assert!(is_split(&order, 0b11, &open(&[(0, 0.5)])));
        assert!(!is_split(&order, 0b11, &open(&[(1, 0.5)])), "the first takes all");
        assert!(is_split(&ranking(&[&[(0, 1), (1, 1)]]), 0b11, &open(&[])));
    }

    #[test]
    fn what_is_expected_is_what_comes() {
        let order = ranking(&[&[(0, 3), (1, 1)], &[(2, 1)], &[(3, 1)]]);
        let cases: [&[(usize, f64)]; 5] = [
            &[],
            &[(2, 0.5)],
            &[(0, 0.0), (1, 0.4)],
            &[(0, 0.0), (1, 0.1), (2, 0.3)],
            &[(0, 0.2), (1, 0.2), (2, 0.2), (3, 0.2)],
        ];
        for shares in cases {
            let open = open(shares);
            let candidates = candidates(&order, &Field { up: 0xF, declared: 0xF, banned: 0, open: &open });
            let mut expected = [0.0; 8];
            super::expected(&order, candidates, &open)
                .iter()
                .for_each(|(region, p)| expected[usize::from(*region)] += p);
            let parts = parts(&order, 0xF, &open);
            assert!((expected.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}: {expected:?}");
            assert!(
                parts.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 0.1),
                "{shares:?}: {parts:?} {expected:?}"
            );
        }
    }

    #[test]
    fn what_is_picked_is_the_first_of_the_draws_that_takes_the_key() {
        let order = ranking(&[&[(0, 3), (1, 1), (2, 4)], &[(3, 1)]]);
        let open = open(&[(1, 0.5), (2, 0.3)]);
        let field = Field { up: 0b1111, declared: 0b1111, banned: 0, open: &open };
        let mut refused = 0;
        for key in (0..2_000).map(mix) {
            let draws = draws(&order, 0b1111, &open, key);
            let first = draws.iter().find(|draw| draw.takes).expect("region 0 takes all");
            assert_eq!(Some(first.region), chosen(&order, &field, key), "{draws:?}");
            refused += u32::from(!draws[0].takes);
            assert!((draws.iter().map(|draw| draw.share).sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(draws.iter().all(|draw| draw.hash > 0.0 && draw.hash <= 1.0));
        }
        assert!(refused > 100, "keys that a region on the move does not take are among them");
        assert_eq!(super::draws(&order, 0b1001, &open, 7), [], "one alone is not drawn");
    }

    #[test]
    fn shares_follow_the_weights_and_a_loss_moves_only_its_own() {
        let order = ranking(&[&[(0, 3), (1, 1), (2, 4)]]);
        let mut count = [0u32; 3];
        for key in 0..80_000u64 {
            let before = pick(&order, 0b111, 0b111, mix(key)).unwrap();
            count[usize::from(before)] += 1;
            let after = pick(&order, 0b101, 0b111, mix(key)).unwrap();
            assert!(before == after || before == 1);
        }
        for (region, expected) in [(0, 30_000f64), (1, 10_000.0), (2, 40_000.0)] {
            assert!((f64::from(count[region]) - expected).abs() < 600.0, "{count:?}");
        }
    }
}
