use std::sync::Mutex;

use super::*;

fn entry(id: u64) -> Arc<Entry> {
    let text = format!(r#"{{"id":{id},"at":"2026-05-01T22:00:00Z","kind":"reloaded","cause":"test"}}"#);
    Arc::new(serde_json::from_str(&text).unwrap())
}

type Kept = Arc<Mutex<VecDeque<Arc<Entry>>>>;

/// A journal that keeps four entries, and its channel four too.
struct Rig {
    kept: Kept,
    sender: broadcast::Sender<Arc<Entry>>,
    next: u64,
}

impl Rig {
    fn new() -> Rig {
        Rig { kept: Kept::default(), sender: broadcast::channel(4).0, next: 1 }
    }

    fn note(&mut self, count: usize) {
        for _ in 0..count {
            let mut kept = self.kept.lock().unwrap();
            kept.push_back(entry(self.next));
            if kept.len() > 4 {
                kept.pop_front();
            }
            // Nobody may listen.
            let _ = self.sender.send(entry(self.next));
            self.next += 1;
        }
    }

    fn follow(&self, last: Option<u64>) -> Follow<impl Fn(u64) -> Vec<Arc<Entry>> + use<>> {
        let kept = Arc::clone(&self.kept);
        let since =
            move |after| kept.lock().unwrap().iter().filter(|entry| entry.id > after).cloned().collect::<Vec<_>>();
        let receiver = self.sender.subscribe();
        let backlog = since(0);
        let follow = Follow { ready: VecDeque::new(), last, receiver, since };
        if last.is_some() { follow.resume(self.next - 1) } else { follow.from(backlog) }
    }
}

/// What is told without waiting: ids, `-N` for N that were missed, and 0 where the journal began anew.
async fn told(follow: &mut Follow<impl Fn(u64) -> Vec<Arc<Entry>>>) -> Vec<i64> {
    let mut told = Vec::new();
    while let Ok(Some(said)) = tokio::time::timeout(Duration::from_millis(1), follow.next()).await {
        told.push(match said {
            Said::Entry(entry) => entry.id as i64,
            Said::Missed(missed) => -(missed as i64),
            Said::Reset(_) => 0,
        });
    }
    told
}

#[tokio::test(start_paused = true)]
async fn the_past_comes_first_and_nothing_twice() {
    let mut rig = Rig::new();
    rig.note(3);
    let mut follow = rig.follow(Some(1));
    rig.note(2);
    assert_eq!(told(&mut follow).await, [2, 3, 4, 5]);
    rig.note(1);
    assert_eq!(told(&mut follow).await, [6]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_what_is_forgotten_is_told_how_much() {
    let mut rig = Rig::new();
    rig.note(9);
    assert_eq!(told(&mut rig.follow(Some(2))).await, [-3, 6, 7, 8, 9]);
    assert_eq!(told(&mut rig.follow(None)).await, [6, 7, 8, 9], "who asks for nothing misses nothing");
    assert_eq!(told(&mut rig.follow(Some(9))).await, Vec::<i64>::new());
}

#[tokio::test(start_paused = true)]
async fn who_saw_more_than_there_is_is_told_that_the_journal_began_anew() {
    let mut rig = Rig::new();
    rig.note(3);
    let mut follow = rig.follow(Some(74));
    rig.note(1);
    assert_eq!(told(&mut follow).await, [0, 1, 2, 3, 4]);
    rig.note(2);
    assert_eq!(told(&mut rig.follow(Some(74))).await, [0, -2, 3, 4, 5, 6], "and what it has forgotten already");
    assert_eq!(told(&mut Rig::new().follow(Some(1))).await, [0], "also before anything happens in it");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_lags_goes_on_from_the_list_and_is_told_of_what_is_lost() {
    let mut rig = Rig::new();
    let mut follow = rig.follow(Some(0));
    rig.note(4);
    assert_eq!(told(&mut follow).await, [1, 2, 3, 4]);
    // Beyond what the channel holds, and beyond the list.
    rig.note(10);
    assert_eq!(told(&mut follow).await, [-6, 11, 12, 13, 14]);
    rig.note(1);
    assert_eq!(told(&mut follow).await, [15]);
}

#[tokio::test(start_paused = true)]
async fn entries_that_overtake_one_another_come_in_order() {
    let mut rig = Rig::new();
    rig.note(1);
    let mut follow = rig.follow(Some(0));
    rig.kept.lock().unwrap().extend([entry(2), entry(3)]);
    rig.sender.send(entry(3)).unwrap();
    rig.sender.send(entry(2)).unwrap();
    assert_eq!(told(&mut follow).await, [1, 2, 3]);
}

#[tokio::test]
async fn the_stream_ends_with_the_journal() {
    let rig = Rig::new();
    let mut follow = rig.follow(None);
    drop(rig);
    assert_eq!(follow.next().await, None);
}
