//! `meridian check [PATH…]`: every fault of every file in one run, those included that `serve` would refuse to start on.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use crate::config::settings::Node;
use crate::config::{Diagnostic, Shared, geo_warnings, load_database, load_node, load_zones, losses, rtt};
use crate::simulate::headroom;

/// Checks the node's file, its location databases and overrides, its table of round-trip times, and the zones of `paths`
/// (files or directories), by default the node's own zones.
///
/// `config` is the node's file; without it `meridian.toml`, if that is there. Prints all diagnostics and a line that
/// counts them, as JSON when asked. The exit code is 1 when there is an error, else 0. Errors are those of `out`.
pub fn run(paths: &[PathBuf], config: Option<&Path>, json: bool, out: &mut dyn Write) -> io::Result<u8> {
    let (files, mut diagnostics) = match load_node(config) {
        Ok((node, shared, faults)) => all_of(&node, &shared, paths, faults),
        Err(fault) => (0, vec![*fault]),
    };
    // A shared region is judged with every zone that uses it.
    diagnostics.sort();
    diagnostics.dedup();
    let errors = diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = diagnostics.len() - errors;
    if json {
        let list: Vec<_> = diagnostics.iter().map(Diagnostic::json).collect();
        let all = json!({ "zones": files, "errors": errors, "warnings": warnings, "diagnostics": list });
        writeln!(out, "{all:#}")?;
    } else {
        for diagnostic in &diagnostics {
            writeln!(out, "{diagnostic}")?;
        }
        let (zones, errors, warnings) = (count(files, "zone"), count(errors, "error"), count(warnings, "warning"));
        writeln!(out, "{zones}, {errors}, {warnings}")?;
    }
    Ok(u8::from(errors > 0))
}

/// How many zone files there are, and all faults.
fn all_of(node: &Node, shared: &Shared, paths: &[PathBuf], mut faults: Vec<Diagnostic>) -> (usize, Vec<Diagnostic>) {
    let own = std::slice::from_ref(&node.zones);
    let mut loaded = load_zones(if paths.is_empty() { own } else { paths }, shared);
    match rtt::of(node) {
        // Other paths need not have all regions of the node, nor do zones with errors.
        Ok(rows) if paths.is_empty() && !loaded.has_errors() => {
            faults.extend(node.rtt.iter().flat_map(|path| rtt::unknown_regions(path, &rows, &loaded.zones)));
        }
        Ok(_) => {}
        Err(more) => faults.extend(more),
    }
    match load_database(node) {
        Ok(database) => {
            faults.extend(geo_warnings(&loaded.zones, |rule| database.knows(rule)));
            // What the sum of capacities says is for who knows no places.
            if !loaded.has_errors()
                && let Some(told) = headroom::warnings(&loaded.zones, &Arc::new(database))
            {
                let by_sum = losses(&loaded.zones);
                loaded.diagnostics.retain(|diagnostic| !by_sum.contains(diagnostic));
                faults.extend(told);
            }
        }
        Err(more) => faults.extend(more),
    }
    faults.extend(loaded.diagnostics);
    (loaded.files, faults)
}

fn count(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}
