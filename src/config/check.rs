//! `[check]`: how servers are probed, as written, inherited, and in use.
//!
//! A region's check stands over the zone's, and that over the node's. Naming a kind (`http`, `https`, `tcp`, `hls`,
//! `exec`) replaces the inherited kind with all that is its own, such as port, host, ca and load; every, timeout, fall, rise
//! and heartbeat always inherit.

use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::diagnostic::{At, Diagnostic};
use super::load_source::{self, LoadSpec};
use super::settings::{Check, CheckKind, ExecCheck, HttpCheck, PrivateCa, Transport};
use super::tree::{File, Item, Placed, Table};
use super::{names, units};

const EVERY: Duration = Duration::from_millis(500);
/// Also at most half of `every`, so that a shorter `every` alone is enough to write.
const TIMEOUT: Duration = Duration::from_millis(250);
const FALL: u32 = 3;
const RISE: u32 = 10;

/// Below this a probe is a load test.
const MIN_EVERY: Duration = Duration::from_millis(50);
const MAX_EVERY: Duration = Duration::from_secs(3600);
/// Faster beats tell nothing more: a probe that confirms takes at least 100 ms.
const MIN_HEARTBEAT: Duration = Duration::from_millis(20);
const MAX_HEARTBEAT: Duration = Duration::from_secs(60);
const MAX_STREAK: i64 = 1000;
/// Target durations that a live edge may stand.
const STALE: u32 = 3;
/// A live playlist may take one and a half target durations to move (RFC 8216 §6.2.2): less would fail a sound one.
const STALE_RANGE: RangeInclusive<i64> = 2..=100;
/// A CA file is a few kilobytes; whole bundles are some hundreds.
const MAX_CA_BYTES: u64 = 4 << 20;

/// One `[check]` as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckSpec {
    kind: Option<Placed<Kind>>,
    /// True when a kind stands there, even one that could not be read.
    names_kind: bool,
    port: Option<Placed<u16>>,
    host: Option<Placed<String>>,
    status: Option<Placed<Vec<u16>>>,
    contains: Option<Placed<String>>,
    ca: Option<Placed<Arc<PrivateCa>>>,
    tls: Option<Placed<bool>>,
    stale: Option<Placed<u32>>,
    every: Option<Placed<Duration>>,
    timeout: Option<Placed<Timeout>>,
    /// True when `every` or `timeout` could not be read: then they cannot be compared.
    untimed: bool,
    fall: Option<u32>,
    rise: Option<u32>,
    heartbeat: Option<Duration>,
    load: Option<Placed<LoadSpec>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Http { path: String },
    Https { path: String },
    Tcp { port: u16 },
    Hls { path: String },
    Exec { program: PathBuf, arguments: Vec<String> },
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Kind::Http { .. } => "http",
            Kind::Https { .. } => "https",
            Kind::Tcp { .. } => "tcp",
            Kind::Hls { .. } => "hls",
            Kind::Exec { .. } => "exec",
        }
    }

    /// Whether it asks for something by HTTP, over TLS or not.
    fn is_web(&self) -> bool {
        matches!(self, Kind::Http { .. } | Kind::Https { .. } | Kind::Hls { .. })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Timeout {
    Fixed(Duration),
    /// `"auto"`: follows the measured times.
    Auto,
}

impl CheckSpec {
    pub fn read(mut table: Table<'_>, mend: impl Fn(&str, &Item<'_>) -> Option<String>) -> CheckSpec {
        let (kind, names_kind) = kind(&mut table);
        let mut untimed = false;
        let mut timing = |item: Option<Item<'_>>, range: RangeInclusive<Duration>| {
            let item = item?;
            let duration = units::read(&item, range);
            untimed |= duration.is_none();
            Some(item.placed(duration?))
        };
        let every = timing(table.take("every"), MIN_EVERY..=MAX_EVERY);
        let timeout = table.take("timeout").and_then(|item| {
            if item.as_string() == Some("auto") {
                return Some(item.placed(Timeout::Auto));
            }
            let Placed { value, at } = timing(Some(item), Duration::from_millis(1)..=MAX_EVERY)?;
            Some(Placed { value: Timeout::Fixed(value), at })
        });
        let spec = CheckSpec {
            kind,
            names_kind,
            port: table.take("port").and_then(|item| port(&item)),
            host: table.take("host").and_then(|item| host(&item)),
            status: table.take("status").map(|item| status(&item)),
            contains: table.take("contains").and_then(|item| contains(&item)),
            ca: table.take("ca").and_then(|item| ca(&item)),
            tls: table.take("tls").and_then(|item| Some(item.placed(item.boolean()?))),
            stale: table.take("stale").and_then(|item| Some(item.placed(item.integer(STALE_RANGE)? as u32))),
            every,
            timeout,
            untimed,
            fall: table.take("fall").and_then(|item| streak(&item, "up", "down")),
            rise: table.take("rise").and_then(|item| streak(&item, "down", "up")),
            heartbeat: table.take("heartbeat").and_then(|item| units::read(&item, MIN_HEARTBEAT..=MAX_HEARTBEAT)),
            load: table.take("load").and_then(|item| load_source::read(&item)),
        };
        table.finish(mend);
        spec
    }

    /// This check where it says something, `base` where it does not.
    pub fn over(&self, base: &CheckSpec) -> CheckSpec {
        let kind = if self.names_kind { self } else { base };
        CheckSpec {
            kind: kind.kind.clone(),
            names_kind: kind.names_kind,
            port: self.port.clone().or_else(|| kind.port.clone()),
            host: self.host.clone().or_else(|| kind.host.clone()),
            status: self.status.clone().or_else(|| kind.status.clone()),
            contains: self.contains.clone().or_else(|| kind.contains.clone()),
            ca: self.ca.clone().or_else(|| kind.ca.clone()),
            tls: self.tls.clone().or_else(|| kind.tls.clone()),
            stale: self.stale.clone().or_else(|| kind.stale.clone()),
            every: self.every.clone().or_else(|| base.every.clone()),
            timeout: self.timeout.clone().or_else(|| base.timeout.clone()),
            untimed: self.untimed || base.untimed,
            fall: self.fall.or(base.fall),
            rise: self.rise.or(base.rise),
            heartbeat: self.heartbeat.or(base.heartbeat),
            load: self.load.clone().or_else(|| kind.load.clone()),
        }
    }

    pub fn names_kind(&self) -> bool {
        self.names_kind
    }

    /// Where the check is by HTTP without a `host`, which then has to follow from the streams.
    pub fn needs_host(&self) -> Option<&At> {
        let kind = self.kind.as_ref().filter(|kind| kind.value.is_web())?;
        self.host.is_none().then_some(&kind.at)
    }

    /// Reports what does not fit together. To be called on the check that is in use, after inheritance.
    pub fn verify(&self, file: &File) {
        self.verify_timing(file);
        let Some(kind) = &self.kind else { return };
        let tcp = matches!(kind.value, Kind::Tcp { .. });
        let hls = matches!(kind.value, Kind::Hls { .. });
        let judged = kind.value.is_web() && !hls;
        let over_tls = matches!(kind.value, Kind::Https { .. }) || hls && self.over_tls();
        let places = [
            ("port", self.port.as_ref().map(|p| &p.at), !tcp),
            ("host", self.host.as_ref().map(|p| &p.at), !tcp),
            ("status", self.status.as_ref().map(|p| &p.at), judged),
            ("contains", self.contains.as_ref().map(|p| &p.at), judged),
            ("ca", self.ca.as_ref().map(|p| &p.at), over_tls),
            ("tls", self.tls.as_ref().map(|p| &p.at), hls),
            ("stale", self.stale.as_ref().map(|p| &p.at), hls),
        ];
        self.verify_load(file, &kind.value);
        for (key, at, fits) in places {
            let Some(at) = at.filter(|_| !fits) else { continue };
            let name = if hls && key == "ca" { "hls without TLS" } else { kind.value.name() };
            let fault = Diagnostic::error(at.clone(), format!("`{key}` has no meaning for a check by {name}"));
            file.report(match key {
                "port" => fault.help("the port is the value of `tcp` itself"),
                "ca" if hls => fault.help("remove it, or `tls = false`"),
                "ca" => fault.help("remove it, or check by https"),
                "tls" if judged => fault.help("remove it: http is without TLS and https with it; hls can be either"),
                "tls" | "stale" => fault.help("remove it, or check by hls"),
                "status" | "contains" if hls => {
                    fault.rule("the answer must be a playlist, with status 200").help("remove it")
                }
                _ => fault.help("remove it, or check by http or https"),
            });
        }
    }

    fn verify_load(&self, file: &File, kind: &Kind) {
        let Some(load) = self.load.as_ref().filter(|_| !kind.is_web()) else { return };
        let (name, fault) = (kind.name(), |at: &At, what: String| Diagnostic::error(at.clone(), what));
        match &load.value {
            LoadSpec::Answer => file.report(
                fault(&load.at, format!("`load = true` has no meaning for a check by {name}"))
                    .rule("its answer holds no report")
                    .help("write load = { path = \"/load\", port = 8080 }, or check by http or https"),
            ),
            LoadSpec::Nowhere => {}
            LoadSpec::Apart(apart) => {
                if apart.port.is_none() {
                    file.report(
                        fault(&load.at, format!("`load` names no port beside a check by {name}"))
                            .rule("load reports are asked for by HTTP")
                            .help("add port = 8080, where the server gives them"),
                    );
                }
                if let Some(tls) = apart.tls.as_ref().filter(|tls| tls.value) {
                    file.report(
                        fault(&tls.at, format!("`load.tls` beside a check by {name}"))
                            .rule("TLS needs a host, which only checks by https and hls have")
                            .help("remove it, or check by https"),
                    );
                }
            }
        }
    }

    fn verify_timing(&self, file: &File) {
        let (every, timeout) = (self.every(), self.timeout());
        if timeout < every || self.untimed {
            return;
        }
        // The place that the operator is likelier to have in mind: the one in this file, and the later one in it.
        let places = [self.every.as_ref().map(|p| &p.at), self.timeout.as_ref().map(|p| &p.at)];
        let at = places.into_iter().flatten().max_by_key(|at| (at.file == file.path, (*at).clone()));
        let Some(at) = at else { return };
        let (every, timeout) = (units::written(every), units::written(timeout));
        file.report(
            Diagnostic::error(at.clone(), format!("`timeout` is {timeout}, not below `every`, which is {every}"))
                .rule("a probe ends before the next one begins")
                .help("lower `timeout`, or raise `every`"),
        );
    }

    /// Of a check by hls.
    fn over_tls(&self) -> bool {
        self.tls.as_ref().is_none_or(|p| p.value)
    }

    fn every(&self) -> Duration {
        self.every.as_ref().map_or(EVERY, |p| p.value)
    }

    fn timeout(&self) -> Duration {
        match self.timeout.as_ref().map(|p| p.value) {
            Some(Timeout::Fixed(timeout)) => timeout,
            Some(Timeout::Auto) | None => TIMEOUT.min(self.every() / 2),
        }
    }

    /// The check in use; `None` when no kind is named. `host` stands in for one that is not written.
    pub fn resolve(&self, host: &str) -> Option<Check> {
        let known_host = || self.host.as_ref().map_or_else(|| host.to_owned(), |p| p.value.clone());
        let ca = || self.ca.as_ref().map(|p| p.value.clone());
        let http = |path: &str| HttpCheck {
            path: path.to_owned(),
            host: known_host(),
            status: self.status.as_ref().map(|p| p.value.clone()).unwrap_or_default(),
            contains: self.contains.as_ref().map(|p| p.value.clone()),
        };
        let transport = |kind: &CheckKind| match kind {
            CheckKind::Http(_) => Some(Transport::Plain),
            CheckKind::Https { ca, .. } => Some(Transport::Tls(ca.clone())),
            CheckKind::Hls { transport, .. } => Some(transport.clone()),
            CheckKind::Tcp | CheckKind::Exec(_) => None,
        };
        let port = |default| self.port.as_ref().map_or(default, |p| p.value);
        let (kind, port) = match &self.kind.as_ref()?.value {
            Kind::Tcp { port } => (CheckKind::Tcp, *port),
            Kind::Http { path } => (CheckKind::Http(http(path)), port(80)),
            Kind::Https { path } => (CheckKind::Https { http: http(path), ca: ca() }, port(443)),
            Kind::Hls { path } => {
                let (transport, default) =
                    if self.over_tls() { (Transport::Tls(ca()), 443) } else { (Transport::Plain, 80) };
                let stale = self.stale.as_ref().map_or(STALE, |p| p.value);
                let http = HttpCheck { status: vec![200], contains: None, ..http(path) };
                (CheckKind::Hls { http, transport, stale }, port(default))
            }
            Kind::Exec { program, arguments } => {
                let (program, arguments) = (program.clone(), arguments.clone());
                let host = Some(known_host()).filter(|host| !host.is_empty());
                (CheckKind::Exec(ExecCheck { program, arguments, host }), port(0))
            }
        };
        let load = self.load.as_ref();
        Some(Check {
            load: load.map(|load| load.value.resolve(&known_host(), transport(&kind))).unwrap_or_default(),
            kind,
            every: self.every(),
            timeout: self.timeout(),
            adaptive: self.timeout.as_ref().is_some_and(|p| p.value == Timeout::Auto),
            fall: self.fall.unwrap_or(FALL),
            rise: self.rise.unwrap_or(RISE),
            port,
            heartbeat: self.heartbeat,
        })
    }
}

fn kind(table: &mut Table<'_>) -> (Option<Placed<Kind>>, bool) {
    type Read = fn(&Item<'_>) -> Option<Kind>;
    let kinds: [(&'static str, Read); 5] = [
        ("http", |item| path(item).map(|path| Kind::Http { path })),
        ("https", |item| path(item).map(|path| Kind::Https { path })),
        ("tcp", |item| port(item).map(|port| Kind::Tcp { port: port.value })),
        ("hls", |item| path(item).map(|path| Kind::Hls { path })),
        ("exec", exec),
    ];
    let mut written: Vec<(Item<'_>, Read)> =
        kinds.into_iter().filter_map(|(key, read)| Some((table.take(key)?, read))).collect();
    written.sort_by_key(|(item, _)| item.key_at());
    if let [(first, _), (second, _), ..] = &written[..] {
        table.file.report(
            second
                .key_fault(format!("`{}` beside `{}`", second.path, first.path))
                .rule("a check is of one kind")
                .help(format!("remove one of them; the other is at line {}", first.key_at().line)),
        );
    }
    let Some((item, read)) = written.into_iter().next() else { return (None, false) };
    (read(&item).map(|value| Placed { value, at: item.key_at() }), true)
}

/// A program and its arguments. One that can't be run now is a warning: it may be put there later.
fn exec(item: &Item<'_>) -> Option<Kind> {
    let mend = "write the program and each argument apart, like [\"/usr/lib/monitors/check\", \"--fast\"]";
    let fault = |what: String| {
        item.report(item.fault(what).rule("a program is run as it is written, without a shell").help(mend))
    };
    if !item.is_array() {
        fault(format!("`{}` is not an array", item.path));
        return None;
    }
    let words: Vec<&str> = item.strings().into_iter().map(|(word, _)| word).collect();
    let Some((program, arguments)) = words.split_first() else {
        fault(format!("`{}` names no program", item.path));
        return None;
    };
    if words.len() < item.one_or_more().len() {
        return None;
    }
    if words.iter().any(|word| word.contains('\0')) {
        fault(format!("`{}` holds a NUL character, which no argument can", item.path));
        return None;
    }
    if !program.starts_with('/') {
        fault(format!("`{}` names the program {program:?}, which is no absolute path", item.path));
        return None;
    }
    let trouble = match std::fs::metadata(program) {
        Err(error) => Some(error.to_string()),
        Ok(file) if !file.is_file() => Some("not a file".into()),
        Ok(file) if file.permissions().mode() & 0o111 == 0 => Some("not executable".into()),
        Ok(_) => None,
    };
    if let Some(trouble) = trouble {
        item.report(
            Diagnostic::warning(item.at(), format!("`{}`: {program}: {trouble}", item.path))
                .rule("servers whose program can't be started keep the verdict that they have"),
        );
    }
    Some(Kind::Exec { program: (*program).into(), arguments: arguments.iter().map(|word| (*word).into()).collect() })
}

/// The target of a request: what hyper will send it has to be able to parse.
pub(super) fn path(item: &Item<'_>) -> Option<String> {
    let path = item.string()?;
    let graphic = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !path.starts_with('/') || !graphic || path.parse::<hyper::http::uri::PathAndQuery>().is_err() {
        item.report(
            item.fault(format!("`{}` is {path:?}, which is no path", item.path))
                .rule("a path begins with / and holds no blanks and no fragment (RFC 9112 §3.2.1)")
                .help("write it like \"/healthz\"; a port goes into `port`, a host into `host`"),
        );
        return None;
    }
    Some(path.to_owned())
}

pub(super) fn port(item: &Item<'_>) -> Option<Placed<u16>> {
    let port = item.integer(1..=65_535)?;
    Some(item.placed(port as u16))
}

fn host(item: &Item<'_>) -> Option<Placed<String>> {
    match names::host(item.string()?) {
        Ok(host) => Some(item.placed(host)),
        Err(flaw) => {
            item.report_flaw(flaw);
            None
        }
    }
}

fn status(item: &Item<'_>) -> Placed<Vec<u16>> {
    let mut codes = Vec::new();
    for element in item.one_or_more() {
        // 1xx never ends an exchange, so no probe would ever see one.
        let Some(code) = element.integer(200..=599) else { continue };
        if codes.contains(&(code as u16)) {
            item.report(element.fault(format!("`{}` has {code} twice", item.path)).help("remove one of them"));
        } else {
            codes.push(code as u16);
        }
    }
    if item.one_or_more().is_empty() {
        let fault = item.fault(format!("`{}` is empty", item.path));
        item.report(fault.help("remove it to accept any 2xx and 3xx, or name the codes"));
    }
    item.placed(codes)
}

fn contains(item: &Item<'_>) -> Option<Placed<String>> {
    let text = item.string()?;
    if text.is_empty() {
        let fault = item.fault(format!("`{}` is empty, which every body contains", item.path));
        item.report(fault.help("remove it, or say what the body must contain"));
        return None;
    }
    Some(item.placed(text.to_owned()))
}

fn streak(item: &Item<'_>, from: &str, to: &str) -> Option<u32> {
    let rule = |fault: Diagnostic| {
        fault.rule(format!("it is the number of results in a row that turn {from} into {to}")).help("write 1 or more")
    };
    if item.as_integer() == Some(0) {
        item.report(rule(item.fault(format!("`{}` is 0", item.path))));
        return None;
    }
    item.integer(1..=MAX_STREAK).map(|n| n as u32)
}

/// Reads the certificates of a private CA; the path is relative to the file that names it.
pub(super) fn ca(item: &Item<'_>) -> Option<Placed<Arc<PrivateCa>>> {
    let text = item.string()?;
    let file = item.file.path.parent().unwrap_or(Path::new("")).join(text);
    item.file.names(&file);
    let fault = |what: String| {
        item.report(
            item.fault(format!("`{}`: {}: {what}", item.path, file.display()))
                .help("give a PEM file with the certificates of the CA; its path is relative to this file"),
        );
    };
    let bytes = match std::fs::metadata(&file) {
        Ok(meta) if meta.len() > MAX_CA_BYTES => Err(std::io::Error::other("larger than 4 MiB")),
        Ok(meta) if !meta.is_file() => Err(std::io::Error::other("not a file")),
        Ok(_) => std::fs::read(&file),
        Err(e) => Err(e),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(e) => {
            fault(e.to_string());
            return None;
        }
    };
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        match certificate {
            Ok(der) => {
                if rustls::RootCertStore::empty().add(der.clone()).is_err() {
                    fault(format!("certificate {} cannot be a trust anchor", certificates.len() + 1));
                    return None;
                }
                certificates.push(der.to_vec());
            }
            Err(e) => {
                fault(format!("not PEM: {e}"));
                return None;
            }
        }
    }
    if certificates.is_empty() {
        fault("holds no certificate".into());
        return None;
    }
    Some(item.placed(Arc::new(PrivateCa { file, certificates })))
}
