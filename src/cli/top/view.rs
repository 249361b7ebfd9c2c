//! What `top` draws: the last status, the servers of the chosen region, orders, and the last events.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, TableState};

use crate::cli::events::said;
use crate::cli::show::{harmless, percent, rate, span};
use crate::cli::status::{
    Ease, REGION, STEERING, headline, region_ease, region_row, server_ease, server_row, steering_row,
};
use crate::journal::Entry;
use crate::status::{RegionStatus, ServerStatus, Status};

/// Events kept to scroll through.
const EVENTS: usize = 500;
/// Queries per second kept for the curve, one a status.
const CURVE: usize = 240;

/// What the task that asks has to tell.
#[derive(Debug)]
pub enum News {
    /// And what happened since the last.
    Status(Box<Status>, Vec<Entry>),
    /// The server's journal began anew, so ids do too; what it holds comes next.
    Anew,
    /// Why there is no answer.
    Silent(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Among the regions.
    Up,
    Down,
    /// Among the events.
    Older,
    Newer,
}

pub struct Screen {
    server: String,
    colours: bool,
    status: Option<Status>,
    /// Why the server says nothing; what is drawn besides is what it said last.
    silent: Option<String>,
    events: VecDeque<Entry>,
    curve: VecDeque<u64>,
    /// Position among the regions of all zones.
    chosen: usize,
    regions: TableState,
    /// Events below the last one shown.
    back: usize,
    /// The journal began anew while it was looked at.
    anew: bool,
}

impl Screen {
    pub fn new(server: String, colours: bool) -> Screen {
        Screen {
            server,
            colours,
            status: None,
            silent: None,
            events: VecDeque::new(),
            curve: VecDeque::new(),
            chosen: 0,
            regions: TableState::default(),
            back: 0,
            anew: false,
        }
    }

    pub fn hear(&mut self, news: News) {
        match news {
            News::Silent(why) => self.silent = Some(why),
            // What was seen before stays to be read.
            News::Anew => self.anew = true,
            News::Status(status, events) => {
                self.silent = None;
                if self.curve.len() == CURVE {
                    self.curve.pop_front();
                }
                self.curve.push_back(status.qps.max(0.0) as u64);
                self.status = Some(*status);
                if self.back > 0 {
                    // What is looked at stays where it is.
                    self.back += events.len();
                }
                self.events.extend(events);
                let spare = self.events.len().saturating_sub(EVENTS);
                self.events.drain(..spare);
                self.back = self.back.min(self.events.len().saturating_sub(1));
                self.chosen = self.chosen.min(self.all().len().saturating_sub(1));
            }
        }
    }

    pub fn go(&mut self, step: Move) {
        match step {
            Move::Up => self.chosen = self.chosen.saturating_sub(1),
            Move::Down => self.chosen = (self.chosen + 1).min(self.all().len().saturating_sub(1)),
            Move::Older => self.back = (self.back + 3).min(self.events.len().saturating_sub(1)),
            Move::Newer => self.back = self.back.saturating_sub(3),
        }
    }

    fn all(&self) -> Vec<(&str, &RegionStatus)> {
        let zones = self.status.iter().flat_map(|status| &status.zones);
        zones.flat_map(|zone| zone.regions.iter().map(|region| (&*zone.name, region))).collect()
    }

    fn style(&self, ease: Ease) -> Style {
        match (ease, self.colours) {
            (Ease::Well, _) => Style::new(),
            (Ease::Odd, true) => Style::new().fg(Color::Yellow),
            (Ease::Bad, true) => Style::new().fg(Color::Red),
            (Ease::Odd, false) => Style::new(),
            (Ease::Bad, false) => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let regions = count(self.all().len()).saturating_add(2);
        let servers =
            count(self.all().get(self.chosen).map_or(0, |(_, region)| region.servers.len())).saturating_add(2);
        let orders = count(self.status.as_ref().map_or(0, |status| status.orders.len()));
        let orders = if orders == 0 { 0 } else { orders.min(3) + 1 };
        // The curve where there is room for it.
        let curve = if area.height >= 30 { 4 } else { 0 };
        // Each gets what it needs as long as a few events can be seen.
        let rest = area.height.saturating_sub(2 + curve + orders + 4);
        let regions = regions.min((rest * 3 / 5).max(rest.saturating_sub(servers))).max(3);
        let servers = servers.min(rest.saturating_sub(regions)).max(3);
        let rows = [1, curve, regions, servers, orders].map(Constraint::Length);
        let rows = rows.into_iter().chain([Constraint::Min(2), Constraint::Length(1)]);
        let parts = Layout::vertical(rows).split(area);
        self.head(frame, parts[0]);
        if curve > 0 {
            self.curve(frame, parts[1]);
        }
        self.regions(frame, parts[2]);
        self.servers(frame, parts[3]);
        self.orders(frame, parts[4]);
        self.events(frame, parts[5]);
        let help = "up/down: choose a region   PgUp/PgDn: older and newer events   q: quit";
        frame.render_widget(Paragraph::new(help).style(Style::new().add_modifier(Modifier::DIM)), parts[6]);
    }

    fn head(&self, frame: &mut Frame<'_>, area: Rect) {
        let line = match (&self.silent, &self.status) {
            (Some(why), _) => {
                let text = format!("{} does not answer, trying again: {}", self.server, harmless(why));
                Line::styled(text, self.style(Ease::Bad).add_modifier(Modifier::BOLD))
            }
            (None, Some(status)) => Line::styled(headline(status), Style::new().add_modifier(Modifier::BOLD)),
            (None, None) => Line::raw(format!("asking {}", self.server)),
        };
        frame.render_widget(Paragraph::new(line), area);
    }

    fn curve(&self, frame: &mut Frame<'_>, area: Rect) {
        let block = titled("queries/s".to_owned());
        let room = usize::from(area.width);
        let from = self.curve.len().saturating_sub(room);
        let data: Vec<u64> = self.curve.iter().skip(from).copied().collect();
        let most = data.iter().max().copied().unwrap_or(0);
        let block = block.title_top(Line::raw(format!("most {}", rate(most as f64))).alignment(Alignment::Right));
        frame.render_widget(Sparkline::default().data(data).block(block), area);
    }

    fn regions(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let all = self.all();
        // The zone is told where there is more than one.
        let zones = self.status.as_ref().map_or(0, |status| status.zones.len());
        let skip = usize::from(zones < 2);
        // Columns of the steering by load where there is any.
        let steered = all.iter().any(|(_, region)| region.steering.is_some());
        let is_figure = |column: usize| (5..REGION.len() + STEERING.len() - 1).contains(&column);
        let rows = all.iter().map(|(zone, region)| {
            let more = if steered { steering_row(region) } else { vec![] };
            let cells = region_row(zone, region).into_iter().chain(more).skip(skip).map(|text| harmless(&text));
            Row::new(cells.enumerate().map(move |(i, text)| aligned(text, is_figure(i + skip))))
                .style(self.style(region_ease(region)))
        });
        let more = if steered { STEERING.len() } else { 0 };
        let widths = [20, 16, 16, 7, 11, 8, 8, 9, 6, 7, 8, 10].into_iter().take(REGION.len() + more);
        let header = REGION.iter().chain(&STEERING[..more]).enumerate().skip(skip);
        let header = header.map(|(i, text)| aligned((*text).to_owned(), is_figure(i)));
        let title = match all.len() {
            0 => "regions".to_owned(),
            n => format!("regions, {} of {n}", self.chosen + 1),
        };
        let table = Table::new(rows, widths.skip(skip).map(Constraint::Max))
            .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .block(titled(title));
        let mut state = std::mem::take(&mut self.regions);
        state.select(Some(self.chosen));
        frame.render_stateful_widget(table, area, &mut state);
        self.regions = state;
    }

    fn servers(&self, frame: &mut Frame<'_>, area: Rect) {
        let all = self.all();
        let Some((zone, region)) = all.get(self.chosen) else {
            frame.render_widget(titled("servers".to_owned()), area);
            return;
        };
        let at = self.status.as_ref().map_or(0.0, |status| status.at);
        let mut servers: Vec<_> = region.servers.iter().collect();
        // What is wrong comes first, where not all can be seen.
        servers.sort_by_key(|server| match server_ease(server) {
            Ease::Bad => 0,
            Ease::Odd => 1,
            Ease::Well => 2,
        });
        let room = usize::from(area.height.saturating_sub(2));
        let cells = |server: &&ServerStatus| server_row(server, at).iter().map(|text| harmless(text)).collect();
        let texts: Vec<Vec<String>> = servers.iter().take(room).map(cells).collect();
        let header = ["server", "verdict", "since", "cause", "RTT ms", "load"];
        // The cause gets what the others leave.
        let widest = |i: usize, most: usize| {
            let widths = texts.iter().map(|row| row[i].chars().count()).chain([header[i].len()]);
            Constraint::Length(widths.max().unwrap_or(0).min(most) as u16)
        };
        let widths = [
            widest(0, 40),
            widest(1, 22),
            widest(2, 14),
            Constraint::Fill(1),
            widest(4, 12),
            widest(5, usize::from(area.width / 4)),
        ];
        let rows = texts.iter().zip(&servers).map(|(row, server)| {
            let cells = row.iter().enumerate().map(|(i, text)| aligned(text.clone(), i == 4));
            Row::new(cells).style(self.style(server_ease(server)))
        });
        let header = header.iter().enumerate().map(|(i, text)| aligned((*text).to_owned(), i == 4));
        let hidden = servers.len().saturating_sub(room);
        let more = if hidden > 0 { format!(", {hidden} more") } else { String::new() };
        let title = harmless(&format!("servers of {} of {zone}{more}", region.name));
        let table = Table::new(rows, widths)
            .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
            .block(titled(title));
        frame.render_widget(table, area);
    }

    fn orders(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(status) = &self.status else { return };
        let room = usize::from(area.height.saturating_sub(1));
        let lines = status.orders.iter().take(room).map(|order| {
            let left = order.left.map(|left| format!(", {} left", percent(left))).unwrap_or_default();
            let ends = order.until.map(|end| format!(", ends in {}", span(end - status.at))).unwrap_or_default();
            let state = match order.state.as_str() {
                "to come" => format!("begins in {}", span(order.from - status.at)),
                state => state.to_owned(),
            };
            let text = format!(
                "{:>4} {} {}: {state}{left}{ends}; {}: {}",
                order.id, order.action, order.subject, order.author, order.reason
            );
            Line::raw(harmless(&text))
        });
        let hidden = status.orders.len().saturating_sub(room);
        let more = if hidden > 0 { format!(", {hidden} more") } else { String::new() };
        let lines: Vec<Line<'_>> = lines.collect();
        frame.render_widget(Paragraph::new(lines).block(titled(format!("orders{more}"))), area);
    }

    fn events(&self, frame: &mut Frame<'_>, area: Rect) {
        let room = usize::from(area.height.saturating_sub(1));
        let end = self.events.len().saturating_sub(self.back);
        let shown = self.events.iter().take(end).skip(end.saturating_sub(room));
        let lines: Vec<Line<'_>> = shown
            .map(|entry| {
                let when = entry.at.strftime("%H:%M:%S").to_string();
                Line::from(vec![
                    Span::styled(when, Style::new().add_modifier(Modifier::DIM)),
                    Span::raw(format!(" {}", said(entry))),
                ])
            })
            .collect();
        let back = if self.back > 0 { format!(", {} newer", self.back) } else { String::new() };
        let anew = if self.anew { ", the journal began anew" } else { "" };
        frame.render_widget(Paragraph::new(lines).block(titled(format!("events{back}{anew}"))), area);
    }
}

fn titled(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).title_top(title)
}

fn aligned(text: String, right: bool) -> Cell<'static> {
    let line = Line::raw(text);
    Cell::from(if right { line.alignment(Alignment::Right) } else { line })
}

#[cfg(test)]
mod tests;
