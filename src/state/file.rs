//! Small files that are written whole, and never half.
//!
//! The first line tells what follows: `meridian-state 1 orders 9f86d081…`, with the format's version, the kind of
//! content and the SHA-256 of the body. The body is JSON. A file is written beside its place, flushed to the disk and
//! renamed, so a crash leaves the old one or the new one. What cannot be read is renamed to `NAME.corrupt-UNIXTIME`,
//! never deleted or written over at once: somebody may want to look at it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// First word of every file of ours.
const MAGIC: &str = "meridian-state";
/// Of the first line and how the body is to be understood. Another one is not read.
const VERSION: &str = "1";
const NOT_OURS: &str = "it is not a state file of Meridian";
/// A longer file is not ours: 10,000 servers need some 2 MB.
const LONGEST: u64 = 64 << 20;
/// Files of one name set aside that are kept; the oldest goes first.
const ASIDE: usize = 3;

/// What a file holds; it gives the file its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Orders,
    Verdicts,
    Serials,
    Demand,
    /// Learned round-trip times.
    Rtt,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Orders => "orders",
            Kind::Verdicts => "verdicts",
            Kind::Serials => "serials",
            Kind::Demand => "demand",
            Kind::Rtt => "rtt",
        }
    }

    pub fn file_name(self) -> String {
        format!("{}.json", self.word())
    }
}

/// A file that could not be read.
#[derive(Debug)]
pub struct Fault {
    pub file: PathBuf,
    pub why: String,
    /// Where it is now, or why it could not be moved there.
    pub aside: Result<PathBuf, io::Error>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, why) = (self.file.display(), &self.why);
        match &self.aside {
            Ok(aside) => write!(f, "{file} cannot be used ({why}); it was set aside as {}", aside.display()),
            Err(error) => write!(f, "{file} cannot be used ({why}), nor set aside ({error})"),
        }
    }
}

impl std::error::Error for Fault {}

/// Why a file says nothing, to who only looks at it.
#[derive(Debug)]
pub struct Unread {
    pub file: PathBuf,
    pub why: String,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used: {}", self.file.display(), self.why)
    }
}

impl std::error::Error for Unread {}

/// As [`read`], for who does not hold the directory: nothing in it is touched, and a node may be writing to it at the same
/// time. Blocks on the file system.
pub fn peek<T: DeserializeOwned>(directory: &Path, kind: Kind) -> Result<Option<T>, Unread> {
    let file = directory.join(kind.file_name());
    let read = match bytes(&file) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) if bytes.starts_with(MAGIC.as_bytes()) => unseal(&bytes, kind),
        Ok(Some(_)) => Err(NOT_OURS.to_owned()),
        Err(error) => Err(error.to_string()),
    };
    read.map(Some).map_err(|why| Unread { file, why })
}

/// Reads what [`write()`] wrote; `None` where there is no file. Blocks on the file system.
pub fn read<T: DeserializeOwned>(directory: &Path, kind: Kind) -> Result<Option<T>, Fault> {
    read_or(directory, kind, |_| None)
}

/// As [`read`]; `older` is asked about a text without our first line, written by versions that had none.
pub fn read_or<T: DeserializeOwned>(
    directory: &Path,
    kind: Kind,
    older: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>, Fault> {
    let file = directory.join(kind.file_name());
    let result = match bytes(&file) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) if bytes.starts_with(MAGIC.as_bytes()) => unseal(&bytes, kind),
        Ok(Some(bytes)) => older(&bytes).ok_or_else(|| NOT_OURS.to_owned()),
        Err(error) => Err(error.to_string()),
    };
    result.map(Some).map_err(|why| Fault { aside: set_aside(&file, SystemTime::now()), file, why })
}

/// Writes it whole; a crash at any instant leaves the file as it was or as it is to be. Blocks until the disk holds it:
/// milliseconds, on a busy disk seconds.
pub fn write<T: Serialize>(directory: &Path, kind: Kind, content: &T) -> io::Result<()> {
    let place = directory.join(kind.file_name());
    // Of its own for each process, so that two of them cannot write into one.
    let new = directory.join(format!("{}.new-{}", kind.file_name(), std::process::id()));
    let written = seal(kind, content).and_then(|bytes| {
        let mut out = File::create(&new)?;
        out.write_all(&bytes)?;
        out.sync_all()?;
        fs::rename(&new, &place)
    });
    if let Err(error) = written {
        // On a full disk it would only take room.
        let _ = fs::remove_file(&new);
        return Err(io::Error::new(error.kind(), format!("{}: {error}", place.display())));
    }
    // The rename itself lives in the directory.
    File::open(directory)?.sync_all()
}

/// Removes what writers that were killed left half-written. Only for who holds the directory.
pub fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = [Kind::Orders, Kind::Verdicts, Kind::Serials, Kind::Demand, Kind::Rtt]
            .iter()
            .any(|kind| name.to_string_lossy().starts_with(&format!("{}.new", kind.file_name())));
        if ours {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Renames `file` to `NAME.corrupt-UNIXTIME`; of those with its name, a few are kept.
pub fn set_aside(file: &Path, now: SystemTime) -> io::Result<PathBuf> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = format!("{name}.corrupt-");
    let directory = file.parent().unwrap_or(Path::new("."));
    let mut earlier: Vec<(u64, PathBuf)> = fs::read_dir(directory)?
        .flatten()
        .filter_map(|entry| {
            let at = entry.file_name().to_str()?.strip_prefix(&stem)?.parse().ok()?;
            Some((at, entry.path()))
        })
        .collect();
    earlier.sort_unstable();
    let mut at = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    while earlier.iter().any(|(taken, _)| *taken == at) {
        at = at.wrapping_add(1);
    }
    let aside = directory.join(format!("{stem}{at}"));
    fs::rename(file, &aside)?;
    let excess = (earlier.len() + 1).saturating_sub(ASIDE);
    for (_, old) in &earlier[..excess.min(earlier.len())] {
        // A directory stays: what is in it is not ours to delete.
        let _ = fs::remove_file(old);
    }
    Ok(aside)
}

/// `None` where there is nothing.
fn bytes(file: &Path) -> io::Result<Option<Vec<u8>>> {
    let found = match fs::metadata(file) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Opening a pipe would wait for its other end.
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("it is longer than {} MiB", LONGEST >> 20)));
    }
    Ok(Some(bytes))
}

fn seal<T: Serialize>(kind: Kind, content: &T) -> io::Result<Vec<u8>> {
    let mut body = serde_json::to_vec_pretty(content)?;
    body.push(b'\n');
    let sum = HEXLOWER.encode(digest(&SHA256, &body).as_ref());
    let mut bytes = format!("{MAGIC} {VERSION} {} {sum}\n", kind.word()).into_bytes();
    bytes.append(&mut body);
    Ok(bytes)
}

fn unseal<T: DeserializeOwned>(bytes: &[u8], kind: Kind) -> Result<T, String> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("its first line is cut short")?;
    let (first, body) = (&bytes[..end], &bytes[end + 1..]);
    let first = str::from_utf8(first).map_err(|_| "its first line is no text")?;
    let [MAGIC, version, word, sum] = first.split(' ').collect::<Vec<_>>()[..] else {
        return Err("its first line is not `meridian-state VERSION KIND CHECKSUM`".to_owned());
    };
    if version != VERSION {
        return Err(format!("it is of version {version}, and this program reads version {VERSION}"));
    }
    if word != kind.word() {
        return Err(format!("it holds {word}, not {}", kind.word()));
    }
    if sum != HEXLOWER.encode(digest(&SHA256, body).as_ref()) {
        return Err("its checksum does not fit: it was cut short or changed".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}
