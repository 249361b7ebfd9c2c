//! Warnings about capacities: where the loss of one region would be too much for the others, and where only some regions of a
//! stream have one.
//!
//! How many viewers there will be is not known when files are read. What can be said is what holds at a stated load: with
//! all regions as full as they become before it costs anything (70 % of the capacity, where the solver's prices begin),
//! would the others have room for the viewers of one that is lost? They have not where it has more than 30 % of the whole,
//! as 0.7·ΣK > ΣK − K. Who has location databases at hand computes it with geography ([`crate::simulate::headroom`]), as
//! `meridian check` does.

use std::collections::HashMap;

use super::diagnostic::Diagnostic;
use super::settings::{Policy, Region, Stream, Zone};
use crate::steering::solve::curve::FREE;

/// More lost regions than this are not told one by one.
const TOLD: usize = 3;

/// A set of regions that is judged once, whatever zones and streams share it: names and capacities.
type Set<'a> = Vec<(&'a str, Option<u64>)>;

/// Of all zones. Linear in the regions of all streams.
pub fn warnings(zones: &[Zone]) -> Vec<Diagnostic> {
    sets(zones).into_iter().filter_map(|(zone, stream, count)| warning(zone, stream, count - 1)).collect()
}

/// Of these, those about losses, which geography may tell better.
pub fn losses(zones: &[Zone]) -> Vec<Diagnostic> {
    let of = |(zone, stream, count): (&Zone, &Stream, usize)| {
        let all = regions(zone, stream).all(|region| region.capacity.is_some());
        all.then(|| warning(zone, stream, count - 1)).flatten()
    };
    sets(zones).into_iter().filter_map(of).collect()
}

/// A zone and stream for each set of regions, and how many streams have it.
fn sets(zones: &[Zone]) -> Vec<(&Zone, &Stream, usize)> {
    let mut sets: HashMap<Set<'_>, (&Zone, &Stream, usize)> = HashMap::new();
    for zone in zones {
        // Where nothing is steered by load there is nothing to say.
        if zone.regions.iter().all(|region| region.capacity.is_none()) {
            continue;
        }
        for stream in zone.streams.iter().filter(|stream| stream.steering.policy == Policy::Nearest) {
            let sessions = |region: &Region| region.capacity.as_ref().map(|capacity| capacity.sessions.to_bits());
            let mut set: Set<'_> = regions(zone, stream).map(|region| (&*region.name, sessions(region))).collect();
            set.sort_unstable();
            sets.entry(set).or_insert((zone, stream, 0)).2 += 1;
        }
    }
    sets.into_values().collect()
}

fn regions<'a>(zone: &'a Zone, stream: &'a Stream) -> impl Iterator<Item = &'a Region> {
    stream.steering.regions.iter().map(|region| &zone.regions[usize::from(*region)])
}

/// `more`: streams of the same regions.
fn warning(zone: &Zone, stream: &Stream, more: usize) -> Option<Diagnostic> {
    let also = match more {
        0 => String::new(),
        1 => " (and one more stream)".to_owned(),
        more => format!(" (and {more} more streams)"),
    };
    let at = stream.at.clone();
    let without: Vec<&str> =
        regions(zone, stream).filter(|region| region.capacity.is_none()).map(|region| &*region.name).collect();
    let all: Vec<(&str, f64)> =
        regions(zone, stream).filter_map(|region| Some((&*region.name, region.capacity.as_ref()?.sessions))).collect();
    if all.is_empty() {
        return None;
    }
    if !without.is_empty() {
        let what = format!("stream {}{also}: no capacity is known of {}", stream.label, few(&without));
        let rule = "a region without capacity is never full: it gets all that the others cannot take";
        return Some(
            Diagnostic::warning(at, what).rule(rule).help("give every region of the stream a `capacity`, or none"),
        );
    }
    let whole: f64 = all.iter().map(|(_, sessions)| sessions).sum();
    let load = FREE * whole;
    let mut losses: Vec<(&str, f64)> = all.iter().map(|(name, own)| (*name, load / (whole - own))).collect();
    // One region alone has no others.
    losses.retain(|(_, used)| used.is_finite() && *used > 1.0 + 1e-9);
    losses.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    let (worst, used) = *losses.first()?;
    let rest = losses[1..].iter().take(TOLD - 1).map(|(name, used)| format!(", without {name} at {}", percent(*used)));
    let what = format!(
        "stream {}{also}: without {worst} the others would be at {} of their capacity{}",
        stream.label,
        percent(used),
        rest.collect::<String>()
    );
    let own = all.iter().find(|(name, _)| *name == worst).map_or(0.0, |(_, own)| *own);
    let (others, share) = (whole - own, (whole - own) / whole);
    let rule = format!(
        "at {} of all capacity the loss of one region should leave the others room: {:.0} sessions, and they have {others:.0}",
        percent(FREE),
        load.ceil()
    );
    let help = format!(
        "give the others {:.0} sessions more, or keep the load below {} of all capacity; see `meridian simulate --all-n-1`",
        (load - others).ceil(),
        percent(share)
    );
    Some(Diagnostic::warning(at, what).rule(rule).help(help))
}

fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

fn few(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names[..names.len().min(SHOWN)].join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Shared, read_zone};

    fn zone(regions: &[(&str, &str)], rest: &str) -> Zone {
        let mut text = "zone = \"stream.example\"\nns = [\"ns1.example.net\"]\n".to_owned();
        for (number, (name, capacity)) in regions.iter().enumerate() {
            let capacity = if capacity.is_empty() { String::new() } else { format!("capacity = \"{capacity}\"\n") };
            text += &format!("[region.{name}]\nat = [0, {number}]\na = \"192.0.2.{number}\"\n{capacity}");
        }
        read_zone("zone.toml".as_ref(), text + rest, 0, &Shared::default()).zone.expect("a sound zone")
    }

    fn told(zones: &[Zone]) -> Vec<String> {
        warnings(zones).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_loss_that_leaves_too_little_is_told_with_what_is_missing() {
        let zone =
            zone(&[("eu", "5000 sessions"), ("us", "3000 sessions"), ("ap", "2000 sessions")], "[stream.live]\n");
        assert_eq!(
            told(&[zone]),
            ["zone.toml:15:9: warning: stream live: without eu the others would be at 140 % of their capacity\n  \
              at 70 % of all capacity the loss of one region should leave the others room: 7000 sessions, and they have 5000\n  \
              help: give the others 2000 sessions more, or keep the load below 50 % of all capacity; see `meridian simulate --all-n-1`"]
        );
    }

    #[test]
    fn four_equal_regions_can_lose_one_and_three_cannot() {
        let equal = [("a", "40Gbps"), ("b", "40Gbps"), ("c", "40Gbps"), ("d", "40Gbps")];
        assert_eq!(told(&[zone(&equal, "[stream.live]\n")]), [""; 0]);
        let three = told(&[zone(&equal[..3], "[stream.live]\n")]);
        assert!(
            three[0]
                .contains("without a the others would be at 105 % of their capacity, without b at 105 %, without c"),
            "{three:?}"
        );
        assert_eq!(told(&[zone(&equal[..1], "[stream.live]\n")]), [""; 0], "one region has no others");
    }

    #[test]
    fn a_capacity_that_only_some_have_is_told() {
        let zone = zone(&[("eu", "5000 sessions"), ("us", ""), ("ap", "")], "[stream.live]\n");
        let told = told(&[zone]);
        assert!(told.len() == 1 && told[0].contains("no capacity is known of us, ap"), "{told:?}");
    }

    #[test]
    fn where_nothing_is_steered_by_load_nothing_is_said() {
        let two = [("eu", "5000 sessions"), ("us", "")];
        let priority =
            "[stream.live]\npolicy = \"priority\"\n[stream.eu]\nregions = \"eu\"\n[stream.us]\nregions = \"us\"\n";
        assert_eq!(told(&[zone(&two, priority)]), [""; 0]);
        assert_eq!(told(&[zone(&[("eu", ""), ("us", "")], "[stream.live]\n")]), [""; 0]);
    }

    #[test]
    fn many_streams_of_the_same_regions_are_one_warning() {
        let two = [("eu", "5000 sessions"), ("us", "5000 sessions")];
        let zones: Vec<Zone> = (0..500).map(|_| zone(&two, "[stream.live]\n[stream.vod]\n")).collect();
        let told = told(&zones);
        assert!(told.len() == 1 && told[0].contains("(and 999 more streams)"), "{told:?}");
    }
}
