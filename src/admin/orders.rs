//! Orders as they are asked for and shown: drain, force, lift, list.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::access::Author;
use super::body::{read, refuse};
use super::{Admin, view};
use crate::config::names;
use crate::config::units::{duration, written};
use crate::control::Event;
use crate::orders::{Action, Draft, Lift, Order, Refusal, Subject};
use crate::texts::is_hidden;

/// A drain takes this long where nothing else is said: slow enough that at most 1 % of the traffic moves in a second.
pub const OVER: Duration = Duration::from_secs(120);

const DAY: Duration = Duration::from_secs(86_400);
const MAX_OVER: Duration = DAY;
const MAX_FOR: Duration = Duration::from_secs(366 * 86_400);
/// A beginning may lie so far back: clocks differ, and texts are typed.
const SLACK: SignedDuration = SignedDuration::from_secs(60);
const MAX_REASON: usize = 500;
const MAX_SUBJECT: usize = 256;

/// An order is kept on disk before it is answered.
const ORDER_TIME: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    Drain,
    ForceUp,
    ForceDown,
}

/// The body of `POST /v1/orders`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pub action: Word,
    /// A region's name or a server's public address.
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zone: Option<String>,
    /// Of a drain: `2m`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub over: Option<String>,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none", default)]
    pub lasting: Option<String>,
    /// RFC 3339, or `+30m` from now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<String>,
    pub reason: String,
    #[serde(default)]
    pub anyway: bool,
}

/// The body of `POST /v1/undrain` and `/v1/unforce`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zone: Option<String>,
}

impl Asked {
    /// The same as a draft. Errors: what is wrong, and what to write.
    pub fn draft(self, author: &Author, now: Timestamp) -> Result<Draft, String> {
        let subject = subject(&self.subject)?;
        let zone = self.zone.as_deref().map(zone).transpose()?;
        if self.reason.trim().is_empty() {
            return Err("give a reason: it is what the next person reads".to_owned());
        }
        if self.reason.len() > MAX_REASON || self.reason.chars().any(is_hidden) {
            return Err(format!(
                "a reason is one line of at most {MAX_REASON} bytes, without control or format characters"
            ));
        }
        let over = self.over.as_deref().map(|text| time("over", text, MAX_OVER)).transpose()?;
        let action = match (self.action, over) {
            (Word::Drain, over) => Action::Drain { over: over.unwrap_or(OVER) },
            (_, Some(_)) => return Err("`over` is of a drain: what is forced is so at once".to_owned()),
            (Word::ForceUp, None) => Action::ForceUp,
            (Word::ForceDown, None) => Action::ForceDown,
        };
        if let (Action::Drain { .. }, Subject::Server(address)) = (action, &subject) {
            return Err(format!("{address} is a server; drain its region, or force the server down"));
        }
        let lasting = self.lasting.as_deref().map(|text| time("for", text, MAX_FOR)).transpose()?;
        if lasting.is_some_and(|lasting| lasting.is_zero()) {
            return Err("`for` is 0s: then there is nothing to do".to_owned());
        }
        if let (Action::Drain { over }, Some(lasting)) = (action, lasting)
            && lasting < over
        {
            let (lasting, over) = (written(lasting), written(over));
            return Err(format!("the drain would end after {lasting}, before it is done after {over}"));
        }
        let from = self.at.as_deref().map(|text| at(text, now)).transpose()?;
        let Asked { reason, anyway, .. } = self;
        Ok(Draft { subject, zone, action, from, lasting, reason, author: author.0.to_string(), anyway })
    }
}

fn subject(text: &str) -> Result<Subject, String> {
    // A refusal repeats it, and stands in the journal.
    if text.is_empty() || text.len() > MAX_SUBJECT || text.chars().any(is_hidden) {
        return Err("`subject` is the name of a region or the public address of a server".to_owned());
    }
    Ok(text.parse::<IpAddr>().map_or_else(|_| Subject::Region(text.into()), Subject::Server))
}

/// As the book has zones: lower case, without the final dot.
pub(super) fn zone(text: &str) -> Result<Arc<str>, String> {
    let name = names::absolute(text).map_err(|fault| format!("`zone` is {text:?}: {}", fault.what))?;
    Ok(name.to_lowercase().to_ascii().trim_end_matches('.').into())
}

fn time(key: &str, text: &str, most: Duration) -> Result<Duration, String> {
    let time = duration(text).ok_or_else(|| format!("`{key}` is {text:?}; durations are written 90s, 5m, 2h or 1d"))?;
    if time > most {
        return Err(format!("`{key}` is {text}, more than {}", written(most)));
    }
    Ok(time)
}

fn at(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let at = match text.strip_prefix('+') {
        Some(wait) => now.checked_add(time("at", wait, MAX_FOR)?).map_err(|error| error.to_string())?,
        None => text.parse().map_err(|_| {
            format!("`at` is {text:?}; write a time like 2026-05-01T22:00:00Z (RFC 3339), or +30m from now")
        })?,
    };
    let ahead = at.duration_since(now);
    if ahead < -SLACK {
        return Err(format!("`at` is {at}, which is past"));
    }
    if ahead > SignedDuration::try_from(MAX_FOR).unwrap_or(SignedDuration::MAX) {
        return Err(format!("`at` is {at}, more than {} ahead", written(MAX_FOR)));
    }
    Ok(at)
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

pub async fn list(State(admin): State<Admin>) -> Response {
    let Some(view) = view(&admin.events).await else { return silent() };
    Json(json!({ "orders": view.order_status })).into_response()
}

pub async fn give(State(admin): State<Admin>, Extension(author): Extension<Author>, body: Body) -> Response {
    let asked: Asked = match read(body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let draft = match asked.draft(&author, super::status::timestamp(SystemTime::now())) {
        Ok(draft) => draft,
        Err(what) => return refuse(StatusCode::BAD_REQUEST, what),
    };
    match ask(&admin, |reply| Event::Order(draft, reply)).await {
        Some(Ok(order)) => {
            // It holds, but whoever relies on it must know that a restart ends it.
            let why = view(&admin.events).await.and_then(|view| view.not_kept);
            let body = json!({ "order": given(&order), "kept": why.is_none(), "not_kept_because": why });
            (StatusCode::CREATED, Json(body)).into_response()
        }
        Some(Err(refusal)) => told(refusal),
        None => silent(),
    }
}

pub async fn lift(
    State(admin): State<Admin>,
    Extension(author): Extension<Author>,
    Path(id): Path<String>,
) -> Response {
    match id.parse() {
        Ok(id) => end(&admin, &author, Lift::Id(id)).await,
        Err(_) => refuse(StatusCode::NOT_FOUND, format!("{id:?} is not the number of an order")),
    }
}

pub async fn undrain(State(admin): State<Admin>, Extension(author): Extension<Author>, body: Body) -> Response {
    about(&admin, &author, body, |subject, zone| Lift::Drains { subject, zone }).await
}

pub async fn unforce(State(admin): State<Admin>, Extension(author): Extension<Author>, body: Body) -> Response {
    about(&admin, &author, body, |subject, zone| Lift::Forces { subject, zone }).await
}

async fn about(
    admin: &Admin,
    author: &Author,
    body: Body,
    lift: impl FnOnce(Subject, Option<Arc<str>>) -> Lift,
) -> Response {
    let About { subject: text, zone: of } = match read(body).await {
        Ok(about) => about,
        Err(refusal) => return refusal,
    };
    let what = subject(&text).and_then(|subject| Ok(lift(subject, of.as_deref().map(zone).transpose()?)));
    match what {
        Ok(what) => end(admin, author, what).await,
        Err(what) => refuse(StatusCode::BAD_REQUEST, what),
    }
}

async fn end(admin: &Admin, author: &Author, what: Lift) -> Response {
    match ask(admin, |reply| Event::Lift { what, author: author.0.to_string(), reply }).await {
        Some(Ok(orders)) if orders.is_empty() => refuse(StatusCode::NOT_FOUND, "there is no such order"),
        Some(Ok(orders)) => Json(json!({ "lifted": orders.iter().map(given).collect::<Vec<_>>() })).into_response(),
        Some(Err(refusal)) => told(refusal),
        None => silent(),
    }
}

/// What the loop says. `None`: nothing in time.
async fn ask<T>(admin: &Admin, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        admin.events.send(event(reply)).await.ok()?;
        answer.await.ok()
    };
    timeout(ORDER_TIME, asked).await.ok().flatten()
}

/// An order as it is in the book.
fn given(order: &Order) -> serde_json::Value {
    let over = match order.action {
        Action::Drain { over } => Some(over.as_secs_f64()),
        Action::ForceUp | Action::ForceDown => None,
    };
    json!({
        "id": order.id, "action": order.action.word(), "subject": order.subject.to_string(), "zone": order.zone, "from": seconds(order.from),
        "until": order.until.map(seconds), "over_s": over, "reason": order.reason, "author": order.author,
    })
}

fn told(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Invalid(what) => refuse(StatusCode::BAD_REQUEST, what),
        Refusal::Unknown(what) => refuse(StatusCode::NOT_FOUND, what),
        Refusal::Full(what) | Refusal::TooLittle(what) => refuse(StatusCode::CONFLICT, what),
        Refusal::NotKept(what) => refuse(StatusCode::INSUFFICIENT_STORAGE, what),
    }
}

pub fn silent() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the control loop does not answer")
}

#[cfg(test)]
mod tests;
