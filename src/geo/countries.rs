//! The countries of ISO 3166-1: their names, continents, and the place of a client of whom only the country is known.
//!
//! The table is `geoip/countries.tsv`, made by `geoip/cities.py` from GeoNames; its columns are told there.

use std::sync::LazyLock;

use super::cities::fold;
use super::{Continent, CountryCode, Point, SubdivisionCode};

pub struct Country {
    pub code: CountryCode,
    /// English.
    pub name: &'static str,
    /// Other ways to write the name, folded.
    pub keys: &'static str,
    pub continent: Continent,
    /// The medoid of its cities weighted by population. `None` where nobody lives.
    pub place: Option<Place>,
    pub population: u32,
}

/// The city that stands for a country.
#[derive(Clone, Copy)]
pub struct Place {
    pub location: Point,
    pub city: &'static str,
}

static TABLE: &str = include_str!("../../geoip/countries.tsv");

static COUNTRIES: LazyLock<Vec<Country>> = LazyLock::new(|| {
    TABLE
        .lines()
        .map(|line| parse(line).expect("the compiled-in table is read whole by a test of this module"))
        .collect()
});

fn parse(line: &'static str) -> Option<Country> {
    let mut columns = line.split('\t');
    let code = CountryCode::parse(columns.next()?)?;
    let (keys, name) = (columns.next()?, columns.next()?);
    let continent = Continent::parse(columns.next()?)?;
    let (lat, lon, city) = (columns.next()?, columns.next()?, columns.next()?);
    let place = match city {
        "" => None,
        _ => Some(Place { location: Point::new(lat.parse().ok()?, lon.parse().ok()?)?, city }),
    };
    Some(Country { code, name, keys, continent, place, population: columns.next()?.parse().ok()? })
}

/// In the order of their codes.
pub fn all() -> &'static [Country] {
    &COUNTRIES
}

pub fn get(code: CountryCode) -> Option<&'static Country> {
    let at = COUNTRIES.binary_search_by_key(&code, |country| country.code).ok()?;
    Some(&COUNTRIES[at])
}

/// By name; case and accents do not matter.
pub fn named(name: &str) -> Option<&'static Country> {
    let name = fold(name);
    COUNTRIES.iter().find(|country| country.keys.split('|').any(|key| key == name))
}

/// Subdivisions by name, for the countries whose flat databases are most used with rules on subdivisions. Others write
/// codes, or know no subdivision.
pub fn subdivision_named(country: CountryCode, name: &str) -> Option<SubdivisionCode> {
    let names: &[(&str, &str)] = match &country.0 {
        b"US" => &US,
        b"CA" => &CA,
        b"AU" => &AU,
        _ => return None,
    };
    names.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).and_then(|(_, code)| SubdivisionCode::parse(code))
}

const US: [(&str, &str); 51] = [
    ("Alaska", "AK"),
    ("Alabama", "AL"),
    ("Arkansas", "AR"),
    ("Arizona", "AZ"),
    ("California", "CA"),
    ("Colorado", "CO"),
    ("Connecticut", "CT"),
    ("District of Columbia", "DC"),
    ("Delaware", "DE"),
    ("Florida", "FL"),
    ("Georgia", "GA"),
    ("Hawaii", "HI"),
    ("Iowa", "IA"),
    ("Idaho", "ID"),
    ("Illinois", "IL"),
    ("Indiana", "IN"),
    ("Kansas", "KS"),
    ("Kentucky", "KY"),
    ("Louisiana", "LA"),
    ("Massachusetts", "MA"),
    ("Maryland", "MD"),
    ("Maine", "ME"),
    ("Michigan", "MI"),
    ("Minnesota", "MN"),
    ("Missouri", "MO"),
    ("Mississippi", "MS"),
    ("Montana", "MT"),
    ("North Carolina", "NC"),
    ("North Dakota", "ND"),
    ("Nebraska", "NE"),
    ("New Hampshire", "NH"),
    ("New Jersey", "NJ"),
    ("New Mexico", "NM"),
    ("Nevada", "NV"),
    ("New York", "NY"),
    ("Ohio", "OH"),
    ("Oklahoma", "OK"),
    ("Oregon", "OR"),
    ("Pennsylvania", "PA"),
    ("Rhode Island", "RI"),
    ("South Carolina", "SC"),
    ("South Dakota", "SD"),
    ("Tennessee", "TN"),
    ("Texas", "TX"),
    ("Utah", "UT"),
    ("Virginia", "VA"),
    ("Vermont", "VT"),
    ("Washington", "WA"),
    ("Wisconsin", "WI"),
    ("West Virginia", "WV"),
    ("Wyoming", "WY"),
];

const CA: [(&str, &str); 13] = [
    ("Alberta", "AB"),
    ("British Columbia", "BC"),
    ("Manitoba", "MB"),
    ("New Brunswick", "NB"),
    ("Newfoundland and Labrador", "NL"),
    ("Northwest Territories", "NT"),
    ("Nova Scotia", "NS"),
    ("Nunavut", "NU"),
    ("Ontario", "ON"),
    ("Prince Edward Island", "PE"),
    ("Quebec", "QC"),
    ("Saskatchewan", "SK"),
    ("Yukon", "YT"),
];

const AU: [(&str, &str); 8] = [
    ("Australian Capital Territory", "ACT"),
    ("New South Wales", "NSW"),
    ("Northern Territory", "NT"),
    ("Queensland", "QLD"),
    ("South Australia", "SA"),
    ("Tasmania", "TAS"),
    ("Victoria", "VIC"),
    ("Western Australia", "WA"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_country() {
        for line in TABLE.lines() {
            assert!(parse(line).is_some(), "{line}");
        }
        assert!(all().windows(2).all(|pair| pair[0].code < pair[1].code), "sorted, for the binary search");
        assert_eq!(all().len(), 250, "249 of ISO 3166-1 and XK");
    }

    #[test]
    fn a_country_stands_where_its_people_are() {
        let place = |code: &str| get(CountryCode::parse(code).unwrap()).unwrap().place.unwrap().location;
        let moscow = Point::new(55.75, 37.62).unwrap();
        assert!(place("RU").distance_km(moscow) < 500.0, "not in Siberia");
        let seoul = Point::new(37.57, 126.98).unwrap();
        assert!(place("KR").distance_km(seoul) < 150.0);
        assert!(get(CountryCode(*b"AQ")).unwrap().place.is_none());
    }

    #[test]
    fn countries_are_found_by_name() {
        assert_eq!(named("Côte d'Ivoire").unwrap().code, CountryCode(*b"CI"));
        assert_eq!(named("united states").unwrap().code, CountryCode(*b"US"));
        assert!(named("Atlantis").is_none());
    }

    #[test]
    fn subdivisions_are_found_by_name() {
        let code =
            |country: &[u8; 2], name| subdivision_named(CountryCode(*country), name).map(|code| code.to_string());
        assert_eq!(code(b"US", "California").as_deref(), Some("CA"));
        assert_eq!(code(b"AU", "New South Wales").as_deref(), Some("NSW"));
        assert_eq!(code(b"FR", "Bretagne"), None);
    }
}
