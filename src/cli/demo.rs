//! `meridian demo`: a node on loopback with toy origins to kill and revive, and viewers to watch.

mod keys;
mod play;

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use clap::Args;
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use self::play::Play;
use super::log::LogArgs;
use super::serve::stop_on_signals;
use super::{NodeArgs, complain, complain_of};
use crate::config::settings::Overrides;
use crate::control::load::Sources;
use crate::demo::screen;
use crate::demo::stage::{STREAM, Stage, StageError};
use crate::demo::viewers::{Sent, VIEWERS};
use crate::node::{self, Node, StartError};

/// How often the tables are drawn, and what changed is printed.
const TICK: Duration = Duration::from_millis(200);
/// Lines of news and of the log kept for the screen.
const NEWS: usize = 4;

#[derive(Args)]
pub struct DemoArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs until a signal, or the key q, and gives the exit code.
pub fn run(args: &DemoArgs) -> u8 {
    // Without a terminal at both ends there is nobody to press keys or to see a table redrawn.
    let on_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let news = News::default();
    let log = if on_terminal {
        args.log.start_to(BoxMakeWriter::new(news.clone()), false);
        None
    } else {
        Some(args.log.start())
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("not started: {error}"));
            return 1;
        }
    };
    match runtime.block_on(demo(args, on_terminal, news)) {
        Ok(()) => 0,
        Err(error) => {
            // What was logged comes first.
            drop(log);
            match &error {
                DemoError::Start(StartError::Refused(diagnostics)) => complain_of(diagnostics),
                DemoError::Start(_) | DemoError::Stage(_) | DemoError::Io(_) => {}
            }
            complain(&error.to_string());
            1
        }
    }
}

enum DemoError {
    Stage(StageError),
    Start(StartError),
    Io(io::Error),
}

impl std::fmt::Display for DemoError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DemoError::Stage(error) => write!(f, "no origins for the demo: {error}"),
            DemoError::Start(error) => write!(f, "{error}"),
            DemoError::Io(error) => write!(f, "{error}"),
        }
    }
}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> DemoError {
        DemoError::Io(error)
    }
}

async fn demo(args: &DemoArgs, on_terminal: bool, news: News) -> Result<(), DemoError> {
    let stop = CancellationToken::new();
    let _hangups = stop_on_signals(stop.clone())?;
    let directory = std::env::temp_dir().join(format!("meridian-demo-{}", std::process::id()));
    let stage = Arc::new(Stage::set(directory).await.map_err(DemoError::Stage)?);
    let flags = Overrides {
        listen: args.node.listen.clone(),
        admin: args.node.admin,
        workers: args.node.workers,
        ..Overrides::default()
    };
    let sources = Sources { config: Some(stage.config()), flags };
    let play = Arc::new(OnceCell::new());
    let routes = Router::new()
        .route("/demo/{act}/{region}", post(act_on_region))
        .route("/demo/{act}/{region}/{server}", post(act_on_server))
        .with_state(Arc::clone(&play));
    let node = node::start(sources, routes, stop.clone()).await.map_err(DemoError::Start)?;
    let director = Arc::new(Play::new(Arc::clone(&stage), node.dns[0], Arc::clone(&node.published)));
    let _ = play.set(Arc::clone(&director));
    if on_terminal {
        keys::show(&node, &director, &news, &stop).await?;
    } else {
        tell(&node, &director, &stop).await?;
    }
    stop.cancel();
    node.stopped().await;
    Ok(())
}

/// What to know and what to try.
fn introduction(node: &Node, stage: &Stage) -> Vec<String> {
    let dns = node.dns[0];
    let dig = format!("dig @{} -p {} {STREAM} +short", dns.ip(), dns.port());
    let tries = ["London", "New York", "São Paulo", "Tokyo", "Lagos"];
    let viewers = tries.iter().filter_map(|city| VIEWERS.iter().find(|viewer| viewer.city == *city));
    let mut lines = vec![
        format!("Meridian demo: DNS on {dns}, admin on http://{}", node.admin),
        format!("zone file, reread when you save it: {}", stage.zone_file().display()),
        String::new(),
    ];
    lines.extend(viewers.map(|viewer| format!("{dig} +subnet={:<17} # {}", viewer.network, viewer.city)));
    lines.push(format!(
        "curl -X POST http://{}/demo/kill/london    # or hang, fail, freeze, revive; /1 or /2 behind it: one server",
        node.admin
    ));
    let program = std::env::args_os().next().unwrap_or_else(|| "meridian".into());
    let program = program.to_string_lossy();
    lines.push(format!("{program} explain {STREAM} --client 81.2.69.0/24 --server http://{}", node.admin));
    lines
}

/// Plain lines, each when something changed.
async fn tell(node: &Node, play: &Play, stop: &CancellationToken) -> io::Result<()> {
    let mut out = anstream::stdout();
    for line in introduction(node, play.stage()) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    for line in screen::regions(play.stage(), &node.published.load(), None) {
        writeln!(out, "{line}")?;
    }
    let mut last: Vec<Option<Sent>> = screen::sent(&node.published.load_full());
    writeln!(out)?;
    for line in screen::viewers(&last) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    out.flush()?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = tick.tick() => {}
        }
        let now = screen::sent(&node.published.load_full());
        for ((viewer, last), now) in VIEWERS.iter().zip(&last).zip(&now) {
            if let (Some(last), Some(now)) = (last, now)
                && last != now
            {
                let to = match last.region == now.region {
                    true => format!("{}, other addresses", now.region),
                    false => format!("{} -> {}", last.region, now.region),
                };
                writeln!(out, "{} ({}): {to}  {}", viewer.city, viewer.network, now.addresses.join(" "))?;
            }
        }
        for line in play.news() {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        last = now;
    }
}

async fn act_on_region(play: State<Arc<OnceCell<Arc<Play>>>>, Path((act, region)): Path<(String, String)>) -> Response {
    respond(&play, &act, &region, None).await
}

async fn act_on_server(
    play: State<Arc<OnceCell<Arc<Play>>>>,
    Path((act, region, server)): Path<(String, String, usize)>,
) -> Response {
    respond(&play, &act, &region, Some(server)).await
}

async fn respond(play: &OnceCell<Arc<Play>>, act: &str, region: &str, server: Option<usize>) -> Response {
    let refuse = |status: StatusCode, error: String| (status, Json(json!({ "error": error }))).into_response();
    let Some(play) = play.get() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the demo is not ready yet".to_owned());
    };
    let Ok(act) = act.parse() else {
        return refuse(StatusCode::NOT_FOUND, "there are kill, hang, fail, freeze and revive".to_owned());
    };
    match play.act(act, region, server).await {
        Some(Ok(effect)) => Json(effect).into_response(),
        Some(Err(error)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        None => refuse(StatusCode::NOT_FOUND, format!("no such server; regions: {}", play.regions())),
    }
}

/// The last lines of something, shared.
#[derive(Clone, Default)]
struct News(Arc<Mutex<VecDeque<String>>>);

impl News {
    fn add(&self, line: String) {
        let mut lines = self.lines_mut();
        if lines.len() == NEWS {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn lines(&self) -> Vec<String> {
        self.lines_mut().iter().cloned().collect()
    }

    fn lines_mut(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log, where standard error is covered by the tables.
impl tracing_subscriber::fmt::MakeWriter<'_> for News {
    type Writer = LogLine;

    fn make_writer(&self) -> LogLine {
        LogLine { news: self.clone(), text: Vec::new() }
    }
}

/// One event of the log.
struct LogLine {
    news: News,
    text: Vec<u8>,
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        for line in text.lines() {
            self.news.add(line.to_owned());
        }
    }
}
