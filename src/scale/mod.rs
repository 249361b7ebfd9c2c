//! How large regions should be, told to whoever adds and removes servers: an HTTP API that scalers ask, gauges, and a webhook
//! that is called when something changes.
//!
//! ```text
//! pilot::View ─► Scalers (once a second) ─► Board ─► GET /v1/scale, metrics
//!                                             └─► Watch (what is news) ─► Queue ─► Webhook: POST, again until it is taken
//! ```
//!
//! * [`form`]: the JSON that all of them show.
//! * [`watch`]: which changes are told. Pure; time is passed in.
//! * [`webhook`]: what waits to be told, and telling it.
//! * [`post`]: one request.
//!
//! Nothing here is waited for by whoever steers or answers.

pub mod form;
pub mod post;
pub mod watch;
pub mod webhook;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::watch::Watch;
use self::webhook::{Hook, Queue};
use crate::config::scale::Webhook;
use crate::journal::Journal;
use crate::pilot::View;
use crate::pilot::scale::{Scale, Scalers};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);

/// What was found last, and what became of telling it. Read without a lock.
#[derive(Debug, Default)]
pub struct Board {
    scale: ArcSwap<Scale>,
    pub tally: Tally,
}

/// Requests of the webhook.
#[derive(Debug, Default)]
pub struct Tally {
    /// Taken with a status of 2xx.
    pub delivered: AtomicU64,
    /// Not taken; most are tried again.
    pub failed: AtomicU64,
    /// Tried so often that what they told was dropped.
    pub given_up: AtomicU64,
}

impl Board {
    pub fn scale(&self) -> Arc<Scale> {
        self.scale.load_full()
    }

    pub fn store(&self, scale: Scale) {
        self.scale.store(Arc::new(scale));
    }
}

/// What it works with.
pub struct Parts {
    /// As the pilot stores it.
    pub view: Arc<ArcSwap<View>>,
    pub board: Arc<Board>,
    pub webhook: Option<Webhook>,
    pub journal: Journal,
}

/// Looks once a second and tells what is news, until `stop`.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let Parts { view, board, webhook, journal } = parts;
    let queue = Arc::new(Queue::default());
    let mut watch = webhook.as_ref().map(Watch::new);
    if let Some(webhook) = webhook {
        let hook = Hook::new(webhook, Arc::clone(&queue), Arc::clone(&board), journal);
        tokio::spawn(hook.run(stop.clone()));
    }
    let mut scalers = Scalers::default();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let now = Instant::now();
        let scale = scalers.look(&view.load(), now);
        if let Some(watch) = &mut watch {
            queue.add(watch.look(&scale, now));
        }
        board.store(scale);
    }
}
