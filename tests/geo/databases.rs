//! Every schema, several files at once, and the operator's overrides.

use std::net::IpAddr;
use std::path::Path;

use meridian::geo::{Continent, CountryCode, Database, Match, Origin, Places, SubdivisionCode, expand};
use serde_json::{Value, json};

use crate::support::{Files, load, mmdb, mmdb_of, told};

fn one(record: Value) -> String {
    let files = Files::new();
    let database = load(&[files.put("a.mmdb", &mmdb(&[("192.0.2.0/24", record)]))]);
    assert_eq!(told(&database, "198.51.100.1"), "", "nothing is known outside the network");
    told(&database, "192.0.2.1")
}

#[test]
fn nested_city_databases_are_read() {
    let city = json!({
        "city": { "geoname_id": 1, "names": { "en": "Mountain View" } },
        "continent": { "code": "NA", "names": { "en": "North America" } },
        "country": { "iso_code": "US", "names": { "en": "United States" } },
        "location": { "accuracy_radius": 1000, "latitude": 37.42, "longitude": -122.08, "time_zone": "America/Los_Angeles" },
        "registered_country": { "iso_code": "FR" },
        "subdivisions": [{ "iso_code": "CA" }, { "iso_code": "XX" }],
    });
    assert_eq!(one(city), "US-CA North America 37.42,-122.08");
}

#[test]
fn nested_enterprise_databases_tell_the_as_number_too() {
    let enterprise = json!({
        "country": { "iso_code": "DE" },
        "location": { "latitude": 50.1, "longitude": 8.7 },
        "traits": { "autonomous_system_number": 64500, "isp": "Example" },
    });
    assert_eq!(one(enterprise), "DE Europe 50.10,8.70 AS64500");
}

#[test]
fn as_databases_of_every_spelling_are_read() {
    assert_eq!(
        one(json!({ "autonomous_system_number": 64500, "autonomous_system_organization": "Example" })),
        "AS64500"
    );
    assert_eq!(one(json!({ "asn": "AS64500", "as_name": "Example" })), "AS64500");
    assert_eq!(one(json!({ "asn": "64500", "continent": "EU" })), "Europe AS64500");
}

#[test]
fn flat_databases_are_read() {
    let ipinfo_lite = json!({
        "as_domain": "example.com", "as_name": "Example", "asn": "AS64500", "continent": "Africa", "continent_code": "AF",
        "country": "Namibia", "country_code": "NA",
    });
    assert!(one(ipinfo_lite).starts_with("NA Africa "));
    let ipinfo =
        json!({ "city": "Sydney", "country": "AU", "lat": "-33.87", "lng": "151.21", "region": "New South Wales" });
    assert_eq!(one(ipinfo), "AU-NSW Oceania -33.87,151.21");
    let dbip = json!({ "city": "Kampala", "country_code": "UG", "latitude": 0.35f32, "longitude": 32.58f32, "state1": "Central" });
    assert_eq!(one(dbip), "UG Africa 0.35,32.58");
}

#[test]
fn a_country_only_record_is_placed_where_its_people_are() {
    for record in [
        json!({ "country_code": "MU" }),
        json!({ "country": "MU", "latitude": "", "longitude": "" }),
        json!({ "country": "MU", "latitude": 0, "longitude": 0 }),
        json!({ "country": { "iso_code": "MU" }, "location": { "accuracy_radius": 1000, "latitude": -20.3, "longitude": 57.58 } }),
    ] {
        assert_eq!(one(record.clone()), "MU Africa -20.23,57.47", "{record}");
    }
    let files = Files::new();
    let database = load(&[files.put("a.mmdb", &mmdb(&[("192.0.2.0/24", json!({ "country_code": "MU" }))]))]);
    let by = database.lookup("192.0.2.1".parse().unwrap()).location.unwrap().by;
    assert_eq!(by, Origin::Population(CountryCode(*b"MU")));
    assert_eq!(by.to_string(), "placed by population of MU");
}

#[test]
fn values_that_mean_nothing_are_unknown() {
    let odd = json!({ "country_code": "ZZ", "asn": 0, "latitude": 91.5, "longitude": 10.0, "continent": "Atlantis", "city": "X" });
    let files = Files::new();
    let known = json!({ "country_code": "FR", "latitude": 48.85, "longitude": 2.35 });
    let database = load(&[files.put("a.mmdb", &mmdb(&[("192.0.2.0/24", odd), ("198.51.100.0/24", known)]))]);
    assert_eq!(told(&database, "192.0.2.1"), "");
    assert_eq!(told(&database, "198.51.100.1"), "FR Europe 48.85,2.35");
}

#[test]
fn each_attribute_comes_from_the_first_file_that_knows_it() {
    let files = Files::new();
    let country = files.put("country.mmdb", &mmdb(&[("192.0.2.0/24", json!({ "country_code": "DE" }))]));
    let city = json!({ "country_code": "FR", "latitude": 48.5, "longitude": 7.5, "asn": 64501 });
    let city = files.put("city.mmdb", &mmdb(&[("192.0.0.0/16", city)]));
    let asn = files.put(
        "asn.mmdb",
        &mmdb(&[("192.0.2.128/25", json!({ "asn": 64500 })), ("2001:db8::/32", json!({ "asn": 64502 }))]),
    );
    let database = load(&[country.clone(), city.clone(), asn.clone()]);
    assert_eq!(told(&database, "192.0.2.200"), "DE Europe 48.50,7.50 AS64501");
    assert_eq!(told(&database, "192.0.3.1"), "FR Europe 48.50,7.50 AS64501");
    assert_eq!(told(&database, "2001:db8::1"), "AS64502");
    let found = database.lookup("192.0.2.200".parse().unwrap());
    assert_eq!(found.country.unwrap().by, Origin::File(country.as_path().into()));
    assert_eq!(found.location.unwrap().by, Origin::File(city.as_path().into()));
    assert_eq!(found.network, "192.0.2.0/24".parse().unwrap());
    let database = load(&[asn, city, country]);
    assert_eq!(told(&database, "192.0.2.200"), "FR Europe 48.50,7.50 AS64500");
    assert_eq!(database.lookup("192.0.2.200".parse().unwrap()).network, "192.0.2.128/25".parse().unwrap());
    assert_eq!(database.files().len(), 3);
    assert_eq!(database.files()[0].networks, 2);
}

#[test]
fn ipv4_and_ipv6_may_be_in_one_file_or_in_two() {
    let (v4, v6) =
        (("192.0.2.0/24", json!({ "country_code": "DE" })), ("2001:db8::/32", json!({ "country_code": "FR" })));
    let files = Files::new();
    let joint = files.put("joint.mmdb", &mmdb(&[v4.clone(), v6.clone()]));
    let (a, b) = (files.put("v4.mmdb", &mmdb(&[v4])), files.put("v6.mmdb", &mmdb(&[v6])));
    for database in [load(&[joint]), load(&[a.clone(), b.clone()]), load(&[b, a])] {
        assert!(told(&database, "192.0.2.7").starts_with("DE"));
        assert!(told(&database, "2001:db8::7").starts_with("FR"));
        for inside in ["::ffff:192.0.2.7", "64:ff9b::192.0.2.7", "2002:c000:207::1"] {
            assert!(told(&database, inside).starts_with("DE"), "{inside}");
        }
        assert_eq!(told(&database, "192.0.3.7"), "");
        assert_eq!(told(&database, "::192.0.2.7"), "");
    }
}

#[test]
fn the_operators_word_beats_the_databases_and_the_longest_prefix_wins() {
    let files = Files::new();
    let record = json!({ "country": { "iso_code": "US" }, "subdivisions": [{ "iso_code": "CA" }], "asn": 64500,
                         "location": { "latitude": 37.4, "longitude": -122.1 } });
    let base = files.put("a.mmdb", &mmdb(&[("198.51.0.0/16", record.clone()), ("2001:db8::/32", record)]));
    let overrides = files.put(
        "overrides.toml",
        br#"
        "AS64500"         = { at = [1.0, 2.0] }
        "198.51.100.0/24" = { near = "Mauritius" }
        "198.51.96.0/20"  = { at = [3.0, 4.0], country = "KE" }
        "203.0.113.0/24"  = { at = [5.0, 6.0] }
        "2001:db8:1::/48" = { near = "London" }
        "#,
    );
    let database = Database::load(&[base], Some(&overrides)).unwrap();
    assert_eq!(told(&database, "198.51.1.1"), "US-CA North America 1.00,2.00 AS64500");
    assert_eq!(told(&database, "198.51.100.1"), "MU Africa -20.23,57.47 AS64500");
    assert_eq!(told(&database, "198.51.101.1"), "KE Africa 3.00,4.00 AS64500");
    assert_eq!(told(&database, "203.0.113.1"), "5.00,6.00");
    assert_eq!(told(&database, "2001:db8:1::1"), "GB Europe 51.51,-0.13 AS64500");
    assert_eq!(told(&database, "2001:db8:2::1"), "US-CA North America 1.00,2.00 AS64500");
    let found = database.lookup("198.51.100.1".parse().unwrap());
    assert_eq!(found.location.unwrap().by.to_string(), "overrides.toml");
    assert_eq!(found.network, "198.51.100.0/24".parse().unwrap());
}

#[test]
fn this_network_is_never_placed() {
    let files = Files::new();
    let database = load(&[files.put("a.mmdb", &mmdb(&[("0.0.0.0/4", json!({ "country_code": "US" }))]))]);
    assert_eq!(told(&database, "0.1.2.3"), "");
    assert!(told(&database, "1.1.2.3").starts_with("US"));
}

#[test]
fn rules_are_known_when_some_record_makes_them_true() {
    let files = Files::new();
    let record = json!({ "country_code": "US", "region_code": "CA", "asn": 64500 });
    let database = load(&[files.put("a.mmdb", &mmdb(&[("192.0.2.0/24", record)]))]);
    let (us, ca) = (CountryCode(*b"US"), SubdivisionCode(*b"CA\0"));
    for rule in [
        Match::Country(us),
        Match::Subdivision(us, ca),
        Match::Continent(Continent::NorthAmerica),
        Match::Asn(64500),
        Match::Prefix("203.0.113.0/24".parse().unwrap()),
    ] {
        assert!(database.knows(&rule), "{rule}");
        assert_eq!(Database::empty().knows(&rule), matches!(rule, Match::Prefix(_)), "{rule}");
    }
    for rule in [
        Match::Country(CountryCode(*b"FR")),
        Match::Subdivision(CountryCode(*b"FR"), ca),
        Match::Continent(Continent::Europe),
        Match::Asn(64501),
    ] {
        assert!(!database.knows(&rule), "{rule}");
    }
}

#[test]
fn places_tell_apart_what_rules_tell_apart() {
    let files = Files::new();
    let database =
        load(&[files.put("a.mmdb", &mmdb(&[("192.0.0.0/16", json!({ "country_code": "US", "asn": 64500 }))]))]);
    let froms = [
        vec![Match::Prefix("192.0.2.0/24".parse().unwrap()), Match::Country(CountryCode(*b"FR"))],
        vec![Match::Asn(64500)],
        vec![Match::Prefix("192.0.0.0/20".parse().unwrap()), Match::Prefix("2001:db8::/32".parse().unwrap())],
    ];
    let places = Places::build(&database, &froms);
    let truth = |address: &str| {
        let place = &places.list[places.locate(address.parse().unwrap()).0 as usize];
        [0, 1, 2].map(|from| place.matches(from))
    };
    assert_eq!(truth("192.0.2.1"), [true, true, true]);
    assert_eq!(truth("192.0.3.1"), [false, true, true]);
    assert_eq!(truth("192.0.16.1"), [false, true, false]);
    assert_eq!(truth("2001:db8::1"), [false, false, true]);
    assert_eq!(truth("198.51.100.1"), [false, false, false]);
    assert_eq!(places.locate("198.51.100.1".parse().unwrap()).0, 0);
    assert_eq!(places.list[0].country, None);
    let prefix = places.locate("192.0.2.1".parse().unwrap());
    assert_eq!(places.list[prefix.0 as usize].weight, 1);
    let all: u64 = places.list.iter().map(|place| place.weight).sum();
    assert_eq!(all, (1 << 24) + (1 << 48));
}

/// `(networks, blocks)`: in one city, one ASN each, side by side.
fn one_city(networks: &[(u32, u8)]) -> Database {
    let files = Files::new();
    let city = mmdb(&[("192.0.0.0/8", json!({ "country_code": "GB", "latitude": 51.5, "longitude": -0.1 }))]);
    let mut first = u32::from(std::net::Ipv4Addr::new(192, 0, 0, 0));
    let mut nets = Vec::new();
    for (asn, length) in networks {
        let net = format!("{}/{length}", std::net::Ipv4Addr::from(first));
        nets.push((net, json!({ "asn": asn })));
        first += 1 << (32 - length);
    }
    let nets: Vec<(&str, Value)> = nets.iter().map(|(net, record)| (net.as_str(), record.clone())).collect();
    load(&[files.put("city.mmdb", &city), files.put("asn.mmdb", &mmdb(&nets))])
}

#[test]
fn the_largest_networks_of_a_city_are_places_where_it_is_asked_for() {
    // 4096, 256, 16 and 8 blocks of /24, the largest first as they must be aligned.
    let database = one_city(&[(1, 12), (2, 16), (3, 20), (4, 21)]);
    let networks = |places: &Places| -> Vec<(u32, u32)> {
        places.list.iter().filter_map(|place| place.network).map(|network| (network.rank, network.asn)).collect()
    };
    assert_eq!(networks(&Places::build(&database, &[])), []);
    let places = Places::build_by_network(&database, &[]);
    assert_eq!(networks(&places), [(0, 1), (1, 2)], "256 blocks are more than a twentieth, sixteen are not");
    let blocks: u32 = places.list.iter().filter(|place| place.location.is_some()).map(|place| place.v4_blocks).sum();
    assert_eq!(blocks, 1 << 16);
    let bundled = Database::bundled();
    assert_eq!(
        Places::build(&bundled, &[]).list.len(),
        Places::build_by_network(&bundled, &[]).list.len(),
        "no ASN is known"
    );
}

#[test]
fn a_square_has_eight_networks_of_its_own_at_most() {
    let database = one_city(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].map(|asn| (asn, 16)));
    let places = Places::build_by_network(&database, &[]);
    assert_eq!(places.list.iter().filter(|place| place.network.is_some()).count(), 8);
}

#[test]
fn networks_all_over_the_world_stay_within_their_bounds() {
    let files = Files::new();
    let nets = (1 << 8..224u32 << 8).map(|net| {
        let asn = 64500 + net.wrapping_mul(0x9e37_79b9) % 30;
        (format!("{}.{}.0.0/16", net >> 8, net & 255).parse().unwrap(), json!({ "asn": asn }))
    });
    let asns = files.put("asn.mmdb", &mmdb_of(&nets.collect::<Vec<_>>()));
    let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("geoip/world.mmdb");
    let database = load(&[asns, world]);
    let (plain, split) = (Places::build(&database, &[]), Places::build_by_network(&database, &[]));
    let networks: std::collections::HashSet<_> = split.list.iter().filter_map(|place| place.network).collect();
    println!("{} places, {} by {} networks", plain.list.len(), split.list.len(), networks.len());
    assert!((1_000..=25_000).contains(&networks.len()), "{}", networks.len());
    assert!(split.list.len() < 9 * plain.list.len());
    let weight = |places: &Places| places.list.iter().map(|place| place.weight).sum::<u64>();
    assert_eq!(weight(&plain), weight(&split), "every block has one place");
}

#[test]
fn a_rule_may_be_for_all_of_ipv4_or_ipv6() {
    let froms = [vec![Match::Prefix("0.0.0.0/0".parse().unwrap())], vec![Match::Prefix("::/0".parse().unwrap())]];
    let places = Places::build(&Database::bundled(), &froms);
    let truth = |address: &str| {
        let place = &places.list[places.locate(address.parse().unwrap()).0 as usize];
        [0, 1].map(|from| place.matches(from))
    };
    for address in ["8.8.8.8", "10.0.0.1", "0.0.0.0", "::ffff:8.8.8.8"] {
        assert_eq!(truth(address), [true, false], "{address}");
    }
    assert_eq!(truth("2001:4860:4860::8888"), [false, true]);
}

#[test]
fn more_than_64_rules_are_told_apart() {
    let prefix = |i: usize| Match::Prefix(format!("10.0.{i}.0/24").parse().unwrap());
    let froms: Vec<_> = (0..150).map(|i| vec![prefix(i)]).collect();
    let places = Places::build(&Database::empty(), &froms);
    for i in 0..150 {
        let address: IpAddr = format!("10.0.{i}.9").parse().unwrap();
        let place = &places.list[places.locate(address).0 as usize];
        assert!((0..150).all(|from| place.matches(from) == (from == i)), "{i}");
    }
}

#[test]
fn a_directory_is_its_databases_with_the_bundled_one_last() {
    let files = Files::new();
    for name in ["world.mmdb", "b.mmdb", "a.mmdb", "zz.mmdb", "notes.txt"] {
        files.put(name, b"");
    }
    let other = files.put("elsewhere.dat", b"");
    let names = |paths: &[&Path]| -> Vec<String> {
        let paths: Vec<_> = paths.iter().map(|path| path.to_path_buf()).collect();
        expand(&paths).unwrap().iter().map(|path| path.file_name().unwrap().to_string_lossy().into()).collect()
    };
    assert_eq!(names(&[files.dir.path(), &other]), ["a.mmdb", "b.mmdb", "zz.mmdb", "elsewhere.dat", "world.mmdb"]);
    assert!(names(&[]).is_empty());
}
