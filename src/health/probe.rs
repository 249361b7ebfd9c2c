//! One probe: connect, TLS, HTTP, a playlist; or a program. Says what came of it; time-outs are the caller's.
//!
//! Faults are told apart by whose they are. A target that refuses, resets or answers wrongly has failed. A machine that
//! is out of file descriptors, ports or routes knows nothing about the target: that is [`Outcome::Local`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::http::response::Parts;
use rustls::pki_types::ServerName;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::exec::Exec;
use super::hls::Hls;
use super::http::{Exchange, Kept};
use super::load::Listener;
use super::meter::Metered;
use super::tls::{self, Connectors};
use super::{Reports, Target};
use crate::config::settings::{CheckKind, HttpCheck, LoadRequest, Transport};

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success {
        rtt: Duration,
    },
    /// The target refused, reset, or answered wrongly. The cause is a short text for people.
    Hard(Arc<str>),
    /// What was kept of the last probe holds no more: the connection was closed before an answer came, or the variant
    /// of the playlist is not what it was. Without it the next probe is a whole one.
    Stale,
    /// This machine could not send the probe.
    Local(Arc<str>),
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) enum Trouble {
    Hard(Arc<str>),
    /// The connection ended, or made no sense, before the answer was whole. On a kept connection it may have been
    /// closed before the request was read.
    Closed(Arc<str>),
    /// What was remembered of the server, other than the connection, holds no more; it has been forgotten.
    Outdated,
    Local(Arc<str>),
}

/// How to probe one target: all that can be worked out beforehand.
pub(super) struct Probe {
    address: SocketAddr,
    kind: Kind,
}

enum Kind {
    Tcp,
    Web(Box<Web>),
    Exec(Exec),
}

/// A probe by HTTP.
struct Web {
    address: SocketAddr,
    exchange: Exchange,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The answer is a playlist.
    hls: Option<Hls>,
}

impl Probe {
    /// `reports`: who is told of load reports in the answers. Errors: a check that cannot be carried out, in words for
    /// people.
    pub(super) fn new(
        target: &Target,
        connectors: &mut Connectors,
        reports: Option<&Arc<dyn Reports>>,
    ) -> Result<Probe, String> {
        let listener = reports.map(|reports| Listener::new(target, Arc::clone(reports)));
        let kind = match &target.check.kind {
            CheckKind::Tcp => Kind::Tcp,
            CheckKind::Http(http) => Kind::web(target, http, None, None, listener)?,
            CheckKind::Https { http, ca } => {
                let tls = (connectors.connector(ca.as_ref())?, tls::server_name(&http.host)?);
                Kind::web(target, http, Some(tls), None, listener)?
            }
            CheckKind::Hls { http, transport, stale } => {
                let tls = match transport {
                    Transport::Plain => None,
                    Transport::Tls(ca) => Some((connectors.connector(ca.as_ref())?, tls::server_name(&http.host)?)),
                };
                Kind::web(target, http, tls, Some(Hls::new(&http.host, *stale)), listener)?
            }
            CheckKind::Exec(exec) => Kind::Exec(Exec::new(exec, target.address)),
        };
        Ok(Probe { address: target.address, kind })
    }

    /// Whether a probe is a process of this machine: it makes no connection, and what has timed out of it is ended.
    pub(super) fn is_process(&self) -> bool {
        matches!(self.kind, Kind::Exec(_))
    }

    /// Probes on a new connection. `connecting` is dropped once the connection stands; a process holds it to its end.
    pub(super) async fn fresh(&self, connecting: impl Sized) -> (Outcome, Option<Kept>) {
        let start = Instant::now();
        let answer = match &self.kind {
            Kind::Tcp => connect(self.address).await.map(|_| None),
            Kind::Web(web) => match web.open().await {
                Ok(kept) => {
                    drop(connecting);
                    web.ask(kept).await
                }
                Err(trouble) => Err(trouble),
            },
            Kind::Exec(exec) => return (exec.run().await, None),
        };
        match answer {
            Ok(kept) => (Outcome::Success { rtt: start.elapsed() }, kept),
            Err(Trouble::Hard(cause) | Trouble::Closed(cause)) => (Outcome::Hard(cause), None),
            Err(Trouble::Outdated) => (Outcome::Stale, None),
            Err(Trouble::Local(cause)) => (Outcome::Local(cause), None),
        }
    }

    /// Probes on a kept connection.
    pub(super) async fn again(&self, kept: Kept) -> (Outcome, Option<Kept>) {
        let start = Instant::now();
        let Kind::Web(web) = &self.kind else { return (Outcome::Stale, None) };
        match web.ask(kept).await {
            Ok(kept) => (Outcome::Success { rtt: start.elapsed() }, kept),
            Err(Trouble::Hard(cause)) => (Outcome::Hard(cause), None),
            Err(Trouble::Closed(_) | Trouble::Outdated) => (Outcome::Stale, None),
            Err(Trouble::Local(cause)) => (Outcome::Local(cause), None),
        }
    }
}

impl Kind {
    fn web(
        target: &Target,
        http: &HttpCheck,
        tls: Option<(TlsConnector, ServerName<'static>)>,
        hls: Option<Hls>,
        listener: Option<Listener>,
    ) -> Result<Kind, String> {
        let exchange = Exchange::new(http)?.heard_by(listener.filter(|_| target.check.load.is_in_answers()));
        Ok(Kind::Web(Box::new(Web { address: target.address, exchange, tls, hls })))
    }
}

impl Web {
    /// A new connection, ready for a request.
    async fn open(&self) -> Result<Kept, Trouble> {
        let (stream, meter) = Metered::new(connect(self.address).await?);
        let Some((connector, name)) = &self.tls else { return self.exchange.open(stream, meter).await };
        let stream = connector.connect(name.clone(), stream).await.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Trouble::Closed("closed during the TLS handshake".into()),
            _ => Trouble::of(&error),
        })?;
        self.exchange.open(stream, meter).await
    }

    async fn ask(&self, kept: Kept) -> Result<Option<Kept>, Trouble> {
        match &self.hls {
            None => self.exchange.ask(kept).await,
            Some(hls) => hls.look(&self.exchange, kept, || self.open()).await,
        }
    }
}

/// A request for a load report beside the probes.
pub(super) struct Request(Web);

impl Request {
    /// Errors: one that cannot be sent, in words for people.
    pub(super) fn new(
        target: &Target,
        asked: &LoadRequest,
        connectors: &mut Connectors,
        listener: Listener,
    ) -> Result<Request, String> {
        let mut http = asked.http.clone();
        let address = SocketAddr::new(target.address.ip(), asked.port.unwrap_or(target.address.port()));
        if http.host.is_empty() {
            http.host = match address {
                SocketAddr::V4(address) => address.ip().to_string(),
                SocketAddr::V6(address) => format!("[{}]", address.ip()),
            };
        }
        let tls = match &asked.transport {
            Transport::Plain => None,
            Transport::Tls(ca) => Some((connectors.connector(ca.as_ref())?, tls::server_name(&http.host)?)),
        };
        let exchange = Exchange::new(&http)?.heard_by(asked.metrics.is_empty().then_some(listener));
        Ok(Request(Web { address, exchange, tls, hls: None }))
    }

    pub(super) async fn open(&self) -> Result<Kept, Trouble> {
        self.0.open().await
    }

    /// Hands the body of the answer to `take`, piece by piece; see [`Exchange::fetch`].
    pub(super) async fn read(
        &self,
        kept: Kept,
        take: impl FnMut(&[u8]) -> Result<(), Arc<str>>,
    ) -> Result<(Parts, Option<Kept>), Trouble> {
        self.0.exchange.read(kept, self.0.exchange.uri(), take).await
    }
}

impl Trouble {
    /// What an error of the network says.
    pub(super) fn of(error: &io::Error) -> Trouble {
        if let Some(cause) = tls::cause(error) {
            return Trouble::Hard(cause.into());
        }
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Trouble::Hard("refused".into()),
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Trouble::Closed("reset".into()),
            Some(libc::EHOSTUNREACH) => Trouble::Hard("host unreachable".into()),
            Some(libc::ENETUNREACH) => Trouble::Hard("network unreachable".into()),
            Some(code) if is_local(code) => Trouble::Local(error.to_string().into()),
            Some(_) => Trouble::Hard(error.to_string().into()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Trouble::Closed("closed without a whole answer".into())
            }
            None => Trouble::Hard(error.to_string().into()),
        }
    }
}

/// Errors that only say that this machine is short of something or forbids it.
fn is_local(code: i32) -> bool {
    matches!(
        code,
        libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EADDRINUSE
            | libc::EAFNOSUPPORT
            | libc::EACCES
            | libc::EPERM
    )
}

/// Connects. Done by hand because only here it can be seen whether connect(2) itself failed, which no packet caused: a
/// missing route is then this machine's, while the same error later is the network's word about the target.
async fn connect(address: SocketAddr) -> Result<TcpStream, Trouble> {
    let local = |error: io::Error| Trouble::Local(error.to_string().into());
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).map_err(local)?;
    socket.set_nonblocking(true).map_err(local)?;
    socket.set_tcp_nodelay(true).map_err(local)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => return Err(Trouble::of(&error)),
        Err(error) => return Err(local(error)),
    }
    let stream = TcpStream::from_std(socket.into()).map_err(local)?;
    stream.writable().await.map_err(local)?;
    if let Some(error) = stream.take_error().map_err(local)? {
        return Err(Trouble::of(&error));
    }
    // A closed port of this machine can be met by its own outgoing port (RFC 9293 §3.5, simultaneous open).
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(ours), Ok(theirs)) if ours == theirs => Err(Trouble::Hard("refused".into())),
        (_, Err(error)) => Err(Trouble::of(&error)),
        _ => Ok(stream),
    }
}
