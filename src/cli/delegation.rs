//! `meridian delegation ZONE`: the records that the parent zone needs.

use std::fmt;
use std::io::{self, Write};

use clap::Args;
use hickory_proto::rr::{Name, RecordType};
use serde::Serialize;

use super::{FileArgs, complain, complain_of};
use crate::config::settings::{NS_TTL, Zone};
use crate::config::{load_node, load_zones, names};
use crate::zone::rdata;

/// NS and glue of one zone, as the parent should hold them (RFC 1034 §4.2.2).
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Delegation {
    pub zone: String,
    /// Lines in presentation format.
    pub ns: Vec<String>,
    /// Addresses of those name servers whose names lie in the zone, which nobody could find otherwise.
    pub glue: Vec<String>,
}

impl fmt::Display for Delegation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "; to put in the parent zone of {}", self.zone)?;
        self.ns.iter().chain(&self.glue).try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Name servers in the zone without an address: nobody could reach them.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreachable(pub Vec<Name>);

pub fn delegation(zone: &Zone) -> Result<Delegation, Unreachable> {
    let ns = zone.ns.iter().map(|name| format!("{} {NS_TTL} IN NS {name}", zone.name)).collect();
    let (mut glue, mut unreachable) = (Vec::new(), Vec::new());
    for name in zone.ns.iter().filter(|name| zone.name.zone_of(name)) {
        let before = glue.len();
        let rrsets = zone.records.iter().filter(|rrset| rrset.owner == *name);
        for rrset in rrsets.filter(|rrset| matches!(rrset.rtype, RecordType::A | RecordType::AAAA)) {
            glue.extend(
                rrset
                    .rdata
                    .iter()
                    .filter_map(|rdata| rdata::address(rdata))
                    .map(|address| format!("{name} {} IN {} {address}", rrset.ttl, rrset.rtype)),
            );
        }
        if glue.len() == before {
            unreachable.push(name.clone());
        }
    }
    if unreachable.is_empty() {
        Ok(Delegation { zone: zone.name.to_string(), ns, glue })
    } else {
        Err(Unreachable(unreachable))
    }
}

#[derive(Args)]
pub struct DelegationArgs {
    /// A zone that we serve
    zone: String,
    #[command(flatten)]
    files: FileArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Gives the exit code: 1 when there is no such zone or its delegation would be lame, 2 when the zone is no name.
/// Errors are those of `out`.
pub fn run(args: &DelegationArgs, out: &mut dyn Write) -> io::Result<u8> {
    let name = match names::absolute(&args.zone) {
        Ok(name) => name,
        Err(fault) => {
            complain(&format!("{:?} is no domain name: {fault}", args.zone));
            return Ok(2);
        }
    };
    let (node, shared, mut diagnostics) = match load_node(args.files.config.as_deref()) {
        Ok(read) => read,
        Err(fault) => {
            complain_of(&[*fault]);
            return Ok(1);
        }
    };
    let node = node.with(args.files.sources().flags);
    let zones = load_zones(&[node.zones], &shared);
    diagnostics.extend(zones.diagnostics);
    let Some(zone) = zones.zones.iter().find(|zone| zone.name == name) else {
        complain_of(&diagnostics);
        complain(&format!("no zone {name} without errors in the files"));
        return Ok(1);
    };
    match delegation(zone) {
        Ok(delegation) if args.json => writeln!(out, "{}", serde_json::to_string_pretty(&delegation)?).map(|()| 0),
        Ok(delegation) => write!(out, "{delegation}").map(|()| 0),
        Err(Unreachable(servers)) => {
            for server in servers {
                complain(&format!(
                    "{server} is a name server of {name} in the zone itself, and has no address there\n  \
                     nobody could ever ask it (RFC 1034 §4.2.2)\n  \
                     help: add to [records]:  {:?} = {{ A = \"192.0.2.53\" }}, with its real address",
                    server.to_string()
                ));
            }
            Ok(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use crate::config::Shared;

    fn zone(text: &str) -> Zone {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("zone.toml"), text).unwrap();
        let loaded = load_zones(&[dir.path().to_owned()], &Shared::default());
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        loaded.zones.into_iter().next().unwrap()
    }

    #[test]
    fn the_parent_gets_ns_and_the_addresses_of_servers_in_the_zone_only() {
        let zone = zone(
            r#"
            zone = "live.example.com"
            ns = ["ns1.live.example.com", "ns2.example.net"]
            [records]
            ns1 = { A = ["192.0.2.53", "192.0.2.54"], AAAA = "2001:db8::53", ttl = "1h" }
            other = { A = "192.0.2.9" }
            "#,
        );
        assert_eq!(
            delegation(&zone).unwrap().to_string(),
            "; to put in the parent zone of live.example.com.\n\
             live.example.com. 86400 IN NS ns1.live.example.com.\n\
             live.example.com. 86400 IN NS ns2.example.net.\n\
             ns1.live.example.com. 3600 IN A 192.0.2.53\n\
             ns1.live.example.com. 3600 IN A 192.0.2.54\n\
             ns1.live.example.com. 3600 IN AAAA 2001:db8::53\n"
        );
    }

    #[test]
    fn servers_elsewhere_need_no_glue() {
        let zone = zone("zone = \"live.example.com\"\nns = [\"ns1.example.net\", \"ns2.example.net\"]\n");
        assert_eq!(delegation(&zone).unwrap().glue, Vec::<String>::new());
    }

    #[test]
    fn a_server_in_the_zone_without_an_address_is_refused() {
        let mut zone = zone("zone = \"live.example.com\"\nns = [\"ns1.example.net\", \"ns2.example.net\"]\n");
        zone.ns.push(Name::from_str("ns3.live.example.com.").unwrap());
        assert_eq!(delegation(&zone), Err(Unreachable(vec![zone.ns[2].clone()])));
    }
}
