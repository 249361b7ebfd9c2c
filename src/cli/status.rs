//! `meridian status`: the running server at one instant, as tables.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use clap::Args;
use serde_json::json;

use super::ask::{Client, ServerArgs};
use super::hands::{failed, not_kept, order_lines};
use super::show::{now, percent, rate, span, table};
use crate::status::{LoadStatus, RegionStatus, ServerStatus, Status, TargetStatus};

const BAD: Style = AnsiColor::Red.on_default();
const ODD: Style = AnsiColor::Yellow.on_default();
const HEAD: Style = Style::new().bold();

#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Gives the exit code. Errors are those of `out`.
pub fn run(args: &StatusArgs, out: &mut dyn Write) -> io::Result<u8> {
    let reply = Client::of(&args.server).and_then(|client| client.get("/v1/status"));
    match reply.and_then(|reply| reply.read::<Status>()) {
        Ok(status) if args.json => writeln!(out, "{:#}", json!(status))?,
        Ok(status) => {
            for line in page(&status, now()) {
                writeln!(out, "{line}")?;
            }
        }
        Err(error) => return Ok(failed(&args.server, &error)),
    }
    Ok(0)
}

/// How much is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ease {
    Well,
    Odd,
    Bad,
}

impl Ease {
    fn style(self) -> Style {
        match self {
            Ease::Well => Style::new(),
            Ease::Odd => ODD,
            Ease::Bad => BAD,
        }
    }
}

/// One line about the node itself.
pub fn headline(status: &Status) -> String {
    let Status { version, at, started, snapshot, qps, .. } = status;
    format!(
        "meridian {version}, up {}, {} queries/s, snapshot {} of {} ago",
        span(at - started),
        rate(*qps),
        snapshot.generation,
        span(snapshot.age_s)
    )
}

/// All of it, with colours.
fn page(status: &Status, now: f64) -> Vec<String> {
    let mut lines = vec![headline(status)];
    if !status.kept {
        lines.push(format!("{BAD}{}{BAD:#}", not_kept(status.not_kept_because.as_deref())));
    }
    let regions = status.zones.iter().flat_map(|zone| zone.regions.iter().map(move |region| (&*zone.name, region)));
    let (rows, eases): (Vec<_>, Vec<_>) =
        regions.clone().map(|(zone, region)| (region_row(zone, region), region_ease(region))).unzip();
    if !rows.is_empty() {
        lines.push(String::new());
        lines.extend(styled(table(&REGION, &[3, 5, 6, 7], rows.into_iter()), &eases));
        let servers = regions.flat_map(|(_, region)| region.servers.iter().map(move |server| (&*region.name, server)));
        let (rows, eases): (Vec<_>, Vec<_>) = servers
            .map(|(region, server)| {
                let mut row = vec![region.to_owned()];
                row.extend(server_row(server, status.at));
                (row, server_ease(server))
            })
            .unzip();
        lines.push(String::new());
        lines.extend(styled(table(&SERVER, &[5], rows.into_iter()), &eases));
    }
    lines.extend(loads(status));
    lines.extend(steered(status));
    for zone in status.zones.iter().filter(|zone| zone.regions.is_empty()) {
        lines.push(format!("{}: serial {}, {} queries/s, static", zone.name, zone.serial, rate(zone.qps)));
    }
    if !status.orders.is_empty() {
        lines.push(String::new());
        lines.extend(styled(order_lines(&status.orders, now), &vec![Ease::Well; status.orders.len()]));
    }
    lines
}

/// How full regions are, of those that say so.
fn loads(status: &Status) -> Vec<String> {
    let regions = status.zones.iter().flat_map(|zone| zone.regions.iter().map(move |region| (&zone.name, region)));
    let loads: Vec<_> = regions.filter_map(|(zone, region)| Some((zone, region, region.load.as_ref()?))).collect();
    if loads.is_empty() {
        return vec![];
    }
    let count = |value: Option<f64>| value.map_or("-".to_owned(), rate);
    let rows = loads.iter().map(|(zone, region, load)| {
        vec![
            (*zone).clone(),
            region.name.clone(),
            count(load.sessions),
            count(load.capacity),
            load.utilization.map_or("-".to_owned(), percent),
            span(load.age_s),
            load.trust.clone(),
        ]
    });
    let eases: Vec<Ease> = loads
        .iter()
        .map(|(_, _, load)| match load.utilization {
            Some(full) if full >= 1.0 => Ease::Bad,
            _ if load.age_s > 10.0 || load.utilization.is_some_and(|full| full >= 0.9) => Ease::Odd,
            _ => Ease::Well,
        })
        .collect();
    let mut lines = vec![String::new()];
    lines.extend(styled(table(&LOAD, &[2, 3, 4, 5], rows), &eases));
    lines
}

/// How regions are steered by load, where they are.
fn steered(status: &Status) -> Vec<String> {
    let regions = status.zones.iter().flat_map(|zone| zone.regions.iter().map(move |region| (&zone.name, region)));
    let steered: Vec<_> = regions.filter(|(_, region)| region.steering.is_some()).collect();
    if steered.is_empty() {
        return vec![];
    }
    let rows = steered.iter().map(|(zone, region)| {
        let starts = region.steering.as_ref().map_or("-".to_owned(), |steering| rate(steering.starts_per_s));
        [vec![(*zone).clone(), region.name.clone(), starts], steering_row(region)].concat()
    });
    let eases: Vec<Ease> = steered.iter().map(|(_, region)| steering_ease(region)).collect();
    let header = [&["zone", "region", "starts/s"][..], &STEERING[..]].concat();
    let mut lines = vec![String::new()];
    lines.extend(styled(table(&header, &[2, 3, 4, 5], rows), &eases));
    lines
}

pub const STEERING: [&str; 4] = ["used", "planned", "price ms", "steering"];

/// Its cells under [`STEERING`].
pub fn steering_row(region: &RegionStatus) -> Vec<String> {
    let Some(steering) = &region.steering else { return vec!["-".to_owned(); STEERING.len()] };
    let part = |value: Option<f64>| value.map_or("-".to_owned(), percent);
    // Without reports nothing has a price.
    let price = if steering.stage == "unreported" { "-".to_owned() } else { format!("{:.1}", steering.price_ms) };
    vec![part(steering.utilization), part(steering.planned), price, steering.stage.clone()]
}

fn steering_ease(region: &RegionStatus) -> Ease {
    let Some(steering) = &region.steering else { return Ease::Well };
    match steering.planned {
        Some(planned) if planned > 1.0 => Ease::Bad,
        _ if steering.stage != "steered" || steering.price_ms > 30.0 => Ease::Odd,
        _ => Ease::Well,
    }
}

const LOAD: [&str; 7] = ["zone", "region", "sessions", "capacity", "full", "report age", "trust"];

fn styled(lines: Vec<String>, eases: &[Ease]) -> Vec<String> {
    let styles = std::iter::once(HEAD).chain(eases.iter().map(|ease| ease.style()));
    lines.into_iter().zip(styles).map(|(line, style)| format!("{style}{line}{style:#}")).collect()
}

pub const REGION: [&str; 8] = ["zone", "region", "near", "up", "mode", "allowed", "share", "answers/s"];

pub fn region_row(zone: &str, region: &RegionStatus) -> Vec<String> {
    let up = region.servers.iter().filter(|server| server_ease(server) != Ease::Bad).count();
    vec![
        zone.to_owned(),
        region.name.clone(),
        region.near.clone().unwrap_or_else(|| "-".to_owned()),
        format!("{up}/{}", region.servers.len()),
        match region_ease(region) {
            Ease::Bad if region.mode == "steady" => "DOWN".to_owned(),
            _ => region.mode.clone(),
        },
        percent(region.share_allowed),
        region.share_of_answers.map_or("-".to_owned(), percent),
        rate(region.answers_per_s),
    ]
}

pub fn region_ease(region: &RegionStatus) -> Ease {
    let up = [region.up_v4, region.up_v6];
    if !up.contains(&Some(true)) {
        Ease::Bad
    } else if up.contains(&Some(false)) || region.mode != "steady" {
        Ease::Odd
    } else {
        Ease::Well
    }
}

const SERVER: [&str; 7] = ["region", "server", "verdict", "since", "cause", "RTT ms", "load"];

/// All columns but the region. What is probed in two ways has two texts where they differ.
pub fn server_row(server: &ServerStatus, at: f64) -> Vec<String> {
    let each = |show: &dyn Fn(&TargetStatus) -> Option<String>| {
        let mut texts: Vec<String> = server.targets.iter().filter_map(show).collect();
        texts.dedup();
        if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
    };
    let verdict = match &server.forced {
        Some(forced) => format!("forced {forced}"),
        None if server.targets.is_empty() => "not probed".to_owned(),
        None => each(&|target| Some(verdict(target))),
    };
    vec![
        server.addresses.join(" "),
        verdict,
        each(&|target| Some(span(at - target.since?))),
        each(&|target| target.cause.clone()),
        each(&|target| Some(format!("{:.1}", target.rtt_ms?))),
        server.load.as_ref().map_or("-".to_owned(), load),
    ]
}

fn verdict(target: &TargetStatus) -> String {
    let stale = if target.stale { ", stale" } else { "" };
    match target.damped_s {
        Some(left) => format!("damped for {}{stale}", span(left)),
        None => format!("{}{stale}", target.verdict),
    }
}

fn load(load: &LoadStatus) -> String {
    let sessions = load.sessions.map(|sessions| format!("{} sessions", rate(sessions as f64)));
    let bits = load.bits_per_s.map(|bits| format!("{}bit/s", rate(bits as f64)));
    let cpu = load.cpu.map(|cpu| format!("cpu {}", percent(cpu)));
    let texts: Vec<String> = [sessions, bits, cpu].into_iter().flatten().collect();
    let old = if load.age_s > 3.0 { format!(" ({} ago)", span(load.age_s)) } else { String::new() };
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") + &old }
}

/// Bad: no way to it is up.
pub fn server_ease(server: &ServerStatus) -> Ease {
    let is_up = |target: &TargetStatus| matches!(target.verdict.as_str(), "up" | "unknown");
    match server.forced.as_deref() {
        Some("down") => Ease::Bad,
        Some(_) => Ease::Odd,
        None if server.targets.is_empty() => Ease::Well,
        None if !server.targets.iter().any(is_up) => Ease::Bad,
        None if server.targets.iter().all(|target| is_up(target) && !target.stale && target.verdict == "up") => {
            Ease::Well
        }
        None => Ease::Odd,
    }
}

#[cfg(test)]
pub mod tests;
