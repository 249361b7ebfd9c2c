//! Doubts that come from outside: who hears of trouble before the probes do makes them look at once.
//!
//! A [`Doubter`] is held by other tasks. Doubting takes no lock and waits for nobody; of several doubts that a target's
//! task has not seen yet, the newest stands.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

use super::Target;

/// Probes that shall tell whether a target is silent; see [`super::tracker::Tracker::doubt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// So many failing are enough; 0 is taken for 1.
    pub confirmations: u32,
    /// Of each of these probes, whatever the check says.
    pub timeout: Duration,
}

/// Hands doubts to the tasks that probe. Cheap to clone; follows changes of the targets.
#[derive(Clone, Debug, Default)]
pub struct Doubter(Arc<ArcSwap<HashMap<Arc<Target>, Arc<Doubts>>>>);

impl Doubter {
    /// False when the target is not probed. Nothing comes of it while the target is down or in doubt already.
    pub fn doubt(&self, target: &Target, doubt: Doubt) -> bool {
        let all = self.0.load();
        let Some(doubts) = all.get(target) else { return false };
        doubts.raise(doubt);
        true
    }

    pub(super) fn publish(&self, targets: HashMap<Arc<Target>, Arc<Doubts>>) {
        self.0.store(Arc::new(targets));
    }
}

/// The doubt that waits for one target's task.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    newest: ArcSwapOption<Doubt>,
    news: Notify,
}

impl Doubts {
    fn raise(&self, doubt: Doubt) {
        self.newest.store(Some(Arc::new(doubt)));
        self.news.notify_one();
    }

    /// Waits for a doubt and takes it; loses none when dropped.
    pub(super) async fn next(&self) -> Doubt {
        loop {
            if let Some(doubt) = self.newest.swap(None) {
                return *doubt;
            }
            self.news.notified().await;
        }
    }
}
