//! What the control loop tells the journal and the log of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::aside::give_way;
use super::regions::{At, Flip, Step};
use crate::config::settings::Family;
use crate::health::Verdict;
use crate::health::alarm::Alarm;
use crate::journal::{Effect, Journal, Kind, Note};
use crate::orders::{Action, Order, Subject};
use crate::snapshot::effect::between;
use crate::snapshot::standing::{Mode, Share, Standing};
use crate::snapshot::{Snapshot, TargetId};

/// Changes on their way to the journal; more are noted without their effect.
const BACKLOG: usize = 1024;
/// Zones of which the effect is counted where many turn at once.
const COUNTED: usize = 8;
/// The end does not wait for the journal any longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes the journal on a thread of its own, in order: counting what a change does to thousands of cells must not keep
/// the next verdict waiting.
pub struct Scribe {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    journal: Journal,
}

impl Scribe {
    pub fn start(journal: Journal) -> Scribe {
        let (jobs, line) = sync_channel::<Job>(BACKLOG);
        let to = journal.clone();
        let write = move || {
            give_way();
            line.into_iter().for_each(|job| job.write(&to));
        };
        // Without a thread the line has no end, and the loop writes by itself.
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(write).ok();
        Scribe { jobs: Some(jobs), thread, journal }
    }

    pub fn note(&mut self, job: Job) {
        if job.is_empty() {
            return;
        }
        let Some(jobs) = &self.jobs else { return };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = jobs.try_send(job) {
            Job { before: Arc::clone(&job.after), ..job }.write(&self.journal);
        }
    }

    /// Takes no more, and waits until all is written, or two seconds.
    pub async fn ended(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed, and there is nothing to mend any more; nor is a whole backlog waited for.
            let _ = timeout(PATIENCE, spawn_blocking(move || thread.join())).await;
        }
    }
}

/// What a change from one snapshot to the next was about.
pub struct Job {
    pub before: Arc<Snapshot>,
    pub after: Arc<Snapshot>,
    pub at: Timestamp,
    pub plain: Vec<Note>,
    pub verdicts: Vec<(TargetId, Verdict, Arc<str>)>,
    pub deeds: Vec<Deed>,
    pub flips: Vec<Flip>,
    pub steps: Vec<Step>,
}

/// What became of an order, and by whom.
pub struct Deed {
    pub kind: Kind,
    pub order: Order,
    pub author: String,
    pub why: Option<String>,
}

impl Job {
    /// Of now, about nothing yet.
    pub fn new(before: Arc<Snapshot>, after: Arc<Snapshot>) -> Job {
        let at = Timestamp::now();
        Job { before, after, at, plain: vec![], verdicts: vec![], deeds: vec![], flips: vec![], steps: vec![] }
    }

    fn is_empty(&self) -> bool {
        let Job { plain, verdicts, deeds, flips, steps, .. } = self;
        plain.is_empty() && verdicts.is_empty() && deeds.is_empty() && flips.is_empty() && steps.is_empty()
    }

    fn write(&self, journal: &Journal) {
        let notes = Notes { journal, before: &self.before, after: &self.after, at: self.at };
        for note in &self.plain {
            journal.note(self.at, note.clone());
        }
        self.verdicts.iter().for_each(|(id, verdict, cause)| notes.verdict(*id, *verdict, cause));
        self.deeds.iter().for_each(|deed| notes.order(deed));
        notes.flips(&self.flips);
        notes.steps(&self.steps);
    }
}

struct Notes<'a> {
    journal: &'a Journal,
    before: &'a Snapshot,
    after: &'a Snapshot,
    at: Timestamp,
}

impl Notes<'_> {
    /// A verdict that is another than before. A server that is up as it was taken to be is no news.
    fn verdict(&self, id: TargetId, verdict: Verdict, cause: &str) {
        let was = if self.before.is_kin(self.after) { self.before.verdict(id) } else { Verdict::Unknown };
        if was.is_up() == verdict.is_up() {
            return;
        }
        let kind = if verdict.is_up() { Kind::ServerUp } else { Kind::ServerDown };
        let mut note = Note::new(kind, cause);
        if let Some((at, region)) = self.after.users(id).next() {
            let (fleet, _) = self.after.fleet_at(at);
            let members = Family::BOTH.into_iter().flat_map(|family| fleet.members(region, family));
            note.server = members.into_iter().find(|member| member.target == Some(id)).map(|member| member.address);
            note = self.about((at, region), note);
        }
        self.journal.note(self.at, note);
    }

    /// Regions that came or went as a whole, with what that does to the answers. A region that many zones share is told
    /// once.
    fn flips(&self, flips: &[Flip]) {
        // Both families of a region in one note.
        let mut by_region: BTreeMap<(At, bool), Vec<Family>> = BTreeMap::new();
        for flip in flips {
            by_region.entry((flip.at, flip.up)).or_default().push(flip.family);
        }
        let mut alike: BTreeMap<(Arc<str>, bool, String), Vec<At>> = BTreeMap::new();
        for ((at, up), families) in by_region {
            let causes: Vec<String> = families.iter().map(|family| self.count(at, *family)).collect();
            let (_, region) = self.names(at);
            alike.entry((region, up, causes.join("; "))).or_default().push(at);
        }
        let mut effects: BTreeMap<u32, Option<Effect>> = BTreeMap::new();
        for ((region, up, cause), places) in alike {
            let counted = places.iter().take(COUNTED);
            let counted: Vec<Effect> = counted
                .filter_map(|(fleet, _)| {
                    // Zones of one fleet lose and win alike.
                    let effect = || self.after.zones_of(*fleet).next().and_then(|zone| self.effect(zone));
                    effects.entry(*fleet).or_insert_with(effect).clone()
                })
                .collect();
            let effect = joined(counted);
            let moved = effect.as_ref().map(|effect| format!("{:.1} %", effect.moved * 100.0));
            let zones: usize = places.iter().map(|(fleet, _)| self.after.zones_of(*fleet).count()).sum();
            let (zone, cause) = match zones {
                1 => (self.names(places[0]).0.to_string(), cause),
                _ => (format!("{zones} zones"), format!("{cause}; in {zones} zones")),
            };
            match up {
                true => info!(zone, %region, moved, "region up: {cause}"),
                false => warn!(zone, %region, moved, "region down: {cause}"),
            }
            let kind = if up { Kind::RegionUp } else { Kind::RegionDown };
            let zone = (zones == 1).then(|| self.names(places[0]).0);
            self.journal.note(self.at, Note { zone, region: Some(region), effect, ..Note::new(kind, cause) });
        }
    }

    /// Ramps and drains that began or came to their end.
    fn steps(&self, steps: &[Step]) {
        for &Step { at, from, to } in steps {
            let share = self.after.fleet_at(at.0).1.standing(at.1).share.part() * 100.0;
            let (kind, cause) = match (from, to) {
                (Mode::Ramping, Mode::Frozen) => {
                    (Kind::RampFrozen, format!("takes {share:.0} % until it is well again"))
                }
                (Mode::Frozen, Mode::Ramping) => (Kind::RampStarted, format!("well again, takes {share:.0} %")),
                (_, Mode::Ramping | Mode::Frozen) => (Kind::RampStarted, format!("takes {share:.0} % at first")),
                (Mode::Ramping | Mode::Frozen, Mode::Steady) => (Kind::RampDone, "takes all of its share".to_owned()),
                (_, Mode::Drained) => (Kind::Drained, "takes nobody while another region is up".to_owned()),
                // The order itself was noted.
                (_, Mode::Draining | Mode::Steady) => continue,
            };
            let (zone, region) = self.names(at);
            let zones = self.after.zones_of(at.0).count();
            let note = match zones {
                1 => self.about(at, Note::new(kind, cause)),
                _ => Note { zone: None, ..self.about(at, Note::new(kind, format!("{cause}; in {zones} zones"))) },
            };
            info!(%zone, zones, %region, "{}: {}", word(kind), note.cause);
            self.journal.note(self.at, note);
        }
    }

    /// An order that was given, began, ended, was lifted or refused.
    fn order(&self, deed: &Deed) {
        let Deed { kind, order, author, why } = deed;
        let kind = *kind;
        let mut cause = format!("order {}: {}", order.id, describe(order));
        if let Some(why) = why {
            cause.push_str(": ");
            cause.push_str(why);
        }
        info!(author, "{}: {cause}", word(kind));
        let mut note = Note { zone: order.zone.clone(), author: Some(author.clone()), ..Note::new(kind, cause) };
        match &order.subject {
            Subject::Region(region) => note.region = Some(Arc::clone(region)),
            Subject::Server(address) => note.server = Some(*address),
        }
        note.effect = match kind {
            // It changes nothing, or another order took its place and its effect.
            Kind::OrderRefused => None,
            _ if why.is_some() => None,
            _ => self.effect_of(order, kind),
        };
        self.journal.note(self.at, note);
    }

    /// What an order does in the end: of a drain, or the end of one, once all of the share has moved.
    fn effect_of(&self, order: &Order, kind: Kind) -> Option<Effect> {
        let mut effects: Vec<Effect> = vec![];
        for zone in (0..self.after.zones().len() as u32).filter(|zone| self.concerns(order, *zone)) {
            let effect = match (&order.subject, order.action) {
                (Subject::Region(name), Action::Drain { .. }) => {
                    let regions = &self.after.zones()[zone as usize].zone.regions;
                    let Some(region) = regions.iter().position(|region| region.name == *name) else { continue };
                    let begins = matches!(kind, Kind::OrderGiven | Kind::OrderBegan);
                    let share = if begins { Share::NONE } else { Share::FULL };
                    let standing = Standing { share, ..self.before.standing(zone, region as u8).clone() };
                    let at = (self.before.fleet_of(zone), region as u8);
                    let goal = self.before.with_standings([(at, standing)]);
                    effect_between(self.before, &goal, zone)
                }
                _ => self.effect(zone),
            };
            effects.extend(effect);
            if effects.len() == COUNTED {
                break;
            }
        }
        joined(effects)
    }

    fn concerns(&self, order: &Order, zone: u32) -> bool {
        let zone = &self.after.zones()[zone as usize].zone;
        order.zone.as_deref().is_none_or(|name| *name == *zone.label())
            && zone.regions.iter().any(|region| match &order.subject {
                Subject::Region(name) => region.name == *name,
                Subject::Server(address) => region
                    .servers
                    .iter()
                    .any(|server| Family::BOTH.into_iter().any(|family| server.address(family) == Some(*address))),
            })
    }

    /// `None` where the two do not belong together, as over a reload.
    fn effect(&self, zone: u32) -> Option<Effect> {
        effect_between(self.before, self.after, zone)
    }

    /// How many servers of a region are up: `A: 1 of 3 servers up, 2 needed`.
    fn count(&self, (at, region): At, family: Family) -> String {
        let (fleet, state) = self.after.fleet_at(at);
        let members = fleet.members(region, family);
        let verdicts = self.after.verdicts();
        let up = members.iter().filter(|member| state.is_up(usize::from(region), family, member, verdicts)).count();
        let rtype = if family == Family::V4 { "A" } else { "AAAA" };
        let forced = match state.standing(region).forced {
            Some(_) => ", forced by the operator",
            None => "",
        };
        format!("{rtype}: {up} of {} servers up, {} needed{forced}", members.len(), fleet.min_up(region, family))
    }

    /// A zone with the region, and its name.
    fn names(&self, (fleet, region): At) -> (Arc<str>, Arc<str>) {
        let zone = self.after.zones_of(fleet).next().map(|zone| &*self.after.zones()[zone as usize].zone);
        let zone = zone.unwrap_or_else(|| self.after.sample(fleet));
        (zone.label(), Arc::clone(&zone.regions[usize::from(region)].name))
    }

    fn about(&self, at: At, note: Note) -> Note {
        let (zone, region) = self.names(at);
        Note { zone: Some(zone), region: Some(region), ..note }
    }
}

fn effect_between(before: &Snapshot, after: &Snapshot, zone: u32) -> Option<Effect> {
    if !before.is_kin(after) || std::ptr::eq(before, after) {
        return None;
    }
    let zone_label = after.zones()[zone as usize].zone.label();
    let regions = &after.zones()[zone as usize].zone.regions;
    let effect = between(before, after, zone);
    let changed = effect.shares.into_iter().filter(|(_, (was, is))| was != is);
    let named = |(region, parts): (u8, _)| (format!("{} of {zone_label}", regions[usize::from(region)].name), parts);
    Some(Effect { moved: effect.moved, shares: changed.map(named).collect() })
}

/// Of several zones: the most that is moved in one of them, and the shares of all.
fn joined(effects: Vec<Effect>) -> Option<Effect> {
    effects.into_iter().reduce(|all, one| Effect {
        moved: all.moved.max(one.moved),
        shares: all.shares.into_iter().chain(one.shares).collect(),
    })
}

/// Notes alarms of the prober, until it is gone.
pub async fn alarms(mut alarms: broadcast::Receiver<Alarm>, journal: Journal) {
    loop {
        let cause = match alarms.recv().await {
            Ok(alarm) => alarm.to_string(),
            Err(RecvError::Lagged(lost)) => format!("{lost} alarms more than could be noted"),
            Err(RecvError::Closed) => return,
        };
        journal.note(Timestamp::now(), Note::new(Kind::Alarm, cause));
    }
}

/// `drain of eu-west over 120s until 2026-11-22T18:00:00Z, anyway (kernel update)`.
fn describe(order: &Order) -> String {
    let over = match order.action {
        Action::Drain { over } => format!(" over {}s", over.as_secs()),
        Action::ForceUp | Action::ForceDown => String::new(),
    };
    let from = if order.from > order.given { format!(" from {}", order.from) } else { String::new() };
    let until = order.until.map(|until| format!(" until {until}")).unwrap_or_default();
    let anyway = if order.anyway { ", anyway" } else { "" };
    format!("{}{over}{from}{until}{anyway} ({})", order.deed(), order.reason)
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::RampStarted => "region comes back",
        Kind::RampDone => "region is back",
        Kind::RampFrozen => "region's return waits",
        Kind::Drained => "region is drained",
        Kind::OrderGiven => "order given",
        Kind::OrderBegan => "order began",
        Kind::OrderExpired => "order ended",
        Kind::OrderLifted => "order lifted",
        Kind::OrderRefused => "order refused",
        _ => "event",
    }
}
