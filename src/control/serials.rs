//! SOA serials, and the file that remembers them over a restart.
//!
//! A zone's serial is the one written in its file, else the file's modification time. Secondaries compare serials by
//! RFC 1982, so a serial must never go back, and every changed content needs a new one: where the time does not give
//! that (a file restored from a backup, two edits in one second), the last serial plus one is taken. Verdicts never
//! change a serial.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::settings::Zone;
use crate::state::file::{self, Kind};

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

    /// Reads what [`Serials::save`] wrote, now or before it wrote checksums. A file that is not of that form is set aside with
    /// a warning, so that a damaged disk does not keep the server down. Blocks on the file system.
    pub fn load(state: &Path) -> Serials {
        match file::read_or(state, Kind::Serials, |bytes| serde_json::from_slice(bytes).ok()) {
            Ok(serials) => serials.unwrap_or_default(),
            Err(fault) => {
                warn!("{fault}; serials start from the files' times");
                Serials::default()
            }
        }
    }

    /// A crash leaves either the old or the new file. Blocks until the disk holds it.
    pub fn save(&self, state: &Path) -> io::Result<()> {
        file::write(state, Kind::Serials, self)
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

    const FILE: &str = "serials.json";

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
            min_regions: 1,
            session_bits: crate::config::settings::SESSION_BITS,
            units: crate::config::settings::Units::Unsaid,
            money: None,
            regions: vec![],
            streams: vec![],
            events: vec![],
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
        assert_eq!(Serials::load(state.path()), Serials::default(), "nothing saved yet");
        let mut serials = Serials::default();
        serials.give(&zone(None, 1000, u64::MAX));
        serials.save(state.path()).unwrap();
        serials.give(&zone(None, 1000, 2));
        serials.save(state.path()).unwrap();
        assert_eq!(Serials::load(state.path()), serials);
        let left: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [FILE], "no temporary file is left behind");
    }

    #[test]
    fn serials_saved_without_a_checksum_are_read() {
        let state = tempdir().unwrap();
        let before = r#"{"zones":{"live.example.com.":{"serial":1000,"digest":"0000000000000001"}}}"#;
        fs::write(state.path().join(FILE), before).unwrap();
        assert_eq!(Serials::load(state.path()).give(&zone(None, 900, 2)), 1001);
    }

    #[test]
    fn corrupt_file_is_set_aside() {
        for broken in ["", "{", "[]", r#"{"zones":{"a.":{"serial":-1,"digest":"00"}}}"#, "\u{0}\u{0}\u{0}"] {
            let state = tempdir().unwrap();
            fs::write(state.path().join(FILE), broken).unwrap();
            assert_eq!(Serials::load(state.path()), Serials::default(), "{broken:?}");
            let left: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            let [aside] = &left[..] else { panic!("one file: {left:?}") };
            assert!(aside.to_string_lossy().contains("serials.json.corrupt-"), "{aside:?}");
            assert_eq!(fs::read_to_string(aside).unwrap(), broken);
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
