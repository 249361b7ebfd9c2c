//! `meridian agent`: heartbeats and load from beside a stream server.

use std::io::{self, Write};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::ask::{Client, TrustArgs};
use super::complain;
use super::log::LogArgs;
use super::serve::stop_on_signals;
use crate::agent::{self, Settings, Source, Url, Viewers};
use crate::config::units;
use crate::health::beats::keys;
use crate::health::beats::packet::Addresses;

const MIN_EVERY: Duration = Duration::from_millis(20);
const MAX_EVERY: Duration = Duration::from_secs(60);

/// Words of a command end at `;`, or with the line.
const END: &str = ";";

#[derive(Args)]
pub struct AgentArgs {
    /// A node that receives heartbeats; may be repeated, all get the same
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "new_key")]
    to: Vec<String>,
    /// The server's public address, as in the zone; one of each family
    #[arg(long, value_name = "ADDR", required_unless_present = "new_key")]
    server: Vec<IpAddr>,
    /// The file whose first key is used; read again when it changes
    #[arg(long, value_name = "FILE", required_unless_present = "new_key")]
    key_file: Option<PathBuf>,
    /// Between two beats, 20ms to 60s
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = every)]
    every: Duration,
    /// Count what this interface sends [default: that of the default route, or all but lo]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// A program that prints the number of sessions, run without a shell; its words end at ";" or with the line
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true, value_terminator = END,
          conflicts_with = "sessions_url")]
    sessions_command: Vec<String>,
    /// Where the number of sessions is: a plain number, or JSON with --sessions-field
    #[arg(long, value_name = "URL")]
    sessions_url: Option<Url>,
    /// Where in the JSON the number stands, like /stats/sessions (RFC 6901)
    #[arg(long, value_name = "POINTER", requires = "sessions_url", value_parser = pointer)]
    sessions_field: Option<String>,
    /// The server is ready while this gives status 2xx or 3xx
    #[arg(long, value_name = "URL", conflicts_with = "ready_command")]
    health_url: Option<Url>,
    /// The server is ready while this program exits with 0; its words end at ";" or with the line
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true, value_terminator = END)]
    ready_command: Vec<String>,
    /// Tell the nodes the round-trip times of viewers, as the kernel measures them; ss is of iproute2
    #[arg(long, value_name = "PROGRAM", requires_all = ["rtt_port", "rtt_region", "rtt_to"])]
    rtt_from: Option<RttFrom>,
    /// The port of the stream on this server
    #[arg(long, value_name = "PORT", requires = "rtt_from")]
    rtt_port: Option<NonZeroU16>,
    /// The region of this server, as the zones name it
    #[arg(long, value_name = "NAME", requires = "rtt_from")]
    rtt_region: Option<String>,
    /// Its zone, where regions of other zones have the same name and are elsewhere
    #[arg(long, value_name = "ZONE", requires = "rtt_from")]
    rtt_zone: Option<String>,
    /// The admin address of a node; may be repeated. The token needs the role report
    #[arg(long, value_name = "URL", requires = "rtt_from")]
    rtt_to: Vec<String>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Print a new key of this name for the files of nodes and agents, and do nothing else
    #[arg(long, value_name = "NAME", exclusive = true)]
    new_key: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

/// What tells round-trip times.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RttFrom {
    Ss,
}

fn every(text: &str) -> Result<Duration, String> {
    match units::duration(text) {
        Some(every) if (MIN_EVERY..=MAX_EVERY).contains(&every) => Ok(every),
        Some(_) => Err("outside 20ms to 60s".into()),
        None => Err("durations are written 100ms or 1s".into()),
    }
}

fn pointer(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a pointer begins with /".into()) }
}

/// Beats until SIGTERM or SIGINT and gives the exit code.
pub fn run(args: AgentArgs, out: &mut dyn Write) -> io::Result<u8> {
    if let Some(name) = &args.new_key {
        return match keys::new_line(name) {
            Ok(line) => writeln!(out, "{line}").map(|()| 0),
            Err(why) => {
                complain(&why);
                Ok(2)
            }
        };
    }
    let log = args.log.clone();
    let settings = match args.settings() {
        Ok(settings) => settings,
        Err(why) => {
            complain(&why);
            return Ok(2);
        }
    };
    let log = log.start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(async {
        let stop = CancellationToken::new();
        // SIGHUP ends nothing: the file of keys is looked at anyway.
        let _hangups = stop_on_signals(stop.clone()).map_err(|error| error.to_string())?;
        agent::run(settings, stop).await.map_err(|error| error.to_string())
    });
    // A name that is being looked up would be waited for.
    runtime.shutdown_background();
    match done {
        Ok(()) => {
            info!("stopped");
            Ok(0)
        }
        Err(why) => {
            drop(log);
            complain(&why);
            Ok(1)
        }
    }
}

impl AgentArgs {
    /// Errors: what is wrong with the usage.
    fn settings(self) -> Result<Settings, String> {
        let (mut v4, mut v6) = (None, None);
        for address in self.server {
            let twice = match address {
                IpAddr::V4(address) => v4.replace(address).is_some(),
                IpAddr::V6(address) => v6.replace(address).is_some(),
            };
            if twice {
                return Err("--server: a server has one address of a family at most; run an agent for each".into());
            }
        }
        for node in &self.to {
            // Names are looked up later; this only wants a port.
            let port = node.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if port.and_then(|port| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
                return Err(format!(
                    "--to {node}: write it HOST:PORT, such as ns1.example.net:8054 or [2001:db8::1]:8054"
                ));
            }
        }
        let viewers = match (self.rtt_from, self.rtt_port, self.rtt_region) {
            (Some(RttFrom::Ss), Some(port), Some(region)) => {
                let client =
                    |url: &String| Client::new(url, &self.trust).map_err(|why| format!("--rtt-to {url}: {why}"));
                let to = self.rtt_to.iter().map(client).collect::<Result<_, _>>()?;
                Some(Viewers { port, region, zone: self.rtt_zone, to })
            }
            _ => None,
        };
        let command = |words: Vec<String>| (!words.is_empty()).then_some(Source::Command(words));
        let url = |url: Option<Url>, field| url.map(|url| Source::Url { url, field });
        Ok(Settings {
            to: self.to,
            server: Addresses::new(v4, v6).ok_or("--server is missing")?,
            key_file: self.key_file.ok_or("--key-file is missing")?,
            every: self.every,
            interface: self.interface,
            sessions: command(self.sessions_command).or_else(|| url(self.sessions_url, self.sessions_field)),
            viewers,
            ready: command(self.ready_command).or_else(|| url(self.health_url, None)),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: AgentArgs,
    }

    fn settings(line: &str) -> Result<Settings, String> {
        let words = ["agent"].into_iter().chain(line.split(' '));
        Line::try_parse_from(words).map_err(|error| error.to_string())?.args.settings()
    }

    const LEAST: &str = "--to ns1.example:8054 --server 192.0.2.1 --key-file k";

    #[test]
    fn an_agent_needs_a_node_a_server_and_a_key() {
        let least = settings(LEAST).unwrap();
        assert_eq!((least.to, least.every), (vec!["ns1.example:8054".to_owned()], Duration::from_millis(100)));
        assert!(least.sessions.is_none() && least.ready.is_none());
        for missing in ["--to a:1 --server ::1", "--to a:1 --key-file k", "--server ::1 --key-file k"] {
            assert!(settings(missing).unwrap_err().contains("required"), "{missing}");
        }
    }

    #[test]
    fn commands_end_at_a_semicolon_or_with_the_line() {
        let line = format!("--sessions-command count -s --all ; {LEAST} --ready-command test -e /run/ready");
        let all = settings(&line).unwrap();
        let Some(Source::Command(sessions)) = all.sessions else { panic!("no command") };
        let Some(Source::Command(ready)) = all.ready else { panic!("no command") };
        assert_eq!((sessions.join(" "), ready.join(" ")), ("count -s --all".into(), "test -e /run/ready".into()));
    }

    #[test]
    fn round_trip_times_are_told_where_they_are_asked_for() {
        let more =
            "--rtt-from ss --rtt-port 443 --rtt-region eu --rtt-to http://127.0.0.1:8053 --rtt-to http://[::1]:8053";
        let viewers = settings(&format!("{LEAST} {more}")).unwrap().viewers.unwrap();
        assert_eq!((viewers.port.get(), viewers.region.as_str(), viewers.to.len()), (443, "eu", 2));
        assert!(settings(LEAST).unwrap().viewers.is_none());
    }

    #[test]
    fn a_server_has_one_address_of_each_family() {
        let both = settings(&format!("{LEAST} --server 2001:db8::1")).unwrap();
        assert_eq!(both.server.iter().count(), 2);
        assert!(settings(&format!("{LEAST} --server 192.0.2.2")).unwrap_err().contains("one address of a family"));
    }

    #[test]
    fn wrong_usage_is_refused_with_its_reason() {
        for (more, why) in [
            ("--every 10ms", "outside 20ms to 60s"),
            ("--every 100", "durations are written"),
            ("--to ns1.example", "write it HOST:PORT"),
            ("--to :8054", "write it HOST:PORT"),
            ("--to a:0", "write it HOST:PORT"),
            ("--sessions-url https://a/", "http://HOST"),
            ("--sessions-field /a", "required"),
            ("--sessions-url http://a/ --sessions-field a", "begins with /"),
            ("--sessions-url http://a/ --sessions-command x", "cannot be used with"),
            ("--health-url http://a/ --ready-command x", "cannot be used with"),
            ("--rtt-from ss", "required"),
            ("--rtt-port 443", "required"),
            ("--rtt-from netstat --rtt-port 443 --rtt-region eu --rtt-to http://127.0.0.1:8053", "invalid value"),
            ("--rtt-from ss --rtt-port 0 --rtt-region eu --rtt-to http://127.0.0.1:8053", "invalid value"),
            ("--rtt-from ss --rtt-port 443 --rtt-region eu --rtt-to ftp://a", "must have the form http://HOST:PORT"),
            ("--new-key k", "cannot be used with"),
        ] {
            let said = settings(&format!("{LEAST} {more}")).err().unwrap_or_default();
            assert!(said.contains(why), "{more}: {said}");
        }
    }

    #[test]
    fn a_new_key_is_a_line_for_the_file_of_keys() {
        let line = |name: &str| {
            let mut out = Vec::new();
            let args = Line::try_parse_from(["agent", "--new-key", name]).unwrap().args;
            (run(args, &mut out).unwrap(), String::from_utf8(out).unwrap())
        };
        let (code, text) = line("edge-1");
        assert_eq!(code, 0);
        assert_eq!(&*keys::Keys::parse(&text).unwrap().first().name, "edge-1");
        assert_eq!(line("edge 1"), (2, String::new()));
    }
}
