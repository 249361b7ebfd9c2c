//! The choice of a region and its servers for one client.

use std::net::IpAddr;

use crate::config::settings::Family;
use crate::geo::{Atlas, CellId, Located, Search};
use crate::snapshot::ring::Ring;
use crate::snapshot::{Snapshot, SteeredName};
use crate::steering::plan::Ranked;
use crate::steering::{key, pick};

use super::Client;
use super::ecs::ClientSubnet;

/// Who asks, and how to tell their askings apart.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub client: Client,
    /// Message id.
    pub id: u16,
    pub subnet: Option<ClientSubnet>,
}

/// Where the asker is, for one plan.
#[derive(Clone, Copy, Debug)]
pub struct Whereabouts {
    pub cell: CellId,
    /// The address that was looked up: the client subnet's, else the packet's source.
    pub address: IpAddr,
    /// Scope for an answer that does not spread, and for one that does; both 0 where the subnet made no difference.
    scope: u8,
    spread_scope: u8,
    /// Given when the choice must not depend on the subnet.
    key: Option<u64>,
}

/// The way to the [`Whereabouts`] of an asker, in steps that take one load each.
pub struct Seek {
    address: IpAddr,
    /// `None`: the plan does not ask where anybody is.
    search: Option<Search>,
    /// Looked for is a client subnet, not the packet's source.
    is_subnet: bool,
}

impl Seek {
    #[inline]
    pub fn begin(snapshot: &Snapshot, stream: &SteeredName, asker: &Asker) -> Seek {
        let source = asker.client.address;
        if !snapshot.rankings(stream).is_geographic() {
            return Seek { address: source, search: None, is_subnet: false };
        }
        // "A SOURCE PREFIX-LENGTH value of 0 means that the Recursive Resolver MUST NOT add the client's address
        // information" (RFC 7871 §7.1.2): the resolver itself is the client, and the answer is for all of its.
        let subnet = asker.subnet.filter(|subnet| subnet.source > 0);
        let (address, length) = subnet.map_or((source, u8::MAX), |subnet| (subnet.address, subnet.source));
        Seek { address, search: Some(Atlas::search(address, length)), is_subnet: subnet.is_some() }
    }

    #[inline]
    pub fn first(&mut self, atlas: &Atlas) {
        if let Some(search) = &mut self.search {
            atlas.first(search);
        }
    }

    #[inline]
    pub fn second(&mut self, atlas: &Atlas) {
        if let Some(search) = &mut self.search {
            atlas.second(search);
        }
    }

    /// To be called when both steps were taken.
    #[inline]
    pub fn end(&self, atlas: &Atlas, asker: &Asker) -> Whereabouts {
        let &Seek { address, ref search, is_subnet } = self;
        let Some(located) = search.as_ref().map(|search| atlas.found(search)) else {
            let key = Some(packet_key(asker, address, u8::MAX));
            return Whereabouts { cell: CellId(0), address, scope: 0, spread_scope: 0, key };
        };
        let Located { cell, scope, spread_scope } = located;
        match is_subnet {
            true => Whereabouts { cell, address, scope, spread_scope, key: None },
            false => {
                let key = Some(packet_key(asker, address, spread_scope));
                Whereabouts { cell, address, scope: 0, spread_scope: 0, key }
            }
        }
    }
}

impl Whereabouts {
    pub fn find(snapshot: &Snapshot, stream: &SteeredName, asker: &Asker) -> Whereabouts {
        let atlas = &snapshot.geography().atlas;
        let mut seek = Seek::begin(snapshot, stream, asker);
        seek.first(atlas);
        seek.second(atlas);
        seek.end(atlas, asker)
    }

    /// Scope and hash key of an answer.
    pub(super) fn block(&self, spread: bool) -> (u8, u64) {
        let scope = if spread { self.spread_scope } else { self.scope };
        (scope, self.key.unwrap_or_else(|| address_key(self.address, scope)))
    }

    /// Whether the key is of the very query, so that the next one may be answered otherwise.
    pub(super) fn is_per_query(&self) -> bool {
        self.key.is_some()
    }

    /// `block`: the hash key of the answer.
    fn cached_under(&self, block: u64) -> u64 {
        match (self.key, self.address) {
            (None, _) => block,
            (Some(_), IpAddr::V4(address)) => key::block4(address.to_bits(), 32),
            (Some(_), IpAddr::V6(address)) => key::block6(address.to_bits(), RESOLVER6),
        }
    }
}

/// Bits of an IPv6 resolver's address that tell it from others.
const RESOLVER6: u8 = 64;

/// Spreads the viewers behind one resolver, which asks for all of them.
fn packet_key(asker: &Asker, source: IpAddr, length: u8) -> u64 {
    key::spread(address_key(source, length), asker.id, asker.client.port)
}

fn address_key(address: IpAddr, length: u8) -> u64 {
    match address {
        IpAddr::V4(address) => key::block4(address.to_bits(), length.min(32)),
        IpAddr::V6(address) => key::block6(address.to_bits(), length.min(128)),
    }
}

/// What is given to the asker.
pub struct Chosen<'a> {
    pub ranked: Ranked,
    pub ring: &'a Ring,
    /// Position in the ring of the first address given.
    pub position: usize,
    pub scope: u8,
    /// Its region, or one that comes before it, is on the move or in doubt: the answer should not live long.
    pub brief: bool,
    /// Hash of what the answer is cached under: the block of its scope, or the resolver that asks without a subnet.
    pub cached_under: u64,
}

/// `None`: no region that this asker could be sent to has an address of the family; the scope says for whom that holds.
pub fn choose<'a>(
    snapshot: &'a Snapshot,
    stream: &SteeredName,
    family: Family,
    whereabouts: &Whereabouts,
) -> Result<Chosen<'a>, u8> {
    let (fleet, state) = snapshot.fleet_for(stream);
    let rankings = snapshot.rankings(stream);
    let ranking = rankings.ranking(whereabouts.cell);
    let field = snapshot.field(stream, family);
    let (ranked, split, moving) = match pick::undisputed(ranking, &field) {
        Some(ranked) => (*ranked, false, false),
        None => {
            let candidates = pick::candidates(ranking, &field);
            let split = pick::is_split(ranking, candidates, field.open);
            let (_, key) = whereabouts.block(split);
            let Some(pick) = pick::pick(ranking, candidates, field.open, key) else { return Err(whereabouts.scope) };
            (*pick.ranked, split, pick.moving)
        }
    };
    let brief = moving || (state.brief() | rankings.brief()) >> ranked.region & 1 == 1;
    let ring = state.ring(fleet, ranked.region, family, ranked.answers);
    let (scope, key) = whereabouts.block(split || ring.is_spread());
    let cached_under = whereabouts.cached_under(key);
    // Mixed once more, so that the server does not follow from what chose the region.
    Ok(Chosen { ranked, ring, position: ring.position(key::mix(key)), scope, brief, cached_under })
}

/// Whether every region that this asker may be sent to is down in both families, and the scope of an answer that says so.
pub fn fallen_back(snapshot: &Snapshot, stream: &SteeredName, asker: &Asker) -> Option<u8> {
    let up = snapshot.up(stream, Family::V4) | snapshot.up(stream, Family::V6);
    if stream.common & up != 0 {
        return None;
    }
    if stream.regions & up == 0 {
        return Some(0);
    }
    // Only the regions of some rule are left, and the asker may not be whom it is about.
    let whereabouts = Whereabouts::find(snapshot, stream, asker);
    let ranking = snapshot.rankings(stream).ranking(whereabouts.cell);
    ranking.iter().all(|ranked| up >> ranked.region & 1 == 0).then_some(whereabouts.scope)
}
