//! Instructions under callgrind: for an answer of each kind, a look-up in the atlas, a change of verdicts, a compilation.
//!
//! Run by `benches/instructions/compare`, which prints them beside the committed ones. Counts are those of the bundled
//! database (of none where the client makes no difference), and of a second pass: the setup does the same once before, so
//! that caches and what is made at first use are warm.
//!
//! Answers and look-ups are measured over a batch of [`BATCH`]; the script divides.

mod worlds;

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use gungraun::{LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};

use meridian::answer::{self, Outcome};
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::snapshot::effect::{self, ZoneEffect};
use meridian::snapshot::standing::{Share, Standing};
use meridian::snapshot::{Served, Snapshot, TargetId};
use worlds::World;
use worlds::queries::{Asked, BATCH, Kind, Outs, outs};
use worlds::random::Random;

/// What lives as long as the process: freeing it is nobody's cost.
fn forever<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

struct Asking {
    snapshot: &'static Snapshot,
    batch: Vec<Asked<'static>>,
    outs: Box<Outs>,
}

impl Asking {
    fn answer(&mut self) -> usize {
        let mut sum = 0;
        for (asked, out) in self.batch.iter().zip(self.outs.iter_mut()) {
            if let Outcome::Answered { length, .. } = answer::respond(self.snapshot, asked.message, asked.client, out) {
                sum += length;
            }
        }
        sum
    }
}

fn asking(kind: &str) -> Asking {
    let kind = Kind::named(kind);
    // Reading the database takes callgrind a quarter of a minute: not where nobody asks it.
    let database = if kind.is_steered() { Database::bundled() } else { Database::empty() };
    let snapshot = forever(kind.world.snapshot(&Arc::new(database)));
    let batch = forever(kind.prepare(BATCH)).asked();
    kind.check(snapshot, &batch);
    let mut asking = Asking { snapshot, batch, outs: outs() };
    asking.answer();
    asking
}

#[library_benchmark(setup = asking)]
#[bench::subnet_v4("subnet_v4")]
#[bench::subnet_v6("subnet_v6")]
#[bench::no_edns("no_edns")]
#[bench::weighted("weighted")]
#[bench::ruled("ruled")]
#[bench::uneven_servers("uneven_servers")]
#[bench::steered_wildcard("steered_wildcard")]
#[bench::cname_chain("cname_chain")]
#[bench::regions_64("regions_64")]
#[bench::half_down("half_down")]
#[bench::fixed("fixed")]
#[bench::wildcard("wildcard")]
#[bench::referral("referral")]
#[bench::nodata("nodata")]
#[bench::nxdomain("nxdomain")]
#[bench::truncated("truncated")]
#[bench::long("long")]
#[bench::malformed("malformed")]
#[bench::refused("refused")]
fn respond(mut asking: Asking) -> (usize, Asking) {
    (black_box(black_box(&mut asking).answer()), asking)
}

struct Looking {
    snapshot: &'static Snapshot,
    addresses: [IpAddr; BATCH],
}

impl Looking {
    fn locate(&self) -> u32 {
        let atlas = &self.snapshot.geography().atlas;
        let locate = |&address: &IpAddr| {
            let located = atlas.locate(black_box(address), u8::MAX);
            u32::from(located.cell.0) + u32::from(located.scope)
        };
        self.addresses.iter().map(locate).sum()
    }
}

fn looking(v6: bool) -> Looking {
    let mut random = Random::new(1);
    let addresses = std::array::from_fn(|_| if v6 { random.subnet6() } else { random.address4().into() });
    let looking = Looking { snapshot: forever(World::Peers.snapshot(&Arc::new(Database::bundled()))), addresses };
    looking.locate();
    looking
}

#[library_benchmark(setup = looking)]
#[bench::v4(false)]
#[bench::v6(true)]
fn locate(looking: Looking) -> u32 {
    black_box(black_box(&looking).locate())
}

/// Four zones without a database: what a change costs does not depend on where clients are, but for the effect.
fn zones() -> Vec<Served> {
    worlds::serve(worlds::load(&(0..4).map(worlds::ordinary).collect::<Vec<_>>()))
}

fn compiled(database: Database) -> &'static Snapshot {
    forever(Snapshot::compile(zones(), &Arc::new(database), |_| Verdict::Up, None))
}

/// The same change is made and freed before, so that the allocator has what is wanted at hand: which of its ways it takes
/// otherwise depends on what was freed in setting up, and that on the random seeds of the standard library's tables.
fn changed_before(change: fn(&Snapshot) -> Snapshot) -> &'static Snapshot {
    let snapshot = compiled(Database::empty());
    (0..8).for_each(|_| drop(change(snapshot)));
    snapshot
}

fn flip(snapshot: &Snapshot) -> Snapshot {
    snapshot.with_verdicts(&[(TargetId(17), Verdict::Down)])
}

#[library_benchmark]
#[bench::one(args = (flip), setup = changed_before)]
fn with_verdicts(snapshot: &'static Snapshot) -> Snapshot {
    black_box(flip(black_box(snapshot)))
}

fn halve(snapshot: &Snapshot) -> Snapshot {
    let half = Standing { share: Share::of(0.5), ..Standing::default() };
    snapshot.with_standings([((1, 3), half)])
}

#[library_benchmark]
#[bench::one(args = (halve), setup = changed_before)]
fn with_standings(snapshot: &'static Snapshot) -> Snapshot {
    black_box(halve(black_box(snapshot)))
}

fn before_and_after() -> (&'static Snapshot, &'static Snapshot) {
    let before = compiled(Database::bundled());
    let after = before.with_verdicts(&[(TargetId(16), Verdict::Down), (TargetId(17), Verdict::Down)]);
    effect::between(before, &after, 1);
    (before, forever(after))
}

#[library_benchmark]
#[bench::between(args = (), setup = before_and_after)]
fn effect_of((before, after): (&'static Snapshot, &'static Snapshot)) -> ZoneEffect {
    black_box(effect::between(black_box(before), after, 1))
}

fn uncompiled() -> (Vec<Served>, Arc<Database>) {
    (zones(), Arc::new(Database::empty()))
}

#[library_benchmark]
#[bench::four_zones(args = (), setup = uncompiled)]
fn compile((zones, database): (Vec<Served>, Arc<Database>)) -> Snapshot {
    black_box(Snapshot::compile(zones, &database, |_| Verdict::Up, None))
}

library_benchmark_group!(name = answers, benchmarks = respond);
library_benchmark_group!(name = atlas, benchmarks = locate);
library_benchmark_group!(name = snapshot, benchmarks = [with_verdicts, with_standings, effect_of, compile]);

// The C library chooses its memcpy and the like by the CPU; the plain ones are everywhere, so that counts can be compared.
main!(
    config = LibraryBenchmarkConfig::default()
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2,-ERMS,-FSRM,-SSSE3,-SSE4_2,-BMI2");
    library_benchmark_groups = answers, atlas, snapshot
);
