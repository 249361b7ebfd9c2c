//! Logs: to standard error, for people or as JSON; never a line a query.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Filter directives as tracing-subscriber has them: `debug`, `meridian::control=debug,warn`.
const VARIABLE: &str = "MERIDIAN_LOG";

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
    /// Logs to standard error from here on. Once a process.
    pub fn start(&self) {
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        self.start_to(BoxMakeWriter::new(std::io::stderr), colours);
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
