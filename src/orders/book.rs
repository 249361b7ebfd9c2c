//! The book of orders: those in force, and those to come.
//!
//! ```text
//!          give ──► to come ──(its time, and the guard agrees)──► in force ──(its end, or lifted)──► gone
//!            └──────────────(without a later beginning)──────────────▲
//! ```
//!
//! An order that comes into force takes the place of those of the same kind (drain, or force) in force about the same
//! subject in the same zone; one that is given for later also of those to come at an overlapping time. Orders of different
//! zones, or of one and of every zone, stand beside each other: the force that began last holds, and the least share of
//! all drains. So a force up may cover a force down, which the guard judges anew before it is uncovered (`cover`).

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bounds::{self, MOST_ORDERS, Window};
use super::cover;
use super::guard::{self, Facts};
use super::saved::Written;
use super::{Action, Draft, Lift, Order, Refusal, Subject, Words};
use crate::config::nearest;
use crate::status::OrderStatus;

/// Orders in force and to come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Book {
    pub(super) next: u64,
    /// By id.
    pub(super) kept: Vec<Kept>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub order: Order,
    /// When it really came into force: for one that was to begin while the node was down, that is later than its time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub begun: Option<Timestamp>,
    /// Of those that have begun the one with the higher place began later; 0 before. The wall clock cannot tell: it may be
    /// set back.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub place: u64,
    /// Of a drain: the share that was left when it began; below 1 where the region was drained already.
    pub start: f64,
    /// Of a drain: the least share that was seen to be left, if that is less. The clock may be set back, or begin long ago
    /// when the machine starts; what has left does not come back for that.
    #[serde(rename = "left", skip_serializing_if = "Option::is_none", default)]
    pub least: Option<f64>,
}

/// An order that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    pub order: Order,
    /// Those whose place it took; they are gone.
    pub replaced: Vec<Order>,
}

/// Orders that were ended before their time.
#[derive(Clone, Debug, PartialEq)]
pub struct Lifted {
    /// Those that it was asked of, at least one.
    pub orders: Vec<Order>,
    /// Those that were covered by them and would leave too little now: they are gone too. The texts hold the figures.
    pub dropped: Vec<(Order, String)>,
}

/// What time did to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Began,
    /// The order with this number began and took its place: it is gone.
    Replaced(u64),
    /// What covered it came to its end, and uncovered it would leave too little: it is gone. The text holds the figures.
    Dropped(String),
    /// A drain has come to nothing, which is to be kept over a restart.
    Emptied,
    /// It is gone. It may never have begun, when its whole time went by while the node was down.
    Ended,
    /// Its time came, but it would have left too little: it is gone. The text holds the figures.
    Refused(String),
}

impl Default for Book {
    fn default() -> Book {
        Book { next: 1, kept: vec![] }
    }
}

impl Book {
    /// Takes an order. Refused, nothing changes.
    ///
    /// The guard takes an immediate order by what the probes say now; of one to come it counts only what other orders
    /// will hold at its beginning, and asks again when that is there ([`Book::expire`]).
    pub fn give(&mut self, draft: Draft, facts: &Facts, now: Timestamp) -> Result<Given, Refusal> {
        let window = bounds::check(&draft, now)?;
        let zone = draft.zone.as_deref().map(bounds::zone_name);
        let order = Order {
            id: self.next,
            subject: draft.subject,
            zone,
            action: draft.action,
            given: now,
            from: window.from,
            until: window.until,
            reason: draft.reason,
            author: draft.author,
            anyway: draft.anyway,
        };
        known(&order, facts)?;
        let (replaced, staying): (Vec<Kept>, Vec<Kept>) =
            self.kept.iter().cloned().partition(|kept| kept.gives_way_to(&order, &window));
        if staying.len() >= MOST_ORDERS {
            return Err(Refusal::Full(format!(
                "{MOST_ORDERS} orders are in force or to come, as many as are kept: lift some first"
            )));
        }
        let before = wholly(holding(&self.kept, &window, now).into_iter().map(|kept| &kept.order));
        let after = holding(&staying, &window, now).into_iter().map(|kept| &kept.order).chain([&order]);
        guard::check(facts, &order, &before, &wholly(after), window.to_come).map_err(Refusal::TooLittle)?;

        let start = self.left_before(&order, facts, now);
        self.next = self.next.saturating_add(1);
        let (begun, place) = if window.to_come { (None, 0) } else { (Some(now), self.next_place()) };
        self.kept = staying;
        self.follow(now);
        self.kept.push(Kept { order: order.clone(), begun, place, start, least: None });
        Ok(Given { order, replaced: replaced.into_iter().map(|kept| kept.order).collect() })
    }

    /// Ends orders before their time, and those that were covered by them and would leave too little.
    pub fn lift(&mut self, what: &Lift, facts: &Facts) -> Result<Lifted, Refusal> {
        let ids = match what {
            Lift::Id(id) if self.kept.iter().any(|kept| kept.order.id == *id) => BTreeSet::from([*id]),
            Lift::Id(id) => return Err(Refusal::Unknown(format!("no order {id} is in force or to come"))),
            Lift::Drains { subject, zone } => self.about(subject, zone.as_deref(), true)?,
            Lift::Forces { subject, zone } => self.about(subject, zone.as_deref(), false)?,
        };
        let gone = self.take(|kept| ids.contains(&kept.order.id));
        let dropped = self.drop_uncovered(&gone, facts);
        Ok(Lifted { orders: gone.into_iter().map(|kept| kept.order).collect(), dropped })
    }

    /// Ends what has come to its end, then begins what has come to its beginning. To be called when [`Book::due`] is
    /// there, and once after a start. The guard judges each beginning, and each order that an end uncovers, unless it was
    /// given `anyway`.
    pub fn expire(&mut self, facts: &Facts, now: Timestamp) -> Vec<(Order, Turn)> {
        let over = self.take(|kept| kept.order.until.is_some_and(|until| until <= now));
        let mut turns: Vec<(Order, Turn)> = over.iter().map(|kept| (kept.order.clone(), Turn::Ended)).collect();
        let dropped = self.drop_uncovered(&over, facts);
        turns.extend(dropped.into_iter().map(|(order, text)| (order, Turn::Dropped(text))));

        let ripe = self.kept.iter().filter(|kept| kept.begun.is_none() && kept.order.from <= now);
        let ripe: BTreeSet<(Timestamp, u64)> = ripe.map(|kept| (kept.order.from, kept.order.id)).collect();
        for (_, id) in ripe {
            self.begin(id, facts, now, &mut turns);
        }
        for kept in &mut self.kept {
            if kept.empty_at().is_some_and(|at| at <= now) {
                kept.least = Some(0.0);
                turns.push((kept.order.clone(), Turn::Emptied));
            }
        }
        turns
    }

    /// Begins an order to come, if the guard lets it; it takes the place of those of its kind.
    fn begin(&mut self, id: u64, facts: &Facts, now: Timestamp, turns: &mut Vec<(Order, Turn)>) {
        let Some(position) = self.kept.iter().position(|kept| kept.order.id == id) else { return };
        let order = self.kept[position].order.clone();
        let gives_way = |kept: &Kept| kept.begun.is_some() && kept.order.has_place_of(&order);
        let before = begun(&self.kept);
        let after = before.iter().filter(|kept| !gives_way(kept)).map(|kept| &kept.order).chain([&order]);
        let judged = guard::check(facts, &order, &wholly(before.iter().map(|kept| &kept.order)), &wholly(after), false);
        if let Err(text) = judged {
            self.kept.remove(position);
            turns.push((order, Turn::Refused(text)));
            return;
        }
        let (start, place) = (self.left_before(&order, facts, now), self.next_place());
        let kept = &mut self.kept[position];
        (kept.begun, kept.place, kept.start) = (Some(now), place, start);
        let replaced = self.take(|kept| kept.order.id != id && gives_way(kept));
        turns.extend(replaced.into_iter().map(|kept| (kept.order, Turn::Replaced(id))));
        turns.push((order, Turn::Began));
    }

    /// Drops what was covered by orders that are gone now and would leave too little; gives those with the reason.
    fn drop_uncovered(&mut self, gone: &[Kept], facts: &Facts) -> Vec<(Order, String)> {
        let dropped = cover::too_much(&begun(&self.kept), &begun(gone), facts);
        let gone = self.take(|kept| dropped.contains_key(&kept.order.id));
        gone.into_iter().map(|kept| (dropped[&kept.order.id].clone(), kept.order)).map(|(text, o)| (o, text)).collect()
    }

    /// What is left of the share that an order that begins is to take away: in one zone the least that other drains leave
    /// there, so that no traffic comes back when they end. Over several zones the most of theirs, so that none loses its
    /// share at once.
    fn left_before(&self, order: &Order, facts: &Facts, now: Timestamp) -> f64 {
        let Subject::Region(region) = &order.subject else { return 1.0 };
        let words = self.words(now);
        let concerned = facts.zones.iter().filter(|zone| zone.is_concerned_by(order));
        let left = concerned.map(|zone| words.region(&zone.name, region).left.unwrap_or(1.0));
        whole_millionths(left.reduce(f64::max).unwrap_or(1.0))
    }

    /// Takes those out for which `gone` holds.
    fn take(&mut self, gone: impl Fn(&Kept) -> bool) -> Vec<Kept> {
        let (gone, staying) = std::mem::take(&mut self.kept).into_iter().partition(|kept| gone(kept));
        self.kept = staying;
        gone
    }

    /// Of an order that begins now.
    fn next_place(&self) -> u64 {
        self.kept.iter().map(|kept| kept.place).max().unwrap_or(0).saturating_add(1)
    }

    /// When [`Book::expire`] has something to do next; may be past.
    pub fn due(&self) -> Option<Timestamp> {
        let ends = self.kept.iter().filter_map(|kept| kept.order.until);
        let beginnings = self.kept.iter().filter(|kept| kept.begun.is_none()).map(|kept| kept.order.from);
        ends.chain(beginnings).chain(self.kept.iter().filter_map(Kept::empty_at)).min()
    }

    /// Notes how far the drains have come, so that a clock that is set back gives nothing back. To be called as often as
    /// the words are asked for.
    pub fn follow(&mut self, now: Timestamp) {
        for kept in &mut self.kept {
            // That nothing is left is for `expire` to note, and to tell.
            if let Some(left) = kept.left(now).filter(|left| *left > 0.0 && *left < kept.start) {
                kept.least = Some(whole_millionths(left));
            }
        }
    }

    /// What holds now.
    pub fn words(&self, now: Timestamp) -> Words<'_> {
        let mut in_force: Vec<&Kept> = self.in_force(now).collect();
        in_force.sort_by_key(|kept| kept.rank());
        Words::of(in_force.into_iter().map(|kept| (&kept.order, kept.left(now).unwrap_or(1.0))))
    }

    /// In force and to come, by id.
    pub fn list(&self) -> Vec<Order> {
        self.kept.iter().map(|kept| kept.order.clone()).collect()
    }

    /// The same for people and the API.
    pub fn status(&self, now: Timestamp) -> Vec<OrderStatus> {
        self.kept.iter().map(|kept| kept.status(now)).collect()
    }

    fn in_force(&self, now: Timestamp) -> impl Iterator<Item = &Kept> {
        let lasts = move |order: &Order| {
            // What a force up covers may be uncovered only once the guard was asked, which `expire` does.
            order.action == Action::ForceUp || order.until.is_none_or(|until| now < until)
        };
        self.kept.iter().filter(move |kept| kept.begun.is_some() && lasts(&kept.order))
    }

    /// The orders of a kind about a subject that a lift ends.
    fn about(&self, subject: &Subject, zone: Option<&str>, drains: bool) -> Result<BTreeSet<u64>, Refusal> {
        let zone = zone.map(bounds::zone_name);
        let of_kind = |kept: &&Kept| {
            kept.order.subject == *subject && matches!(kept.order.action, Action::Drain { .. }) == drains
        };
        let there = |kept: &&Kept| zone.is_none() || kept.order.zone == zone;
        let (begun, to_come): (Vec<&Kept>, Vec<&Kept>) =
            self.kept.iter().filter(of_kind).filter(there).partition(|kept| kept.begun.is_some());
        let which = if begun.is_empty() { to_come } else { begun };
        if which.is_empty() {
            let kind = if drains { "drained" } else { "forced" };
            let elsewhere = self.kept.iter().find(of_kind);
            let text = match (&zone, elsewhere) {
                (Some(zone), Some(kept)) => {
                    let place = kept.order.zone.as_deref().unwrap_or("every zone");
                    let id = kept.order.id;
                    format!("{subject} is not {kind} in {zone} alone; order {id} is about {place}: lift that")
                }
                _ => format!("{subject} is not {kind}, and is not to be"),
            };
            return Err(Refusal::Unknown(text));
        }
        Ok(which.into_iter().map(|kept| kept.order.id).collect())
    }
}

impl Kept {
    fn gives_way_to(&self, order: &Order, window: &Window) -> bool {
        self.order.has_place_of(order)
            && self.begun.is_none() == window.to_come
            && window.overlaps(self.order.from, self.order.until)
    }

    /// Sorts by when they began; those to come after those that have, by when they will.
    pub fn rank(&self) -> (bool, u64, Timestamp, u64) {
        (self.begun.is_none(), self.place, self.begun.unwrap_or(self.order.from), self.order.id)
    }

    /// Of a drain that has begun: the share that is left.
    fn left(&self, now: Timestamp) -> Option<f64> {
        let Action::Drain { over } = self.order.action else { return None };
        let gone = now.duration_since(self.begun?).as_secs_f64();
        if over.is_zero() {
            return Some(0.0);
        }
        let left = self.start * (1.0 - (gone / over.as_secs_f64()).clamp(0.0, 1.0));
        Some(left.min(self.least.unwrap_or(1.0)))
    }

    /// When nothing is left of a drain that has begun. `None`: it is known to be so.
    fn empty_at(&self) -> Option<Timestamp> {
        let Action::Drain { over } = self.order.action else { return None };
        let is_over = over.is_zero() || self.start <= 0.0 || self.least.is_some_and(|least| least <= 0.0);
        self.begun?.checked_add(over).ok().filter(|_| !is_over)
    }

    fn status(&self, now: Timestamp) -> OrderStatus {
        let order = &self.order;
        let left = self.left(now);
        let state = match (self.begun, left) {
            (None, _) => "to come",
            (Some(_), Some(left)) if left > 0.0 => "draining",
            (Some(_), _) => "in force",
        };
        OrderStatus {
            id: order.id,
            action: order.action.word().to_owned(),
            subject: order.subject.to_string(),
            zone: order.zone.as_deref().map(str::to_owned),
            state: state.to_owned(),
            from: seconds(order.from),
            until: order.until.map(seconds),
            over_s: match order.action {
                Action::Drain { over } => Some(over.as_secs_f64()),
                Action::ForceUp | Action::ForceDown => None,
            },
            reason: order.reason.clone(),
            author: order.author.clone(),
            left,
        }
    }
}

/// Those that have begun, in the order in which they did.
fn begun(kept: &[Kept]) -> Vec<&Kept> {
    let mut begun: Vec<&Kept> = kept.iter().filter(|kept| kept.begun.is_some()).collect();
    begun.sort_by_key(|kept| kept.rank());
    begun
}

/// Those that hold when the window begins, in the order in which they began or will have begun. For a window that begins
/// now, what is to come does not count.
fn holding<'k>(kept: &'k [Kept], window: &Window, now: Timestamp) -> Vec<&'k Kept> {
    let begins = |kept: &&Kept| kept.begun.is_some() || (window.to_come && kept.order.from <= window.from);
    let mut holding: Vec<&Kept> = kept.iter().filter(begins).collect();
    holding.sort_by_key(|kept| kept.rank());
    if window.to_come {
        // One that will begin takes the place of an older one, which is not there again when it ends.
        let slot = |order: &'k Order| (&order.subject, &order.zone, matches!(order.action, Action::Drain { .. }));
        let last: HashMap<_, u64> = holding.iter().map(|kept| (slot(&kept.order), kept.order.id)).collect();
        holding.retain(|kept| last[&slot(&kept.order)] == kept.order.id);
    }
    holding.retain(|kept| kept.order.until.is_none_or(|until| window.from.max(now) < until));
    holding
}

/// What orders say once their drains have come to nothing.
pub(super) fn wholly<'o>(orders: impl IntoIterator<Item = &'o Order>) -> Words<'o> {
    Words::of(orders.into_iter().map(|order| (order, 0.0)))
}

/// A share that is the same again after it was written as a decimal; never more than the one given.
fn whole_millionths(share: f64) -> f64 {
    (share * 1e6).floor() / 1e6
}

fn is_zero(place: &u64) -> bool {
    *place == 0
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

/// Whether there is what the order is about.
fn known(order: &Order, facts: &Facts) -> Result<(), Refusal> {
    let zones = || facts.zones.iter().filter(|zone| order.zone.as_ref().is_none_or(|only| *only == zone.name));
    if let Some(zone) = &order.zone
        && zones().next().is_none()
    {
        let meant = nearest(zone, facts.zones.iter().map(|zone| &*zone.name));
        return Err(unknown(format!("no zone {zone} is served here"), meant));
    }
    if zones().any(|zone| zone.has(&order.subject)) {
        return Ok(());
    }
    let place = order.zone.as_ref().map_or_else(|| "no zone".to_owned(), |zone| format!("{zone} does not"));
    let has = if order.zone.is_some() { "have" } else { "has" };
    Err(match &order.subject {
        Subject::Region(name) => {
            let names = zones().flat_map(|zone| &zone.regions).map(|region| &*region.name);
            unknown(format!("{place} {has} a region {name}"), nearest(name, names))
        }
        Subject::Server(address) => unknown(format!("{place} {has} a server {address}"), None),
    })
}

fn unknown(what: String, meant: Option<&str>) -> Refusal {
    Refusal::Unknown(match meant {
        Some(meant) => format!("{what}; did you mean {meant}?"),
        None => what,
    })
}
