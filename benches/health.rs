//! How long it takes from a fault of an origin to the verdict, and what a probe costs.
//!
//! `cargo bench --bench health` prints p50, p99 and the worst of many kills and hangs on loopback, and processor time a
//! probe with a thousand origins on keep-alive connections (the origins' own time included, as they share the process).
//! Last, what ten thousand targets cost one core: their prober has a thread of its own, whose time alone is counted.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian::config::settings::{Check, CheckKind, HttpCheck};
use meridian::demo::origin::Origin;
use meridian::health::stats::Kind;
use meridian::health::{Event, Prober, Target, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// The defaults of a zone file.
const EVERY: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_millis(250);
const FALL: u32 = 3;

fn target(address: SocketAddr, rise: u32) -> Target {
    let http = HttpCheck { path: "/healthz".into(), host: "live.example".into(), status: vec![], contains: None };
    let kind = CheckKind::Http(http);
    Target {
        address,
        check: Arc::new(Check {
            kind,
            every: EVERY,
            timeout: TIMEOUT,
            adaptive: false,
            fall: FALL,
            rise,
            port: address.port(),
            heartbeat: None,
            load: Default::default(),
        }),
        beats_of: None,
    }
}

async fn until(events: &mut mpsc::Receiver<Event>, verdict: Verdict) -> Event {
    loop {
        let event = events.recv().await.expect("the prober lives");
        if event.verdict == verdict {
            return event;
        }
    }
}

fn print(what: &str, mut times: Vec<Duration>, bound: Option<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    print!("{what}: p50 {:.1?}, p99 {:.1?}, worst {:.1?} of {}", at(0.5), at(0.99), at(1.0), times.len());
    println!("{}", bound.map(|bound| format!("; bound {bound:.0?}")).unwrap_or_default());
}

async fn faults() {
    let origin = Origin::bind("127.0.0.41:0".parse().expect("an address")).await.expect("a free port");
    let (sender, mut events) = mpsc::channel(16);
    let mut prober = Prober::new(sender);
    prober.retarget(&[target(origin.address(), 1)]);
    until(&mut events, Verdict::Up).await;
    let (mut kills, mut hangs) = (vec![], vec![]);
    for round in 0..100u32 {
        // At another time of the interval each round.
        tokio::time::sleep(EVERY * (round * 37 % 100) / 100).await;
        let fault = Instant::now();
        if round % 2 == 0 {
            origin.kill().await
        } else {
            origin.hang().await.expect("it was up")
        }
        let event = until(&mut events, Verdict::Down).await;
        if round % 2 == 0 { &mut kills } else { &mut hangs }.push(event.at.duration_since(fault));
        origin.revive().await.expect("the port is free");
        until(&mut events, Verdict::Up).await;
    }
    print("killed to down", kills, None);
    print("hung to down", hangs, Some(EVERY + TIMEOUT * 2 + Duration::from_millis(20) * FALL));
}

/// Processor time so far of this process (`self`) or thread (`thread-self`), user and system, in clock ticks of 10 ms
/// (proc(5), stat).
fn ticks(of: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{of}/stat")).expect("proc is mounted");
    let after_name = stat.rsplit(')').next().expect("a name in parentheses");
    after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

async fn cost() {
    let mut origins = vec![];
    for n in 0..1_000u32 {
        let address = SocketAddr::from(([127, 0, (1 + n / 250) as u8, (1 + n % 250) as u8], 0));
        match Origin::bind(address).await {
            Ok(origin) => origins.push(origin),
            Err(error) => {
                println!("{error}: only {} origins", origins.len());
                break;
            }
        }
    }
    let targets: Vec<Target> = origins.iter().map(|origin| target(origin.address(), 1)).collect();
    let (sender, mut events) = mpsc::channel(2 * targets.len() + 1);
    let mut prober = Prober::new(sender);
    let start = Instant::now();
    prober.retarget(&targets);
    let left = prober.first_round(Duration::from_secs(10)).await;
    println!("first round of {} targets: {:.1?}, {left} without a verdict", targets.len(), start.elapsed());
    let probes = |prober: &Prober| prober.stats().targets().iter().map(|t| t.results(Kind::Success)).sum::<u64>();
    let (before, used) = (probes(&prober), ticks("self"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (count, used) = (probes(&prober) - before, ticks("self") - used);
    let each =
        Duration::from_millis(10) * u32::try_from(used).expect("few") / u32::try_from(count).expect("few").max(1);
    println!("{count} probes in 10 s: {each:.1?} of processor time each, origin included");
    let mut downs = 0;
    while let Ok(event) = events.try_recv() {
        downs += u32::from(event.verdict == Verdict::Down);
    }
    println!("false down verdicts: {downs}");
}

/// Answers each request on each connection, at any address of 127/8, until its standard input ends. Prints its port.
async fn origin() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("it is bound").port());
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                let mut request = [0; 2048];
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                while matches!(stream.read(&mut request).await, Ok(1..)) && stream.write_all(answer).await.is_ok() {}
            });
        }
    });
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await;
}

/// An origin in a process of its own, as ten thousand connections take as many file descriptors on each side.
fn answering() -> (Child, u16) {
    let program = std::env::current_exe().expect("it runs");
    let mut child = Command::new(program);
    let mut child = child.arg("--origin").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs twice");
    let mut line = String::new();
    let told = BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line);
    told.expect("the origin tells its port");
    (child, line.trim().parse().expect("a port"))
}

/// To be run on a thread of its own, by a runtime of that thread alone.
async fn storm(port: u16) {
    let spread = (0..40u8).flat_map(|c| (1..=250u8).map(move |d| SocketAddr::from(([127, 1, c, d], port))));
    let targets: Vec<Target> = spread.map(|address| target(address, 1)).collect();
    let (sender, mut events) = mpsc::channel(4 * targets.len());
    let mut prober = Prober::new(sender);
    let start = Instant::now();
    prober.retarget(&targets);
    let left = prober.first_round(Duration::from_secs(30)).await;
    println!("first round of {} targets: {:.1?}, {left} without a verdict", targets.len(), start.elapsed());
    let probes = |prober: &Prober| prober.stats().targets().iter().map(|t| t.results(Kind::Success)).sum::<u64>();
    let (before, used, start) = (probes(&prober), ticks("thread-self"), Instant::now());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (count, used) = (probes(&prober) - before, ticks("thread-self") - used);
    let took = start.elapsed().as_secs_f64();
    println!("{:.0} probes a second: {:.0} % of one core", count as f64 / took, used as f64 / took);
    let mut downs = 0;
    while let Ok(event) = events.try_recv() {
        downs += u32::from(event.verdict == Verdict::Down);
    }
    println!("false down verdicts: {downs}");
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it runs.
    if std::env::args().any(|argument| argument == "--origin") {
        origin().await;
        return;
    }
    if std::env::args().any(|argument| argument == "--bench") {
        faults().await;
        cost().await;
        let (mut origin, port) = answering();
        let one = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(storm(port));
        });
        one.join().expect("it does not panic");
        let _ = origin.kill();
        let _ = origin.wait();
    }
}
