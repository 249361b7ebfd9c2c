//! Costs as they were measured, for who plans.

use std::sync::PoisonError;

use jiff::Timestamp;

use crate::steering::cells::Facts;
use crate::steering::cost::{Costs, Site};
use crate::steering::learn::Region;
use crate::steering::learn::cost::Toward;
use crate::steering::learn::key::Key;
use crate::steering::pick::Mask;

use super::learned::Shared;

/// Seconds after which costs are looked at anew though nothing was told: what was measured ages.
const AGE_S: i64 = 600;
/// Seconds between two looks: prices follow measurements slowly enough.
const PAUSE_S: i64 = 10;

pub struct Measured {
    learned: Shared,
    /// As last seen; `None` before.
    version: Option<u64>,
    looked: Option<Timestamp>,
    aged: Option<Timestamp>,
}

impl Measured {
    pub fn new(learned: Shared) -> Measured {
        Measured { learned, version: None, looked: None, aged: None }
    }

    /// Whether costs may be others than at the last time.
    pub fn look(&mut self, at: Timestamp) -> bool {
        let since = |then: Option<Timestamp>| then.map_or(i64::MAX, |then| at.as_second() - then.as_second());
        if (0..PAUSE_S).contains(&since(self.looked)) {
            return false;
        }
        self.looked = Some(at);
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let version = Some(learned.version());
        let told = std::mem::replace(&mut self.version, version) != version;
        let ages = !learned.is_empty() && !(0..AGE_S).contains(&since(self.aged));
        if told || ages {
            self.aged = Some(at);
        }
        told || ages
    }
}

impl Costs for Measured {
    fn fill(&self, cells: &[Facts], to: &[Site<'_>], out: &mut Vec<f32>) {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.looked.unwrap_or_else(Timestamp::now);
        let to: Vec<Toward<'_>> = to.iter().map(|site| learned.toward(region(site))).collect();
        for facts in cells {
            let key = key(facts);
            out.extend(to.iter().map(|toward| toward.cost(&key, now).ms() as f32));
        }
    }

    /// Where nobody measures, nothing would be learned.
    fn unsure(&self, cells: &[Facts], to: &[Site<'_>], marked: &mut [Mask]) {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        if !learned.has_samples() {
            return marked.fill(0);
        }
        let now = self.looked.unwrap_or_else(Timestamp::now);
        let to: Vec<Toward<'_>> = to.iter().map(|site| learned.toward(region(site))).collect();
        for (facts, marked) in cells.iter().zip(marked) {
            let key = key(facts);
            for (column, toward) in to.iter().enumerate() {
                if *marked >> column & 1 == 1 && !toward.cost(&key, now).is_unsure() {
                    *marked &= !(1 << column);
                }
            }
            if *marked != 0 && !to.iter().any(|toward| toward.cost(&key, now).samples > 0.0) {
                *marked = 0;
            }
        }
    }
}

/// A cell, as measurements know it.
pub fn key(facts: &Facts) -> Key {
    Key { location: facts.location, square: facts.square, country: facts.country, asn: facts.asn }
}

fn region<'a>(site: &Site<'a>) -> Region<'a> {
    Region { zone: Some(site.zone), name: site.name, location: site.location }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::geo::{CountryCode, Point, Square};
    use crate::steering::learn::{Block, Learned, Reporter, Sample};

    fn at(lat: f64, lon: f64) -> Option<Point> {
        Point::new(lat, lon)
    }

    fn cell(lat: f64, lon: f64, asn: Option<u32>) -> Facts {
        let location = at(lat, lon);
        let square = location.map(Square::of);
        Facts { location, country: CountryCode::parse("GB"), square, blocks: 100, asn, group: 0 }
    }

    fn site<'a>(name: &'a str, location: Option<Point>) -> Site<'a> {
        Site { zone: "stream.example", name, location }
    }

    const PARIS: (f64, f64) = (48.86, 2.35);

    /// Costs after viewers of `asn` in London measured Paris.
    fn measured(asn: u32, rtt_ms: f64) -> Measured {
        let mut learned = Learned::new();
        for n in 0..200u32 {
            let sample = Sample {
                client: Key::new(at(51.5, -0.1), CountryCode::parse("GB"), Some(asn)),
                cell: None,
                block: Block::of(std::net::Ipv4Addr::from(n << 8).into()),
                region: Region { zone: None, name: "paris", location: at(PARIS.0, PARIS.1) },
                rtt_ms,
                loss: None,
                reporter: Reporter::of("beacon"),
            };
            learned.feed(&sample, Timestamp::UNIX_EPOCH).unwrap();
        }
        Measured { looked: Some(Timestamp::UNIX_EPOCH), ..Measured::new(Arc::new(Mutex::new(learned))) }
    }

    #[test]
    fn a_networks_cell_costs_what_its_viewers_measured_and_the_cell_of_all_others_learns_of_it() {
        let costs = measured(2856, 60.0);
        let cells = [cell(51.5, -0.1, Some(2856)), cell(51.5, -0.1, None), cell(51.5, -0.1, Some(64500))];
        let mut out = Vec::new();
        costs.fill(&cells, &[site("paris", at(PARIS.0, PARIS.1))], &mut out);
        assert!((out[0] - 60.0).abs() < 2.5 && (out[1] - 60.0).abs() < 2.5, "{out:?}");
        // Another network of the same country: what is left over of its country alone.
        assert!(out[2] < out[0] - 0.5, "{out:?}");
    }

    #[test]
    fn what_is_known_and_where_nobody_measures_is_not_worth_finding_out() {
        let costs = measured(2856, 20.0);
        let to = [site("paris", at(PARIS.0, PARIS.1)), site("brussels", at(50.85, 4.35)), site("lyon", at(45.8, 4.8))];
        let cells = [cell(51.5, -0.1, Some(2856)), cell(20.0, 10.0, None), cell(51.5, -0.1, None)];
        let mut marked = [0b011, 0b110, 0b100];
        costs.unsure(&cells, &to, &mut marked);
        assert_eq!(marked, [0b010, 0, 0b100]);
        let nothing = Measured::new(Arc::default());
        let mut marked = [0b111; 3];
        nothing.unsure(&cells, &to, &mut marked);
        assert_eq!(marked, [0; 3]);
    }
}
