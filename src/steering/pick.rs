//! One region of a ranking, for one client.

use super::key::mix;
use super::plan::Ranked;

/// Regions as bits: bit `r` is region `r`.
pub type Mask = u64;

/// The regions to choose among: those up, else (all down) all that declare the type, as if they were up.
pub fn candidates(ranking: &[Ranked], up: Mask, declared: Mask) -> Mask {
    let ranked = ranking.iter().fold(0, |mask, ranked| mask | 1 << ranked.region);
    if ranked & up & declared != 0 { up & declared } else { declared }
}

/// The first tier with a candidate, cut to its candidates. Empty when no region of the ranking is one.
pub fn tier(ranking: &[Ranked], candidates: Mask) -> impl Iterator<Item = &Ranked> + Clone {
    let is_candidate = move |ranked: &&Ranked| candidates >> ranked.region & 1 == 1;
    let first = ranking.iter().position(|ranked| is_candidate(&ranked)).unwrap_or(ranking.len());
    let end = ranking.get(first).map_or(first, |ranked| usize::from(ranked.tier_end));
    ranking[first..end].iter().filter(is_candidate)
}

/// Weighted rendezvous hashing: the region with the least −ln(h(key, region)) / weight. Losing one moves only those who
/// were on it. `None` only for an empty tier.
pub fn rendezvous<'a>(mut tier: impl Iterator<Item = &'a Ranked>, key: u64) -> Option<&'a Ranked> {
    let first = tier.next()?;
    let Some(second) = tier.next() else { return Some(first) };
    let mut best = (score(first, key), first);
    for ranked in std::iter::once(second).chain(tier) {
        let score = score(ranked, key);
        if score < best.0 {
            best = (score, ranked);
        }
    }
    Some(best.1)
}

fn score(ranked: &Ranked, key: u64) -> f64 {
    let hash = mix(key ^ mix(u64::from(ranked.region)));
    // 53 bits, shifted into (0, 1], so that the logarithm is finite.
    let h = ((hash >> 11) + 1) as f64 / (1u64 << 53) as f64;
    -h.ln() / f64::from(ranked.weight)
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

    fn pick(ranking: &[Ranked], up: Mask, declared: Mask, key: u64) -> Option<u8> {
        rendezvous(tier(ranking, candidates(ranking, up, declared)), key).map(|ranked| ranked.region)
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
