//! `--state`: what a node recorded, for commands that only look at it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clap::Args;
use jiff::Timestamp;

use crate::config::rtt::Imported;
use crate::config::settings::Zone;
use crate::control::learned::table_of;
use crate::control::measured::Measured;
use crate::demand::profile::{self, time_of_week};
use crate::geo::Database;
use crate::simulate::Recorded;
use crate::state::file::{Kind, peek};
use crate::steering::cost::{Costs, Distance};
use crate::steering::learn;

#[derive(Args)]
pub struct StateArgs {
    /// Demand and round-trip times as the node recorded them in this state directory; it is only read
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Demand not of when it was recorded but as is usual at this time of the week, UTC, such as "Sat 20:00"
    #[arg(long, value_name = "DAY HH:MM", requires = "state", value_parser = week)]
    at: Option<Timestamp>,
}

fn week(text: &str) -> Result<Timestamp, String> {
    time_of_week(text).ok_or_else(|| "write a day and a time, UTC, like \"Sat 20:00\"".to_owned())
}

/// What a state directory says.
pub struct Record {
    /// `None`: no directory is given.
    pub recorded: Option<Recorded>,
    pub costs: Known,
}

/// What is known of round-trip times.
pub enum Known {
    /// No directory is given.
    Unasked,
    /// Nothing was learned.
    Nothing,
    Learned(Measured),
}

impl Known {
    pub fn costs(&self) -> &dyn Costs {
        match self {
            Known::Learned(measured) => measured,
            _ => &Distance,
        }
    }

    /// The end of a sentence that tells what figures stand on.
    pub fn words(&self) -> &'static str {
        match self {
            Known::Unasked => "",
            Known::Nothing => "; costs by distance, none is learned",
            Known::Learned(_) => "; costs learned",
        }
    }
}

impl StateArgs {
    /// `zones`: all of the node's. `rtt`: rows of its table of round-trip times. Errors are in words.
    pub fn read(&self, zones: &[Arc<Zone>], rtt: &[Imported], database: &Database) -> Result<Record, String> {
        let Some(directory) = &self.state else { return Ok(Record { recorded: None, costs: Known::Unasked }) };
        let saved = demand(directory)?;
        let recorded = Recorded::of(&saved, zones, self.at).map_err(|error| {
            format!(
                "{}: {error}\n  demand is recorded by the names of the streams that the node serves\n  \
                 help: give the files and the state directory of one node, one that has been asked, or leave --state out",
                directory.join(Kind::Demand.file_name()).display()
            )
        })?;
        // What was measured is as old as it was then, however long the directory has been lying about.
        let then = saved.at.unwrap_or_else(Timestamp::now);
        Ok(Record { recorded: Some(recorded), costs: costs(directory, then, zones, rtt, database)? })
    }
}

fn demand(directory: &Path) -> Result<profile::Saved, String> {
    if !directory.is_dir() {
        return Err(format!(
            "--state {}: there is no such directory\n  help: give the directory that the node was given as --state",
            directory.display()
        ));
    }
    let saved = peek::<profile::Saved>(directory, Kind::Demand).map_err(unread)?;
    saved.ok_or_else(|| {
        format!(
            "{} is not there: it would hold the queries/s of each stream and square of the world\n  \
             a node writes it every five minutes, and when it ends\n  \
             help: give the state directory of a node that has run so long, or leave --state out",
            directory.join(Kind::Demand.file_name()).display()
        )
    })
}

fn unread(error: crate::state::file::Unread) -> String {
    format!("{error}\n  help: a node that runs writes it whole again within five minutes; or leave --state out")
}

fn costs(
    directory: &Path,
    then: Timestamp,
    zones: &[Arc<Zone>],
    rtt: &[Imported],
    database: &Database,
) -> Result<Known, String> {
    let saved = peek::<learn::Saved>(directory, Kind::Rtt).map_err(unread)?.unwrap_or_default();
    let mut learned = learn::Learned::restored(&saved, then);
    learned.import(table_of(rtt, database, zones));
    if learned.is_empty() {
        return Ok(Known::Nothing);
    }
    let mut measured = Measured::new(Arc::new(Mutex::new(learned)));
    measured.look(then);
    Ok(Known::Learned(measured))
}
