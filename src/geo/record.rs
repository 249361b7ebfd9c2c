//! What decisions are made of: the attributes of addresses, who said each, and how what several say becomes one.

use std::collections::HashMap;

use super::overrides::Override;
use super::schema::Attributes;
use super::{Continent, CountryCode, Point, SubdivisionCode, countries};

/// What decisions are made of, with who said each. Equal ones are stored once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub country: Option<CountryCode>,
    pub subdivision: Option<SubdivisionCode>,
    pub continent: Option<Continent>,
    /// In 1/10,000 of a degree: 11 m.
    location: Option<(i32, i32)>,
    pub asn: Option<u32>,
    pub by: By,
}

/// Who said each attribute: the number of a file, or one of the numbers above all files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct By {
    pub country: u8,
    pub subdivision: u8,
    pub continent: u8,
    pub location: u8,
    pub asn: u8,
}

pub(super) const BY_COUNTRY: u8 = 255;
pub(super) const BY_POPULATION: u8 = 254;
pub(super) const BY_OVERRIDES: u8 = 253;
/// More database files than can be numbered are refused.
pub(super) const MAX_FILES: usize = 250;

impl Record {
    pub fn new(said: Attributes, file: u8) -> Record {
        let units = |degrees: f64| (degrees * 10_000.0).round() as i32;
        let by = |known: bool| if known { file } else { 0 };
        Record {
            country: said.country,
            subdivision: said.subdivision,
            continent: said.continent,
            location: said.location.map(|point| (units(point.lat()), units(point.lon()))),
            asn: said.asn,
            // Unknown attributes are said by no one: all the same number, so that equal knowledge is one record.
            by: By {
                country: by(said.country.is_some()),
                subdivision: by(said.subdivision.is_some()),
                continent: by(said.continent.is_some()),
                location: by(said.location.is_some()),
                asn: by(said.asn.is_some()),
            },
        }
    }

    pub fn location(&self) -> Option<Point> {
        let (lat, lon) = self.location?;
        Point::new(f64::from(lat) / 10_000.0, f64::from(lon) / 10_000.0)
    }

    /// What `self` does not know, `other` may tell.
    pub fn or(mut self, other: &Record) -> Record {
        if self.country.is_none() {
            (self.country, self.by.country) = (other.country, other.by.country);
        }
        // A subdivision is one of a country: that of a file which sees another country means nothing here.
        if self.subdivision.is_none() && self.country == other.country {
            (self.subdivision, self.by.subdivision) = (other.subdivision, other.by.subdivision);
        }
        if self.continent.is_none() {
            (self.continent, self.by.continent) = (other.continent, other.by.continent);
        }
        if self.location.is_none() {
            (self.location, self.by.location) = (other.location, other.by.location);
        }
        if self.asn.is_none() {
            (self.asn, self.by.asn) = (other.asn, other.by.asn);
        }
        self
    }

    /// The operator's word beats all files.
    pub fn placed(mut self, said: &Override) -> Record {
        let attributes = Attributes { location: Some(said.location), ..Attributes::default() };
        (self.location, self.by.location) = (Record::new(attributes, 0).location, BY_OVERRIDES);
        if let Some(country) = said.country {
            if self.country != Some(country) {
                // They were those of the other country.
                (self.subdivision, self.by.subdivision) = (None, 0);
                (self.continent, self.by.continent) = (None, 0);
            }
            (self.country, self.by.country) = (Some(country), BY_OVERRIDES);
        }
        self
    }

    /// What follows from the country alone.
    pub fn completed(mut self) -> Record {
        let Some(country) = self.country.and_then(countries::get) else { return self };
        if self.continent.is_none() {
            (self.continent, self.by.continent) = (Some(country.continent), BY_COUNTRY);
        }
        if self.location.is_none()
            && let Some(place) = country.place
        {
            let attributes = Attributes { location: Some(place.location), ..Attributes::default() };
            (self.location, self.by.location) = (Record::new(attributes, 0).location, BY_POPULATION);
        }
        self
    }
}

/// Distinct records by number; number 0 knows nothing.
pub(super) struct Records {
    pub list: Vec<Record>,
    ids: HashMap<Record, u32, foldhash::fast::RandomState>,
}

impl Default for Records {
    fn default() -> Records {
        let mut records = Records { list: Vec::new(), ids: HashMap::default() };
        records.id(Record::default());
        records
    }
}

impl Records {
    pub fn id(&mut self, record: Record) -> u32 {
        *self.ids.entry(record).or_insert_with(|| {
            self.list.push(record);
            self.list.len() as u32 - 1
        })
    }
}
