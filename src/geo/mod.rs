//! Where clients are: location databases compiled to an [`Atlas`] that steering and answers can use.
//!
//! ```text
//! *.mmdb, overrides.toml ─► Database (ranges → attributes) ─► Places (ranges → place, truth of rules) ─► Atlas (prefix → cell, scope)
//! ```
//!
//! Knows no DNS. Nothing finer than /24 (IPv4) and /48 (IPv6) is kept in places and atlas.

mod atlas;
pub mod cities;
pub mod compact;
pub mod compare;
pub mod countries;
mod database;
mod embedded;
mod merge;
mod mmdb;
mod networks;
mod overrides;
mod places;
mod point;
mod ranges;
mod reading;
mod record;
mod schema;
mod square;
mod table;

pub use atlas::{Atlas, CellId, Located, Search};
pub(crate) use database::WORLD;
pub use database::{Database, FileInfo, Found, Origin, Told, expand};
pub use networks::Network;
pub use places::{Place, PlaceId, Places};
pub use point::Point;
use ranges::Ranges;
pub use square::Square;

use std::fmt;

use ipnet::IpNet;

/// ISO 3166-1 alpha-2, upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CountryCode(pub [u8; 2]);

impl CountryCode {
    /// Two letters; whether they are assigned is asked of [`cities::is_country`]. `ZZ` is "unknown", not a country.
    pub fn parse(code: &str) -> Option<CountryCode> {
        let [a, b] = code.as_bytes() else { return None };
        let code = [a.to_ascii_uppercase(), b.to_ascii_uppercase()];
        (code.iter().all(u8::is_ascii_uppercase) && &code != b"ZZ").then_some(CountryCode(code))
    }

    pub fn continent(self) -> Option<Continent> {
        Some(countries::get(self)?.continent)
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&byte| write!(f, "{}", char::from(byte)))
    }
}

/// ISO 3166-2 without the country: `CA` of `US-CA`; at most three letters or digits, padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubdivisionCode(pub [u8; 3]);

impl SubdivisionCode {
    /// One to three letters or digits.
    pub fn parse(code: &str) -> Option<SubdivisionCode> {
        let mut out = [0; 3];
        let fits = (1..=3).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
        fits.then(|| {
            out[..code.len()].copy_from_slice(code.to_ascii_uppercase().as_bytes());
            SubdivisionCode(out)
        })
    }
}

impl fmt::Display for SubdivisionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().filter(|&&byte| byte != 0).try_for_each(|&byte| write!(f, "{}", char::from(byte)))
    }
}

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

impl Continent {
    pub const ALL: [Continent; 7] = [
        Continent::Africa,
        Continent::Antarctica,
        Continent::Asia,
        Continent::Europe,
        Continent::NorthAmerica,
        Continent::Oceania,
        Continent::SouthAmerica,
    ];

    /// A name (`South America`) or a code of the databases (`SA`), in any case.
    pub fn parse(word: &str) -> Option<Continent> {
        Continent::ALL
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(word) || known.code().eq_ignore_ascii_case(word))
    }

    pub fn name(self) -> &'static str {
        match self {
            Continent::Africa => "Africa",
            Continent::Antarctica => "Antarctica",
            Continent::Asia => "Asia",
            Continent::Europe => "Europe",
            Continent::NorthAmerica => "North America",
            Continent::Oceania => "Oceania",
            Continent::SouthAmerica => "South America",
        }
    }

    /// As MaxMind and GeoNames write it.
    pub fn code(self) -> &'static str {
        match self {
            Continent::Africa => "AF",
            Continent::Antarctica => "AN",
            Continent::Asia => "AS",
            Continent::Europe => "EU",
            Continent::NorthAmerica => "NA",
            Continent::Oceania => "OC",
            Continent::SouthAmerica => "SA",
        }
    }
}

impl fmt::Display for Continent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
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

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Country(code) => code.fmt(f),
            Match::Subdivision(country, code) => write!(f, "{country}-{code}"),
            Match::Continent(continent) => continent.fmt(f),
            Match::Asn(asn) => write!(f, "AS{asn}"),
            Match::Prefix(prefix) => prefix.fmt(f),
        }
    }
}
