//! What the orders in force say of each region and server at one instant.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Action, Order, Subject};
use crate::snapshot::standing::Forced;

/// What is said of a region.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Word {
    /// By the order that was the last to begin.
    pub forced: Option<Forced>,
    /// `Some` while it is drained: how much of its share is left, 1 to 0. Of several drains, the least.
    pub left: Option<f64>,
}

/// The orders in force, by what they are about.
#[derive(Debug, Default)]
pub struct Words<'o> {
    regions: HashMap<&'o str, Vec<Said<'o>>>,
    servers: HashMap<IpAddr, Vec<Said<'o>>>,
}

#[derive(Clone, Copy, Debug)]
struct Said<'o> {
    /// How many began before it.
    place: usize,
    zone: Option<&'o str>,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Left(f64),
    Forced(Forced),
}

impl<'o> Words<'o> {
    /// Of orders in force, in the order in which they began, each with the share that is left if it is a drain.
    pub(super) fn of(orders: impl IntoIterator<Item = (&'o Order, f64)>) -> Words<'o> {
        let mut words = Words::default();
        for (place, (order, left)) in orders.into_iter().enumerate() {
            let what = match order.action {
                Action::Drain { .. } => What::Left(left),
                Action::ForceUp => What::Forced(Forced::Up),
                Action::ForceDown => What::Forced(Forced::Down),
            };
            let said = Said { place, zone: order.zone.as_deref(), what };
            match &order.subject {
                Subject::Region(name) => words.regions.entry(name).or_default().push(said),
                Subject::Server(address) => words.servers.entry(*address).or_default().push(said),
            }
        }
        words
    }

    /// Nothing is drained or forced anywhere.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty() && self.servers.is_empty()
    }

    /// The zones that are named, some several times.
    pub fn zones(&self) -> impl Iterator<Item = &'o str> {
        self.regions.values().chain(self.servers.values()).flatten().filter_map(|said| said.zone)
    }

    /// Of a region. `zone` is in lower case and without the final dot.
    pub fn region(&self, zone: &str, region: &str) -> Word {
        let said = self.regions.get(region).into_iter().flatten().filter(|said| said.holds_in(zone));
        let mut word = Word::default();
        let mut latest = 0;
        for said in said {
            match said.what {
                What::Left(left) => word.left = Some(word.left.map_or(left, |least: f64| least.min(left))),
                What::Forced(forced) if said.place >= latest => (latest, word.forced) = (said.place, Some(forced)),
                What::Forced(_) => {}
            }
        }
        word
    }

    /// Of a server, by its public addresses: the last to begin of the orders about any of them.
    pub fn server(&self, zone: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Option<Forced> {
        if self.servers.is_empty() {
            return None;
        }
        let said = addresses.into_iter().filter_map(|address| self.servers.get(&address)).flatten();
        let forces = said.filter(|said| said.holds_in(zone)).filter_map(|said| match said.what {
            What::Forced(forced) => Some((said.place, forced)),
            What::Left(_) => None,
        });
        forces.max_by_key(|(place, _)| *place).map(|(_, forced)| forced)
    }
}

impl Said<'_> {
    fn holds_in(&self, zone: &str) -> bool {
        self.zone.is_none_or(|only| only == zone)
    }
}
