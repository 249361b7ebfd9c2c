//! Transcripts: zone files, questions and answers as an operator reads them, in `tests/answers/*.txt`.
//!
//! A transcript begins with its files, each behind a line `--- NAME` (`*.toml` is a zone file, `overrides.toml` places
//! client prefixes), and goes on behind the line `--- answers` with questions and their answers:
//!
//! ```text
//! down 192.0.2.11 2001:db8::11          the servers whose probes fail from here on; all others are up
//! > www.stream.example A +subnet=203.0.113.0/24 from 192.0.2.1
//! ;; NOERROR; flags: qr aa; udp: 1232; subnet: 203.0.113.0/24/24
//! ;; ANSWER
//! www.stream.example. 20 IN A 192.0.2.11
//! > hex 0001 0000 0001 0000 0000 0000 03'www' 00 0001 0001
//! ;; REFUSED; flags: qr
//! ```
//!
//! Options of a question: `+subnet=PREFIX`, `+noedns`, `+bufsize=N`, `+do`, `+rd`, `+cd`, `+tcp`, `+class=CH`, `+opcode=N`,
//! `+ednsversion=N`, `+option=CODE:HEX` (with `/` where it helps the eye), and `from ADDRESS`. In a message as `hex`, text
//! stands in single quotes.
//! Records compare as sets, and blanks do not count. `#` begins a comment. With `BLESS=1` in the environment the
//! answers are written anew: read the difference before it is believed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RData, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use meridian::answer::{Client, Outcome, Transport, UDP_PAYLOAD, respond};
use meridian::config::{Shared, load_zones};
use meridian::geo::Database;
use meridian::health::{Target, Verdict};
use meridian::snapshot::{Served, Snapshot};

#[test]
fn answers_are_as_written() {
    let mut transcripts: Vec<PathBuf> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/answers"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    transcripts.sort();
    assert!(!transcripts.is_empty());
    let mut report = String::new();
    for path in &transcripts {
        let written = std::fs::read_to_string(path).unwrap();
        let (played, differences) = play(path, &written);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, played).unwrap();
        } else {
            report += &differences;
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn a_wrong_transcript_is_noticed() {
    let files = "--- a.toml\nzone = \"a.example\"\nns = [\"ns.elsewhere.\"]\nsoa = { serial = 1 }\n[records]\n\"@\" = { A = \"192.0.2.1\" }\n";
    let exchange = |answer: &str| {
        let text = format!("{files}--- answers\n> a.example A +noedns\n{answer}\n");
        play(Path::new("made up"), &text).1
    };
    assert_eq!(exchange(";; NOERROR; flags: qr aa\n;; ANSWER\na.example.  300 IN A 192.0.2.1"), "");
    assert!(exchange(";; NOERROR; flags: qr aa\n;; ANSWER\na.example. 300 IN A 192.0.2.2").contains("192.0.2.2"));
    assert!(exchange(";; NOERROR; flags: qr aa").contains("192.0.2.1"));
    assert!(exchange("").contains("192.0.2.1"));
}

/// What no transcript shows: how a choice falls over many clients.
#[test]
fn weights_share_out_clients_and_servers() {
    let world = World::load(
        r#"--- stream.example.toml
zone = "stream.example"
ns   = ["ns1.elsewhere.example"]
soa  = { serial = 7 }
[stream.anywhere]
policy  = "weighted"
weights = { eu = 3, us = 1, ap = 0 }
answers = 1
[stream.somewhere]
policy  = "weighted"
weights = { eu = 3, us = 1, ap = 0 }
answers = 1
rules   = [{ from = ["203.0.113.0/24"], policy = "priority", regions = ["ap"] }]
[region.eu]
near   = "Frankfurt"
[[region.eu.server]]
a      = "192.0.2.21"
weight = 3
[[region.eu.server]]
a      = "192.0.2.22"
[region.us]
near   = "Ashburn"
a      = ["192.0.2.11"]
[region.ap]
near   = "Singapore"
a      = ["192.0.2.31"]
"#,
    );
    let snapshot = world.compile(&[]);
    // Where no client address matters, the packet decides and the scope is 0; else blocks of /20, each given one answer.
    let by_packet = |number: u32| {
        let subnet = "+subnet=198.51.100.0/24";
        (format!("anywhere.stream.example A {subnet} from {}", Ipv4Addr::from(number << 8)), "198.51.100.0/24/0".into())
    };
    let by_block = |number: u32| {
        let subnet = Ipv4Addr::from((number + 0x1000) << 12);
        (format!("somewhere.stream.example A +subnet={subnet}/24"), format!("{subnet}/24/20"))
    };
    assert_shares(&snapshot, by_packet);
    assert_shares(&snapshot, by_block);
}

fn assert_shares(snapshot: &Snapshot, ask_as: impl Fn(u32) -> (String, String)) {
    const CLIENTS: u32 = 8192;
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    for number in 1..=CLIENTS {
        let (question, subnet) = ask_as(number);
        let answer = ask(snapshot, &question);
        assert!(answer.contains(&format!("subnet: {subnet}\n")), "{question}\n{answer}");
        let address = answer.split_whitespace().last().expect("an answer ends in an address");
        *shares.entry(address.to_owned()).or_default() += 1.0 / f64::from(CLIENTS);
    }
    for (address, share) in [("192.0.2.21", 0.75 * 0.75), ("192.0.2.22", 0.75 * 0.25), ("192.0.2.11", 0.25)] {
        // Four standard deviations of a fair draw.
        let tolerance = 4.0 * (share * (1.0 - share) / f64::from(CLIENTS)).sqrt();
        let given = shares.remove(address).unwrap_or_default();
        assert!((given - share).abs() < tolerance, "{address} is given to {given} of the clients, not {share}");
    }
    assert!(shares.is_empty(), "{shares:?}");
}

/// Puts the questions of a transcript: the transcript as it would be right, and a report of what differs from it.
fn play(path: &Path, transcript: &str) -> (String, String) {
    let (files, exchanges) = transcript.split_once("--- answers\n").expect("a transcript has answers");
    let world = World::load(files);
    let mut snapshot = world.compile(&[]);
    let (mut played, mut differences) = (format!("{files}--- answers\n"), String::new());
    let mut lines = exchanges.lines().peekable();
    while let Some(line) = lines.next() {
        writeln!(played, "{line}").unwrap();
        if let Some(down) = line.strip_prefix("down") {
            let down: Vec<IpAddr> = down.split_whitespace().map(|word| word.parse().unwrap()).collect();
            snapshot = world.compile(&down);
        } else if let Some(question) = line.strip_prefix("> ") {
            let mut expected = Vec::new();
            let goes_on = |line: &&str| !line.is_empty() && !line.starts_with(['>', '#']) && !line.starts_with("down");
            while let Some(line) = lines.next_if(goes_on) {
                expected.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            let answered = ask(&snapshot, question);
            played += &answered;
            let answered: Vec<&str> = answered.lines().collect();
            if sorted(&answered) != sorted(&expected.iter().map(String::as_str).collect::<Vec<_>>()) {
                writeln!(differences, "{}: > {question}\nexpected", path.display()).unwrap();
                expected.iter().for_each(|line| writeln!(differences, "  {line}").unwrap());
                differences += "answered\n";
                answered.iter().for_each(|line| writeln!(differences, "  {line}").unwrap());
            }
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{}: what is `{line}`?", path.display());
        }
    }
    (played, differences)
}

/// The records of each section in order.
fn sorted<'a>(lines: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut sections: Vec<Vec<&str>> = Vec::new();
    for line in lines {
        match sections.last_mut() {
            Some(section) if !line.starts_with(";;") => section.push(line),
            _ => sections.push(vec![line]),
        }
    }
    sections.iter_mut().for_each(|section| section[1..].sort_unstable());
    sections
}

struct World {
    zones: Vec<Served>,
    database: Arc<Database>,
}

impl World {
    fn load(files: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let mut zone_files = Vec::new();
        let mut overrides = None;
        for file in files.split("--- ").skip(1) {
            let (name, text) = file.split_once('\n').unwrap();
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            match name {
                "overrides.toml" => overrides = Some(path),
                _ => zone_files.push(path),
            }
        }
        let loaded = load_zones(&zone_files, &Shared::default());
        let faults = loaded.diagnostics.iter().filter(|fault| fault.is_error());
        assert!(!loaded.has_errors(), "{}", faults.map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        let zones = loaded.zones.into_iter().map(|zone| {
            let serial = zone.soa.serial.expect("transcripts have no time of change: give `serial` in `soa`");
            Served { zone: Arc::new(zone), serial }
        });
        let database = Database::load(&[], overrides.as_deref()).unwrap_or_else(|faults| panic!("{faults:#?}"));
        World { zones: zones.collect(), database: Arc::new(database) }
    }

    fn compile(&self, down: &[IpAddr]) -> Snapshot {
        let verdict = |target: &Target| match down.contains(&target.address.ip()) {
            true => Verdict::Down,
            false => Verdict::Up,
        };
        let snapshot = Snapshot::compile(self.zones.clone(), &self.database, verdict, None);
        let is_probed = |address: &IpAddr| snapshot.targets().iter().any(|target| target.address.ip() == *address);
        assert!(down.iter().all(is_probed), "a server that is not probed cannot be down: {down:?}");
        snapshot
    }
}

fn ask(snapshot: &Snapshot, question: &str) -> String {
    let (query, client) = if let Some(hex) = question.strip_prefix("hex") {
        (bytes(hex), Client { address: IpAddr::from([192, 0, 2, 200]), port: 4096, transport: Transport::Udp })
    } else {
        message(question)
    };
    let mut out = vec![0; if client.transport == Transport::Udp { UDP_PAYLOAD } else { 65_535 }];
    match respond(snapshot, &query, client, &mut out) {
        Outcome::Dropped => ";; no answer\n".to_owned(),
        Outcome::Answered { length, rcode, .. } => {
            assert_eq!(out[..2], query[..2], "the ID of > {question}");
            assert_eq!(out[2] & 0x78, query[2] & 0x78, "the opcode of > {question}");
            shown(&out[..length], rcode)
        }
    }
}

/// Hexadecimal digits with blanks as one likes, and text in single quotes.
fn bytes(notation: &str) -> Vec<u8> {
    let part = |(number, part): (usize, &str)| match number % 2 {
        1 => part.as_bytes().to_vec(),
        _ => {
            let digits: Vec<char> = part.chars().filter(|digit| !digit.is_whitespace()).collect();
            let pair = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
            digits.chunks(2).map(pair).collect()
        }
    };
    notation.split('\'').enumerate().flat_map(part).collect()
}

fn message(question: &str) -> (Vec<u8>, Client) {
    let mut words = question.split_whitespace();
    let name = words.next().expect("a question has a name");
    let name = Name::from_ascii(format!("{}.", name.trim_end_matches('.'))).unwrap();
    let rtype = words.next().expect("a question has a type");
    let rtype = meridian::zone::rdata::record_type(rtype).unwrap_or_else(|| panic!("{rtype} is no type"));
    let mut query = Query::query(name, rtype);
    let mut client = Client { address: IpAddr::from([192, 0, 2, 200]), port: 4096, transport: Transport::Udp };
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = false;
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    let mut wants_edns = true;
    while let Some(word) = words.next() {
        let (option, value) = word.split_once('=').unwrap_or((word, ""));
        match option {
            "from" => client.address = words.next().unwrap().parse().unwrap(),
            "+subnet" => {
                let (address, source) = value.split_once('/').unwrap();
                let subnet = ClientSubnet::new(address.parse().unwrap(), source.parse().unwrap(), 0);
                edns.options_mut().insert(EdnsOption::Subnet(subnet));
            }
            "+option" => {
                let (code, data) = value.split_once(':').unwrap();
                edns.options_mut().insert(EdnsOption::Unknown(code.parse().unwrap(), bytes(&data.replace('/', ""))));
            }
            "+noedns" => wants_edns = false,
            "+bufsize" => drop(edns.set_max_payload(value.parse().unwrap())),
            "+ednsversion" => drop(edns.set_version(value.parse().unwrap())),
            "+do" => drop(edns.set_dnssec_ok(true)),
            "+rd" => message.metadata.recursion_desired = true,
            "+cd" => message.metadata.checking_disabled = true,
            "+tcp" => client.transport = Transport::Tcp,
            "+class" => drop(query.set_query_class(value.parse().unwrap())),
            "+opcode" => message.metadata.op_code = OpCode::from_u8(value.parse().unwrap()),
            _ => panic!("what is `{word}` in > {question}?"),
        }
    }
    message.add_query(query);
    if wants_edns {
        message.set_edns(edns);
    }
    (message.to_vec().unwrap(), client)
}

fn shown(wire: &[u8], rcode: u16) -> String {
    let answer = Message::from_vec(wire).expect("answers can be decoded");
    let mut flags = vec!["qr"];
    let metadata = &answer.metadata;
    assert_eq!(metadata.message_type, MessageType::Response);
    for (flag, is_set) in [
        ("aa", metadata.authoritative),
        ("tc", metadata.truncation),
        ("rd", metadata.recursion_desired),
        ("ra", metadata.recursion_available),
        ("ad", metadata.authentic_data),
        ("cd", metadata.checking_disabled),
    ] {
        flags.extend(is_set.then_some(flag));
    }
    let mut text = format!(";; {}; flags: {}", mnemonic_of(rcode), flags.join(" "));
    match &answer.queries[..] {
        [] => text += "; no question",
        [query] if query.query_class() != DNSClass::IN => write!(text, "; class: {}", query.query_class()).unwrap(),
        _ => {}
    }
    if let Some(edns) = &answer.edns {
        let high = u16::from(edns.rcode_high()) << 4;
        assert_eq!(high | u16::from(metadata.response_code.low()), rcode, "the RCODE that is counted is the one given");
        write!(text, "; udp: {}", edns.max_payload()).unwrap();
        assert_eq!(edns.version(), 0);
        if edns.flags().dnssec_ok {
            text += "; do";
        }
        for (code, option) in edns.options().as_ref() {
            match option {
                EdnsOption::Subnet(subnet) => {
                    let (source, scope) = (subnet.source_prefix(), subnet.scope_prefix());
                    write!(text, "; subnet: {}/{source}/{scope}", subnet.addr()).unwrap();
                }
                other => write!(text, "; option {}: {other:?}", u16::from(*code)).unwrap(),
            }
        }
        assert!(edns.options().get_all(EdnsCode::Subnet).len() <= 1);
    }
    text.push('\n');
    for (section, records) in
        [("ANSWER", &answer.answers), ("AUTHORITY", &answer.authorities), ("ADDITIONAL", &answer.additionals)]
    {
        if !records.is_empty() {
            writeln!(text, ";; {section}").unwrap();
        }
        for record in records {
            writeln!(text, "{}", record_text(record)).unwrap();
        }
    }
    text
}

fn record_text(record: &Record) -> String {
    let data = match &record.data {
        RData::TXT(txt) => txt.txt_data.iter().map(|string| quoted(string)).collect::<Vec<_>>().join(" "),
        RData::Unknown { rdata, .. } => {
            let mut wire = Vec::new();
            let mut encoder = BinEncoder::new(&mut wire);
            encoder.set_name_encoding(NameEncoding::Uncompressed);
            rdata.emit(&mut encoder).unwrap();
            let digits: String = wire.iter().map(|byte| format!("{byte:02X}")).collect();
            format!(r"\# {} {digits}", wire.len())
        }
        data => data.to_string(),
    };
    let rtype = meridian::zone::rdata::mnemonic(record.record_type());
    format!("{} {} {} {rtype} {}", record.name, record.ttl, record.dns_class, data.trim())
}

fn quoted(string: &[u8]) -> String {
    let escaped = string.iter().map(|&byte| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).into(),
        _ => format!("\\{byte:03}"),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

fn mnemonic_of(rcode: u16) -> String {
    let known = [
        (0, "NOERROR"),
        (1, "FORMERR"),
        (2, "SERVFAIL"),
        (3, "NXDOMAIN"),
        (4, "NOTIMP"),
        (5, "REFUSED"),
        (6, "YXDOMAIN"),
        (16, "BADVERS"),
    ];
    known
        .iter()
        .find(|(number, _)| *number == rcode)
        .map_or_else(|| format!("RCODE{rcode}"), |(_, name)| (*name).into())
}
