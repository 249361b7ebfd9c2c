//! An answer, and how its region and servers were chosen: what `explain` shows.

use std::net::IpAddr;
use std::slice;

use crate::config::settings::Family;
use crate::geo::CellId;
use crate::snapshot::{Snapshot, SteeredName};
use crate::steering::pick::{self, Draw};
use crate::steering::plan::{Choice, Ranked};

use super::steer::{Chosen, Whereabouts};
use super::{Client, Outcome, Pending, Witness, seek};

/// An answer with the findings on its way.
pub struct Trace<'a> {
    pub outcome: Outcome,
    /// The message; empty when none was given.
    pub message: Vec<u8>,
    /// How the steered name was answered that the question came to, by CNAMEs perhaps.
    pub steered: Option<Steered<'a>>,
}

pub enum Steered<'a> {
    /// Every region was down: the CNAME for that day was given.
    FellBack(&'a SteeredName),
    Chose(Choosing<'a>),
}

/// How a steered name chose.
pub struct Choosing<'a> {
    pub stream: &'a SteeredName,
    pub family: Family,
    pub cell: CellId,
    /// What was looked up: the client subnet's address, else the packet's source.
    pub address: IpAddr,
    /// Position among the stream's rules of the one that applies to this client.
    pub rule: Option<usize>,
    /// Every region that this client may be sent to, best first.
    pub ranking: Vec<Standing>,
    /// The ranking is the solver's, made for the load.
    pub solved: bool,
    /// The first region that is up by the policy alone.
    pub prior: Option<u8>,
    /// How the hash decided, the least first. Empty where it decided nothing.
    pub draws: Vec<Draw>,
    /// The hash was of the very query, its id and port, and not of the block.
    pub per_query: bool,
    /// No region of the ranking was up: all were taken as up.
    pub all_down: bool,
    /// SCOPE PREFIX-LENGTH as returned.
    pub scope: u8,
    /// `None`: none of the ranking declares an address of the family.
    pub chosen: Option<Given>,
}

/// A region in the ranking of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub ranked: Ranked,
    /// Round trip by distance alone, ms, the bias included: what the order is made of where no solver made it. `None`
    /// without a location on either side.
    pub cost_ms: Option<f64>,
    pub distance_km: Option<f64>,
    /// ms
    pub bias: i32,
    /// Has an address of the family.
    pub declared: bool,
    pub up: bool,
    /// Among those between which the hash decided.
    pub candidate: bool,
}

/// The region that was chosen and its addresses in the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    pub region: u8,
    pub addresses: Vec<IpAddr>,
}

/// Answers as [`super::respond`] does. Allocates; not for the answer path.
pub fn trace<'a>(snapshot: &'a Snapshot, message: &[u8], client: Client) -> Trace<'a> {
    let mut out = vec![0; usize::from(u16::MAX)];
    let mut notes = Notes { snapshot, steered: None };
    let mut pending = Pending::read(snapshot, message, client);
    seek(slice::from_mut(&mut pending));
    let outcome = pending.write_before(&mut out, &mut notes);
    out.truncate(match outcome {
        Outcome::Dropped => 0,
        Outcome::Answered { length, .. } => length,
    });
    Trace { outcome, message: out, steered: notes.steered }
}

struct Notes<'a> {
    snapshot: &'a Snapshot,
    steered: Option<Steered<'a>>,
}

impl<'a> Witness<'a> for Notes<'a> {
    fn fell_back(&mut self, stream: &'a SteeredName) {
        self.steered = Some(Steered::FellBack(stream));
    }

    fn steered(
        &mut self,
        stream: &'a SteeredName,
        family: Family,
        whereabouts: &Whereabouts,
        chosen: Result<&Chosen<'a>, u8>,
    ) {
        let geography = self.snapshot.geography();
        let (fleet, _) = self.snapshot.fleet(stream.zone);
        let plan = &geography.plans[stream.plan as usize];
        let place = &geography.places.list[geography.places.locate(whereabouts.address).0 as usize];
        let rule = plan.spec.rule_for(place);
        let rankings = self.snapshot.rankings(stream);
        let ranking = rankings.ranking(whereabouts.cell);
        // Where all cells have one ranking the answer does not ask where anybody is.
        let cell = match rankings.is_geographic() {
            true => whereabouts.cell,
            false => geography.atlas.locate(whereabouts.address, u8::MAX).cell,
        };
        let (up, field) = (self.snapshot.up(stream, family), self.snapshot.field(stream, family));
        let candidates = pick::candidates(ranking, &field);
        let tier: Vec<u8> = pick::tier(ranking, candidates).map(|ranked| ranked.region).collect();
        let choices: Vec<&Choice> =
            rule.map(|rule| &plan.spec.rules[rule].1).into_iter().chain([&plan.spec.own]).collect();
        let standing = |&ranked: &Ranked| {
            let contender = choices.iter().find_map(|choice| {
                Some((choice, choice.options.iter().find(|option| option.region == ranked.region)?))
            });
            let is_in = |mask: u64| mask >> ranked.region & 1 == 1;
            Standing {
                ranked,
                cost_ms: contender.and_then(|(choice, option)| choice.cost_ms(option, place.location)),
                distance_km: contender.and_then(|(_, option)| Some(place.location?.distance_km(option.location?))),
                bias: contender.map_or(0, |(_, option)| option.bias),
                declared: is_in(fleet.declared(family)),
                up: is_in(up),
                candidate: tier.contains(&ranked.region),
            }
        };
        self.steered = Some(Steered::Chose(Choosing {
            stream,
            family,
            cell,
            address: whereabouts.address,
            rule,
            ranking: ranking.iter().map(standing).collect(),
            draws: pick::draws(ranking, candidates, field.open, whereabouts.block(true).1),
            per_query: whereabouts.is_per_query(),
            solved: rankings.is_solved(),
            prior: (rankings.is_solved())
                .then(|| pick::tier(plan.prior.ranking(cell), candidates).next().map(|first| first.region))
                .flatten(),
            all_down: !ranking.iter().any(|ranked| up >> ranked.region & 1 == 1),
            scope: chosen.map_or_else(|scope| scope, |chosen| chosen.scope),
            chosen: chosen.ok().map(|chosen| Given { region: chosen.ranked.region, addresses: addresses(chosen) }),
        }));
    }
}

/// The addresses of the window that was given, read back from its records.
fn addresses(chosen: &Chosen<'_>) -> Vec<IpAddr> {
    let records = chosen.ring.window(chosen.position).chunks_exact(chosen.ring.record_len());
    let address = |rdata: &[u8]| match rdata.first_chunk::<16>() {
        Some(&octets) => Some(IpAddr::from(octets)),
        None => rdata.first_chunk::<4>().copied().map(IpAddr::from),
    };
    records.filter_map(|record| address(&record[12..])).collect()
}
