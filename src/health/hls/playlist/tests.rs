//! Playlists as packagers write them, and as none should.

use proptest::prelude::*;

use super::*;

fn media(text: &str) -> Media {
    match Playlist::parse(text.as_bytes()) {
        Ok(Playlist::Media(media)) => media,
        other => panic!("{other:?} for {text}"),
    }
}

fn fault(text: &str) -> Fault {
    Playlist::parse(text.as_bytes()).expect_err(text)
}

/// The live edge of a media playlist with these lines behind the usual first ones.
fn edge(lines: &str) -> String {
    media(&format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:10\n{lines}")).edge.to_string()
}

#[test]
fn a_live_playlist_of_mpeg_transport_stream_segments() {
    let found = media(
        "#EXTM3U\r\n#EXT-X-VERSION:3\r\n#EXT-X-TARGETDURATION:6\r\n#EXT-X-MEDIA-SEQUENCE:2680\r\n\r\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-02-19T14:54:23.031+08:00\r\n#EXTINF:5.96,\r\nfile-2680.ts\r\n\
         #EXTINF:5.96,a title, with commas\r\nhttps://priv.example.com/file-2681.ts?token=a,b\r\n# a comment\r\n\
         #EXTINF:5.96,\r\nfile-2682.ts\r\n",
    );
    assert_eq!(found.target, Duration::from_secs(6));
    assert_eq!(found.edge, Edge { discontinuity: 0, segment: 2683, part: 0 });
    assert!(found.playable && !found.ended);
}

#[test]
fn a_live_playlist_of_cmaf_segments_with_keys_and_ad_marks() {
    let found = media(
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-TARGETDURATION:2\n\
         #EXT-X-MEDIA-SEQUENCE:84213\n#EXT-X-DISCONTINUITY-SEQUENCE:17\n\
         #EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"data:text/plain;base64,AAAAPXBzc2gAAAAA7e+LqXnWSs6jyCfc1R0h7Q==\",IV=0x1\n\
         #EXT-X-MAP:URI=\"init.mp4\",BYTERANGE=\"812@0\"\n#EXTINF:2.002,\nv/84213.m4s\n#EXT-X-DISCONTINUITY\n\
         #EXT-X-DATERANGE:ID=\"ad1\",SCTE35-OUT=0xFC002F,X-COM=\"a,b=c\"\n#EXT-X-CUE-OUT:30\n#EXTINF:2.002,\nv/84214.m4s\n",
    );
    assert_eq!(found.edge, Edge { discontinuity: 17, segment: 84215, part: 0 });
}

#[test]
fn a_low_latency_playlist_moves_by_its_parts() {
    // After RFC 8216bis, appendix B.1.
    let head = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-VERSION:9\n#EXT-X-PART-INF:PART-TARGET=0.33334\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.0,CAN-SKIP-UNTIL=24.0\n\
        #EXT-X-MEDIA-SEQUENCE:264\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4.00008,\nfileSequence264.mp4\n\
        #EXT-X-PART:DURATION=0.33334,URI=\"filePart265.0.mp4\",INDEPENDENT=YES\n\
        #EXT-X-PART:DURATION=0.33334,URI=\"filePart265.1.mp4\"\n#EXTINF:4.00008,\nfileSequence265.mp4\n";
    let part = |n| format!("#EXT-X-PART:DURATION=0.33334,URI=\"filePart266.{n}.mp4\"\n");
    let hint = "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"filePart266.9.mp4\"\n\
        #EXT-X-RENDITION-REPORT:URI=\"../1M/waitForMSN.php\",LAST-MSN=266,LAST-PART=2\n";
    let at = |parts: String| media(&format!("{head}{parts}{hint}")).edge.to_string();
    assert_eq!(at(String::new()), "266");
    assert_eq!(at(part(0)), "266.1");
    assert_eq!(at(part(0) + &part(1)), "266.2");
    assert_eq!(at(part(0) + "#EXTINF:4,\nfileSequence266.mp4\n"), "267");
}

#[test]
fn a_playlist_of_parts_alone_can_be_played() {
    let begun = media("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-PART:DURATION=1,URI=\"0.mp4\"\n");
    assert!(begun.playable);
    assert_eq!(begun.edge, Edge { discontinuity: 0, segment: 0, part: 1 });
}

#[test]
fn a_delta_update_counts_what_it_skips() {
    assert_eq!(edge("#EXT-X-SKIP:SKIPPED-SEGMENTS=20,RECENTLY-REMOVED-DATERANGES=\"a\"\n#EXTINF:4,\na.mp4\n"), "31");
    for value in ["", "SKIPPED-SEGMENTS=", "SKIPPED-SEGMENTS=-1", "X=\"SKIPPED-SEGMENTS=3\""] {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-SKIP:{value}\n");
        assert_eq!(fault(&text), Fault::Malformed(format!("#EXT-X-SKIP:{value}")));
    }
}

#[test]
fn gaps_at_the_end_do_not_move_the_edge() {
    let (segment, gap) = ("#EXTINF:4,\na.ts\n", "#EXT-X-GAP\n#EXTINF:4,\nb.ts\n");
    assert_eq!(edge(segment), "11");
    assert_eq!(edge(&format!("{segment}{gap}{gap}")), "11");
    assert_eq!(edge(&format!("{segment}{gap}{segment}")), "13");
    assert_eq!(edge(&format!("{segment}#EXT-X-PART:DURATION=1,URI=\"x\",GAP=YES\n")), "11");
    assert_eq!(edge(&format!("{segment}{gap}#EXT-X-PART:DURATION=1,URI=\"x,GAP=YES\"\n")), "12.1");
    assert!(!media(&format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n{gap}{gap}")).playable);
}

#[test]
fn an_ended_or_an_empty_playlist_says_so() {
    let ended = media("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\na.ts\n#EXT-X-ENDLIST");
    assert!(ended.ended && ended.playable);
    assert!(!media("#EXTM3U\n#EXT-X-TARGETDURATION:4\n").playable);
}

#[test]
fn a_multivariant_playlist_gives_its_variants_in_order() {
    let text = "#EXTM3U\n#EXT-X-INDEPENDENT-SEGMENTS\n\
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"English\",URI=\"audio/en.m3u8\"\n\
        #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=86000,URI=\"iframe.m3u8\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=1280000,CODECS=\"avc1.4d401f,mp4a.40.2\",AUDIO=\"a\"\nlow/index.m3u8\n\n\
        #EXT-X-STREAM-INF:BANDWIDTH=2560000\n# a comment\n/mid/index.m3u8?session=1\n";
    let variants = vec!["low/index.m3u8".to_owned(), "/mid/index.m3u8?session=1".to_owned()];
    assert_eq!(Playlist::parse(text.as_bytes()), Ok(Playlist::Multivariant(variants)));
}

#[test]
fn of_very_many_variants_the_first_are_kept() {
    let many: String = (0..1000).map(|n| format!("#EXT-X-STREAM-INF:BANDWIDTH=1\n{n}.m3u8\n")).collect();
    let Ok(Playlist::Multivariant(variants)) = Playlist::parse(format!("#EXTM3U\n{many}").as_bytes()) else { panic!() };
    assert_eq!((variants.len(), variants[MAX_VARIANTS - 1].as_str()), (MAX_VARIANTS, "31.m3u8"));
}

#[test]
fn a_multivariant_playlist_without_a_variant_is_a_fault() {
    for rest in ["#EXT-X-STREAM-INF:BANDWIDTH=1\n", "#EXT-X-I-FRAME-STREAM-INF:URI=\"a\"\na.m3u8\n"] {
        assert_eq!(fault(&format!("#EXTM3U\n{rest}")), Fault::NoVariant);
    }
    assert_eq!(fault("#EXTM3U\n#EXT-X-STREAM-INF:A=1\n#EXT-X-STREAM-INF:A=1\na\n"), Fault::NoVariant);
}

#[test]
fn what_does_not_begin_as_a_playlist_is_none() {
    for text in
        ["", "\n#EXTM3U\n", "\u{feff}#EXTM3U\n", "#EXTM3U8\n", "<html>502</html>", "#extm3u\n", "\x1f\u{8b}\x08\0\0"]
    {
        assert_eq!(fault(text), Fault::NotAPlaylist, "{text:?}");
    }
    assert_eq!(fault(&"x".repeat(MAX_LINE + 1)), Fault::NotAPlaylist);
}

#[test]
fn tags_of_both_kinds_are_a_fault() {
    for (one, other) in [("TARGETDURATION:4", "STREAM-INF:BANDWIDTH=1"), ("STREAM-INF:BANDWIDTH=1", "ENDLIST")] {
        assert_eq!(fault(&format!("#EXTM3U\n#EXT-X-{one}\na\n#EXT-X-{other}\nb\n")), Fault::TwoKinds);
    }
}

#[test]
fn a_media_playlist_needs_a_target_duration() {
    assert_eq!(fault("#EXTM3U\n"), Fault::NoTargetDuration);
    assert_eq!(fault("#EXTM3U\n#EXTINF:4,\na.ts\n"), Fault::NoTargetDuration);
    assert_eq!(fault("#EXTM3U\na.mp3\nb.mp3\n"), Fault::NoTargetDuration);
}

#[test]
fn target_durations_may_have_a_fraction_and_have_an_end() {
    let target = |value| media(&format!("#EXTM3U\n#EXT-X-TARGETDURATION:{value}\n")).target.as_millis();
    assert_eq!((target("4"), target(" 4 "), target("4.0"), target("2.5")), (4000, 4000, 4000, 2500));
    assert_eq!((target("0"), target("3600")), (1000, 3_600_000));
    for value in ["", "x", "-1", "+4", "NaN", "inf", "1e3", "3601", "4,5", ".", "1..2", "99999999999999999999999"] {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:{value}\n");
        assert_eq!(fault(&text), Fault::Malformed(format!("#EXT-X-TARGETDURATION:{value}")));
    }
}

#[test]
fn sequence_numbers_are_64_bit_and_may_not_run_over() {
    let sequence = |value: &str| {
        Playlist::parse(format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:{value}\na.ts\n").as_bytes())
    };
    let Ok(Playlist::Media(media)) = sequence("18446744073709551614") else { panic!("the last segment there can be") };
    assert_eq!(media.edge.segment, u64::MAX);
    for value in ["18446744073709551615", "18446744073709551616", "-1", "+1", "0x10", "", "1 2"] {
        assert_eq!(sequence(value), Err(Fault::Malformed(format!("#EXT-X-MEDIA-SEQUENCE:{value}"))));
    }
    let most = format!("#EXT-X-SKIP:SKIPPED-SEGMENTS={}\n", u64::MAX);
    for more in [&most, "a.ts\n"] {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n{most}{more}");
        assert_eq!(fault(&text), Fault::Malformed(more.trim_end().into()));
    }
}

#[test]
fn a_line_has_an_end() {
    let long = |length: usize| format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#{}\n", "x".repeat(length - 1));
    assert!(Playlist::parse(long(MAX_LINE).as_bytes()).is_ok());
    assert_eq!(fault(&long(MAX_LINE + 1)), Fault::LineTooLong);
    let shown = fault(&format!("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:{}\n", "9".repeat(1000))).to_string();
    assert_eq!(shown, format!("malformed playlist: \"#EXT-X-MEDIA-SEQUENCE:{}…\"", "9".repeat(38)));
}

/// Lines of which playlists are made, sound and unsound.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("#EXTINF:4,".to_owned()),
        Just("#EXT-X-GAP".to_owned()),
        Just("#EXT-X-ENDLIST".to_owned()),
        Just("segment.ts".to_owned()),
        Just("#EXT-X-PART:DURATION=1,URI=\"x\"".to_owned()),
        Just("#EXT-X-STREAM-INF:BANDWIDTH=1".to_owned()),
        any::<u64>().prop_map(|n| format!("#EXT-X-MEDIA-SEQUENCE:{n}")),
        any::<u64>().prop_map(|n| format!("#EXT-X-SKIP:SKIPPED-SEGMENTS={n}")),
        any::<f32>().prop_map(|n| format!("#EXT-X-TARGETDURATION:{n}")),
        "#EXT-X-[A-Z-]{1,20}:\\PC{0,20}",
        "\\PC{0,40}",
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Playlist::parse(&text);
        let _ = Playlist::parse(&[b"#EXTM3U\n", &text[..]].concat());
    }

    #[test]
    fn pieces_of_any_size_are_read_as_the_whole(
        lines in prop::collection::vec(line(), 0..20),
        size in 1usize..50,
    ) {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{}", lines.join("\n"));
        let mut reader = Reader::default();
        let pieces = text.as_bytes().chunks(size).try_for_each(|piece| reader.feed(piece)).and_then(|()| reader.finish());
        prop_assert_eq!(pieces, Playlist::parse(text.as_bytes()));
    }

    /// A segment more is an edge further by one, whatever else stands there.
    #[test]
    fn a_further_segment_moves_the_edge(sequence in 0u64..1 << 60, segments in 1u64..50, parts in 0u64..5) {
        let text = |segments: u64| {
            let lines = "#EXTINF:2,\na.ts\n".repeat(segments as usize);
            format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{sequence}\n{lines}")
        };
        let parts = "#EXT-X-PART:DURATION=1,URI=\"x\"\n".repeat(parts as usize);
        prop_assert_eq!(media(&(text(segments) + &parts)).edge.segment, sequence + segments);
        prop_assert_eq!(media(&(text(segments + 1) + &parts)).edge.segment, sequence + segments + 1);
    }
}
