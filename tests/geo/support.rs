//! Small databases, written by a library that is not ours.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use meridian::geo::Database;
use serde_json::Value;
use tempfile::TempDir;

/// A directory of database files.
pub struct Files {
    pub dir: TempDir,
}

impl Files {
    pub fn new() -> Files {
        Files { dir: tempfile::tempdir().unwrap() }
    }

    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// The bytes of a database; `networks` do not overlap. IPv6 as soon as one network is; IPv4 then goes under ::/96.
pub fn mmdb(networks: &[(&str, Value)]) -> Vec<u8> {
    let networks: Vec<(IpNet, Value)> =
        networks.iter().map(|(net, record)| (net.parse().unwrap(), record.clone())).collect();
    mmdb_of(&networks)
}

pub fn mmdb_of(networks: &[(IpNet, Value)]) -> Vec<u8> {
    let v6 = networks.iter().any(|(net, _)| net.addr().is_ipv6());
    let mut database = maxminddb_writer::Database::default();
    database.metadata.binary_format_major_version = 2;
    database.metadata.database_type = "Test".to_owned();
    database.metadata.description.insert("en".to_owned(), "Test".to_owned());
    database.metadata.build_epoch = 1_780_000_000;
    database.metadata.ip_version = if v6 { IpVersion::V6 } else { IpVersion::V4 };
    let mut written: Vec<(&Value, _)> = Vec::new();
    for (net, record) in networks {
        let data = match written.iter().find(|(known, _)| *known == record) {
            Some(&(_, data)) => data,
            None => {
                let data = database.insert_value(record.clone()).unwrap();
                written.push((record, data));
                data
            }
        };
        let path = match net {
            IpNet::V4(net) if v6 => {
                IpAddrWithMask::new(IpAddr::V6(net.network().to_ipv6_compatible()), 96 + net.prefix_len())
            }
            net => IpAddrWithMask::new(net.network(), net.prefix_len()),
        };
        database.insert_node(path, data);
    }
    database.write_to(Vec::new()).unwrap()
}

/// What a look-up tells, in a line: `US-CA North America 37.42,-122.08 AS15169`, unknown parts left out.
pub fn told(database: &Database, address: &str) -> String {
    let found = database.lookup(address.parse().unwrap());
    let mut parts = Vec::new();
    if let Some(country) = found.country {
        let subdivision = found.subdivision.map_or(String::new(), |code| format!("-{}", code.value));
        parts.push(format!("{}{subdivision}", country.value));
    }
    parts.extend(found.continent.map(|continent| continent.value.to_string()));
    parts.extend(found.location.map(|at| format!("{:.2},{:.2}", at.value.lat(), at.value.lon())));
    parts.extend(found.asn.map(|asn| format!("AS{}", asn.value)));
    parts.join(" ")
}

pub fn load(files: &[PathBuf]) -> Database {
    Database::load(files, None).unwrap_or_else(|faults| panic!("{faults:#?}"))
}
