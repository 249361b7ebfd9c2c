//! Load reports in the answers of servers: found in the head, or gathered from the body, and told to whoever listens.
//!
//! Also the task that asks for a report beside the probes, where the check says so. Whatever comes of a report, no
//! verdict depends on it.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use super::http::Kept;
use super::probe::{Request, Trouble};
use super::{Reports, Target};
use crate::config::settings::{LoadRequest, LoadSource};
use crate::load::report::{Fault, MAX_BYTES, Report, Why, is_health_json};

/// ORCA reports over HTTP.
const HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics");
/// A header that is longer is refused unread: it is read before the verdict is told.
const MAX_HEADER: usize = 8 * 1024;

/// Who is told what the answers of a target say of its load.
#[derive(Clone)]
pub(super) struct Listener {
    target: Arc<Target>,
    reports: Arc<dyn Reports>,
}

impl Listener {
    pub(super) fn new(target: &Target, reports: Arc<dyn Reports>) -> Listener {
        Listener { target: Arc::new(target.clone()), reports }
    }

    fn tell(&self, outcome: Result<Report, Fault>) {
        self.reports.hear(&self.target, outcome);
    }

    fn source(&self) -> &LoadSource {
        &self.target.check.load
    }

    /// Takes the report out of a head, if there is one.
    pub(super) fn head(&self, headers: &HeaderMap) {
        let Some(value) = headers.get(HEADER).filter(|_| *self.source() != LoadSource::Nowhere) else { return };
        self.tell(match value.as_bytes() {
            long if long.len() > MAX_HEADER => {
                Err(Fault::new(Why::TooLong, format!("endpoint-load-metrics is longer than {MAX_HEADER} bytes")))
            }
            value => Report::from_header(value),
        });
    }

    /// For the body of an answer to a probe, if its report is wanted.
    pub(super) fn body(&self, headers: &HeaderMap) -> Option<Collector> {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_wanted = match self.source() {
            LoadSource::Offered => kind.is_some_and(is_health_json),
            LoadSource::Answer => true,
            LoadSource::Apart(_) | LoadSource::Nowhere => false,
        };
        // One report an answer.
        if !is_wanted || headers.contains_key(HEADER) {
            return None;
        }
        if headers.contains_key(CONTENT_ENCODING) {
            self.tell(Err(Fault::new(Why::Unreadable, "the body is compressed, which was not asked for")));
            return None;
        }
        Some(Collector { listener: self.clone(), kind: kind.map(str::to_owned), body: Vec::new() })
    }
}

/// The body of an answer, as it comes; as long as its reader lets it be.
pub(super) struct Collector {
    listener: Listener,
    kind: Option<String>,
    body: Vec<u8>,
}

impl Collector {
    pub(super) fn take(&mut self, piece: &[u8]) {
        self.body.extend_from_slice(piece);
    }

    pub(super) fn finish(self) {
        self.listener.tell(Report::from_body(self.kind.as_deref(), &self.body));
    }

    pub(super) fn too_long(self) {
        self.listener.tell(Err(too_long()));
    }
}

fn too_long() -> Fault {
    Fault::new(Why::TooLong, format!("longer than {MAX_BYTES} bytes"))
}

/// Asks a target for its load, again and again. Each answer must come before the next is due.
pub(super) struct Asker {
    request: Request,
    listener: Listener,
    asked: LoadRequest,
}

impl Asker {
    pub(super) fn new(request: Request, listener: Listener, asked: LoadRequest) -> Asker {
        Asker { request, listener, asked }
    }

    /// Never ends. `phase`, below 1, spreads the requests of many targets; connections wait their turn at `connecting`.
    pub(super) async fn run(self, phase: f64, connecting: Arc<Semaphore>) {
        let every = self.asked.every;
        let mut due = Instant::now() + every.mul_f64(phase);
        let mut kept = None;
        loop {
            sleep_until(due).await;
            let outcome = match timeout(every, self.ask(kept.take(), &connecting)).await {
                Ok(Ok((outcome, connection))) => {
                    kept = connection.filter(Kept::is_usable);
                    outcome
                }
                Ok(Err(trouble)) => Some(Err(failed(&trouble))),
                Err(_) => Some(Err(Fault::new(Why::Failed, format!("no answer in {every:?}")))),
            };
            if let Some(outcome) = outcome {
                self.listener.tell(outcome);
            }
            // Late ones are left out, not made up for.
            due = (due + every).max(Instant::now() + Duration::from_millis(1));
        }
    }

    /// `None`: the report was in the head, and has been told.
    async fn ask(
        &self,
        kept: Option<Kept>,
        connecting: &Semaphore,
    ) -> Result<(Option<Result<Report, Fault>>, Option<Kept>), Trouble> {
        if let Some(kept) = kept.filter(Kept::is_usable) {
            match self.over(kept).await {
                // It was closed meanwhile.
                Err(Trouble::Closed(_) | Trouble::Outdated) => {}
                other => return other,
            }
        }
        // Never closed; without a permit it goes out all the same.
        let turn = connecting.acquire().await.ok();
        let kept = self.request.open().await?;
        drop(turn);
        self.over(kept).await
    }

    async fn over(&self, kept: Kept) -> Result<(Option<Result<Report, Fault>>, Option<Kept>), Trouble> {
        let mut body = Vec::new();
        let mut long = false;
        let taken = |piece: &[u8]| {
            long |= body.len() + piece.len() > MAX_BYTES;
            if long {
                return Err(too_long().what.into());
            }
            body.extend_from_slice(piece);
            Ok(())
        };
        let (head, kept) = match self.request.read(kept, taken).await {
            Err(Trouble::Hard(_)) if long => return Ok((Some(Err(too_long())), None)),
            other => other?,
        };
        let metrics = &self.asked.metrics;
        if head.headers.contains_key(HEADER) && metrics.is_empty() {
            return Ok((None, kept));
        }
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let report = if metrics.is_empty() { Report::from_body(kind, &body) } else { metrics.read(&body) };
        Ok((Some(report), kept))
    }
}

fn failed(trouble: &Trouble) -> Fault {
    let what = match trouble {
        Trouble::Hard(cause) | Trouble::Closed(cause) | Trouble::Local(cause) => cause,
        Trouble::Outdated => "closed",
    };
    Fault::new(Why::Failed, what)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::http::{Exchange, Gone};
    use super::super::meter::Metered;
    use super::*;
    use crate::config::settings::{Check, CheckKind, HttpCheck, Transport};
    use crate::health::beats::packet::Load;
    use crate::health::tls::Connectors;
    use crate::load::report::exposition::Wanted;

    #[derive(Default)]
    struct Told(Mutex<Vec<Result<Report, Fault>>>);

    impl Reports for Told {
        fn hear(&self, _: &Target, outcome: Result<Report, Fault>) {
            self.0.lock().unwrap().push(outcome);
        }

        fn beat(&self, _: IpAddr, _: &Load) {}
    }

    impl Told {
        fn sessions(&self) -> Vec<Result<f64, Why>> {
            let told = std::mem::take(&mut *self.0.lock().unwrap());
            told.into_iter()
                .map(|told| told.map(|report| report.sessions().unwrap()).map_err(|fault| fault.why))
                .collect()
        }
    }

    /// What is told when a server answers so: with the verdict, and after it; and how the connection ended by then.
    async fn told(load: LoadSource, contains: Option<&str>, answer: String) -> [Vec<Result<f64, Why>>; 2] {
        let second = Duration::from_secs(1);
        let http = HttpCheck {
            path: "/".into(),
            host: "live.example".into(),
            status: vec![],
            contains: contains.map(Into::into),
        };
        let check = Check {
            kind: CheckKind::Http(http.clone()),
            every: second,
            timeout: second / 2,
            adaptive: false,
            fall: 1,
            rise: 1,
            port: 1,
            heartbeat: None,
            load,
        };
        let target = Target { address: "127.0.0.1:1".parse().unwrap(), check: Arc::new(check), beats_of: None };
        let told = Arc::new(Told::default());
        let exchange = Exchange::new(&http).unwrap().heard_by(Some(Listener::new(&target, told.clone())));
        let (ours, mut theirs) = duplex(1 << 20);
        let (ours, meter) = Metered::new(ours);
        let kept = exchange.open(ours, meter).await.unwrap();
        let server = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                theirs.read_buf(&mut head).await.unwrap();
            }
            theirs.write_all(answer.as_bytes()).await.unwrap();
        };
        let (kept, ()) = tokio::join!(exchange.ask(kept), server);
        let with_verdict = told.sessions();
        if let Some(mut kept) = kept.unwrap() {
            match timeout(second, kept.idle()).await {
                Ok(gone) => assert!(gone != Gone::Closed || !answer.contains("close"), "no reason to probe again"),
                Err(_) => assert!(kept.is_usable()),
            }
        }
        [with_verdict, told.sessions()]
    }

    fn answer(head: &str, body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len())
    }

    const HEALTH: &str = r#"{"status":"pass","checks":{"sessions:current":{"observedValue":7}}}"#;
    const HEALTH_TYPE: &str = "Content-Type: application/health+json\r\n";
    const ORCA: &str = "Endpoint-Load-Metrics: TEXT named_metrics.sessions=8\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_header_is_read_at_once_and_a_body_after_the_verdict() {
        let offered = || LoadSource::Offered;
        assert_eq!(told(offered(), None, answer(ORCA, "ok")).await, [vec![Ok(8.0)], vec![]]);
        assert_eq!(told(offered(), None, answer(HEALTH_TYPE, HEALTH)).await, [vec![], vec![Ok(7.0)]]);
        let both = format!("{ORCA}{HEALTH_TYPE}");
        assert_eq!(told(offered(), None, answer(&both, HEALTH)).await, [vec![Ok(8.0)], vec![]], "one report an answer");
        let closing = format!("{HEALTH_TYPE}Connection: close\r\n");
        assert_eq!(told(offered(), None, answer(&closing, HEALTH)).await, [vec![], vec![Ok(7.0)]]);
        assert_eq!(told(offered(), Some("pass"), answer(HEALTH_TYPE, HEALTH)).await, [vec![], vec![Ok(7.0)]]);
    }

    #[tokio::test(start_paused = true)]
    async fn other_bodies_are_read_only_where_the_check_says_so() {
        let plain = || answer("Content-Type: application/json\r\n", r#"{"sessions": 9}"#);
        assert_eq!(told(LoadSource::Offered, None, plain()).await, [vec![], vec![]]);
        assert_eq!(told(LoadSource::Answer, None, plain()).await, [vec![], vec![Ok(9.0)]]);
        assert_eq!(told(LoadSource::Answer, None, answer("", "ok")).await, [vec![], vec![Err(Why::Unreadable)]]);
        assert_eq!(told(LoadSource::Answer, None, answer("", "")).await, [vec![], vec![Err(Why::Nothing)]]);
        assert_eq!(told(LoadSource::Nowhere, None, answer(ORCA, HEALTH)).await, [vec![], vec![]]);
    }

    #[tokio::test(start_paused = true)]
    async fn reports_that_are_too_long_or_compressed_are_refused() {
        let long = answer("", &format!("{{\"sessions\": 1{}}}", " ".repeat(MAX_BYTES)));
        assert_eq!(told(LoadSource::Answer, None, long).await, [vec![], vec![Err(Why::TooLong)]]);
        let header = format!("Endpoint-Load-Metrics: TEXT a=1{}\r\n", "0".repeat(MAX_HEADER));
        assert_eq!(told(LoadSource::Offered, None, answer(&header, "")).await, [vec![Err(Why::TooLong)], vec![]]);
        let zipped = answer("Content-Encoding: gzip\r\n", "ok");
        assert_eq!(told(LoadSource::Answer, None, zipped).await, [vec![Err(Why::Unreadable)], vec![]]);
    }

    #[tokio::test]
    async fn a_request_beside_the_probes_goes_where_the_server_is_probed() {
        let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = |path: &str| HttpCheck { path: path.into(), host: String::new(), status: vec![200], contains: None };
        let asked = LoadRequest {
            http: http("/load"),
            port: None,
            transport: Transport::Plain,
            every: Duration::from_secs(5),
            metrics: Wanted::default(),
        };
        let check = Check {
            kind: CheckKind::Http(http("/")),
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            adaptive: false,
            fall: 1,
            rise: 1,
            port: 80,
            heartbeat: None,
            load: LoadSource::Apart(asked.clone()),
        };
        // A server with a `probe` of its own, not at the check's port.
        let target = Target { address: origin.local_addr().unwrap(), check: Arc::new(check), beats_of: None };
        let told = Arc::new(Told::default());
        let listener = Listener::new(&target, told.clone());
        let request = Request::new(&target, &asked, &mut Connectors::default(), listener.clone()).unwrap();
        let asker = tokio::spawn(Asker::new(request, listener, asked).run(0.0, Arc::new(Semaphore::new(1))));
        let (mut connection, _) = timeout(Duration::from_secs(20), origin.accept()).await.expect("it asks").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            connection.read_buf(&mut head).await.unwrap();
        }
        assert!(head.starts_with(b"GET /load HTTP/1.1\r\n"));
        connection.write_all(answer(ORCA, "ok").as_bytes()).await.unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            match told.sessions() {
                none if none.is_empty() && std::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                said => break assert_eq!(said, [Ok(8.0)]),
            }
        }
        asker.abort();
    }
}
