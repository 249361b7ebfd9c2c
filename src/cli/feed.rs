//! A stream of server-sent events, as a client reads it (WHATWG HTML §9.2.6).

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;

use super::ask::AskError;

/// One event and the rest of the last read; a server that sends longer ones is none of ours.
const MAX_EVENT: usize = 1 << 20;

/// An event, its data lines joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedEvent {
    /// Empty where the server names none.
    pub kind: String,
    pub data: String,
}

/// The events of one answer.
pub struct Feed {
    /// The connection ends with it.
    _sender: SendRequest<Full<Bytes>>,
    body: Incoming,
    parser: Parser,
}

impl Feed {
    pub(super) fn new(sender: SendRequest<Full<Bytes>>, body: Incoming) -> Feed {
        Feed { _sender: sender, body, parser: Parser::default() }
    }

    /// Waits for the next event. `None`: the server has ended the stream. Can be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<FeedEvent>, AskError> {
        loop {
            if let Some(event) = self.parser.next() {
                return Ok(Some(event));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(AskError::Failed(error.to_string())),
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    self.parser.feed(&bytes).map_err(|what| AskError::Failed(what.to_owned()))?;
                }
            }
        }
    }
}

/// Bytes in, events out.
#[derive(Debug, Default)]
struct Parser {
    bytes: Vec<u8>,
    event: FeedEvent,
    has_data: bool,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        if self.bytes.len() + self.event.data.len() + bytes.len() > MAX_EVENT {
            return Err("an event is longer than any of ours");
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn next(&mut self) -> Option<FeedEvent> {
        // Lines end with LF, as ours do, or with CR LF.
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]);
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if std::mem::take(&mut self.has_data) {
                    return Some(event);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event.kind),
                "data" => {
                    if self.has_data {
                        self.event.data.push('\n');
                    }
                    self.has_data = true;
                    self.event.data.push_str(value);
                }
                // A comment has no name; ids are in our data too.
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(parts: &[&[u8]]) -> Vec<(String, String)> {
        let mut parser = Parser::default();
        let mut read = Vec::new();
        for part in parts {
            parser.feed(part).unwrap();
            read.extend(std::iter::from_fn(|| parser.next()).map(|event| (event.kind, event.data)));
        }
        read
    }

    #[test]
    fn events_end_with_an_empty_line_and_comments_are_none() {
        let text = b": hello\n\nid: 7\ndata: {\"id\":7}\n\nevent: missed\ndata:3\r\n\r\ndata: half";
        let wanted = [("".to_owned(), "{\"id\":7}".to_owned()), ("missed".to_owned(), "3".to_owned())];
        assert_eq!(read(&[text]), wanted);
        assert_eq!(read(&[b"data: a\ndata: b\n\n"]), [("".to_owned(), "a\nb".to_owned())]);
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        let line = [b'a'; 64 * 1024];
        let fed = (0..1000).take_while(|_| parser.feed(&line).is_ok() && parser.next().is_none()).count();
        assert!(fed < 17, "{fed}");
        let mut parser = Parser::default();
        let fed = (0..100_000).take_while(|_| {
            parser.feed(b"data: 0123456789012345678901234567890123456789\n").is_ok() && parser.next().is_none()
        });
        assert!(fed.count() < 30_000);
    }

    proptest! {
        #[test]
        fn what_is_read_does_not_depend_on_how_it_was_cut(text in "(id: [0-9]\n|data: [a-z]{0,5}\n|:\n|\r\n|event: x\n|\\PC{0,9}\n|\n){0,20}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&parts), read(&[text.as_bytes()]));
        }
    }
}
