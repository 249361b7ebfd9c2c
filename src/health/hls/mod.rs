//! The check of kind `hls`: a server is well while the live edge of its playlist moves on.
//!
//! ```text
//! path of the check ─► multivariant playlist ─► its first variant on this server ─┐  remembered for the next probe
//!                └──────────────► media playlist ◄────────────────────────────────┘
//!                                     └─► edge moves, or stands no longer than `stale` target durations: well
//! ```
//!
//! * [`playlist`]: text to [`Playlist`]. Pure.
//! * [`edge`]: whether the edge moves. Pure; time is passed in.
//! * `uri`: a variant's URI, on the same server only.
//!
//! What is known of a playlist outlives connections and belongs to the target: all its probes, the confirming ones too,
//! see the same edge. A remembered variant that fails, in whatever way, is forgotten and the probe sent anew from the
//! start: a new session of the encoder may have new names.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::Uri;

use super::http::{Exchange, Kept};
use super::probe::Trouble;
use super::stats::now;

pub mod edge;
pub mod playlist;
mod uri;

pub use edge::EdgeWatch;
pub use playlist::{Media, Playlist, Reader};

/// What all probes of one target share.
pub(super) struct Hls {
    host: String,
    state: Mutex<State>,
}

struct State {
    watch: EdgeWatch,
    /// Where the media playlist was, when the last good probe found it by a multivariant one.
    variant: Option<Uri>,
}

impl Hls {
    /// `stale` as in [`EdgeWatch::new`]; `host` is the one name by which variants may call this server.
    pub(super) fn new(host: &str, stale: u32) -> Hls {
        Hls { host: host.to_owned(), state: Mutex::new(State { watch: EdgeWatch::new(stale), variant: None }) }
    }

    /// Asks for the playlist over `kept` and judges it. `open` makes another connection, for servers that close theirs
    /// between a multivariant playlist and its variant. [`Trouble::Outdated`] is given at most once for each good probe:
    /// without a remembered variant there is none.
    pub(super) async fn look<F>(
        &self,
        exchange: &Exchange,
        kept: Kept,
        open: impl Fn() -> F,
    ) -> Result<Option<Kept>, Trouble>
    where
        F: Future<Output = Result<Kept, Trouble>>,
    {
        let remembered = self.state().variant.clone();
        let Some(variant) = remembered else { return self.look_anew(exchange, kept, open).await };
        match self.media(exchange, kept, &variant).await {
            Err(Trouble::Hard(_)) => {
                self.state().variant.take_if(|now| *now == variant);
                Err(Trouble::Outdated)
            }
            other => other,
        }
    }

    async fn look_anew<F>(&self, exchange: &Exchange, kept: Kept, open: impl Fn() -> F) -> Result<Option<Kept>, Trouble>
    where
        F: Future<Output = Result<Kept, Trouble>>,
    {
        let asked = now();
        let (playlist, kept) = fetch(exchange, kept, exchange.uri()).await?;
        let variants = match playlist {
            Playlist::Media(media) => return self.judge(&media, asked).map(|()| kept),
            Playlist::Multivariant(variants) => variants,
        };
        let variant = self.choose(exchange.uri(), &variants)?;
        let kept = match kept.filter(Kept::is_usable) {
            None => self.media(exchange, open().await?, &variant).await?,
            Some(kept) => match self.media(exchange, kept, &variant).await {
                // It closes after each answer, without having said so.
                Err(Trouble::Closed(_)) => self.media(exchange, open().await?, &variant).await?,
                other => other?,
            },
        };
        self.state().variant = Some(variant);
        Ok(kept)
    }

    async fn media(&self, exchange: &Exchange, kept: Kept, uri: &Uri) -> Result<Option<Kept>, Trouble> {
        let asked = now();
        match fetch(exchange, kept, uri).await? {
            (Playlist::Media(media), kept) => self.judge(&media, asked).map(|()| kept),
            (Playlist::Multivariant(_), _) => Err(hard("the variant is a multivariant playlist, too")),
        }
    }

    fn choose(&self, base: &Uri, variants: &[String]) -> Result<Uri, Trouble> {
        let mut resolved = variants.iter().map(|variant| uri::resolve(base, &self.host, variant));
        // The fault of the first is told when there is no good one.
        let first = resolved.next().ok_or_else(|| hard("the playlist has no variants"))?;
        first
            .or_else(|refused| resolved.find_map(Result::ok).ok_or(refused))
            .map_err(|refused| hard(refused.to_string()))
    }

    fn judge(&self, media: &Media, asked: std::time::Instant) -> Result<(), Trouble> {
        if media.ended {
            return Err(hard("the playlist has ended (EXT-X-ENDLIST)"));
        }
        if !media.playable {
            return Err(hard("the playlist has no segments"));
        }
        self.state().watch.observe(media, asked, now()).map_err(|standing| hard(standing.to_string()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Held for no longer than it takes to compare a few numbers, and whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fetch(exchange: &Exchange, kept: Kept, uri: &Uri) -> Result<(Playlist, Option<Kept>), Trouble> {
    let mut reader = Reader::default();
    let kept = exchange.fetch(kept, uri, |piece| reader.feed(piece).map_err(Arc::from)).await?;
    let playlist = reader.finish().map_err(|fault| Trouble::Hard(fault.into()))?;
    Ok((playlist, kept))
}

fn hard(cause: impl Into<Arc<str>>) -> Trouble {
    Trouble::Hard(cause.into())
}
