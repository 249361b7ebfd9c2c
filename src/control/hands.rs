//! The operator's part of the loop: orders are taken, hold, and come to their time.

use jiff::Timestamp;

use super::notes::{Deed, Job};
use super::orders::{Kept, News};
use super::{Control, now};
use crate::config::settings::Family;
use crate::health::Verdict;
use crate::journal::{Kind, Note};
use crate::orders::book::Turn;
use crate::orders::guard::{Facts, ZoneFacts};
use crate::snapshot::Snapshot;

impl Control {
    /// Begins to write what the first in line wants of the orders.
    pub(super) fn serve_desk(&mut self) {
        while self.desk.is_waiting() {
            let now = Timestamp::now();
            if let Some((author, refusal)) = self.desk.begin(&facts(&self.published.load()), now) {
                self.note_of(Note { author: Some(author), ..Note::new(Kind::OrderRefused, refusal.text()) });
            }
        }
    }

    /// An order was written, so it holds.
    pub(super) fn kept(&mut self, kept: Kept) {
        let (news, answer) = self.desk.take(kept);
        let (now, before) = (now(), self.published.load_full());
        let everywhere = self.regions.all().collect();
        let (after, flips, steps) = self.settle(None, everywhere, now);
        answer.send();
        let mut deeds = vec![];
        let mut plain = vec![];
        match news {
            News::Given(given) => {
                let author = given.order.author.clone();
                let why = format!("order {} took its place", given.order.id);
                let old = given.replaced.into_iter();
                let lifted = |order| (order, Kind::OrderLifted, Some(why.clone()));
                let all = old.map(lifted).chain([(given.order, Kind::OrderGiven, None)]);
                deeds.extend(all.map(|(order, kind, why)| Deed { kind, order, author: author.clone(), why }));
            }
            News::Lifted { lifted, author, unkept } => {
                let deed = |kind, order, why| Deed { kind, order, author: author.clone(), why };
                deeds.extend(lifted.orders.into_iter().map(|order| deed(Kind::OrderLifted, order, None)));
                let dropped = lifted.dropped.into_iter();
                deeds.extend(dropped.map(|(order, why)| deed(Kind::OrderRefused, order, Some(why))));
                plain.extend(unkept.map(|error| {
                    let what = "orders were lifted, but the state directory cannot be written: after a restart they hold again";
                    Note::new(Kind::Alarm, format!("{what}: {error}"))
                }));
            }
            News::Refused | News::Nothing => {}
        }
        self.scribe.note(Job { deeds, plain, flips, steps, ..Job::new(before, after) });
        self.memory.changed(now);
        self.serve_desk();
    }

    /// Begins and ends orders whose time has come.
    pub(super) fn turn_orders(&mut self, at: Timestamp) -> Vec<Deed> {
        let snapshot = self.published.load_full();
        let turns = self.desk.turn(|| facts(&snapshot), at);
        let deeds = turns.into_iter().filter_map(|(order, turn)| {
            let (kind, why) = match turn {
                Turn::Began => (Kind::OrderBegan, None),
                Turn::Ended => (Kind::OrderExpired, None),
                Turn::Replaced(by) => (Kind::OrderLifted, Some(format!("order {by} took its place"))),
                // Told as a step of the region.
                Turn::Emptied => return None,
                Turn::Refused(why) | Turn::Dropped(why) => (Kind::OrderRefused, Some(why)),
            };
            Some(Deed { kind, author: order.author.clone(), order, why })
        });
        deeds.collect()
    }
}

/// What the guard of orders has to know: what the probes alone say.
fn facts(snapshot: &Snapshot) -> Facts {
    let zones = snapshot.zones().iter().enumerate().map(|(z, served)| {
        let (fleet, _) = snapshot.fleet(z as u32);
        let at = snapshot.fleet_of(z as u32);
        let of_use = Family::BOTH.map(|family| snapshot.of_use(at, family));
        ZoneFacts::of(&served.zone, |region, server, family| {
            if of_use[family as usize] >> region & 1 == 0 {
                return false;
            }
            let members = fleet.members(region as u8, family);
            let member = members.binary_search_by_key(&server, |member| member.server).ok().map(|at| &members[at]);
            member.and_then(|member| member.verdict(snapshot.verdicts())).is_none_or(Verdict::is_up)
        })
    });
    Facts { zones: zones.collect() }
}
