//! What survives a reload: places by square, country and ASN, regions by name. Cells and region numbers do not.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::geo::{CountryCode, Point, Square};

/// What is known of a cell, or of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Key {
    pub location: Option<Point>,
    pub square: Option<Square>,
    pub country: Option<CountryCode>,
    pub asn: Option<u32>,
}

impl Key {
    pub fn new(location: Option<Point>, country: Option<CountryCode>, asn: Option<u32>) -> Key {
        Key { location, square: location.map(Square::of), country, asn }
    }

    /// Of the round-trip times, coarse to fine. Those that need what is not known are left out.
    pub(super) fn levels(&self) -> impl Iterator<Item = Level> {
        let country = self.country.zip(self.asn).map(|(country, asn)| Level::CountryAsn(country, asn));
        let metro = self.asn.zip(self.square).map(|(asn, square)| Level::AsnMetro(asn, square.metro()));
        let cell = self.square.map(|square| Level::Cell(square, self.country, self.asn));
        [country, metro, cell].into_iter().flatten()
    }

    /// All clients of the square and country, whose cell is not split by ASN. `None`: the finest level is that already, or
    /// nobody knows where.
    pub(super) fn whole(&self) -> Option<Level> {
        self.asn.and(self.square).map(|square| Level::Cell(square, self.country, None))
    }

    /// Of the penalties.
    pub(super) fn penalties(&self) -> impl Iterator<Item = Level> {
        [self.country.map(Level::Country), self.asn.map(Level::Asn)].into_iter().flatten()
    }
}

/// What a histogram is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Residuals of a country.
    Country(CountryCode),
    /// Residuals of an ASN.
    Asn(u32),
    CountryAsn(CountryCode, u32),
    AsnMetro(u32, Square),
    /// Without an ASN: all clients of the square and country.
    Cell(Square, Option<CountryCode>, Option<u32>),
}

/// As the state directory has it: `cell 25 -1 GB 2856`, `-` for what is not known.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::Country(country) => write!(f, "country {country}"),
            Level::Asn(asn) => write!(f, "asn {asn}"),
            Level::CountryAsn(country, asn) => write!(f, "country-asn {country} {asn}"),
            Level::AsnMetro(asn, Square { row, column }) => write!(f, "asn-metro {asn} {row} {column}"),
            Level::Cell(Square { row, column }, country, asn) => {
                write!(f, "cell {row} {column} ")?;
                match country {
                    Some(country) => write!(f, "{country}")?,
                    None => f.write_str("-")?,
                }
                match asn {
                    Some(asn) => write!(f, " {asn}"),
                    None => f.write_str(" -"),
                }
            }
        }
    }
}

/// It is no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLevel;

impl FromStr for Level {
    type Err = NoLevel;

    fn from_str(text: &str) -> Result<Level, NoLevel> {
        let words: Vec<&str> = text.splitn(6, ' ').collect();
        let number = |word: &str| word.parse::<u32>().map_err(|_| NoLevel);
        let country = |word: &str| CountryCode::parse(word).ok_or(NoLevel);
        let line = |word: &str| word.parse::<i8>().map_err(|_| NoLevel);
        let square = |row: &str, column: &str| Ok(Square { row: line(row)?, column: line(column)? });
        match words[..] {
            ["country", of] => Ok(Level::Country(country(of)?)),
            ["asn", asn] => Ok(Level::Asn(number(asn)?)),
            ["country-asn", of, asn] => Ok(Level::CountryAsn(country(of)?, number(asn)?)),
            ["asn-metro", asn, row, column] => Ok(Level::AsnMetro(number(asn)?, square(row, column)?)),
            ["cell", row, column, of, asn] => {
                let of = if of == "-" { None } else { Some(country(of)?) };
                let asn = if asn == "-" { None } else { Some(number(asn)?) };
                Ok(Level::Cell(square(row, column)?, of, asn))
            }
            _ => Err(NoLevel),
        }
    }
}

/// A /24 or /48: what counts as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block(pub(super) u64);

impl Block {
    pub fn of(address: IpAddr) -> Block {
        match address.to_canonical() {
            IpAddr::V4(v4) => Block(u64::from(u32::from(v4) >> 8) | 1 << 48),
            IpAddr::V6(v6) => Block((u128::from(v6) >> 80) as u64),
        }
    }
}

/// Who reported: the name of a token, or an address. The same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reporter(pub(super) u32);

impl Reporter {
    pub fn of(name: &str) -> Reporter {
        // 32-bit FNV-1a; 0 stands for all others.
        let hash = name.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Reporter(hash.max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_that_need_what_is_not_known_are_left_out() {
        let (at, gb) = (Point::new(51.5, -0.1), CountryCode::parse("GB"));
        assert_eq!(Key::new(at, gb, Some(2856)).levels().count(), 3);
        assert_eq!(
            Key::new(at, gb, None).levels().collect::<Vec<_>>(),
            [Level::Cell(Square { row: 25, column: -1 }, gb, None)]
        );
        assert_eq!(Key::new(None, gb, Some(1)).levels().count(), 1);
        assert_eq!(Key::new(None, None, Some(1)).levels().count(), 0);
        assert_eq!(Key::new(None, gb, None).penalties().count(), 1);
    }

    #[test]
    fn blocks_are_of_one_family_and_of_24_or_48_bits() {
        let block = |text: &str| Block::of(text.parse().unwrap());
        assert_eq!(block("192.0.2.1"), block("192.0.2.254"));
        assert_eq!(block("::ffff:192.0.2.1"), block("192.0.2.254"));
        assert_ne!(block("192.0.2.1"), block("192.0.3.1"));
        assert_eq!(block("2001:db8:1:2::"), block("2001:db8:1:ffff::"));
        assert_ne!(block("2001:db8:1::"), block("2001:db8:2::"));
        assert_ne!(block("::c0:2:0:0:0"), block("192.0.2.0"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            row in any::<i8>(), column in any::<i8>(), asn in any::<u32>(), letters in "[A-Y]{2}", kind in 0..7u8,
        ) {
            let (square, country) = (Square { row, column }, CountryCode::parse(&letters).unwrap());
            let level = match kind {
                0 => Level::Country(country),
                1 => Level::Asn(asn),
                2 => Level::CountryAsn(country, asn),
                3 => Level::AsnMetro(asn, square),
                4 => Level::Cell(square, Some(country), Some(asn)),
                5 => Level::Cell(square, None, Some(asn)),
                _ => Level::Cell(square, Some(country), None),
            };
            prop_assert_eq!(level.to_string().parse(), Ok(level));
        }

        #[test]
        fn any_text_is_a_level_or_none(text in ".{0,40}") {
            let _ = text.parse::<Level>();
        }
    }
}
