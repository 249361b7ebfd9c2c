//! `POST /v1/rtt`: round-trip times that viewers, players or the servers themselves measured.
//!
//! The body is JSON lines, `{"prefix": "198.51.100.0/24", "region": "eu-west", "rtt_ms": 42.5}` each, with `zone` and
//! `loss` where they are known. A line that is wrong costs itself alone. Held under a lock that the answer path never sees.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;

use super::access::Author;
use super::body::{bytes, refuse};
use super::listen::Peer;
use super::view;
use crate::config::admin::LOCAL;
use crate::config::settings::Region as Settings;
use crate::control::Event;
use crate::control::learned::Shared;
use crate::control::measured;
use crate::geo::{Database, Point};
use crate::snapshot::Snapshot;
use crate::steering::learn::{Block, Key, Region, Reporter, Sample};

/// Some 15,000 lines.
const BODY_BYTES: usize = 1 << 20;
/// Longer lines are not read.
const MAX_LINE: usize = 1024;
/// Of one reporter: 500 a second in the mean, from every viewer of a big region once in ten minutes.
const LINES_A_MINUTE: usize = 30_000;
/// Reporters whose lines are counted; who comes when there are more waits for the next minute.
const REPORTERS: usize = 1024;
/// Bodies worked on at one time.
const AT_ONCE: usize = 2;
/// Refused lines that are told one by one.
const TOLD: usize = 100;
const MAX_NAME: usize = 255;
/// Lines taken under one lock.
const BATCH: usize = 256;

const FORM: &str =
    r#"a line is {"prefix": "198.51.100.0/24", "region": "eu-west", "rtt_ms": 42.5}, and perhaps zone and loss"#;

/// A line, read and within its own rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub prefix: IpNet,
    pub region: String,
    /// In lower case, without the final dot.
    pub zone: Option<String>,
    pub rtt_ms: f64,
    pub loss: Option<f64>,
}

/// What is wrong with a line, and the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub what: String,
    pub rule: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.rule)
    }
}

impl std::error::Error for Fault {}

fn fault(what: impl Into<String>, rule: impl Into<String>) -> Fault {
    Fault { what: what.into(), rule: rule.into() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    prefix: String,
    region: String,
    zone: Option<String>,
    rtt_ms: f64,
    loss: Option<f64>,
}

impl Line {
    /// Whether the numbers can be believed is asked by who learns from them.
    pub fn read(text: &[u8]) -> Result<Line, Fault> {
        if text.len() > MAX_LINE {
            return Err(fault(format!("the line has {} bytes", text.len()), format!("at most {MAX_LINE}")));
        }
        let written: Written = serde_json::from_slice(text).map_err(|error| fault(error.to_string(), FORM))?;
        let Written { prefix, region, zone, rtt_ms, loss } = written;
        let net = prefix.parse::<IpNet>().or_else(|_| prefix.parse::<IpAddr>().map(IpNet::from));
        let Ok(net) = net else {
            let what = format!("{:?} is neither an address nor a prefix", short(&prefix));
            return Err(fault(what, "`prefix` is like 198.51.100.0/24, 2001:db8:1::/48 or an address"));
        };
        if net.prefix_len() < if net.addr().is_ipv4() { 24 } else { 48 } {
            return Err(fault(format!("{net} is too wide"), "a sample is of one client: a /24 or /48 at the widest"));
        }
        if region.is_empty() || region.len() > MAX_NAME || zone.as_ref().is_some_and(|zone| zone.len() > MAX_NAME) {
            return Err(fault("no name of a region or zone", format!("names have 1 to {MAX_NAME} bytes")));
        }
        let zone = zone.map(|zone| zone.trim_end_matches('.').to_ascii_lowercase());
        Ok(Line { prefix: net, region, zone, rtt_ms, loss })
    }
}

/// What is shown of a text that somebody sent.
fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Where a body goes.
#[derive(Clone)]
pub struct Door {
    learned: Shared,
    events: mpsc::Sender<Event>,
    at_once: Arc<Semaphore>,
    budget: Arc<Mutex<Budget>>,
}

/// Lines of this minute.
#[derive(Default)]
struct Budget {
    began: Option<Instant>,
    lines: HashMap<Arc<str>, usize>,
}

impl Budget {
    fn takes(&mut self, who: &Arc<str>, lines: usize, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(60)) {
            (self.began, self.lines) = (Some(now), HashMap::new());
        }
        if !self.lines.contains_key(who) && self.lines.len() >= REPORTERS {
            return false;
        }
        let sent = self.lines.entry(Arc::clone(who)).or_default();
        let fits = *sent + lines <= LINES_A_MINUTE;
        *sent += if fits { lines } else { 0 };
        fits
    }
}

/// The route, to be merged with the others.
pub fn router(learned: Shared, events: mpsc::Sender<Event>) -> Router {
    let door = Door { learned, events, at_once: Arc::new(Semaphore::new(AT_ONCE)), budget: Arc::default() };
    Router::new().route("/v1/rtt", post(take)).with_state(door)
}

async fn take(
    State(door): State<Door>,
    Extension(author): Extension<Author>,
    peer: Option<Extension<Peer>>,
    body: Body,
) -> Response {
    let Ok(_permit) = Arc::clone(&door.at_once).try_acquire_owned() else {
        return refuse(StatusCode::TOO_MANY_REQUESTS, "other samples are being read; send them again in a second");
    };
    let text = match bytes(body, BODY_BYTES).await {
        Ok(text) => text,
        Err(refusal) => return refusal,
    };
    if text.trim_ascii().is_empty() {
        return refuse(StatusCode::BAD_REQUEST, format!("the body is empty; {FORM}"));
    }
    // Without tokens the address tells one from the other.
    let who = match peer {
        Some(Extension(Peer(from))) if &*author.0 == LOCAL => Arc::from(from.ip().to_canonical().to_string()),
        _ => author.0,
    };
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    let fits = door.budget.lock().unwrap_or_else(PoisonError::into_inner).takes(&who, lines, Instant::now());
    if !fits {
        let what = format!("more than {LINES_A_MINUTE} lines of one reporter within a minute; send fewer, as medians");
        return refuse(StatusCode::TOO_MANY_REQUESTS, what);
    }
    let Some(view) = view(&door.events).await else { return super::orders::silent() };
    let learned = door.learned;
    let work = move || read(&text, &view.snapshot, &learned, &who, Timestamp::now());
    match spawn_blocking(work).await {
        Ok(outcome) => outcome.into_response(),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "a fault of ours; the log says more"),
    }
}

/// Feeds every line and tells the outcome.
fn read(text: &[u8], snapshot: &Snapshot, learned: &Shared, who: &str, now: Timestamp) -> (StatusCode, Json<Value>) {
    let (regions, database) = (Regions::of(snapshot), &snapshot.geography().database);
    let reporter = Reporter::of(who);
    let (mut taken, mut refused, mut more) = (0u64, Vec::new(), 0u64);
    let mut is_plenty = false;
    let lines: Vec<(usize, &[u8])> = text
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .collect();
    for batch in lines.chunks(BATCH) {
        // Read before the lock is taken, which others wait for.
        let read =
            batch.iter().map(|(at, line)| (*at, Line::read(line).and_then(|line| located(line, &regions, database))));
        let read: Vec<_> = read.collect();
        let mut learned = learned.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, line) in read {
            let fed = line.and_then(|found| {
                let sample = found.sample(reporter);
                learned.feed(&sample, now).map_err(|why| {
                    is_plenty |= why.is_plenty();
                    fault(why.to_string(), why.rule())
                })
            });
            match fed {
                Ok(()) => taken += 1,
                Err(Fault { what, rule }) if refused.len() < TOLD => {
                    refused.push(json!({ "line": at + 1, "what": what, "rule": rule }));
                }
                Err(_) => more += 1,
            }
        }
    }
    let mut answer = json!({ "taken": taken, "refused": refused, "refused_beyond": more });
    if taken == 0 && !is_plenty {
        let first = &answer["refused"][0];
        let told = first["what"].as_str().zip(first["rule"].as_str());
        let why = told.map_or(String::new(), |(what, rule)| format!(": {what} ({rule})"));
        answer["error"] = json!(format!("no line was taken{why}"));
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(answer));
    }
    (StatusCode::OK, Json(answer))
}

/// A line whose region and client are known.
struct Found {
    line: Line,
    client: Key,
    cell: Option<Key>,
    location: Option<Point>,
}

impl Found {
    fn sample(&self, reporter: Reporter) -> Sample<'_> {
        let Line { prefix, region, zone, rtt_ms, loss } = &self.line;
        Sample {
            client: self.client,
            cell: self.cell,
            block: Block::of(prefix.addr()),
            region: Region { zone: zone.as_deref(), name: region, location: self.location },
            rtt_ms: *rtt_ms,
            loss: *loss,
            reporter,
        }
    }
}

fn located(line: Line, regions: &Regions<'_>, database: &Database) -> Result<Found, Fault> {
    let Some(location) = regions.location(line.zone.as_deref(), &line.region) else {
        let (region, zone) = (short(&line.region), line.zone.as_deref().map(short));
        return Err(match zone {
            Some(zone) => fault(format!("no region {region:?} in zone {zone:?}"), "`region` is a region of `zone`"),
            None => fault(format!("no zone has a region {region:?}"), "`region` is a name of the zone files"),
        });
    };
    let found = database.lookup(line.prefix.addr());
    let client = Key::new(
        found.location.map(|told| told.value),
        found.country.map(|told| told.value),
        found.asn.map(|told| told.value),
    );
    let geography = regions.snapshot.geography();
    let cell = geography.atlas.locate(line.prefix.addr(), u8::MAX).cell;
    let cell = geography.facts.get(usize::from(cell.0)).map(measured::key);
    Ok(Found { line, client, cell, location })
}

/// Where regions are, by name.
struct Regions<'s> {
    snapshot: &'s Snapshot,
    any: HashMap<&'s str, Option<Point>>,
}

impl<'s> Regions<'s> {
    fn of(snapshot: &'s Snapshot) -> Regions<'s> {
        let mut any = HashMap::new();
        // Zones with the same regions share a fleet, so there are few.
        for fleet in 0..snapshot.fleets() {
            for region in &snapshot.sample(fleet).regions {
                any.entry(&*region.name).or_insert(region.location);
            }
        }
        Regions { snapshot, any }
    }

    /// `None`: there is no such region.
    fn location(&self, zone: Option<&str>, name: &str) -> Option<Option<Point>> {
        let Some(zone) = zone else { return self.any.get(name).copied() };
        // Not among all zones where no zone has the name.
        self.any.get(name)?;
        let served = self.snapshot.zones().iter().find(|served| *served.zone.label() == *zone)?;
        served.zone.regions.iter().find(|region: &&Settings| *region.name == *name).map(|region| region.location)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn what(line: &str) -> String {
        Line::read(line.as_bytes()).unwrap_err().what
    }

    #[test]
    fn a_line_is_read_with_or_without_zone_and_loss() {
        let line = Line::read(br#"{"prefix": "198.51.100.0/24", "region": "eu", "rtt_ms": 42.5}"#).unwrap();
        assert_eq!((line.region.as_str(), line.zone, line.rtt_ms, line.loss), ("eu", None, 42.5, None));
        let all = br#"{"prefix":"2001:db8::1","region":"eu","zone":"Stream.Example.","rtt_ms":1,"loss":0.01}"#;
        let line = Line::read(all).unwrap();
        assert_eq!(
            (line.zone.as_deref(), line.loss, line.prefix.prefix_len()),
            (Some("stream.example"), Some(0.01), 128)
        );
    }

    #[test]
    fn each_fault_is_told() {
        let line = |prefix: &str, region: &str, more: &str| {
            format!("{{\"prefix\": \"{prefix}\", \"region\": \"{region}\", \"rtt_ms\": 4{more}}}")
        };
        assert!(what("{").contains("EOF"));
        assert!(what("[]").contains("invalid"));
        assert!(what(&line("198.51.100.0/24", "eu", ", \"rttms\": 3")).contains("unknown field"));
        assert!(what(&line("198.51.0.0/16", "eu", "")).contains("too wide"));
        assert!(what(&line("2001:db8::/32", "eu", "")).contains("too wide"));
        assert!(what(&line("nowhere", "eu", "")).contains("neither an address nor a prefix"));
        assert!(what(&line("198.51.100.0/24", "", "")).contains("no name"));
        assert!(what(&line("198.51.100.0/24", "eu", "e999")).contains("out of range"));
        assert!(what(&line("198.51.100.0/24", &"x".repeat(2000), "")).contains("bytes"));
        assert!(what(r#"{"prefix": "198.51.100.0/24", "region": "eu"}"#).contains("rtt_ms"));
    }

    #[test]
    fn a_reporter_has_so_many_lines_a_minute() {
        let (mut budget, began, who) = (Budget::default(), Instant::now(), Arc::from("edge"));
        assert!(budget.takes(&who, LINES_A_MINUTE, began));
        assert!(!budget.takes(&who, 1, began + Duration::from_secs(59)));
        assert!(budget.takes(&Arc::from("other"), 1, began));
        assert!(budget.takes(&who, 1, began + Duration::from_secs(60)));
        let many = (0..REPORTERS + 5).filter(|i| budget.takes(&Arc::from(i.to_string()), 1, began)).count();
        assert_eq!(many, REPORTERS - 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_line_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Line::read(&bytes);
        }

        #[test]
        fn what_is_read_is_of_one_client(
            prefix in "[0-9a-f:./]{1,20}", region in ".{0,10}", rtt in any::<f64>(), loss in prop::option::of(any::<f64>()),
        ) {
            let text = json!({ "prefix": prefix, "region": region, "rtt_ms": rtt, "loss": loss }).to_string();
            if let Ok(line) = Line::read(text.as_bytes()) {
                prop_assert!(line.prefix.prefix_len() >= 24 && !line.region.is_empty());
                prop_assert!(line.rtt_ms.is_finite(), "JSON has no other numbers");
            }
        }
    }
}
