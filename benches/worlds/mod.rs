//! Zones, databases and queries that the benches share.
//!
//! The database is the bundled one, or `MERIDIAN_CITY=FILE.mmdb`.

#![allow(dead_code, reason = "each bench uses a part of it")]

pub mod queries;
pub mod random;

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use meridian::config::settings::Zone;
use meridian::config::{Shared, load_zones};
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::snapshot::{Served, Snapshot};
use meridian::steering::plan::{Choice, Contender, Spec};

/// The zone of `benches/peers/run`: one steered name, eight regions of two addresses.
pub const PEERS: &str = r#"
zone = "stream.example"
ns = ["ns.example.net"]
ttl = "20s"
[stream.live]
answers = 2
[region.us-east]
at = [39.04, -77.49]
a = ["192.0.2.11", "192.0.2.12"]
[region.us-west]
at = [37.34, -121.89]
a = ["192.0.2.21", "192.0.2.22"]
[region.eu-west]
at = [51.51, -0.13]
a = ["192.0.2.31", "192.0.2.32"]
[region.eu-central]
at = [50.11, 8.68]
a = ["192.0.2.41", "192.0.2.42"]
[region.ap-south]
at = [19.08, 72.88]
a = ["192.0.2.51", "192.0.2.52"]
[region.ap-southeast]
at = [1.35, 103.82]
a = ["192.0.2.61", "192.0.2.62"]
[region.ap-northeast]
at = [35.68, 139.69]
a = ["192.0.2.71", "192.0.2.72"]
[region.sa-east]
at = [-23.55, -46.63]
a = ["192.0.2.81", "192.0.2.82"]
"#;

/// Something of everything that a zone may hold.
const RICH: &str = r#"
zone = "rich.example"
ns = ["ns1", "ns2"]
[region.us]
near = "Ashburn"
server = [
  { a = "192.0.2.1", aaaa = "2001:db8:1::1", weight = 4 },
  { a = "192.0.2.2", aaaa = "2001:db8:1::2", weight = 2 },
  { a = "192.0.2.3", aaaa = "2001:db8:1::3" },
]
[region.eu]
near = "Frankfurt"
server = [
  { a = "192.0.2.11", aaaa = "2001:db8:2::1", weight = 3 },
  { a = "192.0.2.12", aaaa = "2001:db8:2::2" },
  { a = "192.0.2.13", aaaa = "2001:db8:2::3" },
]
[region.ap]
near = "Singapore"
a = ["192.0.2.21", "192.0.2.22", "192.0.2.23"]
aaaa = ["2001:db8:3::1", "2001:db8:3::2", "2001:db8:3::3"]
[region.sa]
near = "São Paulo"
a = ["192.0.2.31", "192.0.2.32"]
[stream.near]
[stream.weighted]
policy = "weighted"
weights = { us = 3, eu = 2, ap = 2, sa = 1 }
[stream.ruled]
rules = [
  { from = ["DE", "FR", "US-CA"], regions = ["eu", "us"], policy = "priority" },
  { from = ["Asia", "8.8.8.0/24"], policy = "weighted", weights = { ap = 3, eu = 1, us = 0, sa = 0 } },
  { from = ["South America"], regions = ["sa"], answers = 1 },
]
[stream."*.game"]
[records]
ns1 = { A = "198.51.100.53" }
ns2 = { A = "198.51.100.54" }
static = { A = ["198.51.100.1", "198.51.100.2"], MX = "10 mail.example.net." }
www = { CNAME = "cdn" }
cdn = { CNAME = "near" }
"*.wild" = { TXT = "here" }
child = { NS = ["ns1.child", "ns2.child"] }
"ns1.child" = { A = "198.51.100.60", AAAA = "2001:db8::60" }
"ns2.child" = { A = "198.51.100.61", AAAA = "2001:db8::61" }
large = { TXT = "LARGE" }
"#;

/// What is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    Peers,
    Rich,
    /// 64 regions of two probed servers each, all up.
    Wide,
    /// The same with every other region down.
    WideHalfDown,
}

impl World {
    pub fn snapshot(self, database: &Arc<Database>) -> Snapshot {
        let text = match self {
            World::Peers => PEERS.to_owned(),
            World::Rich => RICH.replace("LARGE", &"x".repeat(700)),
            World::Wide | World::WideHalfDown => wide(),
        };
        // The regions of `wide` differ in the third byte of their addresses.
        let is_down = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(v4) => self == World::WideHalfDown && v4.octets()[2] % 2 == 0,
            std::net::IpAddr::V6(_) => false,
        };
        let verdict = |address| if is_down(address) { Verdict::Down } else { Verdict::Up };
        Snapshot::compile(serve(load(&[text])), database, |target| verdict(target.address.ip()), None)
    }
}

fn wide() -> String {
    let mut text = "zone = \"wide.example\"\nns = [\"ns.example.net\"]\n[check]\ntcp = 80\n[stream.live]\n".to_owned();
    for region in 0..64 {
        // Eight by eight over the lands of the Earth, roughly.
        let (row, column) = (region / 8, region % 8);
        let (lat, lon) = (60 - row * 14, (45 * column + 7 * row) % 360 - 180);
        write!(text, "[region.r{region}]\nat = [{lat}, {lon}]\na = [\"10.0.{region}.1\", \"10.0.{region}.2\"]\n")
            .expect("room in memory");
    }
    text
}

/// Zone number `number` of many that are alike: eight regions of two probed servers, four steered names, some records.
/// Each has servers of its own.
pub fn ordinary(number: usize) -> String {
    let (high, low) = (number / 256, number % 256);
    let mut text = format!(
        "zone = \"z{number}.example\"\nns = [\"ns.example.net\"]\n[check]\ntcp = 80\n\
         [stream.live]\n[stream.events]\n[stream.vod]\n[stream.\"*.game\"]\n\
         [records]\nwww = {{ CNAME = \"live\" }}\nmail = {{ A = \"198.51.100.1\" }}\n\"@\" = {{ MX = \"10 mail\" }}\n"
    );
    let places = [(39, -77), (37, -121), (51, 0), (50, 8), (19, 72), (1, 103), (35, 139), (-23, -46)];
    for (region, (lat, lon)) in places.into_iter().enumerate() {
        let address = |server| format!("10.{high}.{low}.{}", region * 8 + server);
        let (one, two) = (address(1), address(2));
        write!(text, "[region.r{region}]\nat = [{lat}, {lon}]\na = [\"{one}\", \"{two}\"]\n").expect("room in memory");
    }
    text
}

/// Zones as they are read from files.
pub fn load(texts: &[String]) -> Vec<Zone> {
    let folder = tempfile::tempdir().expect("room for files");
    let write = |(number, text): (usize, &String)| {
        let path = folder.path().join(format!("{number}.toml"));
        std::fs::write(&path, text).expect("room for files");
        path
    };
    let paths: Vec<PathBuf> = texts.iter().enumerate().map(write).collect();
    let loaded = load_zones(&paths, &Shared::default());
    assert!(!loaded.has_errors(), "{:#?}", loaded.diagnostics);
    loaded.zones
}

pub fn serve(zones: Vec<Zone>) -> Vec<Served> {
    zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect()
}

/// What the steered names of `zone` ask for: the nearest of all regions.
pub fn nearest(zone: &Zone) -> Spec {
    let contender = |(region, settings): (usize, &meridian::config::settings::Region)| Contender {
        region: region as u8,
        location: settings.location,
        bias: 0,
    };
    let options = zone.regions.iter().enumerate().map(contender).collect();
    Spec {
        own: Choice { options, policy: meridian::config::settings::Policy::Nearest, answers: 2 },
        rules: vec![],
        by_load: false,
    }
}

/// The file named by `MERIDIAN_CITY`, else the bundled one.
pub fn city() -> PathBuf {
    let bundled = || concat!(env!("CARGO_MANIFEST_DIR"), "/geoip/world.mmdb").into();
    std::env::var_os("MERIDIAN_CITY").map_or_else(bundled, PathBuf::from)
}

pub fn database() -> Arc<Database> {
    let path = city();
    let database = Database::load(std::slice::from_ref(&path), None).unwrap_or_else(|faults| {
        eprintln!("{}", faults[0]);
        std::process::exit(1);
    });
    eprintln!("database: {}", path.file_name().unwrap_or_default().display());
    Arc::new(database)
}
