//! `[records]`: static RRsets, as far as one of them can be judged alone. What they are to each other is judged in
//! [`super::rules`].

use std::collections::{HashMap, HashSet};

use hickory_proto::rr::{Name, RecordType};

use super::diagnostic::{At, Diagnostic};
use super::settings::NS_TTL;
use super::tree::{Item, Table, nearest, quoted_key};
use super::{names, units, zone_file};
use crate::zone::{Rrset, rdata};

/// TTL of static records where none is written, seconds; a delegation's is [`NS_TTL`].
const DEFAULT_TTL: u32 = 300;

/// An RRset and the place of its type.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedRrset {
    pub rrset: Rrset,
    pub at: At,
}

/// All RRsets of the `[records]` table. Whether an owner and a type are steered is no question here.
pub fn read_all(table: Table<'_>, apex: &Name) -> Vec<PlacedRrset> {
    let mut owners: HashMap<Name, At> = HashMap::new();
    let mut rrsets = Vec::new();
    for (key, item) in table.entries() {
        let owner = match names::relative(key, apex) {
            Ok(owner) => owner,
            Err(flaw) => {
                item.report_key_flaw(flaw);
                continue;
            }
        };
        if !apex.zone_of(&owner) {
            item.report(
                item.key_fault(format!("{key} is outside the zone {apex}"))
                    .help("give it without the final dot, or move it to the file of its zone"),
            );
            continue;
        }
        if let Some(first) = owners.get(&owner) {
            item.report(
                item.key_fault(format!("{key} is there twice"))
                    .rule("names compare case-blind (RFC 4343 §3), and all records of a name stand together")
                    .help(format!("move its records to line {}", first.line)),
            );
            continue;
        }
        owners.insert(owner.clone(), item.key_at());
        if !item.is_table() && rdata::record_type(key).is_some() {
            let fault = item.key_fault(format!("`{key}` stands where an owner name is expected"));
            item.report(fault.help(format!("for a record of the apex write \"@\" = {{ {key} = … }}")));
            continue;
        }
        if !item.is_table()
            && let Some(help) = zone_file::belongs_above(key, &item)
        {
            item.report(item.key_fault(format!("`{key}` stands where an owner name is expected")).help(help));
            continue;
        }
        if let Some(table) = item.table() {
            read_owner(key, &owner, table, apex, &mut rrsets);
        }
    }
    rrsets
}

fn read_owner(key: &str, owner: &Name, mut table: Table<'_>, apex: &Name, rrsets: &mut Vec<PlacedRrset>) {
    let ttl = table.take("ttl").and_then(|item| units::seconds(&item, 0..=units::MAX_SECONDS));
    let mut types: HashMap<RecordType, u32> = HashMap::new();
    let mut any = false;
    for (word, item) in table.entries().filter(|(word, _)| *word != "ttl") {
        any = true;
        let Some(rtype) = record_type(key, word, &item) else { continue };
        if let Some(line) = types.insert(rtype, item.key_at().line) {
            let fault = item.key_fault(format!("{key} has {} records twice", rdata::mnemonic(rtype)));
            item.report(fault.help(format!("make one array of them; the other is at line {line}")));
            continue;
        }
        if rtype == RecordType::NS && owner == apex {
            item.report(
                item.key_fault(format!("{key} has NS records"))
                    .rule("the NS records of the apex are made by the server")
                    .help("name the servers in `ns`, at the top of the file"),
            );
            continue;
        }
        let rdata = values(key, rtype, &item, apex);
        if !rdata.is_empty() {
            let ttl = ttl.unwrap_or(if rtype == RecordType::NS { NS_TTL } else { DEFAULT_TTL });
            let rrset = Rrset { owner: owner.clone(), rtype, ttl, rdata };
            rrsets.push(PlacedRrset { rrset, at: item.key_at() });
        }
    }
    if !any {
        let fault = Diagnostic::error(table.at(), format!("{key} has no records"));
        table.file.report_missing(fault.help("add some, like A = \"192.0.2.1\", or remove the name"));
    }
}

fn record_type(key: &str, word: &str, item: &Item<'_>) -> Option<RecordType> {
    if item.is_table() {
        let whole = quoted_key(&format!("{key}.{word}"));
        item.report(
            item.key_fault(format!("`{}` is a table inside the records of {key}", item.path))
                .rule("a dot in an unquoted key nests tables (TOML)")
                .help(format!("quote the name: {whole} = {{ … }}")),
        );
        return None;
    }
    let upper = word.to_ascii_uppercase();
    let known = rdata::record_type(word);
    if known.is_some() && upper == word {
        return known;
    }
    let fault = item.key_fault(format!("{key} has the unknown record type `{word}`"));
    item.report(if rdata::record_type(&upper).is_some() {
        fault.rule("types are upper case").help(format!("write {upper}"))
    } else {
        match nearest(&upper, rdata::mnemonics()) {
            Some(near) => fault.help(format!("did you mean {near}?")),
            None => fault.help("any type can be written by its number, as in TYPE65280 (RFC 3597 §5)"),
        }
    });
    None
}

fn values(key: &str, rtype: RecordType, item: &Item<'_>, apex: &Name) -> Vec<Box<[u8]>> {
    let mut seen = HashSet::new();
    let word = rdata::mnemonic(rtype);
    let mut rdata: Vec<Box<[u8]>> = Vec::new();
    for (text, element) in item.strings() {
        let bytes = match rdata::parse(rtype, text, apex) {
            Ok(bytes) => bytes,
            Err(fault) => {
                element.report_flaw(fault);
                continue;
            }
        };
        if seen.insert(bytes.clone()) {
            rdata.push(bytes);
        } else {
            item.report(
                element
                    .fault(format!("{key} has the same {word} record twice"))
                    .rule("an RRset holds no duplicates (RFC 2181 §5)")
                    .help("remove one of them"),
            );
        }
    }
    if item.one_or_more().is_empty() {
        let fault = item.fault(format!("{key} {word} is empty"));
        item.report(fault.help("give at least one record, or remove the key"));
    }
    if let Some(name) = [RecordType::CNAME, RecordType::DNAME].iter().find(|t| **t == rtype && rdata.len() > 1) {
        let rule = if *name == RecordType::CNAME { "RFC 2181 §10.1" } else { "RFC 6672 §2.4" };
        item.report(
            item.key_fault(format!("{key} has {} {name} records", rdata.len()))
                .rule(format!("a name has at most one {name} ({rule})"))
                .help("keep one of them"),
        );
    }
    // Owner as a pointer, type, class, TTL and length go before each; header, question and OPT with a client subnet
    // stand around them (RFC 1035 §4.2.2: a message has at most 65,535 bytes).
    let size = 12 + 255 + 4 + 11 + 24 + rdata.iter().map(|r| 12 + r.len()).sum::<usize>();
    if size > usize::from(u16::MAX) {
        item.report(
            item.key_fault(format!("{key} has {word} records of {size} bytes, which no answer can hold"))
                .rule("a message has at most 65535 bytes (RFC 1035 §4.2.2)"),
        );
    }
    rdata
}
