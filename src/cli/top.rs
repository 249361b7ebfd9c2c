//! `meridian top`: the running server, live.
//!
//! The screen never waits for the server: a task of its own asks it once a second, and what it last said, or why it says
//! nothing, is drawn.

mod view;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;
use hyper::Method;
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::view::{Move, News, Screen};
use super::ask::{AskError, Client, ServerArgs};
use super::complain;
use super::events::List;
use super::hands::failed;
use crate::status::Status;

/// How often the server is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How often ages are drawn anew.
const DRAW: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(3);
/// Events asked for at once.
const EVENTS: usize = 100;

#[derive(Args)]
pub struct TopArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs until the key q or a signal, and gives the exit code.
pub fn run(args: &TopArgs) -> u8 {
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        complain("top needs a terminal; `meridian status` prints the same once");
        return 2;
    }
    let client = match Client::of(&args.server) {
        Ok(client) => client,
        Err(error) => return failed(&args.server, &error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("not started: {error}"));
            return 1;
        }
    };
    // From here on a panic gives the terminal back too.
    let shown = match ratatui::try_init() {
        Ok(terminal) => runtime.block_on(show(terminal, client, &args.server.server)),
        Err(error) => Err(error),
    };
    ratatui::restore();
    match shown {
        Ok(()) => 0,
        Err(error) => {
            complain(&format!("the terminal: {error}"));
            1
        }
    }
}

async fn show(mut terminal: DefaultTerminal, client: Client, server: &str) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, mut news) = mpsc::channel(4);
    let asking = tokio::spawn(ask(client, sender));
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen::new(server.to_owned(), colours);
    let (mut keys, mut tick) = (EventStream::new(), interval(DRAW));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => break,
            _ = tick.tick() => {}
            Some(told) = news.recv() => screen.hear(told),
            event = keys.next() => match event {
                Some(event) => match key(&event?) {
                    Some(Key::Quit) => break,
                    Some(Key::Move(step)) => screen.go(step),
                    // Another size is drawn anew like everything else.
                    None => {}
                },
                None => break,
            },
        }
    }
    asking.abort();
    Ok(())
}

enum Key {
    Quit,
    Move(Move),
}

fn key(event: &Event) -> Option<Key> {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) = event else {
        return None;
    };
    Some(match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Up | KeyCode::Char('k') => Key::Move(Move::Up),
        KeyCode::Down | KeyCode::Char('j') => Key::Move(Move::Down),
        KeyCode::PageUp => Key::Move(Move::Older),
        KeyCode::PageDown => Key::Move(Move::Newer),
        _ => return None,
    })
}

/// Asks until nobody listens.
async fn ask(client: Client, news: mpsc::Sender<News>) {
    let mut last = 0;
    loop {
        let told = match both(&client, last).await {
            // A restart alone changes nothing: ids go on over it.
            Ok((_, list)) if list.is_anew(last) => {
                last = 0;
                if news.send(News::Anew).await.is_err() {
                    return;
                }
                continue;
            }
            Ok((status, list)) => {
                last = list.events.last().map_or(last, |entry| entry.id);
                News::Status(Box::new(status), list.events)
            }
            Err(error) => News::Silent(error.to_string()),
        };
        if news.send(told).await.is_err() {
            return;
        }
        sleep(EVERY).await;
    }
}

async fn both(client: &Client, last: u64) -> Result<(Status, List), AskError> {
    let status = client.ask(Method::GET, "/v1/status", None, PATIENCE).await?.read()?;
    let path = format!("/v1/events?after={last}&limit={EVENTS}");
    let list = client.ask(Method::GET, &path, None, PATIENCE).await?.read()?;
    Ok((status, list))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::{Arc, Mutex};

    use axum::extract::RawQuery;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::cli::ask::TrustArgs;
    use crate::cli::status::tests::example;

    /// A list of a journal: after which id it was asked for, the ids in it, and the journal's last.
    type Answer = (u64, Range<u64>, u64);

    fn list((_, ids, last): &Answer) -> Value {
        let entry = |id| json!({ "id": id, "at": "2026-05-01T22:00:00Z", "kind": "reloaded", "cause": "test" });
        json!({ "events": ids.clone().map(entry).collect::<Vec<_>>(), "last": last })
    }

    /// The news of a server that was started anew for each status, and gives these lists in turn. By status the ids that
    /// came with it; `None` where the journal began anew.
    async fn heard(answers: Vec<Answer>, news: usize) -> Vec<Option<Vec<u64>>> {
        let starts = Mutex::new(0.0);
        let status = Arc::new(move || {
            let mut started = starts.lock().unwrap();
            *started += 1.0;
            Json(json!(Status { started: *started, ..example() }))
        });
        let answers = Mutex::new(answers.into_iter());
        let events = Arc::new(move |query: Option<String>| {
            let answer = answers.lock().unwrap().next().expect("a question that is expected");
            assert_eq!(query.unwrap(), format!("after={}&limit={EVENTS}", answer.0));
            Json(list(&answer))
        });
        let router = Router::new()
            .route("/v1/status", get(move || std::future::ready(status())))
            .route("/v1/events", get(move |RawQuery(query): RawQuery| std::future::ready(events(query))));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(crate::admin::listen::serve(listener, None, router, stop.clone()));
        let (sender, mut told) = mpsc::channel(4);
        let asking = tokio::spawn(ask(Client::new(&url, &TrustArgs::default()).unwrap(), sender));
        let mut heard = vec![];
        for _ in 0..news {
            heard.push(match told.recv().await.unwrap() {
                News::Status(_, entries) => Some(entries.iter().map(|entry| entry.id).collect()),
                News::Anew => None,
                News::Silent(why) => panic!("{why}"),
            });
        }
        asking.abort();
        stop.cancel();
        heard
    }

    #[tokio::test]
    async fn a_restart_brings_no_event_twice() {
        let heard = heard(vec![(0, 1..4, 3), (3, 4..6, 5)], 2).await;
        assert_eq!(heard, [Some(vec![1, 2, 3]), Some(vec![4, 5])]);
    }

    #[tokio::test]
    async fn a_journal_that_began_anew_is_told_and_read_from_its_beginning() {
        let heard = heard(vec![(0, 1..4, 3), (3, 0..0, 2), (0, 1..3, 2)], 3).await;
        assert_eq!(heard, [Some(vec![1, 2, 3]), None, Some(vec![1, 2])]);
    }
}
