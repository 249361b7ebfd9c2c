//! Places and atlas of random databases, rules and overrides, held against models that walk every address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use meridian::geo::{Atlas, CellId, Database, Located, Match, Places};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Files, load, mmdb_of};

/// Countries with a location each; few, so that neighbours are often equal.
const SPOTS: [(&str, f64, f64); 4] = [("US", 39.0, -77.5), ("DE", 50.1, 8.7), ("JP", 35.7, 139.7), ("JP", 43.1, 141.3)];

fn record(spot: usize) -> Value {
    let (country, lat, lon) = SPOTS[spot];
    json!({ "country_code": country, "latitude": lat, "longitude": lon, "asn": 64500 + spot })
}

/// IPv4 prefixes in a /14, so that they meet and split /24 blocks.
fn net4(lengths: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = IpNet> {
    (0u32..1 << 18, lengths).prop_map(|(low, length)| {
        IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(0x0a10_0000 | low), length).unwrap().trunc())
    })
}

/// IPv6 prefixes around those that hold IPv4 addresses, and in two ordinary allocations.
fn net6(lengths: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = IpNet> {
    let bases = prop::sample::select(vec![
        "::",
        "0:0:0:1::",
        "64:ff9b::",
        "64:ff9b:0:1::",
        "2001:db8::",
        "2002::",
        "2003::",
        "2a00::",
    ]);
    (bases, any::<u32>(), 0u32..64, lengths).prop_map(|(base, noise, shift, length)| {
        let bits = base.parse::<Ipv6Addr>().unwrap().to_bits() ^ u128::from(noise) << 64 >> shift;
        IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(bits), length).unwrap().trunc())
    })
}

/// Drops what overlaps with an earlier one: the library that writes the files can't nest.
fn apart(nets: Vec<(IpNet, usize)>) -> Vec<(IpNet, usize)> {
    let mut kept: Vec<(IpNet, usize)> = Vec::new();
    for (net, spot) in nets {
        if !kept.iter().any(|(other, _)| other.contains(&net) || net.contains(other)) {
            kept.push((net, spot));
        }
    }
    kept
}

fn database(nets: &[(IpNet, usize)]) -> Database {
    let files = Files::new();
    let (v4, v6): (Vec<_>, Vec<_>) =
        nets.iter().map(|&(net, spot)| (net, record(spot))).partition(|(net, _)| net.addr().is_ipv4());
    let mut paths = Vec::new();
    for (name, nets) in [("v4.mmdb", v4), ("v6.mmdb", v6)] {
        if !nets.is_empty() {
            paths.push(files.put(name, &mmdb_of(&nets)));
        }
    }
    load(&paths)
}

/// First and last addresses of the prefixes, the blocks next to them, and the same IPv4 addresses inside IPv6.
fn probes(nets: impl Iterator<Item = IpNet>) -> Vec<IpAddr> {
    let mut probes = Vec::new();
    for net in nets {
        match net {
            IpNet::V4(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                for v4 in [first, last, first.wrapping_sub(256), last.wrapping_add(256), first.midpoint(last)] {
                    let v4 = Ipv4Addr::from_bits(v4);
                    let bits = u128::from(v4.to_bits());
                    probes.extend([
                        IpAddr::V4(v4),
                        v4.to_ipv6_mapped().into(),
                        Ipv6Addr::from_bits(0x64_ff9b << 96 | bits).into(),
                        Ipv6Addr::from_bits(0x2002 << 112 | bits << 80).into(),
                    ]);
                }
            }
            IpNet::V6(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                for v6 in [first, last, first.wrapping_sub(1 << 80), last.wrapping_add(1 << 80), first.midpoint(last)] {
                    probes.push(Ipv6Addr::from_bits(v6).into());
                }
            }
        }
    }
    for special in [
        "::fffe:ffff:ffff",
        "::1:0:0:0",
        "64:ff9b::1:0:0",
        "64:ff9a:ffff::",
        "2001:ffff::",
        "2003::",
        "::",
        "ffff::",
        "0.0.0.0",
        "::ffff:0.0.0.0",
        "64:ff9b::",
        "2002::",
        "1.0.0.0",
        "::ffff:1.0.0.0",
        "64:ff9b::1.0.0.0",
        "2002:100::",
    ] {
        probes.push(special.parse().unwrap());
    }
    probes
}

/// Addresses at both ends and in the middle of `address`'s first `length` bits' block.
fn inside(address: IpAddr, length: u8) -> Vec<IpAddr> {
    let net = IpNet::new(address, length).unwrap();
    let (first, last) = (net.network(), net.broadcast());
    let middle: IpAddr = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Ipv4Addr::from_bits(a.to_bits().midpoint(b.to_bits())).into(),
        (IpAddr::V6(a), IpAddr::V6(b)) => Ipv6Addr::from_bits(a.to_bits().midpoint(b.to_bits())).into(),
        _ => unreachable!("one network, one family"),
    };
    vec![first, last, middle]
}

fn full(atlas: &Atlas, address: IpAddr) -> Located {
    atlas.locate(address, if address.is_ipv4() { 32 } else { 128 })
}

/// Whether the block one bit shorter than the scope holds an address of another cell, or a prefix of another table.
fn could_not_be_coarser(atlas: &Atlas, probes: &[IpAddr], address: IpAddr, located: Located) -> bool {
    if located.scope <= 1 || [17, 97].contains(&located.scope) && address.is_ipv6() {
        return true;
    }
    let wider = IpNet::new(address, located.scope - 1).unwrap();
    let embedding = ["::ffff:0:0/96", "64:ff9b::/96", "2002::/16"].map(|net| net.parse::<IpNet>().unwrap());
    embedding.iter().any(|net| wider.contains(net))
        || probes.iter().any(|&probe| wider.contains(&probe) && full(atlas, probe).cell != located.cell)
}

fn nets() -> impl Strategy<Value = Vec<(IpNet, usize)>> {
    let net = prop_oneof![net4(8..=32), net6(8..=64)];
    prop::collection::vec((net, 0..SPOTS.len()), 1..40).prop_map(apart)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_block_lies_where_most_of_its_addresses_do(nets in prop::collection::vec((net4(18..=32), 0..SPOTS.len()), 1..60).prop_map(apart)) {
        let places = Places::build(&database(&nets), &[]);
        for block in nets.iter().map(|(net, _)| net.network()) {
            let IpAddr::V4(block) = block else { unreachable!("only IPv4 here") };
            let first = block.to_bits() & !0xff;
            // The country and spot of each address; the first of the most frequent.
            let mut tally: Vec<(Option<usize>, usize)> = Vec::new();
            for address in first..=first | 0xff {
                let address = Ipv4Addr::from_bits(address);
                let spot = nets.iter().find(|(net, _)| net.contains(&IpAddr::V4(address))).map(|&(_, spot)| spot);
                match tally.iter_mut().find(|(known, _)| *known == spot) {
                    Some((_, count)) => *count += 1,
                    None => tally.push((spot, 1)),
                }
            }
            let most = tally.iter().map(|&(_, count)| count).max().unwrap();
            let expected = tally.iter().find(|&&(_, count)| count == most).unwrap().0;
            let place = &places.list[places.locate(block.into()).0 as usize];
            let found = place.location.map(|at| (place.country.unwrap().to_string(), at.lat(), at.lon()));
            prop_assert_eq!(found, expected.map(|spot| (SPOTS[spot].0.to_owned(), SPOTS[spot].1, SPOTS[spot].2)));
        }
    }

    #[test]
    fn atlas_and_places_agree_and_every_address_of_a_scope_is_in_the_same_cell(
        nets in nets(),
        rules in prop::collection::vec(prop::collection::vec(prop_oneof![
            net4(8..=24).prop_map(Match::Prefix),
            net6(8..=48).prop_map(Match::Prefix),
            (64500u32..64504).prop_map(Match::Asn),
        ], 1..4), 0..4),
        cells in 1u16..6,
    ) {
        let places = Places::build(&database(&nets), &rules);
        let cell_of_place: Vec<_> = (0..places.list.len()).map(|place| CellId(place as u16 % cells)).collect();
        let atlas = Atlas::build(&places, &cell_of_place);
        let prefixes = rules.iter().flatten().filter_map(|rule| match rule {
            Match::Prefix(net) => Some(*net),
            _ => None,
        });
        let probes = probes(nets.iter().map(|&(net, _)| net).chain(prefixes));
        for &address in &probes {
            let located = full(&atlas, address);
            prop_assert!(located.scope >= 1);
            prop_assert_eq!(located.cell, cell_of_place[places.locate(address).0 as usize], "{}", address);
            for (scope, spread) in [(located.scope, false), (located.spread_scope, true)] {
                let block = IpNet::new(address, scope).unwrap();
                for other in inside(address, scope).into_iter().chain(probes.iter().copied().filter(|probe| block.contains(probe))) {
                    let other_located = full(&atlas, other);
                    prop_assert_eq!(other_located.cell, located.cell, "{} and {} of {}", address, other, block);
                    if !spread {
                        prop_assert_eq!(other_located.scope, located.scope, "{} and {} of {}", address, other, block);
                    }
                }
            }
            // A source of the scope's length or longer is as good as the whole address.
            for source in located.scope..=if address.is_ipv4() { 32 } else { 128 } {
                prop_assert_eq!(atlas.locate(address, source), located, "{}/{}", address, source);
            }
            prop_assert!(could_not_be_coarser(&atlas, &probes, address, located), "{address} {located:?}");
        }
    }

    #[test]
    fn a_short_source_is_answered_for_its_zeros_with_an_exact_scope(nets in nets(), source in 0u8..=128, noise in any::<u128>()) {
        let places = Places::build(&database(&nets), &[]);
        let cells: Vec<_> = (0..places.list.len()).map(|place| CellId(place as u16)).collect();
        let atlas = Atlas::build(&places, &cells);
        for address in [IpAddr::V6(Ipv6Addr::from_bits(noise)), "64:ff9b::8.8.8.8".parse().unwrap(), "2002:808:808::".parse().unwrap()] {
            let located = atlas.locate(address, source);
            let zeros = IpNet::new(address, source).unwrap().network();
            prop_assert_eq!(located, full(&atlas, zeros));
            for other in inside(zeros, located.scope) {
                prop_assert_eq!(full(&atlas, other).cell, located.cell);
            }
        }
    }

    #[test]
    fn overrides_win_by_length(nets in nets(), placed in prop::collection::btree_map(net4(12..=24), 0..SPOTS.len(), 1..12)) {
        let files = Files::new();
        let lines: Vec<String> = placed.iter().map(|(net, spot)| {
            let (country, lat, lon) = SPOTS[*spot];
            format!("\"{net}\" = {{ at = [{lat:?}, {lon:?}], country = \"{country}\" }}")
        }).collect();
        let overrides = files.put("overrides.toml", lines.join("\n").as_bytes());
        let base: Vec<_> = nets.iter().map(|&(net, spot)| (net, record(spot))).filter(|(net, _)| net.addr().is_ipv4()).collect();
        let paths = if base.is_empty() { vec![] } else { vec![files.put("v4.mmdb", &mmdb_of(&base))] };
        let database = Database::load(&paths, Some(&overrides)).unwrap();
        for address in probes(placed.keys().copied().chain(base.iter().map(|&(net, _)| net))) {
            if address.is_ipv6() {
                continue;
            }
            let by_override = placed.iter().filter(|(net, _)| net.contains(&address)).max_by_key(|(net, _)| net.prefix_len());
            let by_file = nets.iter().find(|(net, _)| net.contains(&address)).map(|&(_, spot)| spot);
            let expected = by_override.map(|(_, &spot)| spot).or(by_file).map(|spot| (SPOTS[spot].1, SPOTS[spot].2));
            let found = database.lookup(address).location.map(|told| (told.value.lat(), told.value.lon()));
            prop_assert_eq!(found, expected, "{}", address);
        }
    }
}

#[test]
fn a_world_of_one_cell_still_has_a_scope() {
    let places = Places::build(&Database::empty(), &[]);
    let atlas = Atlas::build(&places, &[CellId(0)]);
    let located = full(&atlas, "192.0.2.1".parse().unwrap());
    assert_eq!(located, Located { cell: CellId(0), scope: 1, spread_scope: 20 });
    let located = full(&atlas, "::ffff:192.0.2.1".parse().unwrap());
    assert_eq!((located.scope, located.spread_scope), (97, 116));
    let located = full(&atlas, "2002:c000:201::".parse().unwrap());
    assert_eq!((located.scope, located.spread_scope), (17, 36));
    let located = full(&atlas, "2001:db8::1".parse().unwrap());
    assert_eq!((located.scope, located.spread_scope), (15, 40), "2002::/16 is another table");
}
