//! Clients in several cities: where the node sends them, and how long it takes to send them elsewhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::Message;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::stage::STREAM;
use crate::answer::UDP_PAYLOAD;
use crate::explain::Basis;
use crate::explain::ask::{Ask, explain};
use crate::snapshot::Snapshot;
use crate::world::{Beliefs, View};

/// A network that the bundled database places in or near a city.
#[derive(Debug)]
pub struct Viewer {
    pub city: &'static str,
    pub network: &'static str,
    /// The demo's region nearest to it.
    pub home: &'static str,
}

const fn viewer(city: &'static str, network: &'static str, home: &'static str) -> Viewer {
    Viewer { city, network, home }
}

/// At least one at home in each region of the demo.
pub const VIEWERS: [Viewer; 13] = [
    viewer("New York", "71.183.0.0/24", "ashburn"),
    viewer("San Francisco", "24.6.0.0/24", "san-jose"),
    viewer("São Paulo", "177.32.0.0/24", "sao-paulo"),
    viewer("Lima", "200.89.0.0/24", "sao-paulo"),
    viewer("London", "81.2.69.0/24", "london"),
    viewer("Paris", "2a01:e34::/48", "london"),
    viewer("Frankfurt", "88.64.0.0/24", "frankfurt"),
    viewer("Lagos", "197.210.0.0/24", "johannesburg"),
    viewer("Johannesburg", "105.184.0.0/24", "johannesburg"),
    viewer("Mumbai", "49.36.0.0/24", "mumbai"),
    viewer("Singapore", "116.86.0.0/24", "singapore"),
    viewer("Tokyo", "126.0.0.0/24", "tokyo"),
    viewer("Sydney", "58.96.0.0/24", "sydney"),
];

/// Where a viewer is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub region: String,
    pub cost_ms: Option<f64>,
    pub distance_km: Option<f64>,
    pub addresses: Vec<String>,
}

impl Viewer {
    fn ask(&self) -> Ask {
        Ask::read(STREAM, "A", self.network).expect("the demo's own words")
    }

    /// As the published snapshot answers now.
    pub fn sent_by(&self, snapshot: &Arc<Snapshot>) -> Option<Sent> {
        let view = View::of(Arc::clone(snapshot), Arc::new(Beliefs::new()));
        let steering = explain(&self.ask(), &view, Basis::Server, SystemTime::now()).steering?;
        let region = steering.regions.into_iter().find(|region| region.chosen)?;
        let given = region.servers.into_iter().filter(|server| server.given);
        Some(Sent {
            region: region.name,
            cost_ms: region.cost_ms,
            distance_km: region.distance_km,
            addresses: given.map(|server| server.address).collect(),
        })
    }
}

/// Asks the node over UDP on behalf of one viewer, as a resolver would.
pub struct Resolver {
    socket: UdpSocket,
    query: Vec<u8>,
    next_id: u16,
}

/// A lost answer is asked for again after this.
const PATIENCE: Duration = Duration::from_millis(100);
/// Between two questions about the same answer.
const PACE: Duration = Duration::from_micros(500);

impl Resolver {
    pub async fn new(dns: SocketAddr, viewer: &Viewer) -> io::Result<Resolver> {
        // A node that listens on all addresses is reached on loopback.
        let to: SocketAddr = match dns.ip().is_unspecified() {
            true => (Ipv4Addr::LOCALHOST, dns.port()).into(),
            false => dns,
        };
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("an address");
        let socket = UdpSocket::bind(any).await?;
        socket.connect(to).await?;
        Ok(Resolver { socket, query: viewer.ask().message(), next_id: 1 })
    }

    /// The addresses in the answer; `None` when none came in time.
    pub async fn ask(&mut self) -> io::Result<Option<Vec<IpAddr>>> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.query[..2].copy_from_slice(&id.to_be_bytes());
        self.socket.send(&self.query).await?;
        let mut buffer = [0; UDP_PAYLOAD];
        let answer = timeout(PATIENCE, async {
            loop {
                let length = self.socket.recv(&mut buffer).await?;
                // Another id: late, for an earlier question.
                if let Ok(message) = Message::from_vec(&buffer[..length])
                    && message.metadata.id == id
                {
                    return io::Result::Ok(message);
                }
            }
        });
        match answer.await {
            Ok(message) => Ok(Some(message?.answers.iter().filter_map(|record| record.data.ip_addr()).collect())),
            Err(_elapsed) => Ok(None),
        }
    }

    /// Asks until the answer is as wanted, and tells how long after `since` that was; `None` after `limit`.
    pub async fn wait_until(
        &mut self,
        since: Instant,
        limit: Duration,
        wanted: impl Fn(&[IpAddr]) -> bool,
    ) -> io::Result<Option<(Duration, Vec<IpAddr>)>> {
        while since.elapsed() < limit {
            if let Some(addresses) = self.ask().await?
                && wanted(&addresses)
            {
                return Ok(Some((since.elapsed(), addresses)));
            }
            sleep(PACE).await;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Shared, load_zones};
    use crate::geo::Database;
    use crate::health::Verdict;
    use crate::snapshot::Served;

    #[test]
    fn the_bundled_database_sends_each_viewer_home() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("zone.toml"), include_str!("zone.toml")).unwrap();
        let mut loaded = load_zones(&[dir.path().to_owned()], &Shared::default());
        assert_eq!(loaded.diagnostics, []);
        let served = Served { zone: Arc::new(loaded.zones.remove(0)), serial: 1 };
        let database = Arc::new(Database::bundled());
        let snapshot = Arc::new(Snapshot::compile(vec![served], &database, |_| Verdict::Up, None));
        for viewer in &VIEWERS {
            let sent = viewer.sent_by(&snapshot).unwrap();
            assert_eq!((viewer.city, &*sent.region), (viewer.city, viewer.home));
            assert_eq!(sent.addresses.len(), 2);
        }
    }
}
