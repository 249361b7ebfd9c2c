//! `meridian geoip inspect | compact | compare`: what the location databases say, and smaller ones made of them.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::config::Diagnostic;
use crate::geo::cities::{self, CityError};
use crate::geo::compare::{Draw, compare as measure};
use crate::geo::{Database, Match, Places, Point, Told, compact as smaller, expand};

/// Prints what is known of `address`, and who said each part; then the place of the block that answers are made for.
///
/// The exit code is 1 when nothing at all is known. Errors are those of `out`.
pub fn inspect(address: IpAddr, database: &Database, json: bool, out: &mut dyn Write) -> io::Result<u8> {
    let found = database.lookup(address);
    let subdivision = found.country.as_ref().zip(found.subdivision.as_ref()).map(|(country, subdivision)| Told {
        value: Match::Subdivision(country.value, subdivision.value).to_string(),
        by: subdivision.by.clone(),
    });
    let attributes = [
        ("country", said(found.country.as_ref(), ToString::to_string)),
        ("subdivision", said(subdivision.as_ref(), Clone::clone)),
        ("continent", said(found.continent.as_ref(), ToString::to_string)),
        ("location", said(found.location.as_ref(), |point| degrees(*point))),
        ("as", said(found.asn.as_ref(), |&asn| Match::Asn(asn).to_string())),
    ];
    let places = Places::build(database, &[]);
    let place = &places.list[places.locate(address).0 as usize];
    let block = block(address);
    let known = attributes.iter().any(|(_, said)| said.is_some());
    if json {
        let mut all = json!({
            "address": address,
            "network": found.network,
            "place": {
                "block": block.to_string(),
                "country": place.country.map(|country| country.to_string()),
                "location": place.location.map(|point| [point.lat(), point.lon()]),
            },
            "files": database.files().iter().map(|file| json!({
                "path": file.path.to_string_lossy(),
                "type": file.database_type,
                "built": date(file.built),
                "networks": file.networks,
            })).collect::<Vec<_>>(),
        });
        for (name, said) in attributes {
            all[name] = match said {
                Some((value, by)) => json!({ "value": value, "by": by }),
                None => Value::Null,
            };
        }
        writeln!(out, "{all:#}")?;
        return Ok(u8::from(!known));
    }
    writeln!(out, "{address}")?;
    writeln!(out, "  network      {}", found.network)?;
    for (name, said) in attributes {
        match said {
            Some((value, by)) => writeln!(out, "  {name:<12} {value:<20} {by}")?,
            None => writeln!(out, "  {name:<12} unknown")?,
        }
    }
    let country = place.country.map_or("no country".to_owned(), |country| country.to_string());
    let location = place.location.map_or("unknown".to_owned(), degrees);
    writeln!(out, "  {:<12} {location}, {country}: all of {block} is taken to be there", "place")?;
    for file in database.files() {
        let name = file.path.display();
        writeln!(out, "{name}: {}, built {}, {} networks", file.database_type, date(file.built), file.networks)?;
    }
    Ok(u8::from(!known))
}

/// Writes the country and location of `sources` to `to`, within the size of `options`.
///
/// The exit code is 1 when a source can't be read or nothing fits. Errors are those of `out`.
pub fn compact(
    sources: &[PathBuf],
    to: &Path,
    options: &smaller::Options,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<u8> {
    let database = match load(sources) {
        Ok(database) => database,
        Err(faults) => return refuse(&faults, out),
    };
    match smaller::write(&database, to, options) {
        Ok(written) if json => writeln!(out, "{:#}", json!({ "bytes": written.bytes, "places": written.places }))?,
        Ok(written) => {
            writeln!(out, "{}: {} bytes, {} places", to.display(), written.bytes, written.places)?;
        }
        Err(fault) => return refuse(&[fault], out),
    }
    Ok(0)
}

/// Prints how often `others` send the addresses that `truth` locates to the same of the `near` cities as `truth` does.
///
/// `count` addresses are drawn in each of three ways, always the same ones. The exit code is 1 when a file or city can't
/// be read. Errors are those of `out`.
pub fn compare(
    truth: &[PathBuf],
    others: &[PathBuf],
    near: &[String],
    count: u32,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<u8> {
    let mut regions = Vec::new();
    for name in near {
        match cities::find(name) {
            Ok(city) => regions.push(city.location),
            Err(CityError::Unknown { nearest }) => {
                writeln!(out, "no city {name} is known; the nearest names: {}", nearest.join(", "))?;
                return Ok(1);
            }
            Err(CityError::Ambiguous { choices }) => {
                writeln!(out, "{name} is several cities: {}", choices.join("; "))?;
                return Ok(1);
            }
        }
    }
    let (truth, others) = match (load(truth), load(others)) {
        (Ok(truth), Ok(others)) => (truth, others),
        (truth, others) => {
            let faults: Vec<_> = [truth.err(), others.err()].into_iter().flatten().flatten().collect();
            return refuse(&faults, out);
        }
    };
    let mut all = serde_json::Map::new();
    for draw in Draw::ALL {
        let name = match draw {
            Draw::Ipv4 => "IPv4 addresses",
            Draw::Ipv6ByNetwork => "IPv6 networks",
            Draw::Ipv6ByAddress => "IPv6 addresses",
        };
        let Some(found) = measure(&truth, &others, &regions, draw, count, 1) else {
            if !json {
                writeln!(out, "{name:<15} none to compare")?;
            }
            continue;
        };
        if json {
            all.insert(name.to_owned(), serde_json::to_value(found)?);
            continue;
        }
        writeln!(
            out,
            "{name:<15} same region {:.2} %, same country {:.2} %, {:.1} km too far on average, {:.0} km at the 99th percentile",
            found.same_region * 100.0,
            found.same_country * 100.0,
            found.regret_km,
            found.regret_p99_km,
        )?;
    }
    if json {
        writeln!(out, "{:#}", Value::Object(all))?;
    }
    Ok(0)
}

fn load(paths: &[PathBuf]) -> Result<Database, Vec<Diagnostic>> {
    let files = expand(paths).map_err(|fault| vec![fault])?;
    Database::load(&files, None)
}

fn refuse(faults: &[Diagnostic], out: &mut dyn Write) -> io::Result<u8> {
    for fault in faults {
        writeln!(out, "{fault}")?;
    }
    Ok(1)
}

fn said<T>(told: Option<&Told<T>>, value: impl Fn(&T) -> String) -> Option<(String, String)> {
    told.map(|told| (value(&told.value), told.by.to_string()))
}

fn degrees(point: Point) -> String {
    format!("{:.2}, {:.2}", point.lat(), point.lon())
}

/// The block that is never split: /24 or /48.
fn block(address: IpAddr) -> ipnet::IpNet {
    let length = if address.is_ipv4() { 24 } else { 48 };
    ipnet::IpNet::new(address, length).expect("both lengths exist").trunc()
}

/// `2026-06-05`, UTC.
fn date(time: SystemTime) -> String {
    const DAY: u64 = 86_400;
    let days = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() / DAY;
    // Civil from days (Howard Hinnant): years begin in March, so that the leap day is the last of them.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(run: impl FnOnce(&mut dyn Write) -> io::Result<u8>) -> (u8, String) {
        let mut out = Vec::new();
        let code = run(&mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn inspect_tells_who_said_what() {
        let database = Database::bundled();
        let (code, text) = printed(|out| inspect("8.8.8.8".parse().unwrap(), &database, false, out));
        assert_eq!(code, 0);
        let country = text.lines().find(|line| line.trim_start().starts_with("country")).unwrap();
        assert!(country.contains("US") && country.ends_with("world.mmdb (bundled)"), "{text}");
        let continent = text.lines().find(|line| line.trim_start().starts_with("continent")).unwrap();
        assert!(continent.contains("North America") && continent.ends_with("continent of US"), "{text}");
        assert!(text.contains("all of 8.8.8.0/24 is taken to be there"), "{text}");

        let (code, text) = printed(|out| inspect("8.8.8.8".parse().unwrap(), &database, true, out));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, value["country"]["value"].as_str()), (0, Some("US")));
        assert_eq!(value["as"], Value::Null);
    }

    #[test]
    fn an_address_that_nobody_knows_is_a_no() {
        let database = Database::empty();
        let (code, text) = printed(|out| inspect("2001:db8::1".parse().unwrap(), &database, false, out));
        assert_eq!(code, 1);
        assert!(text.contains("country      unknown"), "{text}");
    }

    #[test]
    fn days_become_dates() {
        let day = |days: u64| date(UNIX_EPOCH + Duration::from_secs(days * 86_400));
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(11_016), "2000-02-29");
        assert_eq!(day(20_609), "2026-06-05");
    }

    #[test]
    fn compact_and_compare_tell_their_faults_and_exit_1() {
        let missing = [PathBuf::from("/nonexistent/city.mmdb")];
        let to = Path::new("/nonexistent/out.mmdb");
        let (code, text) = printed(|out| compact(&missing, to, &smaller::Options::default(), false, out));
        assert_eq!(code, 1);
        assert!(text.starts_with("/nonexistent/city.mmdb:1:1: can't read the database"), "{text}");
        let near = ["Hyderabad".to_owned()];
        let (code, text) = printed(|out| compare(&missing, &missing, &near, 10, false, out));
        assert_eq!((code, text.as_str()), (1, "Hyderabad is several cities: Hyderabad, IN; Hyderabad, PK\n"));
    }
}
