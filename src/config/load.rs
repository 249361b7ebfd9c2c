//! All zone files of a node: found, read, and checked against each other.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use hickory_proto::rr::{Name, RecordType};
use jiff::Timestamp;

use super::diagnostic::{At, Diagnostic};
use super::settings::Zone;
use super::tree::{Placed, quoted_key};
use super::zone_file::{self, Shared, ZoneFile};
use super::{event, names};
use crate::geo::Match;
use crate::zone::rdata;

/// A larger file is not read: a million records are some 50 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// What was found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The zones without an error, in the order of their files. To be used only when no diagnostic is an error.
    pub zones: Vec<Zone>,
    /// Zone files found, in order or not.
    pub files: usize,
    /// By file, then by place.
    pub diagnostics: Vec<Diagnostic>,
    /// Private CAs that were looked at for zones and for what they share, whether they could be read or not.
    pub named: Vec<PathBuf>,
}

impl Loaded {
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Reads every zone of `paths`, each a file or a directory, whose `*.toml` files are taken in the order of their
/// names (hidden files, and whatever editors leave beside them, are not). Blocks on the file system.
///
/// A path that is not there is an error, and so is a directory without a zone file: it is more often a mistake than a
/// wish to serve nothing.
pub fn load_zones(paths: &[PathBuf], shared: &Shared) -> Loaded {
    let mut loaded = Loaded { named: shared.named.clone(), ..Loaded::default() };
    let mut files = Vec::new();
    for path in paths {
        match zone_files(path) {
            Ok(found) => files.extend(found),
            Err(fault) => loaded.diagnostics.push(*fault),
        }
    }
    let mut apexes = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files.into_iter().filter(|file| seen.insert(file.clone())) {
        loaded.files += 1;
        let found = match read(&file) {
            Ok((text, modified)) => zone_file::read(&file, text, modified, shared),
            Err(fault) => ZoneFile { faults: vec![*fault], ..ZoneFile::default() },
        };
        loaded.zones.extend(found.zone);
        loaded.diagnostics.extend(found.faults);
        apexes.extend(found.apex);
        loaded.named.extend(found.named);
    }
    loaded.diagnostics.extend(duplicates(&apexes));
    loaded.diagnostics.extend(undelegated(&loaded.zones));
    loaded.diagnostics.extend(unmet(&loaded.zones));
    loaded.diagnostics.extend(outshone(&loaded.zones));
    loaded.diagnostics.extend(out_of_step(&loaded.zones));
    let now = Timestamp::now();
    loaded.diagnostics.extend(loaded.zones.iter().flat_map(|zone| event::past(&zone.events, now)));
    // Stable: what belongs to one place stays in the order in which it was found.
    loaded.diagnostics.sort_by(|a, b| a.at.cmp(&b.at));
    loaded.diagnostics.dedup();
    loaded
}

fn zone_files(path: &Path) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
    let fault = |what: String| Box::new(Diagnostic::error(At::start(path), what));
    let meta = fs::metadata(path).map_err(|e| {
        let fault = fault(format!("cannot be read: {e}"));
        Box::new(fault.help("name a zone file, or a directory of zone files"))
    })?;
    if !meta.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |e: std::io::Error| fault(format!("directory cannot be read: {e}"));
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?.path();
        if is_zone_file(&entry) && !entry.is_dir() {
            files.push(entry);
        }
    }
    if files.is_empty() {
        let fault = fault("no zone file (*.toml) in this directory".into());
        return Err(Box::new(
            fault.rule("a node without zones would refuse every query").help("put one there, like stream.example.toml"),
        ));
    }
    files.sort();
    Ok(files)
}

/// Whether a file of a zone directory is a zone file: `*.toml`, and none of the copies that editors make.
pub fn is_zone_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".toml") && !name.starts_with(['.', '#', '~'])
}

/// The text of a file and its modification time in Unix seconds.
pub(super) fn read(path: &Path) -> Result<(String, u32), Box<Diagnostic>> {
    let fault = |what: String| Box::new(Diagnostic::error(At::start(path), what));
    let open = || -> std::io::Result<(Vec<u8>, u32)> {
        // Checked before opening: to open a pipe would wait for its writer.
        if !fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("not a file"));
        }
        let file = fs::File::open(path)?;
        let since = file.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        Ok((bytes, u32::try_from(since.as_secs()).unwrap_or(u32::MAX)))
    };
    let (bytes, modified) = open().map_err(|e| fault(format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(fault(format!("larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&e.as_bytes()[..valid]).into_owned();
        let at = super::tree::File::new(path, before).at(valid);
        let fault = Diagnostic::error(at, "not UTF-8 text").rule("TOML files are UTF-8");
        Box::new(fault.help("save the file as UTF-8"))
    })?;
    Ok((text, modified))
}

fn duplicates(apexes: &[Placed<Name>]) -> Vec<Diagnostic> {
    let mut first: HashMap<&Name, &At> = HashMap::new();
    let mut faults = Vec::new();
    for apex in apexes {
        if let Some(other) = first.get(&apex.value) {
            faults.push(
                Diagnostic::error(apex.at.clone(), format!("zone {} is there twice", apex.value))
                    .rule("one zone is one file")
                    .help(format!("remove one of them; the other is {}", other.file.display())),
            );
        } else {
            first.insert(&apex.value, &apex.at);
        }
    }
    faults
}

/// A child zone that its parent, served here too, does not delegate: resolvers that come by the parent never learn
/// of it when the two are one day served apart, and validators want the cut at once.
fn undelegated(zones: &[Zone]) -> Vec<Diagnostic> {
    let by_name: HashMap<&Name, &Zone> = zones.iter().map(|zone| (&zone.name, zone)).collect();
    let cuts: HashSet<(&Name, &Name)> = zones
        .iter()
        .flat_map(|zone| zone.records.iter().map(move |rrset| (zone, rrset)))
        .filter(|(_, rrset)| rrset.rtype == RecordType::NS)
        .map(|(zone, rrset)| (&zone.name, &rrset.owner))
        .collect();
    let mut warnings = Vec::new();
    for child in zones {
        let depth = child.name.iter().count();
        let above = (0..depth).rev().map(|n| child.name.trim_to(n));
        let Some(parent) = above.filter_map(|name| by_name.get(&name).copied()).next() else { continue };
        // A cut above the child hands it, and all around it, to another zone.
        if (parent.name.iter().count() + 1..=depth).any(|n| cuts.contains(&(&parent.name, &child.name.trim_to(n)))) {
            continue;
        }
        warnings.push(
            Diagnostic::warning(
                At::start(&parent.file),
                format!("{} has no NS records for its child zone {}", parent.name, child.name),
            )
            .rule("a zone cut is made by NS records in the parent (RFC 1034 §4.2.1)")
            .help(format!("add to [records]:\n{}", delegation(parent, child))),
        );
    }
    warnings
}

/// Needed names that no zone here steers.
fn unmet(zones: &[Zone]) -> Vec<Diagnostic> {
    let steered: HashSet<&Name> = zones.iter().flat_map(|zone| &zone.streams).map(|stream| &stream.owner).collect();
    let needs = zones.iter().flat_map(|zone| &zone.streams).flat_map(|stream| &stream.needs);
    needs
        .filter(|(name, _)| !steered.contains(name))
        .map(|(name, at)| {
            Diagnostic::warning(at.clone(), format!("no zone here steers {name}: it counts as up"))
                .rule("`needs` names streams whose health this node knows")
                .help("name a stream of one of the zone files in full, or remove it")
        })
        .collect()
}

/// Steered names of a zone that lie in another zone of ours: the longest match answers, so they never do.
fn outshone(zones: &[Zone]) -> Vec<Diagnostic> {
    let by_name: HashMap<&Name, &Zone> = zones.iter().map(|zone| (&zone.name, zone)).collect();
    let mut warnings = Vec::new();
    for (zone, stream) in zones.iter().flat_map(|zone| zone.streams.iter().map(move |stream| (zone, stream))) {
        let above = (zone.name.iter().count() + 1..=stream.owner.iter().count()).map(|n| stream.owner.trim_to(n));
        if let Some(child) = above.filter_map(|name| by_name.get(&name)).next() {
            warnings.push(
                Diagnostic::warning(stream.at.clone(), format!("stream {} is never answered", stream.label))
                    .rule(format!("{} is a zone of its own here, and the longest match answers", child.name))
                    .help(format!("move it to {}", child.file.display())),
            );
        }
    }
    warnings
}

/// Addresses of which regions, of whatever zones, expect heartbeats at different intervals: an agent beats at one.
fn out_of_step(zones: &[Zone]) -> Vec<Diagnostic> {
    let mut first: HashMap<IpAddr, (&Zone, Duration)> = HashMap::new();
    let mut told = HashSet::new();
    let mut warnings = Vec::new();
    for (zone, region) in zones.iter().flat_map(|zone| zone.regions.iter().map(move |region| (zone, region))) {
        let Some(every) = region.check.as_ref().and_then(|check| check.heartbeat) else { continue };
        let addresses =
            region.servers.iter().flat_map(|server| [server.a.map(IpAddr::from), server.aaaa.map(IpAddr::from)]);
        for address in addresses.flatten() {
            let (other, before) = *first.entry(address).or_insert((zone, every));
            // One word for two files: they mostly share many servers.
            if before == every || !told.insert((&zone.name, &other.name)) {
                continue;
            }
            warnings.push(
                Diagnostic::warning(
                    At::start(&zone.file),
                    format!(
                        "heartbeats of {address} are expected every {every:?} here, and every {before:?} by zone {}",
                        other.name
                    ),
                )
                .rule("an agent beats for all zones alike: the shortest interval is expected of it")
                .help(format!(
                    "give `heartbeat` one value; the other stands in {} or what it inherits",
                    other.file.display()
                )),
            );
        }
    }
    warnings
}

/// The lines for the parent's `[records]`: NS, and the glue that the child's file holds.
fn delegation(parent: &Zone, child: &Zone) -> String {
    let ns: Vec<String> = child.ns.iter().map(|name| format!("{:?}", names::shown(name, &parent.name))).collect();
    let key = |name: &Name| quoted_key(&names::shown(name, &parent.name));
    let mut lines = vec![format!("    {} = {{ NS = [{}] }}", key(&child.name), ns.join(", "))];
    for server in child.ns.iter().filter(|server| child.name.zone_of(server)) {
        let addresses = |rtype: RecordType| -> Vec<String> {
            let rrset = child.records.iter().find(|r| r.owner == *server && r.rtype == rtype);
            let all = rrset.into_iter().flat_map(|r| &r.rdata);
            all.filter_map(|one| Some(format!("\"{}\"", rdata::address(one)?))).collect()
        };
        let types: Vec<String> = [("A", addresses(RecordType::A)), ("AAAA", addresses(RecordType::AAAA))]
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(rtype, list)| format!("{rtype} = [{}]", list.join(", ")))
            .collect();
        if !types.is_empty() {
            lines.push(format!("    {} = {{ {} }}", key(server), types.join(", ")));
        }
    }
    lines.join("\n")
}

/// Warnings about rules on what no loaded database knows: they never match. `knows` is
/// [`crate::geo::Database::knows`].
pub fn geo_warnings(zones: &[Zone], knows: impl Fn(&Match) -> bool) -> Vec<Diagnostic> {
    let rules = zones.iter().flat_map(|zone| &zone.streams).flat_map(|stream| &stream.rules);
    let unknown = rules.flat_map(|rule| &rule.from).filter(|(from, _)| !knows(from));
    unknown
        .map(|(from, at)| {
            let (what, needed) = match from {
                Match::Country(country) => (country.to_string(), "a Country or City database"),
                Match::Subdivision(country, code) => (format!("{country}-{code}"), "a City database"),
                Match::Continent(continent) => (continent.name().to_owned(), "a Country or City database"),
                Match::Asn(number) => (format!("AS{number}"), "an ASN database"),
                Match::Prefix(net) => (net.to_string(), "a database"),
            };
            Diagnostic::warning(at.clone(), format!("no loaded database knows {what}: nothing matches it"))
                .help(format!("add {needed} that does to `geoip`"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::geo::CountryCode;

    const PLAIN: &str = "zone = \"NAME.example\"\nns = [\"ns1.example.net\"]\n";

    fn zone(name: &str) -> String {
        PLAIN.replace("NAME", name)
    }

    fn load(path: &Path) -> Loaded {
        load_zones(&[path.to_owned()], &Shared::default())
    }

    #[test]
    fn a_directory_gives_its_toml_files_in_order_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            fs::write(dir.path().join(format!("{name}.toml")), zone(name)).unwrap();
        }
        for name in [".a.toml", ".#a.toml", "#a.toml#", "a.toml~", "a.toml.swp", "4913", "README.md", "~a.toml"] {
            fs::write(dir.path().join(name), "not read = ").unwrap();
        }
        fs::create_dir(dir.path().join("old.toml")).unwrap();
        let loaded = load(dir.path());
        assert_eq!(loaded.diagnostics, []);
        let names: Vec<String> = loaded.zones.iter().map(|zone| zone.name.to_ascii()).collect();
        assert_eq!((names.join(" "), loaded.files), ("a.example. b.example. c.example.".into(), 3));
    }

    #[test]
    fn a_missing_directory_is_an_error_and_so_is_an_emptied_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        fs::write(&file, zone("a")).unwrap();
        assert!(!load(dir.path()).has_errors());
        fs::remove_file(&file).unwrap();
        assert!(load(dir.path()).diagnostics[0].what.contains("no zone file"));
        assert!(load(&dir.path().join("nowhere")).diagnostics[0].what.contains("cannot be read"));
    }

    #[test]
    fn one_bad_file_does_not_hide_the_faults_of_another() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::write(dir.path().join(format!("{name}.toml")), "zone = 1\n").unwrap();
        }
        fs::write(dir.path().join("c.toml"), zone("c")).unwrap();
        let loaded =
            load_zones(&[dir.path().join("b.toml"), dir.path().to_owned(), "nowhere".into()], &Shared::default());
        let places: Vec<String> =
            loaded.diagnostics.iter().filter_map(|d| d.at.file.file_name()?.to_str().map(Into::into)).collect();
        assert_eq!((loaded.files, loaded.zones.len()), (3, 1), "a file that is named twice is read once");
        assert_eq!(places.iter().filter(|p| *p == "b.toml").count(), 2);
        assert!(places.contains(&"a.toml".into()) && places.contains(&"nowhere".into()));
    }

    #[test]
    fn different_heartbeats_for_one_address_are_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, heartbeat: &str| {
            let steered = format!(
                "[check]\ntcp = 1935\n{heartbeat}\n[region.eu]\nat = [0, 0]\na = [\"192.0.2.1\", \"192.0.2.2\"]\n"
            );
            fs::write(dir.path().join(format!("{name}.toml")), zone(name) + &steered).unwrap();
        };
        write("a", "heartbeat = \"100ms\"");
        write("b", "heartbeat = \"100ms\"");
        write("c", "");
        assert_eq!(load(dir.path()).diagnostics, []);
        write("b", "heartbeat = \"2s\"");
        let loaded = load(dir.path());
        let shown: Vec<String> = loaded.diagnostics.iter().map(|fault| fault.what.clone()).collect();
        assert_eq!(shown, ["heartbeats of 192.0.2.1 are expected every 2s here, and every 100ms by zone a.example."]);
        assert!(!loaded.has_errors() && loaded.diagnostics[0].at.file.ends_with("b.toml"));
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let loaded = load(Path::new("/dev/null"));
        assert!(loaded.diagnostics[0].what.contains("not a file"), "{:?}", loaded.diagnostics);
    }

    #[test]
    fn modification_time_and_digest_tell_files_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            let times = fs::FileTimes::new().set_modified(UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000));
            fs::File::options().write(true).open(&file).unwrap().set_times(times).unwrap();
            load(&file).zones.remove(0)
        };
        let (one, two) = (read(&zone("a")), read(&format!("{}# more\n", zone("a"))));
        assert_eq!((one.modified, two.modified), (1_700_000_000, 1_700_000_000));
        assert_ne!(one.digest, two.digest);
        assert_eq!(one.digest, read(&zone("a")).digest);
    }

    #[test]
    fn rules_on_what_no_database_knows_are_warnings_at_their_place() {
        let text = zone("a")
            + "[region.eu]\nat = [0, 0]\na = \"192.0.2.1\"\n[stream.live]\nrules = [{ from = [\"GB\", \"AS64500\"], regions = \"eu\" }]\n";
        let zone = zone_file::read(Path::new("a.toml"), text, 0, &Shared::default()).zone.unwrap();
        let warnings = geo_warnings(&[zone], |from| *from == Match::Country(CountryCode(*b"GB")));
        let shown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["a.toml:7:26: warning: no loaded database knows AS64500: nothing matches it\n  \
              help: add an ASN database that does to `geoip`"]
        );
    }
}
