//! Maps of who is served where, before and after, and how full the regions are: SVG.

use std::collections::BTreeMap;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::Side;
use super::scene::{RegionKey, Scene, World};
use super::settle::Settled;
use crate::geo::Square;

/// Pixels.
const WIDTH: u32 = 1200;
const TITLE: u32 = 30;
const MAP: u32 = 330;
const BARS: u32 = 320;

/// South of it nobody lives; degrees.
const SOUTH: i32 = -60;

const FONT: &str = "sans-serif";
/// Height of the names on a map, pixels.
const TEXT: i32 = 14;

/// One panel.
pub struct Panel<'a> {
    pub title: String,
    pub scene: &'a Scene,
    pub settled: &'a Settled,
    pub side: &'a Side,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The picture as SVG text. Texts are texts there, so no font is needed to draw it. Errors are the drawing library's own;
/// drawing into memory gives none.
pub fn draw(world: &World, panels: &[Panel<'_>]) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, TITLE + MAP + BARS)).into_drawing_area();
        paint(&root, world, panels).map_err(|error| error.to_string())?;
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

type Painted<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn paint<'a>(root: &Area<'a>, world: &World, panels: &[Panel<'_>]) -> Painted<'a> {
    root.fill(&WHITE)?;
    let (maps, bars) = root.split_vertically(TITLE + MAP);
    for (area, panel) in maps.split_evenly((1, panels.len().max(1))).iter().zip(panels) {
        let (title, area) = area.split_vertically(TITLE);
        title.draw(&Text::new(panel.title.clone(), (8, 8), (FONT, 18).into_font()))?;
        map(&area, world, panel)?;
    }
    chart(&bars, world, panels)
}

/// A colour for each region, as unlike its neighbours' as can be.
fn colour(region: RegionKey) -> HSLColor {
    // The golden angle: no two of the first many come near each other.
    let hue = (f64::from(region) * 0.381_966 + 0.58).fract();
    HSLColor(hue, 0.62, if region.is_multiple_of(2) { 0.45 } else { 0.62 })
}

fn map<'a>(area: &Area<'a>, world: &World, panel: &Panel<'_>) -> Painted<'a> {
    let (width, height) = area.dim_in_pixel();
    let at = |lat: f64, lon: f64| {
        let x = (lon + 180.0) / 360.0 * f64::from(width);
        let y = (90.0 - lat) / f64::from(90 - SOUTH) * f64::from(height);
        (x.round() as i32, y.round() as i32)
    };
    area.fill(&RGBColor(243, 245, 248))?;
    for (square, region) in owners(panel) {
        let [(south, west), (north, east)] = square.corners();
        let style = match region {
            Some(region) => colour(region).filled(),
            None => BLACK.mix(0.25).filled(),
        };
        area.draw(&Rectangle::new([at(north, west), at(south, east)], style))?;
    }
    let mut labels = Labels { width: width as i32, taken: vec![] };
    for (name, region) in world.regions.iter().zip(&panel.side.regions) {
        let Some((region, point)) = region.as_ref().and_then(|region| Some((region, region.location?))) else {
            continue;
        };
        let (x, y) = at(point.lat(), point.lon());
        area.draw(&Circle::new((x, y), 5, BLACK.filled()))?;
        area.draw(&Circle::new((x, y), 3, if region.closed { RED.filled() } else { WHITE.filled() }))?;
        let name = if region.closed { format!("{name} (gone)") } else { name.clone() };
        let corner = labels.place(&name, (x, y));
        area.draw(&Text::new(name, corner, (FONT, TEXT).into_font()))?;
    }
    Ok(())
}

/// Where names stand on a map, so that none covers another or leaves it.
struct Labels {
    width: i32,
    /// Left and upper edge, and length.
    taken: Vec<(i32, i32, i32)>,
}

impl Labels {
    /// The upper left corner of a name beside a point, in pixels.
    fn place(&mut self, name: &str, (x, y): (i32, i32)) -> (i32, i32) {
        // The font is the reader's, so this is a guess.
        let length = name.chars().count() as i32 * TEXT * 6 / 10;
        let (right, left) = (x + 8, x - 8 - length);
        let places = [(right, y - 6), (left, y - 6), (right, y + 6), (right, y - 18), (left, y + 6), (left, y - 18)];
        let is_free = |&(x, y): &(i32, i32)| {
            let apart = |&(left, top, long): &(i32, i32, i32)| {
                x + length < left || left + long < x || (y - top).abs() >= TEXT - 2
            };
            x >= 0 && x + length <= self.width && self.taken.iter().all(apart)
        };
        let (x, y) = places.into_iter().find(is_free).unwrap_or(places[0]);
        self.taken.push((x, y, length));
        (x, y)
    }
}

/// By square: the region that serves most of its viewers.
fn owners(panel: &Panel<'_>) -> BTreeMap<Square, Option<RegionKey>> {
    let mut served: BTreeMap<Square, BTreeMap<Option<RegionKey>, f64>> = BTreeMap::new();
    for (cell, facts) in panel.scene.facts().iter().enumerate() {
        let Some(point) = facts.location.filter(|at| facts.blocks > 0 && at.lat() > f64::from(SOUTH)) else { continue };
        let square = served.entry(Square::of(point)).or_default();
        let groups = panel.settled.sessions.iter().zip(&panel.settled.shapes).zip(&panel.settled.flows);
        for ((sessions, shape), flow) in groups {
            let (viewers, parts) = (sessions * shape[cell], flow.cell(cell));
            for &(region, part) in parts {
                *square.entry(Some(region)).or_default() += viewers * f64::from(part);
            }
            if parts.is_empty() {
                *square.entry(None).or_default() += viewers;
            }
        }
    }
    let most = |regions: BTreeMap<Option<RegionKey>, f64>| {
        regions.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).and_then(|(region, _)| region)
    };
    served.into_iter().map(|(square, regions)| (square, most(regions))).collect()
}

/// Bars of utilisation, one a region and panel; of the share of all viewers where no capacity is known.
fn chart<'a>(area: &Area<'a>, world: &World, panels: &[Panel<'_>]) -> Painted<'a> {
    let has_capacity = panels.iter().any(|panel| panel.side.fullest().is_some());
    let value = |side: &Side, region: usize| {
        let region = side.regions[region].as_ref()?;
        if has_capacity { region.utilization() } else { Some(region.share) }
    };
    let regions: Vec<usize> = (0..world.regions.len())
        .filter(|&region| panels.iter().any(|panel| panel.side.regions[region].is_some()))
        .collect();
    let values = || panels.iter().flat_map(|panel| regions.iter().filter_map(|&region| value(panel.side, region)));
    let top = values().filter(|value| value.is_finite()).fold(if has_capacity { 1.1 } else { 0.1 }, f64::max) * 1.1;
    let (width, height) = area.dim_in_pixel();
    let (left, foot, head) = (60, 40, 34);
    let depth = f64::from(height) - f64::from(foot + head);
    let y = |value: f64| head + (depth * (1.0 - (value / top).clamp(0.0, 1.0))).round() as i32;
    let word = if has_capacity { "part of the capacity in use" } else { "part of all viewers" };
    let title = format!("{word} (pale: {})", panels.first().map_or("", |panel| &panel.title));
    let title = if panels.len() > 1 { title } else { word.to_owned() };
    area.draw(&Text::new(title, (8, 10), (FONT, 16).into_font()))?;
    let step = [0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5].into_iter().find(|step| top / step <= 6.0).unwrap_or(top / 4.0);
    for value in (0..=6).map(|number| f64::from(number) * step).take_while(|value| *value <= top) {
        area.draw(&PathElement::new([(left, y(value)), (width as i32 - 10, y(value))], BLACK.mix(0.15)))?;
        area.draw(&Text::new(format!("{:.0} %", value * 100.0), (8, y(value) - 7), (FONT, 13).into_font()))?;
    }
    if has_capacity {
        area.draw(&PathElement::new([(left, y(1.0)), (width as i32 - 10, y(1.0))], RED.stroke_width(2)))?;
    }
    let slot = (f64::from(width) - f64::from(left) - 10.0) / regions.len().max(1) as f64;
    let bar = slot * 0.8 / panels.len().max(1) as f64;
    for (position, &region) in regions.iter().enumerate() {
        let start = f64::from(left) + slot * (position as f64 + 0.1);
        for (number, panel) in panels.iter().enumerate() {
            let Some(value) = value(panel.side, region) else { continue };
            let x = |part: f64| (start + bar * (number as f64 + part)).round() as i32;
            let strength = if number + 1 < panels.len() { 0.45 } else { 1.0 };
            let style = colour(region as RegionKey).mix(strength).filled();
            area.draw(&Rectangle::new([(x(0.0), y(value)), (x(0.95), y(0.0))], style))?;
            let text = format!("{:.0} %", value * 100.0);
            if bar > 40.0 {
                area.draw(&Text::new(text, (x(0.1), y(value) - 16), (FONT, 13).into_font()))?;
            }
        }
        // Many regions leave each little room.
        let room = (slot / 8.0).max(1.0) as usize;
        let name: String = world.regions[region].chars().take(room).collect();
        area.draw(&Text::new(name, (start.round() as i32, y(0.0) + 8), (FONT, 14).into_font()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_neighbours_and_at_the_edge_can_be_read() {
        let mut labels = Labels { width: 550, taken: vec![] };
        let (london, frankfurt) = (labels.place("london", (275, 105)), labels.place("frankfurt", (288, 107)));
        assert_eq!(london, (283, 99));
        assert!((frankfurt.1 - london.1).abs() >= TEXT - 2 || frankfurt.0 + 9 * 8 < london.0, "{frankfurt:?}");
        assert_eq!(labels.place("sydney", (520, 278)), (520 - 8 - 50, 272), "left of its point");
        // Where there is no room at all it stands all the same.
        for _ in 0..20 {
            labels.place("tokyo", (488, 136));
        }
    }
}
