//! The costs of all cells to all regions of a plan, computed once and then where something changed.

use jiff::Timestamp;

use super::cost::distance_ms;
use super::{Changed, Ids, Key, Learned, Region};
use crate::geo::Point;
use crate::steering::cost::{BASE_MS, MS_PER_KM};

/// A change below this is not passed on, ms (STEERING §4).
const STILL_MS: f32 = 2.0;

/// A region of a plan: a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// As [`Region::zone`].
    pub zone: Option<String>,
    pub name: String,
    pub location: Option<Point>,
    /// The operator's bias, ms.
    pub bias_ms: f32,
}

/// Costs in ms, bias included, a row for each cell.
#[derive(Clone, Debug)]
pub struct Matrix {
    cells: Vec<Key>,
    regions: Vec<Column>,
    distances: Vec<f32>,
    costs: Vec<f32>,
    seen: u64,
}

impl Matrix {
    /// By distance alone; [`Matrix::refresh`] adds what was learned. Some 10 ms for 40,000 cells and 16 regions.
    pub fn new(cells: Vec<Key>, regions: Vec<Column>) -> Matrix {
        let vectors: Vec<Option<[f64; 3]>> = regions.iter().map(|region| region.location.map(unit)).collect();
        let unknown = distance_ms(None, None) as f32;
        let mut distances = Vec::with_capacity(cells.len() * regions.len());
        for cell in &cells {
            let from = cell.location.map(unit);
            distances.extend(vectors.iter().map(|to| from.zip(*to).map_or(unknown, |(from, to)| chord_ms(from, to))));
        }
        let width = regions.len();
        let costs = distances.iter().enumerate().map(|(i, ms)| ms + regions[i % width].bias_ms).collect();
        Matrix { cells, regions, distances, costs, seen: 0 }
    }

    /// Computes anew what may have changed since the last time and gives the rows of which any cost moved by 2 ms or more.
    pub fn refresh(&mut self, learned: &mut Learned, now: Timestamp) -> Vec<u32> {
        let (changed, seen) = learned.changed_since(self.seen);
        self.seen = seen;
        self.update(learned, &changed, now)
    }

    /// As [`Matrix::refresh`], of all cells: what only ages is found too.
    pub fn refresh_all(&mut self, learned: &mut Learned, now: Timestamp) -> Vec<u32> {
        self.seen = 0;
        self.refresh(learned, now)
    }

    fn update(&mut self, learned: &Learned, changed: &Changed, now: Timestamp) -> Vec<u32> {
        let Matrix { cells, regions, distances, costs, .. } = self;
        let width = regions.len();
        let columns: Vec<(Ids, Region<'_>, bool)> = regions
            .iter()
            .map(|column| {
                let region = Region { zone: column.zone.as_deref(), name: &column.name, location: column.location };
                let ids = learned.ids(&region);
                (ids, region, ids.own.is_some() || ids.any.is_some() || learned.table.has(&column.name))
            })
            .collect();
        let is_touched = |cell: &Key| match changed {
            Changed::All => true,
            Changed::Levels(levels) => cell.levels().chain(cell.penalties()).any(|level| levels.contains(&level)),
        };
        let mut moved = Vec::new();
        if matches!(changed, Changed::Levels(levels) if levels.is_empty()) {
            return moved;
        }
        for (i, cell) in cells.iter().enumerate().filter(|(_, cell)| is_touched(cell)) {
            let mut any = false;
            for (column, (ids, region, is_known)) in columns.iter().enumerate() {
                let place = i * width + column;
                let distance = distances[place];
                let ms = match is_known {
                    true => learned.cost_with(cell, distance.into(), *ids, region, now.as_second()).ms() as f32,
                    false => distance,
                } + regions[column].bias_ms;
                if (ms - costs[place]).abs() >= STILL_MS {
                    (costs[place], any) = (ms, true);
                }
            }
            if any {
                moved.push(i as u32);
            }
        }
        moved
    }

    /// By region, ms.
    pub fn row(&self, cell: usize) -> &[f32] {
        &self.costs[cell * self.regions.len()..(cell + 1) * self.regions.len()]
    }

    /// Row by row.
    pub fn costs(&self) -> &[f32] {
        &self.costs
    }

    pub fn cells(&self) -> &[Key] {
        &self.cells
    }

    pub fn regions(&self) -> &[Column] {
        &self.regions
    }
}

fn unit(at: Point) -> [f64; 3] {
    let ((lat_sin, lat_cos), (lon_sin, lon_cos)) = (at.lat().to_radians().sin_cos(), at.lon().to_radians().sin_cos());
    [lat_cos * lon_cos, lat_cos * lon_sin, lat_sin]
}

/// As `predicted_ms`, by the chord: one arc sine in place of six sines and roots.
fn chord_ms(from: [f64; 3], to: [f64; 3]) -> f32 {
    const DIAMETER_KM: f64 = 2.0 * 6371.0088;
    let square: f64 = from.iter().zip(to).map(|(a, b)| (a - b) * (a - b)).sum();
    (BASE_MS + MS_PER_KM * DIAMETER_KM * (square.sqrt() / 2.0).min(1.0).asin()) as f32
}
