//! The question put to the answering code, and what it looked at on its way.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_proto::serialize::binary::BinEncodable;
use ipnet::IpNet;

use super::chooser::{Chooser, fallen_back};
use super::{Answer, Basis, Explanation, Location, Question, SaidBy, ZoneFacts};
use crate::answer::trace::{Steered, trace};
use crate::answer::{self, Client, Outcome, Transport};
use crate::config::names;
use crate::geo::{Database, Told};
use crate::world::View;

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

pub(super) fn unix(time: SystemTime) -> u64 {
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
    use crate::config::settings::Family;
    use crate::config::{Shared, load_zones};
    use crate::health::Verdict;
    use crate::snapshot::{Served, Snapshot, TargetId};
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
