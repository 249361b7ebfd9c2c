//! Viewers: client subnets from all over the world, and queries for them at a steady rate.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian::geo::cities;
use meridian::geo::{Database, Point};

use super::origins::Origins;

/// Networks that queries are drawn from.
const NETWORKS: usize = 60_000;
/// A query that is not answered by then is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time constant with which viewers of a lost region come back, s.
const RETURN_S: f64 = 12.0;
/// A burst of queries; one each millisecond at 20,000/s.
const BURST: f64 = 20.0;

/// Networks and the region nearest to each.
pub struct Population {
    networks: Vec<(Ipv4Addr, usize)>,
    by_region: Vec<Vec<Ipv4Addr>>,
}

impl Population {
    /// Networks of all that the bundled database places, each as likely as another.
    pub fn of_the_world(cities: &[&str]) -> Population {
        let database = Database::bundled();
        let regions: Vec<Point> = cities.iter().map(|city| cities::find(city).expect("a city").location).collect();
        let mut networks = Vec::with_capacity(NETWORKS);
        let mut random = Random(7);
        while networks.len() < NETWORKS {
            let address = Ipv4Addr::from((random.next() as u32) & !0xff);
            let Some(at) = database.lookup(address.into()).location.map(|told| told.value) else { continue };
            let nearest = (0..regions.len())
                .min_by(|a, b| at.distance_km(regions[*a]).total_cmp(&at.distance_km(regions[*b])))
                .expect("some");
            networks.push((address, nearest));
        }
        let mut by_region = vec![vec![]; cities.len()];
        networks.iter().for_each(|(network, region)| by_region[*region].push(*network));
        Population { networks, by_region }
    }

    /// The part of the queries from networks nearest to a region.
    pub fn part(&self, region: usize, surged: Option<usize>) -> f64 {
        let count = |r: usize| self.by_region[r].len() as f64 * if surged == Some(r) { 3.0 } else { 1.0 };
        count(region) / (0..self.by_region.len()).map(count).sum::<f64>()
    }

    fn draw(&self, random: &mut Random, surged: Option<usize>) -> Ipv4Addr {
        if let Some(region) = surged {
            // Three times as many there, as many as ever elsewhere: of all two more parts of that region.
            let more = 2.0 * self.by_region[region].len() as f64;
            if random.unit() < more / (more + self.networks.len() as f64) {
                return self.by_region[region][random.next() as usize % self.by_region[region].len()];
            }
        }
        self.networks[random.next() as usize % self.networks.len()].0
    }
}

pub struct Random(u64);

impl Random {
    /// SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub struct Viewers {
    socket: UdpSocket,
    population: Arc<Population>,
    random: Random,
    /// By message id: when it was asked, and how many viewers it stands for.
    pending: Vec<Option<(Instant, f64)>>,
    next_id: u16,
    /// Viewers who lost their region and have not come back yet, and since when.
    orphans: f64,
    back_from: usize,
    last_back: Instant,
    asked: u64,
    lost: u64,
    last_answer: Option<Instant>,
    longest_pause: Duration,
    latencies: Vec<Duration>,
}

impl Viewers {
    pub fn new(server: SocketAddr, population: Arc<Population>) -> Viewers {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.connect(server).expect("loopback");
        socket.set_nonblocking(true).expect("it can be");
        Viewers {
            socket,
            population,
            random: Random(1),
            pending: vec![None; 1 << 16],
            next_id: 0,
            orphans: 0.0,
            back_from: 0,
            last_back: Instant::now(),
            asked: 0,
            lost: 0,
            last_answer: None,
            longest_pause: Duration::ZERO,
            latencies: vec![],
        }
    }

    pub fn asked(&self) -> u64 {
        self.asked
    }

    pub fn lost(&self) -> u64 {
        self.lost
    }

    pub fn longest_pause(&self) -> Duration {
        self.longest_pause
    }

    /// So many lost their region: they ask again, most of them within half a minute.
    pub fn come_back(&mut self, orphans: f64, region: usize) {
        (self.orphans, self.back_from, self.last_back) = (orphans, region, Instant::now());
    }

    /// Asks at so many queries/s until then, and takes the answers.
    pub fn ask(&mut self, origins: &Origins, rate: f64, surged: Option<usize>, until: Instant) {
        // Three times the viewers of one region come on top of all others.
        let more = surged.map_or(0.0, |region| 2.0 * self.population.part(region, None));
        let rate = rate * (1.0 + more);
        let gap = Duration::from_secs_f64(BURST / rate);
        let mut due = Instant::now();
        self.last_answer = None;
        while due < until {
            for _ in 0..BURST as usize {
                let network = self.population.draw(&mut self.random, surged);
                self.query(network, 1.0);
            }
            self.orphans_ask();
            due += gap;
            loop {
                self.take(origins);
                if Instant::now() >= due {
                    break;
                }
                std::thread::yield_now();
            }
        }
    }

    /// Viewers of the dead region resolve again: a query stands for a hundred of them.
    fn orphans_ask(&mut self) {
        const BUNDLE: f64 = 100.0;
        let now = Instant::now();
        let part = 1.0 - (-(now - self.last_back).as_secs_f64() / RETURN_S).exp();
        let mut back = self.orphans * part;
        if back < BUNDLE && self.orphans >= BUNDLE {
            return;
        }
        self.last_back = now;
        while back >= BUNDLE {
            let region = &self.population.by_region[self.back_from];
            let network = region[self.random.next() as usize % region.len()];
            self.query(network, BUNDLE);
            self.orphans -= BUNDLE;
            back -= BUNDLE;
        }
    }

    fn query(&mut self, network: Ipv4Addr, viewers: f64) {
        self.next_id = self.next_id.wrapping_add(1);
        let now = Instant::now();
        if let Some((at, _)) = self.pending[usize::from(self.next_id)].replace((now, viewers))
            && now - at > PATIENCE
        {
            self.lost += 1;
        }
        self.asked += 1;
        // What the kernel does not take is a query without an answer.
        let _ = self.socket.send(&message(self.next_id, network));
    }

    fn take(&mut self, origins: &Origins) {
        let mut answer = [0; 1500];
        while let Ok(length) = self.socket.recv(&mut answer) {
            let now = Instant::now();
            if let Some(last) = self.last_answer.replace(now) {
                self.longest_pause = self.longest_pause.max(now - last);
            }
            let id = u16::from_be_bytes([answer[0], answer[1]]);
            let Some((at, viewers)) = self.pending[usize::from(id)].take() else { continue };
            self.latencies.push(now - at);
            match first_address(&answer[..length]).map(Origins::region_of) {
                Some(region) if origins.is_alive(region) => origins.begin(region, viewers),
                // To a dead region: they will ask again.
                Some(_) => self.orphans += viewers,
                None => self.lost += 1,
            }
        }
    }

    /// The p99 of the latencies of a slice, the rest of the world standing still.
    pub fn slice(&mut self, origins: &Origins, rate: f64, length: Duration) -> Duration {
        self.latencies.clear();
        self.ask(origins, rate, None, Instant::now() + length);
        self.latencies.sort_unstable();
        self.latencies[self.latencies.len() * 99 / 100]
    }
}

/// A query for live.example A with the network as client subnet.
fn message(id: u16, network: Ipv4Addr) -> Vec<u8> {
    let mut message = Vec::with_capacity(64);
    message.extend(id.to_be_bytes());
    message.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    message.extend(b"\x04live\x07example\x00\x00\x01\x00\x01");
    // OPT with one option: family 1, source 24, scope 0.
    message.extend([0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0]);
    message.extend(&network.octets()[..3]);
    message
}

/// Of an answer with a question of 18 bytes and A records behind it.
fn first_address(answer: &[u8]) -> Option<Ipv4Addr> {
    let records = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
    let rdata = answer.get(12 + 18 + 12..)?.first_chunk::<4>()?;
    (records > 0).then(|| Ipv4Addr::from(*rdata))
}
