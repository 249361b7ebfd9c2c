//! A playlist of any bytes: no panic, and pieces of any size are read as the whole.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use meridian::health::hls::{EdgeWatch, Playlist, Reader};

fuzz_target!(|input: (u8, &[u8])| {
    let (size, text) = (usize::from(input.0) + 1, input.1);
    let whole = Playlist::parse(text);
    let mut reader = Reader::default();
    let pieces = text.chunks(size).try_for_each(|piece| reader.feed(piece)).and_then(|()| reader.finish());
    assert_eq!(whole, pieces);
    if let Ok(Playlist::Media(media)) = whole {
        let mut watch = EdgeWatch::new(2);
        let start = Instant::now();
        assert_eq!(watch.observe(&media, start, start), Ok(()), "the first is always well");
        let late = start + Duration::from_secs(2 * 3600);
        assert!(watch.observe(&media, late, late).is_err(), "an edge can not stand for ever");
    }
});
