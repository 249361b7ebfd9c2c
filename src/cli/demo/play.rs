//! Things done to origins, and what viewers notice of them, measured.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::demo::stage::{self, Act, Stage};
use crate::demo::viewers::{Resolver, VIEWERS, Viewer};
use crate::snapshot::Published;

/// After this an answer that has not changed is taken not to change any more. Below the time that a connection to the
/// admin address may last.
const LIMIT: Duration = Duration::from_secs(5);
/// Lines that nobody reads are not kept without end.
const UNREAD: usize = 100;

/// Does things to origins and measures their effect.
pub struct Play {
    stage: Arc<Stage>,
    dns: SocketAddr,
    published: Published,
    /// One thing at a time, so that each effect has one cause.
    turn: tokio::sync::Mutex<()>,
    news: Mutex<Vec<String>>,
}

/// What an act did to a viewer's answer.
#[derive(Debug, Serialize)]
pub struct Effect {
    pub act: &'static str,
    pub region: String,
    /// Counted from 1; `None`: all of the region.
    pub server: Option<usize>,
    /// The viewer whose answer was watched; `None` when no answer held, or was to hold, these servers.
    pub viewer: Option<&'static str>,
    /// The answer afterwards.
    pub answer: Vec<IpAddr>,
    /// From the act to the first changed answer, asked for over UDP; `None` when it did not change within five seconds.
    pub milliseconds: Option<f64>,
}

impl Play {
    pub fn new(stage: Arc<Stage>, dns: SocketAddr, published: Published) -> Play {
        Play { stage, dns, published, turn: tokio::sync::Mutex::default(), news: Mutex::default() }
    }

    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// For a word to who asked for another region.
    pub fn regions(&self) -> String {
        self.stage.regions.iter().map(|region| &*region.name).collect::<Vec<_>>().join(" ")
    }

    /// Lines about what happened since the last call.
    pub fn news(&self) -> Vec<String> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `None`: no such server. Takes as long as the effect does, five seconds at most.
    pub async fn act(&self, act: Act, region: &str, number: Option<usize>) -> Option<io::Result<Effect>> {
        let _turn = self.turn.lock().await;
        let servers = self.stage.find(region, number)?;
        let effect = self.measure(act, region, number, &servers).await;
        let line = match &effect {
            Ok(effect) => effect.to_string(),
            Err(error) => format!("{region} could not be {}: {error}", act.done()),
        };
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if news.len() < UNREAD {
            news.push(line);
        }
        drop(news);
        Some(effect)
    }

    async fn measure(
        &self,
        act: Act,
        region: &str,
        number: Option<usize>,
        servers: &[&stage::Server],
    ) -> io::Result<Effect> {
        // The viewer asks for A.
        let touched = servers.iter().flat_map(|server| server.addresses.iter().copied());
        let touched: Vec<IpAddr> = touched.filter(IpAddr::is_ipv4).collect();
        let holds = |addresses: &[IpAddr]| addresses.iter().any(|address| touched.contains(address));
        let viewer = self.watched(region, act);
        let mut effect = Effect {
            act: act.done(),
            region: region.to_owned(),
            server: number,
            viewer: viewer.map(|viewer| viewer.city),
            answer: vec![],
            milliseconds: None,
        };
        let Some(viewer) = viewer else {
            return stage::act(act, servers).await.map(|()| effect);
        };
        let mut resolver = Resolver::new(self.dns, viewer).await?;
        let before = resolver.ask().await?.unwrap_or_default();
        let since = Instant::now();
        stage::act(act, servers).await?;
        let changed = resolver.wait_until(since, LIMIT, |now| match act {
            Act::Kill | Act::Hang | Act::Fail | Act::Freeze => !holds(now) && holds(&before),
            // All of them: an answer has room for both servers of a region.
            Act::Revive => touched.iter().all(|address| now.contains(address)),
        });
        match changed.await? {
            Some((elapsed, answer)) => {
                effect.milliseconds = Some((elapsed.as_secs_f64() * 1e4).round() / 10.0);
                effect.answer = answer;
            }
            None => effect.answer = before,
        }
        Ok(effect)
    }

    /// A viewer that is sent to the region now, or that a revived region should get back.
    fn watched(&self, region: &str, act: Act) -> Option<&'static Viewer> {
        let snapshot = self.published.load_full();
        let here = |viewer: &&Viewer| viewer.sent_by(&snapshot).is_some_and(|sent| sent.region == region);
        let home = |viewer: &&Viewer| viewer.home == region;
        match act {
            Act::Revive => VIEWERS.iter().find(home),
            Act::Kill | Act::Hang | Act::Fail | Act::Freeze => {
                VIEWERS.iter().find(|viewer| home(viewer) && here(viewer)).or_else(|| VIEWERS.iter().find(here))
            }
        }
    }
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.region)?;
        if let Some(server) = self.server {
            write!(f, " server {server}")?;
        }
        write!(f, " {}: ", self.act)?;
        match (self.viewer, self.milliseconds) {
            (None, _) => write!(f, "no viewer was sent there"),
            (Some(viewer), None) => write!(f, "the answer for {viewer} did not change"),
            (Some(viewer), Some(milliseconds)) => {
                write!(f, "the answer for {viewer} changed after {milliseconds:.1} ms")
            }
        }
    }
}
