//! What waits to be told to the webhook, and telling it: in one request all that waits, again after a growing pause until it
//! is taken, and so often and no more.
//!
//! Of each region only the newest waits: what was to be said before it is not so any more.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Board;
use super::post::Poster;
use super::watch::{Because, Told};
use crate::config::scale::Webhook;
use crate::journal::{Journal, Kind, Note};

/// Regions that wait to be told of; news of more is dropped.
pub const MOST_WAITING: usize = 10_000;

/// How hard it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Of one request, from connecting to the answer.
    pub patience: Duration,
    /// After the first failure; doubles with each that follows …
    pub pause: Duration,
    /// … up to this.
    pub longest_pause: Duration,
    /// Failures in a row after which what they were to tell is dropped.
    pub attempts: u32,
}

impl Default for Effort {
    /// About two minutes in all, longer where nothing answers.
    fn default() -> Effort {
        let second = Duration::from_secs(1);
        Effort { patience: 10 * second, pause: second, longest_pause: 60 * second, attempts: 8 }
    }
}

impl Effort {
    /// After so many failures in a row.
    fn pause_after(&self, failures: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
        self.pause.saturating_mul(doubled).min(self.longest_pause)
    }
}

/// News of regions, each with a number that tells it from what came before and after.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    news: BTreeMap<String, (u64, Told)>,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits longer than another who adds or takes.
    pub fn add(&self, news: BTreeMap<String, Told>) {
        if news.is_empty() {
            return;
        }
        let mut waiting = self.waiting();
        for (name, mut told) in news {
            if waiting.news.len() >= MOST_WAITING && !waiting.news.contains_key(&name) {
                continue;
            }
            waiting.last += 1;
            let number = waiting.last;
            // Nobody has heard yet why the one before was to be told.
            if let Some((_, before)) = waiting.news.remove(&name) {
                told.because = reasons(&before.because, &told.because);
            }
            waiting.news.insert(name, (number, told));
        }
        drop(waiting);
        self.woken.notify_one();
    }

    fn all(&self) -> BTreeMap<String, (u64, Told)> {
        self.waiting().news.clone()
    }

    /// These were told, or never will be. What came meanwhile stays.
    fn done(&self, batch: &BTreeMap<String, (u64, Told)>) {
        let is_done = |name: &String, number: u64| batch.get(name).is_some_and(|(done, _)| *done == number);
        self.waiting().news.retain(|name, (number, _)| !is_done(name, *number));
    }
}

/// All reasons once; of two crossings the later one.
fn reasons(before: &[Because], then: &[Because]) -> Vec<Because> {
    let crossing = |because: &Because| matches!(because, Because::Above | Because::Below);
    let crossed = then.iter().any(crossing);
    let kept = before.iter().filter(|because| !(then.contains(because) || crossed && crossing(because)));
    kept.chain(then).copied().collect()
}

/// The body of a request.
#[derive(Serialize)]
struct Body<'a> {
    /// When it was sent, Unix seconds.
    at: f64,
    regions: BTreeMap<&'a str, &'a Told>,
}

pub struct Hook {
    poster: Poster,
    effort: Effort,
    queue: Arc<Queue>,
    board: Arc<Board>,
    journal: Journal,
}

impl Hook {
    pub fn new(webhook: Webhook, queue: Arc<Queue>, board: Arc<Board>, journal: Journal) -> Hook {
        Hook::with(Effort::default(), webhook, queue, board, journal)
    }

    pub fn with(effort: Effort, webhook: Webhook, queue: Arc<Queue>, board: Arc<Board>, journal: Journal) -> Hook {
        Hook { poster: Poster::new(webhook, effort.patience), effort, queue, board, journal }
    }

    /// Until `stop`; what waits then is not told any more.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.tell()).await;
    }

    async fn tell(&self) {
        let mut failures = 0;
        loop {
            let batch = self.queue.all();
            if batch.is_empty() {
                self.queue.woken.notified().await;
                continue;
            }
            let tally = &self.board.tally;
            match self.poster.post(body(&batch)).await {
                Ok(()) => {
                    tally.delivered.fetch_add(1, Relaxed);
                    self.queue.done(&batch);
                    failures = 0;
                }
                Err(why) => {
                    tally.failed.fetch_add(1, Relaxed);
                    failures += 1;
                    let url = &self.poster.webhook().url;
                    warn!(attempt = failures, "the webhook {url} did not take what was told: {why}");
                    if failures >= self.effort.attempts {
                        tally.given_up.fetch_add(1, Relaxed);
                        self.queue.done(&batch);
                        let text = format!(
                            "the webhook {url} was not told of {}: {failures} attempts failed, the last by: {why}",
                            names(&batch)
                        );
                        self.journal.note(Timestamp::now(), Note::new(Kind::Alarm, text));
                        failures = 0;
                    } else {
                        sleep(self.effort.pause_after(failures)).await;
                    }
                }
            }
        }
    }
}

fn body(batch: &BTreeMap<String, (u64, Told)>) -> String {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let regions = batch.iter().map(|(name, (_, told))| (&**name, told)).collect();
    serde_json::to_string(&Body { at, regions }).expect("keys are texts and numbers are finite")
}

/// A few of them, for people.
fn names(batch: &BTreeMap<String, (u64, Told)>) -> String {
    const SHOWN: usize = 5;
    let mut text = batch.keys().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if batch.len() > SHOWN {
        text += &format!(" and {} more regions", batch.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests;
