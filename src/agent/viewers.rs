//! Round-trip times of a server's own viewers, as its kernel has measured them (TCP_INFO), told to the nodes.
//!
//! Read with `ss` of iproute2, which asks the kernel over netlink (sock_diag): the smoothed round trip of every established
//! connection of the stream's port. Of each /24 or /48 the median is sent, every ten seconds; never an address.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::gather::Complaint;
use crate::cli::ask::Client;
use crate::health::group::Group;
use crate::steering::learn::feed::RTT_MS;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// `ss` takes some 10 ms for a thousand connections.
const PATIENCE: Duration = Duration::from_secs(5);
const SEND_PATIENCE: Duration = Duration::from_secs(5);
/// Some 100,000 connections; what is beyond is not read.
const MAX_OUTPUT: u64 = 32 << 20;
/// Prefixes told at one time; those with most connections first. What a node takes of one reporter in ten seconds.
const MAX_PREFIXES: usize = 4000;
/// Connections of one prefix whose values are kept: the median of more is no better.
const MAX_VALUES: usize = 64;

/// What is to be told, and to whom.
#[derive(Clone)]
pub struct Settings {
    /// Of the stream, as the server has it.
    pub port: NonZeroU16,
    /// The server's region, as the zones name it.
    pub region: String,
    pub zone: Option<String>,
    /// Admin addresses of nodes.
    pub to: Vec<Client>,
}

/// Without the nodes, which hold a token.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { port, region, zone, to } = self;
        let mut debug = f.debug_struct("Settings");
        debug.field("port", port).field("region", region).field("zone", zone).field("to", &to.len()).finish()
    }
}

/// Tells for ever.
pub async fn run(settings: Settings) {
    let settings = Arc::new(settings);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut unread, mut unsent) = (Complaint::default(), Complaint::default());
    loop {
        ticks.tick().await;
        let medians = match timeout(PATIENCE, connections(settings.port)).await {
            Ok(Ok(text)) => medians(&text),
            Ok(Err(why)) => {
                unread.say("round-trip times are not known", &why);
                continue;
            }
            Err(_) => {
                unread.say("round-trip times are not known", &format!("ss says nothing for {PATIENCE:?}"));
                continue;
            }
        };
        if medians.is_empty() {
            continue;
        }
        let lines = lines(&medians, &settings.region, settings.zone.as_deref());
        for node in &settings.to {
            match send(node, lines.clone()).await {
                Ok(taken) => debug!(prefixes = medians.len(), taken, "round-trip times told"),
                Err(why) => unsent.say("round-trip times are not taken", &why),
            }
        }
    }
}

async fn send(node: &Client, lines: String) -> Result<u64, String> {
    #[derive(Deserialize)]
    struct Outcome {
        taken: u64,
    }
    let reply = node.post_lines("/v1/rtt", lines, SEND_PATIENCE).await.map_err(|error| error.to_string())?;
    // Some are refused all the time, as one prefix counts only so often.
    reply.read().map(|outcome: Outcome| outcome.taken).map_err(|error| error.to_string())
}

/// What `ss` says of the established connections of a local port.
async fn connections(port: NonZeroU16) -> Result<String, String> {
    let mut command = Command::new("ss");
    // One line a connection, numbers only, no header, with TCP_INFO.
    command.args(["-tinHO", "state", "established", "sport", "=", &format!(":{port}")]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let failed = |error: std::io::Error| format!("ss (of iproute2) cannot be run: {error}");
    let mut group = Group::spawn(&mut command).map_err(failed)?;
    let (stdout, _) = group.outputs();
    let mut output = Vec::new();
    let reading = async {
        if let Some(stdout) = stdout {
            // An error is as good as the end. More than this closes the pipe, which ends it.
            let _ = stdout.take(MAX_OUTPUT).read_to_end(&mut output).await;
        }
    };
    let status = group.wait(reading).await.map_err(failed)?;
    let cut = output.len() as u64 >= MAX_OUTPUT;
    if !status.success() && !cut {
        return Err(format!("ss: {status}"));
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// A prefix's median, ms, and its connections.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Median {
    prefix: IpNet,
    ms: f64,
    connections: usize,
}

fn medians(text: &str) -> Vec<Median> {
    let mut by_prefix: BTreeMap<IpNet, (Vec<f64>, usize)> = BTreeMap::new();
    for (address, ms) in text.lines().filter_map(connection) {
        let Some(prefix) = block(address) else { continue };
        let (values, count) = by_prefix.entry(prefix).or_default();
        *count += 1;
        if values.len() < MAX_VALUES {
            values.push(ms);
        }
    }
    let mut medians: Vec<Median> = by_prefix
        .into_iter()
        .map(|(prefix, (mut values, connections))| {
            let middle = values.len() / 2;
            let (_, &mut ms, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
            Median { prefix, ms, connections }
        })
        .collect();
    // Stable, so that the same ones are told when there are too many.
    medians.sort_by_key(|median| std::cmp::Reverse(median.connections));
    medians.truncate(MAX_PREFIXES);
    medians
}

/// The peer of one connection and its smoothed round trip, ms. `None`: not such a line, or never measured.
fn connection(line: &str) -> Option<(IpAddr, f64)> {
    let mut words = line.split_ascii_whitespace();
    // Recv-Q, Send-Q, local address; with a state there is one word more.
    let peer = words.by_ref().filter(|word| word.contains(':')).nth(1)?;
    let (address, port) = peer.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    // A scope of a link-local address is of no use to anybody else.
    let address: IpAddr = address.split('%').next()?.parse().ok()?;
    // `rtt:42.5/3.2` is the mean and its deviation.
    let rtt = words.find_map(|word| word.strip_prefix("rtt:"))?;
    let ms: f64 = rtt.split('/').next()?.parse().ok()?;
    // A shorter way than a node takes is as good as the shortest.
    let ms = if (0.0..*RTT_MS.start()).contains(&ms) { *RTT_MS.start() } else { ms };
    RTT_MS.contains(&ms).then_some((address.to_canonical(), ms))
}

fn block(address: IpAddr) -> Option<IpNet> {
    IpNet::new(address, if address.is_ipv4() { 24 } else { 48 }).ok().map(|net| net.trunc())
}

fn lines(medians: &[Median], region: &str, zone: Option<&str>) -> String {
    let mut text = String::new();
    for Median { prefix, ms, .. } in medians {
        let mut line = json!({ "prefix": prefix, "region": region, "rtt_ms": ms });
        if let Some(zone) = zone {
            line["zone"] = zone.into();
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;
    use crate::admin::rtt::Line;

    #[test]
    fn a_line_of_ss_gives_the_peer_and_the_smoothed_round_trip() {
        let v4 = "0      0      192.0.2.1:443      198.51.100.7:51044 cubic wscale:7,7 rto:204 rtt:42.5/3.2 ato:40 mss:1448 \
                  rcv_rtt:30 minrtt:40.1";
        assert_eq!(connection(v4), Some(("198.51.100.7".parse().unwrap(), 42.5)));
        let v6 = "ESTAB 0 0 [2001:db8::1]:443 [2001:db8:5::9]:5104 cubic rtt:0.031/0.01";
        assert_eq!(connection(v6), Some(("2001:db8:5::9".parse().unwrap(), 1.0)), "loopback counts as the shortest");
        let mapped = "0 0 [::ffff:192.0.2.1]:443 [::ffff:198.51.100.7]:5104 rtt:7/1";
        assert_eq!(connection(mapped), Some(("198.51.100.7".parse().unwrap(), 7.0)));
        let scoped = "0 0 [fe80::1]%eth0:443 [fe80::2]%eth0:5104 rtt:7/1";
        assert_eq!(connection(scoped), None, "a link-local peer has no place");
        for bad in [
            "",
            "0 0 a:1",
            "0 0 1.1.1.1:1 2.2.2.2:2",
            "0 0 1.1.1.1:1 2.2.2.2:2 rtt:x/1",
            "0 0 1.1.1.1:1 2.2.2.2:2 rtt:9999/1",
        ] {
            assert_eq!(connection(bad), None, "{bad}");
        }
    }

    #[test]
    fn medians_are_of_24_or_48_bits_and_no_address_is_told() {
        let text: String = [(1, 10.0), (2, 50.0), (3, 30.0)]
            .map(|(host, rtt)| format!("0 0 192.0.2.1:443 198.51.100.{host}:5 cubic rtt:{rtt}/1\n"))
            .concat();
        let found = medians(&text);
        assert_eq!((found.len(), found[0].ms, found[0].connections), (1, 30.0, 3));
        let lines = lines(&found, "eu-west", Some("stream.example"));
        let line = Line::read(lines.trim_end().as_bytes()).unwrap();
        assert_eq!((line.prefix.to_string().as_str(), line.rtt_ms), ("198.51.100.0/24", 30.0));
        assert_eq!((line.region.as_str(), line.zone.as_deref()), ("eu-west", Some("stream.example")));
    }

    /// A real connection, as the kernel sees it. Without `ss` there is nothing to read, and the agent says so.
    #[tokio::test]
    async fn the_kernel_tells_the_round_trip_of_a_real_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = NonZeroU16::new(listener.local_addr().unwrap().port()).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        // The kernel measures what was sent and acknowledged.
        server.write_all(b"live").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        match connections(port).await {
            Ok(text) => {
                let found = medians(&text);
                assert_eq!(found.len(), 1, "{text:?}");
                assert_eq!(found[0].prefix.to_string(), "127.0.0.0/24");
                assert!((1.0..1000.0).contains(&found[0].ms), "{text:?}");
            }
            Err(why) => assert!(why.starts_with("ss (of iproute2) cannot be run"), "{why}"),
        }
    }

    proptest! {
        #[test]
        fn any_output_is_read_within_the_bounds(text in "([0-9a-f.:% \\[\\]/rt\n]|rtt:){0,200}") {
            prop_assert!(medians(&text).iter().all(|median| RTT_MS.contains(&median.ms)));
        }
    }
}
