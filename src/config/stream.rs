//! `[stream.*]`: steered names, their policies and rules.

use std::collections::HashMap;

use hickory_proto::rr::Name;

use super::diagnostic::{At, Diagnostic};
use super::names;
use super::region::{self, RegionSpec};
use super::settings::{MAX_ANSWERS, Policy, Rule, Steering, Stream};
use super::tree::{Item, Placed, Table, nearest, quoted_key};
use super::{from, units};

/// TTL of steered answers where neither zone nor stream says one, seconds.
pub const DEFAULT_TTL: u32 = 20;
/// Below 5 s resolvers ask more than failover gains; above a day nothing is steered any more.
pub const TTLS: std::ops::RangeInclusive<u32> = 5..=86_400;

const DEFAULT_ANSWERS: u8 = 2;
/// A distance around the globe costs some 200 ms; more than this only ever means "last".
const MAX_BIAS: i64 = 60_000;
const MAX_RULES: usize = 1000;

/// What streams are read against.
pub struct Context<'c> {
    pub apex: &'c Name,
    pub regions: &'c [RegionSpec],
    pub ttl: u32,
    pub mend: &'c dyn Fn(&str, &Item<'_>) -> Option<String>,
}

/// The apex steered over all regions, for a zone that names no stream.
pub fn apex(context: &Context<'_>, at: At) -> Stream {
    let regions: Vec<u8> = (0..=u8::MAX).take(context.regions.len()).collect();
    Stream {
        owner: context.apex.clone(),
        label: "@".into(),
        ttl: context.ttl,
        steering: Steering { bias: vec![0; regions.len()], regions, policy: Policy::Nearest, answers: DEFAULT_ANSWERS },
        rules: Vec::new(),
        fallback: None,
        needs: Vec::new(),
        at,
    }
}

/// All streams of the `[stream]` table.
pub fn read_all(table: Table<'_>, context: &Context<'_>) -> Vec<Stream> {
    let mut owners: HashMap<Name, At> = HashMap::new();
    let mut streams = Vec::new();
    for (label, item) in table.entries() {
        if !item.is_table() {
            let fault = item.key_fault(format!("`{}` is no table", item.path)).rule("a stream is a table of its own");
            item.report(fault.help("write [stream.NAME], where NAME is \"@\" for the apex"));
            continue;
        }
        let Some(stream) = read(label, &item, context) else { continue };
        if let Some(first) = owners.get(&stream.owner) {
            item.report(
                item.key_fault(format!("stream {} is there twice", quoted_key(label)))
                    .rule("names compare case-blind (RFC 4343 §3)")
                    .help(format!("remove one of them; the other is at line {}", first.line)),
            );
            continue;
        }
        owners.insert(stream.owner.clone(), item.key_at());
        streams.push(stream);
    }
    streams
}

fn read(label: &str, item: &Item<'_>, context: &Context<'_>) -> Option<Stream> {
    let owner = owner(label, item, context.apex);
    let mut table = item.table()?;
    let ttl = table.take("ttl").and_then(|item| ttl(&item)).unwrap_or(context.ttl);
    let own = Spec::read(&mut table, context.regions);
    let rules = table.take("rules").map(|item| rule_specs(&item, context)).unwrap_or_default();
    let fallback = table.take("fallback").and_then(|item| fallback(&item, owner.as_ref(), context.apex));
    let needs = table.take("needs").map(|item| needs(&item, owner.as_ref(), context.apex)).unwrap_or_default();
    table.finish(|key, unknown| {
        unknown
            .is_table()
            .then(|| format!("quote the name: [stream.{}]", quoted_key(&format!("{label}.{key}"))))
            .or_else(|| (context.mend)(key, unknown))
    });

    let steering = own.resolve(None, context.regions, item);
    let rules = rules
        .into_iter()
        .filter_map(|rule| {
            let steering = rule.spec.resolve(Some(&own), context.regions, &rule.item)?;
            Some(Rule { from: rule.from, steering })
        })
        .collect();
    let (label, at) = (label.into(), item.key_at());
    Some(Stream { owner: owner?, label, ttl, steering: steering?, rules, fallback, needs, at })
}

fn owner(label: &str, item: &Item<'_>, apex: &Name) -> Option<Name> {
    let owner = names::relative(label, apex).map_err(|flaw| item.report_key_flaw(flaw)).ok()?;
    if !apex.zone_of(&owner) {
        item.report(
            item.key_fault(format!("stream {} is outside the zone {apex}", quoted_key(label)))
                .help("give it without the final dot, or move it to the file of its zone"),
        );
        return None;
    }
    Some(owner)
}

/// The TTL of steered answers.
pub fn ttl(item: &Item<'_>) -> Option<u32> {
    let ttl = units::seconds(item, 0..=units::MAX_SECONDS)?;
    if !TTLS.contains(&ttl) {
        let (low, high) = (*TTLS.start(), *TTLS.end());
        let text = units::written(std::time::Duration::from_secs(ttl.into()));
        item.report(
            item.fault(format!("`{}` is {text}, outside 5s to 1d", item.path))
                .rule("steered answers live long enough to be cached and short enough to be changed")
                .help(format!("write \"{}\"", if ttl < low { "5s" } else { "1d" })),
        );
        return Some(ttl.clamp(low, high));
    }
    Some(ttl)
}

fn fallback(item: &Item<'_>, owner: Option<&Name>, apex: &Name) -> Option<Name> {
    let target = names::read_absolute(item, item.string()?, apex)?;
    if owner == Some(apex) {
        item.report(
            item.key_fault(format!("`{}` at the apex", item.path))
                .rule("a CNAME can have no other data beside it, and the apex has SOA and NS (RFC 1034 §3.6.2)")
                .help("steer a name below the apex, or remove `fallback`"),
        );
        return None;
    }
    if owner == Some(&target) {
        item.report(item.fault(format!("`{}` points at itself", item.path)));
        return None;
    }
    Some(target)
}

fn needs(item: &Item<'_>, owner: Option<&Name>, apex: &Name) -> Vec<(Name, At)> {
    let mut list: Vec<(Name, At)> = Vec::new();
    for (text, element) in item.strings() {
        let Some(name) = names::read_absolute(&element, text, apex) else { continue };
        if owner == Some(&name) {
            item.report(element.fault(format!("`{}` names the stream itself", item.path)).help("remove it"));
        } else if list.iter().any(|(other, _)| *other == name) {
            item.report(element.fault(format!("`{}` has {name} twice", item.path)).help("remove one of them"));
        } else {
            list.push((name, element.at()));
        }
    }
    list
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PolicyName {
    Nearest,
    Priority,
    Weighted,
}

const POLICIES: [(&str, PolicyName); 3] =
    [("nearest", PolicyName::Nearest), ("priority", PolicyName::Priority), ("weighted", PolicyName::Weighted)];

/// How to steer, as far as one table says it.
#[derive(Default)]
struct Spec {
    /// The list may be shorter than what was written, when some of it was wrong.
    regions: Option<Vec<u8>>,
    policy: Option<Placed<PolicyName>>,
    weights: Option<Placed<Vec<(u8, u16)>>>,
    bias: Option<Vec<(u8, i32)>>,
    answers: Option<u8>,
}

struct RuleSpec<'t> {
    item: Item<'t>,
    from: Vec<(crate::geo::Match, At)>,
    spec: Spec,
}

impl Spec {
    fn read(table: &mut Table<'_>, regions: &[RegionSpec]) -> Spec {
        Spec {
            regions: table.take("regions").map(|item| region_list(&item, regions)),
            policy: table.take("policy").and_then(|item| policy(&item)),
            weights: table
                .take("weights")
                .and_then(|item| Some(item.placed(by_region(&item, regions, 0..=65_535, |n| n as u16)?))),
            bias: table.take("bias").and_then(|item| by_region(&item, regions, -MAX_BIAS..=MAX_BIAS, |n| n as i32)),
            answers: table.take("answers").and_then(|item| item.integer(1..=MAX_ANSWERS as i64)).map(|n| n as u8),
        }
    }

    fn says_nothing(&self) -> bool {
        self.regions.is_none()
            && self.policy.is_none()
            && self.weights.is_none()
            && self.bias.is_none()
            && self.answers.is_none()
    }

    /// What is in use, with all that `self` leaves open taken from `stream`. `None` when that is not known, which was
    /// then reported.
    fn resolve(&self, stream: Option<&Spec>, all: &[RegionSpec], item: &Item<'_>) -> Option<Steering> {
        let inherited = |get: fn(&Spec) -> bool| if get(self) { Some(self) } else { stream };
        let regions = match inherited(|s| s.regions.is_some()).and_then(|s| s.regions.clone()) {
            Some(regions) => regions,
            None => (0..=u8::MAX).take(all.len()).collect(),
        };
        if regions.is_empty() {
            if all.is_empty() {
                let fault = item.key_fault(format!("`{}` has no region to be steered to", item.path));
                item.file.report_missing(fault.help("add [region.NAME] with its addresses"));
            }
            return None;
        }
        let bias = inherited(|s| s.bias.is_some()).and_then(|s| s.bias.as_deref()).unwrap_or_default();
        let bias = regions.iter().map(|r| bias.iter().find(|(b, _)| b == r).map_or(0, |(_, ms)| *ms)).collect();
        let named = inherited(|s| s.policy.is_some()).and_then(|s| s.policy.as_ref());
        let policy = match named.map_or(PolicyName::Nearest, |p| p.value) {
            PolicyName::Nearest => Policy::Nearest,
            PolicyName::Priority => Policy::Priority,
            PolicyName::Weighted => {
                let at = named.map_or_else(|| item.key_at(), |p| p.at.clone());
                let at = if self.policy.is_some() { at } else { item.key_at() };
                let weights = inherited(|s| s.weights.is_some()).and_then(|s| s.weights.as_ref());
                Policy::Weighted(weigh(&regions, weights, all, item, at)?)
            }
        };
        let answers = self.answers.or_else(|| stream?.answers).unwrap_or(DEFAULT_ANSWERS);
        Some(Steering { regions, policy, bias, answers })
    }
}

/// The weights of `regions`, by position.
fn weigh(
    regions: &[u8],
    weights: Option<&Placed<Vec<(u8, u16)>>>,
    all: &[RegionSpec],
    item: &Item<'_>,
    policy_at: At,
) -> Option<Vec<u16>> {
    let rule = "policy `weighted` spreads by weight; 0 takes none";
    let example = |zero: &str| {
        let names = regions.iter().filter_map(|r| all.get(usize::from(*r)));
        let pairs: Vec<String> = names.take(4).map(|r| format!("{} = {zero}", quoted_key(&r.name))).collect();
        format!("weights = {{ {} }}", pairs.join(", "))
    };
    let Some(written) = weights else {
        let fault = Diagnostic::error(policy_at, format!("`{}` is weighted, without weights", item.path)).rule(rule);
        item.file.report_missing(fault.help(format!("add {}", example("1"))));
        return None;
    };
    let weight = |region: &u8| written.value.iter().find(|(r, _)| r == region).map(|(_, weight)| *weight);
    let missing: Vec<&str> = regions
        .iter()
        .filter(|r| weight(r).is_none())
        .filter_map(|r| all.get(usize::from(*r)).map(|region| &*region.name))
        .collect();
    if !missing.is_empty() {
        let what = format!("`{}` is weighted, but {} has no weight", item.path, missing.join(", "));
        item.file.report_missing(
            Diagnostic::error(written.at.clone(), what).rule(rule).help("give each of its regions a weight"),
        );
        return None;
    }
    let weights: Vec<u16> = regions.iter().filter_map(weight).collect();
    if weights.iter().all(|&weight| weight == 0) {
        let what = format!("the weights of `{}` are all 0", item.path);
        item.report(
            Diagnostic::error(written.at.clone(), what)
                .rule(rule)
                .help(format!("give one at least 1: {}", example("1"))),
        );
        return None;
    }
    Some(weights)
}

fn region_list(item: &Item<'_>, regions: &[RegionSpec]) -> Vec<u8> {
    let mut list = Vec::new();
    if item.one_or_more().is_empty() {
        let fault = item.fault(format!("`{}` is empty", item.path));
        item.report(fault.help("remove it to steer over all regions, or name some"));
    }
    for (name, element) in item.strings() {
        let Some(region) = region::find(regions, name, element.at(), item) else { continue };
        if list.contains(&region) {
            item.report(element.fault(format!("`{}` has {name:?} twice", item.path)).help("remove one of them"));
        } else {
            list.push(region);
        }
    }
    list
}

fn policy(item: &Item<'_>) -> Option<Placed<PolicyName>> {
    let text = item.string()?;
    let known = POLICIES.iter().find(|(name, _)| *name == text);
    if known.is_none() {
        let fault = item.fault(format!("`{}` is {text:?}, which is no policy", item.path));
        item.report(match nearest(text, POLICIES.iter().map(|(name, _)| *name)) {
            Some(name) => fault.help(format!("did you mean {name:?}?")),
            None => fault.help("policies: \"nearest\", \"priority\", \"weighted\""),
        });
    }
    known.map(|(_, policy)| item.placed(*policy))
}

/// A table of region names and numbers.
fn by_region<T>(
    item: &Item<'_>,
    regions: &[RegionSpec],
    range: std::ops::RangeInclusive<i64>,
    number: impl Fn(i64) -> T,
) -> Option<Vec<(u8, T)>> {
    let table = item.table()?;
    let entries = table.entries().filter_map(|(name, entry)| {
        let region = region::find(regions, name, entry.key_at(), item);
        let value = entry.integer(range.clone());
        Some((region?, number(value?)))
    });
    Some(entries.collect())
}

fn rule_specs<'t>(item: &Item<'t>, context: &Context<'_>) -> Vec<RuleSpec<'t>> {
    let list = if item.is_table() { item.one_or_more() } else { item.array().unwrap_or_default() };
    if list.len() > MAX_RULES {
        item.report(item.fault(format!("`{}` has {} rules, more than {MAX_RULES}", item.path, list.len())));
        return Vec::new();
    }
    list.into_iter().filter_map(|rule| rule_spec(rule, context)).collect()
}

fn rule_spec<'t>(item: Item<'t>, context: &Context<'_>) -> Option<RuleSpec<'t>> {
    let mut table = item.table()?;
    let from = table.take("from");
    if from.as_ref().is_none_or(|from| from.one_or_more().is_empty()) {
        let fault = item.fault(format!("a rule of `{}` does not say whom it is about", item.path));
        item.file.report_missing(fault.help("add from = [\"GB\", \"AS64500\", \"203.0.113.0/24\"]"));
    }
    let from = from.map(|from| from.one_or_more()).unwrap_or_default();
    let from = from.iter().filter_map(|element| Some((from::read(element)?, element.at()))).collect();
    let spec = Spec::read(&mut table, context.regions);
    table.done();
    if spec.says_nothing() {
        let fault = item.fault(format!("a rule of `{}` changes nothing", item.path));
        item.file.report_missing(fault.help("add regions, policy, weights, bias or answers"));
    }
    Some(RuleSpec { item, from, spec })
}
