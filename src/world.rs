//! All that is known: what was read from files, and what is believed of each server.
//!
//! The control loop owns it; whoever else wants to know asks the loop for a [`View`].

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::Index;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use crate::config::settings::Family;
use crate::health::judge::Ruling;
use crate::health::{Target, Verdict};
use crate::orders::Order;
use crate::pilot;
use crate::snapshot::chunks::Chunks;
use crate::snapshot::{Snapshot, TargetId};
use crate::state::verdicts::{Saved, check_digest};
use crate::status::OrderStatus;

/// A name for people is not made longer than about this.
const LONG: usize = 100;

/// A verdict with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belief {
    pub verdict: Verdict,
    /// What it follows from, for people.
    pub cause: Arc<str>,
    pub since: SystemTime,
    /// Known from before the last start, and not confirmed since.
    pub stale: bool,
    /// Kept down until then at the earliest, because it went up and down too often.
    pub damped: Option<SystemTime>,
}

/// What is believed of the targets; a target that is not in it has not been heard of. A copy shares all that is not
/// changed afterwards.
#[derive(Clone, Default)]
pub struct Beliefs {
    places: Arc<HashMap<Target, u32>>,
    /// By place.
    beliefs: Chunks<Option<Belief>>,
}

impl Beliefs {
    /// Of these targets, of which nothing is believed yet but what `known` tells.
    fn of(targets: &[Target], known: impl Fn(&Target) -> Option<Belief>) -> Beliefs {
        let places = targets.iter().cloned().zip(0..).collect();
        Beliefs { places: Arc::new(places), beliefs: targets.iter().map(known).collect() }
    }

    pub fn new() -> Beliefs {
        Beliefs::default()
    }

    pub fn get(&self, target: &Target) -> Option<&Belief> {
        self.beliefs.get(*self.places.get(target)? as usize).as_ref()
    }

    pub fn contains_key(&self, target: &Target) -> bool {
        self.get(target).is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Target, &Belief)> {
        self.places.iter().filter_map(|(target, place)| Some((target, self.beliefs.get(*place as usize).as_ref()?)))
    }
}

impl FromIterator<(Target, Belief)> for Beliefs {
    fn from_iter<I: IntoIterator<Item = (Target, Belief)>>(known: I) -> Beliefs {
        let known: HashMap<Target, Belief> = known.into_iter().collect();
        let targets: Vec<Target> = known.keys().cloned().collect();
        Beliefs::of(&targets, |target| known.get(target).cloned())
    }
}

impl Index<&Target> for Beliefs {
    type Output = Belief;

    /// Panics for a target that was not heard of.
    fn index(&self, target: &Target) -> &Belief {
        self.get(target).expect("it was heard of")
    }
}

pub struct World {
    beliefs: Beliefs,
    /// The targets of the published snapshot, by place of their beliefs.
    known: Vec<Known>,
}

/// The servers that a target stands for, for people: `london of stream.example. (192.0.2.11 2001:db8::11)`.
type Known = Arc<str>;

/// The world at one instant, for who explains it.
#[derive(Clone)]
pub struct View {
    pub snapshot: Arc<Snapshot>,
    pub beliefs: Arc<Beliefs>,
    /// In force and to come, by id.
    pub orders: Arc<Vec<Order>>,
    /// The same as they stand: only the book knows which of them have begun, as that may be later than they say.
    pub order_status: Arc<Vec<OrderStatus>>,
    /// Why orders, verdicts and journal end with the process; `None`: they are kept over a restart.
    pub not_kept: Option<Arc<str>>,
    /// What the pilot knows of loads and prices.
    pub steering: Arc<pilot::View>,
}

impl Belief {
    pub fn new(verdict: Verdict, cause: Arc<str>, since: SystemTime) -> Belief {
        Belief { verdict, cause, since, stale: false, damped: None }
    }
}

impl View {
    /// A world without orders, of which nothing is said to be kept or not.
    pub fn of(snapshot: Arc<Snapshot>, beliefs: Arc<Beliefs>) -> View {
        View {
            snapshot,
            beliefs,
            orders: Arc::default(),
            order_status: Arc::default(),
            not_kept: None,
            steering: Arc::default(),
        }
    }
}

impl World {
    /// Nothing is believed yet of the snapshot's targets.
    pub fn new(snapshot: &Snapshot) -> World {
        let mut world = World { beliefs: Beliefs::default(), known: vec![] };
        world.replace(snapshot);
        world
    }

    /// Takes what a reload brought, and forgets targets that are gone.
    pub fn replace(&mut self, snapshot: &Snapshot) {
        self.known = servers(snapshot).into_iter().map(Arc::from).collect();
        self.beliefs = Beliefs::of(snapshot.targets(), |target| self.beliefs.get(target).cloned());
    }

    /// Notes a verdict. Gives the target's position in the published snapshot, and the servers it stands for; `None` for
    /// a target that is not of it, whose probe ended after the reload that removed it.
    pub fn believe(&mut self, target: &Target, belief: Belief) -> Option<(TargetId, Arc<str>)> {
        let place = *self.beliefs.places.get(target)?;
        *self.beliefs.beliefs.get_mut(place as usize) = Some(belief);
        Some((TargetId(place), Arc::clone(&self.known[place as usize])))
    }

    /// What a ruling makes of a target; the time of its verdict is that of the first ruling that said so.
    pub fn belief(&self, target: &Target, ruling: &Ruling, now: Instant) -> Belief {
        let verdict = if ruling.soft { Verdict::Damped } else { ruling.verdict };
        let wall = SystemTime::now();
        let same = self.beliefs.get(target).filter(|known| known.verdict == verdict);
        let damped = ruling.damped_until.map(|until| wall + until.saturating_duration_since(now));
        let cause = Arc::clone(&ruling.cause);
        Belief { verdict, cause, since: same.map_or(wall, |known| known.since), stale: ruling.stale, damped }
    }

    /// Believes again what was known of targets before the last start; gives the verdicts that the snapshot has to learn, and how
    /// long each is still damped.
    pub fn restore(&mut self, snapshot: &Snapshot, saved: &[Saved]) -> Vec<(TargetId, Verdict, Option<Duration>)> {
        let now = Timestamp::now();
        let saved: HashMap<(SocketAddr, &str), &Saved> =
            saved.iter().map(|saved| ((saved.address, &*saved.check), saved)).collect();
        let mut verdicts = Vec::new();
        for (id, target) in ids(snapshot) {
            let digest = check_digest(&target.check);
            let Some(saved) = saved.get(&(target.address, &*digest)) else { continue };
            let belief = saved.belief(now);
            verdicts.push((id, belief.verdict, saved.damped_for(now)));
            self.believe(target, belief);
        }
        verdicts
    }

    /// What a snapshot that was compiled meanwhile does not know yet; `new` tells what to believe of a target that was
    /// not heard of.
    pub fn news_for(&self, snapshot: &Snapshot, new: impl Fn(&Target) -> Verdict) -> Vec<(TargetId, Verdict)> {
        ids(snapshot)
            .map(|(id, target)| (id, self.beliefs.get(target).map_or_else(|| new(target), |belief| belief.verdict)))
            .filter(|(id, verdict)| snapshot.verdict(*id) != *verdict)
            .collect()
    }

    pub fn beliefs(&self) -> Arc<Beliefs> {
        Arc::new(self.beliefs.clone())
    }
}

pub fn verdict(beliefs: &Beliefs, target: &Target) -> Verdict {
    beliefs.get(target).map_or(Verdict::Unknown, |belief| belief.verdict)
}

fn ids(snapshot: &Snapshot) -> impl Iterator<Item = (TargetId, &Target)> {
    snapshot.targets().iter().enumerate().map(|(position, target)| (TargetId(position as u32), target))
}

/// By target: the servers that are judged by it.
fn servers(snapshot: &Snapshot) -> Vec<String> {
    let mut servers = vec![String::new(); snapshot.targets().len()];
    for at in 0..snapshot.fleets() {
        let (fleet, _) = snapshot.fleet_at(at);
        let zones = snapshot.zones_of(at).count();
        let Some(zone) = snapshot.zones_of(at).next().map(|z| &snapshot.zones()[z as usize].zone) else { continue };
        for (r, region) in zone.regions.iter().enumerate() {
            let mut here: BTreeMap<TargetId, String> = BTreeMap::new();
            for member in Family::BOTH.into_iter().flat_map(|family| fleet.members(r as u8, family)) {
                let Some(target) = member.target.filter(|target| servers[target.0 as usize].len() < LONG) else {
                    continue;
                };
                let addresses = here.entry(target).or_default();
                addresses.push_str(if addresses.is_empty() { "" } else { " " });
                addresses.push_str(&member.address.to_string());
            }
            for (target, addresses) in here {
                let text = &mut servers[target.0 as usize];
                text.push_str(if text.is_empty() { "" } else { ", " });
                let others = if zones > 1 { format!(" and {} more zones", zones - 1) } else { String::new() };
                text.push_str(&format!("{} of {}{others} ({addresses})", region.name, zone.name));
            }
        }
    }
    servers
}
