//! What groups and cells mean in one epoch, in words that outlive it.
//!
//! Groups and cells are numbered anew by each load. What is learnt is kept by the names of groups and by *squares*: 2-degree
//! squares of one country, of which there are some thousand on land. A cell counts as a whole to the square where most of
//! its addresses lie.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::geo::{CellId, CountryCode, Place};
use crate::snapshot::Snapshot;
use crate::steering::cells::Facts;

/// Squares that are told apart; those with fewer addresses count as the rest of their country.
pub const MAX_SQUARES: usize = 3000;
const DEGREES: f64 = 2.0;

/// Where a cell is, for what is kept over loads and restarts. As text `FR:24:1`, `FR` for the rest of a country, and `-`
/// for what no database places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Square {
    country: Option<CountryCode>,
    /// Rows from the equator and columns from Greenwich, northwards and eastwards.
    at: Option<(i8, i8)>,
}

impl Square {
    pub fn of(place: &Place) -> Square {
        let position = |degrees: f64| (degrees / DEGREES).floor() as i8;
        Square { country: place.country, at: place.location.map(|at| (position(at.lat()), position(at.lon()))) }
    }

    fn rest(self) -> Square {
        Square { at: None, ..self }
    }
}

impl fmt::Display for Square {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.country {
            Some(country) => write!(f, "{country}")?,
            None => f.write_str("-")?,
        }
        self.at.map_or(Ok(()), |(row, column)| write!(f, ":{row}:{column}"))
    }
}

/// A text that is no square.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSquare(String);

impl fmt::Display for NoSquare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no square like FR:24:1", self.0)
    }
}

impl std::error::Error for NoSquare {}

impl FromStr for Square {
    type Err = NoSquare;

    fn from_str(text: &str) -> Result<Square, NoSquare> {
        let read = || {
            let (country, at) = text.split_once(':').map_or((text, None), |(country, at)| (country, Some(at)));
            let country = if country == "-" { None } else { Some(CountryCode::parse(country)?) };
            let at = match at {
                Some(at) => {
                    let (row, column) = at.split_once(':')?;
                    Some((row.parse().ok()?, column.parse().ok()?))
                }
                None => None,
            };
            Some(Square { country, at })
        };
        read().ok_or_else(|| NoSquare(text.to_owned()))
    }
}

/// A group of streams that are steered as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The same in every load and on every node; by it the group is known again.
    pub name: Arc<str>,
    /// TTL of its answers, seconds.
    pub ttl_s: f64,
}

impl Group {
    /// A group of a snapshot, by its number; named by the first of its streams.
    fn of(snapshot: &Snapshot, number: u32) -> Group {
        let first = snapshot.groups()[number as usize].streams[0];
        Group { name: name(snapshot, first), ttl_s: f64::from(snapshot.stream(first).ttl) }
    }
}

/// By which a group is known again whose first stream is this one, of those of a snapshot.
pub fn name(snapshot: &Snapshot, stream: u32) -> Arc<str> {
    snapshot.settings_of(snapshot.stream(stream)).owner.to_lowercase().to_ascii().into()
}

/// The cells of one load.
#[derive(Clone, Debug, PartialEq)]
pub struct Cells {
    /// By cell: its part of all addresses; the sum is 1, or 0 where there are none.
    pub weight: Box<[f64]>,
    /// By cell: position in `squares`.
    pub square: Box<[u16]>,
    pub squares: Box<[Square]>,
    /// By square: its part of all addresses.
    pub square_weight: Box<[f64]>,
}

impl Cells {
    /// From the cell of each place. Cells without a place have no weight and are nowhere.
    pub fn of<'a>(count: usize, places: impl IntoIterator<Item = (CellId, &'a Place)>) -> Cells {
        let mut weight = vec![0.0; count];
        let mut parts: HashMap<(usize, Square), f64> = HashMap::new();
        for (cell, place) in places {
            let cell = usize::from(cell.0);
            if let Some(sum) = weight.get_mut(cell) {
                *sum += f64::from(place.v4_blocks);
                *parts.entry((cell, Square::of(place))).or_default() += f64::from(place.v4_blocks);
            }
        }
        let mut most: Vec<(Square, f64)> = vec![(Square::default(), -1.0); count];
        for ((cell, square), part) in parts {
            let (so_far, most) = &mut most[cell];
            // Of equal ones always the same.
            if part > *most || part == *most && square < *so_far {
                (*so_far, *most) = (square, part);
            }
        }
        let mut sums: BTreeMap<Square, f64> = BTreeMap::new();
        most.iter().zip(&weight).for_each(|((square, _), weight)| *sums.entry(*square).or_default() += weight);
        let mut heaviest: Vec<(Square, f64)> = sums.into_iter().collect();
        heaviest.sort_by(|a, b| b.1.total_cmp(&a.1));
        heaviest.truncate(MAX_SQUARES);
        let told_apart: BTreeMap<Square, f64> = heaviest.into_iter().collect();
        let named = |square: Square| if told_apart.contains_key(&square) { square } else { square.rest() };
        let mut positions: BTreeMap<Square, u16> = BTreeMap::new();
        let mut squares = Vec::new();
        let square: Box<[u16]> = most
            .iter()
            .map(|(square, _)| {
                *positions.entry(named(*square)).or_insert_with_key(|square| {
                    squares.push(*square);
                    squares.len() as u16 - 1
                })
            })
            .collect();
        let all: f64 = weight.iter().sum();
        if all > 0.0 {
            weight.iter_mut().for_each(|weight| *weight /= all);
        }
        let mut square_weight = vec![0.0; squares.len()];
        square.iter().zip(&weight).for_each(|(square, weight)| square_weight[usize::from(*square)] += weight);
        Cells { weight: weight.into(), square, squares: squares.into(), square_weight: square_weight.into() }
    }

    /// Those of a geography, by what is known of each.
    pub fn of_facts(facts: &[Facts]) -> Cells {
        let place = |facts: &Facts| Place {
            location: facts.location,
            country: facts.country,
            network: None,
            weight: u64::from(facts.blocks),
            v4_blocks: facts.blocks,
            truth: Arc::new([]),
        };
        let places: Vec<Place> = facts.iter().map(place).collect();
        Cells::of(places.len(), (0..).map(CellId).zip(&places))
    }

    pub fn count(&self) -> usize {
        self.weight.len()
    }

    /// Sums by square of what is given by cell.
    pub fn by_square(&self, by_cell: impl IntoIterator<Item = f64>) -> Vec<f64> {
        let mut sums = vec![0.0; self.squares.len()];
        self.square.iter().zip(by_cell).for_each(|(square, value)| sums[usize::from(*square)] += value);
        sums
    }

    /// Spreads what is given by square over the cells there, by their addresses. What lies where this world has no cell
    /// with addresses is spread over all.
    pub fn spread(&self, by_square: impl IntoIterator<Item = (Square, f64)>) -> Vec<f64> {
        let position: HashMap<Square, usize> =
            self.squares.iter().enumerate().map(|(i, square)| (*square, i)).collect();
        let (mut sums, mut elsewhere) = (vec![0.0; self.squares.len()], 0.0);
        for (square, value) in by_square {
            let here = [square, square.rest()].into_iter().filter_map(|square| position.get(&square).copied());
            match here.into_iter().find(|here| self.square_weight[*here] > 0.0) {
                Some(here) => sums[here] += value,
                None => elsewhere += value,
            }
        }
        let cells = self.weight.iter().zip(&self.square);
        cells
            .map(|(&weight, &square)| {
                let square = usize::from(square);
                let here = if weight > 0.0 { sums[square] * weight / self.square_weight[square] } else { 0.0 };
                here + elsewhere * weight
            })
            .collect()
    }
}

/// Groups and cells of one epoch.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Of the snapshots that number so ([`crate::snapshot::Snapshot::epoch`]).
    pub epoch: u64,
    /// By number; of those from [`super::asked::MAX_GROUPS`] on nothing is told.
    pub groups: Vec<Group>,
    /// Shared between loads that have the same.
    pub cells: Arc<Cells>,
}

impl Layout {
    pub fn of(snapshot: &Snapshot) -> Layout {
        let groups = (0..snapshot.groups().len() as u32).map(|number| Group::of(snapshot, number)).collect();
        let cells = Arc::new(Cells::of_facts(&snapshot.geography().facts));
        Layout { epoch: snapshot.epoch(), groups, cells }
    }
}

/// What groups are called now that had other names before, old and new: a group's first stream may be another while the
/// others stay.
pub fn renamed(now: &Snapshot, before: &Snapshot) -> Vec<(Arc<str>, Arc<str>)> {
    let groups = before.groups().iter();
    renamed_of(
        now,
        groups.map(|group| (name(before, group.streams[0]), group.streams.iter().map(|s| name(before, *s)))),
    )
}

/// The same for names of which it is not known any more what else was called so.
pub fn renamed_since<'a>(now: &Snapshot, before: impl Iterator<Item = &'a str>) -> Vec<(Arc<str>, Arc<str>)> {
    renamed_of(now, before.map(|name| (Arc::from(name), std::iter::once(Arc::from(name)))))
}

/// `before`: the names of groups, and of their streams.
fn renamed_of<S: Iterator<Item = Arc<str>>>(
    now: &Snapshot,
    before: impl Iterator<Item = (Arc<str>, S)>,
) -> Vec<(Arc<str>, Arc<str>)> {
    let mut known: HashMap<Arc<str>, S> = before.collect();
    let names: Vec<Arc<str>> = now.groups().iter().map(|group| name(now, group.streams[0])).collect();
    let is_new: Vec<bool> = names.iter().map(|name| known.remove(name).is_none()).collect();
    if known.is_empty() {
        return vec![];
    }
    let mut owners: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    for (group, streams) in known {
        owners.extend(streams.map(|stream| (stream, Arc::clone(&group))));
    }
    let mut pairs: Vec<(Arc<str>, Arc<str>)> = vec![];
    for ((group, new), is_new) in now.groups().iter().zip(names).zip(is_new) {
        let old = group.streams.iter().find_map(|stream| owners.get(&name(now, *stream)));
        if let Some(old) = old.filter(|old| is_new && pairs.iter().all(|(taken, _)| taken != *old)) {
            pairs.push((Arc::clone(old), new));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Shared, read_zone};
    use crate::geo::{Database, Point};
    use crate::health::Verdict;
    use crate::snapshot::Served;

    fn place(country: &str, lat: f64, lon: f64, weight: u64) -> Place {
        Place {
            location: Point::new(lat, lon),
            country: CountryCode::parse(country),
            network: None,
            weight,
            v4_blocks: weight as u32,
            truth: [0].into(),
        }
    }

    #[test]
    fn squares_are_text_and_back() {
        let unknown =
            Place { location: None, country: None, network: None, weight: 1, v4_blocks: 1, truth: [0].into() };
        for (place, text) in [
            (place("FR", 48.9, 2.3, 1), "FR:24:1"),
            (place("NZ", -36.8, 174.8, 1), "NZ:-19:87"),
            (place("FJ", -90.0, -180.0, 1), "FJ:-45:-90"),
            (unknown, "-"),
        ] {
            let square = Square::of(&place);
            assert_eq!(square.to_string(), text);
            assert_eq!(text.parse(), Ok(square));
        }
        for text in ["", "FR:", "FR:1", "FR:1:2:3", "France", "FR:999:0", "ZZ", "FR: 1:2"] {
            assert!(text.parse::<Square>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_cell_is_where_most_of_its_addresses_are() {
        let places = [place("FR", 48.9, 2.3, 10), place("DE", 50.1, 8.7, 30), place("US", 39.0, -77.5, 60)];
        let cells = Cells::of(3, [CellId(1), CellId(1), CellId(2)].into_iter().zip(&places));
        let square = |cell: usize| cells.squares[usize::from(cells.square[cell])].to_string();
        assert_eq!([square(0), square(1), square(2)], ["-", "DE:25:4", "US:19:-39"]);
        assert_eq!(&*cells.weight, [0.0, 0.4, 0.6]);
        assert_eq!(cells.by_square([1.0, 2.0, 4.0]), [1.0, 2.0, 4.0]);
    }

    #[test]
    fn what_is_spread_is_all_there_whatever_the_world_has() {
        let places = [place("FR", 48.9, 2.3, 10), place("FR", 48.9, 2.4, 30), place("US", 39.0, -77.5, 60)];
        let cells = Cells::of(4, [CellId(1), CellId(2), CellId(3)].into_iter().zip(&places));
        let spread = cells.spread([("FR:24:1", 8.0), ("AU:-17:75", 10.0)].map(|(s, v)| (s.parse().unwrap(), v)));
        assert_eq!(spread, [0.0, 2.0 + 1.0, 6.0 + 3.0, 6.0]);
    }

    #[test]
    fn squares_are_bounded_and_the_lightest_become_their_countrys_rest() {
        let places: Vec<Place> = (0..5_000u64)
            .map(|i| place("US", -89.0 + 2.0 * (i % 89) as f64, -179.0 + 2.0 * (i / 89) as f64, 1 + i))
            .collect();
        let cells = Cells::of(5_000, (0..5_000).map(CellId).zip(&places));
        assert_eq!(cells.squares.len(), MAX_SQUARES + 1);
        assert_eq!(cells.squares[usize::from(cells.square[0])].to_string(), "US");
        assert_ne!(cells.squares[usize::from(cells.square[4_999])].to_string(), "US");
    }

    fn snapshot(streams: &[&str]) -> Snapshot {
        let streams: String = streams.iter().map(|name| format!("[stream.{name}]\n")).collect();
        let text = format!(
            "zone = \"stream.example\"\nns = [\"ns1.example.net\"]\n[region.eu]\nnear = \"London\"\na = [\"192.0.2.1\"]\n{streams}"
        );
        let read = read_zone("zone.toml".as_ref(), text, 0, &Shared::default());
        let zone = Arc::new(read.zone.expect("a sound zone"));
        let served = Served { zone, serial: 1 };
        Snapshot::compile(vec![served], &Arc::new(Database::bundled()), |_| Verdict::Up, None)
    }

    #[test]
    fn a_group_is_known_again_by_any_of_its_streams() {
        let before = snapshot(&["live", "match"]);
        let pairs = |streams: &[&str]| -> Vec<(String, String)> {
            let pairs = renamed(&snapshot(streams), &before);
            pairs.into_iter().map(|(old, new)| (old.to_string(), new.to_string())).collect()
        };
        let pair = |old: &str, new: &str| vec![(format!("{old}.stream.example."), format!("{new}.stream.example."))];
        assert_eq!(pairs(&["live", "match", "more"]), []);
        assert_eq!(pairs(&["first", "live", "match"]), pair("live", "first"));
        assert_eq!(pairs(&["match"]), pair("live", "match"));
        assert_eq!(pairs(&["other"]), []);
        let since = renamed_since(&snapshot(&["first", "live"]), ["live.stream.example.", "gone.example."].into_iter());
        assert_eq!(since, [("live.stream.example.".into(), "first.stream.example.".into())]);
    }
}
