//! Location databases and the operator's overrides, merged: address → attributes, and who said each.
//!
//! Files are read whole, never mapped: a mapped file that someone truncates kills the process. Each becomes runs of
//! addresses under numbered records; the runs of all files are laid over each other once, so a look-up is one binary
//! search however many files there are. IPv4 is kept whole, IPv6 by its upper 64 bits.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use maxminddb::{MaxMindDbError, Reader, WithinOptions};

use super::embedded::{Located, block4, block6, family_of};
use super::overrides::{Override, Overrides};
use super::ranges::{Builder, Ranges, nest};
use super::schema::{self, Attributes};
use super::{Continent, CountryCode, Match, Point, SubdivisionCode, countries, mmdb};
use crate::config::{At, Diagnostic};

/// The merged location databases and overrides.
pub struct Database {
    files: Vec<FileInfo>,
    overrides: Option<Arc<Path>>,
    /// Number 0 knows nothing.
    records: Vec<Record>,
    /// Shared with places that need no finer cut.
    v4: Arc<Ranges<u32>>,
    /// By the upper 64 bits.
    v6: Arc<Ranges<u64>>,
    known: Known,
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

/// What decisions are made of, with who said each. Equal ones are stored once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub country: Option<CountryCode>,
    pub subdivision: Option<SubdivisionCode>,
    pub continent: Option<Continent>,
    /// In 1/10,000 of a degree: 11 m.
    location: Option<(i32, i32)>,
    pub asn: Option<u32>,
    by: By,
}

/// Who said each attribute: the number of a file, or one of the numbers above all files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct By {
    country: u8,
    subdivision: u8,
    continent: u8,
    location: u8,
    asn: u8,
}

const BY_COUNTRY: u8 = 255;
const BY_POPULATION: u8 = 254;
const BY_OVERRIDES: u8 = 253;
/// More database files than can be numbered are refused.
const MAX_FILES: usize = 250;

impl Record {
    fn new(said: Attributes, file: u8) -> Record {
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
    fn or(mut self, other: &Record) -> Record {
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
    fn placed(mut self, said: &Override) -> Record {
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
    fn completed(mut self) -> Record {
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

/// What any record knows, to tell rules that can never match.
#[derive(Default)]
struct Known {
    countries: HashSet<CountryCode>,
    subdivisions: HashSet<(CountryCode, SubdivisionCode)>,
    continents: HashSet<Continent>,
    asns: HashSet<u32>,
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

static WORLD: &[u8] = include_bytes!("../../geoip/world.mmdb");

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

/// Whether a file has to prove itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Verify,
    /// Compiled in, and verified by a test.
    Ours,
}

/// Files laid over each other, before overrides.
struct Merged {
    files: Vec<FileInfo>,
    records: Records,
    v4: Ranges<u32>,
    v6: Ranges<u64>,
}

impl Default for Merged {
    fn default() -> Merged {
        Merged { files: Vec::new(), records: Records::default(), v4: Ranges::all(0), v6: Ranges::all(0) }
    }
}

/// Distinct records by number; number 0 knows nothing.
struct Records {
    list: Vec<Record>,
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
    fn id(&mut self, record: Record) -> u32 {
        *self.ids.entry(record).or_insert_with(|| {
            self.list.push(record);
            self.list.len() as u32 - 1
        })
    }
}

/// "This network" (RFC 1122 §3.2.1.3): no client has such an address. Kept unknown whatever a file says, as it is also
/// where the zeros of a client subnet end that is too short to hold an embedded IPv4 address.
const FIRST_V4: u32 = 1 << 24;

impl Merged {
    fn add(&mut self, path: &Path, bytes: Cow<'_, [u8]>, trust: Trust) -> Result<(), Diagnostic> {
        let file = self.files.len() as u8;
        let (info, v4, v6) = read(path, bytes, trust, file, &mut self.records).map_err(|fault| {
            Diagnostic::error(At::start(path), fault.what).rule(fault.rule).help(
                "fetch the file again; write it beside the old one and rename it, so that no one reads a half-written file",
            )
        })?;
        self.files.push(info);
        if file == 0 {
            (self.v4, self.v6) = (v4, v6);
            return Ok(());
        }
        let mut known: HashMap<(u32, u32), u32, foldhash::fast::RandomState> = HashMap::default();
        let mut merge = |a: u32, b: u32| match (a, b) {
            (a, 0) => a,
            (0, b) => b,
            _ => *known.entry((a, b)).or_insert_with(|| {
                let (a, b) = (self.records.list[a as usize], self.records.list[b as usize]);
                self.records.id(a.or(&b))
            }),
        };
        self.v4 = self.v4.overlay(&v4, &mut merge);
        self.v6 = self.v6.overlay(&v6, &mut merge);
        Ok(())
    }

    /// Lays the overrides over the files and drops the records that nothing uses any more.
    fn finish(self, overrides: Option<(&Path, Overrides)>) -> Database {
        let (path, overrides) = match overrides {
            Some((path, overrides)) => (Some(path.into()), overrides),
            None => (None, Overrides::default()),
        };
        let (mut blocks4, mut blocks6) = (Vec::new(), Vec::new());
        for (i, (prefix, _)) in overrides.prefixes.iter().enumerate() {
            let id = i as u32 + 1;
            match prefix {
                IpNet::V4(net) => {
                    let first = net.network().to_bits().max(FIRST_V4);
                    if first <= net.broadcast().to_bits() {
                        blocks4.push((first, net.broadcast().to_bits(), id));
                    }
                }
                IpNet::V6(net) => {
                    let upper = |address: Ipv6Addr| (address.to_bits() >> 64) as u64;
                    blocks6.push((upper(net.network()), upper(net.broadcast()), id));
                }
            }
        }
        let mut records = Records::default();
        let mut done: HashMap<(u32, u32), u32, foldhash::fast::RandomState> = HashMap::default();
        let mut finished = |record: u32, said: u32| {
            *done.entry((record, said)).or_insert_with(|| {
                let mut record = self.records.list[record as usize];
                let by_asn = record.asn.and_then(|asn| overrides.asns.get(&asn));
                let by_prefix = (said as usize).checked_sub(1).map(|i| &overrides.prefixes[i].1);
                if let Some(said) = by_prefix.or(by_asn) {
                    record = record.placed(said);
                }
                records.id(record.completed())
            })
        };
        let v4 = self.v4.overlay(&nest(blocks4, |_, id| id), &mut finished);
        let v6 = self.v6.overlay(&nest(blocks6, |_, id| id), &mut finished);
        let mut records = records.list;
        records.shrink_to_fit();
        let mut known = Known::default();
        for record in &records {
            known.countries.extend(record.country);
            known.subdivisions.extend(record.country.zip(record.subdivision));
            known.continents.extend(record.continent);
            known.asns.extend(record.asn);
        }
        Database { files: self.files, overrides: path, records, v4: v4.into(), v6: v6.into(), known }
    }
}

struct Fault {
    what: String,
    rule: String,
}

const RULE: &str = "a database is a whole, sound file of the MaxMind DB format, version 2";

impl From<MaxMindDbError> for Fault {
    fn from(error: MaxMindDbError) -> Fault {
        Fault { what: format!("not a sound database: {error}"), rule: RULE.to_owned() }
    }
}

/// One file as runs under numbered records.
fn read(
    path: &Path,
    bytes: Cow<'_, [u8]>,
    trust: Trust,
    file: u8,
    records: &mut Records,
) -> Result<(FileInfo, Ranges<u32>, Ranges<u64>), Fault> {
    let reader = match trust {
        Trust::Verify => verified(bytes)?,
        Trust::Ours => Reader::from_source(bytes)?,
    };
    let metadata = reader.metadata();
    let (mut v4, mut v6) = (Builder::default(), Builder::default());
    let mut sub64 = Sub64::default();
    // Many networks share one record: each is decoded once.
    let mut ids: HashMap<usize, u32, foldhash::fast::RandomState> = HashMap::default();
    let (mut networks, mut useful) = (0, false);
    for network in reader.networks(WithinOptions::default())? {
        let found = network?;
        let Some(offset) = found.offset() else { continue };
        networks += 1;
        let id = match ids.get(&offset) {
            Some(&id) => id,
            None => {
                let said = found.decode::<schema::Record>()?.unwrap_or_default().0;
                useful |= said != Attributes::default();
                let id = records.id(Record::new(said, file));
                ids.insert(offset, id);
                id
            }
        };
        let network = found.network()?;
        match network.ip() {
            IpAddr::V4(address) => {
                let net = Ipv4Net::new(address, network.prefix()).map_err(|_| odd_network(&network))?;
                v4.add(net.network().to_bits().max(FIRST_V4), net.broadcast().to_bits(), id);
            }
            IpAddr::V6(address) => {
                let net = Ipv6Net::new(address, network.prefix()).map_err(|_| odd_network(&network))?;
                let first = (net.network().to_bits() >> 64) as u64;
                let last = (net.broadcast().to_bits() >> 64) as u64;
                if net.prefix_len() > 64 {
                    sub64.add(first, net.prefix_len(), id, &mut v6);
                } else {
                    sub64.flush(&mut v6);
                    v6.add(first, last, id);
                }
                if net.network() == Ipv6Addr::UNSPECIFIED && net.prefix_len() <= 96 {
                    // A record above the IPv4 tree is that of every IPv4 address, as for any reader of the format.
                    v4.add(FIRST_V4, u32::MAX, id);
                }
            }
        }
    }
    sub64.flush(&mut v6);
    if !useful {
        return Err(Fault {
            what: format!("no use in this database ({}, {networks} networks)", kind(&metadata.database_type)),
            rule: "some record has to know a country, subdivision, continent, location or AS number".to_owned(),
        });
    }
    let info = FileInfo {
        path: path.into(),
        database_type: kind(&metadata.database_type),
        // A year beyond the clock's reach is as good as none.
        built: metadata.build_time().unwrap_or(SystemTime::UNIX_EPOCH),
        networks,
    };
    Ok((info, v4.finish(), v6.finish()))
}

/// Checks the whole file: no cycles, no more networks than three times the nodes, every record sound, and a bound on the
/// work that records inside each other can make. So what walks and decodes it later is bounded too.
fn verified(bytes: Cow<'_, [u8]>) -> Result<Reader<Cow<'_, [u8]>>, MaxMindDbError> {
    let reader = Reader::from_source(described(bytes)?)?;
    reader.verify()?;
    Ok(reader)
}

/// The verifier refuses a file without a description before it looks at anything else, and those of ip-location-db have
/// none. Gives such a file one.
fn described(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, MaxMindDbError> {
    let reader = Reader::from_source(&*bytes)?;
    let metadata = reader.metadata();
    if !metadata.description.is_empty() && !metadata.database_type.is_empty() {
        return Ok(bytes);
    }
    let layout = mmdb::Layout {
        node_count: metadata.node_count,
        record_size: metadata.record_size,
        ip_version: metadata.ip_version,
    };
    let database_type = if metadata.database_type.is_empty() { "unnamed" } else { &metadata.database_type };
    let new = mmdb::Metadata { database_type, description: "none", build_epoch: metadata.build_epoch }.bytes(layout);
    let marker = bytes.windows(mmdb::METADATA_MARKER.len()).rposition(|window| window == mmdb::METADATA_MARKER);
    let mut bytes = bytes.into_owned();
    bytes.truncate(marker.expect("the reader has found the marker"));
    bytes.extend_from_slice(&new);
    Ok(Cow::Owned(bytes))
}

/// The maker's word for people, without what could upset a terminal or fill a log.
fn kind(database_type: &str) -> String {
    database_type.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn odd_network(network: &dyn fmt::Display) -> Fault {
    Fault { what: format!("a network of no possible length: {network}"), rule: RULE.to_owned() }
}

/// IPv6 networks longer than /64: the largest of them stands for its /64; of equal ones the first.
#[derive(Default)]
struct Sub64 {
    /// The /64, the length of the network that stands for it, and its record.
    pending: Option<(u64, u8, u32)>,
}

impl Sub64 {
    fn add(&mut self, block: u64, length: u8, id: u32, v6: &mut Builder<u64>) {
        match &mut self.pending {
            Some((pending, standing, record)) if *pending == block => {
                if length < *standing {
                    (*standing, *record) = (length, id);
                }
            }
            _ => {
                self.flush(v6);
                self.pending = Some((block, length, id));
            }
        }
    }

    fn flush(&mut self, v6: &mut Builder<u64>) {
        if let Some((block, _, id)) = self.pending.take() {
            v6.add(block, block, id);
        }
    }
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
