//! `meridian simulate`: load, latency and money of each region, before and after.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::recorded::{Record, StateArgs};
use super::show::{percent, table};
use super::{FileArgs, complain, complain_of};
use crate::config::settings::Zone;
use crate::config::{NoCapacity, capacity_of, is_capacity, nearest};
use crate::control::load::{Files, read};
use crate::simulate::change::{self, Added};
use crate::simulate::picture::{self, Panel};
use crate::simulate::settle::Terms;
use crate::simulate::{Basis, Demand, Scene, Settled, Side, World, audit, demand};

/// Times the demand, at most.
const MAX_DEMAND: f64 = 1000.0;

#[derive(Args)]
pub struct SimulateArgs {
    /// Only this zone; its regions are then its own
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Only the viewers of this stream, as written in its file or in full
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// Without this region; may be repeated
    #[arg(long, value_name = "REGION")]
    lose: Vec<String>,
    /// With this region drained, and everybody gone from it; may be repeated
    #[arg(long, value_name = "REGION")]
    drain: Vec<String>,
    /// With this region more, such as "sa=near:Sao Paulo,20000 sessions"; may be repeated
    #[arg(long, value_name = "NAME=near:CITY,CAPACITY")]
    add: Vec<String>,
    /// With so many times the sessions
    #[arg(long, value_name = "TIMES", value_parser = times)]
    demand: Option<f64>,
    /// Sessions in all before, such as "30000 sessions" [default: as recorded, or 70 % of the capacities]
    #[arg(long, value_name = "SESSIONS")]
    total: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    /// Every single loss, the worst first, and which region is too small then
    #[arg(long)]
    all_n_1: bool,
    /// Draw maps and bars into this file
    #[arg(long, value_name = "FILE", conflicts_with = "all_n_1")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn times(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(times) if (0.0..=MAX_DEMAND).contains(&times) => Ok(times),
        _ => Err(format!("write how many times as many, 0 to {MAX_DEMAND}, like 1.3")),
    }
}

/// `--total`: sessions, or bits/s where all of `zones` know them as equally many sessions. Errors are in words.
pub(super) fn total(text: &str, zones: &[&Zone]) -> Result<f64, String> {
    const FORM: &str = "write it like \"30000 sessions\"";
    let text = text.trim();
    let count = text.trim_end_matches("sessions").trim_end_matches("session").trim_end().parse::<f64>().ok();
    if let Some(total) = count.filter(|total| (0.0..=1e12).contains(total)) {
        return Ok(total);
    }
    if zones.is_empty() && is_capacity(text) {
        return Ok(0.0);
    }
    let mut known: Option<(f64, &Zone)> = None;
    for zone in zones {
        let (sessions, _) = capacity_of(text, zone).map_err(|why| match why {
            NoCapacity::Form => format!("--total {text:?} is no number of sessions; {FORM}"),
            NoCapacity::OtherUnit(why) => format!("--total: {why}"),
        })?;
        match known {
            Some((others, other)) if others != sessions => {
                let (one, two) = (other.label(), zone.label());
                return Err(format!("--total {text:?} is not as many sessions in zone {one} as in {two}; {FORM}"));
            }
            _ => known = Some((sessions, zone)),
        }
    }
    known.map(|(sessions, _)| sessions).ok_or_else(|| format!("--total {text:?} is no number of sessions; {FORM}"))
}

/// Gives the exit code: 0; 1 when a region is above its capacity afterwards, viewers have no region left, or nothing can be
/// computed; 2 for names that are none. Errors are those of `out`.
pub fn run(args: &SimulateArgs, out: &mut dyn Write) -> io::Result<u8> {
    let added = match args.add.iter().map(|text| Added::parse(text)).collect::<Result<Vec<_>, _>>() {
        Ok(added) => added,
        Err(error) => {
            complain(&format!("--add: {error}"));
            return Ok(2);
        }
    };
    let files = match read(&args.files.sources(), None) {
        Ok(files) => files,
        Err(refused) => {
            complain_of(&refused.diagnostics);
            complain("nothing to simulate: the files have errors");
            return Ok(1);
        }
    };
    let simulation = match Simulation::of(args, &added, files) {
        Ok(simulation) => simulation,
        Err((code, error)) => {
            complain(&error);
            return Ok(code);
        }
    };
    if args.all_n_1 { simulation.audit(args.json, out) } else { simulation.tell(args, out) }
}

/// A world before and after, settled.
struct Simulation {
    world: World,
    basis: String,
    demand: [Demand; 2],
    closed: Vec<bool>,
    settled: [Settled; 2],
    sides: [Side; 2],
    lost: Vec<String>,
    drained: Vec<String>,
    /// What is asked for, in words; empty: nothing but how it is.
    asked: Vec<String>,
}

impl Simulation {
    /// Errors: exit code and words.
    fn of(args: &SimulateArgs, added: &[Added], files: Files) -> Result<Simulation, (u8, String)> {
        let wrong = |error: String| (2, error);
        let all: Vec<Arc<Zone>> = files.zones.into_iter().map(Arc::new).collect();
        let record = args.state.read(&all, &files.rtt, &files.database).map_err(|error| (1, error))?;
        let Record { recorded, costs } = record;
        let zones = chosen(all, args.zone.as_deref()).map_err(wrong)?;
        let plain: Vec<&Zone> = zones.iter().map(|zone| &**zone).collect();
        let total = args.total.as_ref().map(|text| total(text, &plain)).transpose().map_err(wrong)?;
        let mut worlds = vec![zones.clone()];
        if !added.is_empty() {
            let more = zones.iter().map(|zone| change::with(zone, added).map(Arc::new));
            worlds.push(more.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(format!("--add: {error}")))?);
        }
        let world = World::of(worlds, &files.database, costs.costs()).map_err(|error| (1, error.to_string()))?;
        let [before, after] = ends(&world);
        let streams = args.stream.as_ref().map(|name| demand::streams_of(before, name)).transpose().map_err(wrong)?;
        let basis = Basis::of(total, recorded);
        let first = basis.demand(&world, before, &|key| streams.as_ref().is_none_or(|streams| streams.contains(key)));
        if before.weights().iter().sum::<f64>() <= 0.0 {
            return Err((1, "no loaded database places any address: nobody is anywhere".to_owned()));
        }
        let factor = args.demand.unwrap_or(1.0);
        let second: Demand = first.iter().map(|(key, viewers)| (key.clone(), viewers.times(factor))).collect();
        let mut closed = vec![false; world.regions.len()];
        for name in args.lose.iter().chain(&args.drain) {
            closed[usize::from(world.region(name).map_err(wrong)?)] = true;
        }
        let open = vec![false; world.regions.len()];
        let settled = Settled::of(&world, before, &Terms { demand: &first, closed: &open, before: None });
        let asked = asked(args, added);
        let (then, terms) = (Some((before, &settled)), Terms { demand: &second, closed: &closed, before: None });
        // Whatever is not asked for is not computed anew, so that nothing can differ.
        let again = match asked.is_empty() {
            true => Settled::of(&world, before, &terms),
            false => Settled::of(&world, after, &Terms { before: then, ..terms }),
        };
        let sides = [
            Side::of(&world, before, &settled, &first, &open, None),
            Side::of(&world, after, &again, &second, &closed, then),
        ];
        Ok(Simulation {
            basis: basis.words(before, &first) + costs.words(),
            demand: [first, second],
            settled: [settled, again],
            sides,
            closed,
            lost: args.lose.clone(),
            drained: args.drain.clone(),
            asked,
            world,
        })
    }

    fn tell(&self, args: &SimulateArgs, out: &mut dyn Write) -> io::Result<u8> {
        if let Some(file) = &args.svg {
            let drawn = self.draw().and_then(|svg| std::fs::write(file, svg).map_err(|error| error.to_string()));
            if let Err(error) = drawn {
                complain(&format!("{}: {error}", file.display()));
                return Ok(1);
            }
        }
        let [before, after] = &self.sides;
        if args.json {
            let gap = self.settled.iter().map(|settled| settled.gap).fold(0.0, f64::max);
            let all = json!({ "before": before.json(&self.world), "after": after.json(&self.world), "gap": gap });
            writeln!(out, "{all:#}")?;
        } else {
            writeln!(out, "{}", self.basis)?;
            for line in lines(self.rows(before)) {
                writeln!(out, "{line}")?;
            }
            if !self.asked.is_empty() {
                writeln!(out, "\n{}:", self.asked.join(", "))?;
                for line in lines(self.rows(after)) {
                    writeln!(out, "{line}")?;
                }
            }
            writeln!(out, "\n{}", self.summary())?;
        }
        Ok(u8::from(after.is_too_much()))
    }

    fn draw(&self) -> Result<String, String> {
        let [before, after] = ends(&self.world);
        let panel = |title: String, scene, number: usize| Panel {
            title,
            scene,
            settled: &self.settled[number],
            side: &self.sides[number],
        };
        let mut panels = vec![panel("before".to_owned(), before, 0)];
        if !self.asked.is_empty() {
            panels.push(panel(self.asked.join(", "), after, 1));
        }
        picture::draw(&self.world, &panels)
    }

    /// A region's name, and why it takes nobody.
    fn name(&self, region: usize, closed: bool) -> String {
        let name = &self.world.regions[region];
        let is_it = |asked: &&String| name == *asked || name.starts_with(&format!("{asked} ("));
        match closed {
            true if self.lost.iter().any(|asked| is_it(&asked)) => format!("{name} (lost)"),
            true if self.drained.iter().any(|asked| is_it(&asked)) => format!("{name} (drained)"),
            _ => name.clone(),
        }
    }

    fn rows(&self, side: &Side) -> Vec<Vec<String>> {
        let regions = side.regions.iter().enumerate().filter_map(|(key, region)| Some((key, region.as_ref()?)));
        let row = |(key, region): (usize, &crate::simulate::report::Figures)| {
            let mut row = vec![
                self.name(key, region.closed),
                sessions(region.load),
                region.capacity.map_or("-".to_owned(), sessions),
                region.utilization().map_or("-".to_owned(), percent),
                percent(region.share),
            ];
            row.extend(trips(&region.path));
            row.push(region.price_ms.map_or("-".to_owned(), |price| format!("{price:.0}")));
            row.push(region.cost_per_hour.map_or("-".to_owned(), |cost| format!("{cost:.2}")));
            row
        };
        let mut rows: Vec<Vec<String>> = regions.map(row).collect();
        let capacities: Option<f64> = side.regions.iter().flatten().map(|region| region.capacity).sum();
        let mut all = vec![
            "all".to_owned(),
            sessions(side.sessions),
            capacities.map_or("-".to_owned(), sessions),
            capacities.map_or("-".to_owned(), |capacity| percent(side.sessions / capacity)),
            percent(1.0),
        ];
        all.extend(trips(&side.path));
        all.push("-".to_owned());
        all.push(side.cost_per_hour().map_or("-".to_owned(), |cost| format!("{cost:.2}")));
        rows.push(all);
        rows
    }

    fn summary(&self) -> String {
        let [before, after] = &self.sides;
        let mut words = Vec::new();
        if !self.asked.is_empty() {
            words.push(format!("{} of the viewers are served elsewhere than before", percent(after.moved_share)));
        }
        if after.unserved > 0.0 {
            words.push(format!("{} sessions have no region left", sessions(after.unserved)));
        }
        if let Some((key, used)) = after.fullest() {
            let name = self.world.name(key);
            let excess: f64 = after.regions.iter().flatten().map(|region| region.excess()).sum();
            words.push(match excess > 0.0 {
                true => format!(
                    "{name} is fullest with {} of its capacity; {} sessions are more than there is room for",
                    percent(used),
                    sessions(excess)
                ),
                false => format!("{name} is fullest with {} of its capacity", percent(used)),
            });
        }
        if let Some(ms) = after.path.p95_ms {
            let was = before.path.p95_ms.filter(|_| !self.asked.is_empty());
            let was = was.map_or(String::new(), |ms| format!(", before within {ms:.0} ms"));
            words.push(format!("95 % of the viewers are within {ms:.0} ms{was}"));
        }
        words.join("; ")
    }

    fn audit(&self, as_json: bool, out: &mut dyn Write) -> io::Result<u8> {
        let [_, scene] = ends(&self.world);
        let losses = audit::all(&self.world, scene, &self.settled[1], &self.demand[1], &self.closed);
        let bad = losses.iter().filter(|loss| loss.side.is_too_much()).count();
        if as_json {
            let list: Vec<_> = losses.iter().map(|loss| loss.json(&self.world)).collect();
            let all = json!({ "before": self.sides[1].json(&self.world), "losses": list, "gap": self.settled[1].gap });
            writeln!(out, "{all:#}")?;
            return Ok(u8::from(bad > 0));
        }
        writeln!(out, "{}{}", self.basis, self.asked.iter().map(|asked| format!(", {asked}")).collect::<String>())?;
        for line in table(&AUDIT, &[1, 3, 4, 5, 6, 7, 8], losses.iter().map(|loss| self.audit_row(loss))) {
            writeln!(out, "{line}")?;
        }
        let words = match (bad, losses.len()) {
            (0, count) => format!("each of {count} regions can be lost: the others have room"),
            (bad, count) => format!("{bad} of {count} regions cannot be lost: the others would have too little room"),
        };
        writeln!(out, "\n{words}")?;
        Ok(u8::from(bad > 0))
    }

    fn audit_row(&self, loss: &audit::Loss) -> Vec<String> {
        let fullest = loss.side.fullest();
        let small = loss.too_small();
        let worst = small.first();
        let others = small.len().saturating_sub(1);
        let more = if others > 0 { format!(" and {others} more") } else { String::new() };
        let name = worst.map(|small| small.region).or(fullest.map(|(key, _)| key));
        let used = match worst {
            Some(small) => {
                loss.side.regions[usize::from(small.region)].as_ref().and_then(|region| region.utilization())
            }
            None => fullest.map(|(_, used)| used),
        };
        let dash = || "-".to_owned();
        vec![
            self.world.name(loss.lost).to_owned(),
            percent(loss.side.moved_share),
            name.map_or_else(dash, |key| format!("{}{more}", self.world.name(key))),
            used.map_or_else(dash, percent),
            worst.map_or_else(dash, |small| at_least(small.short)),
            worst.map_or_else(dash, |small| at_least(small.needed)),
            worst.map_or_else(dash, |small| bits(small.needed_bits)),
            if loss.side.unserved > 0.0 { sessions(loss.side.unserved) } else { dash() },
            loss.side.path.p95_ms.map_or_else(dash, |ms| format!("{ms:.0}")),
        ]
    }
}

const AUDIT: [&str; 9] = ["without", "moved", "fullest", "in use", "too small by", "needs", "or", "unserved", "p95 ms"];

const HEADER: [&str; 11] = [
    "region", "sessions", "capacity", "in use", "share", "mean km", "p95 km", "mean ms", "p95 ms", "price ms",
    "money/h",
];

fn lines(rows: Vec<Vec<String>>) -> Vec<String> {
    table(&HEADER, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], rows.into_iter())
}

fn trips(path: &crate::simulate::report::Path) -> [String; 4] {
    let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
    [shown(path.mean_km), shown(path.p95_km), shown(path.mean_ms), shown(path.p95_ms)]
}

fn sessions(count: f64) -> String {
    format!("{count:.0}")
}

/// Rounded up: so many are enough.
fn at_least(count: f64) -> String {
    sessions(count.ceil())
}

fn bits(bits: f64) -> String {
    match bits {
        b if b < 1e9 => format!("{:.0}Mbps", b / 1e6),
        b if b < 1e12 => format!("{:.1}Gbps", b / 1e9),
        b => format!("{:.2}Tbps", b / 1e12),
    }
}

/// What is asked for, in words.
fn asked(args: &SimulateArgs, added: &[Added]) -> Vec<String> {
    let mut words: Vec<String> = args.lose.iter().map(|region| format!("without {region}")).collect();
    words.extend(args.drain.iter().map(|region| format!("with {region} drained")));
    words.extend(added.iter().map(|added| {
        let capacity = added.capacity.as_ref().map_or(String::new(), |capacity| format!(" for {capacity}"));
        format!("with {} near {}{capacity}", added.name, added.near)
    }));
    words.extend(args.demand.map(|times| format!("with {times} times the sessions")));
    words
}

/// The first and the last scene.
fn ends(world: &World) -> [&Scene; 2] {
    let first = world.scenes.first().expect("a world has at least one scene");
    [first, world.scenes.last().unwrap_or(first)]
}

/// All zones, or the one of a name. Errors are in words.
fn chosen(all: Vec<Arc<Zone>>, name: Option<&str>) -> Result<Vec<Arc<Zone>>, String> {
    let Some(name) = name else { return Ok(all) };
    let wanted = name.trim_end_matches('.').to_lowercase();
    let found: Vec<Arc<Zone>> = all.iter().filter(|zone| *zone.label() == *wanted).cloned().collect();
    if found.is_empty() {
        let labels: Vec<Arc<str>> = all.iter().map(|zone| zone.label()).collect();
        let near = nearest(&wanted, labels.iter().map(|label| &**label));
        let mend = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        return Err(format!("no zone {name:?} in the files{mend}"));
    }
    Ok(found)
}
