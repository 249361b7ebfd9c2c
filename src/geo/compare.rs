//! How often two databases send the same client to the same region: what a compact database costs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::database::Database;
use super::ranges::Key;
use super::{Found, Point, Ranges};

/// How addresses are drawn, all of which the first database locates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Each IPv4 address is as likely as any other.
    Ipv4,
    /// Each run of IPv6 addresses of which the same is known is as likely as any other: large allocations that hardly
    /// anyone lives in don't drown the rest.
    Ipv6ByNetwork,
    /// Each IPv6 address is as likely as any other.
    Ipv6ByAddress,
}

impl Draw {
    pub const ALL: [Draw; 3] = [Draw::Ipv4, Draw::Ipv6ByNetwork, Draw::Ipv6ByAddress];
}

/// Shares are of the addresses drawn.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Comparison {
    pub addresses: u32,
    pub same_region: f64,
    pub same_country: f64,
    /// By how much farther the second database's region is than the nearest one: mean over all addresses, km.
    pub regret_km: f64,
    /// The same, of the one address in a hundred that is worst.
    pub regret_p99_km: f64,
}

/// Draws `count` addresses that `truth` locates. The same `seed` draws the same ones. `None` when there are none, or no
/// regions.
pub fn compare(
    truth: &Database,
    other: &Database,
    regions: &[Point],
    draw: Draw,
    count: u32,
    seed: u64,
) -> Option<Comparison> {
    let mut random = Random(seed);
    let located = |record: u32| truth.records()[record as usize].location().is_some();
    let urn = match draw {
        Draw::Ipv4 => Urn::new(truth.v4(), u32::MAX, located, |keys| keys),
        Draw::Ipv6ByNetwork => Urn::new(truth.v6(), u64::MAX, located, |_| 1),
        Draw::Ipv6ByAddress => Urn::new(truth.v6(), u64::MAX, located, |keys| keys),
    };
    let mut regrets = Vec::with_capacity(count as usize);
    let (mut same_region, mut same_country) = (0u32, 0u32);
    for _ in 0..count {
        let key = urn.draw(&mut random)?;
        let address = match draw {
            Draw::Ipv4 => IpAddr::from(Ipv4Addr::from_bits(key as u32)),
            _ => Ipv6Addr::from_bits(key << 64 | u128::from(random.next())).into(),
        };
        let (a, b) = (truth.lookup(address), other.lookup(address));
        let country = |found: &Found| found.country.as_ref().map(|told| told.value);
        same_country += u32::from(country(&a) == country(&b));
        let Some(at) = a.location.map(|told| told.value) else { continue };
        let nearest =
            |at: Point| regions.iter().copied().min_by(|x, y| x.distance_km(at).total_cmp(&y.distance_km(at)));
        let right = nearest(at)?;
        // An address that the other does not know goes to the default region, say the first.
        let given = match b.location {
            Some(told) => nearest(told.value)?,
            None => regions[0],
        };
        same_region += u32::from(given == right);
        regrets.push(given.distance_km(at) - right.distance_km(at));
    }
    regrets.sort_by(f64::total_cmp);
    let share = |n: u32| f64::from(n) / f64::from(count);
    Some(Comparison {
        addresses: count,
        same_region: share(same_region),
        same_country: share(same_country),
        regret_km: regrets.iter().sum::<f64>() / f64::from(count),
        regret_p99_km: *regrets.get(regrets.len() * 99 / 100)?,
    })
}

/// Runs with their weights summed up, to draw from.
struct Urn {
    /// Weight of this run and all before it, first key, number of keys.
    runs: Vec<(u128, u128, u128)>,
}

impl Urn {
    fn new<K: Key>(ranges: &Ranges<K>, last: K, take: impl Fn(u32) -> bool, weight: impl Fn(u128) -> u128) -> Urn {
        let mut sum = 0;
        let taken = ranges.iter(last).filter(|&(_, _, value)| take(value));
        let runs = taken.map(|(first, last, _)| {
            let keys = last.into() - first.into() + 1;
            sum += weight(keys);
            (sum, first.into(), keys)
        });
        Urn { runs: runs.collect() }
    }

    fn draw(&self, random: &mut Random) -> Option<u128> {
        let all = self.runs.last()?.0;
        let drawn = random.wide() % all;
        let (_, first, keys) = self.runs[self.runs.partition_point(|&(sum, ..)| sum <= drawn)];
        Some(first + random.wide() % keys)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine, which a measurement wants.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}
