//! Heartbeats and what agents say, for the metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{counter, family};
use crate::health::beats::figures::{Presence, Tally};
use crate::health::beats::{Beats, Outcome};

/// Load that is older tells nothing of now.
const LOAD_AGE: Duration = Duration::from_secs(10);

pub(super) fn encode(beats: &Beats, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (servers, now) = (beats.servers(), Instant::now());
    let servers: BTreeMap<String, &Tally> =
        servers.values().map(|server| (server.address.to_string(), &*server.tally)).collect();
    let (of_servers, others): (Vec<Outcome>, Vec<Outcome>) =
        Outcome::ALL.into_iter().partition(|outcome| outcome.is_of_a_server());
    let mut counts = family(encoder, "heartbeats", "Authentic heartbeats by outcome", MetricType::Counter)?;
    for (server, tally) in &servers {
        for outcome in &of_servers {
            counter(&mut counts, vec![("server", server), ("outcome", outcome.label())], tally.count(*outcome))?;
        }
    }
    let help = "Packets to the port of heartbeats that count for no server";
    let mut dropped = family(encoder, "heartbeat_packets_dropped", help, MetricType::Counter)?;
    for outcome in others {
        counter(&mut dropped, vec![("reason", outcome.label())], beats.count(outcome))?;
    }
    let mut late = family(encoder, "heartbeats_late", "Times a heartbeat was late", MetricType::Counter)?;
    for (server, tally) in &servers {
        counter(&mut late, vec![("server", server)], tally.late())?;
    }
    let mut lost = family(encoder, "agents_lost", "Times an agent was lost", MetricType::Counter)?;
    for (server, tally) in &servers {
        counter(&mut lost, vec![("server", server)], tally.lost())?;
    }
    let load = |tally: &Tally| {
        let (load, since) = tally.load()?;
        (now.saturating_duration_since(since) <= LOAD_AGE).then_some(load)
    };
    let mut gauges = |name, help, value: &dyn Fn(&Tally) -> Option<f64>| {
        let mut gauges = family(encoder, name, help, MetricType::Gauge)?;
        for (server, tally) in &servers {
            let Some(value) = value(tally) else { continue };
            ConstGauge::new(value).encode(gauges.encode_family(&[("server", server)])?)?;
        }
        Ok(())
    };
    gauges("agent_present", "1 while an agent beats", &|tally| {
        Some(if tally.presence() == Presence::Absent { 0.0 } else { 1.0 })
    })?;
    gauges("heartbeat_age_seconds", "Since the last heartbeat that counted", &|tally| {
        Some(tally.last_beat_age(now)?.as_secs_f64())
    })?;
    gauges("server_sessions", "Sessions, as its agent says", &|tally| Some(load(tally)?.sessions? as f64))?;
    gauges("server_sent_bits_per_second", "What the server sends, as its agent says", &|tally| {
        Some(load(tally)?.bits_per_s? as f64)
    })?;
    gauges("server_cpu_ratio", "Share of the CPU in use, as its agent says", &|tally| {
        Some(f64::from(load(tally)?.cpu_permille?) / 1000.0)
    })
}
