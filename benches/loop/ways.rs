//! Ways to steer: by prices, with all that the server does it with; to the nearest; and to the nearest that is not full.

use std::sync::Arc;
use std::time::Instant;

use meridian::demand::asked::Asked as Counted;
use meridian::demand::country_square::CountrySquare;
use meridian::demand::estimate::Estimate;
use meridian::demand::layout::{Cells, Group};
use meridian::geo::CellId;
use meridian::load::board::Source;
use meridian::load::known::{Known, Machine, MachineId, Member, Region, RegionId, Size};
use meridian::load::{Board, Figures, Report, State};
use meridian::pilot::course::{Asked, Condition, Course, Decision};
use meridian::pilot::market::{Market, MarketRegion};
use meridian::pilot::saved::Saved;
use meridian::steering::pick::Mask;
use meridian::steering::solve::{Rows, Table};

use super::regions::RegionWorld;
use super::world::TTL;

/// Behind a step: what the way could see in it.
pub struct Seen<'a> {
    pub now: Instant,
    pub condition: Condition,
    /// Row and who asked.
    pub queries: &'a [(u32, u64)],
}

pub trait Way {
    fn table(&self) -> &Table;
    fn brief(&self) -> &[bool];
    /// What a region says of itself; not called for one that says nothing.
    fn hear(&mut self, region: usize, sessions: f64, starts_per_s: f64, now: Instant);
    fn step(&mut self, seen: &Seen<'_>);
    /// A region went down since the last step, and its own plan follows a step later.
    fn react(&mut self, _closed: Mask) {}
    /// Time is left, as there is in the server within each second.
    fn prepare(&mut self) {}
    /// Round-trip times were measured anew.
    fn reprice(&mut self, _rows: Rows) {}
    /// How far its plan may be from the best, as its own certificate says.
    fn gap(&self) -> f64 {
        0.0
    }
}

/// A board that hears each region as a whole.
fn board(capacities: &[f64]) -> (Board, Vec<Arc<str>>) {
    let names: Vec<Arc<str>> = (0..capacities.len()).map(|region| format!("r{region}").into()).collect();
    let mut known = Known::default();
    for (region, (name, capacity)) in names.iter().zip(capacities).enumerate() {
        let machine = MachineId(region as u32);
        known.machines.push(Machine { addresses: vec![], regions: vec![RegionId(region as u32)] });
        known.regions.push(Region {
            name: Arc::clone(name),
            members: vec![Member { machine, weight: 1.0 }],
            size: Size { capacity: Some(*capacity), session_bits: None },
            sample: (0, region as u8),
        });
    }
    let mut board = Board::default();
    board.retain(Arc::new(known));
    (board, names)
}

fn hear(board: &mut Board, region: usize, sessions: f64, starts_per_s: Option<f64>, now: Instant) {
    let report = Report::new(Figures { sessions: Some(sessions.round()), starts_per_s, ..Figures::default() });
    let source = Source::Region(RegionId(region as u32));
    board.hear(source, &report.expect("sound figures"), now).expect("a region that is known");
}

/// One group of streams on all rows; the estimate tells them apart by cell alone.
fn estimate(rows: usize, now: Instant) -> Estimate {
    let part = 1.0 / rows as f64;
    let cells = Cells {
        weight: vec![part; rows].into(),
        square: vec![0; rows].into(),
        squares: [CountrySquare::default()].into(),
        square_weight: [1.0].into(),
    };
    Estimate::new(vec![Group { name: "live".into(), ttl_s: TTL }], Arc::new(cells), now)
}

/// How it is done in earnest.
pub struct Prices {
    course: Course,
    board: Board,
    estimate: Estimate,
    /// Queries/s by row.
    asked: Vec<f64>,
    /// Whether regions report how many sessions begin, besides how many there are.
    pub told_starts: bool,
}

impl Prices {
    pub fn new(world: &RegionWorld, capacities: &[f64], seen: &[f64], now: Instant) -> Prices {
        let (board, names) = board(capacities);
        let region = |(at, name): (usize, &Arc<str>)| MarketRegion {
            id: RegionId(at as u32),
            name: Arc::clone(name),
            zone: "live.example".into(),
            uses: vec![],
            zones: vec![],
            servers: 1,
            capacity: Some(capacities[at]),
            session_bits: 5e6,
            cost: None,
            location: Some(world.regions[at]),
        };
        let regions = names.iter().enumerate().map(region).collect();
        let condition = Condition { closed: 0, down: 0, parts: vec![1.0; capacities.len()] };
        let course = Course::new(Market::of(regions, world.rows.clone()), condition, &Saved::default());
        let mut estimate = estimate(seen.len(), now);
        estimate.seed(0, seen);
        Prices { course, board, estimate, asked: seen.to_vec(), told_starts: false }
    }
}

impl Way for Prices {
    fn table(&self) -> &Table {
        self.course.table()
    }

    fn brief(&self) -> &[bool] {
        self.course.brief()
    }

    fn hear(&mut self, region: usize, sessions: f64, starts_per_s: f64, now: Instant) {
        hear(&mut self.board, region, sessions, self.told_starts.then_some(starts_per_s), now);
    }

    fn step(&mut self, seen: &Seen<'_>) {
        for &(row, who) in seen.queries {
            self.estimate.count(Counted::new(0, CellId(row as u16), who).expect("the first group"), 1.0);
        }
        if self.estimate.close(seen.now).is_some() {
            self.asked.clear();
            self.asked.extend(self.estimate.rates(0).iter());
        }
        for (id, expected) in self.course.expected().collect::<Vec<_>>() {
            self.board.expect(id, expected);
        }
        let is_open = |region: u32| seen.condition.closed >> region & 1 == 0;
        let states: Vec<State> = (0..seen.condition.parts.len() as u32)
            .map(|region| self.board.state(RegionId(region), |machine| is_open(machine.0), seen.now))
            .collect();
        let asked = Asked { rows: &self.asked, fixed: &[], is_measured: true };
        let decision = self.course.step(seen.condition.clone(), &states, asked, seen.now);
        if decision == Decision::GoHome {
            // What a snapshot has as its plans' own rankings.
            assert!(self.course.table() == &self.course.market().nearest(!seen.condition.closed));
        }
    }

    fn react(&mut self, closed: Mask) {
        self.course.react(closed, closed);
    }

    fn prepare(&mut self) {
        self.course.prepare();
    }

    fn reprice(&mut self, rows: Rows) {
        self.course.reprice(|market| {
            market.rows = rows;
            true
        });
    }

    fn gap(&self) -> f64 {
        self.course.certificate().map_or(0.0, |certificate| certificate.gap)
    }
}

/// To the nearest that is up.
pub struct Nearest {
    market: Market,
    table: Table,
    closed: Mask,
    brief: Vec<bool>,
}

impl Nearest {
    pub fn new(world: &RegionWorld) -> Nearest {
        let market = Market::of(vec![], world.rows.clone());
        let table = market.nearest(Mask::MAX);
        Nearest { market, table, closed: 0, brief: vec![false; world.regions.len()] }
    }
}

impl Way for Nearest {
    fn table(&self) -> &Table {
        &self.table
    }

    fn brief(&self) -> &[bool] {
        &self.brief
    }

    fn hear(&mut self, _: usize, _: f64, _: f64, _: Instant) {}

    fn step(&mut self, seen: &Seen<'_>) {
        if seen.condition.closed != self.closed {
            self.closed = seen.condition.closed;
            self.table = self.market.nearest(!self.closed);
        }
    }
}

/// From this utilisation a region is full, until it is below the other.
const FULL: f64 = 0.95;
const ROOM: f64 = 0.85;

/// To the nearest that is up and, as it was reported last, not full.
pub struct Spill {
    nearest: Nearest,
    board: Board,
    full: Mask,
    away: Mask,
}

impl Spill {
    pub fn new(world: &RegionWorld, capacities: &[f64]) -> Spill {
        Spill { nearest: Nearest::new(world), board: board(capacities).0, full: 0, away: 0 }
    }
}

impl Way for Spill {
    fn table(&self) -> &Table {
        &self.nearest.table
    }

    fn brief(&self) -> &[bool] {
        &self.nearest.brief
    }

    fn hear(&mut self, region: usize, sessions: f64, _: f64, now: Instant) {
        hear(&mut self.board, region, sessions, None, now);
    }

    fn step(&mut self, seen: &Seen<'_>) {
        let closed = seen.condition.closed;
        let count = seen.condition.parts.len();
        for region in 0..count as u32 {
            let state = self.board.state(RegionId(region), |_| closed >> region & 1 == 0, seen.now);
            let part = seen.condition.parts[region as usize];
            let Some((load, capacity)) = state.load().zip(state.capacity) else { continue };
            let share = load / (capacity * part).max(1.0);
            if share > FULL {
                self.full |= 1 << region;
            } else if share < ROOM {
                self.full &= !(1 << region);
            }
        }
        let all = (1 << count) - 1;
        // Where all are full, none is.
        let full = if (self.full | closed) & all == all { 0 } else { self.full };
        if full | closed != self.away {
            self.away = full | closed;
            self.nearest.table = self.nearest.market.nearest(!self.away);
        }
    }
}
