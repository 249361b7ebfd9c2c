//! `meridian events`: what happened, and what happens.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::{AskError, Client, ServerArgs};
use super::complain;
use super::hands::failed;
use super::show::{harmless, percent};
use crate::journal::Entry;

const PATIENCE: Duration = Duration::from_secs(5);
/// A server that went away is asked again this often.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct EventsArgs {
    /// Go on with what comes, until interrupted
    #[arg(long)]
    follow: bool,
    /// Only what came after the event with this number
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
    /// At most so many of the past, the newest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print JSON, one event a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct List {
    pub events: Vec<Entry>,
}

enum Ended {
    Asked(AskError),
    Out(io::Error),
}

impl From<AskError> for Ended {
    fn from(error: AskError) -> Ended {
        Ended::Asked(error)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Out(error)
    }
}

/// Gives the exit code; with --follow only when the server cannot be asked at all. Errors are those of `out`.
pub fn run(args: &EventsArgs, out: &mut dyn Write) -> io::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(events(args, out)) {
        Ok(()) => Ok(0),
        Err(Ended::Asked(error)) => Ok(failed(&args.server, &error)),
        Err(Ended::Out(error)) => Err(error),
    }
}

async fn events(args: &EventsArgs, out: &mut dyn Write) -> Result<(), Ended> {
    let client = Client::of(&args.server)?;
    let path = format!("/v1/events?after={}&limit={}", args.after.unwrap_or(0), args.limit);
    let List { events } = client.ask(Method::GET, &path, None, PATIENCE).await?.read()?;
    for entry in &events {
        print(entry, args.json, out)?;
    }
    let mut last = events.last().map(|entry| entry.id).or(args.after).unwrap_or(0);
    if !args.follow {
        return Ok(());
    }
    let mut gone = false;
    loop {
        out.flush()?;
        match follow(&client, &mut last, args.json, out, &mut gone).await {
            Ok(()) => {}
            Err(Ended::Asked(error)) if !error.is_usage() => {
                if !std::mem::replace(&mut gone, true) {
                    complain(&format!("{}: {error}; trying again", args.server.server));
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Until the stream ends.
async fn follow(
    client: &Client,
    last: &mut u64,
    json: bool,
    out: &mut dyn Write,
    gone: &mut bool,
) -> Result<(), Ended> {
    let mut feed = client.follow("/v1/events", Some(*last)).await?;
    *gone = false;
    while let Some(event) = feed.next().await? {
        if event.kind == "missed" {
            complain(&format!("events were missed: {}", harmless(&event.data)));
            continue;
        }
        let entry: Entry = serde_json::from_str(&event.data).map_err(|error| AskError::Failed(error.to_string()))?;
        print(&entry, json, out)?;
        out.flush()?;
        *last = entry.id;
    }
    Ok(())
}

fn print(entry: &Entry, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json { writeln!(out, "{}", json!(entry)) } else { writeln!(out, "{}", line(entry)) }
}

/// `2026-05-01T22:00:00.123Z   17  server_down   192.0.2.11 of london of stream.example: connection refused; 4 % moved`.
pub fn line(entry: &Entry) -> String {
    format!("{:.3}  {:>5}  {}", entry.at, entry.id, said(entry))
}

/// What happened, without when.
pub fn said(entry: &Entry) -> String {
    let note = &entry.note;
    let kind = serde_json::to_value(note.kind).ok().and_then(|kind| Some(kind.as_str()?.replace('_', " ")));
    let server = note.server.map(|address| address.to_string());
    let places: Vec<String> =
        [server, note.region.as_deref().map(str::to_owned), note.zone.as_deref().map(str::to_owned)]
            .into_iter()
            .flatten()
            .collect();
    let mut text = format!("{:<14} {}", kind.unwrap_or_default(), places.join(" of "));
    if !note.cause.is_empty() {
        text.push_str(if places.is_empty() { "" } else { ": " });
        text.push_str(&note.cause);
    }
    if let Some(author) = &note.author {
        text.push_str(&format!("; by {author}"));
    }
    if let Some(effect) = note.effect.as_ref().filter(|effect| effect.moved > 0.0) {
        text.push_str(&format!("; moved {} of the cells", percent(effect.moved)));
    }
    harmless(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let text = r#"{"id":17,"at":"2026-05-01T22:00:00.1234Z","kind":"server_down","zone":"stream.example",
            "region":"london","server":"192.0.2.11","cause":"connection\nrefused","effect":{"moved":0.041,"shares":{}}}"#;
        let entry: Entry = serde_json::from_str(text).unwrap();
        assert_eq!(
            line(&entry),
            "2026-05-01T22:00:00.123Z     17  server down    192.0.2.11 of london of stream.example: \
             connection\u{fffd}refused; moved 4.1 % of the cells"
        );
        let text = r#"{"id":1,"at":"2026-05-01T22:00:00Z","kind":"reloaded","cause":"generation 5","author":"alice"}"#;
        let entry: Entry = serde_json::from_str(text).unwrap();
        assert_eq!(said(&entry), "reloaded       generation 5; by alice");
    }
}
