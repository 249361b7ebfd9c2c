//! Sockets: bytes come in, [`respond`](crate::answer::respond) answers, bytes go out. No policy lives here.
//!
//! ```text
//! bind ──► Sockets ──► serve ──► udp   a thread a worker, batches by mmsg
//!                                tcp   a thread a worker, many connections each by epoll; connections counts and
//!                                      limits them, conversation is what is said on one
//! ```
//!
//! Each worker tells of the steered answers that it gives ([`tap`]).
//!
//! Sockets are bound before anything else is done, so that a port in use is known at once. What arrives before
//! [`Sockets::serve`] waits in the kernel's buffers.

pub mod connections;
mod conversation;
pub mod counters;
pub mod cpus;
mod descriptors;
// epoll for sockets that the standard library owns; see the module.
#[allow(unsafe_code)]
mod epoll;
// recvmmsg and sendmmsg have no safe wrapper that keeps the local address; see the module.
#[allow(unsafe_code)]
mod mmsg;
pub mod tap;
mod tcp;
mod udp;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use self::connections::Connections;
use self::counters::Counters;
use self::tap::Reader;
use crate::answer::{self, Client, Outcome};
use crate::config::settings::TcpLimits;
use crate::snapshot::Snapshot;

/// All that transports need of a snapshot.
pub trait Answers: Send + Sync + 'static {
    /// A query between the stages of its answer, as [`answer::Pending`].
    type Pending<'q>;

    fn read<'q>(&'q self, query: &'q [u8], client: Client) -> Self::Pending<'q>;

    /// As [`answer::seek`].
    fn seek(batch: &mut [Self::Pending<'_>]);

    /// As [`answer::respond`], with its demands on `out`.
    fn write(pending: &Self::Pending<'_>, out: &mut [u8]) -> Outcome;

    /// All stages of one query.
    fn respond(&self, query: &[u8], client: Client, out: &mut [u8]) -> Outcome {
        let mut pending = self.read(query, client);
        Self::seek(slice::from_mut(&mut pending));
        Self::write(&pending, out)
    }

    /// The counters that positions in an [`Outcome`] of this snapshot refer to.
    fn counters(&self) -> &Counters;

    /// Tells the loads apart that number groups and cells in an [`Outcome`]; below 2^48.
    fn epoch(&self) -> u64;
}

impl Answers for Snapshot {
    type Pending<'q> = answer::Pending<'q, 'q>;

    fn read<'q>(&'q self, query: &'q [u8], client: Client) -> answer::Pending<'q, 'q> {
        answer::Pending::read(self, query, client)
    }

    fn seek(batch: &mut [answer::Pending<'_, '_>]) {
        answer::seek(batch);
    }

    fn write(pending: &answer::Pending<'_, '_>, out: &mut [u8]) -> Outcome {
        pending.write(out)
    }

    fn counters(&self) -> &Counters {
        Snapshot::counters(self)
    }

    fn epoch(&self) -> u64 {
        Snapshot::epoch(self)
    }
}

/// An address that can't be served.
#[derive(Debug)]
pub struct BindError {
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub protocol: &'static str,
    pub cause: io::Error,
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BindError { address, protocol, cause } = self;
        write!(f, "cannot listen on {address} ({protocol}): {cause}")?;
        let (ip, port) = (address.ip(), address.port());
        match cause.kind() {
            io::ErrorKind::AddrInUse => {
                let list = if *protocol == "UDP" { "ulnp" } else { "tlnp" };
                write!(
                    f,
                    "\n  the port is taken, on this address or on all, by a program or by another `listen` of ours"
                )?;
                write!(f, "\n  help: find it with `ss -{list} 'sport = :{port}'` and stop it, or listen elsewhere")
            }
            io::ErrorKind::PermissionDenied if port < 1024 => {
                write!(f, "\n  ports below 1024 need the capability CAP_NET_BIND_SERVICE")?;
                write!(f, "\n  help: `setcap cap_net_bind_service=+ep` on the program, ")?;
                write!(f, "`AmbientCapabilities=CAP_NET_BIND_SERVICE` in its systemd unit, or a port from 1024 up")
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "\n  no network interface of this machine has the address {ip}")?;
                write!(f, "\n  help: `ip address` lists those it has; 0.0.0.0 and [::] stand for all of them")
            }
            _ => Ok(()),
        }
    }
}

/// Bound sockets that nobody reads yet.
pub struct Sockets {
    udp: Vec<UdpSocket>,
    /// For each address, one a worker.
    tcp: Vec<Vec<TcpListener>>,
    cpus: Vec<u16>,
}

/// How often another port is tried when the one given for port 0 is free for UDP and not for TCP.
const PORT_TRIES: usize = 16;

/// Binds UDP and TCP on every address, `workers` sockets (at least 1) each. With port 0 both get one free port.
/// Does not block.
pub fn bind(listen: &[SocketAddr], workers: usize) -> Result<Sockets, BindError> {
    let mut sockets = Sockets { udp: Vec::new(), tcp: Vec::new(), cpus: Vec::new() };
    for &address in listen {
        let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
        let (udp, tcp) = loop {
            tries -= 1;
            match bind_both(address, workers.max(1)) {
                Err(error) if tries > 0 && error.cause.kind() == io::ErrorKind::AddrInUse => {}
                result => break result?,
            }
        };
        sockets.udp.extend(udp);
        sockets.tcp.push(tcp);
    }
    Ok(sockets)
}

fn bind_both(address: SocketAddr, workers: usize) -> Result<(Vec<UdpSocket>, Vec<TcpListener>), BindError> {
    let udp = udp::bind(address, workers).map_err(|cause| BindError { address, protocol: "UDP", cause })?;
    let tcp = udp[0].local_addr().and_then(|address| tcp::bind(address, workers));
    let tcp = tcp.map_err(|cause| BindError { address, protocol: "TCP", cause })?;
    Ok((udp, tcp))
}

impl Sockets {
    /// UDP workers in all: each address has its own.
    pub fn workers(&self) -> usize {
        self.udp.len()
    }

    /// Binds UDP workers to these CPUs in turn once they begin, and keeps everything else of the process off them. They
    /// were found usable ([`cpus::first_unusable`]).
    pub fn on_cpus(self, cpus: Vec<u16>) -> Sockets {
        Sockets { cpus, ..self }
    }

    /// Where we listen, in the order given to [`bind`], with the ports that stand for port 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listeners| listeners[0].local_addr().ok()).collect()
    }

    /// Begins to answer from whatever snapshot is published at the time of each query, until `shutdown`.
    ///
    /// Raises the process's soft limit of open files as far as `limits` need it; where the hard limit is too low, fewer
    /// connections are taken, so that a flood of them leaves descriptors for everything else.
    ///
    /// UDP workers serve one address each, TCP workers all of them; all are threads of their own. Fails when a thread or
    /// a descriptor can't be had; whatever had begun stops then.
    pub fn serve<S: Answers>(
        self,
        published: Arc<ArcSwap<S>>,
        mut limits: TcpLimits,
        shutdown: CancellationToken,
    ) -> io::Result<Running> {
        limits.connections = descriptors::for_connections(limits.connections);
        let connections = Arc::new(Connections::new(limits));
        let mut running = Running {
            stop: Stop(Arc::default()),
            workers: Vec::new(),
            taps: Vec::new(),
            connections: connections.clone(),
            shutdown,
        };
        cpus::keep_off(&self.cpus);
        let mut cpus = self.cpus.into_iter().cycle();
        for (i, socket) in self.udp.into_iter().enumerate() {
            let (published, stop, cpu) = (published.clone(), running.stop.0.clone(), cpus.next());
            let (teller, reader) = tap::ring();
            running.taps.push(reader);
            let work = move || {
                if let Some(cpu) = cpu
                    && let Err(error) = cpus::bind_to(cpu)
                {
                    tracing::warn!(worker = i, cpu, %error, "the UDP worker is not bound to its CPU");
                }
                udp::run(&socket, i, published, teller, &stop);
            };
            running.workers.push(std::thread::Builder::new().name(format!("udp-{i}")).spawn(work)?);
        }
        let mut addresses: Vec<_> = self.tcp.into_iter().map(Vec::into_iter).collect();
        for i in 0.. {
            let listeners: Vec<TcpListener> = addresses.iter_mut().filter_map(Iterator::next).collect();
            if listeners.is_empty() {
                break;
            }
            let (teller, reader) = tap::ring();
            running.taps.push(reader);
            let worker = tcp::Worker::new(listeners, connections.clone(), teller)?;
            let (published, stop) = (published.clone(), running.stop.0.clone());
            let work = move || worker.run(published, &stop);
            running.workers.push(std::thread::Builder::new().name(format!("tcp-{i}")).spawn(work)?);
        }
        Ok(running)
    }
}

/// Stops the workers when it goes, however that comes about.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Servers at work. Dropping it stops them without waiting for it.
pub struct Running {
    stop: Stop,
    workers: Vec<JoinHandle<()>>,
    taps: Vec<Reader>,
    connections: Arc<Connections>,
    shutdown: CancellationToken,
}

impl Running {
    /// TCP connections, for metrics.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// What the workers tell of their answers, one a worker, for the one who reads it; a second call gives none.
    pub fn take_taps(&mut self) -> Vec<Reader> {
        std::mem::take(&mut self.taps)
    }

    /// Waits for `shutdown`, and then until all have stopped: no connection is accepted any more, queries that were
    /// received are answered, idle connections close at once and busy ones when their message is answered, at the
    /// latest after [`connections::DRAIN`].
    pub async fn stopped(self) {
        self.shutdown.cancelled().await;
        drop(self.stop);
        let workers = self.workers;
        let joined = tokio::task::spawn_blocking(move || {
            for worker in workers {
                if worker.join().is_err() {
                    tracing::error!("a worker had died");
                }
            }
        });
        // Fails only when the runtime itself is going down.
        let _ = joined.await;
    }
}
