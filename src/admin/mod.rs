//! The admin address: HTTP API and metrics.
//!
//! | path | what |
//! |---|---|
//! | `GET /healthz` | 200 while the control loop answers |
//! | `GET /readyz` | 200 once queries are answered, 503 before |
//! | `GET /metrics` | counters and gauges in OpenMetrics text ([`metrics`]) |
//! | `GET /v1/explain?name=&type=&client=` | why an answer is what it is, as JSON ([`crate::explain`]) |
//! | `GET /v1/status` | the node at one instant ([`crate::status`]) |
//! | `GET /v1/scale?zone=&region=` | how large regions should be, for autoscalers ([`scale`]) |
//! | `GET /v1/events?after=&limit=` | the journal, as a list or as server-sent events ([`events`]) |
//! | `GET`, `POST /v1/orders`, `DELETE /v1/orders/ID` | the operator's orders ([`orders`]) |
//! | `POST /v1/undrain`, `POST /v1/unforce` | ends all such orders of a subject |
//! | `POST /v1/load` | reports of servers and regions ([`load`]) |
//! | `POST /v1/rtt` | measured round-trip times, as JSON lines ([`rtt`]) |
//! | `POST /v1/reload` | loads everything anew and tells the outcome |
//!
//! [`listen`] bounds what clients can take, [`access`] who may do what. Errors are `{"error": "…"}`.

pub mod access;
pub mod agents;
pub mod body;
pub mod events;
pub mod impatient;
pub mod listen;
pub mod load;
pub mod metrics;
pub mod orders;
pub mod rates;
pub mod rtt;
pub mod scale;
pub mod status;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use self::access::{Gate, guard};
use self::body::refuse;
use self::listen::Lease;
use self::metrics::Metrics;
use self::rates::Rates;
use self::status::Agents;
use crate::control::Event;
use crate::explain::Basis;
use crate::explain::ask::{Ask, explain};
use crate::health::stats::Stats;
use crate::journal::Journal;
use crate::load::Desk;
use crate::scale::Board;
use crate::world::View;

/// The control loop never blocks; if it does not answer within this, something is badly wrong.
const LOOP_TIME: Duration = Duration::from_secs(1);
/// Reading and compiling everything may take so long.
const RELOAD_TIME: Duration = Duration::from_secs(60);

/// What the handlers work with.
#[derive(Clone)]
pub struct Admin {
    pub events: mpsc::Sender<Event>,
    /// True once queries are answered.
    pub ready: watch::Receiver<bool>,
    pub metrics: Arc<Metrics>,
    pub gate: Arc<Gate>,
    pub journal: Journal,
    pub stats: Stats,
    pub agents: Arc<dyn Agents>,
    pub loads: Desk,
    pub rates: Arc<Rates>,
    pub scale: Arc<Board>,
    pub started: SystemTime,
    /// Streams of events that may still be opened.
    pub streams: Arc<Semaphore>,
}

/// Every route, `more` among them, behind the gate.
pub fn router(admin: Admin, more: Router) -> Router {
    let gate = Arc::clone(&admin.gate);
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .route("/v1/explain", get(explanation))
        .route("/v1/status", get(status::status))
        .route("/v1/scale", get(scale::scale))
        .route("/v1/events", get(events::events))
        .route("/v1/orders", get(orders::list).post(orders::give))
        .route("/v1/orders/{id}", delete(orders::lift))
        .route("/v1/undrain", post(orders::undrain))
        .route("/v1/unforce", post(orders::unforce))
        .route("/v1/reload", post(reload))
        .route("/v1/load", post(load::take))
        .with_state(admin)
        .merge(more)
        .layer(from_fn_with_state(gate, guard))
}

/// The world as the control loop knows it. `None` when the loop does not answer.
pub async fn view(events: &mpsc::Sender<Event>) -> Option<View> {
    let asked = async {
        let (reply, view) = oneshot::channel();
        events.send(Event::View(reply)).await.ok()?;
        view.await.ok()
    };
    timeout(LOOP_TIME, asked).await.ok().flatten()
}

async fn healthz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match view(&admin.events).await {
        Some(_) => (StatusCode::OK, "ok\n"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the control loop does not answer\n"),
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match *admin.ready.borrow() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the first round of probes is not over\n"),
    }
}

async fn exposition(State(admin): State<Admin>) -> Response {
    if let Some(view) = view(&admin.events).await {
        admin.metrics.note(view.order_status);
    }
    match admin.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The words of a question, as [`Ask::read`] takes them.
#[derive(Deserialize)]
struct Words {
    name: String,
    #[serde(rename = "type", default = "address_type")]
    rtype: String,
    client: String,
}

fn address_type() -> String {
    "A".to_owned()
}

async fn explanation(
    State(admin): State<Admin>,
    words: Result<Query<Words>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(words)) = words else {
        return refuse(StatusCode::BAD_REQUEST, "give name=, client= and, if it is not A, type=");
    };
    let ask = match Ask::read(&words.name, &words.rtype, &words.client) {
        Ok(ask) => ask,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error),
    };
    match view(&admin.events).await {
        Some(view) => Json(explain(&ask, &view, Basis::Server, SystemTime::now())).into_response(),
        None => orders::silent(),
    }
}

async fn reload(State(admin): State<Admin>, Extension(lease): Extension<Lease>) -> Response {
    lease.extend(RELOAD_TIME + LOOP_TIME);
    let asked = async {
        let (reply, outcome) = oneshot::channel();
        admin.events.send(Event::Reload(reply)).await.ok()?;
        outcome.await.ok()
    };
    match timeout(RELOAD_TIME, asked).await {
        Ok(Some(Ok(generation))) => Json(json!({ "generation": generation })).into_response(),
        Ok(Some(Err(diagnostics))) => {
            let error = match diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count() {
                0 => "a fault of ours ended the reload; nothing changed, and the log says more".to_owned(),
                1 => "1 error in the files; nothing changed".to_owned(),
                errors => format!("{errors} errors in the files; nothing changed"),
            };
            let body =
                json!({ "error": error, "diagnostics": diagnostics.iter().map(|d| d.json()).collect::<Vec<_>>() });
            (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
        }
        Ok(None) => orders::silent(),
        Err(_) => {
            refuse(StatusCode::GATEWAY_TIMEOUT, "the reload takes long; it goes on, and the log tells the outcome")
        }
    }
}

#[cfg(test)]
mod tests;
