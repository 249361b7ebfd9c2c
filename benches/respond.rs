//! Time of `respond` by kind of query: user time only, no socket.
//!
//!     cargo bench --bench respond                            # criterion: ns a query, kept and compared with the last run
//!     cargo bench --bench respond -- subnet                  # kinds whose names hold a word
//!     cargo bench --bench respond -- --side-by-side [WORD]   # the variants in turns; medians and differences
//!     MERIDIAN_CITY=GeoLite2-City.mmdb cargo bench --bench respond
//!
//! Lists of queries are as long as it takes to be honest about caches: a million random subnets before one comes again.
//! A variant is a function over a batch of queries; to compare another one, add it to `VARIANTS`.

mod worlds;

use std::hint::black_box;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use criterion::Criterion;

use arrayvec::ArrayVec;
use meridian::answer::{Outcome, Pending, respond, seek};
use meridian::geo::Database;
use meridian::snapshot::Snapshot;
use worlds::queries::{Asked, BATCH, KINDS, Kind, Outs, outs};

/// Answers a batch of at most `BATCH` queries; gives the sum of lengths, so that nothing is optimised away.
type Answer = fn(&Snapshot, &[Asked<'_>], &mut Outs) -> usize;

/// The first is what the others are compared with.
const VARIANTS: [(&str, Answer); 3] = [("template", template), ("respond", one_by_one), ("in stages", in_stages)];

/// As a UDP worker does it: each stage for the whole batch.
fn in_stages(snapshot: &Snapshot, batch: &[Asked<'_>], outs: &mut Outs) -> usize {
    let mut pending: ArrayVec<_, BATCH> =
        batch.iter().map(|asked| Pending::read(snapshot, asked.message, asked.client)).collect();
    seek(&mut pending);
    let write = |(pending, out): (&Pending<'_, '_>, &mut [u8; _])| match pending.write(out) {
        Outcome::Dropped => 0,
        Outcome::Answered { length, .. } => length,
    };
    pending.iter().zip(outs).map(write).sum()
}

fn one_by_one(snapshot: &Snapshot, batch: &[Asked<'_>], outs: &mut Outs) -> usize {
    let answer = |(asked, out): (&Asked<'_>, &mut [u8; _])| match respond(snapshot, asked.message, asked.client, out) {
        Outcome::Dropped => 0,
        Outcome::Answered { length, .. } => length,
    };
    batch.iter().zip(outs).map(answer).sum()
}

/// What a bare responder does: a prepared answer to any query, with the query's id. Knows nothing.
fn template(snapshot: &Snapshot, batch: &[Asked<'_>], outs: &mut Outs) -> usize {
    static TEMPLATE: OnceLock<Vec<u8>> = OnceLock::new();
    // As long as an answer of the zone of benches/peers.
    let template = TEMPLATE.get_or_init(|| vec![7; 93]);
    black_box(snapshot);
    for (asked, out) in batch.iter().zip(outs) {
        out[..template.len()].copy_from_slice(template);
        out[..2].copy_from_slice(&asked.message[..2]);
    }
    template.len() * batch.len()
}

/// Goes through a list in circles.
struct Course<'a> {
    snapshot: &'a Snapshot,
    asked: &'a [Asked<'a>],
    outs: Box<Outs>,
    at: usize,
}

impl Course<'_> {
    /// Time of the next `count` queries.
    fn run(&mut self, answer: Answer, mut count: u64) -> Duration {
        let start = Instant::now();
        while count > 0 {
            let batch = &self.asked[self.at..self.asked.len().min(self.at + BATCH.min(count as usize))];
            black_box(answer(self.snapshot, black_box(batch), &mut self.outs));
            count -= batch.len() as u64;
            self.at += batch.len();
            if self.at == self.asked.len() {
                self.at = 0;
            }
        }
        start.elapsed()
    }
}

/// Runs `measure` for each kind that is wanted, with what it needs.
fn each(database: &Arc<Database>, is_wanted: impl Fn(&Kind) -> bool, mut measure: impl FnMut(&Kind, Course<'_>)) {
    let mut last: Option<(worlds::World, Snapshot)> = None;
    for kind in KINDS.iter().filter(|kind| is_wanted(kind)) {
        let (_, snapshot) = match last.take_if(|(world, _)| *world == kind.world) {
            Some(same) => last.insert(same),
            None => last.insert((kind.world, kind.world.snapshot(database))),
        };
        let prepared = kind.prepare(usize::MAX);
        let asked = prepared.asked();
        kind.check(snapshot, &asked);
        measure(kind, Course { snapshot, asked: &asked, outs: outs(), at: 0 });
    }
}

fn criterion(database: &Arc<Database>, words: &[String]) {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    // Criterion filters too; this spares the lists of kinds that it would pass over.
    each(
        database,
        |kind| is_meant(kind, words),
        |kind, mut course| {
            let mut group = criterion.benchmark_group("respond");
            group.bench_function(kind.name, |bencher| bencher.iter_custom(|count| course.run(one_by_one, count)));
            let name = format!("{}, in stages", kind.name);
            group.bench_function(name, |bencher| bencher.iter_custom(|count| course.run(in_stages, count)));
            group.finish();
        },
    );
    criterion.final_summary();
}

fn is_meant(kind: &Kind, words: &[String]) -> bool {
    words.is_empty() || words.iter().any(|word| kind.name.contains(word))
}

/// Slices of some milliseconds, the variants in turns, so that a slow moment of the machine meets all of them.
fn side_by_side(database: &Arc<Database>, words: &[String]) {
    const ROUNDS: usize = 41;
    const SLICE: u64 = 50_000;
    print!("| kind |");
    VARIANTS.iter().for_each(|(name, _)| print!(" {name}, ns |"));
    VARIANTS[1..].iter().for_each(|(name, _)| print!(" {name} − {}, ns (quartiles) |", VARIANTS[0].0));
    println!("\n|---|{}", "---|".repeat(2 * VARIANTS.len() - 1));
    each(
        database,
        |kind| is_meant(kind, words),
        |kind, mut course| {
            // By variant, a value a round.
            let mut times = vec![Vec::new(); VARIANTS.len()];
            for round in 0..ROUNDS {
                for turn in 0..VARIANTS.len() {
                    let variant = (round + turn) % VARIANTS.len();
                    times[variant].push(course.run(VARIANTS[variant].1, SLICE).as_nanos() as f64 / SLICE as f64);
                }
            }
            print!("| {} |", kind.name);
            times.iter().for_each(|times| print!(" {:.0} |", quartiles(times.iter().copied())[1]));
            for variant in &times[1..] {
                let [low, middle, high] = quartiles(variant.iter().zip(&times[0]).map(|(time, first)| time - first));
                print!(" {middle:.0} ({low:.0}–{high:.0}) |");
            }
            println!();
        },
    );
}

fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| sorted[(sorted.len() - 1) * quarter / 4])
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<String> = arguments.iter().filter(|argument| !argument.starts_with('-')).cloned().collect();
    let database = worlds::database();
    if arguments.iter().any(|argument| argument == "--side-by-side") {
        side_by_side(&database, &words);
    } else {
        criterion(&database, &words);
    }
}
