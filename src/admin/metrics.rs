//! Metrics in OpenMetrics text, gathered when they are asked for: nothing is counted twice to be shown.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::access::{Gate, Refused};
use crate::config::settings::{CheckKind, Family, Transport};
use crate::control::Tally;
use crate::health::Target;
use crate::health::beats::Beats;
use crate::health::stats::{BUCKETS_US, Kind, Stats};
use crate::load::Desk;
use crate::scale::Board;
use crate::server::connections::Connections;
use crate::server::counters::Ledger;
use crate::snapshot::Published;
use crate::status::OrderStatus;

mod heartbeats;
mod loads;
mod rtt;
mod scale;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the figures come from.
pub struct Sources {
    pub ledger: Arc<Ledger>,
    pub published: Published,
    pub stats: Stats,
    pub beats: Beats,
    pub loads: Desk,
    pub rtt: Arc<super::rtt::Counts>,
    pub tally: Arc<Tally>,
    pub gate: Arc<Gate>,
    /// Set once queries are answered.
    pub connections: std::sync::OnceLock<Arc<Connections>>,
    pub started: SystemTime,
    /// In force and to come, as they were when last asked for.
    pub orders: ArcSwap<Vec<OrderStatus>>,
    pub scale: Arc<Board>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

pub struct Metrics {
    registry: Registry,
    sources: Arc<Sources>,
}

impl Metrics {
    pub fn new(sources: Arc<Sources>) -> Metrics {
        let mut registry = Registry::with_prefix("meridian");
        registry.register_collector(Box::new(Arc::clone(&sources)));
        Metrics { registry, sources }
    }

    /// To be called before [`Metrics::text`]: only the control loop knows the orders.
    pub fn note(&self, orders: Arc<Vec<OrderStatus>>) {
        self.sources.orders.store(orders);
    }

    /// Errors: a formatter that fails, which a `String` does not.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.build(&mut encoder)?;
        self.answers(&mut encoder)?;
        self.connections(&mut encoder)?;
        self.snapshot(&mut encoder)?;
        self.orders(&mut encoder)?;
        self.probes(&mut encoder)?;
        heartbeats::encode(&self.beats, &mut encoder)?;
        loads::encode(&self.loads, &self.published.load(), &mut encoder)?;
        rtt::encode(&self.rtt, &mut encoder)?;
        scale::encode(&self.scale, &mut encoder)?;
        self.refusals(&mut encoder)
    }
}

impl Sources {
    fn build(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut info = family(encoder, "build", "What is running", MetricType::Info)?;
        info.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let started = self.started.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let gauge = family(encoder, "start_time_seconds", "When the server was started, Unix time", MetricType::Gauge)?;
        ConstGauge::new(started).encode(gauge)
    }

    fn answers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.ledger.totals();
        let mut queries = family(encoder, "queries", "Queries answered", MetricType::Counter)?;
        for (of, count) in &totals.queries {
            let zone = of.zone.as_deref().unwrap_or_default();
            counter(&mut queries, vec![("transport", of.transport), ("rcode", of.rcode), ("zone", zone)], *count)?;
        }
        let mut answers = family(encoder, "answers", "Answers that gave addresses of a region", MetricType::Counter)?;
        for ((zone, region), count) in &totals.answers {
            counter(&mut answers, vec![("zone", zone), ("region", region)], *count)?;
        }
        let help = "Messages to which nothing may be answered: without a header, or responses";
        let mut dropped = family(encoder, "dropped_messages", help, MetricType::Counter)?;
        for (transport, count) in &totals.dropped {
            counter(&mut dropped, vec![("transport", transport)], *count)?;
        }
        let help = "Answers that the kernel or the peer did not take";
        let mut unsent = family(encoder, "unsent_answers", help, MetricType::Counter)?;
        for (transport, count) in &totals.unsent {
            counter(&mut unsent, vec![("transport", transport)], *count)?;
        }
        Ok(())
    }

    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let usage = self.connections.get().map(|connections| connections.usage()).unwrap_or_default();
        let open = family(encoder, "tcp_connections", "TCP connections open", MetricType::Gauge)?;
        ConstGauge::new(usage.open as i64).encode(open)?;
        let help = "TCP connections accepted, refused at a limit, and closed while idle to make room";
        let mut events = family(encoder, "tcp_connection_events", help, MetricType::Counter)?;
        for (event, count) in [("accepted", usage.accepted), ("refused", usage.refused), ("evicted", usage.evicted)] {
            counter(&mut events, vec![("event", event)], count)?;
        }
        Ok(())
    }

    fn snapshot(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.published.load_full();
        let help = "Rises by one with every change that is published";
        let generation = family(encoder, "snapshot_generation", help, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(snapshot.generation()).unwrap_or(i64::MAX)).encode(generation)?;
        let mut reloads = family(encoder, "reloads", "Reloads by outcome", MetricType::Counter)?;
        let tally = &self.tally;
        for (outcome, count) in [("done", &tally.reloads_done), ("refused", &tally.reloads_refused)] {
            counter(&mut reloads, vec![("outcome", outcome)], count.load(Relaxed))?;
        }
        let cells = family(encoder, "cells", "Groups of places that are steered alike", MetricType::Gauge)?;
        ConstGauge::new(snapshot.geography().cells as i64).encode(cells)?;
        // The label values outlive the family that borrows them.
        let (mut serials, mut regions, mut servers, mut shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (z, served) in snapshot.zones().iter().enumerate() {
            let zone = served.zone.label().to_string();
            let (fleet, state) = snapshot.fleet(z as u32);
            for (r, region) in served.zone.regions.iter().enumerate() {
                let labels = vec![("zone", zone.clone()), ("region", region.name.to_string())];
                shares.push((labels, snapshot.standing(z as u32, r as u8).share.part()));
                for (family, name) in [(Family::V4, "A"), (Family::V6, "AAAA")] {
                    let members = fleet.members(r as u8, family);
                    if members.is_empty() {
                        continue;
                    }
                    let up = state.up(family) >> r & 1 == 1;
                    regions.push((
                        vec![("zone", zone.clone()), ("region", region.name.to_string()), ("type", name.to_owned())],
                        up,
                    ));
                    for member in members {
                        let labels = vec![
                            ("zone", zone.clone()),
                            ("region", region.name.to_string()),
                            ("server", member.address.to_string()),
                        ];
                        servers.push((labels, state.is_up(r, family, member, snapshot.verdicts())));
                    }
                }
            }
            serials.push((vec![("zone", zone)], served.serial));
        }
        let help = "How much of what its health and place would give it the region may take, 0 to 1";
        gauges(encoder, "region_share_allowed", help, shares)?;
        gauges(encoder, "zone_serial", "SOA serial", serials)?;
        gauges(
            encoder,
            "region_up",
            "1 while enough servers of the region are up for the type",
            regions.into_iter().map(|(labels, up)| (labels, u32::from(up))).collect(),
        )?;
        gauges(
            encoder,
            "server_up",
            "1 unless the server is believed down",
            servers.into_iter().map(|(labels, up)| (labels, u32::from(up))).collect(),
        )
    }

    fn orders(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let orders = self.orders.load();
        let mut gauges = family(encoder, "orders", "Orders in force or to come", MetricType::Gauge)?;
        for (action, word) in [("drain", "drain"), ("force_up", "force up"), ("force_down", "force down")] {
            for (state, begun) in [("in_force", true), ("to_come", false)] {
                let counted = orders.iter().filter(|order| order.action == word && (order.state != "to come") == begun);
                let labels: Labels<'_> = vec![("action", action), ("state", state)];
                ConstGauge::new(counted.count() as i64).encode(gauges.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn refusals(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests to the admin address that were not let in, by reason";
        let mut refusals = family(encoder, "admin_refusals", help, MetricType::Counter)?;
        for why in Refused::ALL {
            counter(&mut refusals, vec![("reason", why.label())], self.gate.refused(why))?;
        }
        Ok(())
    }

    fn probes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // Checks of one address that differ in their timing only are shown as one.
        let mut sums: BTreeMap<(String, String), Sum> = BTreeMap::new();
        for stats in self.stats.targets().iter() {
            let sum = sums.entry((stats.target.address.to_string(), check(&stats.target))).or_default();
            for (total, kind) in sum.results.iter_mut().zip(Kind::ALL) {
                *total += stats.results(kind);
            }
            for (total, count) in sum.buckets.iter_mut().zip(stats.buckets()) {
                *total += count;
            }
            sum.seconds += stats.total().as_secs_f64();
        }
        let mut probes = family(encoder, "probes", "Probes by result", MetricType::Counter)?;
        for ((target, check), sum) in &sums {
            for (count, kind) in sum.results.iter().zip(Kind::ALL) {
                counter(&mut probes, vec![("target", target), ("check", check), ("result", kind.label())], *count)?;
            }
        }
        let help = "Duration of successful probes, connecting included";
        let mut durations = family(encoder, "probe_duration_seconds", help, MetricType::Histogram)?;
        for ((target, check), sum) in &sums {
            let bounds = BUCKETS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(sum.buckets).collect();
            let labels: Labels<'_> = vec![("target", target), ("check", check)];
            let count = sum.buckets.iter().sum();
            durations.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum.seconds, count, &buckets, None)?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Sum {
    results: [u64; Kind::ALL.len()],
    buckets: [u64; BUCKETS_US.len() + 1],
    seconds: f64,
}

fn check(target: &Target) -> String {
    match &target.check.kind {
        CheckKind::Tcp => "tcp".to_owned(),
        CheckKind::Http(http) => format!("http://{}{}", http.host, http.path),
        CheckKind::Https { http, .. } => format!("https://{}{}", http.host, http.path),
        CheckKind::Hls { http, transport, .. } => {
            let scheme = if *transport == Transport::Plain { "http" } else { "https" };
            format!("hls {scheme}://{}{}", http.host, http.path)
        }
        // Arguments may hold a secret.
        CheckKind::Exec(exec) => format!("exec {}", exec.program.display()),
    }
}

fn family<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'static str,
    help: &str,
    kind: MetricType,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, kind)
}

fn counter(family: &mut MetricEncoder<'_>, labels: Labels<'_>, count: u64) -> fmt::Result {
    ConstCounter::new(count).encode(family.encode_family(&labels)?)
}

fn gauges<N: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &'static str,
    help: &str,
    values: Vec<(Vec<(&'static str, String)>, N)>,
) -> fmt::Result {
    let mut gauges = family(encoder, name, help, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(gauges.encode_family(&labels)?)?;
    }
    Ok(())
}
