//! What groups and cells mean in one epoch, in words that outlive it.
//!
//! Groups and cells are numbered anew by each load. What is learnt is kept by the names of groups and by the squares of
//! countries; cells of one square share what is known of it by their addresses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::country_square::CountrySquare;
use crate::snapshot::Snapshot;
use crate::steering::cells::Facts;

/// Squares that are told apart; those with fewer addresses count as the rest of their country.
pub const MAX_SQUARES: usize = 3000;

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
    pub squares: Box<[CountrySquare]>,
    /// By square: its part of all addresses.
    pub square_weight: Box<[f64]>,
}

impl Cells {
    /// By what is known of each cell of a geography.
    pub fn of(facts: &[Facts]) -> Cells {
        let square = |facts: &Facts| CountrySquare { country: facts.country, square: facts.square };
        let mut sums: BTreeMap<CountrySquare, f64> = BTreeMap::new();
        facts.iter().for_each(|facts| *sums.entry(square(facts)).or_default() += f64::from(facts.blocks));
        let mut heaviest: Vec<(CountrySquare, f64)> = sums.into_iter().collect();
        heaviest.sort_by(|a, b| b.1.total_cmp(&a.1));
        heaviest.truncate(MAX_SQUARES);
        let told_apart: BTreeSet<CountrySquare> = heaviest.into_iter().map(|(square, _)| square).collect();
        let named = |square: CountrySquare| if told_apart.contains(&square) { square } else { square.rest() };
        let mut positions: BTreeMap<CountrySquare, u16> = BTreeMap::new();
        let mut squares = Vec::new();
        let mut position = |facts: &Facts| {
            *positions.entry(named(square(facts))).or_insert_with_key(|square| {
                squares.push(*square);
                squares.len() as u16 - 1
            })
        };
        let square: Box<[u16]> = facts.iter().map(&mut position).collect();
        let mut weight: Box<[f64]> = facts.iter().map(|facts| f64::from(facts.blocks)).collect();
        let all: f64 = weight.iter().sum();
        if all > 0.0 {
            weight.iter_mut().for_each(|weight| *weight /= all);
        }
        let mut square_weight = vec![0.0; squares.len()];
        square.iter().zip(&weight).for_each(|(square, weight)| square_weight[usize::from(*square)] += weight);
        Cells { weight, square, squares: squares.into(), square_weight: square_weight.into() }
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
    pub fn spread(&self, by_square: impl IntoIterator<Item = (CountrySquare, f64)>) -> Vec<f64> {
        let position: HashMap<CountrySquare, usize> =
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
        let cells = Arc::new(Cells::of(&snapshot.geography().facts));
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
    use crate::geo::{CountryCode, Database, Point, Square};
    use crate::health::Verdict;
    use crate::snapshot::Served;

    fn cell(country: &str, lat: f64, lon: f64, blocks: u32) -> Facts {
        let location = Point::new(lat, lon);
        let square = location.map(Square::of);
        Facts { location, country: CountryCode::parse(country), square, blocks, asn: None, group: 0 }
    }

    fn nowhere() -> Facts {
        Facts { location: None, country: None, square: None, blocks: 0, asn: None, group: 0 }
    }

    #[test]
    fn cells_count_to_their_square_by_their_addresses() {
        let cells = Cells::of(&[nowhere(), cell("DE", 50.1, 8.7, 40), cell("US", 39.0, -77.5, 60)]);
        let square = |cell: usize| cells.squares[usize::from(cells.square[cell])].to_string();
        assert_eq!([square(0), square(1), square(2)], ["-", "DE:25:4", "US:19:-39"]);
        assert_eq!(&*cells.weight, [0.0, 0.4, 0.6]);
        assert_eq!(cells.by_square([1.0, 2.0, 4.0]), [1.0, 2.0, 4.0]);
    }

    #[test]
    fn what_is_spread_is_all_there_whatever_the_world_has() {
        let (paris, suburb) = (cell("FR", 48.9, 2.3, 10), cell("FR", 48.9, 2.4, 30));
        let cells = Cells::of(&[nowhere(), paris, suburb, cell("US", 39.0, -77.5, 60)]);
        let spread = cells.spread([("FR:24:1", 8.0), ("AU:-17:75", 10.0)].map(|(s, v)| (s.parse().unwrap(), v)));
        assert_eq!(spread, [0.0, 2.0 + 1.0, 6.0 + 3.0, 6.0]);
    }

    #[test]
    fn squares_are_bounded_and_the_lightest_become_their_countrys_rest() {
        let facts: Vec<Facts> = (0..5_000u32)
            .map(|i| cell("US", -89.0 + 2.0 * f64::from(i % 89), -179.0 + 2.0 * f64::from(i / 89), 1 + i))
            .collect();
        let cells = Cells::of(&facts);
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
