//! Predicted round-trip time from distance: the prior, before anything was measured.

use crate::geo::Point;

use super::cells::Facts;
use super::pick::Mask;

/// What the access network and the server take, whatever the distance, ms.
pub(super) const BASE_MS: f64 = 8.0;
/// Fibre, detours included: twice the way at two thirds of the speed of light, twice as long as the crow flies.
pub(super) const MS_PER_KM: f64 = 0.020;

/// ms of round trip between two points, without the operator's bias.
pub fn predicted_ms(client: Point, region: Point) -> f64 {
    ms_over(client.distance_km(region))
}

/// ms of round trip over a distance.
pub fn ms_over(km: f64) -> f64 {
    BASE_MS + MS_PER_KM * km
}

/// A region, as far as costs depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Of a zone that has it: in lower case, without the final dot.
    pub zone: &'a str,
    pub name: &'a str,
    pub location: Option<Point>,
}

/// What it costs the viewers of a cell to be served by a region, ms.
pub trait Costs {
    /// Appends the cost of each of `to` for each cell, cell after cell, without the operator's bias.
    fn fill(&self, cells: &[Facts], to: &[Site<'_>], out: &mut Vec<f32>);

    /// Of the regions marked for each cell, leaves those that are worth a few answers to find out more about.
    fn unsure(&self, cells: &[Facts], to: &[Site<'_>], marked: &mut [Mask]) {
        let _ = (cells, to);
        marked.fill(0);
    }
}

/// What one region more costs than the one written before it, for viewers whom no database places: they keep the order written. ms
const ORDER_MS: f32 = 0.01;

/// By distance alone: nothing was measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Distance;

impl Costs for Distance {
    fn fill(&self, cells: &[Facts], to: &[Site<'_>], out: &mut Vec<f32>) {
        for cell in cells {
            out.extend(to.iter().zip(0u16..).map(|(site, position)| match (cell.location, site.location) {
                (Some(client), Some(region)) => predicted_ms(client, region) as f32,
                _ => BASE_MS as f32 + ORDER_MS * f32::from(position),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_kilometres_cost_twenty_milliseconds_more() {
        let here = Point::new(0.0, 0.0).unwrap();
        let there = Point::new(0.0, 1000.0 / 111.195).unwrap();
        assert!((predicted_ms(here, here) - 8.0).abs() < 1e-9);
        assert!((predicted_ms(here, there) - 28.0).abs() < 0.01);
    }
}
