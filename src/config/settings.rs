//! The values in use: what a zone file means once every default is applied and every rule checked.
//!
//! Nothing here can be invalid: references are indices that exist, names are absolute, durations and counts are in
//! range. Only [`crate::config`] builds these from files.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::Name;
use jiff::Timestamp;

use super::admin::Access;
use super::diagnostic::At;
use super::scale::Webhook;
use crate::geo::{Match, Point};
use crate::load::report::exposition::Wanted;
use crate::steering::money::Money;
use crate::zone::Rrset;

/// More regions in one zone are refused: a live mask is one 64-bit word.
pub const MAX_REGIONS: usize = 64;

/// More addresses in one steered answer are refused.
pub const MAX_ANSWERS: usize = 16;

/// Bits/s of a session where no `session` is written.
pub const SESSION_BITS: f64 = 5e6;

/// TTL of NS records: of the apex always, of delegations where none is written. One day, in seconds.
pub const NS_TTL: u32 = 86_400;

/// A zone, as one file describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// The apex: absolute, as written (compares case-blind).
    pub name: Name,
    pub file: Arc<Path>,
    pub ns: Vec<Name>,
    pub soa: Soa,
    /// In the order written; at most [`MAX_REGIONS`]; empty in a plain static zone.
    pub regions: Vec<Region>,
    /// An operator's order that would leave fewer regions able to take clients is refused; at least 1, and no more than
    /// there are regions unless there are none.
    pub min_regions: u8,
    /// Bits/s of one viewer, above 0.
    pub session_bits: f64,
    pub units: Units,
    /// How much farther a viewer may be sent to save money. `None`: not at all.
    pub money: Option<Money>,
    /// Steered names. No two have one owner.
    pub streams: Vec<Stream>,
    /// In the order of their starts; no two of one stream at one time.
    pub events: Vec<Event>,
    /// Static RRsets with absolute owners, SOA and apex NS left out (they are synthesised). Includes delegations (NS
    /// below the apex) and glue.
    pub records: Vec<Rrset>,
    /// The file's modification time in Unix seconds; the serial when none is written.
    pub modified: u32,
    /// FNV or like digest of the file's text, to notice a change that left no later mtime.
    pub digest: u64,
}

impl Zone {
    /// The apex as labels, orders and journals have it: in lower case, without the final dot.
    pub fn label(&self) -> Arc<str> {
        self.name.to_lowercase().to_ascii().trim_end_matches('.').into()
    }
}

/// In what capacities are told. Sessions and bits/s can be compared only where the operator says what a session takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// No region has a capacity, and no `session` is written.
    Unsaid,
    Sessions,
    /// Bits/s, each session taking [`SESSION_BITS`].
    Bits,
    /// Either: `session` is written.
    Both,
}

/// Timers of the synthesised SOA, in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soa {
    /// RNAME: the mailbox as a domain name (RFC 1035 §3.3.13).
    pub contact: Name,
    pub serial: Option<u32>,
    pub refresh: u32,
    pub retry: u32,
    pub expire: u32,
    /// The MINIMUM field: TTL of negative answers (RFC 2308 §4).
    pub negative: u32,
}

/// A place with servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    pub name: Arc<str>,
    /// `None` only where no policy of the zone uses geography.
    pub location: Option<Point>,
    /// What `near` said, for people.
    pub near: Option<Arc<str>>,
    /// A list that zones share where it stands in `meridian.toml`.
    pub servers: Arc<[Server]>,
    /// Up servers of a type below which the region is down for that type; default half of the servers that declare
    /// the type, rounded up.
    pub min_up: Option<u32>,
    /// How long the region takes to have its whole share again after it came back; zero: at once.
    pub ramp: Duration,
    /// What its servers can serve at once. `None`: no end is known, so nobody is kept away.
    pub capacity: Option<Capacity>,
    /// Money for a GB, at least 0. `None`: not told.
    pub cost: Option<f64>,
    /// `None`: the servers are always up.
    pub check: Option<Arc<Check>>,
}

/// Viewers that a region can serve at once, with all of its servers up.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// Above 0.
    pub sessions: f64,
    /// By server, their sum the whole; `None`: each has as much as another.
    pub by_server: Option<Arc<[f64]>>,
}

impl Capacity {
    /// The part of it, 0 to 1, that is left with only some of the region's `servers` up.
    pub fn part(&self, servers: usize, up: impl Fn(usize) -> bool) -> f64 {
        let whole = match &self.by_server {
            Some(all) => {
                let left: f64 = all.iter().enumerate().filter(|(server, _)| up(*server)).map(|(_, part)| part).sum();
                return left / self.sessions;
            }
            None => servers.max(1) as f64,
        };
        (0..servers).filter(|server| up(*server)).count() as f64 / whole
    }
}

/// One machine of a region: at least one address, at most one of each family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub a: Option<Ipv4Addr>,
    pub aaaa: Option<Ipv6Addr>,
    /// Relative share of the answers among the region's servers.
    pub weight: NonZeroU16,
    /// Probe here instead of the public addresses.
    pub probe: Option<SocketAddr>,
}

impl Server {
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.a.map(IpAddr::from),
            Family::V6 => self.aaaa.map(IpAddr::from),
        }
    }
}

/// A and AAAA are judged and ranked apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4 = 0,
    V6 = 1,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];
}

/// How a server is probed. Equal checks of one address are one probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    pub kind: CheckKind,
    /// At least 50 ms.
    pub every: Duration,
    /// Below `every`.
    pub timeout: Duration,
    /// The time-out of regular probes follows their measured times; `timeout` is then its upper bound, and that of the
    /// probes that confirm a failure.
    pub adaptive: bool,
    /// Failures in a row that turn up into down; at least 1.
    pub fall: u32,
    /// Successes in a row that turn down into up; at least 1.
    pub rise: u32,
    /// 0 only where an `exec` check has none.
    pub port: u16,
    /// How often an agent beside the server beats; a beat that is late makes the node probe at once.
    pub heartbeat: Option<Duration>,
    /// Where the server says how full it is.
    pub load: LoadSource,
}

/// Where load reports are looked for, besides heartbeats and the admin API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "one a check, and checks are shared")]
pub enum LoadSource {
    /// In answers to probes that say that they have one: by the header `endpoint-load-metrics`, or as
    /// `application/health+json`.
    #[default]
    Offered,
    /// In every answer to a probe; one without is a fault of the server's.
    Answer,
    /// In the answer to a request beside the probes.
    Apart(LoadRequest),
    Nowhere,
}

impl LoadSource {
    /// Whether answers to probes are looked at.
    pub fn is_in_answers(&self) -> bool {
        matches!(self, LoadSource::Offered | LoadSource::Answer)
    }
}

/// A request for a load report.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoadRequest {
    /// Status 200, and nothing to contain. An empty host stands for the server's address.
    pub http: HttpCheck,
    /// `None`: where the target is probed.
    pub port: Option<u16>,
    pub transport: Transport,
    /// At least 500 ms; an answer must come within it.
    pub every: Duration,
    /// Metrics in Prometheus text; empty: any other form of report.
    pub metrics: Wanted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CheckKind {
    Tcp,
    Http(HttpCheck),
    Https {
        http: HttpCheck,
        ca: Option<Arc<PrivateCa>>,
    },
    /// The live edge of an HLS playlist (RFC 8216) must move on.
    Hls {
        /// Status 200, and nothing to contain.
        http: HttpCheck,
        transport: Transport,
        /// Target durations that the edge may stand; at least 2.
        stale: u32,
    },
    Exec(ExecCheck),
}

/// What HTTP goes over, where the kind of check does not say it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Plain,
    /// With a private authority in place of the public ones.
    Tls(Option<Arc<PrivateCa>>),
}

/// A program that tells by its exit code whether a server is well. The port that it is told is the target's, 0: none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExecCheck {
    /// Absolute.
    pub program: PathBuf,
    /// As written; no shell reads them. Without NUL.
    pub arguments: Vec<String>,
    /// Told to the program where one is known.
    pub host: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// Path and query, beginning with `/`.
    pub path: String,
    /// Host header and SNI, without a port.
    pub host: String,
    /// Accepted codes; empty: any 2xx or 3xx.
    pub status: Vec<u16>,
    /// Must stand in the first 64 KiB of the body.
    pub contains: Option<String>,
}

/// A private certification authority: the file and the DER certificates it held when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrivateCa {
    pub file: PathBuf,
    pub certificates: Vec<Vec<u8>>,
}

/// A steered name.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// Absolute; may be a wildcard (`*.game.stream.example.`).
    pub owner: Name,
    /// The key as written (`live`, `@`, `*.game`), for people.
    pub label: Arc<str>,
    /// TTL of the steered answers, seconds.
    pub ttl: u32,
    /// What applies when no rule matches, or when all regions of the matching rule are down.
    pub steering: Steering,
    /// The first match wins.
    pub rules: Vec<Rule>,
    /// CNAME target given while every region is down in both families.
    pub fallback: Option<Name>,
    /// Steered names, of any zone, without which this stream is no use to a viewer; each with its place.
    pub needs: Vec<(Name, At)>,
    pub at: At,
}

/// A time at which more viewers are expected than usual.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Position in [`Zone::streams`].
    pub stream: usize,
    pub start: Timestamp,
    /// After the start.
    pub end: Timestamp,
    pub expect: Expect,
    pub at: At,
}

/// How much an event brings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expect {
    /// Viewers at one time; at least 1.
    Sessions(f64),
    /// Times what is usual at that hour; above 1.
    Times(f64),
}

/// Which regions, in which manner.
#[derive(Clone, Debug, PartialEq)]
pub struct Steering {
    /// Indices into [`Zone::regions`], each at most once, in the order written; never empty.
    pub regions: Vec<u8>,
    pub policy: Policy,
    /// ms by position in `regions`; added to the predicted cost. Zero where not written.
    pub bias: Vec<i32>,
    /// Addresses in an answer, all of one region; at least 1, at most [`MAX_ANSWERS`].
    pub answers: u8,
}

impl Steering {
    /// Its regions, a bit each.
    pub fn mask(&self) -> u64 {
        self.regions.iter().fold(0, |mask, region| mask | 1 << region)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Lowest predicted cost first.
    Nearest,
    /// In the order of `regions`.
    Priority,
    /// Spread by weight; weights by position in `regions`, not all zero. 0 takes none.
    Weighted(Vec<u16>),
}

/// Clients that are steered by other settings than the stream's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Matches when any of these does. Each keeps its place for warnings about the databases.
    pub from: Vec<(Match, At)>,
    pub steering: Steering,
}

/// What TCP clients may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpLimits {
    /// Connections in all, at least 1. One more closes the one that is idle longest.
    pub connections: usize,
    /// Connections of one source, an IPv4 address or an IPv6 /64; at least 1. One more is refused.
    pub per_source: usize,
    /// How long a connection may stay without a query (RFC 7766 §6.2.3).
    pub idle: Duration,
    /// How long a message may take from its first byte to its last, and a peer to take the answers.
    pub read: Duration,
    /// Queries of one connection answered in a row before other connections get their turn; at least 1.
    pub pipeline: usize,
}

impl Default for TcpLimits {
    fn default() -> TcpLimits {
        TcpLimits {
            connections: 10_000,
            per_source: 100,
            idle: Duration::from_secs(10),
            read: Duration::from_secs(3),
            pipeline: 128,
        }
    }
}

/// A node's own settings: `meridian.toml` and the flags over it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// UDP and TCP, at least one.
    pub listen: Vec<SocketAddr>,
    /// A zone file, or a directory of them.
    pub zones: PathBuf,
    /// Location databases and directories of them, the first that knows an attribute gives it. `None` where nothing was
    /// written: `geoip/` if it is there, the bundled database otherwise.
    pub geoip: Option<Vec<PathBuf>>,
    /// Threads that answer UDP on each address, and threads that answer TCP. `None`: as many as `cpus`, or one a core.
    pub workers: Option<NonZeroU16>,
    /// CPUs that UDP workers are bound to, in turn, and that everything else of the process keeps off. Empty: the system
    /// places all threads.
    pub cpus: Vec<u16>,
    /// What is kept over a restart: serials, orders, verdicts, the journal. One node a directory.
    pub state: PathBuf,
    /// HTTP API and metrics.
    pub admin: SocketAddr,
    /// Who may use it.
    pub access: Access,
    pub tcp: TcpLimits,
    /// `None`: no heartbeats are received.
    pub heartbeat: Option<Heartbeat>,
    /// A table of round-trip times, CSV.
    pub rtt: Option<PathBuf>,
    /// Who is told of loads and sizes of regions; `None`: nobody.
    pub scale: Option<Webhook>,
}

/// Where heartbeats are received, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// UDP.
    pub listen: SocketAddr,
    /// The file of keys that agents and this node share.
    pub keys: PathBuf,
}

/// What was given on the command line; it beats the file. Empty lists mean "not given".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    pub listen: Vec<SocketAddr>,
    pub zones: Option<PathBuf>,
    pub geoip: Vec<PathBuf>,
    pub workers: Option<NonZeroU16>,
    pub state: Option<PathBuf>,
    pub admin: Option<SocketAddr>,
}

impl Node {
    /// These settings where `flags` say nothing.
    pub fn with(self, flags: Overrides) -> Node {
        Node {
            listen: if flags.listen.is_empty() { self.listen } else { flags.listen },
            zones: flags.zones.unwrap_or(self.zones),
            geoip: if flags.geoip.is_empty() { self.geoip } else { Some(flags.geoip) },
            workers: flags.workers.or(self.workers),
            cpus: self.cpus,
            state: flags.state.unwrap_or(self.state),
            admin: flags.admin.unwrap_or(self.admin),
            access: self.access,
            tcp: self.tcp,
            heartbeat: self.heartbeat,
            rtt: self.rtt,
            scale: self.scale,
        }
    }
}
