//! What a plan keeps when zones or databases are others: rows and columns of the new market are followed back to those that
//! they were before. Without it every reload that adds a stream or a region, and every new database, would send
//! viewers to the nearest for a moment, and then to a new plan all at once.

use std::collections::HashMap;

use hickory_proto::rr::Name;

use crate::geo::{CountryCode, Square};
use crate::snapshot::Snapshot;
use crate::steering::cells::Facts;

use super::market::{Market, MarketGroup, MarketRegion};

/// Where rows and columns of a market were in another; `None`: nowhere.
pub struct Heritage {
    rows: Vec<Option<u32>>,
    columns: Vec<Option<u8>>,
}

/// What cells of two sets of databases have in common.
type Place = (Option<Square>, Option<CountryCode>, Option<u32>);

impl Heritage {
    /// Of groups that have a stream in common, cell by place; of regions with the same label. Each market with the snapshot
    /// that it is of.
    pub fn of(market: &Market, snapshot: &Snapshot, before: &Market, then: &Snapshot) -> Heritage {
        let labels: Vec<_> = before.regions.iter().map(MarketRegion::label).collect();
        let column = |region: &MarketRegion| {
            let label = region.label();
            labels.iter().position(|other| *other == label).map(|column| column as u8)
        };
        let mut heritage =
            Heritage { rows: vec![None; market.rows.len()], columns: market.regions.iter().map(column).collect() };
        let mut rows: HashMap<Name, usize> = HashMap::new();
        for member in &before.groups {
            let Some(first) = member.first_row else { continue };
            rows.extend(owners(then, member).map(|owner| (owner, first)));
        }
        // Of all cells, so only where something is shared.
        let mut of_cells = None;
        for member in &market.groups {
            let Some(first) = member.first_row else { continue };
            let Some(was) = owners(snapshot, member).find_map(|owner| rows.get(&owner)) else { continue };
            let of_cells: &Vec<Option<u32>> = of_cells.get_or_insert_with(|| cells(snapshot, then));
            for (row, cell) in heritage.rows[first..].iter_mut().zip(of_cells) {
                *row = cell.map(|cell| *was as u32 + cell);
            }
        }
        heritage
    }

    /// Whether nothing was there before.
    pub fn is_empty(&self) -> bool {
        self.rows.iter().all(Option::is_none)
    }

    /// Row now, row before.
    pub fn rows(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.rows.iter().enumerate().filter_map(|(row, before)| Some((row, (*before)? as usize)))
    }

    /// Column now, column before.
    pub fn columns(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.columns.iter().enumerate().filter_map(|(column, before)| Some((column, usize::from((*before)?))))
    }

    /// The column before of one now.
    pub fn before(&self, column: usize) -> Option<u8> {
        self.columns.get(column).copied().flatten()
    }

    /// The column now of one before.
    pub fn column(&self, before: u8) -> Option<u8> {
        self.columns.iter().position(|column| *column == Some(before)).map(|column| column as u8)
    }
}

/// The streams of a group, by what they are called everywhere.
fn owners<'a>(snapshot: &'a Snapshot, member: &MarketGroup) -> impl Iterator<Item = Name> + 'a {
    let streams = &snapshot.groups()[member.group as usize].streams;
    streams.iter().map(|&stream| snapshot.settings_of(snapshot.stream(stream)).owner.to_lowercase())
}

/// By cell now: the cell before.
fn cells(now: &Snapshot, then: &Snapshot) -> Vec<Option<u32>> {
    let (facts, before) = (&now.geography().facts, &then.geography().facts);
    if now.shares_cells(then) {
        return (0..facts.len() as u32).map(Some).collect();
    }
    let place = |facts: &Facts| -> Place { (facts.square, facts.country, facts.asn) };
    let known: HashMap<Place, u32> = before.iter().zip(0..).map(|(facts, cell)| (place(facts), cell)).collect();
    let find = |facts: &Facts| {
        let (square, country, asn) = place(facts);
        // A network that has a cell of its own now was with all the others before.
        known.get(&(square, country, asn)).or_else(|| known.get(&(square, country, None))).copied()
    };
    facts.iter().map(find).collect()
}
