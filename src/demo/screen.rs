//! The demo's two tables: regions with their servers, and viewers with where they are sent.

use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};

use super::origin::Mode;
use super::stage::Stage;
use super::viewers::{Sent, VIEWERS};
use crate::config::settings::Family;
use crate::health::Verdict;
use crate::snapshot::Snapshot;

const DOWN: Style = AnsiColor::Red.on_default();
const AWAY: Style = AnsiColor::Yellow.on_default();
const HEAD: Style = Style::new().bold();

/// Lines of a table, each with the style of its row; the first is the header.
fn styled(table: &Table, styles: &[Style]) -> Vec<String> {
    let styles = std::iter::once(&HEAD).chain(styles);
    let lines = table.lines().zip(styles);
    lines.map(|(line, style)| format!("{style}{}{style:#}", line.trim_end())).collect()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}

/// A row a region: its key, its servers with what they do and what is believed of them.
pub fn regions(stage: &Stage, snapshot: &Snapshot, selected: Option<usize>) -> Vec<String> {
    let mut table = table(&["", "key", "region", "server 1", "server 2", "region is"]);
    let mut styles = Vec::new();
    let (fleet, state) = snapshot.fleet(0);
    for (r, region) in stage.regions.iter().enumerate() {
        let up = state.up(Family::V4) >> r & 1 == 1;
        let verdicts = fleet.members(r as u8, Family::V4).iter().map(|member| member.verdict(snapshot.verdicts()));
        let servers: Vec<String> = region
            .servers
            .iter()
            .zip(verdicts)
            .map(|(server, verdict)| format!("{} {}", mode(server.mode()), believed(verdict)))
            .collect();
        let mut row = vec![
            if selected == Some(r) { ">" } else { "" }.to_owned(),
            ((r + 1) % 10).to_string(),
            region.name.clone(),
        ];
        row.extend(servers);
        row.push(if up { "up" } else { "DOWN" }.to_owned());
        table.add_row(row);
        styles.push(if up { Style::new() } else { DOWN });
    }
    styled(&table, &styles)
}

/// A row a viewer: where it is sent, and what that costs it.
pub fn viewers(sent: &[Option<Sent>]) -> Vec<String> {
    let mut table = table(&["viewer in", "subnet", "is sent to", "ms", "km", "addresses"]);
    let mut styles = Vec::new();
    for (viewer, sent) in VIEWERS.iter().zip(sent) {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
        let (region, cost, distance, addresses) = match sent {
            Some(sent) => (&*sent.region, number(sent.cost_ms), number(sent.distance_km), sent.addresses.join(" ")),
            None => ("-", "-".to_owned(), "-".to_owned(), String::new()),
        };
        table.add_row([viewer.city, viewer.network, region, &cost, &distance, &addresses]);
        styles.push(if region == viewer.home { Style::new() } else { AWAY });
    }
    for number in [3, 4] {
        table.column_mut(number).expect("the header has these").set_cell_alignment(CellAlignment::Right);
    }
    styled(&table, &styles)
}

/// Where all viewers are sent now.
pub fn sent(snapshot: &Arc<Snapshot>) -> Vec<Option<Sent>> {
    VIEWERS.iter().map(|viewer| viewer.sent_by(snapshot)).collect()
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Serving => "serving,",
        Mode::Failing => "failing,",
        Mode::Frozen { .. } => "frozen,",
        Mode::Hung => "hung,",
        Mode::Killed => "killed,",
    }
}

fn believed(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Up) | None => "up",
        Some(Verdict::Down) => "down",
        Some(Verdict::Damped) => "damped",
        Some(Verdict::Unknown) => "unknown",
    }
}
