//! Forces down that are covered by a force up, and what becomes of them when that is gone.
//!
//! A force up of every zone covers an older force down of one zone, one of a region covers those of its servers, and one of
//! a server's addresses those of its others. While covered, a force down takes nothing away, so the guard let it, and
//! whatever came after it, pass. When the force up is gone the guard is asked anew of each that it uncovers, as if it were
//! given now; nobody is there who could be told of a refusal, so what it refuses is dropped.
//!
//! Drains are never covered: a region that is forced up drains all the same.

use std::collections::BTreeMap;

use super::book::{Kept, wholly};
use super::guard::{self, Facts};
use super::{Action, Order, Words};

/// By id: the orders of `staying` that would leave too little now that `gone` are, with the figures. Both are orders that
/// have begun, in the order in which they did.
pub(super) fn too_much(staying: &[&Kept], gone: &[&Kept], facts: &Facts) -> BTreeMap<u64, String> {
    let mut dropped = BTreeMap::new();
    let Some(cover) = gone.iter().find(|kept| kept.order.action == Action::ForceUp) else { return dropped };
    let mut all = [staying, gone].concat();
    all.sort_by_key(|kept| kept.rank());
    let (with, without) = (words(&all), words(staying));
    let is_uncovered = |kept: &&Kept| {
        let order = &kept.order;
        order.action == Action::ForceDown && !order.anyway && facts.uncovers(order, &with, &without)
    };
    let (uncovered, mut holding): (Vec<&Kept>, Vec<&Kept>) = staying.iter().copied().partition(is_uncovered);
    for kept in uncovered {
        let mut after = holding.clone();
        after.push(kept);
        after.sort_by_key(|kept| kept.rank());
        match guard::check(facts, &kept.order, &words(&holding), &words(&after), false) {
            Ok(()) => holding = after,
            Err(text) => {
                dropped.insert(kept.order.id, format!("uncovered by the end of order {}: {text}", cover.order.id));
            }
        }
    }
    dropped
}

fn words<'k>(kept: &[&'k Kept]) -> Words<'k> {
    let orders: Vec<&Order> = kept.iter().map(|kept| &kept.order).collect();
    wholly(orders)
}
