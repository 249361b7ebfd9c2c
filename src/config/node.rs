//! `meridian.toml`: the node's own settings, and what it shares with every zone.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::admin;
use super::admin::Access;
use super::check::CheckSpec;
use super::diagnostic::Diagnostic;
use super::settings::{Node, TcpLimits};
use super::tree::{File, Item, Table};
use super::zone_file::Shared;
use super::{heartbeat, load, region, rtt, scale, syntax, units};

/// Read without being named, when it is there.
pub const DEFAULT_FILE: &str = "meridian.toml";

const DNS: &str = "127.0.0.1:5300";
const ADMIN: &str = "127.0.0.1:8053";
const MAX_CONNECTIONS: i64 = 1_000_000;
/// The highest number that the system's calls take.
const MAX_CPU: u16 = 1023;

/// Keys of the node, which TOML takes for a table's own once any `[table]` has begun.
const TOP: [&str; 6] = ["listen", "zones", "geoip", "workers", "cpus", "state"];

impl Default for Node {
    /// What holds without a file, in the current directory.
    fn default() -> Node {
        Node {
            listen: vec![known(DNS)],
            zones: "zones".into(),
            geoip: None,
            workers: None,
            cpus: vec![],
            state: "state".into(),
            admin: known(ADMIN),
            access: Access::default(),
            tcp: TcpLimits::default(),
            heartbeat: None,
            rtt: None,
            scale: None,
        }
    }
}

fn known(address: &str) -> SocketAddr {
    address.parse().expect("a constant of this module, and an address")
}

/// Reads `file`; without one [`DEFAULT_FILE`], if that is there, and the defaults otherwise. Blocks on the file system.
///
/// Relative paths count from the directory of the file. The diagnostics come in the order of the text; when one of
/// them is an error, settings and shared parts are not to be used. A file that cannot be read at all is the error: then
/// nobody knows which other files are meant.
pub fn load_node(file: Option<&Path>) -> Result<(Node, Shared, Vec<Diagnostic>), Box<Diagnostic>> {
    let path = match file {
        Some(path) => path,
        None if Path::new(DEFAULT_FILE).exists() => Path::new(DEFAULT_FILE),
        None => return Ok((Node::default(), Shared::default(), Vec::new())),
    };
    let (text, _) = load::read(path)?;
    Ok(read(path, text))
}

fn read(path: &Path, text: String) -> (Node, Shared, Vec<Diagnostic>) {
    let file = File::new(path, text);
    let text = syntax::check(&file);
    let (root, _) = DeTable::parse_recoverable(&text);
    let mut table = Table::root(&file, root.get_ref());
    let base = path.parent().unwrap_or(Path::new(""));
    let default = Node::default();
    let mut access = Access::default();
    let mut admin = |item: Item<'_>| {
        let (listen, written) = admin::admin(item.table()?, base, socket, belongs_above);
        access = written;
        listen
    };
    let node = Node {
        listen: table.take("listen").map(|item| listen(&item)).unwrap_or(default.listen),
        zones: table.take("zones").and_then(|item| path_of(&item, base)).unwrap_or_else(|| base.join(default.zones)),
        geoip: table.take("geoip").map(|item| paths(&item, base)),
        workers: table.take("workers").and_then(|item| workers(&item)),
        cpus: table.take("cpus").map(|item| cpus(&item)).unwrap_or_default(),
        state: table.take("state").and_then(|item| path_of(&item, base)).unwrap_or_else(|| base.join(default.state)),
        admin: table.take("admin").and_then(&mut admin).unwrap_or(default.admin),
        tcp: table.take("limits").and_then(|item| item.table()).map(limits).unwrap_or(default.tcp),
        access,
        heartbeat: table.take("heartbeat").and_then(|item| heartbeat::read(item.table()?, base, socket, belongs_above)),
        rtt: table.take("steering").and_then(|item| rtt::steering(item.table()?, base, belongs_above)),
        scale: table.take("scale").and_then(|item| scale::read(item.table()?, base, belongs_above)),
    };
    let shared = shared(&mut table);
    table.done();
    (node, shared, file.take_faults())
}

fn belongs_above(key: &str, _: &Item<'_>) -> Option<String> {
    TOP.contains(&key).then(|| format!("`{key}` belongs to the whole node: move it above the first [table]"))
}

fn shared(table: &mut Table<'_>) -> Shared {
    let check = table.take("check").and_then(|item| item.table());
    let regions = table.take("region").and_then(|item| item.table());
    let regions = regions.map(|table| region::read_all(table, &belongs_above)).unwrap_or_default();
    let check = check.map(|table| CheckSpec::read(table, belongs_above));
    // Here too, as perhaps no zone uses what is wrong.
    let base = check.clone().unwrap_or_default();
    base.verify(table.file);
    for own in regions.iter().filter_map(|region| region.check.as_ref()) {
        own.over(&base).verify(table.file);
    }
    Shared { regions, check, named: table.file.take_named() }
}

fn listen(item: &Item<'_>) -> Vec<SocketAddr> {
    let mut list = Vec::new();
    if item.one_or_more().is_empty() {
        let fault = item.fault(format!("`{}` is empty", item.path));
        item.report(fault.help("remove it to listen on 127.0.0.1:5300, or name an address"));
    }
    for (_, element) in item.strings() {
        let Some(address) = socket(&element) else { continue };
        if list.contains(&address) {
            item.report(element.fault(format!("`{}` has {address} twice", item.path)).help("remove one of them"));
        } else {
            list.push(address);
        }
    }
    list
}

fn socket(item: &Item<'_>) -> Option<SocketAddr> {
    let text = item.string()?;
    let address = text.parse();
    if address.is_err() {
        item.report(
            item.fault(format!("`{}` is {text:?}, which is no address with a port", item.path))
                .help("write it like \"192.0.2.53:53\" or \"[2001:db8::53]:53\""),
        );
    }
    address.ok()
}

fn path_of(item: &Item<'_>, base: &Path) -> Option<PathBuf> {
    let text = item.string()?;
    if text.is_empty() {
        item.report(item.fault(format!("`{}` is empty", item.path)).help("write a path, or remove the key"));
        return None;
    }
    Some(base.join(text))
}

fn paths(item: &Item<'_>, base: &Path) -> Vec<PathBuf> {
    item.one_or_more().iter().filter_map(|element| path_of(element, base)).collect()
}

fn workers(item: &Item<'_>) -> Option<NonZeroU16> {
    NonZeroU16::new(item.integer(1..=1024)? as u16)
}

fn cpus(item: &Item<'_>) -> Vec<u16> {
    let mut list = Vec::new();
    for element in item.one_or_more() {
        let Some(cpu) = element.integer(0..=i64::from(MAX_CPU)).map(|cpu| cpu as u16) else { continue };
        if list.contains(&cpu) {
            item.report(element.fault(format!("`{}` has {cpu} twice", item.path)).help("remove one of them"));
        } else {
            list.push(cpu);
        }
    }
    list
}

fn limits(mut table: Table<'_>) -> TcpLimits {
    let mut limits = TcpLimits::default();
    let count = |table: &mut Table<'_>, key: &'static str| {
        let item = table.take(key)?;
        Some(item.placed(item.integer(1..=MAX_CONNECTIONS)? as usize))
    };
    let connections = count(&mut table, "tcp_connections");
    limits.connections = connections.map_or(limits.connections, |n| n.value);
    let per_source = count(&mut table, "tcp_per_source");
    limits.per_source = per_source.as_ref().map_or(limits.per_source.min(limits.connections), |n| n.value);
    limits.pipeline = count(&mut table, "tcp_pipeline").map_or(limits.pipeline, |n| n.value);
    let wait = |table: &mut Table<'_>, key: &'static str, value: &mut Duration| {
        let range = Duration::from_millis(10)..=Duration::from_secs(3600);
        if let Some(read) = table.take(key).and_then(|item| units::read(&item, range)) {
            *value = read;
        }
    };
    wait(&mut table, "tcp_idle", &mut limits.idle);
    wait(&mut table, "tcp_read", &mut limits.read);
    if let Some(per_source) = per_source.filter(|n| n.value > limits.connections) {
        let what = format!("`limits.tcp_per_source` is {}, above `tcp_connections`", per_source.value);
        let fault = Diagnostic::error(per_source.at, what);
        let fault = fault.rule(format!("there are {} connections in all", limits.connections));
        table.file.report(fault.help("lower it, or raise `tcp_connections`"));
    }
    table.finish(belongs_above);
    limits
}
