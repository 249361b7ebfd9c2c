//! The main job, asked with dig: each client prefix gets the nearest region by great circle.
//!
//! What is nearest is worked out here from the database itself, by the `maxminddb` reader and a formula of its own, for
//! hundreds of networks spread over the whole database. Set `MERIDIAN_CITY_DB` to a full City database to hold that to
//! the same standard.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arc_swap::ArcSwap;
use maxminddb::{Reader, WithinOptions};
use tokio_util::sync::CancellationToken;

use meridian::config::settings::TcpLimits;
use meridian::config::{Shared, load_zones};
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::server;
use meridian::snapshot::{Served, Snapshot};

/// Name, latitude, longitude, last octet of its one address.
const REGIONS: [(&str, f64, f64, u8); 10] = [
    ("ashburn", 39.04, -77.49, 1),
    ("san-jose", 37.34, -121.89, 2),
    ("sao-paulo", -23.55, -46.64, 3),
    ("london", 51.51, -0.13, 4),
    ("frankfurt", 50.11, 8.68, 5),
    ("johannesburg", -26.20, 28.04, 6),
    ("mumbai", 19.07, 72.88, 7),
    ("singapore", 1.29, 103.85, 8),
    ("tokyo", 35.69, 139.69, 9),
    ("sydney", -33.87, 151.21, 10),
];

fn zone_file() -> String {
    let mut text = String::from("zone = \"near.example\"\nns = [\"ns.elsewhere.example\"]\n");
    for (name, lat, lon, octet) in REGIONS {
        text += &format!("[region.{name}]\nat = [{lat}, {lon}]\na = [\"192.0.2.{octet}\"]\n");
    }
    text
}

/// km by the spherical law of cosines; the server uses the haversine formula.
fn distance((lat1, lon1): (f64, f64), (lat2, lon2): (f64, f64)) -> f64 {
    let [lat1, lon1, lat2, lon2] = [lat1, lon1, lat2, lon2].map(f64::to_radians);
    (lat1.sin() * lat2.sin() + lat1.cos() * lat2.cos() * (lon1 - lon2).cos()).clamp(-1.0, 1.0).acos() * 6371.0
}

/// Networks of at most /24 or /48, every `stride`th, with the regions that may be called nearest.
fn pairs(database: &Path, stride: usize) -> Vec<(String, Vec<u8>)> {
    let reader = Reader::open_readfile(database).unwrap();
    let mut pairs = Vec::new();
    for network in reader.networks(WithinOptions::default()).unwrap().step_by(stride) {
        let network = network.unwrap();
        let prefix = network.network().unwrap();
        let kept = match prefix.ip() {
            IpAddr::V4(_) => prefix.prefix() <= 24,
            IpAddr::V6(address) => prefix.prefix() <= 48 && address.segments()[0] & 0xE000 == 0x2000,
        };
        let coordinate = |key: &str| {
            let nested = [maxminddb::PathElement::Key("location"), maxminddb::PathElement::Key(key)];
            let flat = [maxminddb::PathElement::Key(key)];
            [&nested[..], &flat[..]].iter().find_map(|path| {
                network
                    .decode_path::<f64>(path)
                    .ok()
                    .flatten()
                    .or_else(|| Some(f64::from(network.decode_path::<f32>(path).ok().flatten()?)))
            })
        };
        let (true, Some(lat), Some(lon)) = (kept, coordinate("latitude"), coordinate("longitude")) else { continue };
        let mut by_distance: Vec<(f64, u8)> =
            REGIONS.map(|(_, rlat, rlon, octet)| (distance((lat, lon), (rlat, rlon)), octet)).to_vec();
        by_distance.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Databases round to about a kilometre, so two regions may be equally near within it.
        let nearest = by_distance.iter().take_while(|(km, _)| *km < by_distance[0].0 + 1.5).map(|(_, octet)| *octet);
        pairs.push((prefix.to_string(), nearest.collect()));
    }
    pairs
}

async fn serve(database: &Path) -> (SocketAddr, CancellationToken, server::Running) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("near.example.toml");
    std::fs::write(&file, zone_file()).unwrap();
    let loaded = load_zones(&[file], &Shared::default());
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    let database = Arc::new(Database::load(&[database.to_owned()], None).unwrap());
    let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
    let snapshot = Snapshot::compile(zones, &database, |_| Verdict::Up, None);
    let sockets = server::bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap();
    let (address, stop) = (sockets.addresses()[0], CancellationToken::new());
    let published = Arc::new(ArcSwap::from_pointee(snapshot));
    (address, stop.clone(), sockets.serve(published, TcpLimits::default(), stop).unwrap())
}

/// One `dig` for all questions; the last octet of each answer.
fn dig(server: SocketAddr, prefixes: &[&str]) -> Vec<u8> {
    let mut questions = tempfile::NamedTempFile::new().unwrap();
    for prefix in prefixes {
        writeln!(questions, "near.example A +subnet={prefix}").unwrap();
    }
    let output = Command::new("dig")
        .args([format!("@{}", server.ip()), "-p".into(), server.port().to_string(), "+short".into(), "-f".into()])
        .arg(questions.path())
        .output()
        .expect("dig is installed (`make tools`)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers = String::from_utf8(output.stdout).unwrap();
    answers
        .lines()
        .map(|line| line.strip_prefix("192.0.2.").unwrap_or_else(|| panic!("{line}")).parse().unwrap())
        .collect()
}

fn dig_gets_the_nearest(database: &Path, stride: usize) {
    let pairs = pairs(database, stride);
    for family in [".", ":"] {
        let count = pairs.iter().filter(|(prefix, _)| prefix.contains(family)).count();
        assert!(count >= 100, "{count} of {} prefixes have a {family}", pairs.len());
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (address, stop, running) = serve(database).await;
        let prefixes: Vec<&str> = pairs.iter().map(|(prefix, _)| &**prefix).collect();
        let answers = tokio::task::block_in_place(|| dig(address, &prefixes));
        assert_eq!(answers.len(), pairs.len());
        let wrong: Vec<_> = pairs.iter().zip(&answers).filter(|((_, nearest), got)| !nearest.contains(got)).collect();
        assert!(wrong.is_empty(), "{} of {}: {wrong:?}", wrong.len(), pairs.len());
        println!("{} prefixes, each to its nearest region", pairs.len());
        stop.cancel();
        running.stopped().await;
    });
}

#[test]
fn dig_with_a_client_subnet_gets_the_nearest_region() {
    dig_gets_the_nearest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("geoip/world.mmdb"), 299);
}

#[test]
#[ignore = "needs a database that cannot be shipped: set MERIDIAN_CITY_DB"]
fn so_it_does_with_a_full_city_database() {
    let database = std::env::var_os("MERIDIAN_CITY_DB").expect("MERIDIAN_CITY_DB names a full City database");
    dig_gets_the_nearest(&PathBuf::from(database), 4999);
}
