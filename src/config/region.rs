//! `[region.*]`: a place and its servers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::capacity::{self, Amount, Written};
use super::check::CheckSpec;
use super::diagnostic::{At, Diagnostic};
use super::settings::{Family, MAX_REGIONS, Server};
use super::tree::{Item, Table, nearest, quoted_key};
use super::units;

use crate::geo::Point;
use crate::geo::cities::{self, CityError};

/// How long a region takes to have its whole share again after it came back.
pub const RAMP: Duration = Duration::from_secs(300);
const MAX_RAMP: Duration = Duration::from_secs(86_400);

/// A region as written: everything but its check is settled.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionSpec {
    pub name: Arc<str>,
    pub at: At,
    pub location: Option<Point>,
    pub near: Option<Arc<str>>,
    /// True when `near` or `at` stands there, even one that could not be read: then no location is missing.
    pub located: bool,
    pub servers: Arc<[Server]>,
    pub min_up: Option<u32>,
    pub ramp: Duration,
    pub capacity: Option<Written>,
    /// Money for a GB.
    pub cost: Option<f64>,
    pub check: Option<CheckSpec>,
    /// Whether the check has a place of its own; where an overlay without a kind to change is reported.
    pub check_at: Option<At>,
}

impl RegionSpec {
    pub fn declares(&self, family: Family) -> bool {
        self.servers.iter().any(|server| server.address(family).is_some())
    }
}

/// Names are looked up one by one, so there is an end to what is read of too many regions.
const MAX_READ: usize = 4 * MAX_REGIONS;

/// All regions of a `[region]` table. `mend` may know what a wrong key was meant to be.
pub fn read_all(table: Table<'_>, mend: &dyn Fn(&str, &Item<'_>) -> Option<String>) -> Vec<RegionSpec> {
    if let Some((_, extra)) = table.entries().nth(MAX_REGIONS) {
        let fault = extra.key_fault(format!("{} regions, more than {MAX_REGIONS}", table.len()));
        extra.report(fault.rule(format!("a zone has at most {MAX_REGIONS} regions")));
    }
    table.entries().take(MAX_READ).filter_map(|(name, item)| read(name, &item, mend)).collect()
}

pub const NAME_RULE: &str = "a region's name is 1 to 63 printable ASCII characters without blanks";

pub fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
}

fn read(name: &str, item: &Item<'_>, mend: &dyn Fn(&str, &Item<'_>) -> Option<String>) -> Option<RegionSpec> {
    if !is_name(name) {
        item.report(item.key_fault(format!("{name:?} is no name for a region")).rule(NAME_RULE));
    }
    let mut table = item.table()?;
    let near = table.take("near");
    let at = table.take("at");
    let located = near.is_some() || at.is_some();
    if let (Some(near), Some(at)) = (&near, &at) {
        item.report(
            at.key_fault(format!("`{}` beside `{}`", at.path, near.path))
                .rule("a region is in one place")
                .help("remove one of them"),
        );
    }
    let city = near.and_then(|item| city(&item));
    let point = at.and_then(|item| coordinates(&item));
    let (servers, capacities) = servers(&mut table, item);
    let capacity = capacity(&mut table, item, &servers, capacities);
    let cost = table.take("cost").and_then(|item| capacity::cost(&item));
    let min_up = table.take("min_up").and_then(|item| min_up(&item, &servers));
    let ramp = table.take("ramp").and_then(|item| units::read(&item, Duration::ZERO..=MAX_RAMP)).unwrap_or(RAMP);
    let check = table.take("check");
    let check_at = check.as_ref().map(Item::key_at);
    let check = check.and_then(|item| item.table()).map(|table| CheckSpec::read(table, mend));
    table.finish(|key, unknown| {
        unknown
            .is_table()
            .then(|| format!("quote the name: [region.{}]", quoted_key(&format!("{name}.{key}"))))
            .or_else(|| mend(key, unknown))
    });
    Some(RegionSpec {
        name: name.into(),
        at: item.key_at(),
        location: city.as_ref().map(|(point, _)| *point).or(point),
        near: city.map(|(_, near)| near),
        located,
        servers: servers.into(),
        min_up,
        ramp,
        capacity,
        cost,
        check,
        check_at,
    })
}

fn city(item: &Item<'_>) -> Option<(Point, Arc<str>)> {
    let text = item.string()?;
    // Looking for the nearest name costs with the length, and no city has so long a one.
    let found = if text.len() <= 100 { cities::find(text) } else { Err(CityError::Unknown { nearest: Vec::new() }) };
    let fault = match found {
        Ok(city) => return Some((city.location, text.into())),
        Err(CityError::Unknown { nearest }) => {
            let fault = item.fault(format!("`{}` is {text:?}, which is no city we know", item.path));
            match &nearest[..] {
                [] => fault.help("give coordinates instead: at = [51.51, -0.13]"),
                names => fault.help(format!("did you mean {}? Or give coordinates: at = [51.51, -0.13]", list(names))),
            }
        }
        Err(CityError::Ambiguous { choices }) => item
            .fault(format!("`{}` is {text:?}, of which there are several", item.path))
            .help(format!("say which: {}", list(&choices))),
    };
    item.report(fault);
    None
}

/// Up to five of `words`, in quotes.
fn list(words: &[String]) -> String {
    words.iter().take(5).map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

fn coordinates(item: &Item<'_>) -> Option<Point> {
    let help = "write latitude and longitude in degrees: at = [51.51, -0.13]";
    let list = item.array()?;
    let [lat, lon] = &list[..] else {
        item.report(item.fault(format!("`{}` has {} numbers, not 2", item.path, list.len())).help(help));
        return None;
    };
    let (lat, lon) = (lat.number(), lon.number());
    let (lat, lon) = (lat?, lon?);
    let point = Point::new(lat, lon);
    if point.is_none() {
        item.report(
            item.fault(format!("`{}` is [{lat}, {lon}], which is nowhere on the globe", item.path))
                .rule("latitude is -90 to 90, longitude -180 to 180")
                .help(help),
        );
    }
    point
}

fn min_up(item: &Item<'_>, servers: &[Server]) -> Option<u32> {
    if item.as_integer() == Some(0) {
        let fault = item.fault(format!("`{}` is 0: a region without an up server cannot be up", item.path));
        item.report(fault.help("write 1 or more"));
        return None;
    }
    let min_up = item.integer(1..=65_535)? as u32;
    for (family, name) in [(Family::V4, "an A address"), (Family::V6, "an AAAA address")] {
        let count = servers.iter().filter(|server| server.address(family).is_some()).count();
        if count > 0 && (min_up as usize) > count {
            item.report(
                item.fault(format!("`{}` is {min_up}, but only {count} of its servers have {name}", item.path))
                    .rule("the region could never be up for it")
                    .help(format!("write {count} or less")),
            );
            return None;
        }
    }
    Some(min_up)
}

/// The region's own capacity, or those of its servers.
fn capacity(
    table: &mut Table<'_>,
    region: &Item<'_>,
    servers: &[Server],
    capacities: Vec<Option<Amount>>,
) -> Option<Written> {
    let own = table.take("capacity");
    let any = capacities.iter().any(Option::is_some);
    match own {
        Some(own) if any => {
            own.report(
                own.key_fault(format!("`{}` beside the capacities of servers", own.path))
                    .rule("a capacity is written for the region or for each of its servers")
                    .help("remove it: the region has the sum of its servers' capacities"),
            );
            None
        }
        Some(own) => capacity::read(&own).map(Written::Region),
        None if !any => None,
        None => {
            let missing = capacities.iter().position(Option::is_none);
            if let Some(position) = missing {
                region.file.report_missing(
                    region
                        .key_fault(format!("`{}.server` number {} has no capacity", region.path, position + 1))
                        .rule("a capacity is written for all servers of a region or for none")
                        .help("give it one, like capacity = \"10Gbps\""),
                );
                return None;
            }
            // A server that could not be read has left a fault of its own.
            let all: Option<Vec<Amount>> = capacities.into_iter().collect();
            all.filter(|all| all.len() == servers.len()).map(|all| Written::Servers(all.into()))
        }
    }
}

/// The servers, and the capacities written for them.
fn servers(table: &mut Table<'_>, region: &Item<'_>) -> (Vec<Server>, Vec<Option<Amount>>) {
    let (a, aaaa, long) = (table.take("a"), table.take("aaaa"), table.take("server"));
    let mut seen = HashMap::new();
    let (mut servers, mut capacities) = (Vec::new(), Vec::new());
    for item in [&a, &aaaa].into_iter().flatten() {
        for (text, element) in item.strings() {
            let server = Server { a: None, aaaa: None, weight: NonZeroU16::MIN, probe: None };
            let server = if item.path.ends_with(".a") {
                ipv4(text, &element, &mut seen).map(|a| Server { a: Some(a), ..server })
            } else {
                ipv6(text, &element, &mut seen).map(|aaaa| Server { aaaa: Some(aaaa), ..server })
            };
            servers.extend(server);
        }
    }
    if let Some(long) = &long {
        if let Some(short) = a.as_ref().or(aaaa.as_ref()) {
            long.report(
                short
                    .key_fault(format!("`{}` beside `{}`", short.path, long.path))
                    .rule("a region's servers are written in the short form (a, aaaa) or in the long one (server), not both")
                    .help(format!("move the addresses into [[{}]] tables", long.path)),
            );
        }
        if long.is_tables() || long.is_table() {
            for (n, item) in long.one_or_more().into_iter().enumerate() {
                let Some((server, capacity)) = item.table().and_then(|table| server(table, n, &mut seen)) else {
                    continue;
                };
                servers.push(server);
                capacities.push(capacity);
            }
        } else {
            long.report(
                long.fault(format!("`{}` is no list of tables", long.path)).help(format!("write [[{}]]", long.path)),
            );
        }
    }
    let any_written = [&a, &aaaa, &long].into_iter().flatten().any(|item| !item.one_or_more().is_empty());
    if !any_written {
        region.file.report_missing(
            region
                .key_fault(format!("region {} has no server", region.path.trim_start_matches("region.")))
                .help("give addresses: a = [\"192.0.2.11\"], aaaa = [\"2001:db8::11\"]"),
        );
    }
    (servers, capacities)
}

type Seen = HashMap<IpAddr, u32>;

fn server(mut table: Table<'_>, position: usize, seen: &mut Seen) -> Option<(Server, Option<Amount>)> {
    let a = table.take("a");
    let aaaa = table.take("aaaa");
    if a.is_none() && aaaa.is_none() {
        table.file.report_missing(
            Diagnostic::error(table.at(), format!("`{}` number {} has no address", table.path, position + 1))
                .help("give it a = \"192.0.2.11\" or aaaa = \"2001:db8::11\", or both"),
        );
    }
    let weight = table.take("weight").and_then(|item| {
        if item.as_integer() == Some(0) {
            let fault =
                item.fault(format!("`{}` is 0", item.path)).rule("a server's weight is its share of the answers");
            item.report(fault.help("leave the server out, or write 1 or more"));
            return None;
        }
        NonZeroU16::new(item.integer(1..=65_535)? as u16)
    });
    let probe = table.take("probe").and_then(|item| probe(&item));
    let capacity = table.take("capacity").and_then(|item| capacity::read(&item));
    let a = a.and_then(|item| ipv4(item.string()?, &item, seen));
    let aaaa = aaaa.and_then(|item| ipv6(item.string()?, &item, seen));
    table.done();
    let server = Server { a, aaaa, weight: weight.unwrap_or(NonZeroU16::MIN), probe };
    (a.is_some() || aaaa.is_some()).then_some((server, capacity))
}

fn probe(item: &Item<'_>) -> Option<SocketAddr> {
    let text = item.string()?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 && !address.ip().is_unspecified() => Some(address),
        _ => {
            item.report(
                item.fault(format!("`{}` is {text:?}, which is no address with a port", item.path))
                    .help("write it like \"127.0.0.11:8081\" or \"[2001:db8::11]:8081\""),
            );
            None
        }
    }
}

fn ipv4(text: &str, item: &Item<'_>, seen: &mut Seen) -> Option<Ipv4Addr> {
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        let fault = item.fault(format!("`{}` has {text:?}, which is no IPv4 address", item.path));
        item.report(if text.parse::<Ipv6Addr>().is_ok() {
            fault.help("an IPv6 address goes into `aaaa`")
        } else {
            fault
        });
        return None;
    };
    let host = !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast();
    usable(address.into(), host, item, seen).then_some(address)
}

fn ipv6(text: &str, item: &Item<'_>, seen: &mut Seen) -> Option<Ipv6Addr> {
    let Ok(address) = text.parse::<Ipv6Addr>() else {
        let fault = item.fault(format!("`{}` has {text:?}, which is no IPv6 address", item.path));
        item.report(if text.parse::<Ipv4Addr>().is_ok() { fault.help("an IPv4 address goes into `a`") } else { fault });
        return None;
    };
    let host = !address.is_unspecified() && !address.is_multicast() && address.to_ipv4_mapped().is_none();
    usable(address.into(), host, item, seen).then_some(address)
}

fn usable(address: IpAddr, host: bool, item: &Item<'_>, seen: &mut Seen) -> bool {
    if !host {
        item.report(item.fault(format!("`{}` has {address}, which is not the address of one host", item.path)));
        return false;
    }
    if let Some(line) = seen.insert(address, item.at().line) {
        item.report(
            item.fault(format!("`{}` has {address}, which the region already has", item.path))
                .rule("a region names each server once")
                .help(format!("remove one of them; the other is at line {line}")),
        );
        return false;
    }
    true
}

/// Regions by name, of one zone.
pub fn position(regions: &[RegionSpec], name: &str) -> Option<usize> {
    regions.iter().position(|region| &*region.name == name)
}

/// Finds a region, or reports at `at` that there is none of that name. `item` is what names it.
pub fn find(regions: &[RegionSpec], name: &str, at: At, item: &Item<'_>) -> Option<u8> {
    let found = position(regions, name);
    if found.is_none() {
        let fault = Diagnostic::error(at, format!("`{}` names region {name:?}, which there is not", item.path));
        let known = || regions.iter().map(|region| &*region.name);
        // Of a broken file some regions may be missing here, though written.
        item.file.report_missing(match nearest(name, known()) {
            Some(near) => fault.help(format!("did you mean {near:?}?")),
            None if regions.is_empty() => fault.help(format!("add [region.{}]", quoted_key(name))),
            None => fault.help(format!("regions: {}", known().collect::<Vec<_>>().join(", "))),
        });
    }
    // More regions than fit are a fault of their own.
    found.and_then(|position| u8::try_from(position).ok())
}
