//! `meridian events`: what happened, and what happens.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::{AskError, Client, ServerArgs};
use super::complain;
use super::feed::FeedEvent;
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
    /// The highest id of the journal. `None`: an older server does not say.
    #[serde(default)]
    pub last: Option<u64>,
}

impl List {
    /// Whether who asked for what came after `after` saw another journal: this one has not come so far.
    pub fn is_anew(&self, after: u64) -> bool {
        self.last.is_some_and(|last| last < after)
    }
}

/// Said once where ids begin anew: the state directory was lost, or the journal in it set aside, before a restart.
const ANEW: &str = "the server's journal began anew: what follows is counted from its beginning";

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
    let list: List = client.ask(Method::GET, &path, None, PATIENCE).await?.read()?;
    // A stream says it itself.
    if let Some((asked, last)) = args.after.zip(list.last).filter(|(asked, _)| !args.follow && list.is_anew(*asked)) {
        complain(&format!("the journal has come to {last} only, so {asked} was an event of another one"));
    }
    let events = list.events;
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
        match Told::read(&event)? {
            Told::Missed(what) => complain(&format!("events were missed: {what}")),
            Told::Anew => {
                complain(ANEW);
                *last = 0;
            }
            Told::Entry(entry) => {
                print(&entry, json, out)?;
                out.flush()?;
                *last = entry.id;
            }
        }
    }
    Ok(())
}

/// What an event of the stream says.
#[derive(Debug, PartialEq)]
enum Told {
    Entry(Box<Entry>),
    /// How many, in the server's words.
    Missed(String),
    /// Ids begin anew.
    Anew,
}

impl Told {
    fn read(event: &FeedEvent) -> Result<Told, AskError> {
        match event.kind.as_str() {
            "missed" => Ok(Told::Missed(harmless(&event.data))),
            "reset" => Ok(Told::Anew),
            _ => {
                let entry = serde_json::from_str(&event.data).map_err(|error| AskError::Failed(error.to_string()))?;
                Ok(Told::Entry(entry))
            }
        }
    }
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

    /// A server that gives each connection the next of `replies`; the requests it got.
    fn server(replies: Vec<String>) -> (String, std::sync::mpsc::Receiver<String>) {
        use std::io::Read;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, got) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for reply in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                requests.send(String::from_utf8_lossy(&request[..length]).to_lowercase()).unwrap();
                stream.write_all(reply.as_bytes()).unwrap();
            }
        });
        (url, got)
    }

    #[tokio::test]
    async fn after_the_journal_began_anew_events_are_followed_from_its_beginning() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        let entry = r#"{"id":1,"at":"2026-05-01T22:00:00Z","kind":"started","cause":"test"}"#;
        let streams = ["event: reset\ndata: {\"last\":1}\n\n".to_owned(), format!("id: 1\ndata: {entry}\n\n")];
        let (url, requests) = server(streams.iter().map(|stream| format!("{head}{stream}")).collect());
        let client = Client::new(&url, &super::super::ask::TrustArgs::default()).unwrap();
        let (mut last, mut gone, mut out) = (74, false, Vec::new());
        assert!(follow(&client, &mut last, false, &mut out, &mut gone).await.is_ok());
        assert!(follow(&client, &mut last, false, &mut out, &mut gone).await.is_ok());
        let asked: Vec<String> = requests.iter().collect();
        assert!(asked[0].contains("last-event-id: 74") && asked[1].contains("last-event-id: 0\r"), "{asked:?}");
        assert_eq!(last, 1);
        assert!(String::from_utf8(out).unwrap().contains("started"));
    }

    #[test]
    fn a_list_of_a_journal_that_began_anew_is_known_by_its_last_id() {
        let list = |text: &str| serde_json::from_str::<List>(text).unwrap();
        assert!(list(r#"{"events":[],"last":12}"#).is_anew(74));
        assert!(!list(r#"{"events":[],"last":74}"#).is_anew(74));
        assert!(!list(r#"{"events":[]}"#).is_anew(74), "a server that does not say");
    }

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
