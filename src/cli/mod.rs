//! The command line: one file a command.
//!
//! Exit codes: 0 done, 1 the answer is no, 2 wrong usage.

pub mod agent;
pub mod ask;
pub mod check;
pub mod delegation;
pub mod demo;
pub mod diff;
pub mod events;
pub mod explain;
pub mod feed;
pub mod geoip;
pub mod hands;
pub mod log;
pub mod recorded;
pub mod serve;
pub mod show;
pub mod simulate;
pub mod status;
pub mod token;
pub mod top;

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use ipnet::IpNet;

use crate::config::settings::Overrides;
use crate::config::{Diagnostic, load_database, load_node};
use crate::control::load::Sources;
use crate::geo::compact;
use crate::memory;

const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\n\nThe bundled location database is made from IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0.",
    "\nThe built-in cities and countries are from GeoNames (https://www.geonames.org), CC BY 4.0."
);

/// GeoDNS authoritative server for live streaming: each viewer gets the nearest healthy region
#[derive(Parser)]
#[command(name = "meridian", version, long_version = LONG_VERSION, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer queries
    Serve(serve::ServeArgs),
    /// Serve a bundled zone on loopback, with toy origins to kill and revive, and watch the answers move
    Demo(demo::DemoArgs),
    /// Tell every fault of every file in one run; exit code 1 if there is an error
    Check(CheckArgs),
    /// Tell why an answer is what it is
    Explain(explain::ExplainArgs),
    /// Tell load, latency and cost of each region before and after a loss, a drain, or more viewers; exit code 1 if a region
    /// would be too small
    Simulate(simulate::SimulateArgs),
    /// Tell what changed zone files would change, and which viewers they would send elsewhere
    Diff(diff::DiffArgs),
    /// Tell how the running server is: regions, servers, orders
    Status(status::StatusArgs),
    /// Watch the running server: regions, servers, events
    Top(top::TopArgs),
    /// Tell what happened
    Events(events::EventsArgs),
    /// Take a region out: its clients are led elsewhere bit by bit
    Drain(hands::DrainArgs),
    /// End the drains of a region: it takes its share back
    Undrain(hands::UndrainArgs),
    /// Let a region or server count as up or down, whatever the probes say
    Force(hands::ForceArgs),
    /// List what is drained or forced, or will be
    Orders(hands::OrdersArgs),
    /// End an order
    Lift(hands::LiftArgs),
    /// Load all files anew, and tell whether they were taken
    Reload(hands::ReloadArgs),
    /// Make a token for the admin address
    Token(token::TokenArgs),
    /// Ask location databases, and make smaller ones of them
    #[command(subcommand)]
    Geoip(GeoipCommand),
    /// Print the records to put in the parent zone: NS and glue
    Delegation(delegation::DelegationArgs),
    /// Send heartbeats and load from beside a stream server
    Agent(Box<agent::AgentArgs>),
    /// Print completions for a shell
    Completions { shell: Shell },
}

#[derive(Args)]
struct CheckArgs {
    /// Zone files, or directories of them [default: the node's own zones]
    paths: Vec<PathBuf>,
    /// The node's own settings [default: meridian.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum GeoipCommand {
    /// Tell what is known of an address, and which file says so; exit code 1 if nothing is
    Inspect {
        address: IpAddr,
        #[command(flatten)]
        files: FileArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the country and location of databases to one small file
    Compact {
        /// Databases, or directories of them
        #[arg(required = true)]
        sources: Vec<PathBuf>,
        /// The file to write
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// At most this long
        #[arg(long, value_name = "BYTES", default_value_t = compact::Options::default().size)]
        size: usize,
        /// Join places of a country that lie within a square of this many degrees
        #[arg(long, value_name = "DEGREES", default_value_t = compact::Options::default().grid)]
        grid: f64,
        /// Keep this block as the source has it; may be repeated
        #[arg(long, value_name = "PREFIX")]
        keep: Vec<IpNet>,
        /// Text for the file's description
        #[arg(long, value_name = "TEXT", default_value = "")]
        attribution: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell how often databases send addresses to the same nearest city as better ones do
    Compare {
        /// The databases in question, or directories of them
        #[arg(required = true)]
        others: Vec<PathBuf>,
        /// A database that is taken to be right; may be repeated
        #[arg(long, value_name = "PATH", required = true)]
        truth: Vec<PathBuf>,
        /// A city with servers, such as "San Jose, US"; may be repeated
        #[arg(long, value_name = "CITY", required = true)]
        near: Vec<String>,
        /// Addresses to draw
        #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What commands read.
#[derive(Args, Clone, Default)]
pub struct FileArgs {
    /// The node's own settings [default: meridian.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A directory of zone files, or one file [default: zones]
    #[arg(long, value_name = "DIR")]
    zones: Option<PathBuf>,
    /// A location database, or a directory of them; may be repeated, the first that knows an attribute gives it
    /// [default: geoip if it is there, else the bundled database]
    #[arg(long, value_name = "PATH")]
    geoip: Vec<PathBuf>,
}

/// Where a server listens.
#[derive(Args, Clone, Default)]
pub struct NodeArgs {
    /// Answer DNS over UDP and TCP on this address; may be repeated [default: 127.0.0.1:5300]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// HTTP API and metrics [default: 127.0.0.1:8053]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Threads that answer UDP, and as many for TCP [default: one a core]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroU16>,
}

impl FileArgs {
    fn sources(&self) -> Sources {
        let flags = Overrides { zones: self.zones.clone(), geoip: self.geoip.clone(), ..Overrides::default() };
        Sources { config: self.config.clone(), flags }
    }
}

/// Runs the command that the arguments ask for.
pub fn run() -> ExitCode {
    memory::return_large_tables();
    let done = match Cli::parse().command {
        Command::Serve(args) => Ok(serve::run(&args)),
        Command::Demo(args) => Ok(demo::run(&args)),
        Command::Check(CheckArgs { paths, config, json }) => {
            check::run(&paths, config.as_deref(), json, &mut anstream::stdout())
        }
        Command::Explain(args) => explain::run(&args, &mut anstream::stdout()),
        Command::Simulate(args) => simulate::run(&args, &mut anstream::stdout()),
        Command::Diff(args) => diff::run(&args, &mut anstream::stdout()),
        Command::Status(args) => status::run(&args, &mut anstream::stdout()),
        Command::Top(args) => Ok(top::run(&args)),
        Command::Events(args) => events::run(&args, &mut anstream::stdout()),
        Command::Drain(args) => hands::drain(args, &mut anstream::stdout()),
        Command::Undrain(args) => hands::undrain(args, &mut anstream::stdout()),
        Command::Force(args) => hands::force(args, &mut anstream::stdout()),
        Command::Orders(args) => hands::orders(&args, &mut anstream::stdout()),
        Command::Lift(args) => hands::lift(&args, &mut anstream::stdout()),
        Command::Reload(args) => hands::reload(&args, &mut anstream::stdout()),
        Command::Token(args) => token::run(&args, &mut anstream::stdout()),
        Command::Geoip(command) => geoip(command, &mut anstream::stdout()),
        Command::Delegation(args) => delegation::run(&args, &mut anstream::stdout()),
        Command::Agent(args) => agent::run(*args, &mut anstream::stdout()),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "meridian", &mut io::stdout());
            Ok(0)
        }
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // Who reads us has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("cannot print: {error}"));
            ExitCode::from(1)
        }
    }
}

fn geoip(command: GeoipCommand, out: &mut dyn Write) -> io::Result<u8> {
    match command {
        GeoipCommand::Inspect { address, files, json } => {
            let (node, _, mut faults) = match load_node(files.config.as_deref()) {
                Ok(read) => read,
                Err(fault) => {
                    complain_of(&[*fault]);
                    return Ok(1);
                }
            };
            let database = load_database(&node.with(files.sources().flags));
            match database.map_err(|more| faults.extend(more)) {
                Ok(database) if !faults.iter().any(Diagnostic::is_error) => {
                    geoip::inspect(address, &database, json, out)
                }
                _ => {
                    complain_of(&faults);
                    Ok(1)
                }
            }
        }
        GeoipCommand::Compact { sources, to, size, grid, keep, attribution, json } => {
            let options = compact::Options { size, grid, keep, attribution };
            geoip::compact(&sources, &to, &options, json, out)
        }
        GeoipCommand::Compare { others, truth, near, count, json } => {
            geoip::compare(&truth, &others, &near, count, json, out)
        }
    }
}

/// A word to the operator, on standard error.
fn complain(what: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(anstream::stderr(), "meridian: {what}");
}

/// All faults, as `check` prints them.
fn complain_of(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let _ = writeln!(anstream::stderr(), "{diagnostic}");
    }
}
