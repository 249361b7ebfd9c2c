//! Static data of a zone: RRsets as RDATA bytes.
//!
//! * [`presentation`]: the tokens, escapes and names of zone files (RFC 1035 §5.1), and the [`Fault`] that names what
//!   is wrong with one.
//! * [`rdata`]: the presentation format of a record's data becomes RDATA in wire form.

pub mod presentation;
pub mod rdata;

use hickory_proto::rr::{Name, RecordType};

pub use presentation::Fault;

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
