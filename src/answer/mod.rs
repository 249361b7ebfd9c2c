//! Wire query in, wire answer out: [`respond`], the one answering engine of every transport and tool.

use std::net::IpAddr;

use crate::snapshot::Snapshot;

/// How a query came; it decides how long an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Answers are cut at what the query's OPT allows, at most [`UDP_PAYLOAD`] bytes.
    Udp,
    /// Answers up to 65,535 bytes.
    Tcp,
}

/// Largest UDP answer, and the payload size that we advertise (DNS flag day 2020).
pub const UDP_PAYLOAD: usize = 1232;

/// Who asks, as the socket knows it.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub address: IpAddr,
    pub port: u16,
    pub transport: Transport,
}

/// What was done with a query, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing may be sent: too short for a header, or itself a response.
    Dropped,
    Answered {
        /// Bytes written to the front of `out`.
        length: usize,
        /// The 12-bit extended RCODE (RFC 6891 §6.1.3).
        rcode: u16,
        /// Position in the snapshot's zones; `None` outside all of them.
        zone: Option<u32>,
        /// Position in the zone's regions, when a steered address RRset was given.
        region: Option<u8>,
    },
}

/// Answers one message. Pure: no I/O, no lock, no clock, no allocation.
///
/// `out` holds at least [`UDP_PAYLOAD`] bytes for UDP and 65,535 for TCP.
pub fn respond(_snapshot: &Snapshot, _query: &[u8], _client: Client, _out: &mut [u8]) -> Outcome {
    todo!()
}
