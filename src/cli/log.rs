//! Logs: to standard error, for people or as JSON; never a line a query.
//!
//! Lines are written by a thread of their own. Where standard error is read slowly or not at all (a terminal that stands
//! still, a stuck collector), lines wait in a bounded queue, and those beyond it are lost and counted: the server never
//! waits for who reads its log.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;
use tracing::warn;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Filter directives as tracing-subscriber has them: `debug`, `meridian::control=debug,warn`.
const VARIABLE: &str = "MERIDIAN_LOG";

/// Lines that wait to be written; further ones are lost.
const QUEUE: usize = 4096;
/// What is queued at the end is written within this, or lost.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// How log lines look; what is logged is set by MERIDIAN_LOG (error, warn, info, debug, or MODULE=LEVEL,…)
    #[arg(long, value_enum, default_value_t = Format::Human, value_name = "FORMAT")]
    log: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people, coloured on a terminal
    Human,
    /// One JSON object a line
    Json,
}

impl LogArgs {
    /// Logs to standard error from here on, until the guard goes. Once a process.
    pub fn start(&self) -> LogGuard {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let lost = Arc::new(OnceLock::new());
        let out = Counting { out: io::stderr(), lost: Arc::clone(&lost), told: 0 };
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE).thread_name("log");
        let (writer, guard) = builder.finish(out);
        // Set once, here.
        let _ = lost.set(writer.error_counter());
        self.start_to(BoxMakeWriter::new(writer), colours);
        LogGuard(Some(guard))
    }

    /// The same to another place.
    pub fn start_to(&self, writer: BoxMakeWriter, colours: bool) {
        let filter = EnvFilter::builder()
            .with_default_directive(LevelFilter::INFO.into())
            .with_env_var(VARIABLE)
            .from_env_lossy()
            // It warns about what a peer sent, so a peer could fill the disk.
            .add_directive("hickory_proto=off".parse().expect("a directive"))
            // It warns about watches of directories that are gone, which we know and mend.
            .add_directive("notify=off".parse().expect("a directive"));
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
        match self.log {
            Format::Human => builder.with_ansi(colours).with_target(false).init(),
            Format::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
        }
    }
}

/// Writes what is queued when it goes, and waits for that a moment.
#[must_use = "without it nothing more is logged"]
pub struct LogGuard(Option<WorkerGuard>);

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (done, is_done) = mpsc::channel();
        let guard = self.0.take();
        // On a thread, as the guard complains on standard output when it cannot end its queue, and the same stuck reader
        // may have that too. Without a thread the guard goes here.
        let flushing = thread::Builder::new().spawn(move || {
            drop(guard);
            let _ = done.send(());
        });
        if flushing.is_ok() {
            let _ = is_done.recv_timeout(LAST_WORDS);
        }
    }
}

/// Says how many lines were lost, as soon as lines are taken again.
struct Counting<W> {
    out: W,
    lost: Arc<OnceLock<ErrorCounter>>,
    told: usize,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.out.write(line)?;
        let lost = || self.lost.get().map_or(0, ErrorCounter::dropped_lines);
        let now = lost();
        if now > self.told {
            // It goes to the end of the queue: there is the gap.
            warn!(lines = now - self.told, "log lines were lost: nobody read them in time");
            // Else it was lost itself.
            if lost() == now {
                self.told = now;
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
