//! Prefix → place: addresses that steering may tell apart, built once for a set of databases and rules.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::database::Database;
use super::embedded::{Located, family_of};
use super::networks::{Network, Networks};
use super::ranges::{self, Ranges, nest};
use super::record::Record;
use super::{Continent, CountryCode, Match, Point, SubdivisionCode};

/// Index into [`Places::list`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceId(pub u32);

/// Addresses that steering may tell apart: one location (to 0.01 degrees) and country of the databases, one truth of every
/// rule, and where asked for one network.
#[derive(Clone, Debug)]
pub struct Place {
    /// `None`: no database places these addresses.
    pub location: Option<Point>,
    pub country: Option<CountryCode>,
    /// `None`: not one of the largest around here, or not asked for.
    pub network: Option<Network>,
    /// Number of IPv4 /24 and IPv6 /48 blocks that lie here (a /24 weighs as much as a /48).
    pub weight: u64,
    /// Number of IPv4 /24 blocks alone. There are about as many people behind a /24 everywhere, which cannot be said of a /48.
    pub v4_blocks: u32,
    /// Bit `i` is the truth of `froms[i]` given to [`Places::build`]. There are few distinct ones.
    pub truth: Arc<[u64]>,
}

impl Place {
    pub fn matches(&self, from: usize) -> bool {
        self.truth[from / 64] >> (from % 64) & 1 == 1
    }
}

/// Prefix → place, at the databases' own resolution (/24, /48).
///
/// A block of addresses that lie in several places takes the one that most of them lie in; of equal ones the one of the
/// lowest address.
pub struct Places {
    /// Place 0 is the unknown place where no rule matches: no location, no country.
    pub list: Vec<Place>,
    /// By the first 24 bits.
    pub(super) v4: Blocks<u32>,
    /// By the first 48 bits.
    pub(super) v6: Blocks<u64>,
}

/// Bits of a database's key behind its /24 or /48.
const BEHIND24: u32 = 8;
const BEHIND48: u32 = 16;

/// Block → place. Where a database splits no block and no rule has a prefix, as with the bundled one, the runs are the
/// database's own, which spares as much memory as they take.
pub(super) struct Blocks<K> {
    runs: Arc<Ranges<K>>,
    /// Bits of a key of `runs` behind its block.
    behind: u32,
    /// By value of `runs`.
    place_of: Arc<[u32]>,
}

impl<K: ranges::Key> Blocks<K> {
    fn get(&self, block: K) -> u32 {
        self.place_of[self.runs.get(block << self.behind) as usize]
    }

    /// Blocks by a value of their places.
    pub fn map(&self, mut value: impl FnMut(u32) -> u32) -> Ranges<K> {
        let runs = self.runs.starts().iter().zip(self.runs.values());
        Ranges::joined(runs.map(|(&start, &run)| (start >> self.behind, value(self.place_of[run as usize]))))
    }
}

/// Blocks while places are being numbered.
enum Cut<K> {
    /// The database's runs, whose values are records.
    Shared(Arc<Ranges<K>>, u32),
    /// By block; values are keys of places.
    Own(Ranges<K>),
}

impl<K: ranges::Key> Cut<K> {
    fn new(
        records: &Arc<Ranges<K>>,
        prefixes: &Ranges<K>,
        behind: u32,
        last: K,
        place: impl FnMut(u32, u32) -> u32,
    ) -> Cut<K> {
        if prefixes.values() == [0] && records.aligned(behind) {
            return Cut::Shared(records.clone(), behind);
        }
        Cut::Own(records.overlay(prefixes, place).coarsen(behind, last))
    }

    /// Adds the number of blocks of each place; `last` is the last block.
    fn weigh(&self, plain: &[u32], last: K, weight: &mut [u64]) {
        let mut add = |place: u32, blocks: u128| weight[place as usize] += blocks as u64;
        match self {
            Cut::Own(runs) => {
                runs.iter(last).for_each(|(first, last, place)| add(place, last.into() - first.into() + 1));
            }
            Cut::Shared(runs, behind) => {
                let block = |start: &K| (*start >> *behind).into();
                let ends = runs.starts()[1..].iter().map(block).chain([last.into() + 1]);
                for ((start, &record), end) in runs.starts().iter().zip(runs.values()).zip(ends) {
                    add(plain[record as usize], end - block(start));
                }
            }
        }
    }

    fn finish(self, of_record: &Arc<[u32]>, of_key: &Arc<[u32]>) -> Blocks<K> {
        match self {
            Cut::Shared(runs, behind) => Blocks { runs, behind, place_of: of_record.clone() },
            Cut::Own(runs) => Blocks { runs: runs.into(), behind: 0, place_of: of_key.clone() },
        }
    }
}

/// What makes two addresses differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// In hundredths of a degree.
    location: Option<(i16, i16)>,
    country: Option<CountryCode>,
    network: Option<Network>,
    /// Index into the distinct truths.
    truth: u32,
}

const UNKNOWN: Key = Key { location: None, country: None, network: None, truth: 0 };

/// The last /24 and the last /48, by their numbers.
pub(super) const LAST24: u32 = (1 << 24) - 1;
pub(super) const LAST48: u64 = (1 << 48) - 1;

impl Places {
    /// `froms`: the distinct `from` sets of all rules; each is true where any of its items is.
    pub fn build(database: &Database, froms: &[Vec<Match>]) -> Places {
        Places::numbered(database, froms, &Networks::default())
    }

    /// As [`Places::build`], but the largest networks of each square of two degrees and country have places of their own. The
    /// same where no database knows ASNs.
    pub fn build_by_network(database: &Database, froms: &[Vec<Match>]) -> Places {
        Places::numbered(database, froms, &Networks::largest(database))
    }

    fn numbered(database: &Database, froms: &[Vec<Match>], networks: &Networks) -> Places {
        let mut truths = Truths::new(froms.len());
        let rules = Rules::new(froms, &mut truths);
        let by_record: Vec<u32> = database.records().iter().map(|record| rules.truth(record, &mut truths)).collect();
        let mut keys = Interner::default();
        keys.id(UNKNOWN);
        // Most addresses lie in no prefix of a rule: their place depends on the record alone.
        let plain: Vec<u32> = database
            .records()
            .iter()
            .zip(&by_record)
            .map(|(record, &truth)| keys.id(key(record, networks, truth)))
            .collect();
        let mut place = |record: u32, prefixes: u32| match prefixes {
            0 => plain[record as usize],
            _ => {
                let truth = truths.or(by_record[record as usize], prefixes);
                keys.id(key(&database.records()[record as usize], networks, truth))
            }
        };
        let v4 = Cut::new(database.v4(), &rules.v4, BEHIND24, u32::MAX, &mut place);
        let v6 = Cut::new(database.v6(), &rules.v6, BEHIND48, u64::MAX, &mut place);

        // Places that lost all their blocks to larger ones are left out.
        let mut weight = vec![0u64; keys.items.len()];
        v4.weigh(&plain, LAST24, &mut weight);
        let v4_blocks = weight.clone();
        v6.weigh(&plain, LAST48, &mut weight);
        let mut list: Vec<Place> = Vec::new();
        let mut renumbered = vec![0; keys.items.len()];
        for (i, (key, &weight)) in keys.items.iter().zip(&weight).enumerate() {
            if i == 0 || weight > 0 {
                renumbered[i] = list.len() as u32;
                list.push(Place {
                    location: key
                        .location
                        .and_then(|(lat, lon)| Point::new(f64::from(lat) / 100.0, f64::from(lon) / 100.0)),
                    country: key.country,
                    network: key.network,
                    weight,
                    v4_blocks: v4_blocks[i] as u32,
                    truth: truths.items[key.truth as usize].clone(),
                });
            }
        }
        let of_record: Arc<[u32]> = plain.iter().map(|&place| renumbered[place as usize]).collect();
        let of_key: Arc<[u32]> = renumbered.into();
        Places { list, v4: v4.finish(&of_record, &of_key), v6: v6.finish(&of_record, &of_key) }
    }

    pub fn locate(&self, address: IpAddr) -> PlaceId {
        PlaceId(match family_of(address) {
            Located::V4(address, _) => self.v4.get(address >> 8),
            Located::V6(address) => self.v6.get((address >> 80) as u64),
        })
    }
}

fn key(record: &Record, networks: &Networks, truth: u32) -> Key {
    Key { location: record.location().map(hundredths), country: record.country, network: networks.of(record), truth }
}

/// Of a degree, as places have their locations.
pub(super) fn hundredths(at: Point) -> (i16, i16) {
    let round = |degrees: f64| (degrees * 100.0).round() as i16;
    (round(at.lat()), round(at.lon()))
}

/// Distinct values, numbered in the order of their first appearance.
struct Interner<T> {
    items: Vec<T>,
    ids: HashMap<T, u32, foldhash::fast::RandomState>,
}

impl<T> Default for Interner<T> {
    fn default() -> Interner<T> {
        Interner { items: Vec::new(), ids: HashMap::default() }
    }
}

impl<T: Copy + Eq + Hash> Interner<T> {
    fn id(&mut self, item: T) -> u32 {
        *self.ids.entry(item).or_insert_with(|| {
            self.items.push(item);
            self.items.len() as u32 - 1
        })
    }
}

/// Distinct truths of all `froms`; number 0 is "none is true".
struct Truths {
    items: Vec<Arc<[u64]>>,
    ids: HashMap<Arc<[u64]>, u32, foldhash::fast::RandomState>,
}

impl Truths {
    fn new(froms: usize) -> Truths {
        let none: Arc<[u64]> = vec![0; froms.div_ceil(64)].into();
        Truths { items: vec![none.clone()], ids: HashMap::from_iter([(none, 0)]) }
    }

    fn id(&mut self, truth: &[u64]) -> u32 {
        if let Some(&id) = self.ids.get(truth) {
            return id;
        }
        let id = self.items.len() as u32;
        let truth: Arc<[u64]> = truth.into();
        self.items.push(truth.clone());
        self.ids.insert(truth, id);
        id
    }

    fn or(&mut self, a: u32, b: u32) -> u32 {
        if b == 0 || a == b {
            return a;
        }
        let both: Vec<u64> =
            self.items[a as usize].iter().zip(self.items[b as usize].iter()).map(|(x, y)| x | y).collect();
        self.id(&both)
    }

    /// The truth `from` alone.
    fn one(&mut self, from: usize) -> u32 {
        let mut truth = self.items[0].to_vec();
        truth[from / 64] |= 1 << (from % 64);
        self.id(&truth)
    }
}

/// All items of all `froms`, by what they ask for; values are truths.
struct Rules {
    countries: HashMap<CountryCode, u32>,
    subdivisions: HashMap<(CountryCode, SubdivisionCode), u32>,
    continents: HashMap<Continent, u32>,
    asns: HashMap<u32, u32>,
    v4: Ranges<u32>,
    v6: Ranges<u64>,
}

impl Rules {
    fn new(froms: &[Vec<Match>], truths: &mut Truths) -> Rules {
        let (mut countries, mut subdivisions, mut continents, mut asns) =
            (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (i, from) in froms.iter().enumerate() {
            let one = truths.one(i);
            for item in from {
                let known = match item {
                    Match::Country(country) => countries.entry(*country).or_insert(0),
                    Match::Subdivision(country, code) => subdivisions.entry((*country, *code)).or_insert(0),
                    Match::Continent(continent) => continents.entry(*continent).or_insert(0),
                    Match::Asn(asn) => asns.entry(*asn).or_insert(0),
                    Match::Prefix(IpNet::V4(net)) => {
                        v4.push((net.network().to_bits(), net.broadcast().to_bits(), one));
                        continue;
                    }
                    Match::Prefix(IpNet::V6(net)) => {
                        let upper = |address: std::net::Ipv6Addr| (address.to_bits() >> 64) as u64;
                        v6.push((upper(net.network()), upper(net.broadcast()), one));
                        continue;
                    }
                };
                *known = truths.or(*known, one);
            }
        }
        let v4 = nest(v4, |outer, one| truths.or(outer, one));
        let v6 = nest(v6, |outer, one| truths.or(outer, one));
        Rules { countries, subdivisions, continents, asns, v4, v6 }
    }

    /// What is true of a record, prefixes aside.
    fn truth(&self, record: &Record, truths: &mut Truths) -> u32 {
        let parts = [
            record.country.and_then(|country| self.countries.get(&country)),
            record.country.zip(record.subdivision).and_then(|pair| self.subdivisions.get(&pair)),
            record.continent.and_then(|continent| self.continents.get(&continent)),
            record.asn.and_then(|asn| self.asns.get(&asn)),
        ];
        parts.into_iter().flatten().fold(0, |all, &part| truths.or(all, part))
    }
}
