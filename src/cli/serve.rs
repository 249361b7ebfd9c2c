//! `meridian serve`: a node until a signal ends it.

use std::path::PathBuf;

use axum::Router;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::log::LogArgs;
use super::{FileArgs, NodeArgs, complain, complain_of};
use crate::config::settings::Overrides;
use crate::control::Event;
use crate::control::load::Sources;
use crate::node::{self, StartError};

#[derive(Args)]
pub struct ServeArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// Where orders, verdicts, the journal and serials are kept over a restart [default: state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

/// Serves until SIGTERM or SIGINT and gives the exit code. SIGHUP reloads.
pub fn run(args: &ServeArgs) -> u8 {
    let log = args.log.start();
    let mut sources = args.files.sources();
    sources.flags = Overrides {
        listen: args.node.listen.clone(),
        admin: args.node.admin,
        workers: args.node.workers,
        state: args.state.clone(),
        ..sources.flags
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("not started: {error}"));
            return 1;
        }
    };
    match runtime.block_on(serve(sources)) {
        Ok(()) => 0,
        Err(error) => {
            // What was logged comes first.
            drop(log);
            if let StartError::Refused(diagnostics) = &error {
                complain_of(diagnostics);
            }
            complain(&error.to_string());
            1
        }
    }
}

async fn serve(sources: Sources) -> Result<(), StartError> {
    let stop = CancellationToken::new();
    // From here on, so that a signal during a long start is not lost.
    let hangups = stop_on_signals(stop.clone()).map_err(StartError::System)?;
    let node = node::start(sources, Router::new(), stop).await?;
    let reloads = tokio::spawn(reload_on(hangups, node.events.clone()));
    node.stopped().await;
    reloads.abort();
    info!("stopped");
    Ok(())
}

/// Cancels `stop` at the first SIGTERM or SIGINT, and gives the SIGHUPs, which end nothing from then on. Must be called
/// within a tokio runtime.
pub fn stop_on_signals(stop: CancellationToken) -> std::io::Result<Signal> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: answering what was received, then stopping"),
            _ = interrupt.recv() => info!("SIGINT: answering what was received, then stopping"),
        }
        stop.cancel();
    });
    Ok(hangups)
}

async fn reload_on(mut hangups: Signal, events: mpsc::Sender<Event>) {
    while hangups.recv().await.is_some() {
        info!("SIGHUP: reloading");
        // The control loop logs the outcome.
        let (reply, outcome) = oneshot::channel();
        if events.send(Event::Reload(reply)).await.is_err() {
            error!("the control loop has ended");
        }
        let _ = outcome.await;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_of_settings_names_each_key_once() {
        let keys = include_str!("../../docs/node.md").lines().filter_map(|line| line.strip_prefix("| `"));
        let mut keys: Vec<&str> = keys.filter_map(|row| Some(row.split_once('`')?.0)).collect();
        let rows = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert!(rows > 10 && rows == keys.len(), "{keys:?}");
    }
}
