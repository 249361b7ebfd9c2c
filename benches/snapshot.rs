//! Time of compiling zones, and of a change of verdicts or standings.
//!
//!     cargo bench --bench snapshot
//!     MERIDIAN_CITY=GeoLite2-City.mmdb cargo bench --bench snapshot
//!
//! All zones have eight regions of two probed servers, four steered names and some records. Times do not hold what it takes
//! to free what was made: the control loop frees old snapshots when nobody reads them.

mod worlds;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use meridian::health::Verdict;
use meridian::snapshot::standing::{Share, Standing};
use meridian::snapshot::{Served, Snapshot, TargetId, effect};

const COUNTS: [usize; 3] = [1, 100, 1000];

fn zones(count: usize) -> Vec<Served> {
    worlds::serve(worlds::load(&(0..count).map(worlds::ordinary).collect::<Vec<_>>()))
}

fn compile(criterion: &mut Criterion) {
    let database = worlds::database();
    let mut group = criterion.benchmark_group("snapshot/compile");
    group.sample_size(10);
    for count in COUNTS {
        let zones = zones(count);
        let compile = |previous| Snapshot::compile(zones.clone(), &database, |_| Verdict::Up, previous);
        // With places, cells and atlas.
        group.bench_function(BenchmarkId::new("anew", count), |bencher| {
            bencher.iter_with_large_drop(|| compile(None));
        });
        // After a change of records: geography is shared.
        let previous = compile(None);
        group.bench_function(BenchmarkId::new("with_previous", count), |bencher| {
            bencher.iter_with_large_drop(|| compile(Some(&previous)));
        });
    }
    group.finish();
}

fn change(criterion: &mut Criterion) {
    let database = worlds::database();
    let mut group = criterion.benchmark_group("snapshot/change");
    for count in COUNTS {
        let before = Snapshot::compile(zones(count), &database, |_| Verdict::Up, None);
        let target = TargetId(before.targets().len() as u32 / 2);
        let (fleet, _) = before.users(target).next().expect("a target is used");
        // Each zone has regions of its own here, so fleets are numbered as zones are.
        let zone = fleet;
        let down = [(target, Verdict::Down)];
        group.bench_function(BenchmarkId::new("with_verdicts", count), |bencher| {
            bencher.iter_with_large_drop(|| before.with_verdicts(black_box(&down)));
        });
        let half = Standing { share: Share::of(0.5), ..Standing::default() };
        group.bench_function(BenchmarkId::new("with_standings", count), |bencher| {
            bencher.iter_with_large_drop(|| before.with_standings([((fleet, 3), black_box(&half).clone())]));
        });
        // Both servers of a region, so that its clients move.
        let region = [TargetId(target.0 & !1), TargetId(target.0 | 1)];
        let after = before.with_verdicts(&region.map(|target| (target, Verdict::Down)));
        assert!(effect::between(&before, &after, zone).moved > 0.0);
        group.bench_function(BenchmarkId::new("effect_between", count), |bencher| {
            bencher.iter_with_large_drop(|| effect::between(&before, &after, zone));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = compile, change
}
criterion_main!(benches);
