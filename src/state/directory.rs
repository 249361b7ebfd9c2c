//! The directory itself: made if need be, and locked, so that two nodes do not write over each other's state.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::file;

const LOCK: &str = "lock";
/// A node that was told to end may still be writing; its successor waits that long for it.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(20);

/// A state directory that this node alone uses, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    // The kernel lets go of the lock with the last descriptor, so a killed node leaves none behind.
    _lock: File,
}

/// Why the directory cannot be used.
#[derive(Debug)]
pub enum OpenError {
    /// Another node uses it.
    InUse {
        path: PathBuf,
        process: Option<u32>,
    },
    Unusable {
        path: PathBuf,
        cause: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse { path, process } => {
                write!(f, "the state directory {} is in use by ", path.display())?;
                match process {
                    Some(process) => write!(f, "process {process}")?,
                    None => write!(f, "another process")?,
                }
                write!(f, "; give each node its own (--state DIR)")
            }
            OpenError::Unusable { path, cause } => {
                write!(f, "the state directory {} cannot be used: {cause}", path.display())
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl Directory {
    /// Makes it if need be and locks it; waits up to `patience` for who holds the lock. Blocks on the file system.
    pub fn open(path: &Path, patience: Duration) -> Result<Directory, OpenError> {
        let unusable = |cause| OpenError::Unusable { path: path.to_owned(), cause };
        fs::create_dir_all(path).map_err(unusable)?;
        let path = path.canonicalize().map_err(unusable)?;
        let unusable = |cause| OpenError::Unusable { path: path.clone(), cause };
        let name = path.join(LOCK);
        // Opening a pipe would wait for its other end.
        if fs::metadata(&name).is_ok_and(|found| !found.is_file()) {
            return Err(unusable(io::Error::other(format!("{} is no regular file", name.display()))));
        }
        let options = &mut File::options();
        let mut lock = options.create(true).truncate(false).read(true).write(true).open(&name).map_err(unusable)?;
        let deadline = Instant::now() + patience;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(AGAIN),
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let read = (&lock).take(20).read_to_string(&mut text);
                    let process = read.ok().and_then(|_| text.trim().parse().ok());
                    return Err(OpenError::InUse { path, process });
                }
                Err(TryLockError::Error(cause)) => return Err(unusable(cause)),
            }
        }
        // For people, and for the error of who comes second; a full disk leaves it empty, and the lock holds all the same.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        file::sweep(&path);
        Ok(Directory { path, _lock: lock })
    }

    /// Absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
