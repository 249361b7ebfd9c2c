//! `[heartbeat]` of `meridian.toml`: where heartbeats are received, and whose.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::diagnostic::{At, Diagnostic};
use super::settings::Heartbeat;
use super::tree::{Item, Table};
use crate::health::beats::keys::{self, Unusable};

/// Agents are other machines, so it is of no use on loopback alone.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8054);

/// Reads the table; `base` is the directory that relative paths count from. Blocks on the file system: the file of keys
/// is read, so that its faults are told with all others.
pub(super) fn read(
    mut table: Table<'_>,
    base: &Path,
    address: impl Fn(&Item<'_>) -> Option<SocketAddr>,
    mend: impl Fn(&str, &Item<'_>) -> Option<String>,
) -> Option<Heartbeat> {
    let listen = table.take("listen").map_or(Some(LISTEN), |item| address(&item));
    let keys = table.take("keys");
    if keys.is_none() {
        table.file.report_missing(
            Diagnostic::error(table.at(), "[heartbeat] names no file of keys")
                .rule("only heartbeats under a known key count")
                .help("add keys = \"heartbeat.keys\"; `meridian agent --new-key NAME` prints a line for it"),
        );
    }
    table.finish(mend);
    let item = keys?;
    let path = base.join(item.string()?);
    item.file.names(&path);
    match keys::read(&path) {
        Ok((_, exposed)) => {
            if exposed {
                item.report(
                    Diagnostic::warning(At::start(&path), "everybody on this machine can read the keys")
                        .help(format!("chmod o-r {}", path.display())),
                );
            }
        }
        Err(Unusable::Unreadable(error)) => item.report(
            item.fault(format!("`{}`: {}: {error}", item.path, path.display()))
                .help("give a file with a line NAME SECRET for each key; its path is relative to this file"),
        ),
        Err(Unusable::Flawed(flaws)) => {
            for flaw in flaws {
                let at = At { line: flaw.line, ..At::start(&path) };
                item.report(Diagnostic::error(at, flaw.what).help(flaw.help));
            }
        }
    }
    Some(Heartbeat { listen: listen?, keys: path })
}
