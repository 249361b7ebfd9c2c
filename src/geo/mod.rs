//! Where clients are: location databases compiled to an [`Atlas`] that steering and answers can use.
//!
//! ```text
//! *.mmdb, overrides.toml ─► Database (ranges → attributes) ─► Places (ranges → place, truth of rules) ─► Atlas (prefix → cell, scope)
//! ```
//!
//! Knows no DNS. Nothing finer than /24 (IPv4) and /48 (IPv6) is kept in places and atlas.

mod point;
pub use point::Point;

use ipnet::IpNet;

/// ISO 3166-1 alpha-2, upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CountryCode(pub [u8; 2]);

/// ISO 3166-2 without the country: `CA` of `US-CA`; at most three letters or digits, padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubdivisionCode(pub [u8; 3]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Continent {
    Africa,
    Antarctica,
    Asia,
    Europe,
    NorthAmerica,
    Oceania,
    SouthAmerica,
}

/// One item of a rule's `from`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    Country(CountryCode),
    Subdivision(CountryCode, SubdivisionCode),
    Continent(Continent),
    Asn(u32),
    /// No longer than /24 or /48, no host bits.
    Prefix(IpNet),
}

// ---- skeleton: signatures the other rooms build on ----

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::config::Diagnostic;

/// The merged location databases and overrides.
pub struct Database {}

impl Database {
    /// Reads and verifies `files` (each attribute comes from the first file that knows it) and the overrides.
    pub fn load(_files: &[PathBuf], _overrides: Option<&Path>) -> Result<Database, Vec<Diagnostic>> {
        todo!()
    }

    /// The bundled `geoip/world.mmdb`, compiled into the binary.
    pub fn bundled() -> Database {
        todo!()
    }

    /// Knows nothing: every address is unknown.
    pub fn empty() -> Database {
        todo!()
    }

    /// False when no loaded database could ever make `rule` true (no ASN database for `AS64500`…). Prefixes always can.
    pub fn knows(&self, _rule: &Match) -> bool {
        todo!()
    }
}

/// Index into [`Places::list`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceId(pub u32);

/// Addresses that steering may tell apart: one location and country of the databases, and one truth of every rule.
#[derive(Clone, Debug)]
pub struct Place {
    /// `None`: no database places these addresses.
    pub location: Option<Point>,
    pub country: Option<CountryCode>,
    /// Number of IPv4 /24 and IPv6 /48 blocks that lie here (a /24 weighs as much as a /48).
    pub weight: u64,
    /// Bit `i` is the truth of `froms[i]` given to [`Places::build`].
    pub truth: Box<[u64]>,
}

impl Place {
    pub fn matches(&self, from: usize) -> bool {
        self.truth[from / 64] >> (from % 64) & 1 == 1
    }
}

/// Prefix → place, at the databases' own resolution (/24, /48).
pub struct Places {
    /// Place 0 is the unknown place where no rule matches: no location, no country.
    pub list: Vec<Place>,
}

impl Places {
    /// `froms`: the distinct `from` sets of all rules; each is true where any of its items is.
    pub fn build(_database: &Database, _froms: &[Vec<Match>]) -> Places {
        todo!()
    }

    pub fn locate(&self, _address: IpAddr) -> PlaceId {
        todo!()
    }
}

/// Places steered alike by every plan. Cell 0 holds place 0 (and perhaps others).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellId(pub u16);

/// Where a client is, as the answer path needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub cell: CellId,
    /// The coarsest block around the address that lies in one cell (RFC 7871 scope prefix-length); never 0.
    pub scope: u8,
    /// `scope`, but no coarser than /20 (IPv4), /40 (IPv6), 96 + 20 (IPv4 inside IPv6): the block within which one
    /// answer is given where answers are spread.
    pub spread_scope: u8,
}

/// Prefix → cell and scope, in one or two dependent loads.
pub struct Atlas {}

impl Atlas {
    /// `cell_of_place[p]` for every place.
    pub fn build(_places: &Places, _cell_of_place: &[CellId]) -> Atlas {
        todo!()
    }

    /// `address` zero-padded behind `source` bits (32 or 128 for a whole address). IPv4 inside IPv6 (::ffff:0:0/96,
    /// 64:ff9b::/96, 2002::/16) is found by its IPv4 address when `source` holds it whole enough to be IPv4.
    pub fn locate(&self, _address: IpAddr, _source: u8) -> Located {
        todo!()
    }
}

/// Built-in cities, for `near`.
pub mod cities {
    use super::{CountryCode, Point};

    #[derive(Clone, Debug, PartialEq)]
    pub struct City {
        pub name: String,
        pub country: CountryCode,
        pub location: Point,
        pub population: u32,
    }

    #[derive(Clone, Debug, PartialEq)]
    pub enum CityError {
        /// The nearest known names, best first.
        Unknown { nearest: Vec<String> },
        /// `City, CC` forms to choose from, most populous first.
        Ambiguous { choices: Vec<String> },
    }

    /// `London` or `London, GB`; case and accents do not matter. A bare name is ambiguous when another city of that
    /// name has more than a tenth of the largest one's population.
    pub fn find(_near: &str) -> Result<City, CityError> {
        todo!()
    }

    /// Whether `code` is an assigned ISO 3166-1 alpha-2 code.
    pub fn is_country(_code: CountryCode) -> bool {
        todo!()
    }
}
