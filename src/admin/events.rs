//! `/v1/events`: the journal, as a list or as a stream that goes on (server-sent events).
//!
//! A stream's memory is what the journal holds for everybody: a reader that is too slow loses its place in the channel,
//! and goes on from the journal's list. What the list has lost too, it is told. Who
//! saw an id that the journal does not have yet saw another journal: one that was lost, or set aside, before a restart. It is
//! told so, and begins with what there is. A stream ends when a reload takes away the
//! token that opened it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};

use super::Admin;
use super::body::refuse;
use super::listen::Lease;
use crate::journal::Entry;

/// Streams at one time. They stay, so they may not take all of the connections.
pub const STREAMS: usize = 16;
/// A comment is sent when nothing else was for so long, so that proxies keep the stream and a dead one is noticed.
const QUIET: Duration = Duration::from_secs(15);
/// Entries of one list.
const MOST: usize = 1000;
const USUAL: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    after: Option<u64>,
    limit: Option<usize>,
}

pub async fn events(
    State(admin): State<Admin>,
    Extension(lease): Extension<Lease>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(Wanted { after, limit })) = wanted else {
        return refuse(StatusCode::BAD_REQUEST, "give after=ID and limit=N, or neither");
    };
    let limit = limit.unwrap_or(USUAL).min(MOST);
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.split(',').any(|kind| kind.split(';').next().unwrap_or_default().trim() == "text/event-stream") {
        let entries = admin.journal.since(after.unwrap_or(0), limit);
        return Json(json!({ "events": entries, "last": admin.journal.last() })).into_response();
    }
    let Ok(permit) = Arc::clone(&admin.streams).try_acquire_owned() else {
        let what = format!("{STREAMS} streams of events are open already; close one, or ask for lists");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, what);
    };
    lease.without_end();
    // A browser that comes back says what it saw last; that is newer than what the URL says.
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok()).or(after);
    // First subscribed, then listed: nothing can fall between.
    let receiver = admin.journal.subscribe();
    let journal = admin.journal.clone();
    let since = move |after| journal.since(after, MOST);
    let follow = Follow { ready: VecDeque::new(), last: seen, receiver, since };
    let entries = match seen {
        Some(_) => follow.resume(admin.journal.last()),
        None => follow.from(admin.journal.since(0, limit)),
    };
    let stay = admin.gate.stay(&headers);
    let entries = stream::unfold((entries, stay, permit), |(mut follow, mut stay, permit)| async move {
        let said = tokio::select! {
            // Before anything else is told.
            biased;
            () = stay.over() => return None,
            said = follow.next() => said?,
        };
        Some((Ok::<_, Infallible>(said.event()), (follow, stay, permit)))
    });
    answer(entries)
}

fn answer(entries: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    Sse::new(entries).keep_alive(KeepAlive::new().interval(QUIET)).into_response()
}

/// What a reader of a stream is told.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Entry(Arc<Entry>),
    /// So many entries are gone: it was too slow, or asked for what is too old.
    Missed(u64),
    /// The journal began anew, and what it holds follows. Its last id.
    Reset(u64),
}

impl Said {
    fn event(self) -> Event {
        match self {
            Said::Entry(entry) => {
                let event = Event::default().id(entry.id.to_string());
                event.json_data(&*entry).unwrap_or_else(|error| Event::default().comment(error.to_string()))
            }
            Said::Missed(missed) => Event::default().event("missed").data(json!({ "missed": missed }).to_string()),
            Said::Reset(last) => Event::default().event("reset").data(json!({ "last": last }).to_string()),
        }
    }
}

/// One reader's place.
struct Follow<F> {
    ready: VecDeque<Said>,
    /// The last that was given out. `None`: nothing yet, and wherever it begins is right.
    last: Option<u64>,
    receiver: broadcast::Receiver<Arc<Entry>>,
    /// The entries after an id, as the journal has them.
    since: F,
}

impl<F: Fn(u64) -> Vec<Arc<Entry>>> Follow<F> {
    fn from(mut self, backlog: Vec<Arc<Entry>>) -> Follow<F> {
        backlog.into_iter().for_each(|entry| self.take(entry));
        self
    }

    /// From what was given out last, where the journal has come to `newest`.
    fn resume(mut self, newest: u64) -> Follow<F> {
        if self.last.is_some_and(|last| last > newest) {
            self.ready.push_back(Said::Reset(newest));
            self.last = Some(0);
        }
        self.catch_up();
        self
    }

    fn take(&mut self, entry: Arc<Entry>) {
        if let Some(last) = self.last {
            if entry.id <= last {
                return;
            }
            // Ids have no holes but those that were forgotten.
            let missed = entry.id - last - 1;
            if missed > 0 {
                self.ready.push_back(Said::Missed(missed));
            }
        }
        self.last = Some(entry.id);
        self.ready.push_back(Said::Entry(entry));
    }

    /// `None`: the journal has ended.
    async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(said) = self.ready.pop_front() {
                return Some(said);
            }
            match self.receiver.recv().await {
                Ok(entry) => {
                    // Entries may come out of order between list and channel; what lies between is in the list.
                    if self.last.is_some_and(|last| entry.id > last + 1) {
                        self.catch_up();
                    }
                    self.take(entry);
                }
                Err(RecvError::Lagged(_)) => self.catch_up(),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn catch_up(&mut self) {
        let Some(last) = self.last else { return };
        (self.since)(last).into_iter().for_each(|entry| self.take(entry));
    }
}

#[cfg(test)]
mod tests;
