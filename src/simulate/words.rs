//! What two zones have different, in words: a line a change, each beginning with `+`, `-` or `~`.

use std::collections::BTreeMap;
use std::fmt::Debug;

use hickory_proto::rr::Name;

use crate::config::names;
use crate::config::settings::{Check, CheckKind, Policy, Region, Rule, Steering, Stream, Zone};
use crate::zone::{Rrset, rdata};

/// Longer values are cut in what is shown.
const SHOWN: usize = 60;

/// Lines; empty where both serve the same. What only the file's text has different is none: comments, order, the time it
/// was written.
pub fn changes(old: &Zone, new: &Zone) -> Vec<String> {
    let mut lines = Vec::new();
    let mut differs = |what: &str, old: String, new: String| {
        if old != new {
            lines.push(format!("~ {what}{}", from_to(&old, &new)));
        }
    };
    differs("ns", join(&old.ns), join(&new.ns));
    differs("contact", old.soa.contact.to_ascii(), new.soa.contact.to_ascii());
    differs("serial", shown(old.soa.serial), shown(new.soa.serial));
    let timers = |zone: &Zone| {
        let soa = &zone.soa;
        format!("refresh {}s, retry {}s, expire {}s, negative {}s", soa.refresh, soa.retry, soa.expire, soa.negative)
    };
    differs("soa", timers(old), timers(new));
    differs("session", format!("{} bit/s", old.session_bits), format!("{} bit/s", new.session_bits));
    differs("minimum of regions", old.min_regions.to_string(), new.min_regions.to_string());
    each(
        &mut lines,
        |zone| zone.regions.iter().map(|region| (format!("region {}", region.name), region)).collect(),
        (old, new),
        region,
    );
    each(
        &mut lines,
        |zone| zone.streams.iter().map(|stream| (format!("stream {}", stream.label), (zone, stream))).collect(),
        (old, new),
        stream,
    );
    each(
        &mut lines,
        |zone| zone.records.iter().map(|set| (owner_and_type(set, zone), set)).collect(),
        (old, new),
        |old, new, differs| {
            differs("TTL", format!("{}s", old.ttl), format!("{}s", new.ttl));
            let sorted = |set: &Rrset| {
                let mut shown: Vec<String> = set.rdata.iter().map(|data| value(data)).collect();
                shown.sort();
                shown.join(" ")
            };
            differs("records", sorted(old), sorted(new));
        },
    );
    lines
}

fn owner_and_type(set: &Rrset, zone: &Zone) -> String {
    format!("record {} {}", names::shown(&set.owner, &zone.name), set.rtype)
}

/// An address as such, other data in hex.
fn value(data: &[u8]) -> String {
    match rdata::address(data) {
        Some(address) => address.to_string(),
        None => data.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

type Differs<'a> = dyn FnMut(&str, String, String) + 'a;

/// Things by name: those that came, those that went, and what `compare` tells of those that both zones have.
fn each<'z, T: Copy>(
    lines: &mut Vec<String>,
    of: impl Fn(&'z Zone) -> BTreeMap<String, T>,
    (old, new): (&'z Zone, &'z Zone),
    compare: impl Fn(T, T, &mut Differs<'_>),
) {
    let (old, new) = (of(old), of(new));
    lines.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("- {name}")));
    lines.extend(new.keys().filter(|name| !old.contains_key(*name)).map(|name| format!("+ {name}")));
    for (name, old) in old {
        let Some(new) = new.get(&name) else { continue };
        compare(old, *new, &mut |what, old, new| {
            if old != new {
                lines.push(format!("~ {name}: {what}{}", from_to(&old, &new)));
            }
        });
    }
}

fn region(old: &Region, new: &Region, differs: &mut Differs<'_>) {
    let place = |region: &Region| match (&region.near, region.location) {
        (Some(near), _) => near.to_string(),
        (None, Some(at)) => format!("{}, {}", at.lat(), at.lon()),
        (None, None) => "nowhere".to_owned(),
    };
    differs("place", place(old), place(new));
    let servers = |region: &Region| {
        let shown = region.servers.iter().map(|server| {
            let addresses = [server.a.map(|a| a.to_string()), server.aaaa.map(|a| a.to_string())];
            let mut text = addresses.into_iter().flatten().collect::<Vec<_>>().join("+");
            if server.weight.get() != 1 {
                text += &format!(" weight {}", server.weight);
            }
            if let Some(probe) = server.probe {
                text += &format!(" probed at {probe}");
            }
            text
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    differs("servers", servers(old), servers(new));
    let capacity = |region: &Region| {
        let Some(capacity) = &region.capacity else { return "without end".to_owned() };
        let servers = capacity.by_server.as_ref().map_or(String::new(), |all| format!(" by server {all:?}"));
        format!("{} sessions{servers}", capacity.sessions.round())
    };
    differs("capacity", capacity(old), capacity(new));
    differs("cost", shown(old.cost), shown(new.cost));
    differs("min_up", shown(old.min_up), shown(new.min_up));
    differs("ramp", format!("{:?}", old.ramp), format!("{:?}", new.ramp));
    differs("check", check(old.check.as_deref()), check(new.check.as_deref()));
}

fn check(check: Option<&Check>) -> String {
    let Some(check) = check else { return "none".to_owned() };
    let (kind, detail) = match &check.kind {
        CheckKind::Tcp => ("tcp", String::new()),
        CheckKind::Http(http) => ("http", format!("{http:?}")),
        CheckKind::Https { http, ca } => ("https", format!("{http:?} {:?}", ca.as_ref().map(|ca| &ca.certificates))),
        CheckKind::Hls { http, .. } => ("hls", format!("{http:?} {:?}", check.kind)),
        CheckKind::Exec(exec) => ("exec", format!("{exec:?}")),
    };
    let Check { every, timeout, fall, rise, port, .. } = check;
    let heartbeat = check.heartbeat.map_or(String::new(), |every| format!(", heartbeat {every:?}"));
    format!("{kind} to {port} every {every:?} within {timeout:?}, fall {fall}, rise {rise}{heartbeat} {detail}")
}

fn stream(old: (&Zone, &Stream), new: (&Zone, &Stream), differs: &mut Differs<'_>) {
    differs("TTL", format!("{}s", old.1.ttl), format!("{}s", new.1.ttl));
    steering(old.0, &old.1.steering, new.0, &new.1.steering, differs);
    let rules = |(zone, stream): (&Zone, &Stream)| {
        let shown: Vec<String> = stream.rules.iter().map(|one| rule(zone, one)).collect();
        if shown.is_empty() { "none".to_owned() } else { shown.join("; ") }
    };
    differs("rules", rules(old), rules(new));
    let target = |stream: &Stream| stream.fallback.as_ref().map_or("none".to_owned(), Name::to_ascii);
    differs("fallback", target(old.1), target(new.1));
    let needs = |stream: &Stream| join(stream.needs.iter().map(|(name, _)| name));
    differs("needs", needs(old.1), needs(new.1));
}

fn steering(old_zone: &Zone, old: &Steering, new_zone: &Zone, new: &Steering, differs: &mut Differs<'_>) {
    differs("regions", regions(old_zone, old), regions(new_zone, new));
    differs("policy", policy(&old.policy), policy(&new.policy));
    differs("bias", bias(old_zone, old), bias(new_zone, new));
    differs("answers", old.answers.to_string(), new.answers.to_string());
}

fn rule(zone: &Zone, rule: &Rule) -> String {
    let from = rule.from.iter().map(|(from, _)| from.to_string()).collect::<Vec<_>>().join(" ");
    let Steering { answers, .. } = rule.steering;
    let (to, policy) = (regions(zone, &rule.steering), policy(&rule.steering.policy));
    format!("{from} to {to} by {policy}, bias {}, {answers} answers", bias(zone, &rule.steering))
}

fn regions(zone: &Zone, steering: &Steering) -> String {
    let names = steering.regions.iter().map(|region| &*zone.regions[usize::from(*region)].name);
    names.collect::<Vec<_>>().join(" ")
}

fn policy(policy: &Policy) -> String {
    match policy {
        Policy::Nearest => "nearest".to_owned(),
        Policy::Priority => "priority".to_owned(),
        Policy::Weighted(weights) => format!("weighted {weights:?}"),
    }
}

fn bias(zone: &Zone, steering: &Steering) -> String {
    let biased = steering.regions.iter().zip(&steering.bias).filter(|(_, bias)| **bias != 0);
    let shown: Vec<String> =
        biased.map(|(region, ms)| format!("{} {ms:+} ms", zone.regions[usize::from(*region)].name)).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(" ") }
}

fn join<'a>(names: impl IntoIterator<Item = &'a Name>) -> String {
    let names: Vec<String> = names.into_iter().map(Name::to_ascii).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

fn shown(value: Option<impl Debug>) -> String {
    value.map_or("none".to_owned(), |value| format!("{value:?}"))
}

fn from_to(old: &str, new: &str) -> String {
    match (short(old), short(new)) {
        // What differs is behind what is shown.
        (old, new) if old == new => " is another".to_owned(),
        (old, new) => format!(" {old} -> {new}"),
    }
}

fn short(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}
