//! The admin address: HTTP API and metrics.
//!
//! | path | what |
//! |---|---|
//! | `/healthz` | 200 while the control loop answers |
//! | `/readyz` | 200 once queries are answered, 503 before |
//! | `/metrics` | counters and gauges in OpenMetrics text ([`metrics`]) |
//! | `/v1/explain?name=&type=&client=` | why an answer is what it is, as JSON ([`crate::explain`]) |
//!
//! Nothing here changes the server. [`listen`] bounds what clients can take.

pub mod listen;
pub mod metrics;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use self::metrics::Metrics;
use crate::control::Event;
use crate::explain::Basis;
use crate::explain::ask::{Ask, explain};
use crate::world::View;

/// The control loop never blocks; if it does not answer within this, something is badly wrong.
const LOOP_TIME: Duration = Duration::from_secs(1);

/// What the handlers work with.
#[derive(Clone)]
pub struct Admin {
    pub events: mpsc::Sender<Event>,
    /// True once queries are answered.
    pub ready: watch::Receiver<bool>,
    pub metrics: Arc<Metrics>,
}

pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .route("/v1/explain", get(explanation))
        .with_state(admin)
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
    let refuse = |status: StatusCode, error: String| (status, Json(json!({ "error": error }))).into_response();
    let Ok(Query(words)) = words else {
        return refuse(StatusCode::BAD_REQUEST, "give name=, client= and, if it is not A, type=".to_owned());
    };
    let ask = match Ask::read(&words.name, &words.rtype, &words.client) {
        Ok(ask) => ask,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error),
    };
    match view(&admin.events).await {
        Some(view) => Json(explain(&ask, &view, Basis::Server, SystemTime::now())).into_response(),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "the control loop does not answer".to_owned()),
    }
}
