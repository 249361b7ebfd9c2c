//! Static data of a zone: RRsets as RDATA bytes.

use hickory_proto::rr::{Name, RecordType};

/// The records of one owner and type (RFC 9499 §5): one TTL, RDATA without compression, no duplicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rrset {
    pub owner: Name,
    pub rtype: RecordType,
    /// Seconds.
    pub ttl: u32,
    /// RDATA in wire form, names uncompressed; never empty, in the order written.
    pub rdata: Vec<Box<[u8]>>,
}
