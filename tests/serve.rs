//! The whole server: start, reload, faults, end.

mod node;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use maxminddb_writer::paths::IpAddrWithMask;
use meridian::demo::origin::Origin;
use node::{Files, LONDON, NEW_YORK, Node, ZONE, free_address, http, touch_back, wait_for};
use serde_json::{Value, json};

const DONE: &str = r#"meridian_reloads_total{outcome="done"}"#;
const REFUSED: &str = r#"meridian_reloads_total{outcome="refused"}"#;

fn with_london_at(address: &str) -> String {
    ZONE.replace("192.0.2.21", address)
}

#[test]
fn a_viewer_gets_the_nearest_region() {
    let files = Files::new(ZONE);
    let node = files.serve();
    assert_eq!(node.dig("live.stream.example", LONDON), "192.0.2.21");
    assert_eq!(node.dig("LIVE.stream.example", NEW_YORK), "192.0.2.11");
    let tcp = node.dig_all("live.stream.example", &["+tcp", "+short", "+subnet=81.2.69.0/24"]);
    assert_eq!(tcp, "192.0.2.21\n");
}

#[test]
fn a_saved_zone_is_served_whether_written_in_place_or_renamed_over() {
    let files = Files::new(ZONE);
    let node = files.serve();
    files.put("zones/stream.example.toml", with_london_at("192.0.2.22"));
    node.wait_for_answer(LONDON, "192.0.2.22");
    files.put_over("zones/stream.example.toml", with_london_at("192.0.2.23"));
    node.wait_for_answer(LONDON, "192.0.2.23");
    files.put("zones/other.toml", "zone = \"other.example\"\nns = [\"ns1.example.net\", \"ns2.example.net\"]\n");
    wait_for("the new zone is served", || {
        node.dig_all("other.example", &["SOA", "+short"]).starts_with("ns1.example.net.").then_some(())
    });
}

#[test]
fn a_private_ca_that_was_broken_and_is_mended_is_noticed() {
    let good = rcgen::generate_simple_self_signed(["stream.example".to_owned()]).unwrap().cert.pem();
    let check = |zone: String| {
        // Nobody listens there.
        let probed = |address: &str| format!("server = [{{ a = \"{address}\", probe = \"127.0.0.1:9\" }}]");
        let zone = ["192.0.2.11", "192.0.2.21", "192.0.2.22"]
            .iter()
            .fold(zone, |zone, address| zone.replace(&format!("a    = [\"{address}\"]"), &probed(address)));
        format!("{zone}\n[check]\nhttps = \"/\"\nhost = \"stream.example\"\nca = \"../private/ca.pem\"\n")
    };
    let files = Files::new(&check(ZONE.to_owned()));
    fs::create_dir(files.path("private")).unwrap();
    files.put("private/ca.pem", &good);
    let node = files.serve();
    files.put("private/ca.pem", "-----BEGIN CERTIFICATE-----\nhalf");
    node.wait_for_count(REFUSED, 1.0);
    files.put("private/ca.pem", &good);
    node.wait_for_count(DONE, 1.0);
    // The same where the file that names it cannot be read at all meanwhile.
    files.put("zones/stream.example.toml", "zone =");
    node.wait_for_count(REFUSED, 2.0);
    files.put("private/ca.pem", format!("{good}\n"));
    node.wait_for_count(REFUSED, 3.0);
    files.put("zones/stream.example.toml", check(with_london_at("192.0.2.22")));
    node.wait_for_count(DONE, 2.0);
}

#[test]
fn a_warning_is_one_line_of_the_log_with_its_place_as_a_field() {
    let files = Files::new(&ZONE.replace("a    = [\"192.0.2.11\"]", "aaaa = [\"2001:db8::11\"]"));
    let (dns, admin) = (free_address(), free_address());
    let arguments = ["serve", "--listen", &dns.to_string(), "--admin", &admin.to_string()];
    let child = files.command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut node = Node::unheard(child, dns, admin);
    node.wait_for_answer(LONDON, "192.0.2.21");
    node.signal("TERM");
    let log = std::io::read_to_string(node.child.stderr.take().unwrap()).unwrap();
    let (lines, warnings): (Vec<&str>, Vec<&str>) =
        (log.lines().collect(), log.lines().filter(|line| line.contains(" WARN ")).collect());
    assert!(lines.iter().all(|line| line.contains("Z  INFO ") || line.contains("Z  WARN ")), "{log}");
    assert!(warnings.len() == 2 && !log.contains("warning:"), "{log}");
    assert!(warnings.iter().all(|line| line.contains(" at=zones/stream.example.toml:") && line.contains(" help=")));
}

#[test]
fn sighup_reloads_without_any_change() {
    let files = Files::new(ZONE);
    let node = files.serve();
    assert_eq!(node.metric(DONE), Some(0.0));
    node.signal("HUP");
    node.wait_for_count(DONE, 1.0);
    assert_eq!(node.dig("live.stream.example", LONDON), "192.0.2.21");
}

#[test]
fn a_broken_file_is_refused_with_its_place_and_the_old_answers_serve_on() {
    let files = Files::new(ZONE);
    let node = files.serve();
    files.put(
        "zones/stream.example.toml",
        with_london_at("192.0.2.22").replace("near = \"London\"", "nere = \"London\""),
    );
    node.wait_for_count(REFUSED, 1.0);
    node.wait_for_log("reload refused; what was loaded before serves on");
    let fault = node.wait_for_log("unknown key `nere` in [region.eu]");
    assert_eq!((&fault["level"], &fault["at"]), (&json!("ERROR"), &json!("zones/stream.example.toml:10:1")));
    assert!(fault["help"].is_string(), "{fault}");
    assert_eq!(node.dig("live.stream.example", LONDON), "192.0.2.21");
    // One bad file holds back the good ones too.
    files.put("zones/other.toml", "zone = \"other.example\"\nns = [\"ns1.example.net\", \"ns2.example.net\"]\n");
    node.wait_for_count(REFUSED, 2.0);
    assert!(node.dig_all("other.example", &["SOA"]).contains("status: REFUSED"));
    files.put("zones/stream.example.toml", with_london_at("192.0.2.22"));
    node.wait_for_answer(LONDON, "192.0.2.22");
    assert!(node.dig_all("other.example", &["SOA"]).contains("status: NOERROR"));
}

#[test]
fn a_zone_directory_emptied_or_gone_is_refused_until_it_is_back() {
    let files = Files::new(ZONE);
    let node = files.serve();
    fs::remove_file(files.path("zones/stream.example.toml")).unwrap();
    node.wait_for_count(REFUSED, 1.0);
    assert_eq!(node.dig("live.stream.example", LONDON), "192.0.2.21");
    fs::remove_dir(files.path("zones")).unwrap();
    node.wait_for_count(REFUSED, 2.0);
    assert_eq!(node.dig("live.stream.example", LONDON), "192.0.2.21");
    fs::create_dir(files.path("zones")).unwrap();
    files.put("zones/stream.example.toml", with_london_at("192.0.2.22"));
    node.wait_for_answer(LONDON, "192.0.2.22");
}

/// A database that places one network.
fn database(network: &str, latitude: f64, longitude: f64) -> Vec<u8> {
    let mut database = maxminddb_writer::Database::default();
    database.metadata.binary_format_major_version = 2;
    database.metadata.database_type = "Test".to_owned();
    database.metadata.build_epoch = 1_780_000_000;
    database.metadata.ip_version = maxminddb_writer::metadata::IpVersion::V4;
    let record = json!({ "location": { "latitude": latitude, "longitude": longitude } });
    let data = database.insert_value(record).unwrap();
    let (address, length) = network.split_once('/').unwrap();
    let address: IpAddr = address.parse().unwrap();
    database.insert_node(IpAddrWithMask::new(address, length.parse().unwrap()), data);
    database.write_to(Vec::new()).unwrap()
}

#[test]
fn a_replaced_database_is_taken_while_serving_and_a_half_written_one_is_not() {
    let files = Files::new(ZONE);
    fs::create_dir(files.path("geoip")).unwrap();
    files.put("geoip/own.mmdb", database("203.0.113.0/24", 39.0, -77.5));
    let node = files.serve();
    assert_eq!(node.dig("live.stream.example", "203.0.113.0/24"), "192.0.2.11");
    let moved = database("203.0.113.0/24", 51.5, -0.1);
    files.put("geoip/own.mmdb", &moved[..moved.len() / 2]);
    node.wait_for_count(REFUSED, 1.0);
    assert_eq!(node.dig("live.stream.example", "203.0.113.0/24"), "192.0.2.11");
    files.put("geoip/own.mmdb", &moved);
    node.wait_for_answer("203.0.113.0/24", "192.0.2.21");
    files.put("geoip/overrides.toml", "\"203.0.113.0/24\" = { near = \"Ashburn\" }\n");
    node.wait_for_answer("203.0.113.0/24", "192.0.2.11");
}

#[test]
fn a_port_in_use_ends_the_start_and_is_named() {
    let files = Files::new(ZONE);
    let (dns, admin) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (dns, admin) = (dns.local_addr().map(|a| (a, dns)).unwrap(), admin.local_addr().map(|a| (a, admin)).unwrap());
    for (listen, admin, named) in
        [(dns.0.to_string(), "127.0.0.1:0".to_owned(), dns.0), ("127.0.0.1:0".to_owned(), admin.0.to_string(), admin.0)]
    {
        let output = files.command(&["serve", "--listen", &listen, "--admin", &admin]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("cannot listen on {named}")) && told.contains("help: "), "{told}");
    }
    // Known before any other file is looked at.
    files.put("zones/stream.example.toml", "zone =");
    let output = files.command(&["serve", "--listen", &dns.0.to_string()]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with(&format!("meridian: cannot listen on {}", dns.0)), "{told}");
}

#[test]
fn every_fault_of_every_file_is_told_before_a_start_is_refused() {
    let files = Files::new(&ZONE.replace("Ashburn", "Nowhereville"));
    files.put("zones/other.toml", "zone = \"other.example\"\n");
    files.put("meridian.toml", "workers = 0\n");
    let output = files.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for place in ["meridian.toml:1:", "zones/other.toml:1:", "zones/stream.example.toml:6:"] {
        assert!(told.contains(place), "{place} in {told}");
    }
    assert!(told.ends_with("meridian: not started: 3 errors in the files\n"), "{told}");
}

/// By thread: its name and the CPUs that it may use, as the kernel lists them.
fn threads(node: &Node) -> Vec<(String, String)> {
    let field = |status: &str, key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key} in {status}"));
        line[key.len()..].trim().to_owned()
    };
    let tasks = fs::read_dir(format!("/proc/{}/task", node.id())).unwrap();
    // A thread may end meanwhile.
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    statuses.map(|status| (field(&status, "Name:"), field(&status, "Cpus_allowed_list:"))).collect()
}

#[test]
fn workers_have_the_cpus_that_the_operator_names_and_everything_else_keeps_off_them() {
    let files = Files::new(ZONE);
    let usable = std::thread::available_parallelism().unwrap().get();
    // The test machine's CPUs are numbered from 0.
    files.put("meridian.toml", "cpus = [0]\n");
    let node = files.serve();
    assert_eq!(node.dig("live.stream.example", LONDON), "192.0.2.21");
    let (workers, others): (Vec<_>, Vec<_>) =
        threads(&node).into_iter().partition(|(name, _)| name.starts_with("udp-"));
    assert_eq!(workers, [("udp-0".to_owned(), "0".to_owned())]);
    let shared = others.iter().filter(|(_, cpus)| cpus.starts_with('0')).count();
    assert_eq!(shared, if usable == 1 { others.len() } else { 0 }, "{others:?}");
}

#[test]
fn a_cpu_that_the_machine_lacks_is_told_at_the_start() {
    let files = Files::new(ZONE);
    files.put("meridian.toml", "cpus = [1023]\n");
    let output = files.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("threads cannot be bound to CPU 1023"), "{told}");
}

#[test]
fn sigterm_under_load_answers_what_was_received_and_exits_0() {
    for signal in ["TERM", "INT"] {
        let files = Files::new(ZONE);
        let mut node = files.serve();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(node.dns).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut query = *b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x04live\x06stream\x07example\0\0\x01\0\x01";
        // As many as wait in a socket's buffer, ours and the server's, without being dropped by the kernel.
        for id in 0..150_u16 {
            query[..2].copy_from_slice(&id.to_be_bytes());
            socket.send(&query).unwrap();
        }
        node.signal(signal);
        let mut answer = [0; 512];
        let answered = (0..150).take_while(|_| socket.recv(&mut answer).is_ok()).count();
        assert_eq!(answered, 150, "SIG{signal}");
        assert_eq!(node.wait(), Some(0), "SIG{signal}");
    }
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up_and_tells_what_was_lost() {
    let (runtime, origins, zone) = with_origins();
    // Each of them is warned of, at once: more than a pipe and the queue of log lines hold.
    let unknown: Vec<String> = (0..9000).map(|n| format!("\"AS{}\"", 4_200_000_000_u32 + n)).collect();
    let rule = format!("[stream.live]\nrules = [{{ from = [{}], regions = \"eu\" }}]", unknown.join(", "));
    let files = Files::new(&zone.replace("[stream.live]", &rule));
    let (dns, admin) = (free_address(), free_address());
    let arguments = ["serve", "--listen", &dns.to_string(), "--admin", &admin.to_string(), "--log", "json"];
    let mut child = files.command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let log = child.stderr.take().unwrap();
    let mut node = Node::unheard(child, dns, admin);
    node.wait_for_answer(LONDON, "192.0.2.21");
    runtime.block_on(origins[1].kill());
    node.wait_for_answer(LONDON, "192.0.2.11");
    runtime.block_on(origins[1].revive()).unwrap();
    node.wait_for_answer(LONDON, "192.0.2.21");
    assert_eq!(node.http("GET", "/healthz").0, 200);
    let lines: Vec<Value> = BufReader::new(log)
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .inspect(|line: &Value| {
            if line["message"] == "log lines were lost: nobody read them in time" {
                node.signal("TERM");
            }
        })
        .collect();
    let lost: u64 = lines.iter().filter_map(|line| line["lines"].as_u64()).sum();
    let warned = lines.iter().filter(|line| line.to_string().contains("no loaded database knows AS")).count() as u64;
    assert!(lost >= 9000 - warned && warned > 1000, "{lost} lost, {warned} warned");
    assert_eq!(lines.last().unwrap()["message"], "stopped", "what is queued at the end is written");
    assert_eq!(node.wait(), Some(0));
}

#[test]
fn a_stuck_log_does_not_hold_the_end_up() {
    let files = Files::new(ZONE);
    let (stuck, mut filler) = std::io::pipe().unwrap();
    let out = filler.try_clone().unwrap();
    let (dns, admin) = (free_address(), free_address());
    let arguments = ["serve", "--listen", &dns.to_string(), "--admin", &admin.to_string()];
    // Until nobody can read any more: then it fails.
    std::thread::spawn(move || while filler.write_all(&[b'.'; 4096]).is_ok() {});
    let child = files.command(&arguments).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
    let mut node = Node::unheard(child, dns, admin);
    node.wait_for_answer(LONDON, "192.0.2.21");
    node.signal("TERM");
    assert_eq!(node.wait(), Some(0));
    drop(stuck);
}

/// An origin for each region of [`ZONE`], and the zone that probes them.
fn with_origins() -> (tokio::runtime::Runtime, Vec<Origin>, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let origins: Vec<Origin> = runtime.block_on(async {
        let mut origins = Vec::new();
        for _ in 0..2 {
            origins.push(Origin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap());
        }
        origins
    });
    let zone = format!(
        "{}\n[check]\nhttp = \"/healthz\"\nevery = \"200ms\"\ntimeout = \"150ms\"\nrise = 2\n",
        ZONE.replace(
            "a    = [\"192.0.2.11\"]",
            &format!("ramp = \"0s\"\nserver = [{{ a = \"192.0.2.11\", probe = \"{}\" }}]", origins[0].address())
        )
        .replace(
            "a    = [\"192.0.2.21\"]",
            &format!("ramp = \"0s\"\nserver = [{{ a = \"192.0.2.21\", probe = \"{}\" }}]", origins[1].address())
        )
    );
    (runtime, origins, zone)
}

#[test]
fn killing_an_origin_moves_its_viewers_and_reviving_it_brings_them_back() {
    let (runtime, origins, zone) = with_origins();
    let files = Files::new(&zone);
    let node = files.serve();
    assert_eq!(node.dig("live.stream.example", LONDON), "192.0.2.21");
    let since = Instant::now();
    runtime.block_on(origins[1].kill());
    node.wait_for_answer(LONDON, "192.0.2.11");
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    // A reload in between must not forget what is known.
    node.signal("HUP");
    node.wait_for_count(DONE, 1.0);
    assert_eq!(node.dig("live.stream.example", LONDON), "192.0.2.11");
    runtime.block_on(origins[0].kill());
    node.wait_for_metric(r#"meridian_region_up{zone="stream.example",region="us",type="A"}"#, 0.0);
    assert_eq!(node.dig("live.stream.example", LONDON), "192.0.2.21", "all down: as if all were up");
    for origin in &origins {
        runtime.block_on(origin.revive()).unwrap();
    }
    node.wait_for_metric(r#"meridian_region_up{zone="stream.example",region="eu",type="A"}"#, 1.0);
    node.wait_for_answer(LONDON, "192.0.2.21");
}

#[test]
fn a_hung_server_holds_the_start_for_two_seconds_and_then_counts_as_up() {
    // Accepts in the kernel and never answers.
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let zone = format!(
        "{}\n[check]\nhttp = \"/\"\nevery = \"5s\"\ntimeout = \"4s\"\n",
        ZONE.replace(
            "a    = [\"192.0.2.21\"]",
            &format!("ramp = \"0s\"\nserver = [{{ a = \"192.0.2.21\", probe = \"{}\" }}]", hung.local_addr().unwrap())
        )
    );
    let files = Files::new(&zone.replace("a    = [\"192.0.2.11\"]", "a    = [\"192.0.2.11\"]\ncheck = { tcp = 1 }"));
    let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let since = Instant::now();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--admin", &admin.to_string(), "--log", "json"];
    let mut command = files.command(&arguments);
    let watch = std::thread::spawn(move || {
        wait_for("the admin address answers", || std::net::TcpStream::connect(admin).ok());
        (http(admin, "GET", "/healthz"), http(admin, "GET", "/readyz"))
    });
    let node = node::Node::start({
        command.stdout(Stdio::null());
        command
    });
    let (healthz, readyz) = watch.join().unwrap();
    assert_eq!((healthz.0, readyz.0), (200, 503), "alive, but not ready while the first round goes on");
    assert!(since.elapsed() >= Duration::from_secs(2));
    assert_eq!(node.http("GET", "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(node.dig("live.stream.example", LONDON), "192.0.2.21");
}

#[test]
fn serials_never_go_back_over_a_restart() {
    let files = Files::new(ZONE);
    let serial = |node: &node::Node| -> u32 {
        let soa = node.dig_all("stream.example", &["SOA", "+short"]);
        soa.split(' ').nth(2).unwrap().parse().unwrap()
    };
    let first = serial(&files.serve());
    // A file from a backup: other content, older time.
    files.put("zones/stream.example.toml", with_london_at("192.0.2.22"));
    touch_back(&files.path("zones/stream.example.toml"), 86_400);
    assert_eq!(serial(&files.serve()), first + 1);
    assert_eq!(serial(&files.serve()), first + 1);
}

#[test]
fn metrics_count_queries_answers_and_reloads() {
    let files = Files::new(ZONE);
    let node = files.serve();
    for _ in 0..3 {
        node.dig("live.stream.example", LONDON);
    }
    node.dig_all("live.stream.example", &["+tcp", "+short"]);
    node.dig_all("nowhere.stream.example", &[]);
    node.dig_all("example.org", &[]);
    for (sample, count) in [
        (r#"meridian_queries_total{transport="udp",rcode="NOERROR",zone="stream.example"}"#, 3.0),
        (r#"meridian_queries_total{transport="tcp",rcode="NOERROR",zone="stream.example"}"#, 1.0),
        (r#"meridian_queries_total{transport="udp",rcode="NXDOMAIN",zone="stream.example"}"#, 1.0),
        (r#"meridian_queries_total{transport="udp",rcode="REFUSED",zone=""}"#, 1.0),
        (r#"meridian_answers_total{zone="stream.example",region="eu"}"#, 3.0),
        (r#"meridian_server_up{zone="stream.example",region="eu",server="192.0.2.21"}"#, 1.0),
        (r#"meridian_snapshot_generation"#, 1.0),
    ] {
        assert_eq!(node.metric(sample), Some(count), "{sample}");
    }
    let (status, text) = node.http("GET", "/metrics");
    assert!(status == 200 && text.ends_with("# EOF\n"));
    // Totals outlive the snapshot that they were counted on.
    node.signal("HUP");
    node.wait_for_count(DONE, 1.0);
    assert_eq!(node.metric(r#"meridian_answers_total{zone="stream.example",region="eu"}"#), Some(3.0));
    assert_eq!(node.metric("meridian_snapshot_generation"), Some(2.0));
}
