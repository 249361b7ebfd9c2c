//! Compact databases: within their size, readable by any reader, and as right as the size allows.

use std::net::IpAddr;

use meridian::geo::compact::{self, Options};
use meridian::geo::compare::{Draw, compare};
use meridian::geo::{Database, Point, cities};
use serde_json::{Value, json};

use crate::support::{Files, load, mmdb, mmdb_of, told};

fn place(country: &str, lat: f64, lon: f64) -> Value {
    json!({ "country_code": country, "latitude": lat, "longitude": lon, "city": "Dropped" })
}

fn source() -> Database {
    let files = Files::new();
    load(&[files.put(
        "source.mmdb",
        &mmdb(&[
            ("192.0.2.0/24", place("US", 39.04, -77.49)),
            ("198.51.100.0/24", place("DE", 50.12, 8.68)),
            ("198.51.101.0/24", json!({ "country_code": "MU" })),
            ("2001:db8::/32", place("JP", 35.69, 139.69)),
            ("2002:c000:200::/40", place("JP", 35.69, 139.69)),
        ]),
    )])
}

fn written(source: &Database, options: &Options) -> (Files, Database, Vec<u8>) {
    let files = Files::new();
    let path = files.dir.path().join("small.mmdb");
    let done = compact::write(source, &path, options).unwrap_or_else(|fault| panic!("{fault}"));
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(done.bytes, bytes.len());
    let database = load(&[path]);
    (files, database, bytes)
}

#[test]
fn what_fits_is_kept_exactly() {
    let options = Options { attribution: "By somebody, CC BY 4.0.".to_owned(), ..Options::default() };
    let (files, small, bytes) = written(&source(), &options);
    for address in ["192.0.2.1", "198.51.100.1", "198.51.101.1", "203.0.113.1", "2001:db8::1", "2001:db9::1", "::1"] {
        assert_eq!(told(&small, address), told(&source(), address), "{address}");
    }
    assert_eq!(small.files()[0].database_type, "Meridian-City");
    let left: Vec<_> = std::fs::read_dir(files.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file is left");
    let reader = maxminddb::Reader::from_source(bytes).unwrap();
    reader.verify().unwrap();
    assert!(reader.metadata().description["en"].ends_with("By somebody, CC BY 4.0."));
    assert_eq!(reader.metadata().build_epoch, 1_780_000_000, "that of the source, so that the file can be made again");
}

#[test]
fn any_reader_finds_ipv4_also_inside_ipv6() {
    let (_, _, bytes) = written(&source(), &Options::default());
    let reader = maxminddb::Reader::from_source(bytes).unwrap();
    let country = |address: &str| {
        let found = reader.lookup(address.parse::<IpAddr>().unwrap()).unwrap();
        let city: Option<maxminddb::geoip2::City<'_>> = found.decode().unwrap();
        city.map(|city| (city.country.iso_code.unwrap().to_owned(), city.location.latitude.unwrap()))
    };
    let de = Some(("DE".to_owned(), 50.12));
    for address in ["198.51.100.7", "::ffff:198.51.100.7", "64:ff9b::198.51.100.7", "2002:c633:6407::1"] {
        assert_eq!(country(address), de, "{address}");
    }
    assert_eq!(country("2001:db8::1"), Some(("JP".to_owned(), 35.69)));
    assert_eq!(country("2002:c000:201::"), Some(("US".to_owned(), 39.04)), "6to4 is found as IPv4");
    assert_eq!(country("203.0.113.1"), None);
    assert_eq!(country("2a00::1"), None);
}

#[test]
fn a_small_size_joins_neighbours_and_keeps_what_is_asked_for() {
    // Every other /24 of a /16 lies in one of 100 places of the country; one of them abroad.
    let networks: Vec<_> = (0..256)
        .map(|i| {
            let country = if i == 77 { "JP" } else { "US" };
            let at = place(country, 30.0 + f64::from(i % 100) / 10.0, -100.0);
            (format!("100.50.{i}.0/24").parse().unwrap(), at)
        })
        .collect();
    let files = Files::new();
    let source = load(&[files.put("source.mmdb", &mmdb_of(&networks))]);
    let size = 1800;
    let (_, small, bytes) = written(&source, &Options { size, grid: 0.05, ..Options::default() });
    assert!(bytes.len() <= size);
    let alone = "100.50.77.1";
    assert!(told(&small, alone).starts_with("US"), "joined: {}", told(&small, alone));
    let keep = vec!["100.50.77.0/24".parse().unwrap()];
    let (_, kept, bytes) = written(&source, &Options { size, grid: 0.05, keep, ..Options::default() });
    assert!(bytes.len() <= size);
    assert!(told(&kept, alone).starts_with("JP"), "kept: {}", told(&kept, alone));
    let dallas = [cities::find("Dallas").unwrap().location, Point::new(35.0, 139.0).unwrap()];
    let found = compare(&source, &small, &dallas, Draw::Ipv4, 1000, 1).unwrap();
    assert_eq!(found.same_region, 1.0);
    assert!(found.same_country > 0.99, "{found:?}");
}

#[test]
fn the_same_source_gives_the_same_bytes() {
    let (one, two) = (written(&source(), &Options::default()), written(&source(), &Options::default()));
    assert_eq!(one.2, two.2);
}

#[test]
fn what_cannot_fit_or_be_written_is_told() {
    let files = Files::new();
    let path = files.dir.path().join("small.mmdb");
    let fault = compact::write(&source(), &path, &Options { size: 100, ..Options::default() }).unwrap_err();
    assert!(fault.what.contains("no useful database fits into 100 bytes"), "{fault}");
    assert!(!path.exists());
    let fault = compact::write(&source(), &files.dir.path().join("no/such/dir.mmdb"), &Options::default()).unwrap_err();
    assert!(fault.what.contains("can't write the database"), "{fault}");
    assert!(compact::write(&Database::empty(), &path, &Options::default()).is_err());
}

#[test]
fn a_comparison_tells_wrong_regions_and_by_how_far() {
    let files = Files::new();
    let one = |name: &str, at: Value| load(&[files.put(name, &mmdb(&[("192.0.2.0/24", at)]))]);
    let frankfurt = cities::find("Frankfurt").unwrap().location;
    let ashburn = cities::find("Ashburn").unwrap().location;
    let (truth, other) = (one("a.mmdb", place("DE", 50.12, 8.68)), one("b.mmdb", place("US", 39.04, -77.49)));
    let same = compare(&truth, &truth, &[frankfurt, ashburn], Draw::Ipv4, 50, 1).unwrap();
    assert_eq!((same.same_region, same.same_country, same.regret_km), (1.0, 1.0, 0.0));
    let wrong = compare(&truth, &other, &[frankfurt, ashburn], Draw::Ipv4, 50, 1).unwrap();
    assert_eq!((wrong.same_region, wrong.same_country), (0.0, 0.0));
    assert!((wrong.regret_km - frankfurt.distance_km(ashburn)).abs() < 20.0);
    assert!(compare(&truth, &other, &[frankfurt], Draw::Ipv6ByNetwork, 50, 1).is_none(), "it has no IPv6");
    assert!(compare(&truth, &other, &[], Draw::Ipv4, 50, 1).is_none());
}
