//! Notices that a file the server was loaded from has changed.
//!
//! Kernel events only wake the watcher; what decides is a [`Fingerprint`] of all inputs, compared with that of the last
//! load. So it does not matter how a file changed (written in place, renamed over by an editor, swapped by a symlink),
//! reading our own files starts nothing, and what the kernel does not report (a directory that was replaced, a network
//! file system) is found by looking every two seconds.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use notify_debouncer_full::notify::{EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, NoCache, new_debouncer_opt, notify};
use tracing::warn;

/// Events of one save arrive together; a file must be quiet for this long.
const QUIET: Duration = Duration::from_millis(100);

/// How often inputs are looked at without an event.
const POLL: Duration = Duration::from_secs(2);

/// What the kernel says of a file. The change time cannot be set by a program, so a file with an old stamp has old
/// content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file behind symlinks; `None` when it cannot be had.
    fn of(path: &Path) -> Option<Stamp> {
        let meta = fs::metadata(path).ok()?;
        Some(Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// The state of a set of inputs. Take it before reading them: a change while they are read then shows as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    files: BTreeMap<PathBuf, Option<Stamp>>,
}

impl Fingerprint {
    /// `inputs` are files, and directories of which each file of configuration, database or certificates counts. Blocks
    /// on the file system.
    pub fn take(inputs: &[PathBuf]) -> Fingerprint {
        let mut files = BTreeMap::new();
        for input in inputs {
            match fs::read_dir(input) {
                Ok(entries) => {
                    // An empty directory is another thing than a missing one.
                    files.insert(input.clone(), None);
                    let paths = entries.flatten().map(|entry| entry.path());
                    for path in paths.filter(|path| is_input(path)) {
                        let stamp = Stamp::of(&path);
                        files.insert(path, stamp);
                    }
                }
                Err(_) => {
                    if let Some(stamp) = Stamp::of(input) {
                        files.insert(input.clone(), Some(stamp));
                    }
                }
            }
        }
        Fingerprint { files }
    }

    /// Joins what was taken of other inputs.
    pub fn add(&mut self, other: &Fingerprint) {
        self.files.extend(other.files.iter().map(|(path, stamp)| (path.clone(), *stamp)));
    }
}

/// By its ending. Certificates count in any directory: a check whose CA file is missing is mended by adding it.
fn is_input(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["toml", "mmdb", "pem", "crt"].iter().any(|known| ending == *known))
}

enum Wake {
    Event,
    Inputs(Vec<PathBuf>, Fingerprint),
    Stop,
}

/// A thread that watches until it is dropped.
pub struct Watcher {
    wake: mpsc::Sender<Wake>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// `on_change` runs on the watcher's thread, once for each new state of the inputs; when it gives false, it is told
    /// again at the next look.
    pub fn start(on_change: impl FnMut() -> bool + Send + 'static) -> std::io::Result<Watcher> {
        let (wake, woken) = mpsc::channel();
        let events = wake.clone();
        let thread = thread::Builder::new().name("watch".into()).spawn(move || run(events, &woken, on_change))?;
        Ok(Watcher { wake, thread: Some(thread) })
    }

    /// From now on `inputs` are watched; `loaded` is the state of them that was loaded last (or refused).
    pub fn watch(&self, inputs: Vec<PathBuf>, loaded: Fingerprint) {
        // The thread only ends when self is dropped.
        let _ = self.wake.send(Wake::Inputs(inputs, loaded));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(events: mpsc::Sender<Wake>, woken: &mpsc::Receiver<Wake>, mut on_change: impl FnMut() -> bool) {
    let mut directories = Directories::new(events);
    let (mut inputs, mut last) = (Vec::new(), Fingerprint::default());
    loop {
        match woken.recv_timeout(POLL) {
            Ok(Wake::Inputs(new, loaded)) => (inputs, last) = (new, loaded),
            Ok(Wake::Event) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
        // Watch first, look second: what changes in between is seen by one of them.
        directories.watch(&inputs);
        let now = Fingerprint::take(&inputs);
        if now != last && on_change() {
            last = now;
        }
    }
}

/// The directories under watch, each with the identity it had: a directory that was replaced is watched anew.
struct Directories {
    debouncer: Option<Debouncer<RecommendedWatcher, NoCache>>,
    watched: BTreeMap<PathBuf, (u64, u64)>,
}

impl Directories {
    fn new(events: mpsc::Sender<Wake>) -> Directories {
        let handler = move |result: DebounceEventResult| {
            // Opening and reading is reported too, ours among it.
            let changed =
                result.map_or(true, |events| events.iter().any(|event| !matches!(event.kind, EventKind::Access(_))));
            if changed {
                let _ = events.send(Wake::Event);
            }
        };
        let debouncer = new_debouncer_opt(QUIET, None, handler, NoCache::new(), notify::Config::default());
        if let Err(error) = &debouncer {
            warn!(%error, "the kernel reports no file changes to us; files are looked at every two seconds");
        }
        Directories { debouncer: debouncer.ok(), watched: BTreeMap::new() }
    }

    /// Watches each input that is a directory, and of each file its directory and that of the file it links to.
    fn watch(&mut self, inputs: &[PathBuf]) {
        let Some(debouncer) = &mut self.debouncer else { return };
        let mut wanted = BTreeMap::new();
        for input in inputs {
            let behind_links = fs::canonicalize(input).ok();
            for path in [Some(input), behind_links.as_ref()].into_iter().flatten() {
                let directory = match path.parent() {
                    _ if path.is_dir() => path.as_path(),
                    Some(parent) if !parent.as_os_str().is_empty() => parent,
                    _ => Path::new("."),
                };
                if let Some(stamp) = Stamp::of(directory) {
                    wanted.insert(directory.to_path_buf(), (stamp.device, stamp.inode));
                }
            }
        }
        let stale = self.watched.extract_if(.., |path, identity| wanted.get(path) != Some(identity));
        for (path, _) in stale {
            // The kernel has let go of a removed directory by itself.
            let _ = debouncer.unwatch(&path);
        }
        for (path, identity) in wanted {
            if let std::collections::btree_map::Entry::Vacant(entry) = self.watched.entry(path) {
                // A directory that vanished just now is tried again at the next look.
                if debouncer.watch(entry.key(), RecursiveMode::NonRecursive).is_ok() {
                    entry.insert(identity);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use tempfile::{TempDir, tempdir};

    use super::*;

    /// A watched directory with one zone file, and the changes seen.
    fn watched(inputs: impl Fn(&Path) -> Vec<PathBuf>) -> (TempDir, Watcher, Receiver<()>) {
        let dir = tempdir().unwrap();
        fs::create_dir(dir.path().join("zones")).unwrap();
        fs::write(dir.path().join("zones/a.toml"), "one").unwrap();
        let (seen, changes) = mpsc::channel();
        let watcher = Watcher::start(move || seen.send(()).is_ok()).unwrap();
        let inputs = inputs(dir.path());
        let loaded = Fingerprint::take(&inputs);
        watcher.watch(inputs, loaded);
        assert!(changes.recv_timeout(Duration::from_millis(300)).is_err(), "nothing has changed yet");
        (dir, watcher, changes)
    }

    fn within_a_poll(changes: &Receiver<()>) -> bool {
        changes.recv_timeout(POLL + Duration::from_secs(3)).is_ok()
    }

    fn zones(root: &Path) -> Vec<PathBuf> {
        vec![root.join("zones")]
    }

    #[test]
    fn a_write_in_place_and_a_rename_over_are_seen_at_once() {
        let (dir, _watcher, changes) = watched(zones);
        let at_once = POLL / 2;
        fs::write(dir.path().join("zones/a.toml"), "two").unwrap();
        assert!(changes.recv_timeout(at_once).is_ok());
        fs::write(dir.path().join("zones/.a.toml.swp"), "three").unwrap();
        assert!(changes.recv_timeout(at_once).is_err(), "an editor's own file is no input");
        fs::rename(dir.path().join("zones/.a.toml.swp"), dir.path().join("zones/a.toml")).unwrap();
        assert!(changes.recv_timeout(at_once).is_ok());
        fs::remove_file(dir.path().join("zones/a.toml")).unwrap();
        assert!(changes.recv_timeout(at_once).is_ok());
    }

    #[test]
    fn reading_the_files_is_no_change() {
        let (dir, _watcher, changes) = watched(zones);
        for _ in 0..20 {
            fs::read(dir.path().join("zones/a.toml")).unwrap();
            fs::read_dir(dir.path().join("zones")).unwrap().count();
        }
        assert!(changes.recv_timeout(POLL + Duration::from_millis(500)).is_err());
    }

    #[test]
    fn a_directory_removed_and_made_anew_is_watched_again() {
        let (dir, _watcher, changes) = watched(zones);
        fs::rename(dir.path().join("zones"), dir.path().join("old")).unwrap();
        assert!(within_a_poll(&changes), "missing");
        fs::create_dir(dir.path().join("zones")).unwrap();
        assert!(within_a_poll(&changes), "empty");
        fs::write(dir.path().join("zones/a.toml"), "two").unwrap();
        assert!(within_a_poll(&changes));
    }

    #[test]
    fn a_file_swapped_by_a_symlink_is_seen() {
        let (dir, _watcher, changes) = watched(|root| {
            fs::write(root.join("one.pem"), "1").unwrap();
            fs::write(root.join("two.pem"), "2").unwrap();
            std::os::unix::fs::symlink("one.pem", root.join("ca.pem")).unwrap();
            vec![root.join("ca.pem")]
        });
        std::os::unix::fs::symlink("two.pem", dir.path().join("new")).unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("ca.pem")).unwrap();
        assert!(within_a_poll(&changes));
    }

    #[test]
    fn a_change_while_files_were_read_is_seen_afterwards() {
        let dir = tempdir().unwrap();
        let inputs = vec![dir.path().join("world.mmdb")];
        fs::write(&inputs[0], "half").unwrap();
        let loaded = Fingerprint::take(&inputs);
        fs::write(&inputs[0], "half and half").unwrap();
        let (seen, changes) = mpsc::channel();
        let watcher = Watcher::start(move || seen.send(()).is_ok()).unwrap();
        watcher.watch(inputs, loaded);
        assert!(changes.recv_timeout(POLL / 2).is_ok());
    }
}
