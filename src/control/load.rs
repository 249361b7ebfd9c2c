//! From files to a compiled snapshot, all or nothing.
//!
//! Everything is read and checked before anything is taken: one fault in one file refuses the whole load, with every
//! fault of every file in the refusal. Blocks on the file system and computes for up to seconds, so the control loop runs
//! it on a thread of its own.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tracing::warn;

use super::learned::{self, Shared as Learned};
use super::serials::{Serials, open_state};
use super::watch::Fingerprint;
use crate::admin::access::Gate;
use crate::config::admin::exposed;
use crate::config::geoip::{database_paths, load_database};
use crate::config::node::{self, load_node};
use crate::config::rtt::{self, Imported};
use crate::config::settings::{Node, Overrides, Zone};
use crate::config::{At, Diagnostic, Shared, geo_warnings, load_zones};
use crate::geo::Database;
use crate::snapshot::{Served, Snapshot};
use crate::world::{Beliefs, verdict};

/// Where to read from: the configuration file, and the flags that beat it.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub config: Option<PathBuf>,
    pub flags: Overrides,
}

/// Files that were read and found good.
pub struct Files {
    pub node: Node,
    pub zones: Vec<Zone>,
    pub database: Arc<Database>,
    /// Rows of the table of round-trip times, if there is one.
    pub rtt: Vec<Imported>,
    pub warnings: Vec<Diagnostic>,
    seen: Seen,
}

/// What was looked at, and in what state it was.
#[derive(Debug, Default)]
pub struct Seen {
    pub inputs: Vec<PathBuf>,
    pub fingerprint: Fingerprint,
    /// Of the databases alone.
    databases: Fingerprint,
}

impl Seen {
    fn note(&mut self, inputs: impl IntoIterator<Item = PathBuf>) -> Fingerprint {
        let inputs: Vec<PathBuf> = inputs.into_iter().collect();
        let fingerprint = Fingerprint::take(&inputs);
        self.fingerprint.add(&fingerprint);
        self.inputs.extend(inputs);
        fingerprint
    }

    /// Adds what this did not come to look at.
    fn or(mut self, earlier: Seen) -> Seen {
        self.inputs.extend(earlier.inputs);
        let mut fingerprint = earlier.fingerprint;
        fingerprint.add(&self.fingerprint);
        Seen { fingerprint, ..self }
    }
}

/// Why nothing was taken: at least one of the diagnostics is an error.
#[derive(Debug)]
pub struct Refused {
    pub diagnostics: Vec<Diagnostic>,
    pub seen: Seen,
}

/// What replaces the world of now.
pub struct Loaded {
    pub snapshot: Snapshot,
    pub warnings: Vec<Diagnostic>,
    pub seen: Seen,
}

/// A way to load anew, given the snapshot to follow and what is believed of targets.
pub type Load = Arc<dyn Fn(&Snapshot, &Beliefs) -> Result<Loaded, Refused> + Send + Sync>;

/// The node's own file, read; of the files that it names none is yet.
pub struct NodeFile {
    pub node: Node,
    shared: Shared,
    diagnostics: Vec<Diagnostic>,
    seen: Seen,
}

impl NodeFile {
    pub fn read(sources: &Sources) -> Result<NodeFile, Refused> {
        let mut seen = Seen::default();
        // Looked at before it is read, also where it is not there yet.
        seen.note([sources.config.clone().unwrap_or_else(|| node::DEFAULT_FILE.into())]);
        match load_node(sources.config.as_deref()) {
            Ok((node, shared, mut diagnostics)) => {
                let node = node.with(sources.flags.clone());
                // The file's own address was judged with the file.
                if let Some(address) = sources.flags.admin
                    && let Some(missing) = node.access.missing_for(address)
                {
                    let file = sources.config.clone().unwrap_or_else(|| node::DEFAULT_FILE.into());
                    let fault = Diagnostic::error(At::start(&file), format!("--admin {address}: {missing} is missing"));
                    diagnostics.push(exposed(fault));
                }
                Ok(NodeFile { node, shared, diagnostics, seen })
            }
            Err(fault) => Err(Refused { diagnostics: vec![*fault], seen }),
        }
    }

    /// Whether its settings can be used; when not, [`NodeFile::load`] refuses, with the faults of all files.
    pub fn is_sound(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// Reads all the rest. `known`: databases read before, taken again when their files are as they were.
    pub fn load(self, known: Option<&(Fingerprint, Arc<Database>)>) -> Result<Files, Refused> {
        let NodeFile { node, shared, mut diagnostics, mut seen } = self;
        seen.note([node.zones.clone()]);
        seen.databases = seen.note(database_paths(&node));
        seen.note(node.rtt.clone());
        let rtt = node.rtt.as_deref().map(rtt::load).transpose();
        let (zones, database) = thread::scope(|scope| {
            let zones = scope.spawn(|| load_zones(std::slice::from_ref(&node.zones), &shared));
            let database = match known {
                Some((fingerprint, database)) if *fingerprint == seen.databases => Ok(Arc::clone(database)),
                _ => load_database(&node).map(Arc::new),
            };
            (zones.join().unwrap_or_else(|panic| resume_unwind(panic)), database)
        });
        diagnostics.extend(zones.diagnostics);
        seen.note(zones.named);
        let rtt = rtt.unwrap_or_else(|faults| {
            diagnostics.extend(faults);
            None
        });
        if let (Some(path), Some(rows)) = (&node.rtt, &rtt) {
            diagnostics.extend(rtt::unknown_regions(path, rows, &zones.zones));
        }
        match database {
            Ok(database) if !diagnostics.iter().any(Diagnostic::is_error) => {
                diagnostics.extend(geo_warnings(&zones.zones, |rule| database.knows(rule)));
                Ok(Files {
                    node,
                    zones: zones.zones,
                    database,
                    rtt: rtt.unwrap_or_default(),
                    warnings: diagnostics,
                    seen,
                })
            }
            Ok(_) => Err(Refused { diagnostics, seen }),
            Err(faults) => {
                diagnostics.extend(faults);
                Err(Refused { diagnostics, seen })
            }
        }
    }
}

/// Reads everything, as [`NodeFile::load`] does.
pub fn read(sources: &Sources, known: Option<&(Fingerprint, Arc<Database>)>) -> Result<Files, Refused> {
    NodeFile::read(sources)?.load(known)
}

/// Loads again and again from the same sources, with serials that never go back.
pub struct Loader {
    sources: Sources,
    /// The settings that hold from start to end.
    started: Node,
    state: Option<PathBuf>,
    /// Takes what a load says of the admin address.
    gate: Arc<Gate>,
    /// Takes the table of round-trip times.
    learned: Learned,
    memory: Mutex<Memory>,
}

struct Memory {
    serials: Serials,
    database: (Fingerprint, Arc<Database>),
    /// What the last good load had looked at.
    inputs: Vec<PathBuf>,
}

impl Loader {
    /// `files`: the first reading of `sources`. Gives the first snapshot too. Blocks as long as compiling takes.
    ///
    /// A state directory that cannot be had costs the serials' memory and nothing else, so it is only warned of.
    pub fn new(sources: Sources, files: Files, gate: Arc<Gate>, learned: Learned) -> (Loader, Loaded) {
        let state = open_state(&files.node.state);
        if let Err(error) = &state {
            warn!(
                directory = %files.node.state.display(), %error,
                "no state directory; after a restart, serials start from the files' times"
            );
        }
        let state = state.ok();
        let serials = state.as_deref().map(Serials::load);
        let memory = Memory {
            serials: serials.unwrap_or_default(),
            database: (files.seen.databases.clone(), Arc::clone(&files.database)),
            inputs: files.seen.inputs.clone(),
        };
        let loader = Loader { sources, started: files.node.clone(), state, gate, learned, memory: Mutex::new(memory) };
        let loaded = loader.compile(files, None, &Beliefs::new());
        (loader, loaded)
    }

    pub fn load(&self, previous: &Snapshot, beliefs: &Beliefs) -> Result<Loaded, Refused> {
        // Not held while reading: the loads of one loader follow one another anyhow.
        let (known, inputs) = {
            let memory = self.memory();
            (memory.database.clone(), memory.inputs.clone())
        };
        let mut earlier = Seen::default();
        earlier.note(inputs);
        // A file with a fault may not tell any more what else to look at.
        let mut files = read(&self.sources, Some(&known))
            .map_err(|Refused { diagnostics, seen }| Refused { diagnostics, seen: seen.or(earlier) })?;
        files.warnings.extend(self.not_now(&files.node));
        // A load that was read is always taken.
        self.gate.replace(&files.node.access);
        Ok(self.compile(files, Some(previous), beliefs))
    }

    fn compile(&self, files: Files, previous: Option<&Snapshot>, beliefs: &Beliefs) -> Loaded {
        let Files { zones, database, rtt, warnings, seen, .. } = files;
        self.import(&rtt, &database, &zones);
        let mut memory = self.memory();
        memory.database = (seen.databases.clone(), Arc::clone(&database));
        memory.inputs = seen.inputs.clone();
        let mut serials = memory.serials.clone();
        let zones: Vec<Served> =
            zones.into_iter().map(|zone| Served { serial: serials.give(&zone), zone: Arc::new(zone) }).collect();
        if serials != memory.serials {
            // Saved before it is served: a serial that anybody saw is not given again to another content.
            if let Some(Err(error)) = self.state.as_deref().map(|state| serials.save(state)) {
                warn!(%error, "the serials cannot be saved; after a restart they may go back");
            }
            memory.serials = serials;
        }
        drop(memory);
        let snapshot = Snapshot::compile(zones, &database, |target| verdict(beliefs, target), previous);
        Loaded { snapshot, warnings, seen }
    }

    /// Computed before the lock is taken.
    fn import(&self, rows: &[Imported], database: &Database, zones: &[Zone]) {
        let table = learned::table_of(rows, database, zones);
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).import(table);
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        // Each change to it is whole, whatever panicked.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settings that a reload cannot change.
    fn not_now(&self, node: &Node) -> Vec<Diagnostic> {
        let file = self.sources.config.clone().unwrap_or_else(|| node::DEFAULT_FILE.into());
        let started = &self.started;
        [
            ("listen", node.listen != started.listen),
            ("workers", node.workers != started.workers),
            ("cpus", node.cpus != started.cpus),
            ("state", node.state != started.state),
            ("admin", node.admin != started.admin),
            ("limits", node.tcp != started.tcp),
        ]
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(key, _)| {
            Diagnostic::warning(At::start(&file), format!("`{key}` changed: it takes effect at the next start"))
        })
        .collect()
    }
}
