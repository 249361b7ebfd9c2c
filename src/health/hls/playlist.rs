//! Reading playlists (RFC 8216, and RFC 8216bis for its low-latency tags): just enough to tell where the live edge is.
//!
//! A playlist is read line by line as it comes and never held as a whole. Tags that say nothing about the edge are
//! passed over, known or not (RFC 8216 §6.3.1), so that a new tag never takes a server down. What is refused is what no
//! player could follow either; [`Fault`] lists it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a line. Keys and session data may be some kilobytes in base64; a URI is far shorter.
pub const MAX_LINE: usize = 16 * 1024;
/// Variants that are kept of a multivariant playlist. The first that can be asked for is taken; more are passed over.
pub const MAX_VARIANTS: usize = 32;
/// A target duration beyond this would mean that a standing edge is never noticed.
const MAX_TARGET: f64 = 3600.0;

/// A playlist as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub enum Playlist {
    /// RFC 8216 §4.3.4. The URIs of its first variants, in the order written, each as written; never empty.
    Multivariant(Vec<String>),
    Media(Media),
}

/// A media playlist (RFC 8216 §4.3.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    /// EXT-X-TARGETDURATION, over zero and at most an hour.
    pub target: Duration,
    pub edge: Edge,
    /// Whether it has a segment or a part that can be played. Those marked as gaps can not (RFC 8216bis §4.4.4.7).
    pub playable: bool,
    /// EXT-X-ENDLIST: nothing will be added.
    pub ended: bool,
}

/// Where a live playlist ends: what changes when it moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// EXT-X-DISCONTINUITY-SEQUENCE; an encoder that starts anew may count on there only.
    pub discontinuity: u64,
    /// Media sequence number of the segment that comes next: EXT-X-MEDIA-SEQUENCE and the segments of the playlist.
    /// Gaps at the end do not count.
    pub segment: u64,
    /// Parts that are already there of that segment (RFC 8216bis §4.4.4.9).
    pub part: u64,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            0 => write!(f, "{}", self.segment),
            part => write!(f, "{}.{part}", self.segment),
        }
    }
}

/// Why a text is no playlist that can be followed. Its text is short and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The first line is not `#EXTM3U` (RFC 8216 §4.3.1.1). A byte order mark is a fault, too (§4).
    NotAPlaylist,
    LineTooLong,
    /// A tag whose value is not what it has to be; the line, cut when it is long.
    Malformed(String),
    /// Tags of a media and of a multivariant playlist in one (RFC 8216 §4.3.4).
    TwoKinds,
    /// EXT-X-TARGETDURATION, which every media playlist has (RFC 8216 §4.3.3.1).
    NoTargetDuration,
    /// No EXT-X-STREAM-INF with its URI (RFC 8216 §4.3.4.2).
    NoVariant,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotAPlaylist => f.write_str("not a playlist: it does not begin with #EXTM3U"),
            Fault::LineTooLong => write!(f, "malformed playlist: a line of more than {} KiB", MAX_LINE / 1024),
            Fault::Malformed(line) => write!(f, "malformed playlist: {line:?}"),
            Fault::TwoKinds => f.write_str("malformed playlist: tags of a media and of a multivariant playlist"),
            Fault::NoTargetDuration => f.write_str("malformed playlist: EXT-X-TARGETDURATION is missing"),
            Fault::NoVariant => f.write_str("malformed playlist: no EXT-X-STREAM-INF with a URI"),
        }
    }
}

impl From<Fault> for Arc<str> {
    fn from(fault: Fault) -> Arc<str> {
        fault.to_string().into()
    }
}

impl Playlist {
    /// Reads a whole playlist.
    pub fn parse(text: &[u8]) -> Result<Playlist, Fault> {
        let mut reader = Reader::default();
        reader.feed(text)?;
        reader.finish()
    }
}

/// Reads a playlist as it comes, in pieces of any size. Holds one line and [`MAX_VARIANTS`] URIs at most.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    begun: bool,
    variants: Vec<String>,
    /// After EXT-X-STREAM-INF: the next line that is a URI is a variant's.
    variant_next: bool,
    multivariant: bool,
    media: bool,
    target: Option<Duration>,
    sequence: u64,
    discontinuity: u64,
    /// Of the playlist so far.
    segments: u64,
    /// Up to the last one that is no gap.
    playable_segments: u64,
    gap_next: bool,
    /// Behind the last segment.
    parts: u64,
    playable_parts: u64,
    ended: bool,
}

impl Reader {
    /// Takes the next piece. Errors: nothing that follows can mend it.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Fault> {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.hold(&rest[..end])?;
            let line = std::mem::take(&mut self.line);
            self.line(&line)?;
            rest = &rest[end + 1..];
            // The room is kept for the next line.
            self.line = line;
            self.line.clear();
        }
        self.hold(rest)
    }

    /// The playlist ends here. A last line without a line feed counts.
    pub fn finish(mut self) -> Result<Playlist, Fault> {
        let line = std::mem::take(&mut self.line);
        self.line(&line)?;
        if !self.begun {
            return Err(Fault::NotAPlaylist);
        }
        if self.multivariant {
            return if self.variants.is_empty() {
                Err(Fault::NoVariant)
            } else {
                Ok(Playlist::Multivariant(self.variants))
            };
        }
        let target = self.target.ok_or(Fault::NoTargetDuration)?;
        // Parts stand behind the last segment, be it a gap or not; without them the edge is where playing ends.
        let (segments, part) = match self.playable_parts {
            0 => (self.playable_segments, 0),
            part => (self.segments, part),
        };
        let segment = self
            .sequence
            .checked_add(segments)
            .ok_or_else(|| Fault::Malformed(format!("#EXT-X-MEDIA-SEQUENCE:{}", self.sequence)))?;
        Ok(Playlist::Media(Media {
            target,
            edge: Edge { discontinuity: self.discontinuity, segment, part },
            playable: self.playable_segments > 0 || part > 0,
            ended: self.ended,
        }))
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), Fault> {
        if self.line.len() + part.len() > MAX_LINE {
            return Err(if self.begun { Fault::LineTooLong } else { Fault::NotAPlaylist });
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let line = line.trim_ascii_end();
        if !self.begun {
            if line != b"#EXTM3U" {
                return Err(Fault::NotAPlaylist);
            }
            self.begun = true;
            return Ok(());
        }
        match line {
            [] => Ok(()),
            [b'#', tag @ ..] => self.tag(tag, line),
            uri => self.uri(uri),
        }
    }

    fn tag(&mut self, tag: &[u8], line: &[u8]) -> Result<(), Fault> {
        let (name, value) = match tag.iter().position(|&byte| byte == b':') {
            Some(colon) => (&tag[..colon], &tag[colon + 1..]),
            None => (tag, &b""[..]),
        };
        let malformed = || Fault::Malformed(shown(line));
        let number = || decimal_integer(value).ok_or_else(malformed);
        match name {
            b"EXT-X-STREAM-INF" => {
                if self.variant_next {
                    return Err(Fault::NoVariant);
                }
                self.variant_next = true;
                self.multivariant = true;
            }
            b"EXT-X-I-FRAME-STREAM-INF" => self.multivariant = true,
            b"EXT-X-TARGETDURATION" => {
                self.media = true;
                self.target = Some(target_duration(value).ok_or_else(malformed)?);
            }
            b"EXT-X-MEDIA-SEQUENCE" => {
                self.media = true;
                self.sequence = number()?;
            }
            b"EXT-X-DISCONTINUITY-SEQUENCE" => {
                self.media = true;
                self.discontinuity = number()?;
            }
            b"EXTINF" => self.media = true,
            b"EXT-X-GAP" => {
                self.media = true;
                self.gap_next = true;
            }
            b"EXT-X-PART" => {
                self.media = true;
                self.parts += 1;
                if attribute(value, b"GAP") != Some(b"YES") {
                    self.playable_parts = self.parts;
                }
            }
            // Only sent to those who ask for it, which probes do not; yet it says plainly what it leaves out.
            b"EXT-X-SKIP" => {
                self.media = true;
                let skipped = attribute(value, b"SKIPPED-SEGMENTS").and_then(decimal_integer).ok_or_else(malformed)?;
                self.segments = self.segments.checked_add(skipped).ok_or_else(malformed)?;
                self.playable_segments = self.segments;
            }
            b"EXT-X-ENDLIST" => {
                self.media = true;
                self.ended = true;
            }
            _ => {}
        }
        if self.media && self.multivariant { Err(Fault::TwoKinds) } else { Ok(()) }
    }

    fn uri(&mut self, uri: &[u8]) -> Result<(), Fault> {
        if self.multivariant {
            // Without EXT-X-STREAM-INF before it a URI of a multivariant playlist has no meaning.
            if std::mem::take(&mut self.variant_next) && self.variants.len() < MAX_VARIANTS {
                let text = std::str::from_utf8(uri).map_err(|_| Fault::Malformed(shown(uri)))?;
                self.variants.push(text.to_owned());
            }
            return Ok(());
        }
        // A whole playlist is far smaller than that many lines; EXT-X-SKIP can claim any number.
        self.segments = self.segments.checked_add(1).ok_or_else(|| Fault::Malformed(shown(uri)))?;
        if !std::mem::take(&mut self.gap_next) {
            self.playable_segments = self.segments;
        }
        (self.parts, self.playable_parts) = (0, 0);
        Ok(())
    }
}

/// RFC 8216 §4.2: digits only, up to 2^64 - 1.
fn decimal_integer(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    // `parse` alone would take a sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whole seconds by RFC 8216 §4.3.3.1. Some packagers write fractions, which players take; so they are taken here. A
/// zero is rounded up to a second: segments of less than half a second round to it.
fn target_duration(value: &[u8]) -> Option<Duration> {
    let text = value.trim_ascii();
    if text.is_empty() || !text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        return None;
    }
    let seconds: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (seconds <= MAX_TARGET).then(|| Duration::from_secs_f64(if seconds > 0.0 { seconds } else { 1.0 }))
}

/// The value of an attribute (RFC 8216 §4.2), without its quotes. Commas inside quotes separate nothing.
fn attribute<'a>(list: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = list;
    while !rest.is_empty() {
        let mut quoted = false;
        let end = rest.iter().position(|&byte| {
            quoted ^= byte == b'"';
            byte == b',' && !quoted
        });
        let (pair, after) = end.map_or((rest, &b""[..]), |end| (&rest[..end], &rest[end + 1..]));
        if let Some(equals) = pair.iter().position(|&byte| byte == b'=')
            && pair[..equals].trim_ascii() == name
        {
            let value = pair[equals + 1..].trim_ascii();
            return Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value));
        }
        rest = after;
    }
    None
}

/// A line for people, cut when it is long.
fn shown(line: &[u8]) -> String {
    const LENGTH: usize = 60;
    let text = String::from_utf8_lossy(&line[..line.len().min(4 * LENGTH)]);
    match text.char_indices().nth(LENGTH) {
        None => text.into_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests;
