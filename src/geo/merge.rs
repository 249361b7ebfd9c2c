//! Databases laid over each other, and the operator's overrides over them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::path::Path;

use ipnet::IpNet;

use super::database::{Database, FileInfo, Known};
use super::overrides::Overrides;
use super::ranges::{Key, Ranges, nest};
use super::reading::{FIRST_V4, Trust, read};
use super::record::Records;
use crate::config::{At, Diagnostic};

/// Files laid over each other, before overrides.
pub(super) struct Merged {
    files: Vec<FileInfo>,
    records: Records,
    v4: Ranges<u32>,
    v6: Ranges<u64>,
}

impl Default for Merged {
    fn default() -> Merged {
        Merged { files: Vec::new(), records: Records::default(), v4: Ranges::all(0), v6: Ranges::all(0) }
    }
}

impl Merged {
    pub fn add(&mut self, path: &Path, bytes: Cow<'_, [u8]>, trust: Trust) -> Result<(), Diagnostic> {
        let file = self.files.len() as u8;
        let (info, v4, v6) = read(path, bytes, trust, file, &mut self.records).map_err(|fault| {
            Diagnostic::error(At::start(path), fault.what).rule(fault.rule).help(
                "fetch the file again; write it beside the old one and rename it, so that no one reads a half-written file",
            )
        })?;
        self.files.push(info);
        if file == 0 {
            (self.v4, self.v6) = (v4, v6);
            return Ok(());
        }
        let mut known: HashMap<(u32, u32), u32, foldhash::fast::RandomState> = HashMap::default();
        let mut merge = |a: u32, b: u32| match (a, b) {
            (a, 0) => a,
            (0, b) => b,
            _ => *known.entry((a, b)).or_insert_with(|| {
                let (a, b) = (self.records.list[a as usize], self.records.list[b as usize]);
                self.records.id(a.or(&b))
            }),
        };
        self.v4 = self.v4.overlay(&v4, &mut merge);
        self.v6 = self.v6.overlay(&v6, &mut merge);
        Ok(())
    }

    /// Lays the overrides over the files and drops the records that nothing uses any more.
    pub fn finish(self, overrides: Option<(&Path, Overrides)>) -> Database {
        let Merged { files, records: read, v4, v6 } = self;
        let read = read.list;
        let (path, overrides) = match overrides {
            Some((path, overrides)) => (Some(path.into()), overrides),
            None => (None, Overrides::default()),
        };
        let (mut blocks4, mut blocks6) = (Vec::new(), Vec::new());
        for (i, (prefix, _)) in overrides.prefixes.iter().enumerate() {
            let id = i as u32 + 1;
            match prefix {
                IpNet::V4(net) => {
                    let first = net.network().to_bits().max(FIRST_V4);
                    if first <= net.broadcast().to_bits() {
                        blocks4.push((first, net.broadcast().to_bits(), id));
                    }
                }
                IpNet::V6(net) => {
                    let upper = |address: Ipv6Addr| (address.to_bits() >> 64) as u64;
                    blocks6.push((upper(net.network()), upper(net.broadcast()), id));
                }
            }
        }
        let mut records = Records::default();
        let mut finish = |record: u32, said: u32| {
            let mut record = read[record as usize];
            let by_asn = record.asn.and_then(|asn| overrides.asns.get(&asn));
            let by_prefix = (said as usize).checked_sub(1).map(|i| &overrides.prefixes[i].1);
            if let Some(said) = by_prefix.or(by_asn) {
                record = record.placed(said);
            }
            records.id(record.completed())
        };
        // Most addresses lie in no prefix of the overrides.
        let mut plain = vec![None; read.len()];
        let mut under_prefix: HashMap<(u32, u32), u32, foldhash::fast::RandomState> = HashMap::default();
        let mut finished = |record: u32, said: u32| match said {
            0 => *plain[record as usize].get_or_insert_with(|| finish(record, 0)),
            _ => *under_prefix.entry((record, said)).or_insert_with(|| finish(record, said)),
        };
        let v4 = overridden(v4, blocks4, &mut finished);
        let v6 = overridden(v6, blocks6, &mut finished);
        let mut records = records.list;
        records.shrink_to_fit();
        let mut known = Known::default();
        for record in &records {
            known.countries.extend(record.country);
            known.subdivisions.extend(record.country.zip(record.subdivision));
            known.continents.extend(record.continent);
            known.asns.extend(record.asn);
        }
        Database { files, overrides: path, records, v4: v4.into(), v6: v6.into(), known }
    }
}

/// Runs by finished records; `blocks` are those of overrides, by their numbers.
fn overridden<K: Key>(
    read: Ranges<K>,
    blocks: Vec<(K, K, u32)>,
    mut finished: impl FnMut(u32, u32) -> u32,
) -> Ranges<K> {
    // A full database has millions of runs: without need there are not to be two of them at a time.
    match &blocks[..] {
        [] => read.replaced(|record| finished(record, 0)),
        _ => read.overlay(&nest(blocks, |_, id| id), finished),
    }
}
