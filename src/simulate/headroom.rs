//! What `check` warns of: regions whose loss would leave the others too small, as [`audit`] has it.

use std::sync::Arc;

use super::audit::{self, Loss};
use super::demand::Basis;
use super::scene::World;
use super::settle::{Settled, Terms};
use crate::config::Diagnostic;
use crate::config::settings::Zone;
use crate::geo::Database;
use crate::steering::cost::Distance;
use crate::steering::solve::curve::FREE;

/// Regions × cells × groups that are looked at, so that a check takes seconds at most.
const MOST: usize = 2_000_000;
/// More regions than this are not told one by one.
const TOLD: usize = 3;

/// Loses each region of the zones that have capacities, at 70 % of all capacity, where prices begin, with viewers spread by
/// the addresses of the databases. `None`: that cannot be computed, for want of places or of time.
pub fn warnings(zones: &[Zone], database: &Arc<Database>) -> Option<Vec<Diagnostic>> {
    let has_capacity = |zone: &&Zone| zone.regions.iter().any(|region| region.capacity.is_some());
    let zones: Vec<Arc<Zone>> = zones.iter().filter(has_capacity).cloned().map(Arc::new).collect();
    if zones.is_empty() {
        return Some(vec![]);
    }
    let world = World::of(vec![zones.clone()], database, &Distance).ok()?;
    let scene = world.scenes.first()?;
    let work = world.regions.len() * scene.facts().len() * scene.snapshot.groups().len();
    if work > MOST || scene.weights().iter().sum::<f64>() <= 0.0 {
        return None;
    }
    let demand = Basis::UNKNOWN.demand(&world, scene, &|_| true);
    let open = vec![false; world.regions.len()];
    let before = Settled::of(&world, scene, &Terms { demand: &demand, closed: &open, before: None });
    let mut losses = audit::all(&world, scene, &before, &demand, &open);
    losses.retain(|loss| loss.side.is_too_much());
    Some(warning(&world, &zones, &losses).into_iter().collect())
}

/// One for all, at the first stream of the worst.
fn warning(world: &World, zones: &[Arc<Zone>], losses: &[Loss]) -> Option<Diagnostic> {
    let worst = losses.first()?;
    let name = world.name(worst.lost);
    // Of several zones' regions of one name, one is followed by its zone.
    let is_it = |region: &str| region == name || name.starts_with(&format!("{region} ("));
    let zone = zones.iter().find(|zone| zone.regions.iter().any(|region| is_it(&region.name)))?;
    let at = zone.streams.first()?.at.clone();
    let small = worst.too_small();
    let mut lacks: Vec<String> = small
        .iter()
        .take(TOLD)
        .map(|small| format!("{} lacks {:.0} sessions", world.name(small.region), small.short.ceil()))
        .collect();
    if small.len() > TOLD {
        lacks.push(format!("{} more are too small", small.len() - TOLD));
    }
    if worst.side.unserved > 0.0 {
        lacks.push(format!("{:.0} sessions have no region left", worst.side.unserved.ceil()));
    }
    let others: Vec<&str> = losses[1..].iter().take(TOLD).map(|loss| world.name(loss.lost)).collect();
    let more = losses.len() - 1 - others.len();
    let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let also =
        if others.is_empty() { String::new() } else { format!("; nor can {}{and_more} be lost", others.join(", ")) };
    let what = format!("{name} cannot be lost: {}{also}", lacks.join(", "));
    let rule = format!(
        "at {:.0} % of all capacity, spread by the databases' addresses, the others should have room for the viewers of any one region",
        FREE * 100.0
    );
    let diagnostic = Diagnostic::warning(at, what).rule(rule);
    Some(match small.first() {
        Some(small) => diagnostic.help(format!(
            "give {} room for {:.0} sessions, or keep the load lower; see `meridian simulate --all-n-1`",
            world.name(small.region),
            small.needed.ceil()
        )),
        None => diagnostic.help("give the stream another region; see `meridian simulate --all-n-1`"),
    })
}
