//! The largest networks of each part of the world: those whose clients have places, and so cells, of their own.
//!
//! Where an address is tells how far a region is; through whose network it goes tells much of the rest. Most clients of a
//! city belong to a handful of networks, so these few are told apart and all others stay together.

use std::collections::HashMap;

use super::places::hundredths;
use super::ranges::Ranges;
use super::record::Record;
use super::{CountryCode, Database};

/// Networks of one square and country at most.
const IN_AN_AREA: usize = 8;
/// Of all areas together, those with the most addresses first: leaves room for the cells of the areas themselves.
const IN_ALL: usize = 25_000;
/// A network with fewer IPv4 /24 blocks in an area has too few clients to measure or to steer apart.
const LEAST_BLOCKS: u64 = 16;
/// And so has one with a smaller part of the area's blocks that have an ASN.
const LEAST_SHARE: f64 = 0.05;
/// Of an area: two degrees, in hundredths.
const SIDE: i16 = 200;

/// The clients of one ASN within a square of two degrees and a country.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    pub asn: u32,
    /// How many pairs of area and ASN have more addresses; no two pairs have the same rank.
    pub rank: u32,
}

type Area = (i16, i16, Option<CountryCode>);

#[derive(Default)]
pub(super) struct Networks {
    ranks: HashMap<(Area, u32), u32, foldhash::fast::RandomState>,
}

fn area(record: &Record) -> Option<Area> {
    let (lat, lon) = hundredths(record.location()?);
    Some((lat.div_euclid(SIDE), lon.div_euclid(SIDE), record.country))
}

impl Networks {
    /// By number of IPv4 /24 blocks. Counting takes memory in proportion to the database's records while it lasts.
    pub fn largest(database: &Database) -> Networks {
        if database.known.asns.is_empty() {
            return Networks::default();
        }
        let addresses = addresses(database.v4(), database.records().len());
        let mut counted: HashMap<(Area, u32), u64, foldhash::fast::RandomState> = HashMap::default();
        for (record, &addresses) in database.records().iter().zip(&addresses) {
            if let (Some(area), Some(asn)) = (area(record), record.asn) {
                *counted.entry((area, asn)).or_default() += addresses;
            }
        }
        let mut areas: HashMap<Area, u64, foldhash::fast::RandomState> = HashMap::default();
        counted.iter().for_each(|((area, _), addresses)| *areas.entry(*area).or_default() += addresses);
        let is_large = |((area, _), addresses): &((Area, u32), u64)| {
            *addresses >= LEAST_BLOCKS << 8 && *addresses as f64 >= LEAST_SHARE * areas[area] as f64
        };
        let mut large: Vec<((Area, u32), u64)> = counted.into_iter().filter(is_large).collect();
        large.sort_unstable_by_key(|(pair, addresses)| (std::cmp::Reverse(*addresses), *pair));
        let mut taken: HashMap<Area, usize, foldhash::fast::RandomState> = HashMap::default();
        large.retain(|((area, _), _)| {
            let taken = taken.entry(*area).or_default();
            *taken += 1;
            *taken <= IN_AN_AREA
        });
        large.truncate(IN_ALL);
        Networks { ranks: large.into_iter().zip(0..).map(|((pair, _), rank)| (pair, rank)).collect() }
    }

    pub fn of(&self, record: &Record) -> Option<Network> {
        if self.ranks.is_empty() {
            return None;
        }
        let asn = record.asn?;
        let rank = *self.ranks.get(&(area(record)?, asn))?;
        Some(Network { asn, rank })
    }
}

/// How many addresses have each record.
fn addresses(runs: &Ranges<u32>, records: usize) -> Vec<u64> {
    let mut addresses = vec![0; records];
    for (first, last, record) in runs.iter(u32::MAX) {
        addresses[record as usize] += u64::from(last - first) + 1;
    }
    addresses
}
