//! What decided one steered answer: the facts of every region and server.

use ipnet::IpNet;

use super::ask::unix;
use super::cost::{Way, ways};
use super::load::Prices;
use super::{DrawFacts, RegionFacts, RuleFacts, ServerFacts, Steering};
use crate::answer::trace::{Choosing, Given, Standing};
use crate::config::settings::{self, Policy, Zone};
use crate::health::Verdict;
use crate::snapshot::fleet::{Fleet, Member};
use crate::snapshot::standing::{self, Forced};
use crate::snapshot::{Snapshot, SteeredName};
use crate::steering::pick::Draw;
use crate::world::View;

mod why;

/// A block, where no client address can change the answer.
const EVERYBODY: &str = "every client";

/// All that decided one steered answer, with its settings at hand.
pub struct Chooser<'a> {
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
    pub fn new(view: &'a View, choosing: &'a Choosing<'a>) -> Chooser<'a> {
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

    pub fn facts(&self, client: IpNet) -> Steering {
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
            name: self.name(region),
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

/// Where no region is chosen, and the fallback name is given.
pub fn fallen_back(snapshot: &Snapshot, stream: &SteeredName) -> Steering {
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

fn policy(policy: &Policy) -> &'static str {
    match policy {
        Policy::Nearest => "nearest",
        Policy::Priority => "priority",
        Policy::Weighted(_) => "weighted",
    }
}
