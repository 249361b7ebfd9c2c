//! What was learned of round-trip times, beside the loop: shared by who feeds it and who plans by it, never by who answers.

use std::borrow::Borrow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::config::rtt::Imported;
use crate::config::settings::Zone;
use crate::geo::{Database, Point};
use crate::journal::Journal;
use crate::state::file::Kind;
use crate::state::keeper::Shelf;
use crate::steering::learn::table::Builder;
use crate::steering::learn::{Key, Learned, Saved, Table};

/// Locked for as long as a batch of samples, or a look at all cells, takes.
pub type Shared = Arc<Mutex<Learned>>;

/// How often what is old is dropped.
const EXPIRE: Duration = Duration::from_secs(60);
/// How often it is written: what a crash costs, beside six hours of half-life.
const SAVE_EVERY: u32 = 5;
/// Networks of the databases that a row is laid over one by one; beyond it the row is looked at in as many places.
const PIECES: u128 = 4096;
/// Of a whole table; rows beyond it stand where their first address is.
const LOOKUPS: usize = 5_000_000;

/// What the last run left, or nothing.
pub fn restore(shelf: Option<&Shelf>, journal: &Journal) -> Shared {
    let saved: Saved = shelf.map(|shelf| shelf.read(Kind::Rtt, journal)).unwrap_or_default();
    Arc::new(Mutex::new(Learned::restored(&saved, Timestamp::now())))
}

/// Drops what is old and writes the rest behind, until `stop`; then it writes once more.
pub async fn keep(learned: Shared, shelf: Option<Shelf>, stop: CancellationToken) {
    let mut ticks = interval(EXPIRE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut written, mut count) = (Saved::default(), 0);
    loop {
        let ends = tokio::select! {
            () = stop.cancelled() => true,
            _ = ticks.tick() => false,
        };
        count += 1;
        let (learned, shelf) = (Arc::clone(&learned), shelf.clone().filter(|_| ends || count % SAVE_EVERY == 0));
        let before = std::mem::take(&mut written);
        let work = move || {
            let saved = {
                let mut learned = learned.lock().unwrap_or_else(PoisonError::into_inner);
                learned.expire(Timestamp::now());
                shelf.as_ref().map(|_| learned.saved())
            };
            match shelf.zip(saved) {
                Some((shelf, saved)) if saved != before => match shelf.write(Kind::Rtt, &saved) {
                    Ok(()) => saved,
                    Err(error) => {
                        error!(%error, "learned round-trip times cannot be written to the state directory");
                        before
                    }
                },
                _ => before,
            }
        };
        match spawn_blocking(work).await {
            Ok(now) => written = now,
            Err(_) => warn!("learned round-trip times were not looked after this minute"),
        }
        if ends {
            return;
        }
    }
}

/// What imported rows say of places, where the zones have their regions.
pub fn table_of<Z: Borrow<Zone>>(rows: &[Imported], database: &Database, zones: &[Z]) -> Table {
    let region = |name: &str| {
        let mut regions = zones.iter().flat_map(|zone| &zone.borrow().regions);
        regions.find(|region| *region.name == *name).and_then(|region| region.location)
    };
    table(rows, database, region)
}

/// What imported rows say of places. `region`: where a region is; rows of regions that are nowhere teach no penalty.
pub fn table(rows: &[Imported], database: &Database, region: impl Fn(&str) -> Option<Point>) -> Table {
    let mut builder = Builder::default();
    let mut left = LOOKUPS;
    for row in rows {
        let location = region(&row.region);
        for (client, blocks) in pieces(row.prefix, database, &mut left) {
            builder.add(&client, &row.region, location, row.ms, blocks);
        }
    }
    builder.finish()
}

/// The places that a prefix lies in, each with its number of /24 or /48.
fn pieces(prefix: IpNet, database: &Database, left: &mut usize) -> Vec<(Key, f64)> {
    let (first, last) = (bits(prefix.network()), bits(prefix.broadcast()));
    let v4 = prefix.addr().is_ipv4();
    let block = if v4 { 1u128 << 8 } else { 1 << 80 };
    let mut found = Vec::new();
    let mut look = |at: u128, found: &mut Vec<(Key, f64)>, weight: &dyn Fn(u128) -> u128| {
        let told = database.lookup(address(at, v4));
        let end = bits(told.network.broadcast()).min(last);
        let key = Key::new(
            told.location.map(|told| told.value),
            told.country.map(|told| told.value),
            told.asn.map(|told| told.value),
        );
        found.push((key, weight(end) as f64 / block as f64));
        *left = left.saturating_sub(1);
        (end, *left)
    };
    let mut at = first;
    for _ in 0..PIECES {
        let (end, left) = look(at, &mut found, &|end| (end - at).saturating_add(1));
        if end >= last {
            return found;
        }
        if left == 0 {
            // Nothing more is looked up: all of it stands where its beginning is.
            found.truncate(1);
            found[0].1 = ((last - first) / block) as f64 + 1.0;
            return found;
        }
        at = end + 1;
    }
    found.clear();
    let step = ((last - first) / PIECES).max(1);
    for i in 0..PIECES {
        look(first + i * step, &mut found, &|_| step);
    }
    found
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn address(bits: u128, v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::from(bits as u32).into() } else { Ipv6Addr::from(bits).into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::learn::Region;

    fn pieces_of(prefix: &str, database: &Database) -> Vec<(Key, f64)> {
        pieces(prefix.parse().unwrap(), database, &mut LOOKUPS.clone())
    }

    #[test]
    fn a_prefix_lies_where_the_databases_say_and_all_of_it_counts() {
        let database = Database::bundled();
        for (prefix, blocks) in
            [("1.0.0.0/8", 65_536.0), ("1.1.1.0/24", 1.0), ("8.0.0.0/12", 4096.0), ("2001:4860::/32", 65_536.0)]
        {
            let sum: f64 = pieces_of(prefix, &database).iter().map(|(_, blocks)| blocks).sum();
            assert!((sum / blocks - 1.0).abs() < 0.01, "{prefix}: {sum}");
        }
        assert!(pieces_of("1.0.0.0/8", &database).len() > 10);
        assert_eq!(pieces_of("2400::/12", &Database::empty()).len(), 1);
        let mut none = 1;
        assert_eq!(pieces("1.0.0.0/8".parse().unwrap(), &database, &mut none).len(), 1, "there is a bound");
    }

    #[test]
    fn an_imported_row_is_what_its_place_costs() {
        let database = Database::bundled();
        let rows =
            [Imported { prefix: "1.1.1.0/24".parse().unwrap(), region: "eu".into(), ms: 150.0, line: 2, column: 12 }];
        let mut learned = Learned::new();
        let at = Point::new(51.5, -0.1);
        let found = database.lookup("1.1.1.1".parse().unwrap());
        let key = Key::new(found.location.map(|told| told.value), found.country.map(|told| told.value), None);
        let region = Region { zone: None, name: "eu", location: at };
        let before = learned.cost(&key, &region, Timestamp::UNIX_EPOCH);
        learned.import(table(&rows, &database, |_| at));
        let after = learned.cost(&key, &region, Timestamp::UNIX_EPOCH);
        assert!((after.ms() - 150.0).abs() < (before.ms() - 150.0).abs(), "{before:?} {after:?}");
        assert_eq!(after.samples, 5.0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_learned_is_written_and_a_broken_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (keeper, restored) = crate::state::Keeper::start(dir.path());
        let shelf = keeper.shelf().unwrap();
        let learned = restore(Some(&shelf), &restored.journal);
        {
            let mut learned = learned.lock().unwrap();
            let client = Key::new(Point::new(51.5, -0.1), None, None);
            for n in 0..9u32 {
                let sample = crate::steering::learn::Sample {
                    client,
                    cell: None,
                    block: crate::steering::learn::Block::of(Ipv4Addr::from(n << 8).into()),
                    region: Region { zone: None, name: "eu", location: None },
                    rtt_ms: 40.0,
                    loss: None,
                    reporter: crate::steering::learn::Reporter::of("a"),
                };
                learned.feed(&sample, Timestamp::now()).unwrap();
            }
        }
        let stop = CancellationToken::new();
        stop.cancel();
        keep(Arc::clone(&learned), Some(shelf.clone()), stop).await;
        let again = restore(Some(&shelf), &restored.journal);
        assert_eq!(again.lock().unwrap().len(), 1);
        std::fs::write(dir.path().join("rtt.json"), "meridian-state 1 rtt 00\n{}").unwrap();
        assert!(restore(Some(&shelf), &restored.journal).lock().unwrap().is_empty());
        let aside = std::fs::read_dir(dir.path()).unwrap().flatten();
        assert!(aside.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("rtt.json.corrupt-")));
    }
}
