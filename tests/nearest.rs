//! The main job, asked with dig: each client prefix gets the nearest region by great circle, and when a region is lost each
//! of its clients gets the next nearest.
//!
//! What is nearest is worked out here from the database itself, by the `maxminddb` reader and a formula of its own, for
//! hundreds of networks spread over the whole database. Set `MERIDIAN_CITY_DB` to a full City database to hold that to
//! the same standard.

mod ports;

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
use meridian::health::{Target, Verdict};
use meridian::server;
use meridian::snapshot::{Published, Served, Snapshot, TargetId};

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
    let mut text = String::from("zone = \"near.example\"\nns = [\"ns.elsewhere.example\"]\n[check]\ntcp = 80\n");
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

/// A network, and the regions by distance from it, km.
struct Client {
    prefix: String,
    by_distance: Vec<(f64, u8)>,
}

impl Client {
    /// The regions that may be called nearest when `lost` is not there. Databases round to about a kilometre, so two
    /// regions may be equally near within it.
    fn nearest(&self, lost: Option<u8>) -> Vec<u8> {
        let mut left = self.by_distance.iter().filter(|(_, octet)| Some(*octet) != lost).peekable();
        let least = left.peek().expect("one region is left").0;
        left.take_while(|(km, _)| *km < least + 1.5).map(|(_, octet)| *octet).collect()
    }
}

/// Networks of at most /24 or /48, every `stride`th.
fn clients(database: &Path, stride: usize) -> Vec<Client> {
    let reader = Reader::open_readfile(database).unwrap();
    let mut clients = Vec::new();
    for network in reader.networks(WithinOptions::default()).unwrap().step_by(stride) {
        let network = network.unwrap();
        let prefix = network.network().unwrap();
        let is_kept = match prefix.ip() {
            IpAddr::V4(_) => prefix.prefix() <= 24,
            IpAddr::V6(address) => prefix.prefix() <= 48 && address.segments()[0] & 0xE000 == 0x2000,
        };
        let key = maxminddb::PathElement::Key;
        let coordinate = |name| network.decode_path::<f64>(&[key("location"), key(name)]).ok().flatten();
        // A client of whom only the country is known is placed among its people, not where the record says.
        let radius: Option<u16> = network.decode_path(&[key("location"), key("accuracy_radius")]).unwrap();
        let is_kept = is_kept && radius.is_none_or(|km| km < 500);
        let (true, Some(lat), Some(lon)) = (is_kept, coordinate("latitude"), coordinate("longitude")) else { continue };
        let mut by_distance: Vec<(f64, u8)> =
            REGIONS.map(|(_, rlat, rlon, octet)| (distance((lat, lon), (rlat, rlon)), octet)).to_vec();
        by_distance.sort_by(|a, b| a.0.total_cmp(&b.0));
        clients.push(Client { prefix: prefix.to_string(), by_distance });
    }
    clients
}

fn compile(database: &Path) -> Snapshot {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("near.example.toml");
    std::fs::write(&file, zone_file()).unwrap();
    let loaded = load_zones(&[file], &Shared::default());
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let database = Arc::new(Database::load(&[database.to_owned()], None).unwrap());
    let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
    Snapshot::compile(zones, &database, |_| Verdict::Up, None)
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
    let clients = clients(database, stride);
    for family in [".", ":"] {
        let count = clients.iter().filter(|client| client.prefix.contains(family)).count();
        assert!(count >= 100, "{count} of {} prefixes have a {family}", clients.len());
    }
    let prefixes: Vec<&str> = clients.iter().map(|client| &*client.prefix).collect();
    let published: Published = Arc::new(ArcSwap::from_pointee(compile(database)));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let sockets = server::bind(&[ports::free_address()], 1).unwrap();
        let (address, stop) = (sockets.addresses()[0], CancellationToken::new());
        let running = sockets.serve(published.clone(), TcpLimits::default(), stop.clone()).unwrap();
        let all_up = published.load_full();
        let losses = std::iter::once(None).chain(REGIONS.map(|(.., octet)| Some(octet)));
        for lost in losses {
            published.store(Arc::new(all_up.with_verdicts(&down(&all_up, lost))));
            let answers = tokio::task::block_in_place(|| dig(address, &prefixes));
            assert_eq!(answers.len(), clients.len());
            let wrong: Vec<_> = (clients.iter().zip(&answers))
                .filter(|(client, got)| !client.nearest(lost).contains(got))
                .map(|(client, got)| (&client.prefix, got, client.nearest(lost)))
                .collect();
            assert!(wrong.is_empty(), "without {lost:?}: {} of {}: {wrong:?}", wrong.len(), clients.len());
        }
        println!("{} prefixes, each to its nearest region, with all regions and without each one", clients.len());
        stop.cancel();
        running.stopped().await;
    });
}

/// The verdicts that take a region away.
fn down(snapshot: &Snapshot, lost: Option<u8>) -> Vec<(TargetId, Verdict)> {
    let is_lost = |target: &Target| matches!(target.address.ip(), IpAddr::V4(ip) if Some(ip.octets()[3]) == lost);
    let ids = (0..).map(TargetId).zip(snapshot.targets());
    ids.filter(|(_, target)| is_lost(target)).map(|(id, _)| (id, Verdict::Down)).collect()
}

#[test]
fn dig_with_a_client_subnet_gets_the_nearest_region() {
    dig_gets_the_nearest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("geoip/world.mmdb"), 299);
}

#[test]
#[ignore = "needs a database that cannot be shipped: set MERIDIAN_CITY_DB"]
fn so_it_does_with_a_full_city_database() {
    let database = std::env::var_os("MERIDIAN_CITY_DB").expect("MERIDIAN_CITY_DB names a full City database");
    dig_gets_the_nearest(&PathBuf::from(database), 997);
}
