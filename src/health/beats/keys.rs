//! The secrets that agents and nodes share: a file of keys, read again when it changes.
//!
//! ```text
//! # NAME    SECRET in base64, at least 16 bytes               servers it may speak for, all where none are named
//! edge-2026 kBq4mQm0k5G7m0bCq1mJb1f0a9pHq9oGJj1cS2N0n3E=
//! fra       7pYdS1Yq4H0mF2d2kq0n3w==                          192.0.2.0/24,2001:db8:2::/64
//! ```
//!
//! Keys are changed without a gap by having old and new side by side: the new one is added on the nodes, then the agents
//! change to it, then the old one is removed.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::{BASE64, BASE64_NOPAD};
use ipnet::IpNet;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use tracing::{error, info, warn};

use super::packet::{MAX_KEY_NAME, is_key_name};

/// A shorter secret can be guessed.
const MIN_SECRET: usize = 16;
/// Of a new key: as long as the digest (RFC 2104 §3).
const NEW_SECRET: usize = 32;
/// A file with as many keys as there may be is smaller.
const MAX_FILE: u64 = 1 << 20;
const MAX_KEYS: usize = 4096;

/// One key.
pub struct Key {
    pub name: Arc<str>,
    pub mac: hmac::Key,
    /// Empty: any server.
    servers: Vec<IpNet>,
}

impl Key {
    /// Whether it may speak for the server with this public address.
    pub fn may_speak_for(&self, server: IpAddr) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|prefix| prefix.contains(&server))
    }
}

impl fmt::Debug for Key {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// The keys of a file, at least one.
#[derive(Clone, Debug)]
pub struct Keys {
    by_name: HashMap<Arc<str>, Arc<Key>>,
    first: Arc<Key>,
}

/// What is wrong in a file of keys; it never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Counted from 1.
    pub line: u32,
    pub what: String,
    pub help: &'static str,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}; {}", self.line, self.what, self.help)
    }
}

const NEW_KEY: &str = "`meridian agent --new-key NAME` prints a sound line";

impl Keys {
    /// Errors: every flaw, in the order of the lines.
    pub fn parse(text: &str) -> Result<Keys, Vec<Flaw>> {
        let mut flaws = Vec::new();
        let mut by_name: HashMap<Arc<str>, Arc<Key>> = HashMap::new();
        let mut lines: HashMap<Arc<str>, usize> = HashMap::new();
        let mut first = None;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let mut flaw = |what: String, help| flaws.push(Flaw { line: number as u32, what, help });
            let key = match parse_line(line) {
                Ok(key) => Arc::new(key),
                Err((what, help)) => {
                    flaw(what, help);
                    continue;
                }
            };
            if let Some(other) = lines.insert(key.name.clone(), number) {
                flaw(format!("the key {} stands on line {other} already", key.name), "give the new key a new name");
            }
            if by_name.len() == MAX_KEYS {
                flaw(format!("more than {MAX_KEYS} keys"), "remove those that no agent uses");
                break;
            }
            first.get_or_insert_with(|| key.clone());
            by_name.insert(key.name.clone(), key);
        }
        match first {
            Some(first) if flaws.is_empty() => Ok(Keys { by_name, first }),
            None if flaws.is_empty() => Err(vec![Flaw { line: 1, what: "there is no key".into(), help: NEW_KEY }]),
            _ => Err(flaws),
        }
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Key>> {
        self.by_name.get(name)
    }

    /// The one an agent uses: the first of the file.
    pub fn first(&self) -> &Arc<Key> {
        &self.first
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Never: a file without a key is refused.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

fn parse_line(line: &str) -> Result<Key, (String, &'static str)> {
    let mut words = line.split_ascii_whitespace();
    let (name, secret) = (words.next().unwrap_or_default(), words.next());
    if !is_key_name(name.as_bytes()) {
        // What stands there may be a secret, so it is not repeated.
        let what = format!("a name is 1 to {MAX_KEY_NAME} letters, digits, dots, dashes and underscores");
        return Err((what, "a line is NAME SECRET, and perhaps PREFIX,PREFIX"));
    }
    let Some(secret) = secret else { return Err((format!("the key {name} has no secret"), NEW_KEY)) };
    let bytes = BASE64
        .decode(secret.as_bytes())
        .or_else(|_| BASE64_NOPAD.decode(secret.as_bytes()))
        .map_err(|_| (format!("the secret of {name} is not base64 (RFC 4648 §4)"), NEW_KEY))?;
    if bytes.len() < MIN_SECRET {
        return Err((format!("the secret of {name} has {} bytes, fewer than {MIN_SECRET}", bytes.len()), NEW_KEY));
    }
    let servers = match words.next() {
        None => Vec::new(),
        Some(list) => list.split(',').map(prefix).collect::<Result<_, _>>()?,
    };
    if words.next().is_some() {
        return Err((format!("there is more behind the prefixes of {name}"), "separate prefixes by commas only"));
    }
    Ok(Key { name: name.into(), mac: hmac::Key::new(hmac::HMAC_SHA256, &bytes), servers })
}

fn prefix(text: &str) -> Result<IpNet, (String, &'static str)> {
    let help = "write prefixes like 192.0.2.0/24,2001:db8::/32";
    let net = text.parse().or_else(|_| text.parse().map(|address: IpAddr| IpNet::from(address)));
    let net = net.map_err(|_| (format!("{text:?} is no prefix"), help))?;
    if net.trunc() == net { Ok(net) } else { Err((format!("{text} has bits behind its length"), help)) }
}

/// A line for a new key of this name, without a line break.
///
/// Errors: the name is none, or the system gives no random bytes.
pub fn new_line(name: &str) -> Result<String, String> {
    if !is_key_name(name.as_bytes()) {
        return Err(format!("a name is 1 to {MAX_KEY_NAME} letters, digits, dots, dashes and underscores"));
    }
    let mut secret = [0; NEW_SECRET];
    SystemRandom::new().fill(&mut secret).map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(format!("{name} {}", BASE64.encode(&secret)))
}

/// Why a file of keys cannot be used.
#[derive(Debug)]
pub enum Unusable {
    Unreadable(io::Error),
    Flawed(Vec<Flaw>),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Unusable::Flawed(flaws) => {
                let flaws: Vec<String> = flaws.iter().map(ToString::to_string).collect();
                f.write_str(&flaws.join("; "))
            }
        }
    }
}

impl std::error::Error for Unusable {}

/// What the kernel says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64, u64, u64, (i64, i64), (i64, i64));

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let meta = fs::metadata(path).ok()?;
        let (modified, changed) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
        Some(Stamp(meta.dev(), meta.ino(), meta.len(), modified, changed))
    }
}

/// Reads a file of keys. Blocks on the file system. The flag: others than owner and group can read it.
pub fn read(path: &Path) -> Result<(Keys, bool), Unusable> {
    let unreadable = Unusable::Unreadable;
    let meta = fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(unreadable(io::Error::other("not a file")));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unreadable(io::Error::other("larger than 1 MiB")));
    }
    let text = String::from_utf8(bytes).map_err(|_| unreadable(io::Error::other("not UTF-8")))?;
    Ok((Keys::parse(&text).map_err(Unusable::Flawed)?, meta.mode() & 0o004 != 0))
}

/// A file of keys in use.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
    /// Of the last reading, whether its result was taken or not.
    stamp: Option<Stamp>,
    keys: Arc<Keys>,
}

impl KeyFile {
    /// Blocks on the file system. Logs a warning when everybody can read the file.
    pub fn open(path: &Path) -> Result<KeyFile, Unusable> {
        // Taken before reading, so that a change meanwhile is seen as one.
        let stamp = Stamp::of(path);
        let (keys, exposed) = read(path)?;
        if exposed {
            warn!(file = %path.display(), "everybody on this machine can read the keys of heartbeats; chmod o-r it");
        }
        Ok(KeyFile { path: path.to_owned(), stamp, keys: Arc::new(keys) })
    }

    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Reads the file if it is another than at the last reading. Blocks on the file system. A file that cannot be used
    /// is logged once and leaves the keys as they are. True: the keys are new.
    pub fn refresh(&mut self) -> bool {
        let stamp = Stamp::of(&self.path);
        if stamp == self.stamp {
            return false;
        }
        self.stamp = stamp;
        match KeyFile::open(&self.path) {
            Ok(file) => {
                *self = file;
                info!(file = %self.path.display(), keys = self.keys.len(), "keys of heartbeats read again");
                true
            }
            Err(why) => {
                error!(file = %self.path.display(), "the keys read before stay in use: {why}");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

    fn flaws(text: &str) -> Vec<String> {
        Keys::parse(text).unwrap_err().iter().map(|flaw| format!("{}: {}", flaw.line, flaw.what)).collect()
    }

    #[test]
    fn keys_stand_one_a_line_with_comments_between() {
        let text = format!(
            "# old\nedge {SECRET}\r\n\n  fra\t{SECRET}  192.0.2.0/24,2001:db8::1 # new\nbare {}",
            &SECRET[..22]
        );
        let keys = Keys::parse(&text).unwrap();
        assert_eq!((keys.len(), &*keys.first().name), (3, "edge"));
        let (edge, fra) = (keys.get("edge").unwrap(), keys.get("fra").unwrap());
        for (address, of_fra) in
            [("192.0.2.7", true), ("198.51.100.1", false), ("2001:db8::1", true), ("2001:db8::2", false)]
        {
            let address = address.parse().unwrap();
            assert!(edge.may_speak_for(address));
            assert_eq!(fra.may_speak_for(address), of_fra, "{address}");
        }
        assert!(keys.get("old").is_none());
    }

    #[test]
    fn every_flaw_is_told_with_its_line_and_without_the_secret() {
        let text = format!(
            "{SECRET}\nshort c2hvcnQ=\nodd !!!!\nalone\nnets {SECRET} 192.0.2.1/24\nwords {SECRET} ::/0 ::/0\n\
             nonet {SECRET} fra\ntwin {SECRET}\ntwin {SECRET}"
        );
        let told = flaws(&text);
        assert_eq!(
            told[1..],
            [
                "2: the secret of short has 5 bytes, fewer than 16",
                "3: the secret of odd is not base64 (RFC 4648 §4)",
                "4: the key alone has no secret",
                "5: 192.0.2.1/24 has bits behind its length",
                "6: there is more behind the prefixes of words",
                "7: \"fra\" is no prefix",
                "9: the key twin stands on line 8 already",
            ]
        );
        assert!(told[0].starts_with("1: a name is 1 to 32"));
        assert!(!told.concat().contains(SECRET));
        assert_eq!(flaws("# nothing\n"), ["1: there is no key"]);
    }

    #[test]
    fn a_key_does_not_show_its_secret() {
        let keys = Keys::parse(&format!("edge {SECRET}")).unwrap();
        assert!(!format!("{keys:?}").contains("MDEy") && !format!("{keys:?}").contains("0123456789"));
    }

    #[test]
    fn too_many_keys_are_refused() {
        let text: String = (0..=MAX_KEYS).map(|n| format!("k{n} {SECRET}\n")).collect();
        assert_eq!(flaws(&text), [format!("{}: more than {MAX_KEYS} keys", MAX_KEYS + 1)]);
    }

    #[test]
    fn a_new_line_is_a_sound_one_and_never_the_same() {
        let lines = [new_line("edge-1").unwrap(), new_line("edge-1").unwrap()];
        assert_ne!(lines[0], lines[1]);
        assert_eq!(&*Keys::parse(&lines[0]).unwrap().first().name, "edge-1");
        assert!(new_line("edge 1").is_err());
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_leaves_the_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heartbeat.keys");
        fs::write(&path, format!("old {SECRET}\n")).unwrap();
        let mut file = KeyFile::open(&path).unwrap();
        assert!(!file.refresh(), "nothing changed");
        fs::write(&path, format!("old {SECRET}\nnew {SECRET}\n")).unwrap();
        assert!(file.refresh());
        assert!(file.keys().get("old").is_some() && file.keys().get("new").is_some());
        for broken in [&b"new"[..], b"", b"\xff\xfe", &[b'#'; (1 << 20) + 1]] {
            fs::write(&path, broken).unwrap();
            assert!(!file.refresh());
            assert_eq!(file.keys().len(), 2);
        }
        fs::remove_file(&path).unwrap();
        assert!(!file.refresh());
        fs::write(&path, format!("new {SECRET}\n")).unwrap();
        assert!(file.refresh());
        assert!(file.keys().get("old").is_none());
    }

    #[test]
    fn a_file_that_everybody_can_read_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heartbeat.keys");
        fs::write(&path, format!("edge {SECRET}\n")).unwrap();
        for (mode, exposed) in [(0o600, false), (0o640, false), (0o644, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).unwrap().1, exposed, "{mode:o}");
        }
        assert!(matches!(read(folder.path()), Err(Unusable::Unreadable(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "(?s)[ -~\n\tä]{0,200}") {
            let _ = Keys::parse(&text);
        }
    }
}
