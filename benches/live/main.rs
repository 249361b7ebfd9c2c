//! Steering by load, live on loopback: a node of the real program, six regions of toy origins that tell their load in the
//! ORCA header of the probe's answer, and 20,000 queries a second with client subnets from all over the world. Each answer
//! starts a session at the origin that it names. Viewers of one continent become three times as many; then the fullest
//! region is killed, and its viewers ask again within seconds. Origins begin as full as the nearest viewers would make them.
//!
//! `cargo bench --bench live [-- --rate N --steady S --surge S --loss S --latency ROUNDS]` prints the utilisation of each
//! region every twenty seconds and at its worst, how many queries went without an answer, and the p99 latency of the same node
//! without capacities beside it, in slices that take turns. Sessions last five minutes.

mod origins;
mod viewers;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use origins::Origins;
use viewers::{Population, Viewers};

/// Region, city, part of all capacity.
const REGIONS: [(&str, &str, f64); 6] = [
    ("us-east", "Ashburn", 0.26),
    ("us-west", "San Jose, US", 0.12),
    ("eu", "Frankfurt", 0.26),
    ("sa", "São Paulo", 0.10),
    ("ap-north", "Tokyo", 0.16),
    ("ap-south", "Singapore", 0.10),
];
/// Mean length of a session, s.
const DWELL_S: f64 = 300.0;
/// Sessions that the steady rate makes, as a part of all capacity.
const FULL: f64 = 0.42;

struct Options {
    rate: f64,
    steady: u64,
    surge: u64,
    loss: u64,
    latency: u32,
}

impl Options {
    fn read() -> Options {
        let mut options = Options { rate: 20_000.0, steady: 120, surge: 400, loss: 180, latency: 20 };
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let value: f64 = words.next().and_then(|value| value.parse().ok()).unwrap_or_else(|| usage(&word));
            match &*word {
                "--rate" => options.rate = value,
                "--steady" => options.steady = value as u64,
                "--surge" => options.surge = value as u64,
                "--loss" => options.loss = value as u64,
                "--latency" => options.latency = value as u32,
                _ => usage(&word),
            }
        }
        options
    }
}

fn usage(word: &str) -> ! {
    eprintln!("{word}: --rate, --steady, --surge, --loss and --latency take a number each");
    std::process::exit(2)
}

/// A node, ended with its handle.
struct Node {
    child: Child,
    dns: SocketAddr,
    _files: tempfile::TempDir,
}

impl Node {
    fn start(origins: &Origins, capacity: Option<f64>) -> Node {
        let files = tempfile::tempdir().expect("a directory");
        let zones = files.path().join("zones");
        fs::create_dir(&zones).expect("a directory");
        let mut zone = String::from(
            "zone = \"live.example\"\nns = [\"ns1.example.net\"]\nttl = \"10s\"\n[check]\nhttp = \"/healthz\"\nhost = \"live.example\"\n",
        );
        for (region, (name, near, part)) in REGIONS.iter().enumerate() {
            let (public, probe) = (origins.public(region), origins.probed(region));
            zone += &format!("[region.{name}]\nnear = \"{near}\"\nramp = \"60s\"\n");
            if let Some(capacity) = capacity {
                zone += &format!("capacity = \"{:.0} sessions\"\n", capacity * part);
            }
            zone += &format!("[[region.{name}.server]]\na = \"{public}\"\nprobe = \"{probe}\"\n");
        }
        fs::write(zones.join("live.toml"), zone).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_meridian"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1", "--zones"])
            .arg(&zones)
            .arg("--state")
            .arg(files.path().join("state"))
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let dns = loop {
            let line = lines.next().expect("it says that it answers").expect("text");
            let at = line.split_whitespace().find_map(|word| word.strip_prefix("dns="));
            if let Some(at) = at.filter(|_| line.contains("answering")) {
                break at.trim_matches('"').parse().expect("an address");
            }
        };
        // Its words are of use when something goes wrong; unread they would hold it up.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if std::env::var_os("LIVE_LOG").is_some() {
                    eprintln!("{line}");
                }
            }
        });
        Node { child, dns, _files: files }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() {
    let options = Options::read();
    let population = Arc::new(Population::of_the_world(&REGIONS.map(|(_, near, _)| near)));
    let capacity = options.rate * DWELL_S / FULL;
    let origins = Origins::start(REGIONS.len(), DWELL_S);
    let node = Node::start(&origins, Some(capacity));
    let capacities: Vec<f64> = REGIONS.iter().map(|(_, _, part)| capacity * part).collect();
    let mut stage = Stage { origins: &origins, capacities: &capacities, worst: vec![0.0; REGIONS.len()] };
    let mut viewers = Viewers::new(node.dns, population.clone());

    println!("{:<24}{}", "", REGIONS.map(|(name, ..)| format!("{name:>10}")).concat());
    let nearest: Vec<f64> = (0..REGIONS.len())
        .map(|region| population.part(region, None) * options.rate * DWELL_S / capacities[region])
        .collect();
    stage.line("nearest alone would be", &nearest);
    let surged = 2; // eu
    let all: f64 = (0..REGIONS.len()).map(|region| population.part(region, None)).sum();
    let surge = |region: usize| nearest[region] * if region == surged { 3.0 } else { 1.0 } / all;
    stage.line("... and in the surge", &(0..REGIONS.len()).map(surge).collect::<Vec<_>>());
    for (region, (part, capacity)) in nearest.iter().zip(&capacities).enumerate() {
        origins.begin(region, part * capacity);
    }
    stage.watch("steady", &mut viewers, options.steady, options.rate, None);
    stage.begin();
    stage.watch("surge: eu × 3", &mut viewers, options.surge, options.rate, Some(surged));
    stage.told("worst in the surge");
    let fullest = (0..REGIONS.len()).max_by(|a, b| origins.sessions(*a).total_cmp(&origins.sessions(*b))).expect("six");
    println!("{} is killed with {:.0} sessions", REGIONS[fullest].0, origins.sessions(fullest));
    let orphans = origins.kill(fullest);
    viewers.come_back(orphans, fullest);
    stage.begin();
    stage.watch("loss", &mut viewers, options.loss, options.rate, Some(surged));
    stage.told("worst after the loss");
    println!(
        "queries {}, without an answer within 1 s {} ({:.4} %); the longest pause between answers {:?}",
        viewers.asked(),
        viewers.lost(),
        viewers.lost() as f64 / viewers.asked() as f64 * 100.0,
        viewers.longest_pause()
    );
    origins.revive(fullest);

    if options.latency > 0 {
        let plain = Node::start(&origins, None);
        // Whoever still looks for a region would ask the one and not the other.
        let mut viewers = Viewers::new(node.dns, population.clone());
        let mut other = Viewers::new(plain.dns, population);
        let (mut ratios, mut with, mut without) = (vec![], vec![], vec![]);
        for _ in 0..options.latency {
            let a = viewers.slice(&origins, options.rate, Duration::from_secs(3));
            let b = other.slice(&origins, options.rate, Duration::from_secs(3));
            ratios.push(a.as_secs_f64() / b.as_secs_f64());
            with.push(a.as_secs_f64() * 1e6);
            without.push(b.as_secs_f64() * 1e6);
        }
        println!(
            "p99 of {} pairs of slices: {:.0} µs steered by load, {:.0} µs without, ratio {:.2} (medians)",
            options.latency,
            median(&mut with),
            median(&mut without),
            median(&mut ratios)
        );
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Stage<'a> {
    origins: &'a Origins,
    capacities: &'a [f64],
    worst: Vec<f64>,
}

impl Stage<'_> {
    fn begin(&mut self) {
        self.worst.fill(0.0);
    }

    fn line(&self, what: &str, utilisations: &[f64]) {
        println!("{what:<24}{}", utilisations.iter().map(|u| format!("{:>9.0}%", u * 100.0)).collect::<String>());
    }

    fn utilisations(&self) -> Vec<f64> {
        self.capacities.iter().enumerate().map(|(region, k)| self.origins.sessions(region) / k).collect()
    }

    fn watch(&mut self, what: &str, viewers: &mut Viewers, seconds: u64, rate: f64, surged: Option<usize>) {
        let start = Instant::now();
        for second in 1..=seconds {
            let until = start + Duration::from_secs(second);
            viewers.ask(self.origins, rate, surged, until);
            let now = self.utilisations();
            self.worst.iter_mut().zip(&now).for_each(|(worst, now)| *worst = worst.max(*now));
            if second % 20 == 0 {
                self.line(&format!("{what}, {second} s"), &now);
            }
        }
    }

    fn told(&self, what: &str) {
        self.line(what, &self.worst);
    }
}
