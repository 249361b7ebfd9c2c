//! Time of a look-up in the atlas, and of building one.
//!
//!     cargo bench --bench atlas
//!     MERIDIAN_CITY=GeoLite2-City.mmdb cargo bench --bench atlas
//!
//! The atlas is that of the zone of `benches/peers`: eight regions, the nearest wins.

mod worlds;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use maxminddb::{Reader, WithinOptions};

use meridian::geo::{Atlas, Places};
use meridian::steering::cells;
use worlds::random::Random;

/// Distinct addresses: more than any cache holds what they lead to.
const COUNT: usize = 1_000_000;

/// Any address of a network of the database, the networks being as likely as each other: many are small.
fn inside(networks: &[IpNet], random: &mut Random) -> IpAddr {
    match networks[random.below(networks.len())] {
        IpNet::V4(net) => {
            Ipv4Addr::from_bits(net.network().to_bits() | random.next() as u32 & net.hostmask().to_bits()).into()
        }
        IpNet::V6(net) => {
            let any = u128::from(random.next()) << 64 | u128::from(random.next());
            Ipv6Addr::from_bits(net.network().to_bits() | any & net.hostmask().to_bits()).into()
        }
    }
}

/// The database's own networks, IPv4 and IPv6.
fn networks() -> [Vec<IpNet>; 2] {
    let reader = Reader::open_readfile(worlds::city()).expect("it was read before");
    let mut found = [Vec::new(), Vec::new()];
    for network in reader.networks(WithinOptions::default()).expect("a tree") {
        let network = network.and_then(|found| found.network()).expect("a sound tree");
        let net = IpNet::new(network.ip(), network.prefix()).expect("a length of its family");
        found[usize::from(net.addr().is_ipv6())].push(net);
    }
    found
}

fn look_up(criterion: &mut Criterion) {
    let database = worlds::database();
    let snapshot = worlds::World::Peers.snapshot(&database);
    let atlas = &snapshot.geography().atlas;
    let [nets4, nets6] = networks();
    eprintln!("{} IPv4 networks, {} IPv6", nets4.len(), nets6.len());
    let mut random = Random::new(1);
    let mut list = |count: usize, one: &mut dyn FnMut(&mut Random) -> IpAddr| -> Vec<IpAddr> {
        (0..count).map(|_| one(&mut random)).collect()
    };
    let lists = [
        ("v4 uniform", list(COUNT, &mut |random| random.address4().into())),
        ("v4 in networks", list(COUNT, &mut |random| inside(&nets4, random))),
        ("v4 repeating 4096", list(4096, &mut |random| inside(&nets4, random))),
        ("v6 uniform", list(COUNT, &mut Random::subnet6)),
        ("v6 in networks", list(COUNT, &mut |random| inside(&nets6, random))),
        ("v6 repeating 4096", list(4096, &mut |random| inside(&nets6, random))),
    ];
    let mut group = criterion.benchmark_group("atlas/locate");
    for (name, addresses) in &lists {
        let mut at = 0;
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|count| {
                let start = Instant::now();
                for _ in 0..count {
                    // Whole addresses; a source prefix costs a mask more.
                    black_box(atlas.locate(black_box(addresses[at]), u8::MAX));
                    at = if at + 1 == addresses.len() { 0 } else { at + 1 };
                }
                start.elapsed()
            });
        });
    }
    group.finish();
}

fn build(criterion: &mut Criterion) {
    let database = worlds::database();
    let zones = worlds::load(&[worlds::PEERS.to_owned()]);
    let specs = [worlds::nearest(&zones[0])];
    let places = Places::build(&database, &[]);
    let of_place = cells::build(&places.list, &specs).of_place;
    let mut group = criterion.benchmark_group("atlas");
    group.sample_size(10);
    let size = BatchSize::PerIteration;
    group.bench_function("places", |bencher| bencher.iter_batched(|| (), |()| Places::build(&database, &[]), size));
    group.bench_function("cells", |bencher| bencher.iter_batched(|| (), |()| cells::build(&places.list, &specs), size));
    group.bench_function("build", |bencher| bencher.iter_batched(|| (), |()| Atlas::build(&places, &of_place), size));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = look_up, build
}
criterion_main!(benches);
