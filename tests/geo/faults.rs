//! Files that are not what they should be.

use meridian::geo::{Database, Places};
use proptest::prelude::*;
use serde_json::json;

use crate::support::{Files, mmdb};

fn sound() -> Vec<u8> {
    let place = |country: &str, lat: f64, lon: f64| json!({ "country": { "iso_code": country }, "location": { "latitude": lat, "longitude": lon } });
    mmdb(&[
        ("192.0.2.0/24", place("US", 39.0, -77.5)),
        ("198.51.100.0/25", place("DE", 50.1, 8.7)),
        ("2001:db8::/32", place("JP", 35.7, 139.7)),
        (
            "2001:db9::/33",
            json!({ "subdivisions": [{ "iso_code": "CA" }], "traits": { "autonomous_system_number": 7 } }),
        ),
    ])
}

/// Loads `bytes` as a file and, when they are taken, uses all that was read.
fn load(bytes: &[u8]) -> Result<(), String> {
    let files = Files::new();
    let path = files.put("a.mmdb", bytes);
    match Database::load(std::slice::from_ref(&path), None) {
        Ok(database) => {
            Places::build(&database, &[]);
            Ok(())
        }
        Err(faults) => {
            assert_eq!(faults.len(), 1, "{faults:#?}");
            assert_eq!(*faults[0].at.file, *path);
            assert!(faults[0].rule.is_some() && faults[0].help.is_some(), "{faults:#?}");
            Err(faults[0].what.clone())
        }
    }
}

#[test]
fn a_sound_file_is_taken() {
    load(&sound()).unwrap();
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let whole = sound();
    for length in 0..whole.len() {
        assert!(load(&whole[..length]).is_err(), "{length} bytes of {}", whole.len());
    }
}

#[test]
fn a_half_written_file_is_refused() {
    let whole = sound();
    // Reserved in full, as some tools do, and not yet filled.
    let mut half = whole[..whole.len() / 2].to_vec();
    half.resize(whole.len(), 0);
    assert!(load(&half).is_err());
    // The new file's end over the old file's beginning.
    let newer = mmdb(&[("203.0.113.0/24", json!({ "country_code": "FR" }))]);
    let mut mixed = whole.clone();
    let end = mixed.len() - newer.len() / 2;
    mixed[end..].copy_from_slice(&newer[newer.len() - newer.len() / 2..]);
    assert!(load(&mixed).is_err());
}

#[test]
fn files_of_another_kind_are_refused() {
    for bytes in [&b""[..], b"\xab\xcd\xefMaxMind.com", b"GIF89a", &[0; 4096], "zone = \"x\"\n".repeat(100).as_bytes()]
    {
        let what = load(bytes).unwrap_err();
        assert!(what.starts_with("not a sound database: "), "{what}");
    }
}

#[test]
fn a_schema_that_knows_nothing_we_use_is_refused() {
    let what = load(&mmdb(&[("192.0.2.0/24", json!({ "is_proxy": true, "names": [1, 2] }))])).unwrap_err();
    assert!(what.contains("no use in this database (Test, 1 networks)"), "{what}");
    let what = load(&mmdb(&[])).unwrap_err();
    assert!(!what.is_empty());
    assert!(load(&mmdb(&[("192.0.2.0/24", json!("blocked"))])).is_err());
}

#[test]
fn values_of_other_types_than_expected_are_no_fault() {
    let odd = json!({ "country": { "iso_code": 7, "code": [] }, "location": "here", "latitude": true, "asn": { "x": 1 },
                      "subdivisions": [], "continent": [["EU"]], "traits": 5, "country_code": "FR" });
    load(&mmdb(&[("192.0.2.0/24", odd)])).unwrap();
}

#[test]
fn every_fault_of_every_file_is_told_at_once() {
    let files = Files::new();
    let paths = [files.put("a.mmdb", b"x"), files.put("b.mmdb", &sound()), files.dir.path().join("missing.mmdb")];
    let overrides = files.put("overrides.toml", b"AS0 = {}\nAS1 = {}");
    let faults = Database::load(&paths, Some(&overrides)).err().unwrap();
    let of: Vec<_> = faults.iter().map(|fault| fault.at.file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(of, ["a.mmdb", "missing.mmdb", "overrides.toml", "overrides.toml", "overrides.toml"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_corruption_panics_or_hangs(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = sound();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Either is right: some bytes are names of cities.
        let _ = load(&bytes);
    }
}
