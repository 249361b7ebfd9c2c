//! A whole node: from files to answers, and to its end.
//!
//! The order of the start: the node's own file is read, sockets are bound, so that a port in use is known at once, the
//! other files are read and checked, the first snapshot is compiled with nothing believed, every server is probed once, and only then queries are read from the sockets. What arrives before waits in
//! the kernel, so the first answer already knows which servers are down.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use axum::Router;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin::access::Gate;
use crate::admin::events::STREAMS;
use crate::admin::rates::Rates;
use crate::admin::{self, Admin, metrics};
use crate::config::Diagnostic;
use crate::config::settings::{Heartbeat, Node as Settings};
use crate::control::helm::{self, Helm};
use crate::control::learned;
use crate::control::load::{Loaded, Loader, NodeFile, Refused, Sources};
use crate::control::senses::{Live, Taps};
use crate::control::watch::Watcher;
use crate::control::{self, Event, Parts, Tally};
use crate::health::beats::keys::{KeyFile, Unusable};
use crate::health::beats::{Beats, Ears, Receiver};
use crate::health::{Prober, Verdict};
use crate::journal::{Kind, Note};
use crate::load::Desk;
use crate::pilot::Pilot;
use crate::scale;
use crate::server::counters::Ledger;
use crate::server::{self, BindError, Running, Sockets};
use crate::snapshot::Published;
use crate::state::keeper::Keeper;

/// A server that has not answered its first probe by then counts as up.
const FIRST_ROUND: Duration = Duration::from_secs(2);
/// Words about agents on their way to the journal.
const AGENT_EVENTS: usize = 1024;
/// Verdicts on their way to the control loop.
const VERDICTS: usize = 4096;

/// Why a node cannot start.
#[derive(Debug)]
pub enum StartError {
    /// Faults of the files, to be shown before the error itself.
    Refused(Vec<Diagnostic>),
    Bind(BindError),
    Admin {
        address: SocketAddr,
        cause: io::Error,
    },
    /// Of heartbeats.
    Heartbeat {
        address: SocketAddr,
        cause: io::Error,
    },
    Keys(Unusable),
    /// A CPU of `cpus` that threads cannot be bound to.
    Cpu(u16),
    /// The system gives no thread or file descriptor.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Refused(diagnostics) => {
                let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
                write!(f, "not started: {errors} {} in the files", if errors == 1 { "error" } else { "errors" })
            }
            StartError::Bind(error) => write!(f, "{error}"),
            StartError::Admin { address, cause } => {
                write!(
                    f,
                    "cannot listen on {address} (admin): {cause}\n  help: stop the other program, or choose with --admin"
                )
            }
            StartError::Heartbeat { address, cause } => {
                let help = "stop the other program, or choose with `listen` in [heartbeat]";
                write!(f, "cannot listen on {address} (heartbeats): {cause}\n  help: {help}")
            }
            StartError::Keys(cause) => {
                let help = "`keys` in [heartbeat] names the file; `meridian agent --new-key NAME` prints a line for it";
                write!(f, "the keys of heartbeats cannot be used: {cause}\n  help: {help}")
            }
            StartError::Cpu(cpu) => {
                let help =
                    "`lscpu -e` lists the CPUs, `taskset -p $$` those that are allowed; mend `cpus` in meridian.toml";
                write!(f, "threads cannot be bound to CPU {cpu}: there is none, or it is not allowed\n  help: {help}")
            }
            StartError::System(error) => write!(f, "not started: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A node at work.
pub struct Node {
    /// Where DNS is answered, with the ports that stand for port 0.
    pub dns: Vec<SocketAddr>,
    pub admin: SocketAddr,
    pub published: Published,
    pub events: mpsc::Sender<Event>,
    stop: CancellationToken,
    running: Running,
    control: JoinHandle<()>,
    http: JoinHandle<()>,
    learning: JoinHandle<()>,
    /// What measured round-trip times taught.
    pub learned: learned::Shared,
}

/// Starts a node and returns once it answers. `routes` are added to the admin address.
///
/// Must be called within a multi-threaded tokio runtime. Takes as long as reading files and the first round of probes
/// do; when `stop` is cancelled meanwhile, the node stops as soon as it is there.
pub async fn start(sources: Sources, routes: Router, stop: CancellationToken) -> Result<Node, StartError> {
    let started = SystemTime::now();
    let refused = |Refused { diagnostics, .. }| StartError::Refused(diagnostics);
    let own = blocking({
        let sources = sources.clone();
        move || NodeFile::read(&sources)
    })
    .await?
    .map_err(refused)?;
    let Settings { listen, workers, cpus, tcp, admin: admin_address, access, state, heartbeat, scale: webhook, .. } =
        own.node.clone();
    // Without its settings there is nothing to bind; the faults of the other files are told beside its own.
    let bound = if own.is_sound() { Some(bind(&listen, workers, cpus, admin_address).await?) } else { None };
    let heartbeat = heartbeat.filter(|_| own.is_sound());
    let receiver = heartbeat.as_ref().map(|heartbeat| {
        let address = heartbeat.listen;
        Receiver::bind(address).map_err(|cause| StartError::Heartbeat { address, cause })
    });
    let receiver = receiver.transpose()?;
    let keys = match heartbeat {
        Some(Heartbeat { keys, .. }) => Some(blocking(move || KeyFile::open(&keys)).await?.map_err(StartError::Keys)?),
        None => None,
    };
    let files = blocking(move || own.load(None)).await?.map_err(refused)?;
    let (sockets, listener) = bound.expect("a node file that is not sound was refused just now");
    let admin_address = listener.local_addr().map_err(StartError::System)?;

    let gate = Arc::new(Gate::new(access, admin_address));
    let on_load = Arc::clone(&gate);
    let (keeper, mut restored) = blocking(move || Keeper::start(&state)).await?;
    let keeper = Arc::new(keeper);
    let shelf = keeper.shelf();
    let learned = blocking({
        let (shelf, journal) = (shelf.clone(), restored.journal.clone());
        move || learned::restore(shelf.as_ref(), &journal)
    })
    .await?;
    let import = Arc::clone(&learned);
    let (loader, Loaded { snapshot, warnings, seen }) =
        blocking(move || Loader::new(sources, files, on_load, import)).await?;
    warnings.iter().for_each(control::log);
    let journal = restored.journal.clone();
    let beats = Beats::default();
    let (verdict_sender, verdicts) = mpsc::channel(VERDICTS);
    let (events, event_receiver) = mpsc::channel(control::QUEUE);
    let loads = Desk::default();
    loads.retain(&snapshot);
    let mut prober = Prober::new(verdict_sender).reporting_to(Arc::new(loads.clone()));
    prober.retarget(snapshot.targets());
    let stats = prober.stats();
    let first_round = prober.first_round(FIRST_ROUND);
    let changed = events.clone();
    // Never waits: the loop joins the watcher's thread when it ends.
    let watcher = Watcher::start(move || changed.try_send(Event::FilesChanged).is_ok()).map_err(StartError::System)?;
    watcher.watch(seen.inputs, seen.fingerprint);
    let ledger = Arc::new(Ledger::default());
    ledger.adopt(snapshot.counters());
    let published: Published = Arc::new(ArcSwap::from_pointee(snapshot));
    let tally = Arc::new(Tally::default());

    let taps = Taps::default();
    let remembered = std::mem::take(&mut restored.demand);
    let helm = helm::Parts {
        pilot: Pilot::restored(remembered.pilot.clone()),
        senses: Box::new(Live::new(taps.clone(), Arc::clone(&keeper), remembered, Arc::clone(&learned))),
        published: Arc::clone(&published),
        load: loads.clone(),
        journal: journal.clone(),
    };
    let helm = Helm::start(helm, events.clone());
    let parts = Parts {
        published: Arc::clone(&published),
        load: Arc::new(move |previous, beliefs| loader.load(previous, beliefs)),
        watcher,
        prober,
        verdicts,
        events: event_receiver,
        ledger: Arc::clone(&ledger),
        tally: Arc::clone(&tally),
        beats: beats.clone(),
        loads: loads.clone(),
        keeper,
        restored,
        helm,
        learned: Some(Arc::clone(&learned)),
    };
    if let Some((receiver, keys)) = receiver.zip(keys) {
        let (sender, told) = mpsc::channel(AGENT_EVENTS);
        let ear = Ears { ear: parts.prober.doubter(), reports: Arc::new(loads.clone()) };
        receiver.serve(keys, beats.clone(), ear, sender, stop.clone()).map_err(StartError::System)?;
        tokio::spawn(admin::agents::note(told, journal.clone()));
    }
    beats.retarget(published.load().targets());
    let steering = parts.helm.as_ref().map(Helm::view).unwrap_or_default();
    let control = control::start(parts, stop.clone());
    let (ready, is_ready) = watch::channel(false);
    let figures = Arc::new(metrics::Sources {
        ledger,
        published: Arc::clone(&published),
        stats,
        beats: beats.clone(),
        loads: loads.clone(),
        rtt: Arc::default(),
        tally,
        gate: Arc::clone(&gate),
        connections: OnceLock::new(),
        started,
        orders: ArcSwap::default(),
        scale: Arc::default(),
    });
    tokio::spawn(scale::run(
        scale::Parts { view: steering, board: Arc::clone(&figures.scale), webhook, journal: journal.clone() },
        stop.clone(),
    ));
    let rates = Arc::new(Rates::default());
    tokio::spawn(Arc::clone(&rates).sample(Arc::clone(&figures.ledger), Arc::clone(&published), stop.clone()));
    let state = Admin {
        events: events.clone(),
        ready: is_ready,
        metrics: Arc::new(metrics::Metrics::new(Arc::clone(&figures))),
        gate: Arc::clone(&gate),
        journal: journal.clone(),
        stats: figures.stats.clone(),
        agents: Arc::new(beats),
        loads,
        rates,
        scale: Arc::clone(&figures.scale),
        started,
        streams: Arc::new(Semaphore::new(STREAMS)),
    };
    let routes = routes.merge(admin::rtt::router(Arc::clone(&learned), Arc::clone(&figures.rtt), events.clone()));
    let learning = tokio::spawn(learned::keep(Arc::clone(&learned), shelf, stop.clone()));
    let tls = gate.acceptor();
    let http = tokio::spawn(admin::listen::serve(listener, tls, admin::router(state, routes), stop.clone()));

    let unsettled = first_round.await;
    // The loop takes verdicts before questions: once it answers, all verdicts of the first round are published.
    admin::view(&events).await;
    let dns = sockets.addresses();
    let mut running = sockets.serve(Arc::clone(&published), tcp, stop.clone()).map_err(StartError::System)?;
    taps.give(running.take_taps());
    let _ = figures.connections.set(Arc::clone(running.connections()));
    ready.send_replace(true);
    journal.note(Timestamp::now(), Note::new(Kind::Started, format!("version {}", env!("CARGO_PKG_VERSION"))));
    let now = published.load();
    info!(
        dns = %list(&dns),
        admin = %admin_address,
        zones = now.zones().len(),
        servers = now.targets().len(),
        down = now.verdicts().iter().filter(|verdict| **verdict == Verdict::Down).count(),
        unknown = unsettled,
        cells = now.geography().cells,
        in_ms = started.elapsed().map_or(0, |elapsed| elapsed.as_millis() as u64),
        "answering"
    );
    drop(now);
    Ok(Node { dns, admin: admin_address, published, events, stop, running, control, http, learning, learned })
}

async fn bind(
    listen: &[SocketAddr],
    workers: Option<NonZeroU16>,
    cpus: Vec<u16>,
    admin: SocketAddr,
) -> Result<(Sockets, TcpListener), StartError> {
    if let Some(cpu) = server::cpus::first_unusable(&cpus) {
        return Err(StartError::Cpu(cpu));
    }
    let cores = || if cpus.is_empty() { available_parallelism().map_or(1, usize::from) } else { cpus.len() };
    let workers = workers.map_or_else(cores, |n| usize::from(n.get()));
    let sockets = server::bind(listen, workers).map_err(StartError::Bind)?.on_cpus(cpus);
    let listener = TcpListener::bind(admin).await.map_err(|cause| StartError::Admin { address: admin, cause })?;
    Ok((sockets, listener))
}

impl Node {
    /// Waits until `stop` is cancelled and all that was received is answered.
    pub async fn stopped(self) {
        self.stop.cancelled().await;
        self.running.stopped().await;
        // Each ends by the same token; a panic of theirs was logged and changes nothing any more.
        let _ = self.http.await;
        let _ = self.control.await;
        let _ = self.learning.await;
    }
}

/// Runs what would hold up the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StartError> {
    spawn_blocking(work).await.map_err(|died| StartError::System(io::Error::other(died)))
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
