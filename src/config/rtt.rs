//! `[steering] rtt` of `meridian.toml`: a table of round-trip times that the operator has from elsewhere.
//!
//! CSV (RFC 4180) with a first line `prefix,region,ms`, in any order of the columns. All faults of the file are told.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::{ReaderBuilder, StringRecord, Trim};
use ipnet::IpNet;

use super::diagnostic::{At, Diagnostic};
use super::settings::{Node, Zone};
use super::tree::{Item, Table, nearest};
use crate::steering::learn::feed::RTT_MS;

const MAX_BYTES: u64 = 16 << 20;
const MAX_ROWS: usize = 200_000;
/// More faults of one table are only counted.
const MAX_FAULTS: usize = 1000;
const COLUMNS: [&str; 3] = ["prefix", "region", "ms"];
const MAX_NAME: usize = 255;
const HEADER: &str = "begin with the line prefix,region,ms";
const EXAMPLE: &str = "write it like 198.51.100.0/24,eu-west,42.5";

/// A row: what a region is away from a prefix.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// No finer than /24 or /48, without bits behind its length.
    pub prefix: IpNet,
    pub region: Arc<str>,
    /// From 1 to 2000.
    pub ms: f64,
    pub line: u32,
    /// Of the region's name.
    pub column: u32,
}

/// Reads `[steering]`; `base` is the directory that relative paths count from. Gives the file's path.
pub(super) fn steering(
    mut table: Table<'_>,
    base: &Path,
    mend: impl Fn(&str, &Item<'_>) -> Option<String>,
) -> Option<PathBuf> {
    let path = table.take("rtt").and_then(|item| {
        let text = item.string()?;
        if text.is_empty() {
            item.report(item.fault(format!("`{}` is empty", item.path)).help("name a CSV file, or remove the key"));
            return None;
        }
        Some(base.join(text))
    });
    table.finish(mend);
    path
}

/// The table of a node's settings; empty where they name none. Blocks on the file system.
pub fn of(node: &Node) -> Result<Vec<Imported>, Vec<Diagnostic>> {
    node.rtt.as_deref().map_or(Ok(Vec::new()), load)
}

/// Reads a table. Blocks on the file system.
pub fn load(path: &Path) -> Result<Vec<Imported>, Vec<Diagnostic>> {
    let fault = |what: String| {
        let fault = Diagnostic::error(At::start(path), what).rule("`rtt` of [steering] names a CSV file");
        vec![fault.help("write the file, mend its name in `rtt`, or remove the key")]
    };
    let unreadable = |error: std::io::Error| fault(format!("can't read the table of round-trip times: {error}"));
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(fault("the table of round-trip times is no file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        let too_long = Diagnostic::error(At::start(path), format!("larger than {} MiB", MAX_BYTES >> 20));
        return Err(vec![too_long.help("join neighbouring prefixes that have one round-trip time")]);
    }
    let (rows, faults) = parse(path, &bytes);
    if faults.is_empty() { Ok(rows) } else { Err(faults) }
}

/// The rows that are sound, and every fault; `path` is only for these.
pub fn parse(path: &Path, bytes: &[u8]) -> (Vec<Imported>, Vec<Diagnostic>) {
    let mut faults = Faults { file: path.into(), list: Vec::new(), more: 0 };
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    // Rows of another length are told as such, and do not end the reading.
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).trim(Trim::All).from_reader(bytes);
    let mut records = reader.records();
    let mut lines = Lines { text: bytes, at: 0, line: 1 };
    let columns = match records.next() {
        Some(Ok(header)) => {
            lines.of(header.position());
            columns(&header, &lines, &mut faults)
        }
        Some(Err(error)) => {
            faults.csv(&error, &mut lines);
            None
        }
        None => {
            let fault = faults.add((1, 1), "the table is empty");
            fault.rule = Some(COLUMNS_RULE.to_owned());
            fault.help = Some(format!("{HEADER}, or remove `rtt` from [steering]"));
            None
        }
    };
    let Some(columns) = columns else { return (Vec::new(), faults.finish()) };
    let mut rows = Vec::new();
    let mut seen: HashMap<(IpNet, Arc<str>), u32> = HashMap::new();
    let mut names: HashSet<Arc<str>> = HashSet::new();
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                faults.csv(&error, &mut lines);
                continue;
            }
        };
        let line = lines.of(record.position());
        if rows.len() >= MAX_ROWS {
            let fault = faults.add((line, 1), format!("more than {MAX_ROWS} rows"));
            fault.help = Some("join neighbouring prefixes that have one round-trip time".to_owned());
            break;
        }
        let Some(row) = row(&record, columns, &lines, &mut names, &mut faults) else { continue };
        match seen.insert((row.prefix, Arc::clone(&row.region)), line) {
            Some(first) => {
                let fault = faults.add((line, 1), format!("{} to {} is there twice", row.prefix, row.region));
                fault.help = Some(format!("remove one of them; the first is at line {first}"));
            }
            None => rows.push(row),
        }
    }
    (rows, faults.finish())
}

const COLUMNS_RULE: &str = "the first line names the columns prefix, region and ms";

/// Where prefix, region and ms stand.
fn columns(header: &StringRecord, lines: &Lines<'_>, faults: &mut Faults) -> Option<[usize; 3]> {
    if header.iter().all(|name| nearest(name, COLUMNS).is_none()) {
        let fault = faults.add(lines.field(0), "the first line is no header");
        (fault.rule, fault.help) = (Some(COLUMNS_RULE.to_owned()), Some(HEADER.to_owned()));
        return None;
    }
    let mut known = true;
    for (place, name) in header.iter().enumerate().filter(|(_, name)| !COLUMNS.contains(name)) {
        let shown: String = name.chars().take(60).collect();
        let fault = faults.add(lines.field(place), format!("unknown column {shown:?}"));
        fault.rule = Some(COLUMNS_RULE.to_owned());
        fault.help = Some(match nearest(name, COLUMNS) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "remove the column".to_owned(),
        });
        known = false;
    }
    let place = |name: &str| header.iter().position(|found| found == name);
    let missing: Vec<&str> = COLUMNS.into_iter().filter(|name| place(name).is_none()).collect();
    if !missing.is_empty() && known {
        let fault = faults.add(lines.field(0), format!("no column {}", missing.join(", no column ")));
        (fault.rule, fault.help) = (Some(COLUMNS_RULE.to_owned()), Some(HEADER.to_owned()));
    }
    if known && missing.is_empty() && header.len() > COLUMNS.len() {
        let fault = faults.add(lines.field(0), "a column is there twice");
        (fault.rule, fault.help) = (Some(COLUMNS_RULE.to_owned()), Some(HEADER.to_owned()));
        known = false;
    }
    let found = COLUMNS.map(place);
    if known { Some([found[0]?, found[1]?, found[2]?]) } else { None }
}

fn row(
    record: &StringRecord,
    places: [usize; 3],
    lines: &Lines<'_>,
    names: &mut HashSet<Arc<str>>,
    faults: &mut Faults,
) -> Option<Imported> {
    if record.len() != COLUMNS.len() {
        let fields = if record.len() == 1 { "field" } else { "fields" };
        let fault = faults.add(lines.field(0), format!("{} {fields}", record.len()));
        fault.rule = Some("each row has three: prefix, region, ms".to_owned());
        fault.help = Some(EXAMPLE.to_owned());
        return None;
    }
    let shown = |text: &str| text.chars().take(60).collect::<String>();
    let [at_prefix, at_region, at_ms] = places.map(|place| lines.field(place));
    let [prefix, region, ms] = places.map(|place| &record[place]);
    let net = prefix.parse::<IpNet>().or_else(|_| prefix.parse::<IpAddr>().map(IpNet::from));
    let net = match net {
        Err(_) => {
            let fault = faults.add(at_prefix, format!("{:?} is no prefix", shown(prefix)));
            fault.help = Some("write 198.51.100.0/24 or 2001:db8:1::/48".to_owned());
            None
        }
        Ok(net) if net.prefix_len() > finest(&net) => {
            let wider = IpNet::new(net.addr(), finest(&net)).map(|wider| wider.trunc());
            let fault = faults.add(at_prefix, format!("{net} is finer than /{}", finest(&net)));
            fault.rule = Some("nothing finer than /24 (IPv4) or /48 (IPv6) is told apart".to_owned());
            fault.help = wider.ok().map(|wider| format!("write {wider}, with the median of what lies in it"));
            None
        }
        Ok(net) if net.trunc() != net => {
            let fault = faults.add(at_prefix, format!("{net} has bits behind its length"));
            fault.help = Some(format!("write {}", net.trunc()));
            None
        }
        Ok(net) => Some(net),
    };
    let name = match region.is_empty() || region.len() > MAX_NAME {
        true => {
            let fault = faults.add(at_region, "no name of a region");
            fault.rule = Some(format!("names have 1 to {MAX_NAME} bytes"));
            fault.help = Some("write the name that the region has in the zone files".to_owned());
            None
        }
        false => Some(names.get(region).cloned().unwrap_or_else(|| {
            let name: Arc<str> = region.into();
            names.insert(Arc::clone(&name));
            name
        })),
    };
    let ms = ms.parse::<f64>().ok().filter(|value| RTT_MS.contains(value)).or_else(|| {
        let fault = faults.add(at_ms, format!("{:?} is no round-trip time", shown(ms)));
        fault.rule = Some(format!("ms, from {} to {}", RTT_MS.start(), RTT_MS.end()));
        fault.help = Some("write a number without a unit, like 42.5, or remove the row".to_owned());
        None
    });
    Some(Imported { prefix: net?, region: name?, ms: ms?, line: at_region.0, column: at_region.1 })
}

fn finest(net: &IpNet) -> u8 {
    if net.addr().is_ipv4() { 24 } else { 48 }
}

/// Counts lines by the place in the text: the reader's own count is one behind after CRLF and empty lines.
struct Lines<'t> {
    text: &'t [u8],
    at: usize,
    line: u32,
}

impl Lines<'_> {
    /// Of a record that is no earlier than the last one asked for.
    fn of(&mut self, position: Option<&csv::Position>) -> u32 {
        let to = position.map_or(self.at, |position| usize::try_from(position.byte()).unwrap_or(usize::MAX));
        while let Some(byte) = self.text.get(self.at) {
            // A record's place may be before the line breaks that end the one before it.
            if self.at >= to && !matches!(byte, b'\r' | b'\n') {
                break;
            }
            self.line += u32::from(*byte == b'\n');
            self.at += 1;
        }
        self.line
    }

    /// Line and column at which a field of the record begins that was asked for last.
    fn field(&self, number: usize) -> (u32, u32) {
        let (mut line, mut column, mut seen, mut quoted) = (self.line, 1, 0, false);
        for byte in &self.text[self.at..] {
            match byte {
                b' ' | b'\t' if seen == number && !quoted => {}
                _ if seen == number => break,
                b'"' => quoted = !quoted,
                b',' if !quoted => seen += 1,
                // It has no so many fields.
                b'\r' | b'\n' if !quoted => return (self.line, 1),
                _ => {}
            }
            match byte {
                b'\n' => (line, column) = (line + 1, 1),
                // The first byte of a character.
                byte if byte & 0xC0 != 0x80 => column += 1,
                _ => {}
            }
        }
        (line, column)
    }
}

struct Faults {
    file: Arc<Path>,
    list: Vec<Diagnostic>,
    more: usize,
}

impl Faults {
    fn add(&mut self, (line, column): (u32, u32), what: impl Into<String>) -> &mut Diagnostic {
        let fault = Diagnostic::error(At { file: Arc::clone(&self.file), line, column }, what);
        if self.list.len() > MAX_FAULTS {
            // The last one stands for all that follow.
            self.more += 1;
            self.list.truncate(MAX_FAULTS);
        }
        self.list.push(fault);
        self.list.last_mut().expect("one was pushed just now")
    }

    fn csv(&mut self, error: &csv::Error, lines: &mut Lines<'_>) {
        let what = match error.kind() {
            csv::ErrorKind::Utf8 { .. } => "not UTF-8 text".to_owned(),
            _ => error.to_string(),
        };
        let line = lines.of(error.position());
        let fault = self.add((line, 1), what);
        fault.rule = Some("the table is CSV (RFC 4180) in UTF-8".to_owned());
        fault.help = Some(EXAMPLE.to_owned());
    }

    fn finish(mut self) -> Vec<Diagnostic> {
        if self.more > 0
            && let Some(last) = self.list.last_mut()
        {
            let what = format!("{} more faults of this table", self.more + 1);
            (last.what, last.rule, last.help) = (what, None, None);
        }
        self.list
    }
}

/// Warnings about regions that no zone has: their rows do nothing.
pub fn unknown_regions(path: &Path, rows: &[Imported], zones: &[Zone]) -> Vec<Diagnostic> {
    let known: HashSet<&str> = zones.iter().flat_map(|zone| &zone.regions).map(|region| &*region.name).collect();
    let mut told = HashSet::new();
    let unknown = rows.iter().filter(|row| !known.contains(&*row.region) && told.insert(&row.region)).take(20);
    unknown
        .map(|row| {
            let at = At { line: row.line, column: row.column, ..At::start(path) };
            let warning = Diagnostic::warning(at, format!("no zone uses a region {}", row.region));
            let meant = nearest(&row.region, known.iter().copied()).map(|meant| format!("did you mean {meant}?"));
            let help = meant.unwrap_or_else(|| "remove them, or name a region of the zone files".to_owned());
            warning.rule("its rows do nothing").help(help)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Vec<Imported>, Vec<String>) {
        let (rows, faults) = parse(Path::new("rtt.csv"), text.as_bytes());
        (rows, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rows_are_read_in_any_order_of_columns() {
        let (rows, faults) = read("prefix,region,ms\n198.51.100.0/24,eu-west,42.5\r\n\n\"2001:db8::/32\", us ,90\n");
        assert_eq!(faults, [""; 0]);
        assert_eq!((rows.len(), rows[0].ms, &*rows[1].region, rows[1].line), (2, 42.5, "us", 4));
        let (rows, _) = read("\u{feff}ms,prefix,region\n7,192.0.2.0/24,eu\n");
        assert_eq!((rows[0].ms, &*rows[0].region), (7.0, "eu"));
    }

    #[test]
    fn each_fault_is_told_with_its_line() {
        let cases = [
            (
                "",
                "rtt.csv:1:1: the table is empty\n  the first line names the columns prefix, region and ms\n  help: begin with the line prefix,region,ms",
            ),
            (
                "prefix,region,ms\n192.0.2.0/24, eu ,fast",
                "rtt.csv:2:19: \"fast\" is no round-trip time\n  ms, from 1 to 2000\n  help: write a number",
            ),
            ("prefix,region,ms\n\"192.0.2.0/24\",\"e\nü,\",-1", "rtt.csv:3:5: \"-1\" is no round-trip time"),
            (
                "192.0.2.0/24,eu,9\n192.0.3.0/24,eu,9\n",
                "rtt.csv:1:1: the first line is no header\n  the first line names the columns prefix, region and ms\n  help: begin with the line prefix,region,ms",
            ),
            (
                "prefix,region,ms,comment\n",
                "rtt.csv:1:18: unknown column \"comment\"\n  the first line names the columns prefix, region and ms\n  help: remove the column",
            ),
            (
                "prefix,regoin,ms\n",
                "rtt.csv:1:8: unknown column \"regoin\"\n  the first line names the columns prefix, region and ms\n  help: did you mean region?",
            ),
            (
                "prefix,ms\n",
                "rtt.csv:1:1: no column region\n  the first line names the columns prefix, region and ms\n  help: begin with the line prefix,region,ms",
            ),
            ("prefix,region,ms,ms\n", "rtt.csv:1:1: a column is there twice"),
            (
                "prefix,region,ms\n192.0.2.0/24,eu\n",
                "rtt.csv:2:1: 2 fields\n  each row has three: prefix, region, ms\n  help: write it like 198.51.100.0/24,eu-west,42.5",
            ),
            ("prefix,region,ms\n192.0.2.0/25,eu,4\n", "rtt.csv:2:1: 192.0.2.0/25 is finer than /24"),
            (
                "prefix,region,ms\n192.0.2.7,eu,4\n",
                "rtt.csv:2:1: 192.0.2.7/32 is finer than /24\n  nothing finer than /24 (IPv4) or /48 (IPv6) is told apart\n  help: write 192.0.2.0/24",
            ),
            (
                "prefix,region,ms\n192.0.2.0/16,eu,4\n",
                "rtt.csv:2:1: 192.0.2.0/16 has bits behind its length\n  help: write 192.0.0.0/16",
            ),
            ("prefix,region,ms\nhere,eu,4\n", "rtt.csv:2:1: \"here\" is no prefix"),
            (
                "prefix,region,ms\n192.0.2.0/24,,4\n",
                "rtt.csv:2:14: no name of a region\n  names have 1 to 255 bytes\n  help: write the name",
            ),
            (
                "prefix,region,ms\n192.0.2.0/24,eu,4\n192.0.2.0/24,eu,5\n",
                "rtt.csv:3:1: 192.0.2.0/24 to eu is there twice\n  help: remove one of them; the first is at line 2",
            ),
        ];
        for (text, expected) in cases {
            let (_, faults) = read(text);
            assert!(faults.len() == 1 && faults[0].starts_with(expected), "{text:?}: {faults:#?}");
        }
        for ms in ["0", "-1", "2001", "NaN", "inf", "1e308", "fast", ""] {
            let (rows, faults) = read(&format!("prefix,region,ms\n192.0.2.0/24,eu,{ms}\n"));
            assert!(
                rows.is_empty() && faults.len() == 1 && faults[0].contains("no round-trip time"),
                "{ms} {faults:?}"
            );
        }
    }

    #[test]
    fn faults_beyond_a_thousand_are_counted() {
        let text = format!("prefix,region,ms\n{}", "x,y,z\n".repeat(2000));
        let (_, faults) = read(&text);
        assert_eq!(faults.len(), MAX_FAULTS + 1);
        assert!(faults[MAX_FAULTS].contains("3000 more faults"), "{}", faults[MAX_FAULTS]);
    }

    #[test]
    fn a_table_that_is_too_long_or_missing_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rtt.csv");
        assert!(load(&path).unwrap_err()[0].what.contains("can't read"));
        assert!(load(dir.path()).unwrap_err()[0].what.contains("no file"));
        std::fs::write(&path, vec![b'x'; MAX_BYTES as usize + 1]).unwrap();
        assert!(load(&path).unwrap_err()[0].what.contains("larger than 16 MiB"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_rows_or_faults(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let (rows, faults) = parse(Path::new("rtt.csv"), &bytes);
            prop_assert!(!rows.is_empty() || !faults.is_empty() || bytes.len() >= 16);
        }

        #[test]
        fn what_is_taken_keeps_the_rules(lines in prop::collection::vec("([0-9.]{1,9}/[0-9]{1,2}|::/[0-9]{1,2}),[a-c]?,[0-9.e-]{0,6}", 0..30)) {
            let text = format!("prefix,region,ms\n{}\n", lines.join("\n"));
            let (rows, faults) = parse(Path::new("rtt.csv"), text.as_bytes());
            prop_assert!(rows.iter().all(|row| RTT_MS.contains(&row.ms) && row.prefix.trunc() == row.prefix));
            prop_assert!(rows.iter().all(|row| row.prefix.prefix_len() <= finest(&row.prefix)));
            prop_assert!(faults.iter().all(|fault| fault.at.line >= 1));
        }
    }
}
