//! One database file as runs of addresses under numbered records; what it holds has to be sound before it is believed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::SystemTime;

use ipnet::{Ipv4Net, Ipv6Net};
use maxminddb::{MaxMindDbError, Reader, WithinOptions};

use super::database::FileInfo;
use super::mmdb;
use super::ranges::{Builder, Ranges};
use super::record::{Record, Records};
use super::schema::{self, Attributes};

/// Whether a file has to prove itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Verify,
    /// Compiled in, and verified by a test.
    Ours,
}

/// "This network" (RFC 1122 §3.2.1.3): no client has such an address. Kept unknown whatever a file says, as it is also
/// where the zeros of a client subnet end that is too short to hold an embedded IPv4 address.
pub(super) const FIRST_V4: u32 = 1 << 24;

pub(super) struct Fault {
    pub what: String,
    pub rule: String,
}

const RULE: &str = "a database is a whole, sound file of the MaxMind DB format, version 2";

impl From<MaxMindDbError> for Fault {
    fn from(error: MaxMindDbError) -> Fault {
        Fault { what: format!("not a sound database: {error}"), rule: RULE.to_owned() }
    }
}

/// One file as runs under numbered records.
pub(super) fn read(
    path: &Path,
    bytes: Cow<'_, [u8]>,
    trust: Trust,
    file: u8,
    records: &mut Records,
) -> Result<(FileInfo, Ranges<u32>, Ranges<u64>), Fault> {
    let bytes = if trust == Trust::Verify { described(bytes)? } else { bytes };
    let reader = Reader::from_source(bytes)?;
    let unsound = AtomicBool::new(false);
    thread::scope(|scope| {
        // Either takes most of a second for a full City database, so they go side by side. What is read is believed only
        // when the verifier has seen the whole file: no cycles, no more networks than three times the nodes, every record
        // sound, and a bound on the work that records inside each other can make.
        let verifying = (trust == Trust::Verify).then(|| {
            scope.spawn(|| {
                let verdict = reader.verify();
                unsound.store(verdict.is_err(), Relaxed);
                verdict
            })
        });
        let runs = runs(&reader, path, file, records, &unsound);
        match verifying.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))) {
            Some(Err(fault)) => Err(fault.into()),
            _ => runs,
        }
    })
}

/// The runs of `reader`'s file; of one that is found `unsound` meanwhile any part.
fn runs(
    reader: &Reader<Cow<'_, [u8]>>,
    path: &Path,
    file: u8,
    records: &mut Records,
    unsound: &AtomicBool,
) -> Result<(FileInfo, Ranges<u32>, Ranges<u64>), Fault> {
    let metadata = reader.metadata();
    // More make the verifier refuse the file.
    let most = u64::from(metadata.node_count) * 3;
    let (mut v4, mut v6) = (Builder::default(), Builder::default());
    let mut sub64 = Sub64::default();
    // Many networks share one record: each is decoded once.
    let mut ids: HashMap<u32, u32, foldhash::fast::RandomState> = HashMap::default();
    let (mut networks, mut useful) = (0, false);
    for network in reader.networks(WithinOptions::default())? {
        let found = network?;
        // The format's pointers have 32 bits at most.
        let Some(offset) = found.offset().and_then(|offset| u32::try_from(offset).ok()) else { continue };
        networks += 1;
        if networks > most || unsound.load(Relaxed) {
            break;
        }
        let id = match ids.get(&offset) {
            Some(&id) => id,
            None => {
                let said = found.decode::<schema::Record>()?.unwrap_or_default().0;
                useful |= said != Attributes::default();
                let id = records.id(Record::new(said, file));
                ids.insert(offset, id);
                id
            }
        };
        let network = found.network()?;
        match network.ip() {
            IpAddr::V4(address) => {
                let net = Ipv4Net::new(address, network.prefix()).map_err(|_| odd_network(&network))?;
                v4.add(net.network().to_bits().max(FIRST_V4), net.broadcast().to_bits(), id);
            }
            IpAddr::V6(address) => {
                let net = Ipv6Net::new(address, network.prefix()).map_err(|_| odd_network(&network))?;
                let first = (net.network().to_bits() >> 64) as u64;
                let last = (net.broadcast().to_bits() >> 64) as u64;
                if net.prefix_len() > 64 {
                    sub64.add(first, net.prefix_len(), id, &mut v6);
                } else {
                    sub64.flush(&mut v6);
                    v6.add(first, last, id);
                }
                if net.network() == Ipv6Addr::UNSPECIFIED && net.prefix_len() <= 96 {
                    // A record above the IPv4 tree is that of every IPv4 address, as for any reader of the format.
                    v4.add(FIRST_V4, u32::MAX, id);
                }
            }
        }
    }
    sub64.flush(&mut v6);
    if !useful {
        return Err(Fault {
            what: format!("no use in this database ({}, {networks} networks)", kind(&metadata.database_type)),
            rule: "some record has to know a country, subdivision, continent, location or AS number".to_owned(),
        });
    }
    let info = FileInfo {
        path: path.into(),
        database_type: kind(&metadata.database_type),
        // A year beyond the clock's reach is as good as none.
        built: metadata.build_time().unwrap_or(SystemTime::UNIX_EPOCH),
        networks,
    };
    Ok((info, v4.finish(), v6.finish()))
}

/// The verifier refuses a file without a description before it looks at anything else, and those of ip-location-db have
/// none. Gives such a file one.
fn described(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, MaxMindDbError> {
    let reader = Reader::from_source(&*bytes)?;
    let metadata = reader.metadata();
    if !metadata.description.is_empty() && !metadata.database_type.is_empty() {
        return Ok(bytes);
    }
    let layout = mmdb::Layout {
        node_count: metadata.node_count,
        record_size: metadata.record_size,
        ip_version: metadata.ip_version,
    };
    let database_type = if metadata.database_type.is_empty() { "unnamed" } else { &metadata.database_type };
    let new = mmdb::Metadata { database_type, description: "none", build_epoch: metadata.build_epoch }.bytes(layout);
    let marker = bytes.windows(mmdb::METADATA_MARKER.len()).rposition(|window| window == mmdb::METADATA_MARKER);
    let mut bytes = bytes.into_owned();
    bytes.truncate(marker.expect("the reader has found the marker"));
    bytes.extend_from_slice(&new);
    Ok(Cow::Owned(bytes))
}

/// The maker's word for people, without what could upset a terminal or fill a log.
fn kind(database_type: &str) -> String {
    database_type.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn odd_network(network: &dyn fmt::Display) -> Fault {
    Fault { what: format!("a network of no possible length: {network}"), rule: RULE.to_owned() }
}

/// IPv6 networks longer than /64: the largest of them stands for its /64; of equal ones the first.
#[derive(Default)]
struct Sub64 {
    /// The /64, the length of the network that stands for it, and its record.
    pending: Option<(u64, u8, u32)>,
}

impl Sub64 {
    fn add(&mut self, block: u64, length: u8, id: u32, v6: &mut Builder<u64>) {
        match &mut self.pending {
            Some((pending, standing, record)) if *pending == block => {
                if length < *standing {
                    (*standing, *record) = (length, id);
                }
            }
            _ => {
                self.flush(v6);
                self.pending = Some((block, length, id));
            }
        }
    }

    fn flush(&mut self, v6: &mut Builder<u64>) {
        if let Some((block, _, id)) = self.pending.take() {
            v6.add(block, block, id);
        }
    }
}
