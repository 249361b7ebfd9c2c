//! Refuses an order that would leave too few regions to send clients to.
//!
//! Two rules, each of every zone that the order concerns. Of its regions, `min_regions` must stay able to take clients:
//! up for A or AAAA, neither drained nor forced down. And no steered name may lose the last region that can take its
//! clients of an address type. An order that takes nothing away is never refused: a region that is down already may be
//! drained, whatever is left.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Action, Order, Subject, Words};
use crate::config::settings::{Family, Zone};
use crate::snapshot::standing::Forced;

/// Shortfalls that a refusal tells; of more it gives the number.
const TOLD: usize = 3;

/// The world as far as the guard has to know it: what there is, and what the probes say of it. Orders are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub zones: Vec<ZoneFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFacts {
    /// Lower case, without the final dot.
    pub name: Arc<str>,
    pub min_regions: u8,
    pub regions: Vec<RegionFacts>,
    pub streams: Vec<StreamFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionFacts {
    pub name: Arc<str>,
    /// As [`Region::min_up`](crate::config::settings::Region::min_up).
    pub min_up: Option<u32>,
    pub servers: Vec<ServerFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Public addresses, each with what the probes say: whether it counts as up.
    pub addresses: Vec<(IpAddr, bool)>,
}

/// A steered name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFacts {
    pub label: Arc<str>,
    /// Positions in the zone's regions.
    pub regions: Vec<u8>,
}

/// Whether a region can take clients, by family.
type Able = [bool; 2];

impl Facts {
    /// Whether a force down that had no effect in some zone has one there now.
    pub(super) fn uncovers(&self, order: &Order, before: &Words<'_>, after: &Words<'_>) -> bool {
        let mut concerned = self.zones.iter().filter(|zone| zone.is_concerned_by(order));
        concerned.any(|zone| !zone.is_held_down(order, before) && zone.is_held_down(order, after))
    }
}

impl ZoneFacts {
    /// Of a zone; `up` tells by region, server and family whether an address counts as up by the probes alone.
    ///
    /// Of a steered name its own regions count: when all those of a rule are down, its clients go to them.
    pub fn of(zone: &Zone, up: impl Fn(usize, usize, Family) -> bool) -> ZoneFacts {
        let regions = zone.regions.iter().enumerate().map(|(r, region)| RegionFacts {
            name: Arc::clone(&region.name),
            min_up: region.min_up,
            servers: (region.servers.iter().enumerate())
                .map(|(s, server)| ServerFacts {
                    addresses: (Family::BOTH.into_iter())
                        .filter_map(|family| Some((server.address(family)?, up(r, s, family))))
                        .collect(),
                })
                .collect(),
        });
        let streams = zone
            .streams
            .iter()
            .map(|stream| StreamFacts { label: Arc::clone(&stream.label), regions: stream.steering.regions.clone() });
        ZoneFacts {
            name: zone.label(),
            min_regions: zone.min_regions,
            regions: regions.collect(),
            streams: streams.collect(),
        }
    }

    /// Whether the subject is a region or server of it.
    pub(super) fn has(&self, subject: &Subject) -> bool {
        self.regions.iter().any(|region| match subject {
            Subject::Region(name) => region.name == *name,
            Subject::Server(address) => {
                region.servers.iter().flat_map(|server| &server.addresses).any(|(known, _)| known == address)
            }
        })
    }

    /// Whether the order holds in it and is about a region or server of it.
    pub(super) fn is_concerned_by(&self, order: &Order) -> bool {
        order.zone.as_ref().is_none_or(|only| *only == self.name) && self.has(&order.subject)
    }

    /// Whether a force down about a region or server of it is not covered by a force up.
    fn is_held_down(&self, order: &Order, words: &Words<'_>) -> bool {
        let forced = |region: &RegionFacts| words.region(&self.name, &region.name).forced;
        match &order.subject {
            Subject::Region(name) => {
                self.regions.iter().any(|region| region.name == *name && forced(region) == Some(Forced::Down))
            }
            Subject::Server(address) => self.regions.iter().any(|region| {
                let is_down = |server: &ServerFacts| {
                    let addresses = || server.addresses.iter().map(|(known, _)| *known);
                    addresses().any(|known| known == *address)
                        && words.server(&self.name, addresses()) == Some(Forced::Down)
                };
                forced(region) != Some(Forced::Up) && region.servers.iter().any(is_down)
            }),
        }
    }

    /// By region: whether it can take clients. `presumed`: the probes are not asked, every server counts as up.
    fn able(&self, words: &Words<'_>, presumed: bool) -> Vec<Able> {
        self.regions.iter().map(|region| region.able(&self.name, words, presumed)).collect()
    }

    /// What is amiss with `after` that was not with `before`.
    fn shortfalls(&self, before: &[Able], after: &[Able], deed: &str) -> Vec<String> {
        let open = |able: &[Able]| able.iter().filter(|able| able.contains(&true)).count();
        let (had, left) = (open(before), open(after));
        if left < had && left < usize::from(self.min_regions) {
            let names: Vec<&str> = self
                .regions
                .iter()
                .zip(after)
                .filter(|(_, able)| able.contains(&true))
                .map(|(region, _)| &*region.name)
                .collect();
            let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
            let are = if self.min_regions == 1 { "is" } else { "are" };
            return vec![format!(
                "{deed} would leave {left} of {} regions of {} able to take clients{names}; at least {} {are} asked for \
                 by `min_regions`.",
                self.regions.len(),
                self.name,
                self.min_regions,
            )];
        }
        let mut shortfalls = vec![];
        for stream in &self.streams {
            for (family, rtype) in [(Family::V4, "A"), (Family::V6, "AAAA")] {
                let any = |able: &[Able]| {
                    stream.regions.iter().any(|r| able.get(usize::from(*r)).is_some_and(|able| able[family as usize]))
                };
                if any(before) && !any(after) {
                    let regions = stream.regions.iter().filter_map(|r| self.regions.get(usize::from(*r)));
                    let regions: Vec<&str> = regions.map(|region| &*region.name).collect();
                    shortfalls.push(format!(
                        "{deed} would leave {} of {} without a region able to take clients that ask for {rtype} (of {}).",
                        stream.label,
                        self.name,
                        regions.join(", "),
                    ));
                }
            }
        }
        shortfalls
    }
}

impl RegionFacts {
    fn able(&self, zone: &str, words: &Words<'_>, presumed: bool) -> Able {
        let word = words.region(zone, &self.name);
        let mut counts = [(0, 0); 2];
        for server in &self.servers {
            let forced = words.server(zone, server.addresses.iter().map(|(address, _)| *address));
            for (address, seen_up) in &server.addresses {
                let (declared, up) = &mut counts[usize::from(address.is_ipv6())];
                *declared += 1;
                *up += usize::from(forced.map_or(presumed || *seen_up, |forced| forced == Forced::Up));
            }
        }
        counts.map(|(declared, up)| {
            let half = usize::div_ceil(declared, 2);
            let least = self.min_up.map_or(half, |least| (least as usize).min(declared)).max(1);
            let well = word.forced.map_or(up >= least, |forced| forced == Forced::Up);
            declared > 0 && well && word.left.is_none()
        })
    }
}

/// Why `order` may not come into force, with figures. `before`: what holds without it; `after`: with it and without
/// those that it replaces. `presumed`: it is about a time to come, of which the probes say nothing.
pub(super) fn check(
    facts: &Facts,
    order: &Order,
    before: &Words<'_>,
    after: &Words<'_>,
    presumed: bool,
) -> Result<(), String> {
    if order.anyway || order.action == Action::ForceUp {
        return Ok(());
    }
    let deed = order.deed();
    let concerned = facts.zones.iter().filter(|zone| zone.is_concerned_by(order));
    let shortfalls: Vec<String> = concerned
        .flat_map(|zone| zone.shortfalls(&zone.able(before, presumed), &zone.able(after, presumed), &deed))
        .collect();
    if shortfalls.is_empty() {
        return Ok(());
    }
    let mut text = shortfalls[..shortfalls.len().min(TOLD)].join(" ");
    if shortfalls.len() > TOLD {
        text.push_str(&format!(" So it is in {} more places.", shortfalls.len() - TOLD));
    }
    text.push_str(" Give --anyway to do it all the same.");
    Err(text)
}
