//! Makes the compact database: country and location of the whole Internet within a given size.
//!
//! A tree over address bits with one place a leaf; fewer leaves are a smaller file. What a leaf costs is how wrong it
//! puts the addresses below it, so the question is which leaves to join, and it has an exact answer: with a price λ on
//! each node, a subtree is worth keeping when the error it spares is more than λ times its nodes. Going from the leaves
//! up that decides every node once (pruning as in classification trees, Breiman et al. 1984, ch. 3). λ is then searched
//! so that the file just fits.
//!
//! The error of an address is its distance from where it is put, up to `FAR_KM` where the nearest region is as good as
//! surely another one; another country counts `ABROAD` of that, as rules ask for countries; to be unknown, or to be
//! known though no one knows it, all of it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::UNIX_EPOCH;

use ipnet::IpNet;

use super::database::Database;
use super::mmdb::{self, Child, Tree};
use super::places::{Place, Places};
use super::ranges::Ranges;
use crate::config::{At, Diagnostic};

/// Beyond this it does not matter how far off an address is put.
const FAR_KM: f64 = 1500.0;

/// The error of the wrong country in the right spot, as a share of the largest error.
const ABROAD: f32 = 0.5;

/// Additional weight of a block that is to be kept as the source has it, in /24 blocks.
const KEPT: f64 = 1000.0;

/// A subtree of more places than this is not weighed as a leaf: it would never be one in a file of any use.
const MOST_PLACES: usize = 48;

#[derive(Clone, Debug)]
pub struct Options {
    /// The file is at most this long, bytes.
    pub size: usize,
    /// Joins places of a country that lie within one square of this many degrees.
    pub grid: f64,
    /// Blocks that are kept as the source has them: addresses that people are sure to try, and that may lie alone among
    /// those of another country.
    pub keep: Vec<IpNet>,
    /// Stands in the file's description; licences ask for it.
    pub attribution: String,
}

impl Default for Options {
    fn default() -> Options {
        Options { size: 8_000_000, grid: 0.25, keep: Vec::new(), attribution: String::new() }
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    pub bytes: usize,
    pub places: usize,
}

/// Writes `out`, by way of a temporary file beside it. Takes some ten seconds for a full City database.
pub fn write(database: &Database, out: &Path, options: &Options) -> Result<Written, Diagnostic> {
    let (bytes, places) = file(database, options).ok_or_else(|| {
        Diagnostic::error(At::start(out), format!("no useful database fits into {} bytes", options.size))
            .help("allow for a larger file")
    })?;
    let beside = out.with_extension("mmdb.new");
    std::fs::write(&beside, &bytes)
        .and_then(|()| std::fs::rename(&beside, out))
        .map_err(|error| Diagnostic::error(At::start(out), format!("can't write the database: {error}")))?;
    Ok(Written { bytes: bytes.len(), places })
}

/// The file's bytes and its number of places; `None` when nothing fits, or nothing is known.
pub fn file(database: &Database, options: &Options) -> Option<(Vec<u8>, usize)> {
    let places = Places::build(database, &[]);
    let spots = Spots::new(&places.list, options.grid);
    if spots.list.len() == 1 {
        return None;
    }
    let (mut keep4, mut keep6) = (Vec::new(), Vec::new());
    for net in &options.keep {
        match net {
            IpNet::V4(net) => {
                let key = |address: Ipv4Addr| u128::from(address.to_bits() >> 8);
                keep4.push((key(net.network()), key(net.broadcast())));
            }
            IpNet::V6(net) => {
                let key = |address: Ipv6Addr| address.to_bits() >> 80;
                keep6.push((key(net.network()), key(net.broadcast())));
            }
        }
    }
    let kept = |keep: &[(u128, u128)], first: u128, blocks: u128| {
        KEPT * keep.iter().filter(|&&(low, high)| low < first + blocks && first <= high).count() as f64
    };
    let mut v4 = Pruned::new(&places.v4.map(|place| spots.of_place[place as usize]), 24, &spots, |first, blocks| {
        blocks as f64 + kept(&keep4, first, blocks)
    });
    // Allocations grow with the customers an operator hopes for, not with those it has. By the fourth root a /20 weighs
    // as much as 128 single /48. (Tried: with a tenth of the square root one IPv4 address in 1,000 more, but three IPv6
    // networks in 100 fewer go to their nearest region.)
    let mut v6 = Pruned::new(&places.v6.map(|place| spots.of_place[place as usize]), 48, &spots, |first, blocks| {
        (blocks as f64).sqrt().sqrt() + kept(&keep6, first, blocks)
    });
    let kinds: Vec<&str> = database.files().iter().map(|file| &*file.database_type).collect();
    let description = format!("Country and location, compacted from {}. {}", kinds.join(", "), options.attribution);
    let built = database.files().iter().filter_map(|file| file.built.duration_since(UNIX_EPOCH).ok()).max();
    let metadata = mmdb::Metadata {
        database_type: "Meridian-City",
        description: description.trim(),
        build_epoch: built.unwrap_or_default().as_secs(),
    };
    let mut written = |price: f64| {
        let mut tree = Tree::default();
        let low = v4.emit(price, &mut tree);
        let mut root = v6.emit(price, &mut tree);
        // IPv4 by its own tree, also where it is written inside IPv6.
        for (prefix, length) in [(0, 96), (0xffff << 32, 96), (0x64_ff9b << 96, 96), (0x2002 << 112, 16)] {
            root = tree.graft(root, prefix, length, low);
        }
        mmdb::file(&tree, root, &spots.list, &metadata).filter(|(bytes, _)| bytes.len() <= options.size)
    };
    // Equal subtrees are stored once and records come on top, so the price that fits is found by trying.
    let (mut too_cheap, mut fits) = (1e-4f64, 1e4f64);
    let mut best = written(fits);
    for _ in 0..16 {
        let price = (too_cheap * fits).sqrt();
        match written(price) {
            Some(file) => {
                best = Some(file);
                fits = price;
            }
            None => too_cheap = price,
        }
    }
    best
}

/// The places that addresses may be put at.
struct Spots {
    /// Number 0 is the unknown one.
    list: Vec<mmdb::Entry>,
    /// On the unit sphere.
    at: Vec<Option<[f32; 3]>>,
    of_place: Vec<u32>,
}

impl Spots {
    /// The heaviest place of each square and country stands for all of them.
    fn new(places: &[Place], grid: f64) -> Spots {
        let square = |place: &Place| {
            let at = place.location.map(|at| ((at.lat() / grid).floor() as i64, (at.lon() / grid).floor() as i64));
            (place.country, at)
        };
        let mut heaviest: Vec<usize> = (0..places.len()).collect();
        heaviest.sort_by_key(|&i| std::cmp::Reverse(places[i].weight));
        let mut list = vec![(None, None)];
        let mut known = HashMap::from([(square(&places[0]), 0)]);
        let mut of_place = vec![0; places.len()];
        for i in heaviest {
            of_place[i] = *known.entry(square(&places[i])).or_insert_with(|| {
                list.push((places[i].country, places[i].location));
                list.len() as u32 - 1
            });
        }
        let unit = |entry: &mmdb::Entry| {
            let at = entry.1?;
            let (lat, lon) = (at.lat().to_radians(), at.lon().to_radians());
            Some([(lat.cos() * lon.cos()) as f32, (lat.cos() * lon.sin()) as f32, lat.sin() as f32])
        };
        Spots { at: list.iter().map(unit).collect(), list, of_place }
    }

    /// How wrong it is to put an address of spot `a` at spot `b`: 0 to 1.
    fn error(&self, a: u32, b: u32) -> f32 {
        if a == b {
            return 0.0;
        }
        let (Some(p), Some(q)) = (self.at[a as usize], self.at[b as usize]) else { return 1.0 };
        let squared: f32 = (0..3).map(|i| (p[i] - q[i]) * (p[i] - q[i])).sum();
        // The chord is as good as the arc at distances that matter.
        let km = squared.sqrt() * 6371.0;
        let abroad = if self.list[a as usize].0 == self.list[b as usize].0 { 0.0 } else { ABROAD };
        (km / FAR_KM as f32 + abroad).min(1.0)
    }
}

/// The full tree, with what each subtree would cost as a leaf.
struct Pruned {
    /// Children come before their parents; the last one is the root.
    nodes: Vec<Node>,
}

#[derive(Clone, Copy)]
struct Node {
    /// `None`: a leaf of the full tree.
    children: Option<[u32; 2]>,
    /// The best spot for all of it, and the error it makes.
    spot: u32,
    error: f32,
    /// Whether its subtree is worth keeping at the price in question, and the error and price of what is left of it.
    kept: bool,
    cost: f32,
}

impl Node {
    fn new(children: Option<[u32; 2]>, spot: u32, error: f32) -> Node {
        Node { children, spot, error, kept: false, cost: 0.0 }
    }
}

impl Pruned {
    /// `spots_by_key`: runs of keys of `bits` bits; `weight` of a block by its first key and their number, all in one spot.
    fn new<K: super::ranges::Key>(
        runs: &Ranges<K>,
        bits: u32,
        spots: &Spots,
        weight: impl Fn(u128, u128) -> f64,
    ) -> Pruned {
        let mut full = Full { starts: runs.starts(), values: runs.values(), spots, weight, nodes: Vec::new() };
        full.grow(0, bits, 0, runs.len() - 1);
        Pruned { nodes: full.nodes }
    }

    /// The tree that is left where an inner node costs `price`.
    fn emit(&mut self, price: f64, tree: &mut Tree) -> Child {
        for i in 0..self.nodes.len() {
            let node = self.nodes[i];
            let as_leaf = node.error;
            (self.nodes[i].kept, self.nodes[i].cost) = match node.children {
                Some([zero, one]) => {
                    let as_tree = self.nodes[zero as usize].cost + self.nodes[one as usize].cost + price as f32;
                    (as_tree < as_leaf, as_tree.min(as_leaf))
                }
                None => (false, as_leaf),
            };
        }
        go(&self.nodes, self.nodes.len() - 1, tree)
    }
}

/// As deep as there are address bits.
fn go(nodes: &[Node], i: usize, tree: &mut Tree) -> Child {
    match nodes[i].children {
        Some([zero, one]) if nodes[i].kept => {
            let zero = go(nodes, zero as usize, tree);
            let one = go(nodes, one as usize, tree);
            tree.node(zero, one)
        }
        _ if nodes[i].spot == 0 => Child::NOTHING,
        _ => Child::record(nodes[i].spot),
    }
}

/// The tree while it grows.
struct Full<'a, K, W> {
    starts: &'a [K],
    values: &'a [u32],
    spots: &'a Spots,
    weight: W,
    nodes: Vec<Node>,
}

/// Spots below a node with their weights, or too many of them.
type Census = Option<Vec<(u32, f32)>>;

impl<K: super::ranges::Key, W: Fn(u128, u128) -> f64> Full<'_, K, W> {
    /// The subtree of the `1 << bits` keys from `first`, which lie in the runs `low..=high`. Returns its node.
    fn grow(&mut self, first: u128, bits: u32, low: usize, high: usize) -> (u32, Census) {
        if low == high {
            let spot = self.values[low];
            self.nodes.push(Node::new(None, spot, 0.0));
            return (self.nodes.len() as u32 - 1, Some(vec![(spot, (self.weight)(first, 1 << bits) as f32)]));
        }
        let middle = first + (1 << (bits - 1));
        let after = low + self.starts[low..=high].partition_point(|&start| start.into() < middle);
        let from = if after <= high && self.starts[after].into() == middle { after } else { after - 1 };
        let (zero, left) = self.grow(first, bits - 1, low, after - 1);
        let (one, right) = self.grow(middle, bits - 1, from, high);
        let census = left.zip(right).and_then(|(left, right)| together(left, right));
        let (spot, error) = match &census {
            Some(census) => self.best(census),
            None => (0, f32::INFINITY),
        };
        self.nodes.push(Node::new(Some([zero, one]), spot, error));
        (self.nodes.len() as u32 - 1, census)
    }

    fn best(&self, census: &[(u32, f32)]) -> (u32, f32) {
        let error_at = |spot| census.iter().map(|&(other, weight)| weight * self.spots.error(other, spot)).sum::<f32>();
        let mut best = (census[0].0, f32::INFINITY);
        for &(spot, _) in census {
            let error = error_at(spot);
            if error < best.1 {
                best = (spot, error);
            }
        }
        best
    }
}

/// Both sorted by spot.
fn together(left: Vec<(u32, f32)>, right: Vec<(u32, f32)>) -> Census {
    let mut out = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek().copied(), right.peek().copied()) {
        out.push(match a.0.cmp(&b.0) {
            std::cmp::Ordering::Less => a,
            std::cmp::Ordering::Greater => b,
            std::cmp::Ordering::Equal => (a.0, a.1 + b.1),
        });
        if a.0 <= b.0 {
            left.next();
        }
        if b.0 <= a.0 {
            right.next();
        }
    }
    out.extend(left);
    out.extend(right);
    (out.len() <= MOST_PLACES).then_some(out)
}
