//! What the agents beside the servers tell: for the status of the node, and for its journal.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::status::Agents;
use crate::health::Target;
use crate::health::beats::{Beats, Event, What};
use crate::journal::{Journal, Kind, Note};
use crate::status::LoadStatus;

impl Agents for Beats {
    fn load(&self, address: IpAddr) -> Option<LoadStatus> {
        let (load, at) = self.of(address)?.load()?;
        let age = now().saturating_duration_since(at);
        Some(LoadStatus {
            age_s: age.as_secs_f64(),
            sessions: load.sessions,
            bits_per_s: load.bits_per_s,
            cpu: load.cpu_permille.map(|permille| f64::from(permille) / 1000.0),
        })
    }

    fn last_beat(&self, target: &Target) -> Option<Duration> {
        self.of(target.beats_of?)?.last_beat_age(now())
    }
}

/// Notes what becomes of agents, until nobody tells any more.
pub async fn note(mut events: mpsc::Receiver<Event>, journal: Journal) {
    while let Some(Event { server, what }) = events.recv().await {
        let (kind, cause) = match what {
            What::Found { key, from } => (Kind::AgentFound, format!("beats from {from} under the key {key}")),
            What::Lost { silent, slow, untold } => {
                let mut cause = format!("no beat for {silent:.1?}; probes alone judge until they come again");
                if let Some(slow) = slow {
                    cause += &format!("; {slow}");
                }
                if untold > 0 {
                    cause += &format!("; lost {untold} times more since this was last told");
                }
                (Kind::AgentLost, cause)
            }
            What::Left => (Kind::AgentLost, "has ended as planned; probes alone judge".to_owned()),
            What::NotReady => (Kind::AgentNotReady, "says that its server takes nobody".to_owned()),
            What::Ready => (Kind::AgentReady, "says that its server takes clients again".to_owned()),
            What::Refused { why, from } => {
                (Kind::AgentRefused, format!("beats from {from} do not count: {}", why.label()))
            }
        };
        journal.note(Timestamp::now(), Note { server: Some(server), ..Note::new(kind, cause) });
    }
}

/// The runtime's clock, as the receiver of beats has it.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
