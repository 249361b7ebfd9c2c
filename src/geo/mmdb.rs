//! Writes the MaxMind DB format, version 2: a binary tree over address bits, then the records.
//!
//! Only what the compact database needs: country and location by the keys of GeoIP2 City, so that any reader of such
//! databases reads it. Equal subtrees are stored once, which readers need not know, and which saves about a fifth;
//! that is what the maxminddb-writer crate cannot do.
//!
//! <https://maxmind.github.io/MaxMind-DB/> tells the format.

use std::collections::HashMap;

use super::{CountryCode, Point};

/// Where a bit leads to: an inner node, or a record behind [`RECORD`], or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Child(u32);

impl Child {
    pub const NOTHING: Child = Child(u32::MAX);

    pub fn record(number: u32) -> Child {
        Child(RECORD | number)
    }

    fn node(self) -> Option<usize> {
        (self.0 & RECORD == 0).then_some(self.0 as usize)
    }
}

const RECORD: u32 = 1 << 31;

/// A search tree that is built from its leaves up.
#[derive(Default)]
pub struct Tree {
    nodes: Vec<[Child; 2]>,
    known: HashMap<[Child; 2], u32, foldhash::fast::RandomState>,
}

impl Tree {
    /// A node whose bit 0 leads to `zero` and bit 1 to `one`; equal leaves need no node.
    pub fn node(&mut self, zero: Child, one: Child) -> Child {
        if zero == one && zero.node().is_none() {
            return zero;
        }
        Child(*self.known.entry([zero, one]).or_insert_with(|| {
            self.nodes.push([zero, one]);
            self.nodes.len() as u32 - 1
        }))
    }

    /// `tree` with the first `length` bits of `prefix` leading to `subtree`, whatever was there.
    pub fn graft(&mut self, tree: Child, prefix: u128, length: u32, subtree: Child) -> Child {
        if length == 0 {
            return subtree;
        }
        // A leaf above the prefix stands for both halves below it.
        let [zero, one] = tree.node().map_or([tree; 2], |node| self.nodes[node]);
        let (zero, one) = match prefix >> 127 {
            0 => (self.graft(zero, prefix << 1, length - 1, subtree), one),
            _ => (zero, self.graft(one, prefix << 1, length - 1, subtree)),
        };
        // Not by `node`: the path has to exist even where both halves are equal, or it could not be grafted upon.
        let Some(&known) = self.known.get(&[zero, one]) else {
            self.nodes.push([zero, one]);
            self.known.insert([zero, one], self.nodes.len() as u32 - 1);
            return Child(self.nodes.len() as u32 - 1);
        };
        Child(known)
    }

    /// The nodes that `root` leads to, numbered from 0 (the root) as they come.
    fn numbered(&self, root: usize) -> (Vec<usize>, Vec<u32>) {
        let mut order = vec![root];
        let mut number = vec![u32::MAX; self.nodes.len()];
        number[root] = 0;
        let mut next = 0;
        while next < order.len() {
            for child in self.nodes[order[next]] {
                if let Some(node) = child.node()
                    && number[node] == u32::MAX
                {
                    number[node] = order.len() as u32;
                    order.push(node);
                }
            }
            next += 1;
        }
        (order, number)
    }
}

/// What the metadata says.
pub struct Metadata<'a> {
    pub database_type: &'a str,
    pub description: &'a str,
    /// Unix seconds.
    pub build_epoch: u64,
}

/// A record: country and location.
pub type Entry = (Option<CountryCode>, Option<Point>);

/// The file of an IPv6 tree (IPv4 under ::/96) whose leaves are numbers of `records`, and how many records it uses.
///
/// `None` when it has more nodes and records than 24-bit pointers reach, or no node at all.
pub fn file(tree: &Tree, root: Child, records: &[Entry], metadata: &Metadata<'_>) -> Option<(Vec<u8>, usize)> {
    const SEPARATOR: [u8; 16] = [0; 16];
    let (order, number) = tree.numbered(root.node()?);
    let mut data = Data::default();
    // Only the records in use are written, each where it is first needed.
    let mut offsets: Vec<Option<u32>> = vec![None; records.len()];
    let mut out = Vec::with_capacity(order.len() * 6);
    for &node in &order {
        for child in tree.nodes[node] {
            let value = match child.node() {
                Some(node) => number[node],
                None if child == Child::NOTHING => order.len() as u32,
                None => {
                    let record = (child.0 & !RECORD) as usize;
                    let offset = *offsets[record].get_or_insert_with(|| data.record(records[record]));
                    order.len() as u32 + SEPARATOR.len() as u32 + offset
                }
            };
            if value >= 1 << 24 {
                return None;
            }
            out.extend_from_slice(&value.to_be_bytes()[1..]);
        }
    }
    out.extend_from_slice(&SEPARATOR);
    out.append(&mut data.bytes);
    let node_count = order.len() as u32;
    out.append(&mut metadata.bytes(Layout { node_count, record_size: 24, ip_version: 6 }));
    Some((out, offsets.iter().flatten().count()))
}

/// What of the metadata follows from the file.
pub struct Layout {
    pub node_count: u32,
    /// Bits.
    pub record_size: u16,
    pub ip_version: u16,
}

/// Stands before the metadata, which ends the file.
pub const METADATA_MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

impl Metadata<'_> {
    /// The metadata section and the marker before it.
    pub fn bytes(&self, layout: Layout) -> Vec<u8> {
        let mut meta = Data::default();
        meta.bytes.extend_from_slice(METADATA_MARKER);
        meta.control(MAP, 9);
        meta.text("binary_format_major_version");
        meta.number(UINT16, 2);
        meta.text("binary_format_minor_version");
        meta.number(UINT16, 0);
        meta.text("build_epoch");
        meta.number(UINT64, self.build_epoch);
        meta.text("database_type");
        meta.text(self.database_type);
        meta.text("description");
        meta.control(MAP, 1);
        meta.text("en");
        meta.text(self.description);
        meta.text("ip_version");
        meta.number(UINT16, layout.ip_version.into());
        meta.text("languages");
        meta.control(ARRAY, 1);
        meta.text("en");
        meta.text("node_count");
        meta.number(UINT32, layout.node_count.into());
        meta.text("record_size");
        meta.number(UINT16, layout.record_size.into());
        meta.bytes
    }
}

const POINTER: u8 = 1;
const STRING: u8 = 2;
const DOUBLE: u8 = 3;
const UINT16: u8 = 5;
const UINT32: u8 = 6;
const MAP: u8 = 7;
const UINT64: u8 = 9;
const ARRAY: u8 = 11;

/// A data section. Keys and countries stand where they are first used; later uses point there.
#[derive(Default)]
struct Data {
    bytes: Vec<u8>,
    keys: HashMap<&'static str, u32>,
    countries: HashMap<CountryCode, u32>,
}

impl Data {
    /// Its offset.
    fn record(&mut self, (country, location): Entry) -> u32 {
        let offset = self.bytes.len() as u32;
        self.control(MAP, usize::from(country.is_some()) + usize::from(location.is_some()));
        if let Some(country) = country {
            self.key("country");
            match self.countries.get(&country) {
                Some(&known) => self.pointer(known),
                None => {
                    self.countries.insert(country, self.bytes.len() as u32);
                    self.control(MAP, 1);
                    self.key("iso_code");
                    self.text(&country.to_string());
                }
            }
        }
        if let Some(location) = location {
            self.key("location");
            self.control(MAP, 2);
            self.key("latitude");
            self.double(location.lat());
            self.key("longitude");
            self.double(location.lon());
        }
        offset
    }

    fn key(&mut self, key: &'static str) {
        match self.keys.get(key) {
            Some(&known) => self.pointer(known),
            None => {
                self.keys.insert(key, self.bytes.len() as u32);
                self.text(key);
            }
        }
    }

    fn control(&mut self, kind: u8, size: usize) {
        let first = if kind < 8 { kind << 5 } else { 0 };
        // Sizes of 29 and more stand in bytes of their own; ours are below 285 + 65,536.
        let (size, more): (u8, &[u8]) = match size {
            0..29 => (size as u8, &[]),
            29..285 => (29, &[(size - 29) as u8]),
            _ => (30, &((size - 285).min(0xffff) as u16).to_be_bytes()),
        };
        self.bytes.push(first | size);
        if kind >= 8 {
            self.bytes.push(kind - 7);
        }
        self.bytes.extend_from_slice(more);
    }

    /// Cut where the format's 16-bit length would end.
    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(285 + 0xffff)];
        self.control(STRING, text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, kind: u8, number: u64) {
        let bytes = number.to_be_bytes();
        let bytes = &bytes[number.leading_zeros() as usize / 8..];
        self.control(kind, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn double(&mut self, number: f64) {
        self.control(DOUBLE, 8);
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    fn pointer(&mut self, to: u32) {
        let bytes = to.to_be_bytes();
        match to {
            0..2048 => self.bytes.extend([POINTER << 5 | bytes[2], bytes[3]]),
            2048..526_336 => {
                let bytes = (to - 2048).to_be_bytes();
                self.bytes.extend([POINTER << 5 | 1 << 3 | bytes[1], bytes[2], bytes[3]]);
            }
            _ => self.bytes.extend([POINTER << 5 | 3 << 3, bytes[0], bytes[1], bytes[2], bytes[3]]),
        }
    }
}
