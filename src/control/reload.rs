//! The part of the loop that takes what a load brings, or refuses it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tracing::{error, info};

use super::aside::{self, Job as Aside};
use super::load::{Loaded, Refused};
use super::notes::Job;
use super::{Control, judged, log, now};
use crate::config::Diagnostic;
use crate::journal::{Kind, Note};

impl Control {
    /// Begins a load, or notes that one more is needed when the one going on may have read older files.
    pub(super) fn reload(&mut self) {
        if self.job.is_some() {
            self.again = true;
            return;
        }
        self.waiting.append(&mut self.next);
        let load = Arc::clone(&self.load);
        let (previous, beliefs) = (self.published.load_full(), self.world.beliefs());
        self.job = Some(aside::run("load", move || load(&previous, &beliefs)));
    }

    pub(super) fn finish(&mut self, done: Option<Result<Loaded, Refused>>) {
        self.job = None;
        let outcome = match done {
            Some(Ok(loaded)) => Ok(self.accept(loaded)),
            Some(Err(refused)) => Err(self.refuse(refused)),
            None => {
                self.tally.reloads_refused.fetch_add(1, Relaxed);
                error!("a fault of ours ended the reload; what was loaded before serves on");
                self.note(Kind::ReloadRefused, "a fault of ours ended it");
                Err(vec![])
            }
        };
        for reply in self.waiting.drain(..) {
            let _ = reply.send(outcome.clone());
        }
        if std::mem::take(&mut self.again) {
            self.reload();
        }
    }

    fn accept(&mut self, loaded: Loaded) -> u64 {
        let Loaded { snapshot, warnings, seen } = loaded;
        let prober = &mut self.prober;
        // What was learned while it was compiled, and what kin of new targets let us believe.
        let news = self.world.news_for(&snapshot, |target| prober.believed(target));
        let snapshot = if news.is_empty() { snapshot } else { snapshot.with_verdicts(&news) };
        let before = self.published.load_full();
        self.world.replace(&snapshot);
        prober.retarget(snapshot.targets());
        self.beats.retarget(snapshot.targets());
        self.judge.retain(judged(&snapshot), now());
        let alone = self.regions.replace(&snapshot);
        let snapshot = if alone.is_empty() { snapshot } else { snapshot.with_apart(&alone) };
        self.regions.set_apart(&snapshot);
        self.watcher.watch(seen.inputs, seen.fingerprint);
        // Ramps and orders hold in it before it is published.
        let everywhere = self.regions.all().collect();
        let (after, flips, steps) = self.settle(Some(snapshot), everywhere, now());
        let generation = after.generation();
        let (loads, snapshot) = (self.loads.clone(), Arc::clone(&after));
        // Nobody waits for it, and the loop must not.
        drop(aside::run("loads", move || loads.retain(&snapshot)));
        let plain = vec![Note::new(Kind::Reloaded, format!("generation {generation}, {} zones", after.zones().len()))];
        self.scribe.note(Job { plain, flips, steps, ..Job::new(before, Arc::clone(&after)) });
        self.tally.reloads_done.fetch_add(1, Relaxed);
        warnings.iter().for_each(log);
        info!(generation, zones = after.zones().len(), "reloaded");
        self.memory.changed(now());
        generation
    }

    fn refuse(&mut self, refused: Refused) -> Vec<Diagnostic> {
        self.tally.reloads_refused.fetch_add(1, Relaxed);
        refused.diagnostics.iter().for_each(log);
        error!("reload refused; what was loaded before serves on");
        let first = refused.diagnostics.iter().find(|diagnostic| diagnostic.is_error());
        self.note(Kind::ReloadRefused, &first.map_or("the files have errors".to_owned(), |fault| fault.to_string()));
        self.watcher.watch(refused.seen.inputs, refused.seen.fingerprint);
        refused.diagnostics
    }
}

/// The outcome of the load going on, `None` if it died; never, when none is.
pub(super) async fn job(job: &mut Option<Aside<Result<Loaded, Refused>>>) -> Option<Result<Loaded, Refused>> {
    match job {
        // What it panicked with was printed.
        Some(job) => job.await.ok()?.ok(),
        None => std::future::pending().await,
    }
}
