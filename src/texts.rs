//! Texts that people give and terminals show: which characters do more than stand in their place.
//!
//! Control characters steer a terminal. Format characters are not seen, and some turn the direction of what follows, so
//! that a text reads other than it is (CVE-2021-42574): a reason could hide its end, or seem to go on with another order.

/// Whether the character is not shown in its place: a control character, a line or paragraph separator, or one of
/// Unicode's general category Cf (format), as of Unicode 16.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{180e}'
            // Among them the marks, embeddings and overrides of direction; the separators lie between.
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0001}'
            | '\u{e0020}'..='\u{e007f}')
}

/// The text with a replacement character (U+FFFD) for each that is hidden.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_or_turns_a_text_is_replaced() {
        assert_eq!(harmless("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        for hidden in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{200f}', '\u{2028}', '\u{ad}', '\u{feff}', '\u{e0041}'] {
            assert_eq!(harmless(&format!("a{hidden}b")), "a\u{fffd}b", "{hidden:?}");
        }
        for plain in ["kernel update", "Köln – Łódź", "東京", "ירושלים", "القاهرة", "100 %"] {
            assert_eq!(harmless(plain), plain);
        }
    }
}
