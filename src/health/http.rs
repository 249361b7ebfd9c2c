//! One HTTP/1.1 exchange over a stream that is already connected, and the connection kept for the next one.
//!
//! A response is judged by its status, then by its body when the check has `contains`. Bounded whatever the server
//! sends: the head by [`MAX_HEAD`] and [`MAX_HEADERS`], the body by [`MAX_BODY`], all that comes, whatever it is, by
//! the [`Meter`] and the probe's time-out.
//!
//! A load report is read on the side: from the head at once, from a body while the connection is idle, so that no verdict
//! waits for it.
//!
//! The kept connection is watched while idle: a server that is killed closes it, which is known at once, long before
//! the next probe is due.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::http::response::Parts;
use hyper::{Request, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::load::{Collector, Listener};
use super::meter::Meter;
use super::probe::Trouble;
use crate::config::settings::HttpCheck;

/// Bytes of a body that are looked at; the same that are read to keep the connection.
const MAX_BODY: usize = 64 * 1024;
/// Bytes of a response head.
const MAX_HEAD: usize = 64 * 1024;
/// Header lines of a response.
const MAX_HEADERS: usize = 128;
/// A kept connection is made anew after this long, so that a certificate that expires or is replaced, and a load
/// balancer that moves on, are noticed.
const MAX_AGE: Duration = Duration::from_secs(60);

/// What to ask, and which answer is good.
pub(super) struct Exchange {
    uri: Uri,
    host: HeaderValue,
    status: Vec<StatusCode>,
    contains: Option<Box<str>>,
    /// Who is told of load reports in the answers.
    listener: Option<Listener>,
}

/// A connection on which another request can be sent.
pub(super) struct Kept {
    wire: Wire,
    sender: SendRequest<Empty<Bytes>>,
    /// What has not been read of the last response, and how much more of it may come.
    rest: Option<(Incoming, usize)>,
    /// What is read of it for its load report.
    collector: Option<Collector>,
    /// The server closes it after the last response.
    last: bool,
    meter: Meter,
    born: Instant,
}

/// How a kept connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// The server closed or reset it.
    Closed,
    /// The last response is too long to read to its end, or too much came after it.
    TooLong,
    /// The last response was read to its end, and it was the last.
    Done,
}

impl Exchange {
    /// Errors: a path, host or status that HTTP cannot express.
    pub(super) fn new(check: &HttpCheck) -> Result<Exchange, String> {
        let host = check.host.trim_end_matches('.');
        Ok(Exchange {
            uri: check.path.parse().map_err(|error| format!("path {:?}: {error}", check.path))?,
            host: HeaderValue::from_str(host).map_err(|_| format!("{host:?} can not be a Host header"))?,
            status: check
                .status
                .iter()
                .map(|&code| StatusCode::from_u16(code).map_err(|_| format!("{code} is not an HTTP status")))
                .collect::<Result<_, _>>()?,
            contains: check.contains.as_deref().map(Into::into),
            listener: None,
        })
    }

    /// The same, with somebody to tell of load reports.
    pub(super) fn heard_by(self, listener: Option<Listener>) -> Exchange {
        Exchange { listener, ..self }
    }

    /// Begins HTTP on a new stream: one that `meter` counts, or one that reads from such a one.
    pub(super) async fn open(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        meter: Meter,
    ) -> Result<Kept, Trouble> {
        let mut builder = Builder::new();
        builder.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| trouble(&error))?;
        Ok(Kept {
            wire: Wire(Some(Box::pin(connection))),
            sender,
            rest: None,
            collector: None,
            last: false,
            meter,
            born: Instant::now(),
        })
    }

    /// Sends the request and judges the response. `Ok` is a good answer, with the connection when it can be kept.
    pub(super) async fn ask(&self, mut kept: Kept) -> Result<Option<Kept>, Trouble> {
        let (head, mut body) = self.send(&mut kept, self.request(&self.uri)).await?;
        let mut budget = MAX_BODY;
        kept.collector = self.listener.as_ref().and_then(|listener| listener.body(&head.headers));
        if let Some(text) = &self.contains {
            let seen = find(&mut kept.wire, &mut body, text, &mut budget).await?;
            if let Some(collector) = &mut kept.collector {
                collector.take(&seen);
            }
        }
        kept.last = !persists(head.version, &head.headers);
        if kept.last && kept.collector.is_none() {
            return Ok(None);
        }
        // A report is read once the verdict is told, though the body may be here already.
        kept.rest = (kept.collector.is_some() || !body.is_end_stream()).then_some((body, budget));
        Ok(Some(kept))
    }

    /// Asks for `uri` instead and hands its body to `take`, piece by piece to the end; the first fault that `take`
    /// finds ends it. The connection is given back when it can be kept.
    ///
    /// The body is asked for as it is. One that comes compressed all the same is a failure and is never unpacked: a few
    /// bytes of it could become gigabytes.
    pub(super) async fn fetch(
        &self,
        kept: Kept,
        uri: &Uri,
        take: impl FnMut(&[u8]) -> Result<(), Arc<str>>,
    ) -> Result<Option<Kept>, Trouble> {
        self.read(kept, uri, take).await.map(|(_, kept)| kept)
    }

    /// [`Exchange::fetch`] with the head of the answer.
    pub(super) async fn read(
        &self,
        mut kept: Kept,
        uri: &Uri,
        mut take: impl FnMut(&[u8]) -> Result<(), Arc<str>>,
    ) -> Result<(Parts, Option<Kept>), Trouble> {
        let mut request = self.request(uri);
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (head, mut body) = self.send(&mut kept, request).await?;
        for encoding in head.headers.get_all(CONTENT_ENCODING) {
            if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") {
                let name: String =
                    encoding.as_bytes().iter().take(20).map(|byte| byte.escape_ascii().to_string()).collect();
                return Err(Trouble::Hard(format!("body is compressed ({name}), which was not asked for").into()));
            }
        }
        // How much may come is bounded by the meter.
        while let Some(frame) = kept.wire.alongside(body.frame()).await {
            let frame = frame.map_err(|error| trouble(&error))?;
            if let Some(data) = frame.data_ref() {
                take(data).map_err(Trouble::Hard)?;
            }
        }
        let persists = persists(head.version, &head.headers);
        Ok((head, persists.then_some(kept)))
    }

    /// Sends a request and waits for the head of the response, whose status must be a good one.
    async fn send(&self, kept: &mut Kept, request: Request<Empty<Bytes>>) -> Result<(Parts, Incoming), Trouble> {
        kept.meter.reset();
        let wire = &mut kept.wire;
        wire.alongside(kept.sender.ready()).await.map_err(|error| trouble(&error))?;
        let response = wire.alongside(kept.sender.send_request(request)).await.map_err(|error| trouble(&error))?;
        let (head, body) = response.into_parts();
        if !self.accepts(head.status) {
            return Err(Trouble::Hard(format!("status {}", head.status.as_u16()).into()));
        }
        if let Some(listener) = &self.listener {
            listener.head(&head.headers);
        }
        Ok((head, body))
    }

    fn request(&self, uri: &Uri) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("meridian/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        request
    }

    /// The path and query of the check.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    fn accepts(&self, status: StatusCode) -> bool {
        if self.status.is_empty() {
            status.is_success() || status.is_redirection()
        } else {
            self.status.contains(&status)
        }
    }
}

impl Kept {
    /// Whether the next request may go out on it.
    pub(super) fn is_usable(&self) -> bool {
        self.rest.is_none() && !self.last && !self.sender.is_closed() && self.born.elapsed() < MAX_AGE
    }

    /// Waits, reading what is left of the last response, until the connection is good for nothing. Cancel-safe.
    pub(super) async fn idle(&mut self) -> Gone {
        poll_fn(|cx| {
            let closed = self.wire.poll(cx).is_ready();
            let gone = self.drain(cx).or(closed.then_some(Gone::Closed));
            match gone {
                None if self.last && self.rest.is_none() => Poll::Ready(Gone::Done),
                None => Poll::Pending,
                // As it said it would.
                Some(Gone::Closed) if self.last => Poll::Ready(Gone::Done),
                Some(_) if self.meter.is_used_up() => Poll::Ready(Gone::TooLong),
                Some(gone) => Poll::Ready(gone),
            }
        })
        .await
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Option<Gone> {
        while let Some((body, budget)) = &mut self.rest {
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => {
                    self.rest = None;
                    if let Some(collector) = self.collector.take() {
                        collector.finish();
                    }
                }
                Poll::Ready(Some(Err(_))) => return Some(Gone::Closed),
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.data_ref().map_or(&[][..], |data| data);
                    match (budget.checked_sub(data.len()), &mut self.collector) {
                        (Some(left), None) => *budget = left,
                        (Some(left), Some(collector)) => {
                            *budget = left;
                            collector.take(data);
                        }
                        (None, collector) => {
                            if let Some(collector) = collector.take() {
                                collector.too_long();
                            }
                            return Some(Gone::TooLong);
                        }
                    }
                }
            }
        }
        None
    }
}

/// hyper's connection future: it moves the bytes while a request or its response is waited for.
struct Wire(Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>);

impl Wire {
    /// Ready once the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            None => Poll::Ready(()),
            // Why it ended is told to the request that was on it; without a request it does not matter.
            Some(connection) => connection.as_mut().poll(cx).map(|_| self.0 = None),
        }
    }

    /// Waits for a future that needs the connection to move. When the connection ends the future does, too.
    async fn alongside<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(output),
            Poll::Pending => {
                let _ = self.poll(cx);
                future.as_mut().poll(cx)
            }
        })
        .await
    }
}

/// Reads the body until `text` has been seen, at most `budget` bytes; gives what was read.
async fn find(wire: &mut Wire, body: &mut Incoming, text: &str, budget: &mut usize) -> Result<Vec<u8>, Trouble> {
    let needle = text.as_bytes();
    let mut seen: Vec<u8> = Vec::new();
    let lacks = || Trouble::Hard(format!("body lacks {}", Short(text)).into());
    loop {
        // Only what is new is searched, so that a body in tiny pieces costs no more than one in a large piece.
        let overlap = seen.len().saturating_sub(needle.len().saturating_sub(1));
        let Some(frame) = wire.alongside(body.frame()).await else { return Err(lacks()) };
        let frame = frame.map_err(|error| trouble(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        let piece = &data[..data.len().min(*budget)];
        seen.extend_from_slice(piece);
        *budget -= piece.len();
        if needle.is_empty() || seen[overlap..].windows(needle.len()).any(|window| window == needle) {
            return Ok(seen);
        }
        if *budget == 0 {
            return Err(lacks());
        }
    }
}

/// Whether the server is willing to keep the connection (RFC 9112 §9.3).
fn persists(version: Version, headers: &HeaderMap) -> bool {
    let says = |word: &str| {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    if version == Version::HTTP_11 { !says("close") } else { says("keep-alive") && !says("close") }
}

fn trouble(error: &hyper::Error) -> Trouble {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && io.kind() != io::ErrorKind::UnexpectedEof
        {
            return Trouble::of(io);
        }
        source = inner.source();
    }
    let cause: Arc<str> = if error.is_parse_too_large() {
        "headers too long".into()
    } else if error.is_parse() {
        "the answer is not HTTP".into()
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "closed without a whole answer".into()
    } else if error.source().is_some() {
        // UnexpectedEof: the body or the TLS stream was cut.
        "closed without a whole answer".into()
    } else {
        error.to_string().into()
    };
    Trouble::Closed(cause)
}

/// A text in quotes, cut when it is long.
struct Short<'a>(&'a str);

impl std::fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.char_indices().nth(40) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::health::meter::{MAX_WIRE, Metered};

    fn check() -> HttpCheck {
        HttpCheck { path: "/".into(), host: "live.stream.example".into(), status: vec![], contains: None }
    }

    /// Asks once over a stream in memory, whose other end answers so; then the kept connection, and that end.
    async fn asked(answer: &[u8]) -> (Option<Kept>, DuplexStream) {
        let exchange = Exchange::new(&check()).unwrap();
        let (ours, mut theirs) = duplex(1 << 20);
        let (ours, meter) = Metered::new(ours);
        let kept = exchange.open(ours, meter).await.unwrap();
        let server = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                theirs.read_buf(&mut head).await.unwrap();
            }
            theirs.write_all(answer).await.unwrap();
        };
        let (kept, ()) = tokio::join!(exchange.ask(kept), server);
        (kept.unwrap(), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_connection_is_used_for_a_minute() {
        let (kept, _server) = asked(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let mut kept = kept.unwrap();
        tokio::time::timeout(MAX_AGE - Duration::from_millis(2), kept.idle()).await.expect_err("nothing happens");
        assert!(kept.is_usable());
        tokio::time::timeout(Duration::from_millis(5), kept.idle()).await.expect_err("nothing happens");
        assert!(!kept.is_usable());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_can_be_used_again_once_the_body_has_come() {
        let (kept, mut server) = asked(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await;
        let mut kept = kept.unwrap();
        tokio::time::timeout(Duration::from_secs(1), kept.idle()).await.expect_err("waits for the rest");
        assert!(!kept.is_usable());
        server.write_all(b"cd").await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), kept.idle()).await.expect_err("open and idle");
        assert!(kept.is_usable());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_too_long_costs_the_connection() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
        for (length, gone) in [(MAX_BODY, None), (MAX_BODY + 1, Some(Gone::TooLong))] {
            let (kept, mut server) = asked(head).await;
            server.write_all(&vec![b'.'; length]).await.unwrap();
            let ended = tokio::time::timeout(Duration::from_secs(1), kept.unwrap().idle()).await.ok();
            assert_eq!(ended, gone, "{length} bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_a_server_sends_before_an_answer_is_bounded() {
        let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let blank = b"\r\n";
        for (piece, cause) in [(&interim[..], "no whole answer in 512 KiB"), (&blank[..], "headers too long")] {
            let exchange = Exchange::new(&check()).unwrap();
            let (ours, mut theirs) = duplex(1024);
            let (ours, meter) = Metered::new(ours);
            let kept = exchange.open(ours, meter).await.unwrap();
            let flood = async move {
                let mut sent = 0;
                while sent < 4 * MAX_WIRE && theirs.write_all(piece).await.is_ok() {
                    sent += piece.len();
                }
                sent
            };
            let (answer, sent) = tokio::join!(exchange.ask(kept), flood);
            let Err(Trouble::Hard(said) | Trouble::Closed(said)) = answer else { panic!("no failure") };
            assert_eq!(&*said, cause);
            assert!(sent <= MAX_WIRE + 64 * 1024 + 1024, "{sent} bytes taken");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_answer_counts_after_interim_ones_and_each_answer_is_metered_anew() {
        let hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let mut answer = hint.repeat(MAX_WIRE / 3 * 2 / hint.len());
        answer.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let exchange = Exchange::new(&check()).unwrap();
        let (ours, mut theirs) = duplex(1 << 20);
        let (ours, meter) = Metered::new(ours);
        let mut kept = exchange.open(ours, meter).await.unwrap();
        for _ in 0..3 {
            let (next, written) = tokio::join!(exchange.ask(kept), theirs.write_all(&answer));
            written.unwrap();
            kept = next.unwrap().expect("kept");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_body_that_is_long_on_the_wire_costs_the_connection() {
        let (kept, mut server) = asked(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let chunk = format!("{:04096}\r\n.\r\n", 1);
        server.write_all(chunk.repeat(MAX_WIRE / 4096 + 17).as_bytes()).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(1), kept.unwrap().idle()).await.ok();
        assert_eq!(ended, Some(Gone::TooLong));
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_while_idle_or_within_the_rest_of_a_body_is_a_close() {
        for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"]
        {
            let (kept, server) = asked(answer.as_bytes()).await;
            drop(server);
            assert_eq!(kept.unwrap().idle().await, Gone::Closed, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_the_server_will_close_is_not_kept() {
        for (answer, stays) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: upgrade, Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ] {
            assert_eq!(asked(answer.as_bytes()).await.0.is_some(), stays, "{answer}");
        }
    }

    #[test]
    fn what_http_cannot_express_is_refused_by_name() {
        let fault = |change: fn(&mut HttpCheck)| {
            let mut check = check();
            change(&mut check);
            Exchange::new(&check).err().expect("a fault")
        };
        assert!(fault(|check| check.path = "/a b".into()).contains("\"/a b\""));
        assert!(fault(|check| check.host = "a\nb".into()).contains("Host header"));
        assert_eq!(fault(|check| check.status = vec![200, 99]), "99 is not an HTTP status");
    }
}
