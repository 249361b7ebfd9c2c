//! Worlds to steer: cities with viewers, regions in some of them, capacities that do not fit too well.
//!
//! The cities are those that `near` knows. Of every city come as many rows as its people ask for; rows differ in demand
//! (log-normal) and, as access networks do, in their round-trip times.

use meridian::geo::Point;
use meridian::steering::cost::predicted_ms;
use meridian::steering::solve::{Rows, Supply};

use super::random::Random;

static CITIES: &str = include_str!("../../geoip/cities.tsv");

/// Mean length of sessions, s.
pub const DWELL: f64 = 1200.0;

/// Planned capacities are so much what is nearest, and for the rest alike.
const FIT: f64 = 0.75;
/// How far capacities are from what was planned, see [`RegionWorld::spread`].
const SPREAD: f64 = 0.2;

/// Regions are no nearer to each other than this, km, where there are cities enough.
const APART_KM: f64 = 600.0;

pub struct RegionWorld {
    pub rows: Rows,
    /// ms, row-major.
    pub costs: Vec<f32>,
    pub groups: Vec<u32>,
    pub places: Vec<Point>,
    /// Starts/s; they sum to 1000.
    pub demand: Vec<f64>,
    /// Sessions; with them all demand is a load of 1.
    pub capacity: Vec<f64>,
    pub regions: Vec<Point>,
    random: Random,
}

/// One that is not zero, for logarithms.
pub fn uniform(random: &mut Random) -> f64 {
    ((random.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64
}

/// Box and Muller's.
pub fn normal(random: &mut Random) -> f64 {
    (-2.0 * uniform(random).ln()).sqrt() * (std::f64::consts::TAU * uniform(random)).cos()
}

fn cities() -> Vec<(Point, f64)> {
    let mut cities: Vec<(Point, f64)> = CITIES
        .lines()
        .filter_map(|line| {
            let column = |n: usize| line.split('\t').nth(n);
            let point = Point::new(column(4)?.parse().ok()?, column(5)?.parse().ok()?)?;
            Some((point, column(6)?.parse().ok()?))
        })
        .collect();
    cities.sort_by(|a, b| b.1.total_cmp(&a.1));
    cities
}

impl RegionWorld {
    pub fn new(seed: u64, rows: usize, regions: usize) -> RegionWorld {
        RegionWorld::spread(seed, rows, regions, SPREAD)
    }

    /// With capacities that differ so much (standard deviation of the logarithm) from what is planned.
    pub fn spread(seed: u64, rows: usize, regions: usize, spread: f64) -> RegionWorld {
        let mut random = Random::new(seed);
        let cities = cities();
        // Regions: big cities, drawn by people, apart from each other.
        let mut sites: Vec<Point> = vec![];
        let mut apart = APART_KM;
        let large = &cities[..600.min(cities.len())];
        let people: f64 = large.iter().map(|city| city.1).sum();
        while sites.len() < regions {
            for _ in 0..200 {
                let mut drawn = uniform(&mut random) * people;
                let site = large.iter().find(|city| {
                    drawn -= city.1;
                    drawn <= 0.0
                });
                let site = site.unwrap_or(&large[0]).0;
                if sites.len() < regions && sites.iter().all(|other| other.distance_km(site) >= apart) {
                    sites.push(site);
                }
            }
            apart *= 0.7;
        }
        // Rows: each city once, if there is room; the rest by people.
        let mut of_city: Vec<usize> = (0..rows.min(cities.len())).collect();
        let people: f64 = cities.iter().map(|city| city.1).sum();
        let (mut city, mut seen) = (0, cities[0].1);
        let more = rows - of_city.len();
        for i in 0..more {
            let at = (i as f64 + 0.5) / more as f64 * people;
            while seen < at && city + 1 < cities.len() {
                city += 1;
                seen += cities[city].1;
            }
            of_city.push(city);
        }
        let mut shares = vec![0u32; cities.len()];
        of_city.iter().for_each(|&city| shares[city] += 1);
        let (mut costs, mut demand, mut groups, mut places) = (vec![], vec![], vec![], vec![]);
        for &city in &of_city {
            let (place, people) = cities[city];
            // What the row's network adds to every way, and what each of its ways takes longer.
            let network = 6.0 * uniform(&mut random);
            costs.extend(sites.iter().map(|site| {
                let detour = (0.12 * normal(&mut random)).exp();
                ((predicted_ms(place, *site) - 8.0) * detour + 8.0 + network) as f32
            }));
            demand.push(people / f64::from(shares[city]) * (0.8 * normal(&mut random)).exp());
            let square = |degrees: f64| (degrees / 2.0).floor() as i32 + 128;
            groups.push((square(place.lat()) << 16 | square(place.lon())) as u32);
            places.push(place);
        }
        let sum: f64 = demand.iter().sum();
        demand.iter_mut().for_each(|demand| *demand *= 1000.0 / sum);
        // Capacities follow what is nearest, but not well.
        let mut nearest = vec![0.0; regions];
        for (costs, demand) in costs.chunks_exact(regions).zip(&demand) {
            let best = (0..regions).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).unwrap_or(0);
            nearest[best] += demand;
        }
        let alike = 1000.0 / regions as f64;
        let mut capacity: Vec<f64> = nearest
            .iter()
            .map(|near| (FIT * near + (1.0 - FIT) * alike) * (spread * normal(&mut random)).exp())
            .collect();
        let sum: f64 = capacity.iter().sum();
        capacity.iter_mut().for_each(|capacity| *capacity *= 1000.0 * DWELL / sum);
        let rows = Rows::new(regions, &costs, &groups).expect("there are as many costs as there should be");
        RegionWorld { rows, costs, groups, places, demand, capacity, regions: sites, random }
    }

    /// Supplies such that all demand is so much of all capacity, with the load spread as `rates` (starts/s) are, or
    /// evenly.
    pub fn supply(&self, load: f64, rates: Option<&[f64]>) -> Vec<Supply> {
        let all: f64 = self.capacity.iter().sum();
        let of = |(region, capacity): (usize, &f64)| {
            let even = 1000.0 * DWELL * capacity / all;
            let sessions = rates.map_or(even, |rates| rates[region] * DWELL);
            Supply { load: sessions, dwell: DWELL, ..Supply::of(Some(capacity / load)) }
        };
        self.capacity.iter().enumerate().map(of).collect()
    }

    /// Demand that differs from what it is on average: by so much in each row, and by so much in all rows of each 20
    /// degrees of longitude (standard deviations of the logarithm).
    pub fn noisy_demand(&mut self, own: f64, shared: f64) -> Vec<f64> {
        let random = &mut self.random;
        let bands: [f64; 19] = std::array::from_fn(|_| shared * normal(random));
        let of_row = |(demand, place): (&f64, &Point)| {
            let band = bands[((place.lon() + 180.0) / 20.0) as usize];
            demand * (own * normal(random) + band).exp()
        };
        self.demand.iter().zip(&self.places).map(of_row).collect()
    }

    /// Rows whose every cost differs by so many ms (standard deviation).
    pub fn noisy_rows(&mut self, ms: f64) -> Rows {
        let random = &mut self.random;
        let costs: Vec<f32> = self.costs.iter().map(|cost| (cost + (ms * normal(random)) as f32).max(0.0)).collect();
        Rows::new(self.regions.len(), &costs, &self.groups).expect("as many as before")
    }

    /// Σ λ·x·cost / Σ λ, ms.
    pub fn mean_ms(&self, table: &meridian::steering::solve::Table) -> f64 {
        let of_row = |(row, demand): (usize, &f64)| -> f64 {
            table.row(row).parts().map(|(region, part)| demand * part * self.cost(row, region)).sum()
        };
        self.demand.iter().enumerate().map(of_row).sum::<f64>() / self.demand.iter().sum::<f64>()
    }

    pub fn cost(&self, row: usize, region: u8) -> f64 {
        f64::from(self.costs[row * self.regions.len() + usize::from(region)])
    }

    /// Mean ms if every row goes to its nearest region.
    pub fn nearest_ms(&self) -> f64 {
        let costs = self.costs.chunks_exact(self.regions.len());
        let least = costs.map(|costs| f64::from(costs.iter().copied().fold(f32::MAX, f32::min)));
        least.zip(&self.demand).map(|(cost, demand)| cost * demand).sum::<f64>() / self.demand.iter().sum::<f64>()
    }

    /// Mean ms of nearest-then-spill: viewers come in any order and take the nearest region that is not yet filled to
    /// `full` of its capacity at this load.
    pub fn spill_ms(&mut self, load: f64, full: f64) -> f64 {
        let count = self.regions.len();
        let mut room: Vec<f64> = self.capacity.iter().map(|capacity| capacity / load / DWELL * full).collect();
        let mut order: Vec<usize> = (0..self.demand.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, self.random.below(i + 1));
        }
        let mut sum = 0.0;
        // Ten rounds, so that a heavy row does not come all at once.
        for _ in 0..10 {
            for &row in &order {
                let mut left = self.demand[row] / 10.0;
                let mut by_cost: Vec<u8> = (0..count as u8).collect();
                by_cost.sort_by(|&a, &b| self.cost(row, a).total_cmp(&self.cost(row, b)));
                for (i, &region) in by_cost.iter().enumerate() {
                    let room = &mut room[usize::from(region)];
                    let part = if i + 1 == count { left } else { left.min(room.max(0.0)) };
                    *room -= part;
                    sum += part * self.cost(row, region);
                    left -= part;
                    if left <= 0.0 {
                        break;
                    }
                }
            }
        }
        sum / self.demand.iter().sum::<f64>()
    }
}
