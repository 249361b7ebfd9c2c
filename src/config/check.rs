//! `[check]`: how servers are probed, as written, inherited, and in use.
//!
//! A region's check stands over the zone's, and that over the node's. Naming a kind (`http`, `https`, `tcp`) replaces
//! the inherited kind with its port, host, status, contains and ca; every, timeout, fall and rise always inherit.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::diagnostic::{At, Diagnostic};
use super::settings::{Check, CheckKind, HttpCheck, PrivateCa};
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
const MAX_STREAK: i64 = 1000;
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
    every: Option<Placed<Duration>>,
    timeout: Option<Placed<Duration>>,
    /// True when `every` or `timeout` could not be read: then they cannot be compared.
    untimed: bool,
    fall: Option<u32>,
    rise: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Http { path: String },
    Https { path: String },
    Tcp { port: u16 },
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
        let spec = CheckSpec {
            kind,
            names_kind,
            port: table.take("port").and_then(|item| port(&item)),
            host: table.take("host").and_then(|item| host(&item)),
            status: table.take("status").map(|item| status(&item)),
            contains: table.take("contains").and_then(|item| contains(&item)),
            ca: table.take("ca").and_then(|item| ca(&item)),
            every: timing(table.take("every"), MIN_EVERY..=MAX_EVERY),
            timeout: timing(table.take("timeout"), Duration::from_millis(1)..=MAX_EVERY),
            untimed,
            fall: table.take("fall").and_then(|item| streak(&item, "up", "down")),
            rise: table.take("rise").and_then(|item| streak(&item, "down", "up")),
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
            every: self.every.clone().or_else(|| base.every.clone()),
            timeout: self.timeout.clone().or_else(|| base.timeout.clone()),
            untimed: self.untimed || base.untimed,
            fall: self.fall.or(base.fall),
            rise: self.rise.or(base.rise),
        }
    }

    pub fn names_kind(&self) -> bool {
        self.names_kind
    }

    /// Where the check says `http` or `https` without a `host`, which then has to follow from the streams.
    pub fn needs_host(&self) -> Option<&At> {
        let kind = self.kind.as_ref().filter(|kind| !matches!(kind.value, Kind::Tcp { .. }))?;
        self.host.is_none().then_some(&kind.at)
    }

    /// Reports what does not fit together. To be called on the check that is in use, after inheritance.
    pub fn verify(&self, file: &File) {
        self.verify_timing(file);
        let Some(kind) = &self.kind else { return };
        let tcp = matches!(kind.value, Kind::Tcp { .. });
        let https = matches!(kind.value, Kind::Https { .. });
        let places = [
            ("port", self.port.as_ref().map(|p| &p.at), !tcp),
            ("host", self.host.as_ref().map(|p| &p.at), !tcp),
            ("status", self.status.as_ref().map(|p| &p.at), !tcp),
            ("contains", self.contains.as_ref().map(|p| &p.at), !tcp),
            ("ca", self.ca.as_ref().map(|p| &p.at), https),
        ];
        for (key, at, fits) in places {
            let Some(at) = at.filter(|_| !fits) else { continue };
            let name = if tcp { "tcp" } else { "http" };
            let fault = Diagnostic::error(at.clone(), format!("`{key}` has no meaning for a check by {name}"));
            file.report(match key {
                "port" => fault.help("the port is the value of `tcp` itself"),
                "ca" => fault.help("remove it, or check by https"),
                _ => fault.help("remove it, or check by http or https"),
            });
        }
    }

    fn verify_timing(&self, file: &File) {
        let (every, timeout) = (self.every(), self.timeout());
        if timeout < every || self.untimed {
            return;
        }
        // The place that the operator is likelier to have in mind: the one in this file, and the later one in it.
        let places = [&self.every, &self.timeout];
        let at = places.into_iter().flatten().map(|p| &p.at).max_by_key(|at| (at.file == file.path, (*at).clone()));
        let Some(at) = at else { return };
        let (every, timeout) = (units::written(every), units::written(timeout));
        file.report(
            Diagnostic::error(at.clone(), format!("`timeout` is {timeout}, not below `every`, which is {every}"))
                .rule("a probe ends before the next one begins")
                .help("lower `timeout`, or raise `every`"),
        );
    }

    fn every(&self) -> Duration {
        self.every.as_ref().map_or(EVERY, |p| p.value)
    }

    fn timeout(&self) -> Duration {
        self.timeout.as_ref().map_or_else(|| TIMEOUT.min(self.every() / 2), |p| p.value)
    }

    /// The check in use; `None` when no kind is named. `host` stands in for one that is not written.
    pub fn resolve(&self, host: &str) -> Option<Check> {
        let http = |path: &str| HttpCheck {
            path: path.to_owned(),
            host: self.host.as_ref().map_or_else(|| host.to_owned(), |p| p.value.clone()),
            status: self.status.as_ref().map(|p| p.value.clone()).unwrap_or_default(),
            contains: self.contains.as_ref().map(|p| p.value.clone()),
        };
        let port = |default| self.port.as_ref().map_or(default, |p| p.value);
        let (kind, port) = match &self.kind.as_ref()?.value {
            Kind::Tcp { port } => (CheckKind::Tcp, *port),
            Kind::Http { path } => (CheckKind::Http(http(path)), port(80)),
            Kind::Https { path } => {
                let ca = self.ca.as_ref().map(|p| p.value.clone());
                (CheckKind::Https { http: http(path), ca }, port(443))
            }
        };
        Some(Check {
            kind,
            every: self.every(),
            timeout: self.timeout(),
            fall: self.fall.unwrap_or(FALL),
            rise: self.rise.unwrap_or(RISE),
            port,
        })
    }
}

fn kind(table: &mut Table<'_>) -> (Option<Placed<Kind>>, bool) {
    let http = table.take("http");
    let https = table.take("https");
    let tcp = table.take("tcp");
    let mut written: Vec<&Item<'_>> = [&http, &https, &tcp].into_iter().flatten().collect();
    written.sort_by_key(|item| item.key_at());
    if let [first, second, ..] = written[..] {
        table.file.report(
            second
                .key_fault(format!("`{}` beside `{}`", second.path, first.path))
                .rule("a check is of one kind")
                .help(format!("remove one of them; the other is at line {}", first.key_at().line)),
        );
    }
    let Some(item) = written.first().copied().cloned() else { return (None, false) };
    let kind = match (&http, &https) {
        (Some(http), _) if http.key_at() == item.key_at() => path(&item).map(|path| Kind::Http { path }),
        (_, Some(https)) if https.key_at() == item.key_at() => path(&item).map(|path| Kind::Https { path }),
        _ => port(&item).map(|port| Kind::Tcp { port: port.value }),
    };
    (kind.map(|value| Placed { value, at: item.key_at() }), true)
}

/// The target of a request: what hyper will send it has to be able to parse.
fn path(item: &Item<'_>) -> Option<String> {
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

fn port(item: &Item<'_>) -> Option<Placed<u16>> {
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
fn ca(item: &Item<'_>) -> Option<Placed<Arc<PrivateCa>>> {
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
