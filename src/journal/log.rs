//! The journal on the disk: `events.jsonl`, one entry a line, and what was rotated away before: `events.1.jsonl` (the
//! newest) to `events.5.jsonl`.
//!
//! A line goes to the kernel as it is noted, and to the disk when the kernel sees fit: a killed node loses nothing that
//! was written, a lost machine the last seconds. A line that is torn at the end is cut off at the next start, one that is
//! damaged elsewhere is skipped.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use tracing::{error, warn};

use super::{Entry, KEPT};
use crate::state::file::set_aside;

/// A file that has reached this is rotated.
pub const ROTATE_AT: u64 = 16 << 20;
/// Rotated files that are kept.
pub const ROTATED: usize = 5;
/// Bytes read or written at once, about.
const PIECE: usize = 64 << 10;
/// Ids above this are not ours: JSON numbers are doubles to many tools.
const LARGEST_ID: u64 = 1 << 53;

/// The file that is appended to.
pub struct Log {
    directory: PathBuf,
    rotate_at: u64,
    /// `None` after a failure, until it can be opened again.
    out: Option<Out>,
}

struct Out {
    file: File,
    /// Up to the end of the last whole line.
    len: u64,
}

impl Out {
    fn is_at(&self, path: &Path) -> bool {
        match (self.file.metadata(), fs::metadata(path)) {
            (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
}

/// What was noted before the last end.
#[derive(Debug, Default)]
pub struct Tail {
    /// Oldest first, ids ascending; at most [`KEPT`].
    pub entries: Vec<Entry>,
    /// The highest id that was used, also of lines that cannot be read.
    pub last: u64,
}

impl Log {
    /// Reads back what is there and goes on behind it. Blocks on the file system: at most some files of 16 MiB.
    pub fn open(directory: &Path) -> (Log, Tail) {
        Log::rotating_at(directory, ROTATE_AT)
    }

    pub(super) fn rotating_at(directory: &Path, rotate_at: u64) -> (Log, Tail) {
        let mut log = Log { directory: directory.to_owned(), rotate_at, out: None };
        let tail = log.read_back();
        // The first append tries again, and tells.
        log.out = log.open_file().ok();
        (log, tail)
    }

    /// Writes the entries behind the others. Gives how many of them, from the first on, are written before an error; the
    /// next call begins anew.
    pub fn append(&mut self, entries: &[Arc<Entry>]) -> (usize, io::Result<()>) {
        let mut written = 0;
        let mut lines = Vec::new();
        for (position, entry) in entries.iter().enumerate() {
            if let Err(error) = serde_json::to_writer(&mut lines, &**entry) {
                return (written, Err(error.into()));
            }
            lines.push(b'\n');
            if lines.len() >= PIECE || position + 1 == entries.len() {
                if let Err(error) = self.write(&lines) {
                    return (written, Err(error));
                }
                written = position + 1;
                lines.clear();
            }
        }
        (written, Ok(()))
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut out = match self.out.take() {
            // Moved or deleted by somebody, it would take the lines where nobody finds them.
            Some(out) if out.is_at(&self.path(0)) => out,
            _ => self.open_file()?,
        };
        if out.len > 0 && out.len + lines.len() as u64 > self.rotate_at {
            drop(out);
            self.rotate()?;
            out = self.open_file()?;
        }
        if let Err(error) = out.file.write_all(lines) {
            // On a full disk half a line may stand there. If it cannot be cut off now, opening it again will.
            let _ = out.file.set_len(out.len);
            return Err(error);
        }
        out.len += lines.len() as u64;
        self.out = Some(out);
        Ok(())
    }

    /// Opens the file to append, without the rest of a torn line.
    fn open_file(&self) -> io::Result<Out> {
        let path = self.path(0);
        // Opening a pipe would wait for its other end.
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            set_aside(&path, SystemTime::now())?;
        }
        let mut file = File::options().create(true).read(true).append(true).open(&path)?;
        let len = whole(&mut file)?;
        if len < file.metadata()?.len() {
            warn!(file = %path.display(), "the last line of the journal was torn and is cut off");
            file.set_len(len)?;
        }
        Ok(Out { file, len })
    }

    /// `events.jsonl` becomes `events.1.jsonl`, and so on; the last goes.
    fn rotate(&self) -> io::Result<()> {
        for number in (0..ROTATED).rev() {
            match fs::rename(self.path(number), self.path(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self, number: usize) -> PathBuf {
        self.directory.join(match number {
            0 => "events.jsonl".to_owned(),
            number => format!("events.{number}.jsonl"),
        })
    }

    /// The newest entries of all files.
    fn read_back(&self) -> Tail {
        let mut entries: VecDeque<Entry> = VecDeque::new();
        let mut last = 0;
        for number in 0..=ROTATED {
            let path = self.path(number);
            let text = match read_end(&path, self.rotate_at.saturating_mul(2)) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    error!(file = %path.display(), %error, "the journal cannot be read; what it held is not shown");
                    continue;
                }
            };
            let Taken { read, skipped, highest } = take_lines(&text, &mut entries);
            last = last.max(highest);
            if read == 0 && !text.is_empty() && entries.len() < KEPT {
                // Not a line of ours: not to be appended to.
                match set_aside(&path, SystemTime::now()) {
                    Ok(aside) => error!(
                        file = %path.display(), aside = %aside.display(),
                        "no line of the journal can be read; it was set aside"
                    ),
                    Err(error) => error!(file = %path.display(), %error, "no line of the journal can be read"),
                }
            } else if skipped > 0 {
                warn!(file = %path.display(), lines = skipped, "lines of the journal cannot be read and were skipped");
            }
            if entries.len() >= KEPT {
                break;
            }
        }
        Tail { entries: entries.into(), last }
    }
}

/// What came of the lines of a file.
struct Taken {
    read: usize,
    skipped: usize,
    highest: u64,
}

/// Puts the entries of `text` before those that are there already, the newest first, until there are enough.
fn take_lines(text: &[u8], entries: &mut VecDeque<Entry>) -> Taken {
    let mut lines = text.split(|byte| *byte == b'\n').rev();
    // Behind the last line end there is nothing, or a torn line.
    lines.next();
    let mut all = Taken { read: 0, skipped: 0, highest: 0 };
    let mut next = |skipped: &mut usize, highest: &mut u64| {
        lines.find_map(|line| {
            let entry = serde_json::from_slice::<Entry>(line).ok().filter(|entry| entry.id < LARGEST_ID);
            if entry.is_none() {
                *skipped += 1;
                *highest = (*highest).max(id_of(line).unwrap_or(0));
            }
            entry
        })
    };
    let mut ahead = next(&mut all.skipped, &mut all.highest);
    while let Some(entry) = ahead.take_if(|_| entries.len() < KEPT) {
        ahead = next(&mut all.skipped, &mut all.highest);
        let newer = entries.front().map_or(LARGEST_ID, |entry| entry.id);
        let older = ahead.as_ref().map_or(0, |entry| entry.id);
        // Out of its order it is a copy, or its number was damaged. Of two neighbours that do not fit, the older is to blame
        // when it does not fit the newer ones either; so one damaged number costs one line.
        if entry.id < newer && (older < entry.id || older >= newer) {
            all.highest = all.highest.max(entry.id);
            entries.push_front(entry);
            all.read += 1;
        } else {
            all.skipped += 1;
        }
    }
    all
}

/// The last `most` bytes, from the beginning of a line on.
fn read_end(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut file = File::open(path)?;
    let start = found.len().saturating_sub(most);
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    if start > 0 {
        let line = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
        text.drain(..line);
    }
    Ok(text)
}

/// How long the file is up to its last line end.
fn whole(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(PIECE as u64);
        file.seek(SeekFrom::Start(start))?;
        let mut piece = Vec::new();
        file.take(end - start).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Of an entry of a later version, whose rest cannot be understood.
fn id_of(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Id {
        id: u64,
    }
    serde_json::from_slice::<Id>(line).ok().map(|id| id.id).filter(|id| *id < LARGEST_ID)
}
