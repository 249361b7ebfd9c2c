//! Doubts that come from outside: who hears of trouble before the probes do makes them look at once.
//!
//! A [`Doubter`] is held by other tasks. Doubting takes no lock and waits for nobody; of several doubts that a target's
//! task has not seen yet, the newest stands, but what a server says of itself stands over what others suspect. What raised
//! a doubt can also clear it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

use super::Target;
use super::stats::TargetStats;

/// Probes that shall tell whether a target is silent; see [`super::tracker::Tracker::doubt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// So many failing are enough; 0 is taken for 1.
    pub confirmations: u32,
    /// Of each of these probes, whatever the check says.
    pub timeout: Duration,
}

/// What a target's task is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Doubt(Doubt),
    Cleared,
}

/// Hands doubts to the tasks that probe. Cheap to clone; follows changes of the targets.
#[derive(Clone, Debug, Default)]
pub struct Doubter(Arc<ArcSwap<Lines>>);

/// Where each target's doubts go, and its figures.
pub(super) type Lines = HashMap<Arc<Target>, (Arc<Doubts>, Arc<TargetStats>)>;

impl Doubter {
    /// False when the target is not probed. Nothing comes of it while the target is down or in doubt already.
    pub fn doubt(&self, target: &Target, doubt: Doubt) -> bool {
        let all = self.0.load();
        let Some((doubts, _)) = all.get(target) else { return false };
        doubts.raise(News::Doubt(doubt));
        true
    }

    /// The reason of the last doubt is gone; see [`super::tracker::Tracker::clear_doubt`]. False when the target is not
    /// probed.
    pub fn clear(&self, target: &Target) -> bool {
        let all = self.0.load();
        let Some((doubts, _)) = all.get(target) else { return false };
        doubts.raise(News::Cleared);
        true
    }

    /// Whether the server itself says that it is not ready. While it does, each answer of the target counts as a hard
    /// failure; the first word of it is followed by a probe at once, and that one is enough. False when the target is
    /// not probed.
    pub fn set_not_ready(&self, target: &Target, not_ready: bool) -> bool {
        let all = self.0.load();
        let Some((doubts, _)) = all.get(target) else { return false };
        let before = doubts.not_ready.swap(not_ready, Ordering::AcqRel);
        if not_ready && !before {
            doubts.say_not_ready(Doubt { confirmations: 1, timeout: target.check.timeout });
        }
        true
    }

    /// Within what 95 of 100 of the target's last good answers came; see [`TargetStats::recent_p95`]. `None` before the
    /// first, and for a target that is not probed.
    pub fn recent_p95(&self, target: &Target) -> Option<Duration> {
        self.0.load().get(target)?.1.recent_p95()
    }

    pub(super) fn publish(&self, targets: Lines) {
        self.0.store(Arc::new(targets));
    }
}

/// The doubts that wait for one target's task.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    newest: ArcSwapOption<News>,
    /// That of a server that says it is not ready. In a place of its own: a late beat that follows before the task has
    /// run would replace a doubt that one probe settles by one that takes two.
    said: ArcSwapOption<Doubt>,
    news: Notify,
    not_ready: AtomicBool,
}

impl Doubts {
    /// Whether the server says so of itself.
    pub(super) fn is_not_ready(&self) -> bool {
        self.not_ready.load(Ordering::Acquire)
    }

    fn raise(&self, news: News) {
        self.newest.store(Some(Arc::new(news)));
        self.news.notify_one();
    }

    fn say_not_ready(&self, doubt: Doubt) {
        self.said.store(Some(Arc::new(doubt)));
        self.news.notify_one();
    }

    /// Waits for news and takes them; loses none when dropped.
    pub(super) async fn next(&self) -> News {
        loop {
            if let Some(news) = self.take() {
                return news;
            }
            self.news.notified().await;
        }
    }

    fn take(&self) -> Option<News> {
        let newest = self.newest.swap(None);
        if newest.as_deref() == Some(&News::Cleared) {
            // Of a doubt that the task has seen: first, or it would clear what the server says as well.
            return Some(News::Cleared);
        }
        match self.said.swap(None) {
            Some(doubt) => Some(News::Doubt(*doubt)),
            None => newest.as_deref().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: News = News::Doubt(Doubt { confirmations: 2, timeout: Duration::from_millis(150) });
    const SAID: Doubt = Doubt { confirmations: 1, timeout: Duration::from_millis(250) };

    #[test]
    fn what_a_server_says_of_itself_stands_over_a_late_beat_whichever_came_first() {
        for late_first in [true, false] {
            let doubts = Doubts::default();
            if late_first {
                doubts.raise(LATE);
            }
            doubts.say_not_ready(SAID);
            if !late_first {
                doubts.raise(LATE);
            }
            assert_eq!((doubts.take(), doubts.take()), (Some(News::Doubt(SAID)), None), "late first: {late_first}");
        }
    }

    #[test]
    fn a_doubt_that_is_cleared_does_not_clear_what_the_server_says() {
        let doubts = Doubts::default();
        doubts.raise(News::Cleared);
        doubts.say_not_ready(SAID);
        assert_eq!([(); 3].map(|()| doubts.take()), [Some(News::Cleared), Some(News::Doubt(SAID)), None]);
    }

    #[tokio::test]
    async fn of_other_news_the_newest_stands() {
        let doubts = Doubts::default();
        doubts.raise(LATE);
        doubts.raise(News::Cleared);
        assert_eq!((doubts.next().await, doubts.take()), (News::Cleared, None));
    }
}
