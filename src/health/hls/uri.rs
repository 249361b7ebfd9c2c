//! The URI of a variant: resolved against the playlist that names it (RFC 3986 §5.2), and never on another server.
//!
//! A probe asks one address about one server. A variant on another host would tell about that host, and a server must
//! not be able to send probes elsewhere; so such a URI is refused by name.

use std::fmt;

use hyper::Uri;

/// Why a variant cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The host that it is on.
    Elsewhere(String),
    /// It needs EXT-X-DEFINE (RFC 8216bis §4.4.2.3).
    Variable,
    Malformed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Elsewhere(host) => write!(f, "the variant is on another server, {host}"),
            Refused::Variable => f.write_str("the variant's URI has a variable (EXT-X-DEFINE), which is not supported"),
            Refused::Malformed => f.write_str("the variant's URI is malformed"),
        }
    }
}

/// The path and query to ask for. `base` is the path of the playlist that holds `reference`, `host` that of the check;
/// in `reference` the scheme may be http or https, whichever of them the check uses, and any port may follow the host:
/// the request goes to the address, the port and over the protocol of the check in any case.
pub fn resolve(base: &Uri, host: &str, reference: &str) -> Result<Uri, Refused> {
    if reference.contains("{$") {
        return Err(Refused::Variable);
    }
    let reference = reference.split('#').next().unwrap_or_default();
    let local = match authority(reference)? {
        None => reference,
        Some((authority, rest)) => {
            // user:password@host:port; a bracketed IPv6 address has colons of its own.
            let place = authority.rsplit('@').next().unwrap_or_default();
            let end = match place.find(']') {
                Some(bracket) => bracket + 1,
                None => place.find(':').unwrap_or(place.len()),
            };
            let named = place[..end].trim_end_matches('.');
            if !named.eq_ignore_ascii_case(host.trim_end_matches('.')) {
                return Err(Refused::Elsewhere(named.chars().filter(|c| !c.is_control()).take(80).collect()));
            }
            rest
        }
    };
    let whole = local.len() < reference.len();
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    };
    let mut target = match path {
        "" if whole => "/".to_owned(),
        "" => base.path().to_owned(),
        _ if path.starts_with('/') => without_dots(path),
        _ => {
            let folder = &base.path()[..base.path().rfind('/').map_or(0, |slash| slash + 1)];
            without_dots(&format!("{folder}{path}"))
        }
    };
    let inherited = if path.is_empty() && !whole { base.query() } else { None };
    if let Some(query) = query.or(inherited) {
        target = format!("{target}?{query}");
    }
    let sound = target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic());
    target.parse().ok().filter(|_| sound).ok_or(Refused::Malformed)
}

/// The authority of an absolute or network-path reference, and what follows it. Errors: another scheme.
fn authority(reference: &str) -> Result<Option<(&str, &str)>, Refused> {
    let after_scheme = match reference.split_once(':') {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
                return Err(Refused::Malformed);
            }
            if !rest.starts_with("//") {
                return Err(Refused::Malformed);
            }
            rest
        }
        _ => reference,
    };
    let Some(rest) = after_scheme.strip_prefix("//") else { return Ok(None) };
    Ok(Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()))))
}

/// RFC 3986 §5.2.4, for a path that begins with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "live.stream.example";

    fn resolved(reference: &str) -> Result<String, Refused> {
        let base = "/b/c/d;p?q".parse().unwrap();
        resolve(&base, HOST, reference).map(|uri| uri.to_string())
    }

    #[test]
    fn references_resolve_as_the_examples_of_rfc_3986() {
        // §5.4, as far as it is of http and without a fragment.
        for (reference, target) in [
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("?y", "/b/c/d;p?y"),
            ("g?y", "/b/c/g?y"),
            ("#s", "/b/c/d;p?q"),
            ("g#s", "/b/c/g"),
            ("g?y#s", "/b/c/g?y"),
            (";x", "/b/c/;x"),
            ("g;x?y", "/b/c/g;x?y"),
            ("", "/b/c/d;p?q"),
            (".", "/b/c/"),
            ("./", "/b/c/"),
            ("..", "/b/"),
            ("../", "/b/"),
            ("../g", "/b/g"),
            ("../..", "/"),
            ("../../g", "/g"),
            ("../../../g", "/g"),
            ("/./g", "/g"),
            ("/../g", "/g"),
            ("g.", "/b/c/g."),
            ("..g", "/b/c/..g"),
            ("./../g", "/b/g"),
            ("g/./h", "/b/c/g/h"),
            ("g/../h", "/b/c/h"),
            ("g;x=1/../y", "/b/c/y"),
            ("g?y/../x", "/b/c/g?y/../x"),
        ] {
            assert_eq!(resolved(reference).as_deref(), Ok(target), "{reference}");
        }
    }

    #[test]
    fn absolute_uris_of_the_same_host_are_asked_for_on_this_server() {
        for reference in [
            "https://live.stream.example/v0/a.m3u8?t=1",
            "http://live.stream.example:8080/v0/a.m3u8?t=1",
            "HTTPS://LIVE.stream.example./v0/a.m3u8?t=1",
            "//live.stream.example/v0/a.m3u8?t=1",
            "https://user@live.stream.example/v0/a.m3u8?t=1#x",
        ] {
            assert_eq!(resolved(reference).as_deref(), Ok("/v0/a.m3u8?t=1"), "{reference}");
        }
        assert_eq!(resolved("https://live.stream.example").as_deref(), Ok("/"));
        assert_eq!(resolved("https://live.stream.example?a").as_deref(), Ok("/?a"));
    }

    #[test]
    fn another_host_is_refused_by_name() {
        for (reference, host) in [
            ("https://cdn.example/a.m3u8", "cdn.example"),
            ("//169.254.169.254/latest", "169.254.169.254"),
            ("https://live.stream.example@evil.example/", "evil.example"),
            ("https://live.stream.example.evil.example/", "live.stream.example.evil.example"),
            ("http://[::1]:80/a", "[::1]"),
            ("https:///a", ""),
        ] {
            assert_eq!(resolved(reference), Err(Refused::Elsewhere(host.into())), "{reference}");
        }
    }

    #[test]
    fn what_can_not_be_asked_for_is_refused() {
        for reference in ["ftp://live.stream.example/a", "data:x", "https:a", "a b", "ä", "a\tb", "a\u{7f}"] {
            assert_eq!(resolved(reference), Err(Refused::Malformed), "{reference}");
        }
        assert_eq!(resolved("{$base}/a.m3u8"), Err(Refused::Variable));
    }

    proptest! {
        #[test]
        fn whatever_resolves_is_a_path_of_this_server(reference in "\\PC*|[a-z./:?#@\\[\\]%]*") {
            if let Ok(target) = resolve(&"/live/index.m3u8".parse().unwrap(), HOST, &reference) {
                prop_assert!(target.path().starts_with('/'));
                prop_assert_eq!(target.authority(), None);
                prop_assert!(!target.path().split('/').any(|segment| segment == ".."));
            }
        }
    }
}
