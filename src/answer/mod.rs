//! Wire query in, wire answer out: [`respond`], the one answering engine of every transport and tool.
//!
//! Its stages, a module each: [`query`] reads the packet in place, with its client subnet ([`ecs`]); `lookup` finds
//! what stands at the name; [`steer`] chooses region and servers; `write` puts prepared records behind the question.
//! [`trace`] answers in the same way and keeps what the stages found.

pub mod ecs;
pub mod lookup;
pub mod query;
pub mod steer;
pub mod trace;
mod write;

use std::net::IpAddr;
use std::slice;

use hickory_proto::rr::RecordType;

use crate::config::settings::Family;
use crate::demand::asked::Asked;
use crate::geo::Atlas;
use crate::snapshot::names::{Cut, Data, Records};
use crate::snapshot::{Snapshot, SteeredName};

use lookup::{Lookup, lookup};
use query::{Folded, HEADER_LEN, Header, MAX_NAME_LEN, Malformed, Query};
use steer::{Asker, Chosen, Seek, Whereabouts};
use write::{Flags, Full, Section, Writer, opt};

/// How a query came; it decides how long an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Answers are cut at what the query's OPT allows, at most [`UDP_PAYLOAD`] bytes.
    Udp,
    /// Answers up to 65,535 bytes.
    Tcp,
}

/// Largest UDP answer, and the payload size that we advertise (DNS flag day 2020).
pub const UDP_PAYLOAD: usize = 1232;
/// What every client takes (RFC 1035 §2.3.4).
const MIN_PAYLOAD: usize = 512;
/// Longer CNAME chains end there; the resolver asks on. A loop ends so too.
const MAX_CHAIN: usize = 12;

/// Who asks, as the socket knows it.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub address: IpAddr,
    pub port: u16,
    pub transport: Transport,
}

/// What was done with a query, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing may be sent: too short for a header, or itself a response.
    Dropped,
    Answered {
        /// Bytes written to the front of `out`.
        length: usize,
        /// The 12-bit extended RCODE (RFC 6891 §6.1.3).
        rcode: u16,
        /// Position in the snapshot's zones; `None` outside all of them.
        zone: Option<u32>,
        /// Position in the zone's regions, when a steered address RRset was given.
        region: Option<u8>,
        /// What demand is estimated of: a steered answer with addresses, of one type only, A where the stream has any.
        asked: Option<Asked>,
    },
}

/// RCODEs that we give (RFC 1035 §4.1.1, RFC 2136 §2.2, RFC 6891 §9).
mod rcode {
    pub const FORMERR: u16 = 1;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const YXDOMAIN: u16 = 6;
    pub const BADVERS: u16 = 16;
}

const OPCODE_QUERY: u8 = 0;
const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;

/// Answers one message. Pure: no I/O, no lock, no clock, no allocation.
///
/// `out` holds at least [`UDP_PAYLOAD`] bytes for UDP and 65,535 for TCP.
pub fn respond(snapshot: &Snapshot, message: &[u8], client: Client, out: &mut [u8]) -> Outcome {
    let mut pending = Pending::read(snapshot, message, client);
    seek(slice::from_mut(&mut pending));
    pending.write(out)
}

/// A message between the stages of its answer: [`Pending::read`], then [`seek`], then [`Pending::write`].
///
/// The large tables that a client is looked up in do not stay in the processor's caches, least of all with the kernel at
/// work between two batches of queries. Who takes each stage for a whole batch waits for memory once and not for each
/// query.
pub struct Pending<'a, 'q>(Stage<'a, 'q>);

enum Stage<'a, 'q> {
    Dropped,
    Malformed { header: Header, question: &'q [u8] },
    Read(Read<'a, 'q>),
}

struct Read<'a, 'q> {
    snapshot: &'a Snapshot,
    header: Header,
    query: Query<'q>,
    asker: Asker,
    name_len: usize,
    /// What stands at the name asked for, or the RCODE for a query that is not looked at so far.
    found: Result<Lookup<'a>, u16>,
    /// Where a steered name is asked for, and its answer depends on the client.
    seek: Option<Seek>,
}

impl<'a, 'q> Pending<'a, 'q> {
    pub fn read(snapshot: &'a Snapshot, message: &'q [u8], client: Client) -> Pending<'a, 'q> {
        let Some(header) = Header::read(message) else { return Pending(Stage::Dropped) };
        let mut name = Folded::root();
        let query = match Query::read(message, header, &mut name) {
            Ok(query) => query,
            Err(Malformed { question }) => {
                return Pending(Stage::Malformed { header, question: question.unwrap_or_default() });
            }
        };
        let asker = Asker { client, id: header.id, subnet: query.edns.and_then(|edns| edns.subnet) };
        let found = match refused(header, &query) {
            Some(rcode) => Err(rcode),
            None => Ok(lookup(snapshot.names(), &name, query.qtype)),
        };
        let seek = match &found {
            Ok(Lookup::Exists { data, .. }) => steered(snapshot, data, RecordType::from(query.qtype))
                .map(|(stream, _)| Seek::begin(snapshot, stream, &asker)),
            _ => None,
        };
        Pending(Stage::Read(Read { snapshot, header, query, asker, name_len: name.len(), found, seek }))
    }

    /// `out` as for [`respond`].
    pub fn write(&self, out: &mut [u8]) -> Outcome {
        self.write_before(out, &mut Unwatched)
    }

    fn seek(&mut self) -> Option<(&mut Seek, &'a Atlas)> {
        match &mut self.0 {
            Stage::Read(Read { seek: Some(seek), snapshot, .. }) => Some((seek, &snapshot.geography().atlas)),
            _ => None,
        }
    }
}

/// Looks up where the clients are.
pub fn seek(batch: &mut [Pending<'_, '_>]) {
    batch.iter_mut().filter_map(Pending::seek).for_each(|(seek, atlas)| seek.first(atlas));
    batch.iter_mut().filter_map(Pending::seek).for_each(|(seek, atlas)| seek.second(atlas));
}

/// Sees the steering of an answer as it is made. Nothing that it does can change the answer.
trait Witness<'a> {
    fn steered(&mut self, _: &'a SteeredName, _: Family, _: &Whereabouts, _: Result<&Chosen<'a>, u8>) {}
    fn fell_back(&mut self, _: &'a SteeredName) {}
}

/// Nobody asks why; costs nothing.
struct Unwatched;

impl Witness<'_> for Unwatched {}

impl<'a> Pending<'a, '_> {
    fn write_before(&self, out: &mut [u8], witness: &mut impl Witness<'a>) -> Outcome {
        let &Read { snapshot, header, ref query, asker, name_len, found, ref seek } = match &self.0 {
            Stage::Dropped => return Outcome::Dropped,
            &Stage::Malformed { header, question } => {
                let rcode = if header.opcode == OPCODE_QUERY { rcode::FORMERR } else { rcode::NOTIMP };
                let writer = Writer::new(out, question, MIN_PAYLOAD);
                return outcome(writer.finish(header, Flags { rcode, ..Flags::default() }, None), &Done::error(rcode));
            }
            Stage::Read(read) => read,
        };
        let limit = match (asker.client.transport, &query.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, Some(edns)) => usize::from(edns.payload).clamp(MIN_PAYLOAD, UDP_PAYLOAD),
            (Transport::Udp, None) => MIN_PAYLOAD,
        };
        let limit = limit.min(out.len());
        let reserved = query.edns.as_ref().map_or(0, opt::length);
        let mut writer = Writer::new(out, query.question, limit - reserved);
        let mut truncated = false;
        let done = match found {
            Err(rcode) => Done::error(rcode),
            Ok(found) => {
                let dnames = [None; MAX_CHAIN];
                let ahead = seek.as_ref().map(|seek| seek.end(&snapshot.geography().atlas, &asker));
                let (qtype, done, writer) = (query.qtype, Done::default(), &mut writer);
                let mut walk = Walk { snapshot, asker, ahead, qtype, writer, witness, dnames, done };
                if let Err(Full) = walk.chain(name_len, found) {
                    truncated = true;
                }
                // "When processing queries with QCLASS=* […], the response should never be authoritative unless the
                // server can guarantee that the response covers all classes" (RFC 1035 §6.2).
                walk.done.authoritative &= query.qclass == CLASS_IN;
                walk.done
            }
        };
        if truncated {
            writer.clear();
        }
        let flags = Flags { rcode: done.rcode, authoritative: done.authoritative, truncated };
        outcome(writer.finish(header, flags, query.edns.map(|edns| (edns, done.scope))), &done)
    }
}

/// The RCODE for queries that no name is looked up for.
fn refused(header: Header, query: &Query<'_>) -> Option<u16> {
    if header.opcode != OPCODE_QUERY {
        return Some(rcode::NOTIMP);
    }
    if let Some(edns) = &query.edns {
        // "If a responder does not implement the VERSION level of the request, then it MUST respond with BADVERS"
        // (RFC 6891 §6.1.3).
        if edns.version > 0 {
            return Some(rcode::BADVERS);
        }
        if edns.malformed {
            return Some(rcode::FORMERR);
        }
    }
    let transfer = [RecordType::AXFR, RecordType::IXFR].map(u16::from);
    let is_ours = [CLASS_IN, CLASS_ANY].contains(&query.qclass) && !transfer.contains(&query.qtype);
    (!is_ours).then_some(rcode::REFUSED)
}

/// The stream at a name, where its addresses of the family that is asked for depend on the client.
fn steered<'a>(snapshot: &'a Snapshot, data: &Data, qtype: RecordType) -> Option<(&'a SteeredName, Family)> {
    let stream = snapshot.stream(data.stream?);
    let family = match qtype {
        RecordType::A => Family::V4,
        RecordType::AAAA => Family::V6,
        _ => return None,
    };
    let (fleet, _) = snapshot.fleet_for(stream);
    (stream.regions & fleet.declared(family) != 0).then_some((stream, family))
}

/// Whether a viewer of the stream would ask for A.
fn has_v4(snapshot: &Snapshot, stream: &SteeredName) -> bool {
    let (fleet, _) = snapshot.fleet_for(stream);
    stream.regions & fleet.declared(Family::V4) != 0
}

fn outcome(length: usize, done: &Done) -> Outcome {
    Outcome::Answered { length, rcode: done.rcode, zone: done.zone, region: done.region, asked: done.asked }
}

/// What the header, the OPT record and the counters say of an answer.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    rcode: u16,
    authoritative: bool,
    zone: Option<u32>,
    region: Option<u8>,
    asked: Option<Asked>,
    /// SCOPE PREFIX-LENGTH; 0 where no client address can change the answer.
    scope: u8,
}

impl Done {
    fn error(rcode: u16) -> Done {
        Done { rcode, ..Done::default() }
    }
}

/// The way through the zones for one question: from the name asked for along CNAMEs to its end.
struct Walk<'a, 'w, 'o, W> {
    snapshot: &'a Snapshot,
    asker: Asker,
    /// Where the asker is, if that was looked up for the first name of the walk.
    ahead: Option<Whereabouts>,
    qtype: u16,
    writer: &'w mut Writer<'o>,
    witness: &'w mut W,
    /// The DNAME records written so far.
    dnames: [Option<&'a Records>; MAX_CHAIN],
    done: Done,
}

/// Where the walk goes after a name.
enum Next {
    End,
    /// On to the name that stands uncompressed at this offset of the message.
    NameAt(usize),
}

impl<'a, W: Witness<'a>> Walk<'a, '_, '_, W> {
    fn chain(&mut self, qname_len: usize, found: Lookup<'a>) -> Result<(), Full> {
        let mut next = self.step(qname_len, HEADER_LEN, found)?;
        if let Next::End = next {
            return Ok(());
        }
        // Another name may be steered by another plan.
        self.ahead = None;
        let mut visited = [HEADER_LEN; MAX_CHAIN];
        for link in 1..MAX_CHAIN {
            let Next::NameAt(at) = next else { break };
            let name = self.name_at(at);
            // A loop would only repeat its records.
            if visited[..link].iter().any(|&before| self.name_at(before).wire() == name.wire()) {
                break;
            }
            visited[link] = at;
            let found = lookup(self.snapshot.names(), &name, self.qtype);
            // A chain that leaves the zone is the resolver's to follow: what we know there may not be what it would find.
            if zone_of(&found) != self.done.zone {
                break;
            }
            next = self.step(name.len(), at, found)?;
        }
        Ok(())
    }

    /// The question name, or the target of a CNAME that was written.
    fn name_at(&self, at: usize) -> Folded {
        let mut name = Folded::root();
        name.fill(self.writer.written(), at).expect("RDATA of a CNAME is a name, checked at load");
        name
    }

    /// Writes what stands at one name; `at` is where the name stands in the message, `name_len` its length there.
    fn step(&mut self, name_len: usize, at: usize, found: Lookup<'a>) -> Result<Next, Full> {
        self.done.zone = zone_of(&found);
        // AA belongs to the first owner name of the answer (RFC 1035 §4.1.1): CNAMEs of ours keep it on a referral.
        self.done.authoritative |= !matches!(found, Lookup::Outside | Lookup::Referral { .. });
        match found {
            Lookup::Outside => {
                self.done.rcode = rcode::REFUSED;
                Ok(Next::End)
            }
            Lookup::Exists { zone, data } => self.exists(name_len, at, zone, data),
            Lookup::ParentSide { zone, ds: None } => self.negative(name_len, at, zone),
            Lookup::ParentSide { ds: Some(ds), .. } => self.give(ds, at),
            Lookup::Referral { cut, .. } => self.referral(name_len, at, cut),
            Lookup::Redirected { dname, below, .. } => self.redirect(at, dname, below),
            Lookup::NxDomain { zone } => {
                self.done.rcode = rcode::NXDOMAIN;
                self.negative(name_len, at, zone)
            }
        }
    }

    fn exists(&mut self, name_len: usize, at: usize, zone: u32, data: &'a Data) -> Result<Next, Full> {
        let qtype = RecordType::from(self.qtype);
        let stream = data.stream.map(|stream| self.snapshot.stream(stream));
        if let Some(stream) = stream
            && let Some(fallback) = &stream.fallback
            && let Some(scope) = steer::fallen_back(self.snapshot, stream, &self.asker)
        {
            self.done.scope = scope;
            self.witness.fell_back(stream);
            return self.alias(fallback, at);
        }
        // Beside a CNAME no HINFO may be made up (RFC 8482 §4.2), and a name without records stays without.
        if qtype == RecordType::ANY && !data.is_empty() && data.records(RecordType::CNAME).is_none() {
            return self.any(at);
        }
        if let Some(records) = data.records(qtype) {
            return self.give(records, at);
        }
        if let Some(cname) = data.records(RecordType::CNAME) {
            return self.alias(cname, at);
        }
        if let Some((stream, family)) = steered(self.snapshot, data, qtype) {
            let find = || Whereabouts::find(self.snapshot, stream, &self.asker);
            let whereabouts = self.ahead.take().unwrap_or_else(find);
            let chosen = steer::choose(self.snapshot, stream, family, &whereabouts);
            self.witness.steered(stream, family, &whereabouts, chosen.as_ref().map_err(|&scope| scope));
            match chosen {
                Ok(chosen) => {
                    self.done.scope = chosen.scope;
                    self.done.region = Some(chosen.ranked.region);
                    let window = chosen.ring.window(chosen.position);
                    let ttl = if chosen.brief { stream.brief_ttl } else { stream.ttl };
                    self.writer.addresses(window, chosen.ring.record_len(), ttl, at)?;
                    if family == Family::V4 || !has_v4(self.snapshot, stream) {
                        self.done.asked = Asked::new(stream.group, whereabouts.cell, chosen.cached_under);
                    }
                    return Ok(Next::End);
                }
                Err(scope) => self.done.scope = scope,
            }
        }
        self.negative(name_len, at, zone)
    }

    fn give(&mut self, records: &Records, at: usize) -> Result<Next, Full> {
        if self.has_given(records) {
            return Ok(Next::End);
        }
        self.writer.records(Section::Answer, &records.wire, records.count, at)?;
        Ok(Next::End)
    }

    fn alias(&mut self, cname: &Records, at: usize) -> Result<Next, Full> {
        let start = self.writer.records(Section::Answer, &cname.wire, cname.count, at)?;
        Ok(self.behind_cname(start))
    }

    /// The target of the CNAME record at `start`, unless the CNAME itself is what was asked for: "QTYPE doesn't match
    /// CNAME" (RFC 1034 §4.3.2 step 3a). ANY does match.
    fn behind_cname(&self, start: usize) -> Next {
        match [RecordType::CNAME, RecordType::ANY].map(u16::from).contains(&self.qtype) {
            true => Next::End,
            false => Next::NameAt(start + 12),
        }
    }

    /// "a DNS responder that receives an ANY query MAY decline to provide a conventional ANY response" (RFC 8482 §4.2).
    fn any(&mut self, at: usize) -> Result<Next, Full> {
        const HINFO: &[u8] = b"\xC0\x0C\x00\x0D\x00\x01\x00\x00\x01\x2C\x00\x09\x07RFC8482\x00";
        self.writer.records(Section::Answer, HINFO, 1, at)?;
        Ok(Next::End)
    }

    /// NODATA and NXDOMAIN carry the zone's SOA (RFC 2308 §3).
    fn negative(&mut self, name_len: usize, at: usize, zone: u32) -> Result<Next, Full> {
        let apex = self.snapshot.names().apex(zone);
        let soa = &apex.negative_soa;
        self.writer.records(Section::Authority, &soa.wire, soa.count, at + name_len - apex.name_len)?;
        Ok(Next::End)
    }

    fn referral(&mut self, name_len: usize, at: usize, cut: &Cut) -> Result<Next, Full> {
        self.writer.records(Section::Authority, &cut.ns.wire, cut.ns.count, at + name_len - cut.owner_len)?;
        // "the name server MUST set TC=1 if it cannot fit all glue for in-domain name servers" (RFC 9471 §3.1).
        self.writer.append(Section::Additional, &cut.glue.wire, cut.glue.count)?;
        // What merely spares a query is left out where there is no room.
        let _ = self.writer.append(Section::Additional, &cut.sibling_glue.wire, cut.sibling_glue.count);
        Ok(Next::End)
    }

    /// A chain may pass a DNAME more than once, and end at it; its record stands in the answer once (RFC 2181 §5).
    fn has_given(&self, dname: &Records) -> bool {
        self.dnames.iter().flatten().any(|given| std::ptr::eq(*given, dname))
    }

    /// The DNAME record and the CNAME that it makes of the name (RFC 6672 §3.1).
    fn redirect(&mut self, at: usize, dname: &'a Records, prefix_len: usize) -> Result<Next, Full> {
        if !self.has_given(dname)
            && let Some(free) = self.dnames.iter_mut().find(|slot| slot.is_none())
        {
            *free = Some(dname);
            self.writer.records(Section::Answer, &dname.wire, dname.count, at + prefix_len)?;
        }
        let target = dname.first_rdata();
        let new_len = prefix_len + target.len();
        if new_len > MAX_NAME_LEN {
            self.done.rcode = rcode::YXDOMAIN;
            return Ok(Next::End);
        }
        let mut cname = [0; 12 + MAX_NAME_LEN];
        cname[..2].copy_from_slice(&[0xC0, 0x0C]);
        cname[2..4].copy_from_slice(&u16::from(RecordType::CNAME).to_be_bytes());
        // Class and TTL are those of the DNAME.
        cname[4..10].copy_from_slice(&dname.wire[4..10]);
        cname[10..12].copy_from_slice(&(new_len as u16).to_be_bytes());
        cname[12..12 + prefix_len].copy_from_slice(&self.writer.written()[at..at + prefix_len]);
        cname[12 + prefix_len..12 + new_len].copy_from_slice(target);
        let start = self.writer.records(Section::Answer, &cname[..12 + new_len], 1, at)?;
        Ok(self.behind_cname(start))
    }
}

fn zone_of(found: &Lookup<'_>) -> Option<u32> {
    match *found {
        Lookup::Outside => None,
        Lookup::Exists { zone, .. }
        | Lookup::ParentSide { zone, .. }
        | Lookup::Referral { zone, .. }
        | Lookup::Redirected { zone, .. }
        | Lookup::NxDomain { zone } => Some(zone),
    }
}
