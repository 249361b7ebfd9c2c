//! The state of a running node: what it finds at its start, and the thread that writes behind it.
//!
//! Orders are written by who gives them, durably, before they are taken. The journal and the verdicts are handed to a
//! thread of their own: handing over takes a lock for a moment and never waits for a disk. Of verdicts only the newest
//! matter, so they are written at once after a pause and else at most every 100 ms. Of the journal a backlog is kept; what
//! does not fit is counted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{error, info, warn};

use super::directory::{Directory, PATIENCE};
use super::file::{self, Fault, Kind};
use super::verdicts::{Ramp, Remembered, Saved};
use crate::demand::profile;
use crate::journal::log::Log;
use crate::journal::{self, Entry, Journal, Note};
use crate::orders::Book;

/// Entries that wait to be written; further ones are not written.
const BACKLOG: usize = 8192;
/// Verdicts are not written more often.
const PAUSE: Duration = Duration::from_millis(100);
/// Verdicts that could not be written are tried again after it.
const RETRY: Duration = Duration::from_secs(1);
/// Failures are told no more often.
const TOLD: Duration = Duration::from_secs(60);

/// What a node remembers when it starts.
pub struct Restored {
    /// [`Book::expire`] is to be called before it is used.
    pub orders: Book,
    pub verdicts: Vec<Saved>,
    pub ramps: Vec<Ramp>,
    pub demand: profile::Saved,
    pub journal: Journal,
}

/// Keeps the state of a node. Dropping it writes what is on its way, which blocks for as long as that takes.
pub struct Keeper {
    /// `Err`: why there is nothing that outlives the process.
    kept: Result<Kept, Arc<str>>,
}

struct Kept {
    directory: Arc<Directory>,
    outbox: Arc<Outbox>,
    /// Two writers of one file would not know whose is the later.
    orders: Mutex<()>,
    writer: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Opens the state directory and reads it. Never fails: without a directory that can be used by this node alone, all is
    /// kept in memory only, and a word about it is in the log and the journal. Blocks on the file system, and up to one
    /// second for another node to let go of the directory.
    pub fn start(path: &Path) -> (Keeper, Restored) {
        Keeper::start_within(path, PATIENCE)
    }

    pub(super) fn start_within(path: &Path, patience: Duration) -> (Keeper, Restored) {
        let directory = match Directory::open(path, patience) {
            Ok(directory) => Arc::new(directory),
            Err(error) => {
                warn!("{error}; orders, verdicts and journal are kept in memory only and end with this process");
                let (mut keeper, restored) = Keeper::in_memory();
                keeper.kept = Err(error.to_string().into());
                let cause = format!("{error}; state is kept in memory only");
                restored.journal.note(Timestamp::now(), Note::new(journal::Kind::Alarm, cause));
                return (keeper, restored);
            }
        };
        let orders = file::read::<Book>(directory.path(), Kind::Orders);
        let remembered = file::read::<Remembered>(directory.path(), Kind::Verdicts);
        let (log, tail) = Log::open(directory.path());
        let outbox = Arc::new(Outbox::default());
        let sink = Arc::clone(&outbox);
        let journal = Journal::after(tail.entries, tail.last, Some(Box::new(move |entry| sink.entry(entry))));
        let orders = or_empty(orders, &journal);
        let Remembered { verdicts, ramps } = or_empty(remembered, &journal);
        let demand = or_empty(file::read(directory.path(), Kind::Demand), &journal);

        let writer = Writer { path: directory.path().to_owned(), outbox: Arc::clone(&outbox), log };
        let writer = thread::Builder::new().name("state".to_owned()).spawn(move || writer.run());
        if let Err(error) = &writer {
            error!(%error, "no thread to write the state; journal and verdicts are kept in memory only");
            outbox.lock().closed = true;
        }
        let kept = Kept { directory, outbox, orders: Mutex::new(()), writer: writer.ok() };
        (Keeper { kept: Ok(kept) }, Restored { orders, verdicts, ramps, demand, journal })
    }

    /// Keeps nothing beyond the end of the process.
    pub fn in_memory() -> (Keeper, Restored) {
        let restored = Restored {
            orders: Book::default(),
            verdicts: vec![],
            ramps: vec![],
            demand: profile::Saved::default(),
            journal: Journal::in_memory(),
        };
        (Keeper { kept: Err("there is no state directory".into()) }, restored)
    }

    /// Where the state is, absolute; `None`: in memory only.
    pub fn directory(&self) -> Option<&Path> {
        self.kept.as_ref().ok().map(|kept| kept.directory.path())
    }

    /// For what is kept beside orders and verdicts; `None`: in memory only.
    pub fn shelf(&self) -> Option<Shelf> {
        self.kept.as_ref().ok().map(|kept| Shelf(Arc::clone(&kept.directory)))
    }

    /// Why nothing is kept over a restart; `None`: it is.
    pub fn not_kept(&self) -> Option<Arc<str>> {
        self.kept.as_ref().err().cloned()
    }

    /// Writes the orders; once it returns `Ok` they survive the loss of the machine. In memory only, there is nothing to do.
    /// Blocks on the disk, some ms as a rule and seconds on a bad day: not for a thread that others wait for.
    pub fn save_orders(&self, orders: &Book) -> io::Result<()> {
        let Ok(kept) = &self.kept else { return Ok(()) };
        let _one_at_a_time = kept.orders.lock().unwrap_or_else(PoisonError::into_inner);
        file::write(kept.directory.path(), Kind::Orders, orders)
    }

    /// Has the verdicts and ramps written soon, instead of those that were handed over before. Does not wait.
    pub fn save_verdicts(&self, remembered: Arc<Remembered>) {
        if let Ok(kept) = &self.kept {
            kept.outbox.verdicts(remembered);
        }
    }

    /// Writes what is learnt of demand, over what was written before. In memory only, there is nothing to do. Blocks on the
    /// disk as [`Keeper::save_orders`] does: for a thread that nobody waits for, and one at a time.
    pub fn save_demand(&self, demand: &profile::Saved) -> io::Result<()> {
        let Ok(kept) = &self.kept else { return Ok(()) };
        file::write(kept.directory.path(), Kind::Demand, demand)
    }

    /// Entries of the journal that were not written, since the start.
    pub fn unwritten(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.outbox.lock().unwritten)
    }
}

/// Files of the state directory that somebody else than the keeper reads and writes, each of them one alone. The
/// directory stays locked as long as there is one.
#[derive(Clone)]
pub struct Shelf(Arc<Directory>);

impl Shelf {
    /// What is there; nothing, with a word in log and journal, where it cannot be read. Blocks on the file system.
    pub fn read<T: DeserializeOwned + Default>(&self, kind: Kind, journal: &Journal) -> T {
        or_empty(file::read(self.0.path(), kind), journal)
    }

    /// Blocks until the disk holds it.
    pub fn write<T: Serialize>(&self, kind: Kind, content: &T) -> io::Result<()> {
        file::write(self.0.path(), kind, content)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.outbox.close();
        if let Some(writer) = self.writer.take() {
            // A panic of it was printed, and there is nothing to mend any more.
            let _ = writer.join();
        }
    }
}

/// The content, or nothing with an alarm.
fn or_empty<T: Default>(read: Result<Option<T>, Fault>, journal: &Journal) -> T {
    match read {
        Ok(content) => content.unwrap_or_default(),
        Err(fault) => {
            error!("{fault}; it starts empty");
            journal.note(Timestamp::now(), Note::new(journal::Kind::Alarm, fault.to_string()));
            T::default()
        }
    }
}

/// What is to be written.
#[derive(Default)]
struct Outbox {
    content: Mutex<Content>,
    filled: Condvar,
}

#[derive(Default)]
struct Content {
    entries: Vec<Arc<Entry>>,
    verdicts: Option<Arc<Remembered>>,
    /// Entries that did not fit or could not be written.
    unwritten: u64,
    /// Nothing is taken any more.
    closed: bool,
}

impl Outbox {
    fn entry(&self, entry: &Arc<Entry>) {
        let mut content = self.lock();
        if content.closed || content.entries.len() >= BACKLOG {
            content.unwritten += 1;
            return;
        }
        content.entries.push(Arc::clone(entry));
        drop(content);
        self.filled.notify_one();
    }

    fn verdicts(&self, remembered: Arc<Remembered>) {
        self.lock().verdicts = Some(remembered);
        self.filled.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        // Each change of it is one assignment or push, so it is whole at any instant.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    path: PathBuf,
    outbox: Arc<Outbox>,
    log: Log,
}

impl Writer {
    /// Until the outbox is closed and empty.
    fn run(mut self) {
        let mut pace = Pace::default();
        let (mut log_trouble, mut verdict_trouble) = (Trouble::default(), Trouble::default());
        loop {
            let (entries, verdicts, closed) = self.next(&pace);
            if !entries.is_empty() {
                let (count, written) = self.log.append(&entries);
                let lost = (entries.len() - count) as u64;
                let unwritten = {
                    let mut content = self.outbox.lock();
                    content.unwritten += lost;
                    content.unwritten
                };
                log_trouble.tell(&written, unwritten, Instant::now(), "the journal");
            }
            if let Some(verdicts) = verdicts {
                let written = file::write(&self.path, Kind::Verdicts, &*verdicts);
                pace.wrote(Instant::now(), written.is_ok());
                if written.is_err() && !closed {
                    // Newer ones that came meanwhile stand.
                    self.outbox.lock().verdicts.get_or_insert(verdicts);
                }
                verdict_trouble.tell(&written, 0, Instant::now(), "the verdicts");
            }
            if closed {
                return;
            }
        }
    }

    /// Waits for what can be written now. Once closed, that is all there is.
    fn next(&self, pace: &Pace) -> (Vec<Arc<Entry>>, Option<Arc<Remembered>>, bool) {
        let mut content = self.outbox.lock();
        loop {
            let wait = pace.wait(Instant::now());
            let ripe = content.verdicts.is_some() && (wait.is_zero() || content.closed);
            if ripe || content.closed || !content.entries.is_empty() {
                let verdicts = if ripe { content.verdicts.take() } else { None };
                return (std::mem::take(&mut content.entries), verdicts, content.closed);
            }
            content = if content.verdicts.is_some() {
                self.outbox.filled.wait_timeout(content, wait).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.outbox.filled.wait(content).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }
}

/// When verdicts may be written again.
#[derive(Debug, Default)]
pub(super) struct Pace {
    not_before: Option<Instant>,
}

impl Pace {
    pub fn wrote(&mut self, now: Instant, well: bool) {
        self.not_before = Some(now + if well { PAUSE } else { RETRY });
    }

    pub fn wait(&self, now: Instant) -> Duration {
        self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }
}

/// Tells of failures without a line for each.
#[derive(Debug, Default)]
struct Trouble {
    told: Option<Instant>,
    failing: bool,
}

impl Trouble {
    fn tell(&mut self, outcome: &io::Result<()>, unwritten: u64, now: Instant, what: &str) {
        match outcome {
            Ok(()) if self.failing => {
                self.failing = false;
                info!(unwritten, "{what} can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.failing = true;
                if self.told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD) {
                    self.told = Some(now);
                    error!(%error, unwritten, "{what} cannot be written to the state directory");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_beyond_its_bound_is_counted_and_not_kept() {
        let outbox = Outbox::default();
        let note = Note::new(journal::Kind::Reloaded, "");
        let entry = Arc::new(Entry { id: 1, at: Timestamp::UNIX_EPOCH, note });
        (0..BACKLOG + 5).for_each(|_| outbox.entry(&entry));
        let content = outbox.lock();
        assert_eq!((content.entries.len(), content.unwritten), (BACKLOG, 5));
        drop(content);
        outbox.close();
        outbox.entry(&entry);
        assert_eq!(outbox.lock().unwritten, 6, "nothing is taken that nobody will write");
    }

    #[test]
    fn failures_are_told_once_a_minute() {
        let begin = Instant::now();
        let mut trouble = Trouble::default();
        let mut told = |second, outcome: io::Result<()>| {
            let now = begin + Duration::from_secs(second);
            trouble.tell(&outcome, 0, now, "the journal");
            trouble.told == Some(now)
        };
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!told(0, Ok(())));
        assert!(told(1, full()));
        assert!(!told(2, full()));
        assert!(!told(3, Ok(())));
        assert!(!told(60, full()), "a disk that comes and goes floods no log");
        assert!(told(61, full()));
    }
}
