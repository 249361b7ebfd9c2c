//! `POST /v1/rtt`: round-trip times that viewers, players or the servers themselves measured.
//!
//! The body is JSON lines, `{"prefix": "198.51.100.0/24", "region": "eu-west", "rtt_ms": 42.5}` each, with `zone` and
//! `loss` where they are known. A line that is wrong costs itself alone. Held under a lock that the answer path never sees.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use jiff::Timestamp;
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
use crate::steering::learn::{Block, Key, Refused, Region, Reporter, Sample};

use line::{FORM, short};
pub use line::{Fault, Line, Why};

mod line;

/// Some 15,000 lines.
const BODY_BYTES: usize = 1 << 20;
/// Of one reporter: 500 a second in the mean, from every viewer of a big region once in ten minutes.
const LINES_A_MINUTE: usize = 30_000;
/// Reporters whose lines are counted; who comes when there are more waits for the next minute.
const REPORTERS: usize = 1024;
/// Bodies worked on at one time.
const AT_ONCE: usize = 2;
/// Refused lines that are told one by one.
const TOLD: usize = 100;
/// Lines taken under one lock.
const BATCH: usize = 256;

/// What became of lines, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    taken: AtomicU64,
    refused: [AtomicU64; Why::ALL.len()],
}

impl Counts {
    pub fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    pub fn refused(&self, why: Why) -> u64 {
        self.refused[why as usize].load(Relaxed)
    }

    fn refuse(&self, why: Why, lines: u64) {
        self.refused[why as usize].fetch_add(lines, Relaxed);
    }
}

/// Where a body goes.
#[derive(Clone)]
pub struct Door {
    learned: Shared,
    counts: Arc<Counts>,
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
pub fn router(learned: Shared, counts: Arc<Counts>, events: mpsc::Sender<Event>) -> Router {
    let door = Door { learned, counts, events, at_once: Arc::new(Semaphore::new(AT_ONCE)), budget: Arc::default() };
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
        door.counts.refuse(Why::Plenty, lines as u64);
        let what = format!("more than {LINES_A_MINUTE} lines of one reporter within a minute; send fewer, as medians");
        return refuse(StatusCode::TOO_MANY_REQUESTS, what);
    }
    let Some(view) = view(&door.events).await else { return super::orders::silent() };
    let work = move || door.read(&text, &view.snapshot, &who, Timestamp::now());
    match spawn_blocking(work).await {
        Ok(outcome) => outcome.into_response(),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "a fault of ours; the log says more"),
    }
}

impl Door {
    /// Feeds every line and tells the outcome.
    fn read(&self, text: &[u8], snapshot: &Snapshot, who: &str, now: Timestamp) -> (StatusCode, Json<Value>) {
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
            let read = batch
                .iter()
                .map(|(at, line)| (*at, Line::read(line).and_then(|line| located(line, &regions, database))));
            let read: Vec<_> = read.collect();
            let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
            for (at, line) in read {
                let fed = line.and_then(|found| {
                    let sample = found.sample(reporter);
                    learned.feed(&sample, now).map_err(|refused| {
                        is_plenty |= refused.is_plenty();
                        Fault { why: kind(refused), what: refused.to_string(), rule: refused.rule() }
                    })
                });
                let Err(Fault { why, what, rule }) = fed else {
                    taken += 1;
                    continue;
                };
                self.counts.refuse(why, 1);
                match refused.len() < TOLD {
                    true => refused.push(json!({ "line": at + 1, "what": what, "rule": rule })),
                    false => more += 1,
                }
            }
        }
        self.counts.taken.fetch_add(taken, Relaxed);
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
}

fn kind(refused: Refused) -> Why {
    match refused {
        Refused::Rtt(_) | Refused::Loss(_) => Why::Figure,
        Refused::Nowhere => Why::Nowhere,
        Refused::TooOften | Refused::PrefixShare | Refused::ReporterShare | Refused::Regions => Why::Plenty,
    }
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
        let (what, rule) = match zone {
            Some(zone) => (format!("no region {region:?} in zone {zone:?}"), "`region` is a region of `zone`"),
            None => (format!("no zone has a region {region:?}"), "`region` is a name of the zone files"),
        };
        return Err(Fault { why: Why::Unknown, what, rule: rule.to_owned() });
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
    use super::*;

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
}
