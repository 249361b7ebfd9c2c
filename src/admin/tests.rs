//! The whole admin address over loopback, with a control loop that the test plays.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

use arc_swap::ArcSwap;
use hyper::Method;
use jiff::Timestamp;
use ring::digest;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cli::ask::{Client, TrustArgs};
use crate::config::admin::{Access, Role, Tls, Token};
use crate::config::{At, Diagnostic, Shared, load_zones};
use crate::control::{ReloadOutcome, Tally};
use crate::geo::Database;
use crate::health::Verdict;
use crate::health::beats::Beats;
use crate::journal::{Kind, Note};
use crate::orders::{Book, Draft, Lift, Order, Refusal};
use crate::server::counters::Ledger;
use crate::snapshot::{Served, Snapshot};
use crate::status::{OrderStatus, Status};
use crate::world::Beliefs;

mod load;

const SECOND: Duration = Duration::from_secs(1);

fn snapshot() -> Snapshot {
    snapshot_on(Database::empty())
}

/// With the bundled database.
fn placed() -> Snapshot {
    snapshot_on(Database::bundled())
}

fn snapshot_on(database: Database) -> Snapshot {
    let dir = tempfile::tempdir().unwrap();
    let text = "zone = \"stream.example\"\nns = [\"ns1.example.net\", \"ns2.example.net\"]\n[check]\ntcp = 9\n\
        [region.eu]\nat = [51.51, -0.13]\na = [\"192.0.2.11\"]\naaaa = [\"2001:db8::11\"]\n\
        [region.us]\nat = [39.04, -77.49]\na = [\"192.0.2.21\"]\n[stream.live]\n";
    std::fs::write(dir.path().join("zone.toml"), text).unwrap();
    let mut loaded = load_zones(&[dir.path().to_owned()], &Shared::default());
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let served = Served { serial: 7, zone: Arc::new(loaded.zones.remove(0)) };
    Snapshot::compile(vec![served], &Arc::new(database), |_| Verdict::Unknown, None)
}

/// What the loop was asked, and what it says to a reload.
struct Loop {
    drafts: Mutex<Vec<Draft>>,
    lifts: Mutex<Vec<(Lift, String)>>,
    reload: ReloadOutcome,
    view: View,
}

impl Loop {
    async fn run(self: Arc<Loop>, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::View(reply) => drop(reply.send(self.view.clone())),
                Event::Reload(reply) => drop(reply.send(self.reload.clone())),
                Event::Order(draft, reply) => drop(reply.send(self.order(draft))),
                Event::Lift { what, author, reply } => {
                    let lifted = match &what {
                        Lift::Id(1) => Ok(self.view.orders.to_vec()),
                        Lift::Drains { .. } => Ok(vec![]),
                        _ => Err(Refusal::Unknown("there is no order 9".to_owned())),
                    };
                    self.lifts.lock().unwrap().push((what, author));
                    drop(reply.send(lifted));
                }
                _ => {}
            }
        }
    }

    fn order(&self, draft: Draft) -> Result<Order, Refusal> {
        self.drafts.lock().unwrap().push(draft.clone());
        match draft.reason.as_str() {
            "invalid" => Err(Refusal::Invalid("it would end before the region is drained".to_owned())),
            "full" => Err(Refusal::Full("1000 orders are in force".to_owned())),
            "unknown" => Err(Refusal::Unknown("no region has this name".to_owned())),
            "too little" => Err(Refusal::TooLittle("1 region of 2 would be left".to_owned())),
            "not kept" => Err(Refusal::NotKept("the disk is full".to_owned())),
            _ => Ok(order(2, draft)),
        }
    }
}

fn order(id: u64, draft: Draft) -> Order {
    let Draft { subject, zone, action, reason, author, anyway, .. } = draft;
    let now = status::timestamp(SystemTime::now());
    Order { id, subject, zone, action, given: now, from: now, until: None, reason, author, anyway }
}

/// A drain that should have begun long ago and began now, and a force whose time is there and that has not begun.
fn late(now: Timestamp) -> Vec<OrderStatus> {
    let (then, reason) = (now - jiff::SignedDuration::from_mins(10), "kernel update");
    let order = |id: u64, subject: &str, action: Value| {
        json!({ "id": id, "subject": { "region": subject }, "action": action, "given": then, "from": then,
            "reason": reason, "author": "bob", "anyway": false })
    };
    let book = json!({ "next": 3, "orders": [
        { "order": order(1, "eu", json!({ "drain": { "over_ms": 120_000 } })), "begun": now, "start": 1.0 },
        { "order": order(2, "us", json!("force_up")), "start": 1.0 },
    ] });
    serde_json::from_value::<Book>(book).unwrap().status(now)
}

struct Rig {
    learned: crate::control::learned::Shared,
    address: SocketAddr,
    control: Arc<Loop>,
    journal: Journal,
    gate: Arc<Gate>,
    scale: Arc<Board>,
    stop: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn rig(access: Access, reload: ReloadOutcome) -> Rig {
    rig_with(access, reload, |_| {}).await
}

async fn rig_with(access: Access, reload: ReloadOutcome, change: impl FnOnce(&mut View)) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let snapshot = Arc::new(snapshot());
    let drain = orders::Asked {
        action: orders::Word::Drain,
        subject: "eu".to_owned(),
        zone: None,
        over: None,
        lasting: None,
        at: None,
        reason: "kernel update".to_owned(),
        anyway: false,
    };
    let drain = drain.draft(&access::Author("bob".into()), Timestamp::now()).unwrap();
    let mut view = View::of(Arc::clone(&snapshot), Arc::new(Beliefs::new()));
    view.orders = Arc::new(vec![order(1, drain)]);
    view.order_status = Arc::new(late(Timestamp::now()));
    change(&mut view);
    let control = Arc::new(Loop { drafts: Mutex::default(), lifts: Mutex::default(), reload, view });
    let (events, receiver) = mpsc::channel(16);
    tokio::spawn(Arc::clone(&control).run(receiver));
    let gate = Arc::new(Gate::new(access, address));
    let journal = Journal::in_memory();
    let loads = crate::load::Desk::default();
    loads.retain(&snapshot);
    let scale = Arc::new(Board::default());
    let figures = metrics::Sources {
        ledger: Arc::new(Ledger::default()),
        published: Arc::new(ArcSwap::new(snapshot)),
        stats: Stats::default(),
        tally: Arc::new(Tally::default()),
        beats: Beats::default(),
        loads: loads.clone(),
        rtt: Arc::default(),
        gate: Arc::clone(&gate),
        connections: std::sync::OnceLock::new(),
        started: SystemTime::now(),
        orders: ArcSwap::default(),
        scale: Arc::clone(&scale),
    };
    let figures = Arc::new(figures);
    let admin = Admin {
        events,
        ready: watch::channel(true).1,
        metrics: Arc::new(Metrics::new(Arc::clone(&figures))),
        gate: Arc::clone(&gate),
        journal: journal.clone(),
        stats: Stats::default(),
        agents: Arc::new(Beats::default()),
        loads,
        rates: Arc::new(Rates::default()),
        scale: Arc::clone(&scale),
        started: SystemTime::now(),
        streams: Arc::new(Semaphore::new(events::STREAMS)),
    };
    let learned = crate::control::learned::Shared::default();
    let routes = rtt::router(Arc::clone(&learned), Arc::clone(&figures.rtt), admin.events.clone());
    tokio::spawn(listen::serve(listener, gate.acceptor(), router(admin, routes), stop.clone()));
    Rig { learned, address, control, journal, gate, scale, stop }
}

async fn open() -> Rig {
    rig(Access::default(), Ok(17)).await
}

impl Rig {
    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address), &TrustArgs::default()).unwrap()
    }

    /// Status and body.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let reply = self.client().ask(method, path, body.as_ref(), 9 * SECOND).await.unwrap();
        (reply.status, serde_json::from_str(&reply.body).unwrap_or(Value::String(reply.body)))
    }

    /// Sends bytes and reads to the end; a reset counts as the end.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test]
async fn round_trip_times_are_taken_line_by_line() {
    let rig = rig_with(Access::default(), Ok(17), |view| view.snapshot = Arc::new(placed())).await;
    let sample = |n: u32, region: &str, rtt: f64| {
        json!({ "prefix": format!("1.1.{n}.0/24"), "region": region, "rtt_ms": rtt, "loss": 0.0 }).to_string()
    };
    let mut lines: Vec<String> = (0..40).map(|n| sample(n, "eu", 250.0)).collect();
    lines.push(String::new());
    lines.push(sample(1, "mars", 9.0));
    lines.push(sample(1, "eu", -9.0));
    lines.push("{".to_owned());
    lines.push(r#"{"prefix": "1.1.1.0/24", "region": "eu", "zone": "other.example", "rtt_ms": 9}"#.to_owned());
    lines.push(r#"{"prefix": "1.1.1.0/24", "region": "eu", "zone": "Stream.Example.", "rtt_ms": 9}"#.to_owned());
    let reply = rig.client().post_lines("/v1/rtt", lines.join("\n"), SECOND * 9).await.unwrap();
    let body: Value = reply.read().unwrap();
    assert_eq!(body["taken"], 41, "{body}");
    let told: Vec<(u64, &str)> = body["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["line"].as_u64().unwrap(), line["what"].as_str().unwrap()))
        .collect();
    assert_eq!(told[..2], [(42, "no zone has a region \"mars\""), (43, "-9 ms is no round trip")]);
    assert!(told[2].0 == 44 && told[3] == (45, "no region \"eu\" in zone \"other.example\""), "{told:?}");
    assert_eq!(body["refused"][1]["rule"], "from 1 to 2000 ms");
    assert!(!rig.learned.lock().unwrap().is_empty());
    let (_, metrics) = rig.ask(Method::GET, "/metrics", None).await;
    for (outcome, count) in
        [("taken", 41), ("unreadable", 1), ("unknown", 2), ("figure", 1), ("nowhere", 0), ("plenty", 0)]
    {
        let line = format!("meridian_rtt_samples_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.as_str().unwrap().contains(&line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn round_trip_times_of_which_none_is_taken_are_an_error_that_says_why() {
    let rig = rig_with(Access::default(), Ok(17), |view| view.snapshot = Arc::new(placed())).await;
    let post = async |lines: &str| {
        let reply = rig.client().post_lines("/v1/rtt", lines.to_owned(), SECOND * 9).await.unwrap();
        (reply.status, serde_json::from_str::<Value>(&reply.body).unwrap())
    };
    let (status, body) = post(r#"{"prefix": "1.1.1.0/24", "region": "eu", "rtt_ms": 1e308}"#).await;
    let why = "no line was taken: 1e308 ms is no round trip (from 1 to 2000 ms)";
    assert_eq!((status, &body["error"]), (422, &json!(why)), "{body}");
    let (_, body) = post(r#"{"prefix": "198.51.100.0/24", "region": "eu", "rtt_ms": 42.5}"#).await;
    assert_eq!(body["refused"][0]["what"], "where the prefix is, is not known", "{body}");
    assert!(body["refused"][0]["rule"].as_str().unwrap().contains("documentation"), "{body}");
    let (status, body) = post("\n \n").await;
    assert!(status == 400 && body["error"].as_str().unwrap().contains("\"rtt_ms\": 42.5"), "{body}");
    let sound = r#"{"prefix": "1.1.1.0/24", "region": "eu", "rtt_ms": 20}"#;
    assert_eq!(post(&format!("x\n{sound}")).await.0, 200, "one was taken");
    let (status, body) = post(&format!("{sound}\n").repeat(50)).await;
    assert_eq!((status, &body["error"]), (200, &Value::Null), "{body}");
    let (status, body) = post(sound).await;
    assert_eq!((status, &body["taken"], &body["error"]), (200, &json!(0), &Value::Null), "no news is no fault: {body}");
}

#[tokio::test]
async fn floods_of_round_trip_times_are_bounded() {
    let rig = rig_with(Access::default(), Ok(17), |view| view.snapshot = Arc::new(placed())).await;
    let post = |lines: String| {
        let client = rig.client();
        async move { client.post_lines("/v1/rtt", lines, SECOND * 9).await.unwrap() }
    };
    let reply = post(format!("{}\n", "x".repeat(80)).repeat(2000)).await;
    assert_eq!(reply.status, 422);
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!((body["refused"].as_array().unwrap().len(), &body["refused_beyond"]), (100, &json!(1900)));
    assert_eq!(post("x".repeat(2 << 20)).await.status, 413);
    assert_eq!(post("\n".repeat(40_000)).await.status, 400, "an empty body costs nobody a line");
    assert_eq!(post("x\n".repeat(40_000)).await.status, 429);
}

#[tokio::test]
async fn who_may_report_may_do_nothing_else() {
    let token = |name: &str, role| {
        let sum = digest::digest(&digest::SHA256, name.as_bytes());
        Token { name: name.into(), role, sha256: sum.as_ref().try_into().unwrap() }
    };
    let tokens = vec![token("edge", Role::Report), token("rita", Role::Read), token("alice", Role::Operate)];
    let rig = rig(Access { tls: None, tokens }, Ok(17)).await;
    let status = async |method: &str, path: &str, token: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/x-ndjson\r\ncontent-length: 0\r\n\r\n",
            rig.address
        );
        rig.raw(request.as_bytes()).await[9..12].to_owned()
    };
    for (method, path, token, wanted) in [
        // Let in, with an empty body.
        ("POST", "/v1/rtt", "edge", "400"),
        ("POST", "/v1/rtt", "alice", "400"),
        ("POST", "/v1/rtt", "rita", "403"),
        ("POST", "/v1/reload", "edge", "403"),
        ("GET", "/v1/status", "edge", "403"),
        ("GET", "/v1/rtt", "edge", "403"),
    ] {
        assert_eq!(status(method, path, token).await, wanted, "{method} {path} {token}");
    }
}

#[tokio::test]
async fn an_order_reaches_the_loop_with_its_author_and_its_outcome_comes_back() {
    let rig = open().await;
    let asked = |reason: &str| Some(json!({ "action": "drain", "subject": "eu", "reason": reason, "over": "2m" }));
    let (status, body) = rig.ask(Method::POST, "/v1/orders", asked("kernel update")).await;
    assert_eq!((status, &body["order"]["id"], &body["order"]["author"]), (201, &json!(2), &json!("local")), "{body}");
    assert_eq!(rig.control.drafts.lock().unwrap()[0].author, "local");
    for (reason, wanted, what) in [
        ("invalid", 400, "it would end before the region is drained"),
        ("full", 409, "1000 orders are in force"),
        ("unknown", 404, "no region has this name"),
        ("too little", 409, "1 region of 2 would be left"),
        ("not kept", 507, "the disk is full"),
        ("", 400, "give a reason: it is what the next person reads"),
    ] {
        let (status, body) = rig.ask(Method::POST, "/v1/orders", asked(reason)).await;
        assert_eq!((status, body), (wanted, json!({ "error": what })), "{reason}");
    }
}

#[tokio::test]
async fn where_nothing_is_kept_over_a_restart_orders_and_status_say_so() {
    let asked = || Some(json!({ "action": "drain", "subject": "eu", "reason": "kernel update" }));
    let kept = open().await;
    let (status, body) = kept.ask(Method::POST, "/v1/orders", asked()).await;
    assert_eq!((status, &body["kept"], &body["not_kept_because"]), (201, &json!(true), &Value::Null));
    let why = "the state directory state is in use by process 7";
    let rig = rig_with(Access::default(), Ok(17), |view| view.not_kept = Some(why.into())).await;
    let (status, body) = rig.ask(Method::POST, "/v1/orders", asked()).await;
    assert_eq!((status, &body["kept"], &body["not_kept_because"]), (201, &json!(false), &json!(why)), "{body}");
    let (_, status) = rig.ask(Method::GET, "/v1/status", None).await;
    assert_eq!((&status["kept"], &status["not_kept_because"]), (&json!(false), &json!(why)), "{status}");
}

#[tokio::test]
async fn an_order_that_began_late_is_shown_as_it_stands_and_not_by_its_time() {
    let rig = open().await;
    let (_, listed) = rig.ask(Method::GET, "/v1/orders", None).await;
    let (_, status) = rig.ask(Method::GET, "/v1/status", None).await;
    for orders in [&listed["orders"], &status["orders"]] {
        assert_eq!((&orders[0]["state"], &orders[1]["state"]), (&json!("draining"), &json!("to come")), "{orders}");
    }
    let (_, text) = rig.ask(Method::GET, "/metrics", None).await;
    let line = "meridian_orders{action=\"force_up\",state=\"to_come\"} 1";
    assert!(text.as_str().unwrap().contains(line), "{text}");
}

#[tokio::test]
async fn orders_are_listed_and_lifted() {
    let rig = open().await;
    let (status, body) = rig.ask(Method::GET, "/v1/orders", None).await;
    let first = &body["orders"][0];
    assert_eq!(
        (status, &first["subject"], &first["state"], &first["left"]),
        (200, &json!("eu"), &json!("draining"), &json!(1.0)),
        "{body}"
    );
    let (status, body) = rig.ask(Method::DELETE, "/v1/orders/1", None).await;
    assert_eq!((status, &body["lifted"][0]["id"]), (200, &json!(1)), "{body}");
    assert_eq!(rig.ask(Method::DELETE, "/v1/orders/9", None).await.0, 404);
    assert_eq!(rig.ask(Method::DELETE, "/v1/orders/eu", None).await.0, 404);
    let about = Some(json!({ "subject": "eu", "zone": "Stream.Example." }));
    assert_eq!(rig.ask(Method::POST, "/v1/undrain", about.clone()).await.0, 404, "nothing was drained");
    assert_eq!(rig.ask(Method::POST, "/v1/unforce", about).await.0, 404);
    let lifts = rig.control.lifts.lock().unwrap();
    let subject = || crate::orders::Subject::Region("eu".into());
    let zone = || Some("stream.example".into());
    assert_eq!(
        lifts[2..],
        [
            (Lift::Drains { subject: subject(), zone: zone() }, "local".to_owned()),
            (Lift::Forces { subject: subject(), zone: zone() }, "local".to_owned()),
        ]
    );
}

#[tokio::test]
async fn a_reload_tells_the_generation_or_every_fault() {
    let rig = open().await;
    assert_eq!(rig.ask(Method::POST, "/v1/reload", None).await, (200, json!({ "generation": 17 })));
    let fault =
        Diagnostic::error(At::start(Path::new("zones/a.toml")), "unknown key `tll`").help("did you mean `ttl`?");
    let rig = self::rig(Access::default(), Err(vec![fault])).await;
    let (status, body) = rig.ask(Method::POST, "/v1/reload", None).await;
    assert_eq!((status, &body["error"]), (422, &json!("1 error in the files; nothing changed")));
    assert_eq!(body["diagnostics"][0]["help"], "did you mean `ttl`?");
}

#[tokio::test]
async fn a_status_holds_every_region_and_server() {
    let rig = open().await;
    let reply = rig.client().ask(Method::GET, "/v1/status", None, SECOND * 9).await.unwrap();
    let status: Status = reply.read().unwrap();
    let zone = &status.zones[0];
    assert_eq!((zone.name.as_str(), zone.serial, zone.regions.len()), ("stream.example", 7, 2));
    let eu = &zone.regions[0];
    assert_eq!((eu.up_v4, eu.up_v6, eu.mode.as_str(), eu.share_allowed), (Some(true), Some(true), "steady", 1.0));
    assert_eq!(zone.regions[1].up_v6, None);
    // The short form has a server for each address.
    let probed: Vec<&str> = eu.servers.iter().flat_map(|s| &s.targets).map(|target| &*target.probed).collect();
    assert_eq!(probed, ["192.0.2.11:9", "[2001:db8::11]:9"]);
    assert_eq!(eu.servers[0].targets[0].verdict, "unknown");
    assert_eq!((status.orders[0].id, status.orders[0].author.as_str()), (1, "bob"));
}

#[tokio::test]
async fn metrics_count_orders_shares_and_refusals() {
    let rig = open().await;
    let evil = format!(
        "POST /v1/reload HTTP/1.1\r\nhost: {0}\r\norigin: http://evil.example\r\ncontent-type: application/json\r\n\r\n",
        rig.address
    );
    assert!(rig.raw(evil.as_bytes()).await.starts_with("HTTP/1.1 403 "));
    let (_, text) = rig.ask(Method::GET, "/metrics", None).await;
    let text = text.as_str().unwrap();
    for line in [
        "meridian_orders{action=\"drain\",state=\"in_force\"} 1",
        "meridian_orders{action=\"force_down\",state=\"to_come\"} 0",
        "meridian_region_share_allowed{zone=\"stream.example\",region=\"eu\"} 1.0",
        "meridian_admin_refusals_total{reason=\"foreign\"} 1",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn bodies_that_are_giant_slow_or_no_json_are_refused_in_time() {
    let rig = open().await;
    let head = |length: usize| {
        let address = rig.address;
        format!(
            "POST /v1/orders HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let giant = head(1 << 30) + &" ".repeat(64 * 1024);
    let answer = rig.raw(giant.as_bytes()).await;
    // The rest is not read, so the answer may be lost with the connection.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
    for (body, wanted) in [("{", "EOF"), ("drain eu", "expected"), ("\u{feff}{}", "expected")] {
        let answer = rig.raw((head(body.len()) + body).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(wanted), "{answer}");
    }
    let began = std::time::Instant::now();
    let answer = rig.raw((head(100) + "{").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(began.elapsed() < 9 * SECOND);
    assert!(rig.control.drafts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn events_come_as_a_list_and_as_a_stream_from_where_the_reader_was() {
    let rig = open().await;
    for n in 1..=5 {
        rig.journal.note(Timestamp::now(), Note::new(Kind::Reloaded, format!("generation {n}")));
    }
    let ids =
        |body: &Value| body["events"].as_array().unwrap().iter().map(|e| e["id"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(ids(&rig.ask(Method::GET, "/v1/events", None).await.1), [1, 2, 3, 4, 5]);
    assert_eq!(ids(&rig.ask(Method::GET, "/v1/events?after=2&limit=2", None).await.1), [4, 5]);
    let ahead = rig.ask(Method::GET, "/v1/events?after=74", None).await.1;
    assert_eq!(ahead, json!({ "events": [], "last": 5 }), "the reader can tell that the journal is another one");
    for bad in ["after=x", "limit=-1", "since=3"] {
        assert_eq!(rig.ask(Method::GET, &format!("/v1/events?{bad}"), None).await.0, 400, "{bad}");
    }
    let mut feed = rig.client().follow("/v1/events", Some(3)).await.unwrap();
    rig.journal.note(Timestamp::now(), Note::new(Kind::Alarm, "look"));
    for id in 4..=6 {
        let event = feed.next().await.unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap()["id"], id);
    }
}

/// `mrd_NAME`, which may do everything.
fn token(name: &str) -> Token {
    let sum = digest::digest(&digest::SHA256, format!("mrd_{name}").as_bytes());
    Token { name: name.into(), role: Role::Operate, sha256: sum.as_ref().try_into().unwrap() }
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_taken_away_and_others_go_on() {
    let access = |names: &[&str]| Access { tls: None, tokens: names.iter().map(|name| token(name)).collect() };
    let rig = rig(access(&["alice", "bob"]), Ok(1)).await;
    let dir = tempfile::tempdir().unwrap();
    let client = |name: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, format!("mrd_{name}")).unwrap();
        let trust = TrustArgs { token_file: Some(file), ca: None };
        Client::new(&format!("http://{}", rig.address), &trust).unwrap()
    };
    let mut alice = client("alice").follow("/v1/events", Some(0)).await.unwrap();
    let mut bob = client("bob").follow("/v1/events", Some(0)).await.unwrap();
    let note = || rig.journal.note(Timestamp::now(), Note::new(Kind::Alarm, "look"));
    note();
    assert!(alice.next().await.unwrap().is_some() && bob.next().await.unwrap().is_some());
    rig.gate.replace(&access(&["bob"]));
    note();
    assert_eq!(timeout(SECOND, alice.next()).await.expect("at once").unwrap(), None, "and nothing more is told");
    assert!(bob.next().await.unwrap().is_some());
}

#[tokio::test]
async fn streams_are_bounded_in_number_and_leave_room_for_requests() {
    let rig = open().await;
    let mut feeds = Vec::new();
    for _ in 0..events::STREAMS {
        feeds.push(rig.client().follow("/v1/events", None).await.unwrap());
    }
    let error = rig.client().follow("/v1/events", None).await.err().unwrap();
    assert!(error.to_string().contains("16 streams"), "{error}");
    assert_eq!(rig.ask(Method::GET, "/v1/orders", None).await.0, 200);
    feeds.pop();
    let again = async {
        while rig.client().follow("/v1/events", None).await.is_err() {
            rig.journal.note(Timestamp::now(), Note::new(Kind::Alarm, "a write shows that a reader is gone"));
            tokio::time::sleep(SECOND / 20).await;
        }
    };
    timeout(9 * SECOND, again).await.expect("a stream that was closed makes room for another");
}

#[tokio::test]
async fn a_reader_of_a_stream_that_takes_nothing_is_dropped() {
    let rig = open().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let request = format!("GET /v1/events HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n", rig.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.readable().await.unwrap();
    let began = std::time::Instant::now();
    let dropped = async {
        // Until the kernel's buffers are full, and then as long as the server is patient.
        while stream.write_all(b"\r\n").await.is_ok() {
            for _ in 0..2000 {
                rig.journal.note(Timestamp::now(), Note::new(Kind::Alarm, "x".repeat(400)));
            }
            tokio::time::sleep(SECOND / 10).await;
        }
    };
    timeout(25 * SECOND, dropped).await.expect("the server closes the connection");
    assert!(began.elapsed() > 4 * SECOND, "for want of patience, and not for another reason");
}

#[tokio::test]
async fn over_tls_with_a_private_ca_a_token_tells_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("token"), "mrd_alice\n").unwrap();
    let alice = token("alice");
    let tls = Some(Arc::new(Tls::read(path("cert.pem"), path("key.pem")).unwrap()));
    let rig = rig(Access { tls, tokens: vec![alice] }, Ok(1)).await;
    let url = format!("https://localhost:{}", rig.address.port());
    let client = |token: bool, ca: bool| {
        let trust = TrustArgs { token_file: token.then(|| path("token")), ca: ca.then(|| path("cert.pem")) };
        Client::new(&url, &trust).unwrap()
    };
    let body = json!({ "action": "force_down", "subject": "192.0.2.11", "reason": "disk" });
    let ask = |client: Client| async move { client.ask(Method::POST, "/v1/orders", Some(&body), SECOND * 9).await };
    let reply = ask.clone()(client(true, true)).await.unwrap();
    assert!(reply.status == 201 && reply.body.contains("\"author\":\"alice\""), "{reply:?}");
    let reply = ask.clone()(client(false, true)).await.unwrap();
    assert_eq!(reply.status, 401, "{reply:?}");
    let error = ask(client(true, false)).await.unwrap_err();
    assert!(error.to_string().contains("unknown issuer; --ca FILE names"), "{error}");
    assert!(!rig.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.contains("200"), "no plain HTTP beside TLS");
}

#[tokio::test]
async fn a_ca_in_the_place_of_the_server_s_certificate_is_told_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(path("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    let tls = Some(Arc::new(Tls::read(path("cert.pem"), path("key.pem")).unwrap()));
    let rig = rig(Access { tls, tokens: vec![token("alice")] }, Ok(1)).await;
    let trust = TrustArgs { token_file: None, ca: Some(path("cert.pem")) };
    let client = Client::new(&format!("https://localhost:{}", rig.address.port()), &trust).unwrap();
    let error = client.ask(Method::GET, "/healthz", None, SECOND * 9).await.unwrap_err().to_string();
    assert!(error.contains("a CA's own certificate; issue one for the server, marked CA:FALSE"), "{error}");
}

/// Two known regions and one of which nothing is known.
fn sizes() -> crate::pilot::scale::Scale {
    use crate::pilot::scale::{Scale, Unknown};
    use crate::scale::watch::tests::region;
    Scale {
        regions: vec![
            region("fra", Ok((0.9, 12))),
            region("ams", Ok((0.4, 3))),
            region("iad", Err(Unknown::Unreported)),
        ],
    }
}

#[tokio::test]
async fn sizes_of_regions_are_told_and_what_is_not_known_is_503_and_never_0() {
    let rig = open().await;
    let (status, body) = rig.ask(Method::GET, "/v1/scale", None).await;
    let nothing = "no region is steered by load, or none was looked at yet";
    assert_eq!((status, body), (503, json!({ "error": nothing })));
    rig.scale.store(sizes());
    let because = "it has reported no load for three minutes, or never";
    let (status, body) = rig.ask(Method::GET, "/v1/scale", None).await;
    assert_eq!((status, &body["unknown"]), (200, &json!([{ "region": "iad", "because": because }])), "{body}");
    let names: Vec<&String> = body["regions"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["ams", "fra"]);
    let wanted = json!({ "desired_replicas": 12, "desired_in_15m": 12, "desired_after_loss": 14, "worst_loss": "ams",
        "utilization": 0.81, "planned_utilization": 0.9, "unconstrained_utilization": 1.12, "price_ms": 22.5,
        "sessions": 48211, "unconstrained_starts_per_s": 80.0, "admission_per_s": 66.0 });
    assert_eq!(body["regions"]["fra"], wanted);
    for (path, wanted, keys) in [
        ("/v1/scale?region=fra", 200, &["fra"][..]),
        ("/v1/scale?zone=Stream.example.&region=ams", 200, &["ams"]),
        ("/v1/scale?zone=stream.example", 200, &["ams", "fra"]),
        ("/v1/scale?region=iad", 503, &[]),
        ("/v1/scale?region=sin", 404, &[]),
        ("/v1/scale?zone=other.example", 404, &[]),
        ("/v1/scale?region=fra&region=ams", 400, &[]),
    ] {
        let (status, body) = rig.ask(Method::GET, path, None).await;
        let found: Vec<&str> = body["regions"].as_object().into_iter().flatten().map(|(name, _)| &**name).collect();
        assert_eq!(
            (status, found.as_slice(), body["error"].is_string()),
            (wanted, keys, wanted != 200),
            "{path} {body}"
        );
    }
    let (_, body) = rig.ask(Method::GET, "/v1/scale?region=iad", None).await;
    assert_eq!(body["error"], format!("iad: {because}"));
    let unknown = crate::pilot::scale::Scale { regions: sizes().regions.split_off(2) };
    rig.scale.store(unknown);
    let (status, body) = rig.ask(Method::GET, "/v1/scale", None).await;
    assert_eq!((status, &body["regions"]), (503, &Value::Null), "none is known: {body}");
    let wait = crate::pilot::scale::Unknown::Waits(crate::pilot::view::Wait::Scale);
    let waiting = crate::scale::watch::tests::region("fra", Err(wait));
    rig.scale.store(crate::pilot::scale::Scale { regions: vec![waiting] });
    let (status, body) = rig.ask(Method::GET, "/v1/scale", None).await;
    let why = "fra: load is reported, but it is not yet known what a query stands for";
    assert!(status == 503 && body["error"].as_str().unwrap().starts_with(why), "{body}");
}

#[tokio::test]
async fn regions_of_one_name_are_told_by_zone() {
    let rig = open().await;
    let mut scale = sizes();
    let mut other = crate::scale::watch::tests::region("fra", Ok((0.5, 5)));
    other.zones = vec![Arc::from([Arc::from("game.example")])];
    scale.regions.push(other);
    rig.scale.store(scale);
    let (_, body) = rig.ask(Method::GET, "/v1/scale", None).await;
    let names: Vec<&String> = body["regions"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["ams", "game.example/fra", "stream.example/fra"]);
    for (zone, desired) in [("game.example", 5), ("stream.example", 12)] {
        let (_, body) = rig.ask(Method::GET, &format!("/v1/scale?zone={zone}&region=fra"), None).await;
        assert_eq!(body["regions"]["fra"]["desired_replicas"], desired);
    }
    assert_eq!(rig.ask(Method::GET, "/v1/scale?region=fra", None).await.0, 404, "it is not said which");
    let (_, text) = rig.ask(Method::GET, "/metrics", None).await;
    let line = "meridian_region_desired_servers{zone=\"game.example\",region=\"fra\",when=\"now\"} 5\n";
    assert!(text.as_str().unwrap().contains(line), "{text}");
}

#[tokio::test]
async fn gauges_of_what_is_not_known_are_absent() {
    let rig = open().await;
    rig.scale.store(sizes());
    rig.scale.tally.failed.fetch_add(3, std::sync::atomic::Ordering::Relaxed);
    let (_, text) = rig.ask(Method::GET, "/metrics", None).await;
    let text = text.as_str().unwrap();
    for line in [
        "region_desired_servers{region=\"fra\",when=\"now\"} 12",
        "region_desired_servers{region=\"fra\",when=\"15m\"} 12",
        "region_desired_servers{region=\"fra\",when=\"loss\"} 14",
        "region_utilization{region=\"fra\"} 0.81",
        "region_planned_utilization{region=\"fra\"} 0.9",
        "region_unconstrained_utilization{region=\"fra\"} 1.12",
        "region_price_ms{region=\"fra\"} 22.5",
        "region_unconstrained_starts_per_second{region=\"fra\"} 80.0",
        "region_admission_per_second{region=\"fra\"} 66.0",
        "region_sessions{region=\"fra\"} 48211.0",
        "region_solve_gap{region=\"fra\"} 0.001",
        "region_moved_share{region=\"fra\"} 0.0",
        "region_steering_stage{region=\"iad\",stage=\"steered\"} 1",
        "scale_webhooks_total{outcome=\"failed\"} 3",
    ] {
        assert!(text.contains(&format!("meridian_{line}\n")), "{line}\n{text}");
    }
    for absent in ["desired_servers", "price_ms", "utilization", "admission_per_second"] {
        assert!(!text.contains(&format!("region_{absent}{{region=\"iad\"")), "{text}");
    }
}

#[tokio::test]
async fn the_examples_of_the_docs_find_what_they_ask_for() {
    let rig = open().await;
    rig.scale.store(sizes());
    let docs = std::fs::read_to_string("docs/scaling.md").unwrap();
    let value = |key: &str| {
        let line = docs.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_else(|| panic!("{key}"));
        line.trim().trim_matches('"').to_owned()
    };
    let url = value("url:");
    let path = &url[url.find("/v1/").expect("a path of the API")..];
    let (status, body) = rig.ask(Method::GET, path, None).await;
    assert_eq!(status, 200, "{path} {body}");
    let found = value("valueLocation:").split('.').fold(&body, |at, key| &at[key]);
    assert_eq!(found, &json!(12), "{body}");
    let (_, text) = rig.ask(Method::GET, "/metrics", None).await;
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let metrics: Vec<&str> = docs.split(word).filter(|word| word.starts_with("meridian_")).collect();
    assert!(metrics.len() > 10);
    for metric in metrics {
        let is_there = text
            .as_str()
            .unwrap()
            .lines()
            .any(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])));
        assert!(is_there, "{metric}");
    }
}

#[tokio::test]
async fn the_status_of_a_region_tells_how_it_is_steered() {
    let rig = rig_with(Access::default(), Ok(17), |view| {
        let known = crate::load::known::Known::of(&view.snapshot);
        let market = crate::pilot::testing::market(&known.regions[0].name, crate::load::known::RegionId(0));
        view.steering = Arc::new(crate::pilot::View { markets: vec![market] });
    })
    .await;
    let (_, status) = rig.ask(Method::GET, "/v1/status", None).await;
    let regions = &status["zones"][0]["regions"];
    let wanted =
        json!({ "stage": "steered", "utilization": 0.5, "planned": 0.5, "price_ms": 12.0, "starts_per_s": 8.0 });
    assert_eq!((&regions[0]["steering"], &regions[1]["steering"]), (&wanted, &Value::Null), "{status}");
}
