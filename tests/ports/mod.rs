//! Addresses for servers that dig is to ask.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// An address of ours whose port is free for UDP and TCP, at least until somebody else is given it.
///
/// Below the ephemeral ports: dig shares the port that it is given with whoever allows it, as the sockets of our workers
/// must. Of thousands of digs one would come to share the server's, and be answered by itself.
pub fn free_address() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let is_free = |address: &SocketAddr| UdpSocket::bind(address).and(TcpListener::bind(address)).is_ok();
    // Each address once, and another beginning for each of the processes that test side by side.
    let first = std::process::id() * 7;
    let port = |_| 10_000 + (first + GIVEN.fetch_add(1, Relaxed)) % 20_000;
    let mut addresses = (0..20_000).map(port).map(|port| SocketAddr::from(([127, 0, 0, 1], port as u16)));
    addresses.find(is_free).expect("a port is free for UDP and TCP")
}
