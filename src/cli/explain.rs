//! `meridian explain NAME [TYPE] --client X`: why an answer is what it is.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;

use super::ask::{AskError, Client, TrustArgs, escape};
use super::{FileArgs, complain, complain_of};
use crate::config::load_node;
use crate::control::load::{Refused, read};
use crate::control::serials::Serials;
use crate::explain::ask::{Ask, explain};
use crate::explain::{Basis, Explanation};
use crate::health::Verdict;
use crate::snapshot::{Served, Snapshot};
use crate::world::{Beliefs, View};

#[derive(Args)]
pub struct ExplainArgs {
    /// The name asked for
    name: String,
    /// A, AAAA, TXT, TYPE65…
    #[arg(value_name = "TYPE", default_value = "A")]
    rtype: String,
    /// The viewer's address or prefix, as a resolver would send it in a client subnet option
    #[arg(long, value_name = "ADDR|PREFIX")]
    client: String,
    /// Ask the server with this admin address, such as http://127.0.0.1:8053, and no files
    /// [default: the one of meridian.toml; the files if it does not answer, or if --zones or --geoip is given]
    #[arg(long, value_name = "URL", conflicts_with_all = ["zones", "geoip"])]
    server: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    files: FileArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Gives the exit code: 0 for an explanation, 1 when there is none to give, 2 for words that make no question. Errors
/// are those of `out`.
pub fn run(args: &ExplainArgs, out: &mut dyn Write) -> io::Result<u8> {
    let ask = match Ask::read(&args.name, &args.rtype, &args.client) {
        Ok(ask) => ask,
        Err(error) => {
            complain(&error);
            return Ok(2);
        }
    };
    let Some(explanation) = explanation(args, &ask) else { return Ok(1) };
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&explanation)?)?;
    } else {
        write!(out, "{explanation}")?;
    }
    Ok(0)
}

/// From the running server, else from the files; from the files alone when they are named. Says why when there is none.
fn explanation(args: &ExplainArgs, ask: &Ask) -> Option<Explanation> {
    // The server may have loaded others.
    if args.files.zones.is_some() || !args.files.geoip.is_empty() {
        return told_from_files(args, ask);
    }
    let named = args.server.is_some();
    let base = match &args.server {
        Some(base) => base.clone(),
        None => match load_node(args.files.config.as_deref()) {
            Ok((node, _, _)) => {
                let scheme = if node.access.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{}", node.admin)
            }
            Err(fault) => {
                complain_of(&[*fault]);
                return None;
            }
        },
    };
    match from_server(args, &base) {
        Ok(explanation) => return Some(explanation),
        Err(error) if named => {
            complain(&format!("{base}: {error}"));
            return None;
        }
        Err(AskError::Refused) => {}
        Err(error) => complain(&format!("{base}: {error}; computing from the files")),
    }
    told_from_files(args, ask)
}

fn told_from_files(args: &ExplainArgs, ask: &Ask) -> Option<Explanation> {
    from_files(args, ask)
        .map_err(|Refused { diagnostics, .. }| {
            complain_of(&diagnostics);
            complain("no explanation: the files have errors");
        })
        .ok()
}

fn from_server(args: &ExplainArgs, base: &str) -> Result<Explanation, AskError> {
    let path =
        format!("/v1/explain?name={}&type={}&client={}", escape(&args.name), escape(&args.rtype), escape(&args.client));
    Client::new(base, &args.trust)?.get(&path)?.read()
}

fn from_files(args: &ExplainArgs, ask: &Ask) -> Result<Explanation, Refused> {
    let files = read(&args.files.sources(), None)?;
    let mut serials = Serials::default();
    let zones = files.zones.into_iter();
    let zones = zones.map(|zone| Served { serial: serials.give(&zone), zone: Arc::new(zone) }).collect();
    let snapshot = Snapshot::compile(zones, &files.database, |_| Verdict::Unknown, None);
    let view = View::of(Arc::new(snapshot), Arc::new(Beliefs::new()));
    Ok(explain(ask, &view, Basis::Files, SystemTime::now()))
}
