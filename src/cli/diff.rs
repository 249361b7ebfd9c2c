//! `meridian diff [OLD] NEW`: what changed zone files would change, before they are applied.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use hickory_proto::rr::Name;
use serde_json::{Value, json};

use super::recorded::{Record, StateArgs};
use super::show::{percent, table};
use super::simulate::total;
use super::{complain, complain_of};
use crate::config::rtt::Imported;
use crate::config::settings::{Node, Overrides, Zone};
use crate::config::{Diagnostic, Shared, load_database, load_node, load_zones, rtt};
use crate::simulate::demand::scaled;
use crate::simulate::report::{NOBODY, Transfers, transfers};
use crate::simulate::settle::Terms;
use crate::simulate::{Basis, Settled, Side, World, words};

/// Fewer viewers than this part of a stream are not told of.
const LEAST: f64 = 5e-5;

#[derive(Args)]
pub struct DiffArgs {
    /// Zone files, or directories of them: as they are [default: the node's own zones], and as they would be
    #[arg(required = true, num_args = 1..=2, value_names = ["OLD", "NEW"])]
    paths: Vec<PathBuf>,
    /// Sessions in all, such as "30000 sessions" [default: as recorded, or 70 % of the capacities]
    #[arg(long, value_name = "SESSIONS")]
    total: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    /// The node's own settings [default: meridian.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A location database, or a directory of them; may be repeated
    #[arg(long, value_name = "PATH")]
    geoip: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Gives the exit code: 0; 1 when files have errors or nothing can be computed; 2 for wrong usage. Errors are those of `out`.
pub fn run(args: &DiffArgs, out: &mut dyn Write) -> io::Result<u8> {
    let files = match read(args) {
        Ok(files) => files,
        Err(faults) => {
            complain_of(&faults);
            complain("no comparison: the files have errors");
            return Ok(1);
        }
    };
    let zones: Vec<&Zone> =
        files.changes.iter().flat_map(|change| [&change.old, &change.new]).flatten().map(|z| &**z).collect();
    let total = match args.total.as_ref().map(|text| total(text, &zones)).transpose() {
        Ok(total) => total,
        Err(error) => {
            complain(&error);
            return Ok(2);
        }
    };
    let moves = match Moves::of(&files, &args.state, total) {
        Ok(moves) => moves,
        Err(faults) => {
            faults.iter().for_each(|fault| complain(fault));
            return Ok(1);
        }
    };
    if args.json {
        writeln!(out, "{:#}", json(&files.changes, moves.as_ref()))?;
    } else {
        tell(&files.changes, moves.as_ref(), out)?;
    }
    Ok(0)
}

/// A zone that is not what it was.
struct Change {
    old: Option<Arc<Zone>>,
    new: Option<Arc<Zone>>,
    /// In words.
    lines: Vec<String>,
}

impl Change {
    fn name(&self) -> Arc<str> {
        self.old.as_ref().or(self.new.as_ref()).map_or("".into(), |zone| zone.label())
    }

    fn word(&self) -> &'static str {
        match (&self.old, &self.new) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        }
    }
}

struct Files {
    node: Node,
    /// All zones as they are, in the order of their files; as they would be, where there are none yet.
    zones: Vec<Arc<Zone>>,
    rtt: Vec<Imported>,
    changes: Vec<Change>,
}

fn read(args: &DiffArgs) -> Result<Files, Vec<Diagnostic>> {
    let (node, shared, faults) = load_node(args.config.as_deref()).map_err(|fault| vec![*fault])?;
    if faults.iter().any(Diagnostic::is_error) {
        return Err(faults);
    }
    let node = node.with(Overrides { geoip: args.geoip.clone(), ..Overrides::default() });
    let (old, new) = match &args.paths[..] {
        [old, new] => (old.clone(), new),
        [new] => (node.zones.clone(), new),
        _ => return Err(faults),
    };
    let (zones_before, zones_after) = (zones(&old, &shared)?, zones(new, &shared)?);
    let by_name = |zones: &[Arc<Zone>]| -> BTreeMap<Name, Arc<Zone>> {
        zones.iter().map(|zone| (zone.name.clone(), Arc::clone(zone))).collect()
    };
    let (before, after) = (by_name(&zones_before), by_name(&zones_after));
    // Read in any case: files that a reload refuses change nothing.
    let rtt = rtt::of(&node)?;
    // One file says nothing of the other zones.
    let is_whole = new.is_dir() || old.is_file();
    let mut changes = Vec::new();
    for (name, zone) in &before {
        match after.get(name) {
            Some(next) => {
                let lines = words::changes(zone, next);
                if !lines.is_empty() {
                    changes.push(Change { old: Some(Arc::clone(zone)), new: Some(Arc::clone(next)), lines });
                }
            }
            None if is_whole => changes.push(Change { old: Some(Arc::clone(zone)), new: None, lines: vec![] }),
            None => {}
        }
    }
    let fresh = after.iter().filter(|(name, _)| !before.contains_key(*name));
    changes.extend(fresh.map(|(_, zone)| Change { old: None, new: Some(Arc::clone(zone)), lines: vec![] }));
    let zones = if zones_before.is_empty() { zones_after } else { zones_before };
    Ok(Files { node, zones, rtt, changes })
}

fn zones(path: &Path, shared: &Shared) -> Result<Vec<Arc<Zone>>, Vec<Diagnostic>> {
    let loaded = load_zones(&[path.to_owned()], shared);
    if loaded.has_errors() {
        return Err(loaded.diagnostics);
    }
    Ok(loaded.zones.into_iter().map(Arc::new).collect())
}

/// Viewers that go elsewhere.
struct Moves {
    world: World,
    basis: String,
    transfers: Transfers,
    before: Side,
    after: Side,
    gap: f64,
}

impl Moves {
    /// `None`: no stream changed. Errors are in words.
    fn of(files: &Files, state: &StateArgs, total: Option<f64>) -> Result<Option<Moves>, Vec<String>> {
        let changes = files.changes.iter();
        let side =
            |of: fn(&Change) -> &Option<Arc<Zone>>| changes.clone().filter_map(|change| of(change).clone()).collect();
        let worlds: Vec<Vec<Arc<Zone>>> = vec![side(|change| &change.old), side(|change| &change.new)];
        if worlds.iter().flatten().all(|zone| zone.streams.is_empty()) {
            return Ok(None);
        }
        let database = load_database(&files.node)
            .map(Arc::new)
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let Record { recorded, costs } =
            state.read(&files.zones, &files.rtt, &database).map_err(|error| vec![error])?;
        let world = World::of(worlds, &database, costs.costs()).map_err(|error| vec![error.to_string()])?;
        let [old, new] = [&world.scenes[0], &world.scenes[1]];
        let basis = Basis::of(total, recorded);
        // A stream has as many viewers after as before.
        let mut demand = basis.demand(&world, new, &|_| true);
        demand.extend(basis.demand(&world, old, &|_| true));
        match (&basis, total) {
            (Basis::Recorded { .. }, Some(total)) => demand = scaled(demand, total),
            (_, Some(total)) => {
                let each = total / demand.len() as f64;
                demand.values_mut().for_each(|viewers| viewers.sessions = each);
            }
            (_, None) => {}
        }
        let open = vec![false; world.regions.len()];
        let before = Settled::of(&world, old, &Terms { demand: &demand, closed: &open, before: None });
        let terms = Terms { demand: &demand, closed: &open, before: Some((old, &before)) };
        let after = Settled::of(&world, new, &terms);
        let then = (old, &before);
        let moves = Moves {
            transfers: transfers(then, (new, &after), &demand),
            before: Side::of(&world, old, &before, &demand, &open, None),
            after: Side::of(&world, new, &after, &demand, &open, Some(then)),
            gap: before.gap.max(after.gap),
            basis: basis.words(if old.streams.is_empty() { new } else { old }, &demand) + costs.words(),
            world,
        };
        Ok(Some(moves))
    }

    fn name(&self, region: u16) -> &str {
        if region == NOBODY { "nobody" } else { self.world.name(region) }
    }

    /// Streams that both have, and who of their viewers goes where, the most first.
    fn streams(&self) -> impl Iterator<Item = (String, f64, Vec<(&str, &str, f64)>)> {
        self.transfers.iter().map(|((_, owner), moves)| {
            let mut list: Vec<(&str, &str, f64)> =
                moves.iter().map(|(&(from, to), part)| (self.name(from), self.name(to), *part)).collect();
            list.sort_by(|a, b| b.2.total_cmp(&a.2));
            list.retain(|(.., part)| *part >= LEAST);
            let moved = moves.values().sum();
            (owner.to_ascii().trim_end_matches('.').to_owned(), moved, list)
        })
    }
}

fn json(changes: &[Change], moves: Option<&Moves>) -> Value {
    let zones: Vec<Value> = changes
        .iter()
        .map(|change| json!({ "zone": &*change.name(), "change": change.word(), "lines": change.lines }))
        .collect();
    let Some(moves) = moves else { return json!({ "zones": zones, "streams": [] }) };
    let streams: Vec<Value> = moves
        .streams()
        .map(|(stream, moved, list)| {
            let list: Vec<Value> =
                list.iter().map(|(from, to, part)| json!({ "from": from, "to": to, "share": part })).collect();
            json!({ "stream": stream, "moved_share": moved, "moves": list })
        })
        .collect();
    json!({
        "zones": zones,
        "streams": streams,
        "before": moves.before.json(&moves.world),
        "after": moves.after.json(&moves.world),
        "gap": moves.gap,
    })
}

fn tell(changes: &[Change], moves: Option<&Moves>, out: &mut dyn Write) -> io::Result<()> {
    if changes.is_empty() {
        return writeln!(out, "nothing changes");
    }
    for change in changes {
        writeln!(out, "zone {} {}", change.name(), change.word())?;
        for line in &change.lines {
            writeln!(out, "  {}", super::show::harmless(line))?;
        }
    }
    let Some(moves) = moves else { return writeln!(out, "\nno viewer goes elsewhere: no stream is touched") };
    if !moves.transfers.is_empty() {
        writeln!(out)?;
    }
    for (stream, moved, list) in moves.streams() {
        match moved >= LEAST {
            true => writeln!(out, "{stream}: {} of the viewers go elsewhere", percent(moved))?,
            false => writeln!(out, "{stream}: nobody goes elsewhere")?,
        }
        for (from, to, part) in list {
            writeln!(out, "  {} {from} -> {to}", percent(part))?;
        }
    }
    writeln!(out, "\n{}", moves.basis)?;
    let dash = || "-".to_owned();
    let rows = moves.world.regions.iter().zip(moves.before.regions.iter().zip(&moves.after.regions));
    let rows = rows.map(|(name, (before, after))| {
        let mut row = vec![name.clone()];
        for side in [before, after] {
            row.push(side.as_ref().map_or_else(dash, |region| percent(region.share)));
            row.push(side.as_ref().and_then(|region| region.utilization()).map_or_else(dash, percent));
            row.push(side.as_ref().and_then(|region| region.path.mean_ms).map_or_else(dash, |ms| format!("{ms:.0}")));
        }
        row
    });
    let header = ["region", "share", "in use", "mean ms", "share then", "in use then", "mean ms then"];
    for line in table(&header, &[1, 2, 3, 4, 5, 6], rows) {
        writeln!(out, "{line}")?;
    }
    if moves.after.is_too_much() && !moves.before.is_too_much() {
        writeln!(out, "\nthen there is too little room: see `meridian simulate`")?;
    }
    Ok(())
}
