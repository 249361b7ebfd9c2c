//! The transports, with a toy in the snapshot's place whose answers tests can foresee.

mod descriptors;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::counters::{Counters, Ledger, Totals};
use super::{Answers, BindError, Running, bind};
use crate::answer::query::HEADER_LEN;
use crate::answer::{Client, Outcome, Transport};
use crate::config::settings::TcpLimits;

/// Answers a query with the query and QR set. The last byte of a query may ask for more.
pub struct Toy {
    counters: Arc<Counters>,
    /// The second byte of answers' ID, to tell one toy from another; 0 leaves it.
    mark: u8,
}

/// As a query's last byte: this code panics.
const PANIC: u8 = b'!';
/// As a query's last byte: an answer of 60,000 bytes.
const LONG: u8 = b'L';
/// As a query's last byte: the answer ends with the client's address, as seen by `respond`.
const WHO: u8 = b'W';

impl Answers for Toy {
    type Pending<'q> = (&'q Toy, &'q [u8], Client);

    fn read<'q>(&'q self, query: &'q [u8], client: Client) -> Self::Pending<'q> {
        (self, query, client)
    }

    fn seek(_: &mut [Self::Pending<'_>]) {}

    fn write(&(toy, query, client): &Self::Pending<'_>, out: &mut [u8]) -> Outcome {
        if query.len() < HEADER_LEN || query[2] & 0x80 != 0 {
            return Outcome::Dropped;
        }
        assert!(out.len() >= if client.transport == Transport::Tcp { 65_535 } else { 1232 }, "room as promised");
        let last = query[query.len() - 1];
        assert_ne!(last, PANIC, "a query that panics");
        out[..query.len()].copy_from_slice(query);
        out[2] |= 0x80;
        if toy.mark != 0 {
            out[1] = toy.mark;
        }
        let mut length = query.len();
        match last {
            LONG => {
                length = 60_000.max(query.len());
                out[query.len()..length].fill(b'l');
            }
            WHO => {
                let IpAddr::V4(address) = client.address else { panic!("an IPv4 client") };
                out[length..length + 4].copy_from_slice(&address.octets());
                out[length + 4..length + 6].copy_from_slice(&client.port.to_be_bytes());
                length += 6;
            }
            _ => {}
        }
        // A header without a question, as a cut datagram leaves it.
        let rcode = if query.len() == HEADER_LEN { 1 } else { 0 };
        Outcome::Answered { length, rcode, zone: None, region: None, asked: None }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn epoch(&self) -> u64 {
        self.mark.into()
    }
}

/// A message with this ID and these bytes behind its header.
pub fn query(id: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(rest);
    bytes
}

fn answer(query: &[u8]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2] |= 0x80;
    bytes
}

/// A server of toys on a free port.
struct Server {
    address: SocketAddr,
    published: Arc<ArcSwap<Toy>>,
    ledger: Ledger,
    shutdown: CancellationToken,
    running: Running,
}

pub fn toy(workers: usize, mark: u8) -> Toy {
    Toy { counters: Arc::new(Counters::new(workers, Vec::new())), mark }
}

fn limits() -> TcpLimits {
    let s = Duration::from_secs(20);
    TcpLimits { connections: 1000, per_source: 1000, idle: s, read: s, pipeline: 16 }
}

impl Server {
    fn start(listen: &str, workers: usize, limits: TcpLimits) -> Server {
        let sockets = bind(&[listen.parse().unwrap()], workers).unwrap();
        Server::serve(sockets, limits)
    }

    fn serve(sockets: super::Sockets, limits: TcpLimits) -> Server {
        let toy = toy(sockets.workers(), 0);
        let ledger = Ledger::default();
        ledger.adopt(&toy.counters);
        let address = sockets.addresses()[0];
        let published = Arc::new(ArcSwap::from_pointee(toy));
        let shutdown = CancellationToken::new();
        let running = sockets.serve(published.clone(), limits, shutdown.clone()).unwrap();
        Server { address, published, ledger, shutdown, running }
    }

    async fn stop(self) -> Totals {
        self.shutdown.cancel();
        self.running.stopped().await;
        self.ledger.totals()
    }
}

/// Queries answered, whatever their RCODE.
fn answered(totals: &Totals, transport: &str) -> u64 {
    totals.queries.iter().filter(|(queries, _)| queries.transport == transport).map(|(_, n)| n).sum()
}
