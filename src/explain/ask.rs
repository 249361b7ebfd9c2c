//! The question put to the answering code, and what it looked at on its way.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_proto::serialize::binary::BinEncodable;
use ipnet::IpNet;

use super::cost::{Way, ways};
use super::load::{Prices, share};
use super::{
    Answer, Basis, DrawFacts, Explanation, Location, Question, RegionFacts, RuleFacts, SaidBy, ServerFacts, Steering,
    ZoneFacts,
};
use crate::answer::trace::{Choosing, Given, Standing, Steered, trace};
use crate::answer::{self, Client, Outcome, Transport};
use crate::config::names;
use crate::config::settings::{self, Family, Policy, Zone};
use crate::geo::{Database, Told};
use crate::health::Verdict;
use crate::snapshot::fleet::{Fleet, Member};
use crate::snapshot::standing::{self, Forced, Share};
use crate::snapshot::{Snapshot, SteeredName};
use crate::steering::pick::Draw;
use crate::world::View;

/// A block, where no client address can change the answer.
const EVERYBODY: &str = "every client";

/// What to explain, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    name: Name,
    rtype: RecordType,
    client: IpNet,
}

impl Ask {
    /// Reads the words of a command line or a URL. The error says which word is wrong and what it should be.
    pub fn read(name: &str, rtype: &str, client: &str) -> Result<Ask, String> {
        let name = names::absolute(name).map_err(|fault| format!("{name:?} is no domain name: {fault}"))?;
        let rtype = record_type(rtype).ok_or_else(|| format!("{rtype:?} is no record type, such as A, AAAA or TXT"))?;
        let client = (client.parse::<IpNet>().map(|prefix| prefix.trunc()))
            .or_else(|_| client.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| format!("{client:?} is no address or prefix, such as 203.0.113.9 or 203.0.113.0/24"))?;
        Ok(Ask { name, rtype, client })
    }

    /// The query as a resolver that serves this client would send it.
    pub fn message(&self) -> Vec<u8> {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(self.name.clone(), self.rtype));
        let subnet = ClientSubnet::new(self.client.addr(), self.client.prefix_len(), 0);
        let mut edns = Edns::new();
        edns.set_max_payload(answer::UDP_PAYLOAD as u16);
        edns.options_mut().insert(EdnsOption::Subnet(subnet));
        message.set_edns(edns);
        message.to_bytes().expect("one question with one option always encodes")
    }
}

fn record_type(text: &str) -> Option<RecordType> {
    let text = text.to_ascii_uppercase();
    match text.strip_prefix("TYPE").map(str::parse::<u16>) {
        // RFC 3597 §5
        Some(Ok(number)) => Some(RecordType::from(number)),
        _ => RecordType::from_str(&text).ok(),
    }
}

/// Asks the code that answers, and tells why it answered so.
pub fn explain(ask: &Ask, view: &View, basis: Basis, now: SystemTime) -> Explanation {
    let snapshot = &*view.snapshot;
    // TCP, so that nothing is cut off.
    let client = Client { address: ask.client.addr(), port: 0, transport: Transport::Tcp };
    let trace = trace(snapshot, &ask.message(), client);
    let zone = match trace.outcome {
        Outcome::Answered { zone, .. } => zone,
        Outcome::Dropped => None,
    };
    let message = Message::from_vec(&trace.message).expect("a query of our own is answered with what can be read");
    Explanation {
        basis,
        generation: snapshot.generation(),
        at: unix(now),
        question: Question { name: ask.name.to_string(), rtype: ask.rtype.to_string(), client: ask.client.to_string() },
        zone: zone.map(|zone| &snapshot.zones()[zone as usize]).map(|served| ZoneFacts {
            name: served.zone.name.to_string(),
            serial: served.serial,
            file: served.zone.file.display().to_string(),
        }),
        location: location(&snapshot.geography().database, ask.client.addr()),
        steering: trace.steered.map(|steered| match steered {
            Steered::Chose(choosing) => Chooser::new(view, &choosing).facts(ask.client),
            Steered::FellBack(stream) => fallen_back(snapshot, stream),
        }),
        answer: shown(&message),
    }
}

fn fallen_back(snapshot: &Snapshot, stream: &SteeredName) -> Steering {
    let settings = snapshot.settings_of(stream);
    Steering {
        stream: settings.label.to_string(),
        policy: policy(&settings.steering.policy).to_owned(),
        rule: None,
        cell: None,
        block: EVERYBODY.to_owned(),
        regions: vec![],
        chosen: None,
        order: None,
        drawn_by: None,
        by_load: None,
        without_load: None,
        all_down: true,
    }
}

/// All that decided one steered answer, with its settings at hand.
struct Chooser<'a> {
    view: &'a View,
    choosing: &'a Choosing<'a>,
    zone: &'a Zone,
    stream: &'a settings::Stream,
    fleet: &'a Fleet,
    /// The regions and manner that apply to this client: those of the rule, then the stream's own.
    manners: Vec<&'a settings::Steering>,
    prices: Option<Prices<'a>>,
    /// By position in the ranking.
    ways: Vec<Way>,
}

impl<'a> Chooser<'a> {
    fn new(view: &'a View, choosing: &'a Choosing<'a>) -> Chooser<'a> {
        let stream = view.snapshot.settings_of(choosing.stream);
        let rule = choosing.rule.map(|rule| &stream.rules[rule].steering);
        let (fleet, _) = view.snapshot.fleet(choosing.stream.zone);
        let zone = &view.snapshot.zones()[choosing.stream.zone as usize].zone;
        let prices = Prices::of(&view.steering, &view.snapshot, choosing);
        let manners: Vec<&settings::Steering> = rule.into_iter().chain([&stream.steering]).collect();
        // Behind the regions of a rule the others stand as written.
        let first = manners[0];
        let planned = |region: u8| first.policy == Policy::Nearest && first.regions.contains(&region);
        let ways = ways(view, choosing, zone, prices.as_ref(), planned);
        Chooser { view, choosing, zone, stream, fleet, manners, prices, ways }
    }

    fn facts(&self, client: IpNet) -> Steering {
        let Choosing { rule, ranking, scope, chosen, .. } = self.choosing;
        let ranked = ranking.iter().map(|standing| (standing.ranked.region, Some(standing)));
        let never = (0..self.zone.regions.len() as u8)
            .filter(|region| ranking.iter().all(|standing| standing.ranked.region != *region))
            .map(|region| (region, None));
        Steering {
            stream: self.stream.label.to_string(),
            policy: policy(&self.manners[0].policy).to_owned(),
            rule: rule.map(|rule| RuleFacts {
                number: rule + 1,
                of: self.stream.rules.len(),
                from: self.stream.rules[rule].from.iter().map(|(from, _)| from.to_string()).collect(),
            }),
            cell: Some(self.choosing.cell.0),
            block: match IpNet::new(client.addr(), *scope) {
                Ok(block) if *scope > 0 => block.trunc().to_string(),
                _ => EVERYBODY.to_owned(),
            },
            regions: ranked.chain(never).map(|(region, standing)| self.region(region, standing)).collect(),
            chosen: chosen.as_ref().map(|given| self.name(given.region)),
            order: self.order().map(str::to_owned),
            drawn_by: (!self.choosing.draws.is_empty()).then(|| self.drawn_for().to_owned()),
            by_load: self.prices.as_ref().map(|prices| prices.market.describe().to_owned()),
            without_load: self
                .choosing
                .prior
                .filter(|prior| Some(*prior) != chosen.as_ref().map(|given| given.region))
                .map(|prior| self.name(prior)),
            all_down: self.choosing.all_down,
        }
    }

    /// Which order holds, where another could.
    fn order(&self) -> Option<&'static str> {
        if self.ways.iter().any(|way| way.planned) {
            return Some("by the plan for the load: the least cost and price");
        }
        let others = self.prices.is_some() || self.ways.iter().any(|way| way.learned_ms.is_some());
        (others && self.manners[0].policy == Policy::Nearest)
            .then_some("nearest by distance and bias alone; measurements, money and prices have no say")
    }

    fn way(&self, region: u8) -> Option<&Way> {
        self.ways.iter().find(|way| way.region == region)
    }

    fn draw(&self, region: u8) -> Option<&Draw> {
        self.choosing.draws.iter().find(|draw| draw.region == region)
    }

    /// What the hash was of.
    fn drawn_for(&self) -> &'static str {
        if self.choosing.per_query { "query" } else { "block" }
    }

    fn name(&self, region: u8) -> String {
        self.zone.regions[usize::from(region)].name.to_string()
    }

    /// `standing`: `None` for a region that this client is never sent to.
    fn region(&self, region: u8, standing: Option<&Standing>) -> RegionFacts {
        let chosen = self.choosing.chosen.as_ref().filter(|given| given.region == region);
        let members = self.fleet.members(region, self.choosing.family);
        let way = self.way(region);
        RegionFacts {
            name: self.zone.regions[usize::from(region)].name.to_string(),
            cost_ms: way.and_then(Way::ms),
            distance_km: way.and_then(|way| way.distance_km),
            bias_ms: standing.map_or(0, |standing| standing.bias),
            money_ms: way.map_or(0.0, |way| way.money_ms),
            learned_ms: way.and_then(|way| way.learned_ms),
            weight: standing
                .filter(|_| matches!(self.manner_of(region).policy, Policy::Weighted(_)))
                .map(|standing| standing.ranked.weight),
            up: self.view.snapshot.up(self.choosing.stream, self.choosing.family) >> region & 1 == 1,
            mode: self.standing(region).describe().to_owned(),
            share_allowed: self.standing(region).share.part(),
            cost: way.and_then(|way| way.parts),
            draw: self.draw(region).map(|&Draw { hash, share, score, takes, .. }| DrawFacts {
                hash,
                share,
                score,
                takes,
            }),
            load: (self.prices.as_ref().zip(standing))
                .and_then(|(prices, standing)| prices.facts(standing, &self.choosing.ranking)),
            chosen: chosen.is_some(),
            why: standing.map_or_else(|| self.why_never(region), |standing| self.why(standing)),
            servers: members.iter().map(|member| self.server(region, member, chosen)).collect(),
        }
    }

    /// What holds of a region besides the verdicts.
    fn standing(&self, region: u8) -> &standing::Standing {
        self.view.snapshot.standing(self.choosing.stream.zone, region)
    }

    fn up_count(&self, region: u8, members: &[Member]) -> usize {
        let (_, state) = self.view.snapshot.fleet(self.choosing.stream.zone);
        let verdicts = self.view.snapshot.verdicts();
        let is_up = |member: &&Member| state.is_up(usize::from(region), self.choosing.family, member, verdicts);
        members.iter().filter(is_up).count()
    }

    /// Why a region is down for the stream.
    fn why_down(&self, region: u8) -> String {
        let Choosing { family, stream, .. } = self.choosing;
        if self.standing(region).forced == Some(Forced::Down) {
            return "forced down by the operator".to_owned();
        }
        let (_, state) = self.view.snapshot.fleet(stream.zone);
        if state.up(*family) >> region & 1 == 1 {
            let names: Vec<String> = self.stream.needs.iter().map(|(name, _)| name.to_string()).collect();
            return format!("not all that the stream needs is up there: {}", names.join(", "));
        }
        let members = self.fleet.members(region, *family);
        let needed = self.fleet.min_up(region, *family);
        format!("{} of {} servers up, {needed} needed", self.up_count(region, members), members.len())
    }

    /// Why a region that is up and would come first does not take this client.
    fn why_closed(&self, region: u8) -> Option<String> {
        let standing = self.standing(region);
        let part = standing.share.part();
        match standing.share {
            Share::FULL => None,
            Share::NONE => Some("drained by the operator".to_owned()),
            _ => {
                Some(format!("{}: takes {:.0} % of its clients, and not this block", standing.describe(), part * 100.0))
            }
        }
    }

    /// The settings that put a region of the ranking where it is: those of the rule go first.
    fn manner_of(&self, region: u8) -> &'a settings::Steering {
        let takes = |manner: &&&settings::Steering| {
            let position = manner.regions.iter().position(|other| *other == region);
            position.is_some_and(|position| match &manner.policy {
                Policy::Weighted(weights) => weights[position] > 0,
                Policy::Nearest | Policy::Priority => true,
            })
        };
        self.manners.iter().find(takes).unwrap_or(&self.manners[0])
    }

    fn why_never(&self, region: u8) -> String {
        let named = self.manners.iter().any(|manner| manner.regions.contains(&region));
        if named { "weight 0 takes none" } else { "not among the regions of this name" }.to_owned()
    }

    /// Why a region was chosen, or why it lost.
    fn why(&self, standing: &Standing) -> String {
        let Choosing { family, ranking, all_down, chosen, .. } = self.choosing;
        let region = standing.ranked.region;
        if !standing.declared {
            return format!("has no {} address", if *family == Family::V4 { "A" } else { "AAAA" });
        }
        if !standing.up && !all_down {
            return self.why_down(region);
        }
        let manner = self.manner_of(region);
        let total: u32 = ranking
            .iter()
            .filter(|other| other.candidate && other.ranked.tier_end == standing.ranked.tier_end)
            .map(|other| u32::from(other.ranked.weight))
            .sum();
        let weight = standing.ranked.weight;
        let winner = chosen.as_ref().and_then(|given| ranking.iter().find(|other| other.ranked.region == given.region));
        let Some(winner) = winner else { return "nothing was chosen".to_owned() };
        let place = |of: u8| ranking.iter().position(|other| other.ranked.region == of);
        let asked_before = match (self.draw(region), self.draw(winner.ranked.region)) {
            (Some(draw), Some(winner)) => draw.score < winner.score,
            _ => place(region) < place(winner.ranked.region),
        };
        if asked_before && let Some(why) = self.why_closed(region) {
            return why;
        }
        if let Some(why) = self.why_by_load(standing, winner) {
            return why;
        }
        if winner.ranked.region == region
            && !matches!(manner.policy, Policy::Weighted(_))
            && ![Share::FULL, Share::NONE].contains(&self.standing(region).share)
        {
            let part = self.standing(region).share.part() * 100.0;
            return format!(
                "{}: takes {part:.0} % of its clients, this block among them",
                self.standing(region).describe()
            );
        }
        if winner.ranked.region == region {
            return match &manner.policy {
                Policy::Weighted(_) if self.draw(region).is_none() => {
                    "the only one that is up of those with a weight".into()
                }
                Policy::Weighted(_) => format!("drawn for this {}: weight {weight} of {total}", self.drawn_for()),
                _ if *all_down => "the first: every region is down, so all are taken as up".to_owned(),
                _ if self.standing(region).share == Share::NONE => "drained, but no other region is up".to_owned(),
                Policy::Nearest if standing.cost_ms.is_some() => "the nearest that is up".to_owned(),
                Policy::Nearest => "the first that is up: without a location, the order written holds".to_owned(),
                Policy::Priority => "the first that is up".to_owned(),
            };
        }
        if !std::ptr::eq(manner, self.manner_of(winner.ranked.region)) {
            return "only when every region of the rule is down".to_owned();
        }
        match (&manner.policy, standing.cost_ms.zip(winner.cost_ms)) {
            (Policy::Weighted(_), _) => {
                format!("not drawn for this {}: weight {weight} of {total}", self.drawn_for())
            }
            (Policy::Nearest, Some((cost, best))) => format!("{:.0} ms more", cost - best),
            (Policy::Nearest | Policy::Priority, _) => "later in the order written".to_owned(),
        }
    }

    /// Why a region was chosen or not, where the plan of the solver decided.
    fn why_by_load(&self, standing: &Standing, winner: &Standing) -> Option<String> {
        let ranking = &self.choosing.ranking;
        let (prices, region) = (self.prices.as_ref()?, standing.ranked.region);
        if ![region, winner.ranked.region].iter().all(|region| self.way(*region).is_some_and(|way| way.planned)) {
            return None;
        }
        let whole = |standing: &Standing| {
            let region = standing.ranked.region;
            let price = prices.region(region).map_or(0.0, |region| region.price_ms);
            Some(self.way(region)?.ms()? + price)
        };
        let full = |region: u8| {
            let known = prices.region(region)?;
            let percent = known.utilization? * 100.0;
            (known.price_ms >= 0.5).then(|| format!(", {percent:.0} % full: costs {:.0} ms more", known.price_ms))
        };
        let full = full(region).unwrap_or_default();
        let part = share(standing, ranking);
        if winner.ranked.region != region && self.standing(region).share == Share::NONE {
            return self.why_closed(region);
        }
        if winner.ranked.region == region {
            return Some(match part {
                0.0 => format!("the cheapest that is up{full}"),
                1.0 => format!("the cheapest{full}"),
                _ if self.draw(region).is_none() => format!("the only one that is up of those planned for{full}"),
                part => format!("drawn for this {}: {:.0} % of the cell{full}", self.drawn_for(), part * 100.0),
            });
        }
        if part > 0.0 {
            return Some(format!("not drawn for this {}: {:.0} % of the cell{full}", self.drawn_for(), part * 100.0));
        }
        let (cost, best) = whole(standing).zip(whole(winner))?;
        Some(match cost - best {
            more if more >= 0.0 => format!("{more:.0} ms more in all{full}"),
            less => format!("{:.0} ms less in all, and next to take viewers{full}", -less),
        })
    }

    fn forced_server(&self, region: u8, member: &Member) -> Option<Forced> {
        let (_, state) = self.view.snapshot.fleet(self.choosing.stream.zone);
        state.forced(usize::from(region), member.server)
    }

    fn server(&self, region: u8, member: &Member, given: Option<&Given>) -> ServerFacts {
        let target = member.target.map(|id| &self.view.snapshot.targets()[id.0 as usize]);
        let belief = target.and_then(|target| self.view.beliefs.get(target));
        let verdict = match member.verdict(self.view.snapshot.verdicts()) {
            None => "unprobed",
            Some(Verdict::Unknown) => "unknown",
            Some(Verdict::Up) => "up",
            Some(Verdict::Down) => "down",
            Some(Verdict::Damped) => "damped",
        };
        let verdict = match self.forced_server(region, member) {
            Some(Forced::Up) => "forced up",
            Some(Forced::Down) => "forced down",
            None => verdict,
        };
        ServerFacts {
            address: member.address.to_string(),
            verdict: verdict.to_owned(),
            cause: belief.map(|belief| belief.cause.to_string()),
            since: belief.map(|belief| unix(belief.since)),
            given: given.is_some_and(|given| given.addresses.contains(&member.address)),
        }
    }
}

fn policy(policy: &Policy) -> &'static str {
    match policy {
        Policy::Nearest => "nearest",
        Policy::Priority => "priority",
        Policy::Weighted(_) => "weighted",
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn shown(message: &Message) -> Answer {
    let header = &message.metadata;
    let flags = [
        ("qr", true),
        ("aa", header.authoritative),
        ("tc", header.truncation),
        ("rd", header.recursion_desired),
        ("ra", header.recursion_available),
    ];
    let scope = message.edns.as_ref().and_then(|edns| match edns.option(EdnsCode::Subnet) {
        Some(EdnsOption::Subnet(subnet)) => Some(subnet.scope_prefix()),
        _ => None,
    });
    let lines = |records: &[Record]| records.iter().map(ToString::to_string).collect();
    Answer {
        rcode: format!("{:?}", header.response_code).to_ascii_uppercase(),
        flags: flags.iter().filter(|(_, set)| *set).map(|(flag, _)| (*flag).to_owned()).collect(),
        scope,
        answer: lines(&message.answers),
        authority: lines(&message.authorities),
        additional: lines(&message.additionals),
    }
}

fn location(database: &Database, client: IpAddr) -> Location {
    let found = database.lookup(client);
    let mut said_by: Vec<SaidBy> = Vec::new();
    let mut note = |attribute: &str, by: String| match said_by.iter_mut().find(|said| said.by == by) {
        Some(said) => said.attribute = format!("{}, {attribute}", said.attribute),
        None => said_by.push(SaidBy { attribute: attribute.to_owned(), by }),
    };
    fn said<T: Copy>(told: &Option<Told<T>>, name: &str, note: &mut impl FnMut(&str, String)) -> Option<T> {
        told.as_ref().map(|told| {
            note(name, told.by.to_string());
            told.value
        })
    }
    let point = said(&found.location, "location", &mut note);
    let country = said(&found.country, "country", &mut note);
    let subdivision = said(&found.subdivision, "subdivision", &mut note);
    let continent = said(&found.continent, "continent", &mut note);
    let asn = said(&found.asn, "AS number", &mut note);
    Location {
        network: found.network.to_string(),
        latitude: point.map(|point| point.lat()),
        longitude: point.map(|point| point.lon()),
        country: country.map(|country| country.to_string()),
        subdivision: subdivision.map(|subdivision| subdivision.to_string()),
        continent: continent.map(|continent| continent.to_string()),
        asn,
        said_by,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Shared, load_zones};
    use crate::snapshot::{Served, TargetId};
    use crate::world::{Belief, Beliefs};

    const ZONE: &str = r#"
        zone = "stream.example"
        ns   = ["ns1.example.net", "ns2.example.net"]
        [check]
        tcp = 1935
        [region.us]
        at   = [39.04, -77.49]
        a    = ["192.0.2.11"]
        aaaa = ["2001:db8::11"]
        [region.eu]
        at   = [51.51, -0.13]
        a    = ["192.0.2.21"]
        [region.ap]
        at   = [1.29, 103.85]
        a    = ["192.0.2.31"]
        [stream.live]
        bias  = { us = 5 }
        rules = [{ from = ["81.2.69.0/24"], regions = ["ap", "eu"], policy = "priority" }]
        [stream.some]
        regions = ["us"]
        fallback = "live.example.net"
        [stream.spread]
        policy  = "weighted"
        weights = { us = 1, eu = 3, ap = 0 }
        [records]
        www = { CNAME = "live" }
    "#;
    const RULED: &str = "81.2.69.0/24";
    const ELSEWHERE: &str = "203.0.113.0/24";

    /// A view in which the regions named are down.
    fn view(down: &[&str]) -> View {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("zone.toml"), ZONE).unwrap();
        let mut loaded = load_zones(&[dir.path().to_owned()], &Shared::default());
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let zone = Arc::new(loaded.zones.remove(0));
        let served = Served { zone: Arc::clone(&zone), serial: 7 };
        let snapshot = Snapshot::compile(vec![served], &Arc::new(Database::empty()), |_| Verdict::Up, None);
        let (fleet, _) = snapshot.fleet(0);
        let dead: Vec<TargetId> = (0..zone.regions.len())
            .filter(|r| down.contains(&&*zone.regions[*r].name))
            .flat_map(|r| Family::BOTH.map(|family| fleet.members(r as u8, family)))
            .flatten()
            .filter_map(|member| member.target)
            .collect();
        let belief = Belief::new(Verdict::Down, "refused".into(), UNIX_EPOCH);
        let beliefs: Beliefs =
            dead.iter().map(|id| (snapshot.targets()[id.0 as usize].clone(), belief.clone())).collect();
        let changes: Vec<_> = dead.into_iter().map(|id| (id, Verdict::Down)).collect();
        View::of(Arc::new(snapshot.with_verdicts(&changes)), Arc::new(beliefs))
    }

    /// Region by region, with why; `->` before the one chosen.
    fn told(view: &View, name: &str, rtype: &str, client: &str) -> String {
        let ask = Ask::read(name, rtype, client).unwrap();
        let Some(steering) = explain(&ask, view, Basis::Server, SystemTime::now()).steering else {
            return "not steered".to_owned();
        };
        let regions = steering
            .regions
            .iter()
            .map(|region| format!("{}{}: {}\n", if region.chosen { "-> " } else { "" }, region.name, region.why));
        regions.collect()
    }

    #[test]
    fn a_rule_goes_before_the_streams_own_regions() {
        assert_eq!(
            told(&view(&[]), "live.stream.example", "A", RULED),
            "-> ap: the first that is up\neu: later in the order written\nus: only when every region of the rule is down\n"
        );
        assert_eq!(
            told(&view(&["ap"]), "www.stream.example", "A", RULED),
            "ap: 0 of 1 servers up, 1 needed\n-> eu: the first that is up\nus: only when every region of the rule is down\n"
        );
    }

    #[test]
    fn a_client_that_no_database_places_gets_the_order_written() {
        assert_eq!(
            told(&view(&[]), "live.stream.example", "A", ELSEWHERE),
            "-> us: the first that is up: without a location, the order written holds\n\
             eu: later in the order written\nap: later in the order written\n"
        );
    }

    #[test]
    fn a_region_without_an_address_of_the_type_loses_for_that() {
        let told = told(&view(&[]), "live.stream.example", "AAAA", RULED);
        assert!(told.starts_with("ap: has no AAAA address\neu: has no AAAA address\n-> us: "), "{told}");
    }

    #[test]
    fn weights_are_told_and_a_region_that_takes_none_is_last() {
        let told = told(&view(&[]), "spread.stream.example", "A", RULED);
        assert!(told.contains("drawn for this query: weight 3 of 4"), "{told}");
        assert!(told.ends_with("ap: weight 0 takes none\n"), "{told}");
    }

    #[test]
    fn when_all_are_down_all_are_taken_as_up_or_the_fallback_is_given() {
        let view = view(&["us", "eu", "ap"]);
        assert_eq!(
            told(&view, "live.stream.example", "A", RULED).lines().next().unwrap(),
            "-> ap: the first: every region is down, so all are taken as up"
        );
        let ask = Ask::read("some.stream.example", "A", RULED).unwrap();
        let explanation = explain(&ask, &view, Basis::Server, SystemTime::now());
        let steering = explanation.steering.unwrap();
        assert!(steering.all_down && steering.chosen.is_none());
        assert_eq!(explanation.answer.answer, ["some.stream.example. 20 IN CNAME live.example.net."]);
    }

    #[test]
    fn servers_are_told_with_verdict_and_cause() {
        let ask = Ask::read("live.stream.example.", "a", "81.2.69.142").unwrap();
        let explanation = explain(&ask, &view(&["ap"]), Basis::Server, SystemTime::now());
        let regions = explanation.steering.unwrap().regions;
        let (ap, eu) = (&regions[0].servers[0], &regions[1].servers[0]);
        assert_eq!((&*ap.verdict, ap.cause.as_deref(), ap.given), ("down", Some("refused"), false));
        assert_eq!((&*eu.verdict, &eu.cause, eu.given), ("up", &None, true));
    }

    #[test]
    fn static_names_and_names_not_ours_are_not_steered() {
        let view = view(&[]);
        assert_eq!(told(&view, "stream.example", "SOA", RULED), "not steered");
        assert_eq!(told(&view, "live.stream.example", "TXT", RULED), "not steered");
        let ask = Ask::read("example.org", "A", RULED).unwrap();
        let explanation = explain(&ask, &view, Basis::Server, SystemTime::now());
        assert_eq!((explanation.zone, &*explanation.answer.rcode), (None, "REFUSED"));
    }

    #[test]
    fn words_that_make_no_question_are_told_apart() {
        for (name, rtype, client, wrong) in [
            ("a..b", "A", RULED, "no domain name"),
            ("a.example", "ADDRESS", RULED, "no record type"),
            ("a.example", "TYPE99999", RULED, "no record type"),
            ("a.example", "A", "London", "no address or prefix"),
            ("a.example", "A", "192.0.2.0/33", "no address or prefix"),
        ] {
            let error = Ask::read(name, rtype, client).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
        assert_eq!(
            Ask::read(r"\000\255.z.example", "A", RULED).unwrap().name.iter().next(),
            Some(&b"\x00\xff"[..]),
            "as zone files write names"
        );
        assert_eq!(Ask::read("a.example", "TYPE65", RULED), Ask::read("A.example.", "https", RULED));
        assert_eq!(Ask::read("a.", "A", "192.0.2.77/24"), Ask::read("a", "A", "192.0.2.0/24"), "host bits are cut off");
    }
}
