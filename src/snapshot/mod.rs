//! Everything an answer needs, compiled, immutable, and published with one swap.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::settings::Zone;
use crate::geo::{Database, Places};
use crate::health::{Target, Verdict};

/// Where readers find the snapshot of now. Only the control loop stores.
pub type Published = Arc<ArcSwap<Snapshot>>;

/// Index into [`Snapshot::targets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub u32);

pub struct Snapshot {}

/// A zone and the serial it is served with.
pub struct Served {
    pub zone: Arc<Zone>,
    pub serial: u32,
}

impl Snapshot {
    /// Compiles from scratch. Long (tens of ms to seconds): never on a thread that answers.
    /// `verdict` tells what is already believed of a target (Unknown for a new one).
    pub fn compile(_zones: Vec<Served>, _database: &Database, _verdict: impl Fn(&Target) -> Verdict) -> Snapshot {
        todo!()
    }

    /// The same with other verdicts: shares all that did not change. Microseconds.
    pub fn with_verdicts(&self, _changes: &[(TargetId, Verdict)]) -> Snapshot {
        todo!()
    }

    /// Counts up by one with every snapshot that is published.
    pub fn generation(&self) -> u64 {
        todo!()
    }

    /// Every distinct target of every zone.
    pub fn targets(&self) -> &[Target] {
        todo!()
    }

    pub fn zones(&self) -> &[Served] {
        todo!()
    }

    pub fn verdict(&self, _target: TargetId) -> Verdict {
        todo!()
    }

    /// The probes of a server: zone, region and server by position.
    pub fn target_of(
        &self,
        _zone: u32,
        _region: u8,
        _server: usize,
        _family: crate::config::settings::Family,
    ) -> Option<TargetId> {
        todo!()
    }
}

#[allow(unused)]
fn unused(_: Places) {}
