//! Real DNS clients against the sockets: dig, kdig, Unbound and dnsperf, over UDP and TCP.

mod ports;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use meridian::config::settings::TcpLimits;
use meridian::config::{Shared, load_zones};
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::server::counters::{Ledger, Totals};
use meridian::server::{self, Running};
use meridian::snapshot::{Served, Snapshot};

/// `big` fits no UDP answer.
const ZONE: &str = r#"
zone = "stream.example"
ns = ["ns.elsewhere.example"]
[stream.live]
answers = 2
[region.eu]
at = [51.5, -0.1]
a = ["192.0.2.11", "192.0.2.12"]
aaaa = ["2001:db8::11", "2001:db8::12"]
[records]
www = { A = "192.0.2.80" }
"#;

fn zone_file() -> String {
    let texts: Vec<String> = (0..40).map(|i| format!("\"{i:02} {}\"", "x".repeat(200))).collect();
    format!("{ZONE}big = {{ TXT = [{}] }}\n", texts.join(", "))
}

struct Server {
    address: SocketAddr,
    ledger: Ledger,
    shutdown: CancellationToken,
    running: Running,
    runtime: Runtime,
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("stream.example.toml");
        fs::write(&file, zone_file()).unwrap();
        let loaded = load_zones(&[file], &Shared::default());
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
        let snapshot = Snapshot::compile(zones, &Arc::new(Database::empty()), |_| Verdict::Up, None);
        let ledger = Ledger::default();
        ledger.adopt(snapshot.counters());
        let sockets = server::bind(&[ports::free_address()], 2).unwrap();
        let (address, shutdown) = (sockets.addresses()[0], CancellationToken::new());
        let runtime = Runtime::new().unwrap();
        let _entered = runtime.enter();
        let published = Arc::new(ArcSwap::from_pointee(snapshot));
        let running = sockets.serve(published, TcpLimits::default(), shutdown.clone()).unwrap();
        drop(_entered);
        Server { address, ledger, shutdown, running, runtime }
    }

    fn connections_accepted(&self) -> u64 {
        self.running.connections().usage().accepted
    }

    fn stop(self) -> Totals {
        self.shutdown.cancel();
        self.runtime.block_on(self.running.stopped());
        self.ledger.totals()
    }
}

/// What a command prints.
fn output(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{command}, installed by `make tools`: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn ask(command: &str, port: u16, arguments: &[&str]) -> String {
    let port = port.to_string();
    let once = if command == "kdig" { "+retry=0" } else { "+tries=1" };
    output(command, &[&["@127.0.0.1", "-p", &port, "+time=5", once], arguments].concat())
}

fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Answers by transport, zone and RCODE.
fn counted(totals: &Totals) -> Vec<String> {
    let queries = totals.queries.iter();
    queries.map(|(q, n)| format!("{} {} {} {n}", q.transport, q.zone.as_deref().unwrap_or("-"), q.rcode)).collect()
}

#[test]
fn dig_is_answered_over_udp_and_tcp() {
    let server = Server::start();
    let port = server.address.port();
    for transport in ["+notcp", "+tcp"] {
        let live = ask("dig", port, &["live.stream.example", "A", "+short", transport]);
        assert_eq!(lines(&live), ["192.0.2.11", "192.0.2.12"], "{transport}");
        let missing = ask("dig", port, &["no.stream.example", "A", transport]);
        assert!(missing.contains("status: NXDOMAIN") && missing.contains("flags: qr aa"), "{missing}");
        let foreign = ask("dig", port, &["elsewhere.example", "A", transport]);
        assert!(foreign.contains("status: REFUSED"), "{foreign}");
    }
    let totals = server.stop();
    assert_eq!(
        counted(&totals),
        [
            "tcp - REFUSED 1",
            "tcp stream.example NOERROR 1",
            "tcp stream.example NXDOMAIN 1",
            "udp - REFUSED 1",
            "udp stream.example NOERROR 1",
            "udp stream.example NXDOMAIN 1",
        ]
    );
    assert_eq!(totals.answers[&("stream.example".into(), "eu".into())], 2);
}

#[test]
fn what_is_too_long_for_udp_is_truncated_and_comes_whole_over_tcp() {
    let server = Server::start();
    let port = server.address.port();
    let cut = ask("dig", port, &["big.stream.example", "TXT", "+ignore"]);
    assert!(cut.contains("flags: qr aa tc") && cut.contains("EDNS: version: 0"), "{cut}");
    let whole = ask("dig", port, &["big.stream.example", "TXT", "+short"]);
    assert_eq!(whole.lines().count(), 40, "dig asked again over TCP");
    assert_eq!(counted(&server.stop()), ["tcp stream.example NOERROR 1", "udp stream.example NOERROR 2"]);
}

#[test]
fn kdig_asks_many_questions_over_one_connection() {
    let server = Server::start();
    let mut arguments = vec!["+tcp", "+keepopen", "+short"];
    for _ in 0..50 {
        arguments.extend(["-q", "www.stream.example", "-t", "A"]);
    }
    assert_eq!(ask("kdig", server.address.port(), &arguments), "192.0.2.80\n".repeat(50));
    assert_eq!(server.connections_accepted(), 1);
    server.stop();
}

/// Unbound, for names below stream.example only.
struct Unbound(Child, #[expect(dead_code, reason = "removed when dropped")] TempDir);

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn unbound(server: SocketAddr, upstream: &str) -> (Unbound, u16) {
    // Free when asked for; nothing else here takes ports in between.
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("unbound.conf");
    let text = format!(
        "server:\n interface: 127.0.0.1@{port}\n do-daemonize: no\n chroot: \"\"\n username: \"\"\n directory: {0:?}\n \
         pidfile: \"\"\n use-syslog: no\n logfile: \"\"\n do-not-query-localhost: no\n module-config: iterator\n \
         {upstream}\nremote-control:\n control-enable: no\n\
         stub-zone:\n name: stream.example\n stub-addr: 127.0.0.1@{1}\n",
        dir.path(),
        server.port()
    );
    fs::write(&config, text).unwrap();
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("unbound");
    command.env("PATH", path).arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    let child = Unbound(command.spawn().expect("unbound is installed (`make tools`)"), dir);
    for _ in 0..100 {
        // Connected, so that a closed port is told.
        let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
        probe.connect(("127.0.0.1", port)).unwrap();
        probe.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        // localhost A, which it knows by itself.
        probe.send(b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01").unwrap();
        if probe.recv(&mut [0; 512]).is_ok() {
            return (child, port);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("unbound does not answer");
}

#[test]
fn a_resolver_gets_steered_and_static_answers_by_udp_and_by_tcp() {
    for (upstream, transport) in [("tcp-upstream: no", "udp"), ("tcp-upstream: yes", "tcp")] {
        let server = Server::start();
        let (_unbound, port) = unbound(server.address, upstream);
        let live = ask("dig", port, &["live.stream.example", "AAAA", "+short"]);
        assert_eq!(lines(&live), ["2001:db8::11", "2001:db8::12"], "{upstream}");
        assert_eq!(ask("dig", port, &["www.stream.example", "A", "+short"]), "192.0.2.80\n", "{upstream}");
        let missing = ask("dig", port, &["no.stream.example", "A"]);
        assert!(missing.contains("status: NXDOMAIN"), "{upstream}: {missing}");
        assert_eq!(ask("dig", port, &["big.stream.example", "TXT", "+short", "+tcp"]).lines().count(), 40);
        let totals = server.stop();
        assert!(totals.queries.keys().any(|queries| queries.transport == transport), "{totals:?}");
    }
}

#[test]
fn dnsperf_loses_no_query_and_the_counters_agree_with_it() {
    let server = Server::start();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "live.stream.example A\nwww.stream.example A\nno.stream.example A\nbig.stream.example MX").unwrap();
    let (port, path) = (server.address.port().to_string(), file.path().to_str().unwrap().to_owned());
    let mut completed = Vec::new();
    for (mode, runs) in [("udp", "2000"), ("tcp", "1000")] {
        // 20 queries wait at most, over four connections, so TCP ones are pipelined.
        let text = output(
            "dnsperf",
            &["-m", mode, "-s", "127.0.0.1", "-p", &port, "-d", &path, "-n", runs, "-c", "4", "-q", "20"],
        );
        let number = |label: &str| -> u64 {
            let line = text.lines().find(|line| line.contains(label)).unwrap_or_else(|| panic!("{label}: {text}"));
            line.split_whitespace().nth(2).unwrap().parse().unwrap()
        };
        assert_eq!(number("Queries lost:"), 0, "{text}");
        assert_eq!(number("Queries completed:"), 4 * runs.parse::<u64>().unwrap(), "{text}");
        completed.push(number("Queries completed:"));
    }
    let totals = server.stop();
    let count = |transport| -> u64 {
        let queries = totals.queries.iter().filter(|(queries, _)| queries.transport == transport);
        queries.map(|(_, n)| n).sum()
    };
    assert_eq!(completed, [count("udp"), count("tcp")]);
    assert_eq!(totals.answers[&("stream.example".into(), "eu".into())], 3000);
}

/// The answer's RCODE to bytes that are no query.
fn rcode_of(answer: &[u8]) -> u8 {
    assert!(answer.len() >= 12 && answer[2] & 0x80 != 0, "a response: {answer:?}");
    answer[3] & 0x0F
}

#[test]
fn malformed_messages_get_formerr_over_udp_and_tcp_and_harm_nobody() {
    let server = Server::start();
    let header = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00";
    let malformed: Vec<Vec<u8>> = vec![
        header.to_vec(),
        [&header[..], b"\x05live"].concat(),
        [&header[..], b"\xC0\x0C\x00\x01\x00\x01"].concat(),
        [&header[..], &[0x3F; 400]].concat(),
        [&header[..], &[0xFF; 1300]].concat(),
        // Longer than a UDP query is read.
        [&header[..], &[0x00; 9000]].concat(),
    ];
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(server.address).unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut tcp = TcpStream::connect(server.address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for message in &malformed {
        let mut answer = vec![0; 65_535];
        udp.send(message).unwrap();
        let n = udp.recv(&mut answer).unwrap();
        assert_eq!((rcode_of(&answer[..n]), &answer[..2]), (1, &header[..2]), "UDP: {message:?}");
        if message.len() > 2000 {
            continue;
        }
        tcp.write_all(&[&(message.len() as u16).to_be_bytes(), &message[..]].concat()).unwrap();
        tcp.read_exact(&mut answer[..2]).unwrap();
        let n = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
        tcp.read_exact(&mut answer[..n]).unwrap();
        assert_eq!((rcode_of(&answer[..n]), &answer[..2]), (1, &header[..2]), "TCP: {message:?}");
    }
    let www = ask("dig", server.address.port(), &["www.stream.example", "+short"]);
    assert_eq!(www, "192.0.2.80\n");
    server.stop();
}
