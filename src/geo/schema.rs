//! What a record of a location database says, whatever its schema.
//!
//! Schemas are noticed by looking at each record, not by file name or database type. One reader serves them all, because
//! the same key never means two things where it matters:
//!
//! | key | GeoIP2, GeoLite2, DB-IP | flat (IPinfo, DB-IP, ip-location-db) |
//! | --- | --- | --- |
//! | `country` | `{ iso_code }` | code or name |
//! | `country_code` | | code |
//! | `subdivisions` | `[{ iso_code }, …]` | |
//! | `region`, `region_code`, `state1`, `state` | | code or (US, CA, AU) name |
//! | `continent`, `continent_code` | `{ code }` | code or name |
//! | `location` | `{ latitude, longitude, accuracy_radius }` | |
//! | `latitude`, `lat`, `longitude`, `lng`, `lon` | | number or text |
//! | `autonomous_system_number`, `asn`, `as_number` | number | number, `"64500"` or `"AS64500"` |
//! | `traits` | `{ autonomous_system_number }` | |

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::countries;
use super::{Continent, CountryCode, Point, SubdivisionCode};

/// What decisions are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attributes {
    pub country: Option<CountryCode>,
    /// Of `country`; without one it means nothing.
    pub subdivision: Option<SubdivisionCode>,
    pub continent: Option<Continent>,
    pub location: Option<Point>,
    pub asn: Option<u32>,
}

/// A record as its file has it. A map of an unknown schema knows nothing; a record that is no map does not decode.
#[derive(Default)]
pub struct Record(pub Attributes);

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Record, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'de>, A::Error> {
                let mut raw = Raw::default();
                while let Some(key) = map.next_key::<&str>()? {
                    match key {
                        "country_code" => raw.country_code = map.next_value()?,
                        "country" => raw.country = map.next_value()?,
                        "subdivisions" => raw.subdivision = map.next_value()?,
                        "region_code" => raw.region_code = map.next_value()?,
                        "region" | "state1" | "state" => raw.region = map.next_value()?,
                        "continent_code" => raw.continent_code = map.next_value()?,
                        "continent" => raw.continent = map.next_value()?,
                        "location" => raw.location = map.next_value()?,
                        "latitude" | "lat" => raw.latitude = map.next_value()?,
                        "longitude" | "lng" | "lon" => raw.longitude = map.next_value()?,
                        "autonomous_system_number" | "asn" | "as_number" => raw.asn = map.next_value()?,
                        "traits" => raw.traits = map.next_value()?,
                        "city" | "postal" => {
                            map.next_value::<IgnoredAny>()?;
                            raw.finer = true;
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Fields).map(|raw| Record(raw.attributes()))
    }
}

/// The fields that matter, before their words are understood.
#[derive(Default)]
struct Raw<'de> {
    country_code: Value<'de>,
    country: Value<'de>,
    subdivision: Value<'de>,
    region_code: Value<'de>,
    region: Value<'de>,
    continent_code: Value<'de>,
    continent: Value<'de>,
    location: Value<'de>,
    latitude: Value<'de>,
    longitude: Value<'de>,
    asn: Value<'de>,
    traits: Value<'de>,
    /// Something finer than the country is known.
    finer: bool,
}

/// MaxMind's accuracy radius of a location that stands for a whole country.
const COUNTRY_RADIUS_KM: f64 = 500.0;

impl Raw<'_> {
    fn attributes(&self) -> Attributes {
        let country = self.country_code.country().or_else(|| self.country.country());
        let subdivision = country.and_then(|country| {
            let words = [&self.subdivision, &self.region_code, &self.region];
            words.into_iter().find_map(|word| subdivision(country, word.code()?))
        });
        let continent = [&self.continent_code, &self.continent].into_iter().find_map(|v| Continent::parse(v.code()?));
        // Where MaxMind knows no more than the country it gives a point in its middle, maybe in a lake in Kansas.
        // Such a record is country-only; it will be placed where people live.
        let middle = !self.finer
            && subdivision.is_none()
            && country.is_some()
            && self.location.radius.is_some_and(|radius| radius >= COUNTRY_RADIUS_KM);
        let location = if middle {
            None
        } else {
            point(self.location.latitude, self.location.longitude)
                .or_else(|| point(self.latitude.number(), self.longitude.number()))
        };
        let asn = self.asn.asn().or_else(|| self.traits.asn.filter(|&asn| asn != 0));
        Attributes { country, subdivision, continent, location, asn }
    }
}

/// Files without a location write 0, 0 as often as nothing; nobody lives there.
fn point(lat: Option<f64>, lon: Option<f64>) -> Option<Point> {
    let (lat, lon) = (lat?, lon?);
    if lat == 0.0 && lon == 0.0 { None } else { Point::new(lat, lon) }
}

fn subdivision(country: CountryCode, word: &str) -> Option<SubdivisionCode> {
    SubdivisionCode::parse(word).or_else(|| countries::subdivision_named(country, word))
}

/// Any value, with the leaves by which the nested schemas tell it.
#[derive(Default)]
struct Value<'de> {
    text: Option<&'de str>,
    number: Option<f64>,
    /// `iso_code` or `code` of a map, or of the first map in a list.
    code: Option<&'de str>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    radius: Option<f64>,
    asn: Option<u32>,
}

impl Value<'_> {
    fn code(&self) -> Option<&str> {
        self.code.or(self.text).filter(|text| !text.is_empty())
    }

    fn country(&self) -> Option<CountryCode> {
        let code = self.code()?;
        CountryCode::parse(code).or_else(|| countries::named(code).map(|country| country.code))
    }

    fn number(&self) -> Option<f64> {
        self.number.or_else(|| self.text?.trim().parse().ok())
    }

    /// AS 0 means "none" (RFC 7607).
    fn asn(&self) -> Option<u32> {
        let number = match (self.number, self.text) {
            (Some(number), _) if (1.0..=f64::from(u32::MAX)).contains(&number) => number as u32,
            (None, Some(text)) => {
                let digits = text.trim().strip_prefix("AS").unwrap_or(text.trim());
                digits.parse().ok()?
            }
            _ => return None,
        };
        (number != 0).then_some(number)
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value<'de>, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
                Ok(Value { text: Some(text), ..Value::default() })
            }
            fn visit_str<E>(self, _: &str) -> Result<Value<'de>, E> {
                Ok(Value::default())
            }
            fn visit_borrowed_bytes<E>(self, _: &'de [u8]) -> Result<Value<'de>, E> {
                Ok(Value::default())
            }
            fn visit_bytes<E>(self, _: &[u8]) -> Result<Value<'de>, E> {
                Ok(Value::default())
            }
            fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
                Ok(Value::default())
            }
            fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
                Ok(Value { number: Some(number), ..Value::default() })
            }
            fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
                Ok(Value { number: Some(number as f64), ..Value::default() })
            }
            fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
                Ok(Value { number: Some(number as f64), ..Value::default() })
            }
            fn visit_u128<E>(self, _: u128) -> Result<Value<'de>, E> {
                Ok(Value::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
                // ISO 3166-2 subdivisions stand from the largest to the smallest.
                let first = seq.next_element::<Value<'de>>()?.unwrap_or_default();
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(first)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
                let mut value = Value::default();
                while let Some(key) = map.next_key::<&str>()? {
                    match key {
                        "iso_code" | "code" => value.code = map.next_value::<Value<'de>>()?.text,
                        "latitude" => value.latitude = map.next_value::<Value<'de>>()?.number(),
                        "longitude" => value.longitude = map.next_value::<Value<'de>>()?.number(),
                        "accuracy_radius" => value.radius = map.next_value::<Value<'de>>()?.number(),
                        "autonomous_system_number" => value.asn = map.next_value::<Value<'de>>()?.asn(),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(value)
            }
        }
        deserializer.deserialize_any(Any)
    }
}
