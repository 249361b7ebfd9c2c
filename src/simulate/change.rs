//! One region more.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::config::settings::{Capacity, MAX_REGIONS, Policy, Region, Server, Zone};
use crate::config::{NAME_RULE, NoCapacity, capacity_of, is_capacity, is_name};
use crate::geo::Point;
use crate::geo::cities::{self, CityError};

/// What is written `NAME=near:City,capacity`.
#[derive(Clone, Debug, PartialEq)]
pub struct Added {
    pub name: String,
    pub near: String,
    pub location: Point,
    /// As written; `None`: no end is known.
    pub capacity: Option<String>,
}

const FORM: &str = "write it like sa=near:Sao Paulo,20000 sessions";

impl Added {
    /// Errors are in words.
    pub fn parse(text: &str) -> Result<Added, String> {
        let (name, rest) = text.split_once('=').ok_or_else(|| format!("{text:?} has no `=`; {FORM}"))?;
        if !is_name(name) {
            return Err(format!("{name:?} is no name for a region: {NAME_RULE}"));
        }
        let place = rest.strip_prefix("near:").ok_or_else(|| format!("{rest:?} has no `near:`; {FORM}"))?;
        // A city may have a comma of its own, as in "San Jose, US".
        let (near, capacity) = match place.rsplit_once(',') {
            Some((near, last)) if last.trim_start().starts_with(|c: char| c.is_ascii_digit()) => {
                (near, Some(last.trim()))
            }
            _ => (place, None),
        };
        if let Some(capacity) = capacity.filter(|capacity| !is_capacity(capacity)) {
            return Err(no_capacity(capacity));
        }
        let near = near.trim();
        // Looking for the nearest name costs with the length, and no city has so long a one.
        let city = if near.len() <= 100 { cities::find(near) } else { Err(CityError::Unknown { nearest: vec![] }) };
        let location = match city {
            Ok(city) => city.location,
            Err(CityError::Unknown { nearest }) if nearest.is_empty() => {
                return Err(format!("{near:?} is no city we know"));
            }
            Err(CityError::Unknown { nearest }) => {
                return Err(format!("{near:?} is no city we know; did you mean {}?", some(&nearest)));
            }
            Err(CityError::Ambiguous { choices }) => {
                return Err(format!("there are several {near:?}; say which: {}", some(&choices)));
            }
        };
        let capacity = capacity.map(str::to_owned);
        Ok(Added { name: name.to_owned(), near: near.to_owned(), location, capacity })
    }
}

fn no_capacity(text: &str) -> String {
    format!("{text:?} is no capacity; write it like \"40Gbps\" or \"20000 sessions\"")
}

fn some(words: &[String]) -> String {
    words.iter().take(5).map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

/// The zone with these regions more. Streams of policy `nearest` may send viewers there, those of `priority` do when all
/// others are gone; `weighted` streams and rules do not know of them. Errors are in words.
pub fn with(zone: &Zone, added: &[Added]) -> Result<Zone, String> {
    let mut zone = zone.clone();
    for (number, one) in (1u8..).zip(added) {
        if zone.regions.iter().any(|region| *region.name == *one.name) {
            let what = format!("zone {} has a region {:?} already", zone.label(), one.name);
            return Err(format!("{what}; give the new one another name"));
        }
        if zone.regions.len() >= MAX_REGIONS {
            return Err(format!("zone {} has {MAX_REGIONS} regions, and no zone can have more", zone.name));
        }
        let capacity = one.capacity.as_ref().map(|text| (text, capacity_of(text, &zone)));
        let sessions = match capacity {
            None => None,
            Some((_, Ok((sessions, units)))) => {
                zone.units = units;
                Some(sessions)
            }
            Some((text, Err(NoCapacity::Form))) => return Err(no_capacity(text)),
            Some((_, Err(NoCapacity::OtherUnit(why)))) => return Err(why),
        };
        let position = zone.regions.len() as u8;
        zone.regions.push(Region {
            name: one.name.as_str().into(),
            location: Some(one.location),
            near: Some(one.near.as_str().into()),
            // The same in all zones, so that they share it; and nobody's.
            servers: Arc::new([Server {
                a: Some(Ipv4Addr::new(0, 0, 0, number)),
                aaaa: None,
                weight: NonZeroU16::MIN,
                probe: None,
            }]),
            min_up: None,
            ramp: Duration::ZERO,
            capacity: sessions.map(|sessions| Capacity { sessions, by_server: None }),
            cost: None,
            check: None,
        });
        for steering in zone.streams.iter_mut().map(|stream| &mut stream.steering) {
            if matches!(steering.policy, Policy::Nearest | Policy::Priority) {
                steering.regions.push(position);
                steering.bias.push(0);
            }
        }
    }
    Ok(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_read_with_a_city_that_has_a_comma_and_with_or_without_capacity() {
        let read = |text| Added::parse(text).map(|added| (added.name, added.near, added.capacity)).unwrap();
        let of = |name: &str, near: &str, capacity: Option<&str>| {
            (name.to_owned(), near.to_owned(), capacity.map(str::to_owned))
        };
        assert_eq!(read("sa=near:Sao Paulo,20000 sessions"), of("sa", "Sao Paulo", Some("20000 sessions")));
        assert_eq!(read("us=near:San Jose, US,40Gbps"), of("us", "San Jose, US", Some("40Gbps")));
        assert_eq!(read("us=near:San Jose, US"), of("us", "San Jose, US", None));
    }

    #[test]
    fn what_is_no_region_is_told_with_the_nearest_that_is() {
        let told = |text: &str| Added::parse(text).unwrap_err();
        let misspelt = told("uk=near:Londom,1 session");
        assert!(misspelt.contains("did you mean \"London\""), "{misspelt}");
        assert!(told("sa=near:Paris,20000 viewers").contains("is no capacity"));
        assert!(told("sa=Paris").contains("no `near:`") && told("sa").contains("no `=`"));
        // As in zone files.
        for name in ["a b", "é", "", &"x".repeat(64)] {
            assert!(told(&format!("{name}=near:Paris")).contains("is no name for a region"), "{name}");
        }
        assert!(told(&format!("a=near:{}", "x".repeat(100_000))).contains("no city we know"));
    }
}
