//! SOA serials, and the file that remembers them over a restart.
//!
//! A zone's serial is the one written in its file, else the file's modification time. Secondaries compare serials by
//! RFC 1982, so a serial must never go back, and every changed content needs a new one: where the time does not give
//! that (a file restored from a backup, two edits in one second), the last serial plus one is taken. Verdicts never
//! change a serial.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::settings::Zone;

const FILE: &str = "serials.json";

/// The serial of a zone when it was last published, and the digest of the text it stood for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    serial: u32,
    #[serde(with = "hex")]
    digest: u64,
}

/// Serials by zone name (lower case, absolute). Zones that are no longer served are remembered: they may come back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serials {
    zones: BTreeMap<String, Given>,
}

impl Serials {
    /// The serial to serve `zone` with from now on; remembered.
    pub fn give(&mut self, zone: &Zone) -> u32 {
        let name = zone.name.to_lowercase().to_ascii();
        let last = self.zones.get(&name).copied();
        let serial = match (zone.soa.serial, last) {
            (Some(written), last) => {
                if let Some(last) = last
                    && last.digest != zone.digest
                    && !is_later(written, last.serial)
                {
                    warn!(
                        zone = %zone.name, serial = written, last = last.serial,
                        "the zone changed but its written serial did not rise; secondaries will not see the change"
                    );
                }
                written
            }
            (None, None) => zone.modified,
            (None, Some(last)) if is_later(zone.modified, last.serial) => zone.modified,
            (None, Some(last)) if last.digest == zone.digest => last.serial,
            (None, Some(last)) => last.serial.wrapping_add(1),
        };
        self.zones.insert(name, Given { serial, digest: zone.digest });
        serial
    }

    /// Reads what [`Serials::save`] wrote. A file that is not of that form is renamed to `serials.json.corrupt` with a
    /// warning, so that a damaged disk does not keep the server down. Blocks on the file system.
    pub fn load(state: &Path) -> io::Result<Serials> {
        let file = state.join(FILE);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Serials::default()),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&text) {
            Ok(serials) => Ok(serials),
            Err(error) => {
                let aside = state.join(format!("{FILE}.corrupt"));
                fs::rename(&file, &aside)?;
                warn!(
                    file = %file.display(), aside = %aside.display(), %error,
                    "the saved serials cannot be read and were set aside; serials start from the files' times"
                );
                Ok(Serials::default())
            }
        }
    }

    /// Writes to a temporary file, then renames it over the last one: a crash leaves either the old or the new file.
    /// Blocks until the disk holds it.
    pub fn save(&self, state: &Path) -> io::Result<()> {
        let temporary = state.join(format!("{FILE}.new"));
        let mut out = File::create(&temporary)?;
        out.write_all(&serde_json::to_vec_pretty(self)?)?;
        out.write_all(b"\n")?;
        out.sync_all()?;
        fs::rename(&temporary, state.join(FILE))?;
        // The rename itself lives in the directory.
        File::open(state)?.sync_all()
    }
}

/// The state directory, made if need be.
pub fn open_state(state: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(state)?;
    state.canonicalize()
}

/// "s1 is said to be greater than s2" (RFC 1982 §3.2), for 32-bit serials.
fn is_later(serial: u32, than: u32) -> bool {
    (serial.wrapping_sub(than) as i32) > 0
}

/// JSON numbers are doubles to many tools; a 64-bit digest is kept as text.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(digest: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{digest:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_proto::rr::Name;
    use tempfile::tempdir;

    use super::*;
    use crate::config::settings::Soa;

    fn zone(written: Option<u32>, modified: u32, digest: u64) -> Zone {
        let name = |text| Name::from_str(text).expect("a name");
        Zone {
            name: name("Live.Example.com."),
            file: Path::new("zones/live.toml").into(),
            ns: vec![name("ns1.example.net.")],
            soa: Soa {
                contact: name("hostmaster.live.example.com."),
                serial: written,
                refresh: 3600,
                retry: 600,
                expire: 604_800,
                negative: 30,
            },
            regions: vec![],
            streams: vec![],
            records: vec![],
            modified,
            digest,
        }
    }

    #[test]
    fn serial_is_the_files_time_unless_one_is_written() {
        assert_eq!(Serials::default().give(&zone(None, 1_790_000_000, 1)), 1_790_000_000);
        assert_eq!(Serials::default().give(&zone(Some(7), 1_790_000_000, 1)), 7);
    }

    #[test]
    fn changed_content_without_a_later_time_gets_last_plus_one() {
        let mut serials = Serials::default();
        serials.give(&zone(None, 1000, 1));
        assert_eq!(serials.give(&zone(None, 1000, 2)), 1001, "a second edit within the second");
        assert_eq!(serials.give(&zone(None, 500, 3)), 1002, "a file from a backup");
        assert_eq!(serials.give(&zone(None, 500, 3)), 1002, "unchanged content keeps its serial");
        assert_eq!(serials.give(&zone(None, 2000, 4)), 2000, "and the time takes over again once it is later");
    }

    #[test]
    fn last_plus_one_wraps_round() {
        let mut serials = Serials::default();
        serials.give(&zone(Some(u32::MAX), 0, 1));
        assert_eq!(serials.give(&zone(None, u32::MAX - 5, 2)), 0);
    }

    #[test]
    fn zone_names_compare_case_blind() {
        let mut serials = Serials::default();
        serials.give(&zone(None, 1000, 1));
        let lower = Zone { name: Name::from_str("live.example.com.").unwrap(), ..zone(None, 900, 2) };
        assert_eq!(serials.give(&lower), 1001);
    }

    #[test]
    fn saved_serials_come_back() {
        let state = tempdir().unwrap();
        assert_eq!(Serials::load(state.path()).unwrap(), Serials::default(), "nothing saved yet");
        let mut serials = Serials::default();
        serials.give(&zone(None, 1000, u64::MAX));
        serials.save(state.path()).unwrap();
        serials.give(&zone(None, 1000, 2));
        serials.save(state.path()).unwrap();
        assert_eq!(Serials::load(state.path()).unwrap(), serials);
        let left: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [FILE], "no temporary file is left behind");
    }

    #[test]
    fn corrupt_file_is_set_aside() {
        for broken in ["", "{", "[]", r#"{"zones":{"a.":{"serial":-1,"digest":"00"}}}"#, "\u{0}\u{0}\u{0}"] {
            let state = tempdir().unwrap();
            fs::write(state.path().join(FILE), broken).unwrap();
            assert_eq!(Serials::load(state.path()).unwrap(), Serials::default(), "{broken:?}");
            assert_eq!(fs::read_to_string(state.path().join("serials.json.corrupt")).unwrap(), broken);
            assert!(!state.path().join(FILE).exists());
        }
    }

    #[test]
    fn state_that_cannot_be_written_is_an_error() {
        let state = tempdir().unwrap();
        let missing = state.path().join("gone");
        assert!(Serials::default().save(&missing).is_err());
        fs::write(&missing, "a file").unwrap();
        assert!(open_state(&missing).is_err(), "a file is no directory");
    }
}
