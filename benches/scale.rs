//! What the control side costs when there is much of everything: zones, names, regions, servers.
//!
//! `cargo bench --bench scale` makes each world in files, loads it in a process of its own (so that memory is that world's
//! alone), and prints one line a figure. `cargo bench --bench scale -- shared` takes one world. The worlds:
//!
//! * `shared`: 10,000 zones of one steered name, which all use the same 8 regions of 10 servers of `meridian.toml`
//! * `wide`: the same with 64 regions of 100 servers
//! * `own`: 10,000 zones with a probed region of their own and a shared one; 10,000 targets
//! * `needy`: 10,000 zones as `shared`, where each name needs a login zone's name
//! * `names`: 10 zones of 10,000 steered names each, with 8 shared regions
//! * `servers`: one zone of 64 regions of 100 servers
//!
//! Verdict to snapshot is the way through the real loop: from the event in its channel to the published snapshot as a
//! reader sees it. The loop is free again once it answers a question asked after that.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use meridian::control::load::{Load, Loaded, Loader, NodeFile, Sources};
use meridian::control::watch::Watcher;
use meridian::control::{self, Event, Parts, Tally};
use meridian::health::beats::Beats;
use meridian::health::{self, Prober, Verdict};
use meridian::server::counters::Ledger;
use meridian::snapshot::standing::{Share, Standing};
use meridian::snapshot::{Published, Served, Snapshot, TargetId, effect};
use meridian::state::keeper::Keeper;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

const WORLDS: [&str; 6] = ["shared", "wide", "own", "needy", "names", "servers"];
const ZONES: usize = 10_000;
/// Flips timed one by one.
const FLIPS: usize = 400;
/// Flips given at once.
const STORM: usize = 1000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [flag, world] if flag == "--world" => measure(world),
        [] => WORLDS.iter().for_each(|world| apart(world)),
        worlds => worlds.iter().for_each(|world| apart(world)),
    }
}

fn apart(world: &str) {
    let program = std::env::current_exe().expect("it runs");
    let status = Command::new(program).args(["--world", world]).status().expect("it runs twice");
    assert!(status.success(), "{world} failed");
}

/// Region `n` of so many, spread over the globe. Each region is a /24, or half a /16 of servers.
fn region(n: usize, net: u8, servers: usize) -> String {
    let (lat, lon) = (n as f64 * 37.0 % 120.0 - 50.0, n as f64 * 67.0 % 340.0 - 170.0);
    let list: Vec<String> = (1..=servers).map(|server| format!("\"10.{net}.{n}.{server}\"")).collect();
    format!("[region.r{n}]\nat = [{lat:.2}, {lon:.2}]\na = [{}]\n", list.join(", "))
}

fn write(world: &str, folder: &Path) {
    let zones = folder.join("zones");
    std::fs::create_dir(&zones).expect("a new directory");
    let mut node = format!("zones = {zones:?}\nstate = {:?}\n", folder.join("state"));
    let shared = |regions: usize, servers: usize| {
        (0..regions).fold("[check]\ntcp = 9\n".to_owned(), |text, n| text + &region(n, 1, servers))
    };
    let zone = |name: &str, rest: &str| {
        let text = format!("zone = \"{name}\"\nns = [\"ns1.example.net\", \"ns2.example.net\"]\n{rest}");
        std::fs::write(zones.join(format!("{name}.toml")), text).expect("a new file");
    };
    match world {
        "shared" | "wide" => {
            node += &if world == "wide" { shared(64, 100) } else { shared(8, 10) };
            (0..ZONES).for_each(|z| zone(&format!("z{z}.example"), "[stream.live]\n"));
        }
        "own" => {
            node += &region(0, 1, 2);
            for z in 0..ZONES {
                let address = format!("10.{}.{}.{}", 100 + z / 62_500, z / 250 % 250, 1 + z % 250);
                let own =
                    format!("[check]\ntcp = 9\n[region.own]\nat = [50.0, 8.0]\na = [\"{address}\"]\n[stream.live]\n");
                zone(&format!("z{z}.example"), &own);
            }
        }
        "needy" => {
            node += &shared(8, 10);
            zone(
                "login.example",
                "[region.r0]\nat = [0, 0]\na = [\"10.9.0.1\"]\n[region.r1]\nat = [9, 9]\na = [\"10.9.0.2\"]\n[stream.\"@\"]\n",
            );
            (0..ZONES).for_each(|z| zone(&format!("z{z}.example"), "[stream.live]\nneeds = [\"login.example.\"]\n"));
        }
        "names" => {
            node += &shared(8, 10);
            for z in 0..10 {
                let mut streams = String::new();
                (0..ZONES).for_each(|n| writeln!(streams, "[stream.s{n}]").expect("a string grows"));
                zone(&format!("z{z}.example"), &streams);
            }
        }
        "servers" => zone("z.example", &(shared(64, 100) + "[stream.live]\n")),
        _ => panic!("no world is called {world}: {WORLDS:?}"),
    }
    std::fs::write(folder.join("meridian.toml"), node).expect("a new file");
}

fn line(what: &str, took: Duration) {
    println!("    {what:<44} {took:>10.1?}");
}

/// Median, 99th percentile and worst.
fn lines(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "    {what:<44} {:>10.1?} median {:>10.1?} p99 {:>10.1?} worst of {}",
        at(0.5),
        at(0.99),
        at(1.0),
        times.len()
    );
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    line(what, start.elapsed());
    result
}

/// MiB of this process: resident now, and at most so far.
fn memory() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect("the kernel tells it");
        line.split_whitespace().nth(1).expect("a number").parse::<f64>().expect("a number") / 1024.0
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn measure(world: &str) {
    let folder = tempfile::tempdir().expect("a directory");
    write(world, folder.path());
    println!("{world}");
    let before = memory().0;
    let sources = Sources { config: Some(folder.path().join("meridian.toml")), ..Sources::default() };
    let files = timed("files read and checked", || {
        let node = NodeFile::read(&sources).unwrap_or_else(|refused| panic!("{:?}", refused.diagnostics));
        node.load(None).unwrap_or_else(|refused| panic!("{:?}", refused.diagnostics.first()))
    });
    let read = memory().0;
    let database = Arc::clone(&files.database);
    let gate = Arc::new(meridian::admin::access::Gate::new(files.node.access.clone(), ([127, 0, 0, 1], 0).into()));
    let (loader, Loaded { snapshot, .. }) =
        timed("first snapshot, compiled", || Loader::new(sources, files, gate, Arc::default()));
    let compiled = memory().0;
    let served: Vec<Served> = snapshot.zones().to_vec();
    let (zones, names, targets) = (served.len(), snapshot.streams().len(), snapshot.targets().len());
    println!("    {zones} zones, {names} steered names, {targets} targets, {} cells", snapshot.geography().cells);
    let per = |bytes: f64| bytes * 1024.0 * 1024.0 / names as f64;
    println!(
        "    memory: {:.0} MiB for what was read (database included), {:.0} MiB more compiled; {:.0} bytes a name in all",
        read - before,
        compiled - read,
        per(compiled - before)
    );

    let again = timed("compiled anew, with the one before", || {
        Snapshot::compile(served, &database, |_| Verdict::Unknown, Some(&snapshot))
    });
    timed("... and dropped", || drop(again));
    flips(&snapshot);
    through_the_loop(snapshot, loader);
    let (now, most) = memory();
    println!("    memory at the end: {now:.0} MiB, at most {most:.0} MiB");
}

/// Snapshots made of snapshots, without the loop.
fn flips(snapshot: &Snapshot) {
    let targets = snapshot.targets().len();
    let (mut making, mut dropping) = (vec![], vec![]);
    for n in 0..FLIPS {
        let start = Instant::now();
        let after = snapshot.with_verdicts(&[(TargetId((n * 7919 % targets) as u32), Verdict::Down)]);
        making.push(start.elapsed());
        let start = Instant::now();
        drop(after);
        dropping.push(start.elapsed());
    }
    lines("with_verdicts of one flip", making);
    lines("... and dropped", dropping);
    let making = (0..FLIPS).map(|n| {
        let at = snapshot.users(TargetId((n * 7919 % targets) as u32)).next().expect("it is used");
        let standing = Standing { share: Share::of(0.5), ..Standing::default() };
        let start = Instant::now();
        let after = snapshot.with_standings([(at, standing)]);
        let took = start.elapsed();
        drop(after);
        took
    });
    lines("with_standings of one region", making.collect());
    let after = snapshot.with_verdicts(&[(TargetId(0), Verdict::Down)]);
    timed("effect on one zone", || effect::between(snapshot, &after, 0));
}

fn through_the_loop(snapshot: Snapshot, loader: Loader) {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let published: Published = Arc::new(ArcSwap::from_pointee(snapshot));
    let (verdicts, verdict_receiver) = mpsc::channel(4096);
    let (events, event_receiver) = mpsc::channel(control::QUEUE);
    // Nothing is probed: this program speaks for the probes.
    let (elsewhere, _) = mpsc::channel(1);
    let (keeper, restored) = Keeper::in_memory();
    let load: Load = Arc::new(move |previous, beliefs| {
        let start = Instant::now();
        let loaded = loader.load(previous, beliefs);
        line("reload: read and compiled", start.elapsed());
        loaded
    });
    let parts = Parts {
        published: Arc::clone(&published),
        load,
        watcher: Watcher::start(|| true).expect("a thread"),
        prober: Prober::new(elsewhere),
        verdicts: verdict_receiver,
        events: event_receiver,
        ledger: Arc::new(Ledger::default()),
        tally: Arc::new(Tally::default()),
        beats: Beats::default(),
        loads: Default::default(),
        keeper: Arc::new(keeper),
        restored,
        helm: None,
    };
    let stop = CancellationToken::new();
    let _inside = runtime.enter();
    let control = timed("the loop begins", || control::start(parts, stop.clone()));
    let rig = Rig { published, verdicts, events };
    rig.ask();
    for (verdict, what) in [(Verdict::Down, "verdict down to snapshot"), (Verdict::Up, "verdict up to snapshot")] {
        let (mut reaching, mut freeing) = (vec![], vec![]);
        for n in 0..FLIPS / 4 {
            let target = rig.target(n);
            let start = Instant::now();
            rig.say(target, verdict);
            rig.wait_for(target, verdict);
            reaching.push(start.elapsed());
            rig.ask();
            freeing.push(start.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
        lines(what, reaching);
        lines("... and the loop free again", freeing);
    }
    let start = Instant::now();
    (0..STORM).for_each(|n| {
        rig.say(rig.target(n), if (n / rig.targets()).is_multiple_of(2) { Verdict::Down } else { Verdict::Up })
    });
    rig.ask();
    line("1,000 verdicts at once, all published", start.elapsed());

    let before = rig.published.load().generation();
    let (reply, mut outcome) = oneshot::channel();
    let start = Instant::now();
    rig.events.blocking_send(Event::Reload(reply)).expect("the loop lives");
    let mut asking = vec![];
    while outcome.try_recv().is_err() {
        let asked = Instant::now();
        rig.ask();
        asking.push(asked.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    line("reload, from asked to told", start.elapsed());
    assert!(rig.published.load().generation() > before, "it was refused");
    line("... the loop held up at most", asking.into_iter().max().unwrap_or_default());
    stop.cancel();
    runtime.block_on(control).expect("the loop ends");
}

struct Rig {
    published: Published,
    verdicts: mpsc::Sender<health::Event>,
    events: mpsc::Sender<Event>,
}

impl Rig {
    fn targets(&self) -> usize {
        self.published.load().targets().len()
    }

    /// The `n`th of them, spread over the regions.
    fn target(&self, n: usize) -> TargetId {
        TargetId((n * 7919 % self.targets()) as u32)
    }

    fn say(&self, target: TargetId, verdict: Verdict) {
        let target = Arc::new(self.published.load().targets()[target.0 as usize].clone());
        let event = health::Event { target, verdict, cause: "refused".into(), at: Instant::now() };
        self.verdicts.blocking_send(event).expect("the loop lives");
    }

    fn wait_for(&self, target: TargetId, verdict: Verdict) {
        let asked = Instant::now();
        while self.published.load().verdict(target) != verdict {
            assert!(asked.elapsed() < Duration::from_secs(60), "no verdict was published");
            std::hint::spin_loop();
        }
    }

    /// Returns when the loop has done all that it was told before.
    fn ask(&self) {
        let (reply, view) = oneshot::channel();
        self.events.blocking_send(Event::View(reply)).expect("the loop lives");
        view.blocking_recv().expect("the loop lives");
    }
}
