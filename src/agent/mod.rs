//! The agent beside a stream server: it beats to every node, many times a second, and says how busy the server is.
//!
//! ```text
//! /proc, a command, a URL ─► gather (once a second) ─┐
//! file of keys ─► read again when it changes ────────┼─► one link a node: a beat every tick, challenges answered
//!                                                    │
//! SIGTERM ───────────────────────────────────────────┘   (then a last beat says that the agent leaves)
//! ```
//!
//! Nothing that the network, a command or a URL does holds up a beat: links only ever look at the newest figures.
//!
//! * `link`: a task for each node.
//! * `gather`: asks the sources.
//! * `machine`: CPU and traffic from `/proc`.
//! * `viewers`: round-trip times of the server's connections, over HTTP to the nodes' admin addresses.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use crate::health::beats::keys::{Key, KeyFile, Unusable};
use crate::health::beats::packet::Addresses;

mod gather;
mod link;
mod machine;
mod viewers;

pub use gather::{Source, Url, UrlFault};
pub use viewers::Settings as Viewers;

/// How often the file of keys is looked at.
const KEYS_LOOK: Duration = Duration::from_secs(1);

/// What an agent is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nodes, `HOST:PORT` each; names are looked up again every minute.
    pub to: Vec<String>,
    /// The public addresses of the server, as the zone has them.
    pub server: Addresses,
    /// Its first key is used.
    pub key_file: PathBuf,
    pub every: Duration,
    /// Whose traffic counts; `None`: that of the default route, or all but `lo`.
    pub interface: Option<String>,
    /// Where the number of sessions comes from.
    pub sessions: Option<Source>,
    /// What tells whether the server can take viewers; without it, it always can.
    pub ready: Option<Source>,
    /// Whose round-trip times are told; `None`: nobody's.
    pub viewers: Option<Viewers>,
}

/// Why an agent cannot start.
#[derive(Debug)]
pub enum StartError {
    Keys(PathBuf, Unusable),
    /// The system gives no random bytes.
    NoRandom,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Keys(path, why) => write!(f, "{}: {why}", path.display()),
            StartError::NoRandom => f.write_str("the system gives no random bytes"),
        }
    }
}

impl std::error::Error for StartError {}

/// Beats until `stop`, then says that it leaves. Once it has started no error ends it. Must be called within a tokio
/// runtime; reads the file of keys before the first wait.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), StartError> {
    let keys = KeyFile::open(&settings.key_file).map_err(|why| StartError::Keys(settings.key_file.clone(), why))?;
    let mut instance = [0; 8];
    SystemRandom::new().fill(&mut instance).map_err(|_| StartError::NoRandom)?;
    let (key, newest_key) = watch::channel(Arc::clone(keys.keys().first()));
    let _keys = AbortOnDropHandle::new(tokio::spawn(reread(keys, key)));
    let (report, reports) = watch::channel(gather::Report::default());
    let _gather = AbortOnDropHandle::new(tokio::spawn(gather::run(settings.clone(), report)));
    let _viewers = settings.viewers.clone().map(|of| AbortOnDropHandle::new(tokio::spawn(viewers::run(of))));
    info!(key = %newest_key.borrow().name, to = settings.to.join(" "), every = ?settings.every, "agent beats");
    let mut links = JoinSet::new();
    for node in settings.to {
        let (key, reports, instance) = (newest_key.clone(), reports.clone(), u64::from_be_bytes(instance));
        let link = link::Link::new(node, settings.server, instance, settings.every, key, reports);
        links.spawn(link.run(stop.clone()));
    }
    while let Some(ended) = links.join_next().await {
        if let Err(panic) = ended {
            tracing::error!(error = %panic, "a fault of ours ended the beats to one node");
        }
    }
    Ok(())
}

/// Gives the first key of the file whenever it is another.
async fn reread(mut file: KeyFile, key: watch::Sender<Arc<Key>>) {
    let mut look = interval(KEYS_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let mut next = file.clone();
        let read = spawn_blocking(move || {
            let changed = next.refresh();
            (next, changed)
        });
        match read.await {
            Ok((next, changed)) => {
                file = next;
                if changed {
                    key.send_replace(Arc::clone(file.keys().first()));
                }
            }
            // The runtime ends.
            Err(_) => sleep(KEYS_LOOK).await,
        }
    }
}
