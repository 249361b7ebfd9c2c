//! Alarms: trouble of this machine's own checking, for the journal and whoever watches it.
//!
//! None of them says anything about a target. They are sent on a bounded channel on which nobody has to listen; who
//! falls behind loses the oldest, and is told so by the channel.

use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;

use super::Target;

/// Alarms kept for a listener that is slow.
pub const KEPT: usize = 256;

/// What a person should know about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The task that probes a target panicked, and was started again with the verdict that stood.
    Restarted { target: Arc<Target>, message: String },
    /// More targets than before have gone without a result for too long.
    Overdue { overdue: usize, of: usize, example: Arc<Target>, cause: Option<String> },
    /// No target is overdue any longer.
    Resumed,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Alarm::Restarted { target, message } => {
                write!(f, "the probe task of {} panicked and is started again: {message}", target.address)
            }
            Alarm::Overdue { overdue, of, example, cause } => {
                let address = example.address;
                write!(f, "{overdue} of {of} targets are not probed any more, {address} for one")?;
                if let Some(cause) = cause {
                    write!(f, " (last: {cause})")?;
                }
                write!(f, "; their verdicts are kept and may be wrong")
            }
            Alarm::Resumed => write!(f, "all targets are probed again"),
        }
    }
}

/// Where alarms are raised.
#[derive(Clone, Debug)]
pub(super) struct Alarms(broadcast::Sender<Alarm>);

impl Default for Alarms {
    fn default() -> Alarms {
        Alarms(broadcast::Sender::new(KEPT))
    }
}

impl Alarms {
    pub(super) fn listen(&self) -> broadcast::Receiver<Alarm> {
        self.0.subscribe()
    }

    /// Logs it, and tells whoever listens.
    pub(super) fn raise(&self, alarm: Alarm) {
        match &alarm {
            Alarm::Resumed => tracing::info!("{alarm}"),
            Alarm::Restarted { .. } | Alarm::Overdue { .. } => tracing::error!("{alarm}"),
        }
        // Nobody may be listening.
        let _ = self.0.send(alarm);
    }
}
