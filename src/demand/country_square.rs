//! Where cells are, by a name that outlives loads and restarts.

use std::fmt;
use std::str::FromStr;

use crate::geo::{CountryCode, Square};

/// What of a country lies in one square, of which there are some thousand on land. As text `FR:24:1`, `FR` for the rest of
/// a country, and `-` for what no database places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CountrySquare {
    pub country: Option<CountryCode>,
    pub square: Option<Square>,
}

impl CountrySquare {
    /// Of the country, what has no square of its own.
    pub fn rest(self) -> CountrySquare {
        CountrySquare { square: None, ..self }
    }
}

impl fmt::Display for CountrySquare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.country {
            Some(country) => write!(f, "{country}")?,
            None => f.write_str("-")?,
        }
        self.square.map_or(Ok(()), |Square { row, column }| write!(f, ":{row}:{column}"))
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

impl FromStr for CountrySquare {
    type Err = NoSquare;

    fn from_str(text: &str) -> Result<CountrySquare, NoSquare> {
        let read = || {
            let (country, square) = text.split_once(':').map_or((text, None), |(country, at)| (country, Some(at)));
            let country = if country == "-" { None } else { Some(CountryCode::parse(country)?) };
            let square = match square {
                Some(square) => {
                    let (row, column) = square.split_once(':')?;
                    Some(Square { row: row.parse().ok()?, column: column.parse().ok()? })
                }
                None => None,
            };
            Some(CountrySquare { country, square })
        };
        read().ok_or_else(|| NoSquare(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn country_squares_are_named_by_country_row_and_column() {
        let named = |text: &str| text.parse::<CountrySquare>();
        let (country, square) = (CountryCode::parse("NZ"), Some(Square { row: -19, column: 87 }));
        assert_eq!(named("NZ:-19:87"), Ok(CountrySquare { country, square }));
        assert_eq!(named("NZ"), Ok(CountrySquare { country, square: None }));
        assert_eq!(named("-"), Ok(CountrySquare::default()));
        for text in ["", "FR:", "FR:1", "FR:1:2:3", "France", "FR:999:0", "ZZ", "FR: 1:2"] {
            assert!(named(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            row in any::<i8>(), column in any::<i8>(), letters in "([A-Y]{2})?", is_rest in any::<bool>(),
        ) {
            let square = (!is_rest).then_some(Square { row, column });
            let one = CountrySquare { country: CountryCode::parse(&letters), square };
            prop_assert_eq!(one.to_string().parse(), Ok(one));
        }

        #[test]
        fn any_text_is_a_country_square_or_none(text in ".{0,20}") {
            let _ = text.parse::<CountrySquare>();
        }
    }
}
