//! Location databases and the operator's overrides, merged: address → attributes, and who said each.
//!
//! Files are read whole, never mapped: a mapped file that someone truncates kills the process. Each becomes runs of
//! addresses under numbered records; the runs of all files are laid over each other once, so a look-up is one binary
//! search however many files there are. IPv4 is kept whole, IPv6 by its upper 64 bits.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use super::embedded::{Located, block4, block6, family_of};
use super::merge::Merged;
use super::overrides::Overrides;
use super::ranges::Ranges;
use super::reading::Trust;
use super::record::{BY_COUNTRY, BY_OVERRIDES, BY_POPULATION, MAX_FILES, Record};
use super::{Continent, CountryCode, Match, Point, SubdivisionCode};
use crate::config::{At, Diagnostic};
use crate::memory::{self, Compiled};

/// The merged location databases and overrides.
pub struct Database {
    pub(super) files: Vec<FileInfo>,
    pub(super) overrides: Option<Arc<Path>>,
    /// Number 0 knows nothing.
    pub(super) records: Vec<Record>,
    /// Shared with places that need no finer cut.
    pub(super) v4: Arc<Ranges<u32>>,
    /// By the upper 64 bits.
    pub(super) v6: Arc<Ranges<u64>>,
    pub(super) known: Known,
}

/// What a file says of itself.
#[derive(Clone, Debug)]
pub struct FileInfo {
    pub path: Arc<Path>,
    /// `GeoLite2-City`, `city ipv4`…: the maker's word, for people.
    pub database_type: String,
    pub built: SystemTime,
    /// Networks that have a record.
    pub networks: u64,
}

/// What is known of an address, and who said it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The coarsest block around the address of which all the same is known.
    pub network: IpNet,
    pub country: Option<Told<CountryCode>>,
    /// Of the country.
    pub subdivision: Option<Told<SubdivisionCode>>,
    pub continent: Option<Told<Continent>>,
    pub location: Option<Told<Point>>,
    pub asn: Option<Told<u32>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Told<T> {
    pub value: T,
    pub by: Origin,
}

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File(Arc<Path>),
    Overrides(Arc<Path>),
    /// Follows from the country, by the built-in table.
    Country(CountryCode),
    /// The location of the city that stands for the country's people; no file knows more than the country.
    Population(CountryCode),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) | Origin::Overrides(path) => {
                path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into()).fmt(f)
            }
            Origin::Country(country) => write!(f, "continent of {country}"),
            Origin::Population(country) => write!(f, "placed by population of {country}"),
        }
    }
}

/// What any record knows, to tell rules that can never match.
#[derive(Default)]
pub(super) struct Known {
    pub(super) countries: HashSet<CountryCode>,
    pub(super) subdivisions: HashSet<(CountryCode, SubdivisionCode)>,
    pub(super) continents: HashSet<Continent>,
    pub(super) asns: HashSet<u32>,
}

impl Database {
    /// Reads and verifies `files` (each attribute comes from the first file that knows it) and the overrides.
    ///
    /// Blocks for as long as reading takes: some seconds for a full City database. Every fault of every file is told.
    pub fn load(files: &[PathBuf], overrides: Option<&Path>) -> Result<Database, Vec<Diagnostic>> {
        let mut faults = Vec::new();
        let mut merged = Merged::default();
        if files.len() > MAX_FILES {
            let at = At::start(&files[MAX_FILES]);
            faults.push(
                Diagnostic::error(at, format!("{} database files", files.len()))
                    .rule(format!("at most {MAX_FILES} are merged")),
            );
            return Err(faults);
        }
        for path in files {
            let read = match std::fs::read(path) {
                Ok(bytes) => merged.add(path, bytes.into(), Trust::Verify),
                Err(error) => Err(Diagnostic::error(At::start(path), format!("can't read the database: {error}"))),
            };
            faults.extend(read.err());
        }
        let overrides = match overrides.map(|path| Overrides::load(path).map(|overrides| (path, overrides))) {
            None => None,
            Some(Ok(overrides)) => Some(overrides),
            Some(Err(more)) => {
                faults.extend(more);
                None
            }
        };
        if faults.is_empty() { Ok(merged.finish(overrides)) } else { Err(faults) }
    }

    /// The bundled `geoip/world.mmdb`, compiled into the binary.
    pub fn bundled() -> Database {
        let mut merged = Merged::default();
        merged
            .add(Path::new("world.mmdb (bundled)"), WORLD.into(), Trust::Ours)
            .expect("the compiled-in database is verified by a test of this module");
        memory::forget(Compiled::World);
        merged.finish(None)
    }

    /// Knows nothing: every address is unknown.
    pub fn empty() -> Database {
        Merged::default().finish(None)
    }

    /// False when no record of the loaded databases and overrides makes `rule` true (`AS64500` without an ASN database, a
    /// subdivision that none has…). Prefixes always can.
    pub fn knows(&self, rule: &Match) -> bool {
        match rule {
            Match::Country(country) => self.known.countries.contains(country),
            Match::Subdivision(country, code) => self.known.subdivisions.contains(&(*country, *code)),
            Match::Continent(continent) => self.known.continents.contains(continent),
            Match::Asn(asn) => self.known.asns.contains(asn),
            Match::Prefix(_) => true,
        }
    }

    /// In the order in which they are believed.
    pub fn files(&self) -> &[FileInfo] {
        &self.files
    }

    /// What is known of `address`. IPv4 inside IPv6 is found by its IPv4 address.
    pub fn lookup(&self, address: IpAddr) -> Found {
        let (record, network) = match family_of(address) {
            Located::V4(v4, before) => {
                let (first, last, record) = self.v4.run(v4, u32::MAX);
                let length = before + block4(v4, first, last);
                (record, IpNet::new(address, length))
            }
            Located::V6(v6) => {
                let (first, last, record) = self.v6.run((v6 >> 64) as u64, u64::MAX);
                let last = u128::from(last) << 64 | u128::from(u64::MAX);
                (record, IpNet::new(address, block6(v6, u128::from(first) << 64, last)))
            }
        };
        let record = &self.records[record as usize];
        let network = network.expect("a block of an address is no longer than the address").trunc();
        Found {
            network,
            country: self.told(record, record.country, record.by.country),
            subdivision: self.told(record, record.subdivision, record.by.subdivision),
            continent: self.told(record, record.continent, record.by.continent),
            location: self.told(record, record.location(), record.by.location),
            asn: self.told(record, record.asn, record.by.asn),
        }
    }

    fn told<T>(&self, record: &Record, value: Option<T>, by: u8) -> Option<Told<T>> {
        let value = value?;
        let by = match by {
            BY_OVERRIDES => Origin::Overrides(self.overrides.clone()?),
            BY_COUNTRY => Origin::Country(record.country?),
            BY_POPULATION => Origin::Population(record.country?),
            file => Origin::File(self.files.get(usize::from(file))?.path.clone()),
        };
        Some(Told { value, by })
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(super) fn v4(&self) -> &Arc<Ranges<u32>> {
        &self.v4
    }

    pub(super) fn v6(&self) -> &Arc<Ranges<u64>> {
        &self.v6
    }
}

pub(crate) static WORLD: &[u8] = include_bytes!("../../geoip/world.mmdb");

/// The database files of `paths`: a directory stands for its `*.mmdb` in the order of their names, but `world.mmdb` last,
/// so that any database an operator puts beside it is believed before it.
pub fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Diagnostic> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |error| Diagnostic::error(At::start(path), format!("can't list the directory: {error}"));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            if file.extension().is_some_and(|extension| extension == "mmdb") && file.is_file() {
                found.push(file);
            }
        }
        found.sort();
        files.append(&mut found);
    }
    let is_world = |file: &PathBuf| file.file_name().is_some_and(|name| name == "world.mmdb");
    files.sort_by_key(is_world);
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_database_is_sound_and_small() {
        maxminddb::Reader::from_source(WORLD).unwrap().verify().unwrap();
        assert!(WORLD.len() < 8_000_000);
        let bundled = Database::bundled();
        let told = |address: &str| bundled.lookup(address.parse().unwrap()).country.map(|told| told.value.to_string());
        assert_eq!(told("1.1.1.1").as_deref(), Some("AU"));
        assert_eq!(told("41.222.0.1").as_deref(), Some("UG"));
        assert_eq!(told("10.0.0.1"), None);
    }
}
