use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc as std_mpsc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tempfile::tempdir;

use super::load::Seen;
use super::*;
use crate::config::{At, Shared, load_zones};
use crate::geo::Database;
use crate::health::Target;
use crate::journal::Journal;
use crate::orders::{Action, Subject};
use crate::snapshot::Served;
use crate::snapshot::standing::{Mode, Share};
use crate::world::{Beliefs, verdict};

mod twins;

/// A zone of two regions with `servers` servers each, which nobody listens for.
fn zone(servers: usize) -> Arc<crate::config::settings::Zone> {
    let dir = tempdir().unwrap();
    let list = |net: u8| (1..=servers).map(|n| format!("\"192.0.{net}.{n}\"")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "zone = \"stream.example\"\nns = [\"ns1.example.net\", \"ns2.example.net\"]\n\
         [check]\ntcp = 9\n\
         [region.eu]\nat = [51.51, -0.13]\na = [{}]\n[region.us]\nat = [39.04, -77.49]\na = [{}]\n[stream.live]\n",
        list(2),
        list(3),
    );
    std::fs::write(dir.path().join("zone.toml"), text).unwrap();
    let mut loaded = load_zones(&[dir.path().to_owned()], &Shared::default());
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    Arc::new(loaded.zones.remove(0))
}

fn compile(zone: &Arc<crate::config::settings::Zone>, beliefs: &Beliefs, previous: Option<&Snapshot>) -> Snapshot {
    let served = Served { zone: Arc::clone(zone), serial: 1 };
    let database = previous.map_or_else(|| Arc::new(Database::empty()), |p| Arc::clone(&p.geography().database));
    Snapshot::compile(vec![served], &database, |target| verdict(beliefs, target), previous)
}

/// A loop at work on a zone, with the other ends of its channels.
struct Rig {
    published: Published,
    verdicts: mpsc::Sender<health::Event>,
    events: mpsc::Sender<Event>,
    tally: Arc<Tally>,
    journal: Journal,
    parts: Option<Parts>,
    stop: CancellationToken,
}

impl Rig {
    fn new(servers: usize, load: Load) -> Rig {
        Rig::of(compile(&zone(servers), &Beliefs::new(), None), load)
    }

    fn of(snapshot: Snapshot, load: Load) -> Rig {
        let published: Published = Arc::new(ArcSwap::from_pointee(snapshot));
        let (verdicts, verdict_receiver) = mpsc::channel(4096);
        let (events, event_receiver) = mpsc::channel(QUEUE);
        // The probes' own words go nowhere: the test speaks for them.
        let (elsewhere, _) = mpsc::channel(1);
        let tally = Arc::new(Tally::default());
        let (keeper, restored) = Keeper::in_memory();
        let parts = Parts {
            published: Arc::clone(&published),
            load,
            watcher: Watcher::start(|| true).unwrap(),
            prober: Prober::new(elsewhere),
            verdicts: verdict_receiver,
            events: event_receiver,
            ledger: Arc::new(Ledger::default()),
            tally: Arc::clone(&tally),
            beats: Beats::default(),
            loads: Default::default(),
            keeper: Arc::new(keeper),
            restored,
            helm: None,
        };
        let journal = parts.restored.journal.clone();
        Rig { published, verdicts, events, tally, journal, parts: Some(parts), stop: CancellationToken::new() }
    }

    fn run(&mut self) {
        start(self.parts.take().expect("runs once"), self.stop.clone());
    }

    fn target(&self, position: usize) -> Target {
        self.published.load().targets()[position].clone()
    }

    async fn say(&self, target: Target, verdict: Verdict) {
        let event = health::Event { target: Arc::new(target), verdict, cause: "refused".into(), at: Instant::now() };
        self.verdicts.send(event).await.unwrap();
    }

    /// What the loop knows once it has done all that was asked before.
    async fn view(&self) -> View {
        let (reply, view) = oneshot::channel();
        self.events.send(Event::View(reply)).await.ok().unwrap();
        view.await.unwrap()
    }

    async fn reload(&self) -> oneshot::Receiver<ReloadOutcome> {
        let (reply, outcome) = oneshot::channel();
        self.events.send(Event::Reload(reply)).await.ok().unwrap();
        outcome
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A load that tells when it begins and ends when it is let.
fn held_load(servers: usize) -> (Load, std_mpsc::Receiver<()>, std_mpsc::Sender<()>) {
    let (begun, has_begun) = std_mpsc::channel();
    let (let_go, may_end) = std_mpsc::channel::<()>();
    let (zone, may_end) = (zone(servers), std::sync::Mutex::new(may_end));
    let load: Load = Arc::new(move |previous, beliefs| {
        let snapshot = compile(&zone, beliefs, Some(previous));
        begun.send(()).unwrap();
        may_end.lock().unwrap().recv().unwrap();
        Ok(Loaded { snapshot, warnings: vec![], seen: Seen::default() })
    });
    (load, has_begun, let_go)
}

fn no_load() -> Load {
    Arc::new(|_, _| unreachable!("nobody asks for a reload"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_published_and_kept_with_its_cause() {
    let mut rig = Rig::new(1, no_load());
    rig.run();
    let before = rig.published.load().generation();
    rig.say(rig.target(0), Verdict::Down).await;
    let view = rig.view().await;
    assert_eq!(view.snapshot.verdicts(), [Verdict::Down, Verdict::Unknown]);
    assert_eq!(view.snapshot.generation(), before + 1);
    assert_eq!(&*view.beliefs[&rig.target(0)].cause, "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_verdicts_is_one_snapshot_and_the_last_word_stands() {
    let mut rig = Rig::new(100, no_load());
    let before = rig.published.load().generation();
    for position in 0..200 {
        rig.say(rig.target(position), Verdict::Down).await;
        rig.say(rig.target(position), Verdict::Up).await;
        rig.say(rig.target(position), Verdict::Down).await;
    }
    rig.run();
    let view = rig.view().await;
    assert!(view.snapshot.verdicts().iter().all(|verdict| *verdict == Verdict::Down));
    assert_eq!(view.snapshot.generation(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_during_a_load_is_published_at_once_and_survives_it() {
    let (load, has_begun, let_go) = held_load(1);
    let mut rig = Rig::new(1, load);
    rig.run();
    let outcome = rig.reload().await;
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
    rig.say(rig.target(1), Verdict::Down).await;
    let during = rig.view().await.snapshot;
    assert_eq!(during.verdicts(), [Verdict::Unknown, Verdict::Down], "while the load goes on");
    let_go.send(()).unwrap();
    let generation = outcome.await.unwrap().unwrap();
    let after = rig.published.load_full();
    assert_eq!(after.verdicts(), [Verdict::Unknown, Verdict::Down], "the load had begun without it");
    assert_eq!(after.generation(), generation);
    assert!(generation > during.generation(), "generations only rise");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_during_a_load_is_told_the_outcome_of_the_next() {
    let (load, has_begun, let_go) = held_load(1);
    let mut rig = Rig::new(1, load);
    rig.run();
    let (first, has_begun) = (rig.reload().await, std::sync::Mutex::new(has_begun));
    let has_begun = Arc::new(has_begun);
    let begun = || {
        let has_begun = Arc::clone(&has_begun);
        tokio::task::spawn_blocking(move || has_begun.lock().unwrap().recv().unwrap())
    };
    begun().await.unwrap();
    // The files may have changed after the first load read them.
    let second = rig.reload().await;
    rig.view().await;
    let_go.send(()).unwrap();
    let first = first.await.unwrap().unwrap();
    begun().await.unwrap();
    let_go.send(()).unwrap();
    assert!(second.await.unwrap().unwrap() > first);
    assert_eq!(rig.tally.reloads_done.load(Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_load_changes_nothing_and_tells_why() {
    let load: Load = Arc::new(|_, _| {
        let fault = Diagnostic::error(At::start(std::path::Path::new("zones/a.toml")), "no zone file");
        Err(Refused { diagnostics: vec![fault], seen: Seen::default() })
    });
    let mut rig = Rig::new(1, load);
    rig.run();
    let before = rig.published.load_full();
    let faults = rig.reload().await.await.unwrap().unwrap_err();
    assert_eq!(faults[0].what, "no zone file");
    assert!(Arc::ptr_eq(&before, &rig.published.load_full()));
    assert_eq!(rig.tally.reloads_refused.load(Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_panics_changes_nothing_and_the_loop_goes_on() {
    let mut rig = Rig::new(1, Arc::new(|_, _| panic!("a fault of ours")));
    rig.run();
    let before = rig.published.load_full();
    assert!(rig.reload().await.await.unwrap().is_err());
    assert!(Arc::ptr_eq(&before, &rig.published.load_full()));
    rig.say(rig.target(0), Verdict::Down).await;
    assert_eq!(rig.view().await.snapshot.verdicts()[0], Verdict::Down);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_of_a_target_that_is_gone_is_forgotten() {
    let (load, _has_begun, let_go) = held_load(1);
    let mut rig = Rig::new(2, load);
    let gone = rig.target(1);
    rig.run();
    let outcome = rig.reload().await;
    let_go.send(()).unwrap();
    outcome.await.unwrap().unwrap();
    rig.say(gone.clone(), Verdict::Down).await;
    let view = rig.view().await;
    assert!(!view.beliefs.contains_key(&gone));
    assert_eq!(view.snapshot.verdicts(), [Verdict::Unknown; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_reaches_answers_while_nothing_else_happens() {
    let mut rig = Rig::new(100, no_load());
    rig.run();
    rig.view().await;
    let mut took: Vec<Duration> = Vec::new();
    for round in 0..21 {
        let verdict = if round % 2 == 0 { Verdict::Down } else { Verdict::Up };
        let (target, said) = (rig.target(round), Instant::now());
        rig.say(target, verdict).await;
        while rig.published.load().verdicts()[round] != verdict {
            assert!(said.elapsed() < Duration::from_secs(5), "no verdict was published");
            std::hint::spin_loop();
        }
        took.push(said.elapsed());
    }
    // A figure for people: how fast the machine is, no test may judge.
    took.sort();
    println!("verdict to snapshot: median {:?} of {}", took[took.len() / 2], took.len());
}

impl Rig {
    async fn order(&self, draft: Draft) -> Result<Order, Refusal> {
        let (reply, outcome) = oneshot::channel();
        self.events.send(Event::Order(draft, reply)).await.ok().unwrap();
        outcome.await.unwrap()
    }

    async fn lift(&self, what: Lift) -> Result<Vec<Order>, Refusal> {
        let (reply, outcome) = oneshot::channel();
        let author = "bob".to_owned();
        self.events.send(Event::Lift { what, author, reply }).await.ok().unwrap();
        outcome.await.unwrap()
    }

    fn keep_in(&mut self, state: &std::path::Path) {
        let (keeper, restored) = Keeper::start(state);
        self.journal = restored.journal.clone();
        let parts = self.parts.as_mut().unwrap();
        (parts.keeper, parts.restored) = (Arc::new(keeper), restored);
    }

    /// Returns once the loop has let go of its state.
    async fn end(self) {
        self.stop.cancel();
        while self.events.send(Event::FilesChanged).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn standing(&self, region: u8) -> crate::snapshot::standing::Standing {
        self.published.load().standing(0, region).clone()
    }

    /// The kinds of the first `count` entries of the journal, which is written behind; of those that are there when it
    /// takes too long.
    fn kinds(&self, count: usize) -> Vec<Kind> {
        let since = Instant::now();
        loop {
            let entries = self.journal.since(0, 1000);
            if entries.len() >= count || since.elapsed() > Duration::from_secs(5) {
                return entries.iter().map(|entry| entry.note.kind).collect();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn drain(region: &str, over: Duration) -> Draft {
    Draft {
        subject: Subject::Region(region.into()),
        zone: None,
        action: Action::Drain { over },
        from: None,
        lasting: None,
        reason: "kernel update".into(),
        author: "alice".into(),
        anyway: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_region_that_comes_back_takes_its_share_bit_by_bit() {
    let mut rig = Rig::new(1, no_load());
    rig.run();
    rig.say(rig.target(0), Verdict::Down).await;
    rig.view().await;
    rig.say(rig.target(0), Verdict::Up).await;
    rig.view().await;
    let percent = |rig: &Rig| (rig.standing(0).share.part() * 100.0).round();
    assert_eq!((percent(&rig), rig.standing(0).mode), (10.0, Mode::Ramping));
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert!((49.0..=51.0).contains(&percent(&rig)), "{}", percent(&rig));
    tokio::time::sleep(Duration::from_secs(151)).await;
    assert_eq!((percent(&rig), rig.standing(0).mode), (100.0, Mode::Steady));
    let told = [Kind::ServerDown, Kind::RegionDown, Kind::ServerUp, Kind::RegionUp, Kind::RampStarted, Kind::RampDone];
    assert_eq!(rig.kinds(told.len()), told);
    let fell = &rig.journal.since(0, 10)[1].note;
    assert_eq!((fell.region.as_deref(), &*fell.cause), (Some("eu"), "A: 0 of 1 servers up, 1 needed"));
    assert_eq!(fell.effect.as_ref().map(|effect| effect.moved), Some(1.0), "the one cell has lost its nearest");
}

#[tokio::test(start_paused = true)]
async fn no_region_ramps_at_the_start() {
    let mut rig = Rig::new(1, no_load());
    rig.run();
    for position in 0..2 {
        rig.say(rig.target(position), Verdict::Up).await;
    }
    rig.view().await;
    assert_eq!(rig.standing(0).mode, Mode::Steady);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(rig.kinds(0), [], "that servers are as they were taken to be is no news");
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_to_nothing_evenly_and_is_taken_back_from_where_it_was() {
    let mut rig = Rig::new(1, no_load());
    rig.run();
    let order = rig.order(drain("eu", Duration::from_secs(120))).await.unwrap();
    assert_eq!((order.id, rig.standing(0).mode), (1, Mode::Draining));
    // The time of orders is the wall's, which a test cannot stop.
    assert!(rig.standing(0).share.part() > 0.9);
    let lifted = rig.lift(Lift::Drains { subject: Subject::Region("eu".into()), zone: None }).await.unwrap();
    assert_eq!(lifted, [order]);
    assert!(matches!(rig.standing(0).mode, Mode::Ramping | Mode::Steady), "steady again if nothing had moved yet");
    assert!(rig.standing(0).share.part() > 0.9, "not back to a tenth");
    assert_eq!(rig.kinds(2)[..2], [Kind::OrderGiven, Kind::OrderLifted]);
}

#[tokio::test]
async fn a_drain_of_no_time_empties_the_region_at_once() {
    let mut rig = Rig::new(1, no_load());
    rig.run();
    rig.order(drain("eu", Duration::ZERO)).await.unwrap();
    assert_eq!((rig.standing(0).share, rig.standing(0).mode), (Share::NONE, Mode::Drained));
    assert_eq!(rig.kinds(2), [Kind::OrderGiven, Kind::Drained]);
    let refused = rig.order(drain("us", Duration::ZERO)).await.unwrap_err();
    assert!(matches!(&refused, Refusal::TooLittle(text) if text.contains("would leave 0 of 2 regions")), "{refused:?}");
    assert_eq!(rig.kinds(3)[2..], [Kind::OrderRefused]);
}

#[tokio::test]
async fn forced_regions_and_servers_stand_over_verdicts() {
    let mut rig = Rig::new(2, no_load());
    rig.run();
    let force = |subject, action| Draft { subject, action, ..drain("", Duration::ZERO) };
    rig.order(force(Subject::Region("eu".into()), Action::ForceDown)).await.unwrap();
    let up = |rig: &Rig| rig.published.load().fleet(0).1.up(crate::config::settings::Family::V4);
    assert_eq!(up(&rig), 0b10);
    rig.lift(Lift::Forces { subject: Subject::Region("eu".into()), zone: None }).await.unwrap();
    assert_eq!((up(&rig), rig.standing(0).mode), (0b11, Mode::Ramping), "its caches are cold");
    for position in 0..4 {
        rig.say(rig.target(position), Verdict::Down).await;
    }
    rig.view().await;
    assert_eq!(up(&rig), 0);
    rig.order(force(Subject::Server("192.0.3.1".parse().unwrap()), Action::ForceUp)).await.unwrap();
    assert_eq!(up(&rig), 0b10, "half of its servers are up");
    rig.order(force(Subject::Region("eu".into()), Action::ForceUp)).await.unwrap();
    assert_eq!((up(&rig), rig.standing(0).share), (0b11, Share::FULL), "meant at once");
}

#[tokio::test]
async fn orders_and_ramps_outlive_a_reload() {
    let (load, _has_begun, let_go) = held_load(1);
    let mut rig = Rig::new(1, load);
    rig.run();
    rig.order(drain("eu", Duration::from_secs(3600))).await.unwrap();
    rig.say(rig.target(1), Verdict::Down).await;
    rig.view().await;
    rig.say(rig.target(1), Verdict::Up).await;
    rig.view().await;
    assert_eq!(rig.standing(1).mode, Mode::Ramping);
    let before = rig.kinds(6);
    let outcome = rig.reload().await;
    let_go.send(()).unwrap();
    outcome.await.unwrap().unwrap();
    assert_eq!((rig.standing(0).mode, rig.standing(1).mode), (Mode::Draining, Mode::Ramping));
    assert_eq!(rig.kinds(before.len() + 1)[before.len()..], [Kind::Reloaded], "nothing began anew");
}

#[tokio::test]
async fn what_was_known_before_a_restart_holds_until_a_probe_says_better() {
    let state = tempdir().unwrap();
    let (mut first, mut second) = (Rig::new(1, no_load()), Rig::new(1, no_load()));
    first.keep_in(state.path());
    first.run();
    first.say(first.target(0), Verdict::Down).await;
    first.order(drain("us", Duration::ZERO)).await.unwrap_err();
    first.order(Draft { anyway: true, ..drain("us", Duration::ZERO) }).await.unwrap();
    let entries = first.kinds(5).len();
    first.end().await;
    second.keep_in(state.path());
    second.run();
    let view = second.view().await;
    assert_eq!(view.snapshot.verdicts(), [Verdict::Down, Verdict::Unknown]);
    assert!(view.beliefs[&second.target(0)].stale);
    assert_eq!(second.standing(1).mode, Mode::Drained);
    assert_eq!(view.orders.len(), 1);
    let ids: Vec<u64> = second.journal.since(0, 100).iter().map(|entry| entry.id).collect();
    assert_eq!(ids[..entries], (1..=entries as u64).collect::<Vec<_>>(), "the journal goes on");
    second.say(second.target(0), Verdict::Up).await;
    let view = second.view().await;
    assert!(!view.beliefs[&second.target(0)].stale);
    assert_eq!(second.standing(0).mode, Mode::Ramping, "it was down before the start");
}

#[tokio::test(start_paused = true)]
async fn after_a_blip_of_everything_each_viewer_is_at_its_nearest_at_once() {
    let mut rig = Rig::new(1, no_load());
    rig.run();
    for verdict in [Verdict::Down, Verdict::Up] {
        for position in 0..2 {
            rig.say(rig.target(position), verdict).await;
            rig.view().await;
        }
    }
    for region in 0..2 {
        assert_eq!((rig.standing(region).share, rig.standing(region).mode), (Share::FULL, Mode::Steady));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    rig.say(rig.target(0), Verdict::Down).await;
    rig.view().await;
    rig.say(rig.target(0), Verdict::Up).await;
    rig.view().await;
    assert_eq!(rig.standing(0).mode, Mode::Ramping, "later ones ramp");
}

#[tokio::test]
async fn a_drain_of_a_region_that_comes_back_never_raises_its_share() {
    let mut rig = Rig::new(1, no_load());
    rig.run();
    rig.say(rig.target(0), Verdict::Down).await;
    rig.view().await;
    rig.say(rig.target(0), Verdict::Up).await;
    rig.view().await;
    rig.order(drain("eu", Duration::from_secs(3600))).await.unwrap();
    assert_eq!(rig.standing(0).mode, Mode::Draining);
    assert!(rig.standing(0).share.part() < 0.11, "{:?}", rig.standing(0));
}

#[tokio::test]
async fn a_drain_for_another_zone_scope_does_not_call_back_who_was_sent_away() {
    let mut rig = Rig::new(1, no_load());
    rig.run();
    rig.order(drain("eu", Duration::ZERO)).await.unwrap();
    let zone = Some("stream.example".into());
    rig.order(Draft { zone, ..drain("eu", Duration::from_secs(600)) }).await.unwrap();
    rig.lift(Lift::Id(1)).await.unwrap();
    assert_eq!((rig.standing(0).share, rig.standing(0).mode), (Share::NONE, Mode::Drained));
}

#[tokio::test(start_paused = true)]
async fn what_leaves_one_region_finds_room_in_the_only_other_though_that_comes_back() {
    let mut rig = Rig::new(1, no_load());
    rig.run();
    rig.say(rig.target(1), Verdict::Down).await;
    rig.view().await;
    rig.say(rig.target(1), Verdict::Up).await;
    rig.view().await;
    assert_eq!(rig.standing(1).mode, Mode::Ramping);
    rig.order(drain("eu", Duration::ZERO)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.standing(1).share, Share::FULL);
    rig.lift(Lift::Drains { subject: Subject::Region("eu".into()), zone: None }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.standing(1).share, Share::FULL, "it has shown that it can");
    assert!(rig.standing(0).share.part() < 0.12);
}

#[tokio::test(start_paused = true)]
async fn who_asks_often_holds_up_no_region_on_its_way() {
    let mut rig = Rig::new(1, no_load());
    rig.run();
    for verdict in [Verdict::Down, Verdict::Up] {
        rig.say(rig.target(0), verdict).await;
        rig.view().await;
    }
    for _ in 0..1500 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.view().await;
    }
    assert!((0.48..=0.52).contains(&rig.standing(0).share.part()), "{:?}", rig.standing(0));
}

#[tokio::test]
async fn a_restart_while_everything_is_down_scatters_nobody_afterwards() {
    let state = tempdir().unwrap();
    let (mut first, mut second) = (Rig::new(1, no_load()), Rig::new(1, no_load()));
    first.keep_in(state.path());
    first.run();
    for position in 0..2 {
        first.say(first.target(position), Verdict::Down).await;
        first.view().await;
    }
    first.end().await;
    second.keep_in(state.path());
    second.run();
    for position in 0..2 {
        second.say(second.target(position), Verdict::Up).await;
        second.view().await;
    }
    for region in 0..2 {
        assert_eq!((second.standing(region).share, second.standing(region).mode), (Share::FULL, Mode::Steady));
    }
}

#[tokio::test]
async fn a_server_forced_up_is_given_at_once_and_a_reload_changes_nothing_of_it() {
    let (load, _has_begun, let_go) = held_load(1);
    let mut rig = Rig::new(1, load);
    rig.run();
    rig.say(rig.target(0), Verdict::Down).await;
    rig.view().await;
    let subject = Subject::Server("192.0.2.1".parse().unwrap());
    rig.order(Draft { subject, action: Action::ForceUp, ..drain("", Duration::ZERO) }).await.unwrap();
    assert_eq!((rig.standing(0).share, rig.standing(0).mode), (Share::FULL, Mode::Steady));
    let outcome = rig.reload().await;
    let_go.send(()).unwrap();
    outcome.await.unwrap().unwrap();
    assert_eq!((rig.standing(0).share, rig.standing(0).mode), (Share::FULL, Mode::Steady));
}

#[tokio::test]
async fn a_region_that_falls_on_its_way_back_is_not_told_to_be_back() {
    let mut rig = Rig::new(1, no_load());
    rig.run();
    for verdict in [Verdict::Down, Verdict::Up, Verdict::Down] {
        rig.say(rig.target(0), verdict).await;
        rig.view().await;
    }
    let kinds = rig.kinds(7);
    assert_eq!(kinds[kinds.len() - 2..], [Kind::ServerDown, Kind::RegionDown], "{kinds:?}");
    assert!(!kinds.contains(&Kind::RampDone), "{kinds:?}");
}
