//! Prepared queries, by kind.

use std::net::IpAddr;

use meridian::answer::{Client, Outcome, Transport, UDP_PAYLOAD, respond};
use meridian::snapshot::Snapshot;

use super::World;
use super::random::Random;

/// Queries answered at a time, as the server's batches.
pub const BATCH: usize = 32;

/// So many distinct client subnets that no cache holds what they lead to.
const RANDOM: usize = 1_000_000;
/// Distinct queries where the client makes no difference.
const STATIC: usize = 65_536;

const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;

/// A query and who sends it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub message: &'a [u8],
    pub client: Client,
}

/// Room for the answers of a batch, as a worker has it.
pub type Outs = [[u8; UDP_PAYLOAD]; BATCH];

pub fn outs() -> Box<Outs> {
    // Made on the heap: a debug build would put it on the stack first.
    vec![[0; UDP_PAYLOAD]; BATCH].try_into().expect("BATCH buffers")
}

/// What a query says of its client.
#[derive(Clone, Copy)]
enum Says {
    /// No EDNS; the client is the packet's source.
    Nothing,
    /// EDNS with this payload size and no client subnet.
    Payload(u16),
    Subnet4,
    Subnet6,
    /// One of five IPv6.
    Mixed,
}

/// What the answer must be.
#[derive(Clone, Copy)]
enum Gives {
    Records(u16),
    /// No answer record, this RCODE.
    Code(u8),
    Truncated,
}

/// A kind of query.
pub struct Kind {
    pub name: &'static str,
    pub world: World,
    /// `#` stands for a random label.
    qname: &'static str,
    qtype: u16,
    says: Says,
    /// Distinct queries, which come again and again.
    distinct: usize,
    gives: Gives,
    /// Bytes cut off the end.
    cut: usize,
}

const fn steered(name: &'static str, says: Says, distinct: usize) -> Kind {
    let (qname, gives) = ("live.stream.example", Gives::Records(2));
    Kind { name, world: World::Peers, qname, qtype: A, says, distinct, gives, cut: 0 }
}

const fn rich(name: &'static str, qname: &'static str, qtype: u16, gives: Gives) -> Kind {
    Kind { name, world: World::Rich, qname, qtype, says: Says::Mixed, distinct: RANDOM, gives, cut: 0 }
}

const fn fixed(name: &'static str, qname: &'static str, qtype: u16, gives: Gives) -> Kind {
    Kind { distinct: STATIC, ..rich(name, qname, qtype, gives) }
}

pub const KINDS: [Kind; 22] = [
    // The zone of benches/peers, steered by client.
    steered("subnet_v4", Says::Subnet4, RANDOM),
    steered("subnet_v6", Says::Subnet6, RANDOM),
    steered("subnet_mixed", Says::Mixed, RANDOM),
    steered("no_edns", Says::Nothing, RANDOM),
    // A resolver that asks for the same subnets again.
    steered("repeated_4096", Says::Subnet4, 4096),
    steered("repeated_1", Says::Subnet4, 1),
    // Richer ones, all over random subnets.
    rich("weighted", "weighted.rich.example", A, Gives::Records(2)),
    rich("ruled", "ruled.rich.example", AAAA, Gives::Records(2)),
    rich("uneven_servers", "near.rich.example", AAAA, Gives::Records(2)),
    rich("steered_wildcard", "#.game.rich.example", AAAA, Gives::Records(2)),
    rich("cname_chain", "www.rich.example", AAAA, Gives::Records(4)),
    Kind { world: World::Wide, ..rich("regions_64", "live.wide.example", A, Gives::Records(2)) },
    Kind { world: World::WideHalfDown, ..rich("half_down", "live.wide.example", A, Gives::Records(2)) },
    // Those for which the client makes no difference.
    fixed("fixed", "static.rich.example", A, Gives::Records(2)),
    fixed("wildcard", "#.wild.rich.example", TXT, Gives::Records(1)),
    fixed("referral", "#.child.rich.example", A, Gives::Code(0)),
    fixed("nodata", "static.rich.example", AAAA, Gives::Code(0)),
    fixed("nxdomain", "#.rich.example", A, Gives::Code(3)),
    Kind { says: Says::Payload(512), ..fixed("truncated", "large.rich.example", TXT, Gives::Truncated) },
    fixed("long", "large.rich.example", TXT, Gives::Records(1)),
    Kind { cut: 3, ..fixed("malformed", "static.rich.example", A, Gives::Code(1)) },
    fixed("refused", "#.elsewhere.example", A, Gives::Code(5)),
];

/// Queries one behind the other in memory, in the order in which they are asked.
pub struct Prepared {
    bytes: Vec<u8>,
    /// End of each in `bytes`, and its client.
    ends: Vec<(usize, Client)>,
}

impl Prepared {
    pub fn asked(&self) -> Vec<Asked<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(end, _)| end));
        let spans = starts.zip(&self.ends);
        spans.map(|(start, &(end, client))| Asked { message: &self.bytes[start..end], client }).collect()
    }
}

impl Kind {
    pub fn named(name: &str) -> &'static Kind {
        const { &KINDS }.iter().find(|kind| kind.name == name).expect("the name of a kind")
    }

    /// Whether the answer depends on where the client is.
    pub fn is_steered(&self) -> bool {
        self.distinct != STATIC
    }

    /// The distinct queries, at most `limit`; but never fewer than a batch, so that batches are full.
    pub fn prepare(&self, limit: usize) -> Prepared {
        let mut random = Random::new(7871);
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..self.distinct.min(limit) {
            let client = self.write(&mut random, &mut bytes);
            bytes.truncate(bytes.len() - self.cut);
            ends.push((bytes.len(), client));
        }
        while ends.len() < BATCH {
            let (end, client) = (ends[0].0, ends[0].1);
            bytes.extend_from_within(..end);
            ends.push((bytes.len(), client));
        }
        Prepared { bytes, ends }
    }

    fn write(&self, random: &mut Random, out: &mut Vec<u8>) -> Client {
        let additional = !matches!(self.says, Says::Nothing);
        let [id_high, id_low, ..] = random.next().to_be_bytes();
        out.extend([id_high, id_low, 0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(additional)]);
        for label in self.qname.split('.') {
            let made_up = format!("v{:08x}", random.next() as u32);
            let label = if label == "#" { &made_up } else { label };
            out.push(label.len() as u8);
            out.extend(label.bytes());
        }
        out.push(0);
        out.extend([self.qtype, 1].map(u16::to_be_bytes).as_flattened());
        let mut source = IpAddr::from([192, 0, 2, 77]);
        match self.says {
            Says::Nothing => source = random.address4().into(),
            Says::Payload(size) => opt(out, size, None),
            Says::Subnet4 => opt(out, UDP_PAYLOAD as u16, Some(random.subnet4())),
            Says::Subnet6 => opt(out, UDP_PAYLOAD as u16, Some(random.subnet6())),
            Says::Mixed => {
                let is_v6 = random.below(5) == 0;
                let subnet = if is_v6 { random.subnet6() } else { random.subnet4() };
                opt(out, UDP_PAYLOAD as u16, Some(subnet));
            }
        }
        Client { address: source, port: 1024 + random.below(60_000) as u16, transport: Transport::Udp }
    }

    /// Every answer is of the kind: otherwise something else would be measured.
    pub fn check(&self, snapshot: &Snapshot, asked: &[Asked<'_>]) {
        let mut out = [0; UDP_PAYLOAD];
        for asked in asked.iter().take(10_000) {
            let Outcome::Answered { length, .. } = respond(snapshot, asked.message, asked.client, &mut out) else {
                panic!("{}: no answer", self.name);
            };
            assert!(length <= UDP_PAYLOAD, "{}", self.name);
            let (code, records) = (out[3] & 0xF, u16::from_be_bytes([out[6], out[7]]));
            let is_right = match self.gives {
                // A rule of the rich world, and its regions with fewer addresses, give one.
                Gives::Records(count) => code == 0 && (1..=count).contains(&records) && out[2] & 2 == 0,
                Gives::Code(wanted) => code == wanted && records == 0 && out[2] & 2 == 0,
                Gives::Truncated => code == 0 && records == 0 && out[2] & 2 == 2,
            };
            assert!(is_right, "{}: {:x?}", self.name, &out[..length]);
        }
    }
}

/// OPT, with the first address of the client's subnet: a /24 or a /48 (RFC 7871 §6).
fn opt(out: &mut Vec<u8>, payload: u16, subnet: Option<IpAddr>) {
    out.extend([0, 0, 41]);
    out.extend(payload.to_be_bytes());
    out.extend([0; 4]);
    match subnet {
        None => out.extend([0, 0]),
        Some(IpAddr::V4(v4)) => {
            out.extend([0, 11, 0, 8, 0, 7, 0, 1, 24, 0]);
            out.extend(&v4.octets()[..3]);
        }
        Some(IpAddr::V6(v6)) => {
            out.extend([0, 14, 0, 8, 0, 10, 0, 2, 48, 0]);
            out.extend(&v6.octets()[..6]);
        }
    }
}
