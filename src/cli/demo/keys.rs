//! The demo on a terminal: tables redrawn, keys taken.

use std::io::{self, Write};
use std::sync::Arc;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};
use futures_util::StreamExt;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::play::Play;
use super::{News, TICK, introduction};
use crate::demo::screen;
use crate::demo::stage::Act;
use crate::node::Node;

const HELP: &str = "up/down or 1..0: choose a region   k kill   h hang   f fail   z freeze   r revive   q quit";

/// The terminal as it was comes back when this goes, however the demo ends.
struct Raw;

impl Raw {
    fn take() -> io::Result<Raw> {
        enable_raw_mode()?;
        let raw = Raw;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

enum Key {
    Choose(usize),
    Up,
    Down,
    Act(Act),
    Quit,
    Other,
}

/// Draws and takes keys until `stop` or the key to quit.
pub async fn show(node: &Node, play: &Arc<Play>, log: &News, stop: &CancellationToken) -> io::Result<()> {
    let _raw = Raw::take()?;
    let mut keys = EventStream::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let count = play.stage().regions.len();
    let (mut selected, effects) = (0, News::default());
    loop {
        for line in play.news() {
            effects.add(line);
        }
        draw(node, play, selected, &effects, log)?;
        let key = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = tick.tick() => Key::Other,
            event = keys.next() => match event {
                Some(event) => key(&event?),
                None => return Ok(()),
            },
        };
        match key {
            Key::Choose(region) if region < count => selected = region,
            Key::Up => selected = (selected + count - 1) % count,
            Key::Down => selected = (selected + 1) % count,
            Key::Act(act) => {
                let (play, region) = (Arc::clone(play), play.stage().regions[selected].name.clone());
                // Its outcome comes as news.
                tokio::spawn(async move { play.act(act, &region, None).await });
            }
            Key::Quit => return Ok(()),
            Key::Choose(_) | Key::Other => {}
        }
    }
}

fn key(event: &Event) -> Key {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return Key::Other };
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Char(digit @ '1'..='9') => Key::Choose(*digit as usize - '1' as usize),
        KeyCode::Char('0') => Key::Choose(9),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Char('k') => Key::Act(Act::Kill),
        KeyCode::Char('h') => Key::Act(Act::Hang),
        KeyCode::Char('f') => Key::Act(Act::Fail),
        KeyCode::Char('z') => Key::Act(Act::Freeze),
        KeyCode::Char('r') => Key::Act(Act::Revive),
        _ => Key::Other,
    }
}

fn draw(node: &Node, play: &Play, selected: usize, effects: &News, log: &News) -> io::Result<()> {
    let snapshot = node.published.load_full();
    let mut tables = screen::regions(play.stage(), &snapshot, Some(selected));
    tables.push(HELP.to_owned());
    tables.extend(effects.lines());
    tables.push(String::new());
    tables.extend(screen::viewers(&screen::sent(&snapshot)));
    let (width, height) = size()?;
    let mut lines = introduction(node, play.stage());
    lines.push(String::new());
    if lines.len() + tables.len() > usize::from(height) {
        // What is on and what happens goes before what to try.
        lines.truncate(1);
    }
    lines.extend(tables);
    lines.push(String::new());
    lines.extend(log.lines());
    let mut out = anstream::stdout().lock();
    for (row, line) in lines.iter().take(usize::from(height)).enumerate() {
        // Cut by characters: styles take no column, and what is too long is cut by the terminal's own edge.
        let line: String = line.chars().take(usize::from(width) + 20).collect();
        queue!(out, MoveTo(0, row as u16), Clear(ClearType::CurrentLine), Print(line))?;
    }
    if lines.len() < usize::from(height) {
        queue!(out, MoveTo(0, lines.len() as u16), Clear(ClearType::FromCursorDown))?;
    }
    out.flush()
}
