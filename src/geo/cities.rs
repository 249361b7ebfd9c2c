//! Built-in cities, for `near`.
//!
//! The table is `geoip/cities.tsv`, made by `geoip/cities.py` from GeoNames; its columns are told there.

use std::sync::LazyLock;

use icu_normalizer::DecomposingNormalizer;

use super::{CountryCode, Point, countries};
use crate::memory::{self, Compiled};

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
    /// `City, CC` forms to choose from, most populous first; `City, US-ST` where a country has several such cities.
    Ambiguous { choices: Vec<String> },
}

/// `London`, `London, GB`, `Portland, US-OR` (states of the US only) or the name of a country, which stands for the city
/// nearest to its people; case and accents do not matter.
///
/// A bare name is ambiguous when another city of that name has more than a tenth of the largest one's population. With a
/// country the most populous city of that name is meant. Alternate spellings are known for cities of 100,000 people and
/// more, and count a tenth of their population against cities whose own name it is. Quarters and suburbs of a much larger
/// city count only where nothing else has the name.
pub fn find(near: &str) -> Result<City, CityError> {
    let (name, country, state) = split(near);
    let key = fold(name);
    let mut found: Vec<Candidate> = Vec::new();
    for row in table().rows_of(&key) {
        let city = row.parse();
        let own_name = row.keys().next() == Some(&*key);
        if country.is_none_or(|country| country == city.country) && state.is_none_or(|state| state == row.column(3)) {
            let rank = if own_name { city.population } else { city.population / 10 };
            found.push(Candidate { rank, part: row.column(7) == "1", state: row.column(3), city });
        }
    }
    if country.is_none()
        && let Some(country) = countries::named(name)
        && let Some(place) = country.place
    {
        let city = City {
            name: place.city.to_owned(),
            country: country.code,
            location: place.location,
            population: country.population,
        };
        // A country that is one city with it (Singapore) is no second meaning.
        found.retain(|other| other.city.country != country.code || other.city.location != place.location);
        found.push(Candidate { rank: country.population, part: false, state: "", city });
    }
    if found.iter().any(|candidate| !candidate.part) {
        found.retain(|candidate| !candidate.part);
    }
    // Stable: the table's own order decides between equals.
    found.sort_by_key(|candidate| std::cmp::Reverse(candidate.rank));
    let Some(first) = found.first() else { return Err(CityError::Unknown { nearest: nearest(&key) }) };
    let near_equal = found.iter().filter(|candidate| candidate.rank > first.rank / 10).count();
    if country.is_none() && near_equal > 1 {
        found.truncate(near_equal);
        return Err(CityError::Ambiguous { choices: choices(&found) });
    }
    Ok(found.swap_remove(0).city)
}

/// Whether `code` is an assigned ISO 3166-1 alpha-2 code, or `XK`, which all databases use for Kosovo.
pub fn is_country(code: CountryCode) -> bool {
    countries::get(code).is_some()
}

struct Candidate {
    /// Population, or a tenth of it where the name is an alternate spelling.
    rank: u32,
    part: bool,
    state: &'static str,
    city: City,
}

fn choices(found: &[Candidate]) -> Vec<String> {
    let mut choices = Vec::new();
    for Candidate { city, state, .. } in found {
        let several = found.iter().filter(|other| other.city.country == city.country).count() > 1;
        let choice = if several && !state.is_empty() {
            format!("{}, {}-{state}", city.name, city.country)
        } else {
            format!("{}, {}", city.name, city.country)
        };
        if !choices.contains(&choice) {
            choices.push(choice);
        }
    }
    choices
}

/// `City, CC` or `City, US-ST` into its parts. What follows the comma and is no code belongs to the name.
fn split(near: &str) -> (&str, Option<CountryCode>, Option<&str>) {
    if let Some((name, code)) = near.rsplit_once(',') {
        let code = code.trim();
        if let Some(country) = CountryCode::parse(code) {
            return (name, Some(country), None);
        }
        if let Some((country, state)) = code.split_once('-')
            && let Some(country) = CountryCode::parse(country)
        {
            return (name, Some(country), Some(state));
        }
    }
    (near, None, None)
}

/// Small letters, no accents, words parted by one blank: how names are compared. As `fold` in `geoip/cities.py`.
pub(super) fn fold(name: &str) -> String {
    const NORMALIZER: icu_normalizer::DecomposingNormalizerBorrowed<'static> = DecomposingNormalizer::new_nfkd();
    let lower = name.to_lowercase();
    let mut out = String::with_capacity(name.len());
    let mut blank = false;
    for c in NORMALIZER.normalize(&lower).chars() {
        let plain: &str = match c {
            // Combining Diacritical Marks: what NFKD parted from the Latin letters.
            '\u{300}'..='\u{36f}' | '\'' | '’' => continue,
            'ø' => "o",
            'ł' => "l",
            'đ' | 'ð' => "d",
            'þ' => "th",
            'ß' => "ss",
            'æ' => "ae",
            'œ' => "oe",
            'ı' => "i",
            'ħ' => "h",
            c if c.is_alphanumeric() => {
                if std::mem::take(&mut blank) && !out.is_empty() {
                    out.push(' ');
                }
                out.push(c);
                continue;
            }
            _ => {
                blank = true;
                continue;
            }
        };
        if std::mem::take(&mut blank) && !out.is_empty() {
            out.push(' ');
        }
        out.push_str(plain);
    }
    out
}

pub(crate) static TABLE: &str = include_str!("../../geoip/cities.tsv");

/// A line of the table.
#[derive(Clone, Copy)]
struct Row(&'static str);

impl Row {
    fn column(self, n: usize) -> &'static str {
        self.0.split('\t').nth(n).unwrap_or_default()
    }

    fn keys(self) -> impl Iterator<Item = &'static str> {
        self.column(0).split('|')
    }

    fn read(self) -> Option<City> {
        Some(City {
            name: self.column(1).to_owned(),
            country: CountryCode::parse(self.column(2))?,
            location: Point::new(self.column(4).parse().ok()?, self.column(5).parse().ok()?)?,
            population: self.column(6).parse().ok()?,
        })
    }

    fn parse(self) -> City {
        self.read().expect("the compiled-in table is read whole by a test of this module")
    }
}

/// The table by key; made at the first look-up.
struct Index {
    /// Where in the table each key stands, sorted by key, equal ones in the order of the table. A tenth of the memory
    /// that keys with their rows would take.
    keys: Box<[u32]>,
}

fn table() -> &'static Index {
    static INDEX: LazyLock<Index> = LazyLock::new(|| {
        let position = |text: &str| (text.as_ptr().addr() - TABLE.as_ptr().addr()) as u32;
        // The first letters, as a number, decide nearly always.
        let mut keys: Vec<(u64, &str)> =
            TABLE.lines().flat_map(|line| Row(line).keys()).map(|key| (first_letters(key), key)).collect();
        keys.sort_unstable_by_key(|&(letters, key)| (letters, key, position(key)));
        let keys = keys.iter().map(|(_, key)| position(key)).collect();
        memory::forget(Compiled::Cities);
        Index { keys }
    });
    &INDEX
}

/// Ordered as the texts are, as far as eight bytes tell them apart.
fn first_letters(key: &str) -> u64 {
    let mut letters = [0; 8];
    let length = key.len().min(8);
    letters[..length].copy_from_slice(&key.as_bytes()[..length]);
    u64::from_be_bytes(letters)
}

/// The key that stands at `position` of the table.
fn key_at(position: u32) -> &'static str {
    let rest = &TABLE[position as usize..];
    rest.find(['|', '\t']).map_or(rest, |end| &rest[..end])
}

/// The row that holds `position`.
fn row_at(position: u32) -> Row {
    let (before, behind) = TABLE.split_at(position as usize);
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let end = behind.find('\n').map_or(TABLE.len(), |length| before.len() + length);
    Row(&TABLE[start..end])
}

impl Index {
    fn rows_of(&self, key: &str) -> impl Iterator<Item = Row> {
        let first = self.keys.partition_point(|&position| key_at(position) < key);
        let key = key.to_owned();
        let same = self.keys[first..].iter().take_while(move |&&position| key_at(position) == key);
        same.map(|&position| row_at(position))
    }
}

/// At most three names that `key` may have been meant to be.
fn nearest(key: &str) -> Vec<String> {
    /// Jaro-Winkler similarity below which a name is no help.
    const ALIKE: f64 = 0.85;
    let letters = Letters::of(key);
    let mut near: Vec<(f64, u32, &str)> = TABLE
        .lines()
        .map(Row)
        .filter_map(|row| {
            let known = row.keys().next().unwrap_or_default();
            if letters.at_most_alike(known) < ALIKE {
                return None;
            }
            let alike = strsim::jaro_winkler(known, key);
            (alike >= ALIKE).then(|| (alike, row.column(6).parse().unwrap_or(0), row.column(1)))
        })
        .chain(countries::all().iter().filter_map(|country| {
            let alike = country.keys.split('|').map(|known| strsim::jaro_winkler(known, key)).fold(0.0, f64::max);
            (alike >= ALIKE).then_some((alike, country.population, country.name))
        }))
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    let mut names: Vec<String> = Vec::new();
    for (_, _, name) in near {
        if names.len() < 3 && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// How often a name has each letter, to tell quickly which names cannot be alike: a file may have many that are unknown,
/// and the table has some 30,000 cities.
struct Letters<'k> {
    key: &'k str,
    length: usize,
    /// By the last bits of the letter. Letters that share a count only make names look more alike.
    counts: [u8; 64],
}

impl Letters<'_> {
    fn of(key: &str) -> Letters<'_> {
        let mut counts = [0u8; 64];
        key.chars().for_each(|c| counts[c as usize % 64] = counts[c as usize % 64].saturating_add(1));
        Letters { key, length: key.chars().count(), counts }
    }

    /// No less than the Jaro-Winkler similarity to `known`.
    fn at_most_alike(&self, known: &str) -> f64 {
        let mut left = self.counts;
        let (mut length, mut common) = (0usize, 0usize);
        for c in known.chars() {
            length += 1;
            let left = &mut left[c as usize % 64];
            if *left > 0 {
                *left -= 1;
                common += 1;
            }
        }
        if common == 0 {
            return if length + self.length == 0 { 1.0 } else { 0.0 };
        }
        let common = common as f64;
        let jaro = (common / length as f64 + common / self.length as f64 + 1.0) / 3.0;
        let prefix = known.chars().zip(self.key.chars()).take(4).take_while(|(a, b)| a == b).count();
        // Rounding may fall either way.
        jaro + 0.1 * prefix as f64 * (1.0 - jaro) + 1e-9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_never_rule_out_a_name_that_is_alike() {
        let long = "a".repeat(300);
        for key in ["lomdon", "sao paolo", "frankfrut am main", "q", "", "東京都", "nwe yrok", &long] {
            let letters = Letters::of(key);
            let mut ruled_out = 0;
            for known in TABLE.lines().map(Row).flat_map(Row::keys) {
                let (bound, alike) = (letters.at_most_alike(known), strsim::jaro_winkler(known, key));
                assert!(bound >= alike, "{known} {key}: {bound} < {alike}");
                ruled_out += usize::from(bound < 0.85);
            }
            assert!(ruled_out > 20_000, "{key}: only {ruled_out} names are spared");
        }
    }

    fn at(near: &str) -> (String, String) {
        let city = find(near).unwrap_or_else(|error| panic!("{near}: {error:?}"));
        (city.name, city.country.to_string())
    }

    fn choices_of(near: &str) -> Vec<String> {
        match find(near) {
            Err(CityError::Ambiguous { choices }) => choices,
            other => panic!("{near}: {other:?}"),
        }
    }

    #[test]
    fn every_line_of_the_table_is_a_city_and_its_first_key_is_its_folded_name() {
        for row in TABLE.lines().map(Row) {
            assert!(row.read().is_some_and(|city| is_country(city.country)), "{}", row.0);
            // Names in other scripts than Latin keep marks that only Python's table knows as combining.
            let name = fold(row.column(1));
            assert!(row.keys().next() == Some(&*name) || !name.is_ascii(), "{}: {name}", row.0);
        }
    }

    #[test]
    fn the_usual_cities_of_servers_need_no_country() {
        for (near, name, country) in [
            ("Ashburn", "Ashburn", "US"),
            ("Council Bluffs", "Council Bluffs", "US"),
            ("The Dalles", "The Dalles", "US"),
            ("Frankfurt", "Frankfurt am Main", "DE"),
            ("London", "London", "GB"),
            ("Singapore", "Singapore", "SG"),
            ("Tokyo", "Tokyo", "JP"),
            ("Sydney", "Sydney", "AU"),
            ("Mumbai", "Mumbai", "IN"),
            ("Bombay", "Mumbai", "IN"),
            ("Johannesburg", "Johannesburg", "ZA"),
            ("Dublin", "Dublin", "IE"),
            ("New York", "New York City", "US"),
            ("Paris", "Paris", "FR"),
            ("Amsterdam", "Amsterdam", "NL"),
            ("Stockholm", "Stockholm", "SE"),
            ("Seoul", "Seoul", "KR"),
            ("Dubai", "Dubai", "AE"),
            ("Montreal", "Montréal", "CA"),
            ("Los Angeles", "Los Angeles", "US"),
            ("Chicago", "Chicago", "US"),
        ] {
            assert_eq!(at(near), (name.to_owned(), country.to_owned()), "{near}");
        }
        let ashburn = find("Ashburn").unwrap().location;
        assert!(ashburn.distance_km(Point::new(39.04, -77.49).unwrap()) < 5.0, "not Chicago's quarter of that name");
    }

    #[test]
    fn case_and_accents_do_not_matter() {
        assert_eq!(find("sao paulo"), find("São Paulo"));
        assert_eq!(find("ZÜRICH"), find("Zurich"));
        assert_eq!(find("Malmo"), find("Malmö"));
        assert_eq!(find("lodz"), find("Łódź"));
        assert_eq!(find("  frankfurt  am main "), find("Frankfurt"));
    }

    #[test]
    fn a_country_name_is_a_place_in_that_country() {
        assert_eq!(at("Mauritius").1, "MU");
        assert_eq!(at("Lebanon").1, "LB");
        assert_eq!(at("Mexico").1, "MX");
        assert_eq!(at("Luxembourg"), ("Luxembourg".to_owned(), "LU".to_owned()));
    }

    #[test]
    fn a_bare_name_of_two_large_cities_asks_for_the_country() {
        assert_eq!(choices_of("Hyderabad"), ["Hyderabad, IN", "Hyderabad, PK"]);
        assert_eq!(at("Hyderabad, PK").1, "PK");
        assert_eq!(at("San Jose, US").1, "US");
    }

    #[test]
    fn cities_of_one_country_are_told_apart_by_state() {
        let choices = choices_of("Portland");
        assert_eq!(choices, ["Portland, US-OR", "Portland, US-ME"]);
        let places: Vec<_> = choices.iter().map(|choice| find(choice).unwrap().location).collect();
        assert!(places[0].distance_km(places[1]) > 3000.0);
    }

    #[test]
    fn an_unknown_name_brings_the_nearest_known_ones() {
        let nearest = |near: &str| match find(near) {
            Err(CityError::Unknown { nearest }) => nearest,
            other => panic!("{near}: {other:?}"),
        };
        assert_eq!(nearest("Frankfort am Mein")[0], "Frankfurt am Main");
        assert_eq!(nearest("Amsterdm")[0], "Amsterdam");
        assert_eq!(nearest("Mauritus")[0], "Mauritius");
        assert!(nearest("qqqqqqqqqq").is_empty());
        assert!(nearest("").is_empty());
        assert!(matches!(find("London, ZZ"), Err(CityError::Unknown { .. })));
    }
}
