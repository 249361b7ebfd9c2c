//! Every block of a whole City database, asked of `respond`: does it get its nearest region, and how wide are the scopes?
//!
//!     MERIDIAN_CITY_DB=GeoLite2-City.mmdb cargo test --release --test whole_database -- --ignored --nocapture
//!
//! What is nearest is worked out here, from the file itself by the `maxminddb` reader and a formula of its own. The regions
//! are those of `benches/peers/run`.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use maxminddb::{LookupResult, PathElement, Reader, WithinOptions};

use meridian::answer::{Client, Outcome, Transport, respond};
use meridian::config::{Shared, load_zones};
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::snapshot::{Served, Snapshot};

/// Latitude and longitude.
const REGIONS: [(f64, f64); 8] = [
    (39.04, -77.49),
    (37.34, -121.89),
    (51.51, -0.13),
    (50.11, 8.68),
    (19.08, 72.88),
    (1.35, 103.82),
    (35.68, 139.69),
    (-23.55, -46.63),
];

fn compile(path: PathBuf) -> Snapshot {
    let mut zone = String::from("zone = \"near.example\"\nns = [\"ns.elsewhere.example\"]\n[check]\ntcp = 80\n");
    for (number, (lat, lon)) in REGIONS.iter().enumerate() {
        zone += &format!("[region.r{number}]\nat = [{lat}, {lon}]\na = [\"192.0.2.{number}\"]\n");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("near.example.toml");
    std::fs::write(&file, zone).unwrap();
    let loaded = load_zones(&[file], &Shared::default());
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let database = Arc::new(Database::load(&[path], None).unwrap());
    let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
    Snapshot::compile(zones, &database, |_| Verdict::Up, None)
}

/// Position of the region that a client subnet gets, and the scope.
fn ask(snapshot: &Snapshot, address: IpAddr, source: u8) -> (usize, u8) {
    let mut query = b"\0\x07\0\0\0\x01\0\0\0\0\0\x01\x04near\x07example\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0".to_vec();
    let (family, octets) = match address {
        IpAddr::V4(address) => (1, address.octets().to_vec()),
        IpAddr::V6(address) => (2, address.octets().to_vec()),
    };
    let octets = &octets[..usize::from(source).div_ceil(8)];
    let length = octets.len() as u8;
    query.extend([0, length + 8, 0, 8, 0, length + 4, 0, family, source, 0]);
    query.extend(octets);
    let client = Client { address: Ipv4Addr::LOCALHOST.into(), port: 4000, transport: Transport::Udp };
    let mut out = [0; 1232];
    let Outcome::Answered { length, .. } = respond(snapshot, &query, client, &mut out) else { panic!("no answer") };
    let reply = &out[..length];
    // The question ends at byte 30; a record of a pointed owner has 16 bytes. Then the OPT with its one option.
    assert_eq!((reply[3] & 15, reply[7], &reply[42..45]), (0, 1, &[192, 0, 2][..]), "{reply:?}");
    assert_eq!(&reply[57..59], [0, 8], "{reply:?}");
    (reply[45].into(), reply[64])
}

/// Where the database puts a network, as far as the server tells places apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Spot {
    /// In hundredths of a degree, and where the record has it, in its own unit.
    At { country: Option<[u8; 2]>, lat: i32, lon: i32 },
    /// No more than a country is known, or nothing: the server's own tables place it.
    Vague(Option<[u8; 2]>),
}

fn spot(network: &LookupResult<'_, Vec<u8>>) -> Spot {
    let key = PathElement::Key;
    let coordinate = |name| network.decode_path::<f64>(&[key("location"), key(name)]).unwrap();
    let country: Option<&str> = network.decode_path(&[key("country"), key("iso_code")]).unwrap();
    let country = country.map(|code| code.as_bytes().try_into().unwrap());
    let radius: Option<u16> = network.decode_path(&[key("location"), key("accuracy_radius")]).unwrap();
    match (coordinate("latitude"), coordinate("longitude")) {
        (Some(lat), Some(lon)) if radius.is_none_or(|km| km < 500) => {
            let hundredths = |degrees: f64| (degrees * 100.0).round() as i32;
            Spot::At { country, lat: hundredths(lat), lon: hundredths(lon) }
        }
        _ => Spot::Vague(country),
    }
}

/// The regions that may be called nearest, as a mask: those within 1.5 km of the least distance, as places are rounded to
/// about a kilometre.
fn nearest(spot: Spot) -> Option<u8> {
    let Spot::At { lat, lon, .. } = spot else { return None };
    let (lat, lon) = (f64::from(lat) / 100.0, f64::from(lon) / 100.0);
    // By the spherical law of cosines; the server uses the haversine formula.
    let km = REGIONS.map(|(rlat, rlon)| {
        let [lat, lon, rlat, rlon] = [lat, lon, rlat, rlon].map(f64::to_radians);
        (lat.sin() * rlat.sin() + lat.cos() * rlat.cos() * (lon - rlon).cos()).clamp(-1.0, 1.0).acos() * 6371.0
    });
    let least = km.into_iter().fold(f64::INFINITY, f64::min);
    Some((0..8).filter(|&region| km[region] < least + 1.5).fold(0, |mask, region| mask | 1 << region))
}

/// A family's addresses as numbers of 64 bits, which a database's own networks are made of.
#[derive(Clone, Copy)]
struct Family {
    /// Bits of a number.
    bits: u8,
    /// Length of the blocks that the server keeps.
    block: u8,
    address: fn(u64) -> IpAddr,
}

const V4: Family = Family { bits: 32, block: 24, address: |number| Ipv4Addr::from_bits(number as u32).into() };
/// By the upper half.
const V6: Family =
    Family { bits: 64, block: 48, address: |number| Ipv6Addr::from_bits(u128::from(number) << 64).into() };

impl Family {
    fn block_of(self, number: u64) -> u64 {
        number >> (self.bits - self.block)
    }
}

/// The networks of a split block, in the order of addresses: where each is, and its number of addresses.
type Parts = Vec<(Spot, u64)>;

/// What was found in one family.
#[derive(Default)]
struct Found {
    networks: u64,
    wrong: Vec<String>,
    split: u64,
    split_wrong: Vec<String>,
    /// Split blocks where most addresses are nearest to another region than the largest place's.
    split_between: u64,
    vague: u64,
    /// Addresses by scope.
    scopes: BTreeMap<u8, u64>,
}

impl Found {
    /// A network no finer than a block, asked for scope by scope.
    fn whole(&mut self, snapshot: &Snapshot, family: Family, first: u64, last: u64, spot: Spot) {
        let nearest = nearest(spot);
        match nearest {
            Some(_) => self.networks += 1,
            None => self.vague += 1,
        }
        let mut next = first;
        loop {
            let address = (family.address)(next);
            let (region, scope) = ask(snapshot, address, family.block);
            let end = next | ((1u64 << (family.bits - scope)) - 1);
            let end = end.min(last);
            *self.scopes.entry(scope).or_default() += end - next + 1;
            if nearest.is_some_and(|regions| regions >> region & 1 == 0) {
                self.wrong.push(format!("{address}: region {region}"));
            }
            if end == last {
                return;
            }
            next = end + 1;
        }
    }

    /// A block that holds finer networks.
    fn split(&mut self, snapshot: &Snapshot, family: Family, block: u64, parts: &[(Spot, u64)]) {
        let first = block << (family.bits - family.block);
        let (region, scope) = ask(snapshot, (family.address)(first), family.block);
        let size = 1 << (family.bits - family.block);
        *self.scopes.entry(scope).or_default() += size;
        let mut by_spot: Vec<(Spot, u64)> = Vec::new();
        let known: u64 = parts.iter().map(|part| part.1).sum();
        for &(spot, count) in parts.iter().chain(&[(Spot::Vague(None), size - known)]) {
            match by_spot.iter_mut().find(|(other, _)| *other == spot) {
                Some((_, sum)) => *sum += count,
                None => by_spot.push((spot, count)),
            }
        }
        let most = by_spot.iter().map(|spot| spot.1).max().unwrap();
        let largest: Vec<_> = by_spot.iter().filter(|spot| spot.1 == most).map(|spot| nearest(spot.0)).collect();
        let Some(regions) = largest.iter().try_fold(0, |mask, regions| Some(mask | (*regions)?)) else {
            self.vague += 1;
            return;
        };
        self.split += 1;
        if regions >> region & 1 == 0 {
            self.split_wrong.push(format!("{}: region {region}", (family.address)(first)));
        }
        let here: u64 =
            by_spot.iter().filter(|spot| nearest(spot.0).is_some_and(|m| m >> region & 1 == 1)).map(|s| s.1).sum();
        let best = (0..8).map(|region| {
            let of_it = by_spot.iter().filter(|spot| nearest(spot.0).is_some_and(|mask| mask >> region & 1 == 1));
            of_it.map(|spot| spot.1).sum::<u64>()
        });
        self.split_between += u64::from(best.max().unwrap() > here);
    }

    fn median_scope(&self) -> u8 {
        let half = self.scopes.values().sum::<u64>() / 2;
        let mut below = 0;
        let reaches_half = |(_, count): &(&u8, &u64)| {
            below += **count;
            below > half
        };
        *self.scopes.iter().find(reaches_half).expect("some address was asked for").0
    }

    fn report(&self, name: &str, block: u8) {
        println!(
            "{name}: {} networks of /{block} or coarser, {} answers not of their nearest region; {} split blocks, {} not of the \
             nearest region of the place of most addresses, {} of another than most addresses are nearest to; {} without a \
             location of their own; median scope /{} by addresses",
            self.networks,
            self.wrong.len(),
            self.split,
            self.split_wrong.len(),
            self.split_between,
            self.vague,
            self.median_scope(),
        );
        for some in [&self.wrong, &self.split_wrong] {
            some.iter().take(5).for_each(|wrong| println!("  {wrong}"));
        }
    }
}

#[test]
#[ignore = "needs a database that cannot be shipped: set MERIDIAN_CITY_DB"]
fn every_network_gets_its_nearest_region_and_scopes_are_wide() {
    let path =
        PathBuf::from(std::env::var_os("MERIDIAN_CITY_DB").expect("MERIDIAN_CITY_DB names a full City database"));
    let snapshot = compile(path.clone());
    let reader = Reader::open_readfile(&path).unwrap();
    let mut spots: HashMap<usize, Spot> = HashMap::new();
    let mut found = [Found::default(), Found::default()];
    // The block that is being put together: its family, its number, its parts.
    let mut open: Option<(usize, u64, Parts)> = None;
    let families = [V4, V6];
    for network in reader.networks(WithinOptions::default()).unwrap() {
        let network = network.unwrap();
        let prefix = network.network().unwrap();
        let (kind, number) = match prefix.ip() {
            IpAddr::V4(address) => (0, address.to_bits().into()),
            // Global unicast; what else there is holds IPv4 addresses.
            IpAddr::V6(address) if address.segments()[0] & 0xe000 == 0x2000 => (1, (address.to_bits() >> 64) as u64),
            IpAddr::V6(_) => continue,
        };
        let family = families[kind];
        if prefix.prefix() > family.bits {
            continue; // Of networks finer than /64 the largest stands for its /64; too few to matter here.
        }
        let spot = *spots.entry(network.offset().unwrap()).or_insert_with(|| spot(&network));
        let size = 1u64 << (family.bits - prefix.prefix());
        let block = family.block_of(number);
        if let Some((kind, last, parts)) = open.take_if(|open| (open.0, open.1) != (kind, block)) {
            found[kind].split(&snapshot, families[kind], last, &parts);
        }
        if prefix.prefix() <= family.block {
            found[kind].whole(&snapshot, family, number, number + (size - 1), spot);
        } else {
            open.get_or_insert_with(|| (kind, block, Vec::new())).2.push((spot, size));
        }
    }
    if let Some((kind, last, parts)) = open {
        found[kind].split(&snapshot, families[kind], last, &parts);
    }
    found[0].report("IPv4", V4.block);
    found[1].report("IPv6", V6.block);
    assert!(found.iter().all(|found| found.wrong.is_empty() && found.split_wrong.is_empty()));
    assert!(found[0].median_scope() <= 20);
}
