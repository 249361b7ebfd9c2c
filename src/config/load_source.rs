//! `load` of a check, as written: where load reports are looked for.

use std::time::Duration;

use super::check::{path, port};
use super::settings::{HttpCheck, LoadRequest, LoadSource, Transport};
use super::tree::{Item, Placed, Table};
use super::units;
use crate::load::report::exposition::{Selector, Wanted};

const EVERY: Duration = Duration::from_secs(1);
/// Reports tell of seconds: more often they tell nothing more.
const MIN_EVERY: Duration = Duration::from_millis(500);
/// Above it every report would be predicted most of the time.
const MAX_EVERY: Duration = Duration::from_secs(60);

/// What stands there.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one a check, while files are read")]
pub(super) enum LoadSpec {
    /// `true`
    Answer,
    /// `false`
    Nowhere,
    Apart(Apart),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Apart {
    path: String,
    pub(super) port: Option<Placed<u16>>,
    pub(super) tls: Option<Placed<bool>>,
    every: Duration,
    metrics: Wanted,
}

/// Reads the value. `None`: it was reported.
pub(super) fn read(item: &Item<'_>) -> Option<Placed<LoadSpec>> {
    let spec = if item.is_table() { LoadSpec::Apart(apart(item.table()?)?) } else { yes_or_no(item)? };
    Some(item.placed(spec))
}

fn yes_or_no(item: &Item<'_>) -> Option<LoadSpec> {
    match item.as_string() {
        None => item.boolean().map(|on| if on { LoadSpec::Answer } else { LoadSpec::Nowhere }),
        Some(text) => {
            let fault = item.fault(format!("`{}` is {text:?}, not true, false or a table", item.path));
            item.report(fault.help("to ask elsewhere for the load, write { path = \"/load\" }"));
            None
        }
    }
}

fn apart(mut table: Table<'_>) -> Option<Apart> {
    let item = table.take("path");
    if item.is_none() {
        let fault = super::Diagnostic::error(table.at(), format!("[{}] names no path", table.path));
        table
            .file
            .report_missing(fault.help("add path = \"/load\", or write `load = true` to read the probe's answer"));
    }
    let path = item.and_then(|item| path(&item));
    let apart = Apart {
        path: path.clone().unwrap_or_default(),
        port: table.take("port").and_then(|item| port(&item)),
        tls: table.take("tls").and_then(|item| Some(item.placed(item.boolean()?))),
        every: table.take("every").and_then(|item| units::read(&item, MIN_EVERY..=MAX_EVERY)).unwrap_or(EVERY),
        metrics: table.take("prometheus").and_then(|item| metrics(&item)).unwrap_or_default(),
    };
    table.finish(|key, _| {
        let metric = ["sessions", "utilization", "capacity", "bits_per_s", "starts_per_s"].contains(&key);
        metric.then(|| format!("metrics are named by figure: prometheus = {{ {key} = \"NAME\" }}"))
    });
    path.map(|_| apart)
}

fn metrics(item: &Item<'_>) -> Option<Wanted> {
    let mut table = item.table()?;
    let mut selector = |key: &'static str| {
        let item = table.take(key)?;
        match Selector::parse(item.string()?) {
            Ok(selector) => Some(selector),
            Err(what) => {
                let fault = item.fault(format!("`{}` names no metric: {what}", item.path));
                item.report(fault.help("write \"nginx_connections_active\", or \"sessions{app=\\\"live\\\"}\""));
                None
            }
        }
    };
    let wanted = Wanted {
        sessions: selector("sessions"),
        utilization: selector("utilization"),
        capacity: selector("capacity"),
        bits_per_s: selector("bits_per_s"),
        starts_per_s: selector("starts_per_s"),
    };
    if table.is_empty() {
        let fault = item.fault(format!("`{}` names no metric", item.path));
        item.report(fault.help("add sessions = \"NAME\", or utilization, capacity, bits_per_s or starts_per_s"));
    }
    table.done();
    Some(wanted)
}

impl LoadSpec {
    /// `host` and `transport` are those of the check; a check without HTTP has none of them but a host perhaps.
    pub(super) fn resolve(&self, host: &str, transport: Option<Transport>) -> LoadSource {
        let apart = match self {
            LoadSpec::Answer => return LoadSource::Answer,
            LoadSpec::Nowhere => return LoadSource::Nowhere,
            LoadSpec::Apart(apart) => apart,
        };
        let Apart { path, port, tls, every, metrics } = apart;
        let transport = match (tls.as_ref().map(|tls| tls.value), transport) {
            (Some(false), _) | (None, None) => Transport::Plain,
            (Some(true), Some(Transport::Plain) | None) => Transport::Tls(None),
            (Some(true) | None, Some(transport)) => transport,
        };
        LoadSource::Apart(LoadRequest {
            http: HttpCheck { path: path.clone(), host: host.to_owned(), status: vec![200], contains: None },
            port: port.as_ref().map(|port| port.value),
            transport,
            every: *every,
            metrics: metrics.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Check, CheckKind};
    use super::super::{Diagnostic, Shared, load_zones};
    use super::*;

    /// The check of the one region of a zone with this `[check]`, and what is said of it.
    fn read(check: &str, region: &str) -> (Option<Check>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let zone = "zone = \"live.example\"\nns = [\"ns1.example.net\", \"ns2.example.net\"]\n";
        let text = format!("{zone}[check]\n{check}\n[region.eu]\nat = [1, 2]\na = [\"192.0.2.1\"]\n{region}\n");
        std::fs::write(dir.path().join("zone.toml"), text).unwrap();
        let loaded = load_zones(&[dir.path().to_owned()], &Shared::default());
        let check = loaded.zones.first().and_then(|zone| zone.regions[0].check.as_deref().cloned());
        (check, loaded.diagnostics.into_iter().filter(Diagnostic::is_error).map(|fault| fault.what).collect())
    }

    fn load(check: &str, region: &str) -> LoadSource {
        let (check, faults) = read(check, region);
        assert!(faults.is_empty(), "{faults:?}");
        check.expect("a check").load
    }

    #[test]
    fn reports_are_read_where_the_check_says() {
        assert_eq!(load("https = \"/\"", ""), LoadSource::Offered);
        assert_eq!(load("https = \"/\"\nload = true", ""), LoadSource::Answer);
        assert_eq!(load("https = \"/\"\nload = false", ""), LoadSource::Nowhere);
        assert_eq!(load("https = \"/\"\nload = true", "check = { every = \"1s\" }"), LoadSource::Answer, "inherited");
        assert_eq!(load("https = \"/\"\nload = true", "check = { load = false }"), LoadSource::Nowhere);
        assert_eq!(load("https = \"/\"\nload = true", "check = { tcp = 1935 }"), LoadSource::Offered, "another kind");
    }

    #[test]
    fn a_request_of_its_own_takes_from_the_check_what_it_does_not_say() {
        let LoadSource::Apart(asked) = load("https = \"/\"\nport = 8443\nload = { path = \"/load?x=1\" }", "") else {
            panic!()
        };
        assert_eq!((asked.port, &asked.transport, asked.every), (None, &Transport::Tls(None), EVERY));
        assert_eq!((&*asked.http.path, &*asked.http.host), ("/load?x=1", "live.example"));
        assert!(asked.metrics.is_empty());
        let metrics = "load = { path = \"/metrics\", port = 9113, every = \"5s\", prometheus = { sessions = \"viewers{app=\\\"live\\\"}\" } }";
        let (check, faults) = read(&format!("tcp = 1935\n{metrics}"), "");
        let check = check.unwrap_or_else(|| panic!("{faults:?}"));
        assert_eq!((&check.kind, check.port), (&CheckKind::Tcp, 1935));
        let LoadSource::Apart(asked) = check.load else { panic!() };
        assert_eq!((asked.port, &asked.transport, asked.every), (Some(9113), &Transport::Plain, 5 * EVERY));
        assert_eq!(asked.metrics.sessions, Some(Selector::parse("viewers{app=\"live\"}").unwrap()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        let said = |check: &str| read(check, "").1;
        for (check, fault) in [
            ("https = \"/\"\nload = \"/load\"", "`check.load` is \"/load\", not true, false or a table"),
            ("https = \"/\"\nload = {}", "[check.load] names no path"),
            ("https = \"/\"\nload = { path = \"/\", sessions = \"x\" }", "unknown key `sessions` in [check.load]"),
            ("https = \"/\"\nload = { path = \"/\", prometheus = {} }", "`check.load.prometheus` names no metric"),
            (
                "https = \"/\"\nload = { path = \"/\", every = \"100ms\" }",
                "`check.load.every` is 100ms, outside 500ms to 1m",
            ),
            ("tcp = 1\nload = true", "`load = true` has no meaning for a check by tcp"),
            ("tcp = 1\nload = { path = \"/\" }", "`load` names no port beside a check by tcp"),
            ("tcp = 1\nload = { path = \"/\", port = 2, tls = true }", "`load.tls` beside a check by tcp"),
        ] {
            assert_eq!(said(check), [fault], "{check}");
        }
        let bad = said("https = \"/\"\nload = { path = \"/\", prometheus = { sessions = \"a b\" } }");
        assert!(bad[0].starts_with("`check.load.prometheus.sessions` names no metric"), "{bad:?}");
    }
}
