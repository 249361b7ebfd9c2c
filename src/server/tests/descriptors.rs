//! A server with few file descriptors, and one without any left, in processes of their own because the limit is the
//! process's.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// Set for the child, which is this test binary again.
const CHILD: &str = "MERIDIAN_TEST_FEW_DESCRIPTORS";
const TESTS: &str = "server::tests::descriptors";
const DESCRIPTORS: usize = 96;

/// Tells its address, and serves until its standard input ends. Leaves as many descriptors unused as `CHILD` says.
fn child(unused: &str) {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let server = Server::start("127.0.0.1:0", 1, TcpLimits { read: Duration::from_secs(1), ..limits() });
    let mut others: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    others.truncate(others.len().saturating_sub(unused.parse().unwrap()));
    println!("\nat {}", server.address);
    let _ = std::io::stdin().read(&mut [0]);
    runtime.block_on(server.stop());
}

fn start(test: &str, unused: usize) -> (Child, SocketAddr) {
    let exe = std::env::current_exe().unwrap();
    let limited = format!("ulimit -n {DESCRIPTORS} && exec \"$@\"");
    let mut child = Command::new("sh")
        .args(["-c", &limited, "sh"])
        .arg(exe)
        .args(["--exact", &format!("{TESTS}::{test}"), "--nocapture"])
        .env(CHILD, unused.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let lines = output.by_ref().lines().map(Result::unwrap);
    let address = lines.filter_map(|line| Some(line.strip_prefix("at ")?.parse().unwrap())).next();
    let address = address.expect("the child tells its address");
    // Kept open, since the child's test harness has more to say.
    child.stdout = Some(output.into_inner());
    (child, address)
}

/// CPU time of a process, user and system. A clock tick is 10 ms wherever Linux shows it.
fn cpu(process: &Child) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(10 * ticks)
}

fn tcp_answers(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let query = query(7, b"q");
    stream.write_all(&[&[0, query.len() as u8], &query[..]].concat()).unwrap();
    let mut bytes = vec![0; 2 + query.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[2..], answer(&query));
}

/// Ends the child and gives its log.
fn stop(mut child: Child) -> String {
    drop(child.stdin.take());
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(child.wait().unwrap().success(), "{log}");
    log
}

#[test]
fn connections_leave_descriptors_for_others() {
    if let Ok(unused) = std::env::var(CHILD) {
        return child(&unused);
    }
    let (child, address) = start("connections_leave_descriptors_for_others", DESCRIPTORS);
    let flood: Vec<TcpStream> = (0..4 * DESCRIPTORS).map(|_| TcpStream::connect(address).unwrap()).collect();
    tcp_answers(address);
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count();
    assert!((DESCRIPTORS / 2..DESCRIPTORS * 3 / 4).contains(&open), "{open} of {DESCRIPTORS}");
    drop(flood);
    let log = stop(child);
    assert!(log.contains("raise the limit of open files") && log.contains("connections=48"), "{log}");
    assert!(!log.contains("cannot accept"), "{log}");
}

#[test]
fn a_server_without_descriptors_closes_idle_connections_and_serves_on() {
    if let Ok(unused) = std::env::var(CHILD) {
        return child(&unused);
    }
    // Fewer than the connections that are allowed: something else took the rest.
    let unused = 20;
    let (child, address) = start("a_server_without_descriptors_closes_idle_connections_and_serves_on", unused);

    let idle: Vec<TcpStream> = (0..10 * unused).map(|_| TcpStream::connect(address).unwrap()).collect();
    tcp_answers(address);

    // Connections in the middle of a message are not closed to make room, so now it has to wait for their read time.
    let mut busy = Vec::new();
    for _ in 0..2 * unused {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&[0, 20, 1]).unwrap();
        busy.push(stream);
    }
    std::thread::sleep(Duration::from_millis(300));
    let before = cpu(&child);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    udp.send_to(&query(1, b"q"), address).unwrap();
    udp.recv(&mut [0; 512]).expect("UDP needs no new descriptor");
    let begin = Instant::now();
    tcp_answers(address);
    assert!(begin.elapsed() > Duration::from_millis(300), "descriptors were to be used up: {:?}", begin.elapsed());
    let spent = cpu(&child) - before;
    assert!(spent < Duration::from_millis(300), "it spins: {spent:?}");

    drop((idle, busy));
    let log = stop(child);
    assert_eq!(log.matches("cannot accept TCP connections").count(), 1, "told once, not at each failure:\n{log}");
}
