//! What the loop has kept over a restart besides orders: verdicts and ramps, written soon after they change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot::error::TryRecvError;

use super::aside::{self, Job};
use super::regions::Regions;
use crate::state::keeper::Keeper;
use crate::state::verdicts::{Remembered, Saved};
use crate::world::Beliefs;

/// Gathering them again and again while thousands change would cost more than it is worth.
const PAUSE: Duration = Duration::from_millis(100);
/// How far behind a kept ramp may be.
const RAMPS: Duration = Duration::from_secs(5);

pub struct Memory {
    keeper: Arc<Keeper>,
    due: Option<Instant>,
    last: Option<Instant>,
    /// Gathering on its way; one after another, or an older state might be the last to be kept.
    writing: Option<Job<()>>,
}

impl Memory {
    pub fn new(keeper: Arc<Keeper>) -> Memory {
        Memory { keeper, due: None, last: None, writing: None }
    }

    /// Something is to be written: at once after a pause, else when the pause is over.
    pub fn changed(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| (last + PAUSE).max(now));
        self.due.get_or_insert(earliest);
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes what is due.
    pub fn write(&mut self, beliefs: &Arc<Beliefs>, regions: &Regions, now: Instant) {
        if regions.is_moving() && self.last.is_none_or(|last| now >= last + RAMPS) {
            self.changed(now);
        }
        if self.due.is_some_and(|due| due <= now) {
            // Closed without an outcome: there was no thread for it, or it panicked.
            if self.writing.as_mut().is_some_and(|writing| matches!(writing.try_recv(), Err(TryRecvError::Empty))) {
                self.due = Some(now + PAUSE);
                return;
            }
            self.due = None;
            self.last = Some(now);
            let (keeper, beliefs, ramps) = (Arc::clone(&self.keeper), Arc::clone(beliefs), regions.ramps());
            let write = move || keeper.save_verdicts(Arc::new(gather(&beliefs, ramps)));
            self.writing = Some(aside::run("gather", write));
        }
    }

    /// Hands everything over before the end; the keeper writes it while it is dropped.
    pub async fn write_now(&mut self, beliefs: &Beliefs, regions: &Regions) {
        if let Some(writing) = self.writing.take().filter(|writing| !writing.is_terminated()) {
            // A panic of it was printed; what it was to write is written now.
            let _ = writing.await;
        }
        self.keeper.save_verdicts(Arc::new(gather(beliefs, regions.ramps())));
    }
}

fn gather(beliefs: &Beliefs, ramps: Vec<crate::state::verdicts::Ramp>) -> Remembered {
    Remembered { verdicts: beliefs.iter().filter_map(|(target, belief)| Saved::of(target, belief)).collect(), ramps }
}
