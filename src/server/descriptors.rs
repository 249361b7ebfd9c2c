//! File descriptors: connections of clients must leave enough of them for probes and files.
//!
//! Without this bound a flood of TCP connections could use up all that the process may have, and probes that get none
//! would look like failures of every server.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for everything but connections of DNS clients: probes, databases, zone files, the admin API. Of a limit
/// that is below twice this, half.
const RESERVED: u64 = 1024;

/// How many TCP connections of the `wanted` there may be. Raises the process's soft limit of open files towards the
/// hard one as far as they need it.
pub fn for_connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = (wanted as u64).saturating_add(RESERVED);
    let soft = raise(limit, needed);
    let allowed = allowed(wanted, soft);
    if allowed < wanted {
        tracing::warn!(
            open_files = soft,
            connections = allowed,
            "fewer TCP connections are taken than `limits.tcp_connections` = {wanted}, to keep file descriptors for \
             probes; raise the limit of open files (`ulimit -n`, LimitNOFILE= in a systemd unit) to {needed}",
        );
    }
    allowed
}

/// The soft limit then.
fn raise(limit: Rlimit, needed: u64) -> u64 {
    let soft = limit.current.unwrap_or(u64::MAX);
    let target = needed.min(limit.maximum.unwrap_or(u64::MAX));
    if target <= soft {
        return soft;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(target), ..limit }) {
        Ok(()) => target,
        Err(error) => {
            tracing::debug!(%error, soft, target, "the limit of open files stays");
            soft
        }
    }
}

fn allowed(wanted: usize, limit: u64) -> usize {
    let left = limit - RESERVED.min(limit / 2);
    wanted.min(usize::try_from(left).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_keep_a_thousand_descriptors_or_half_of_few() {
        assert_eq!(allowed(10_000, 1 << 20), 10_000);
        assert_eq!(allowed(10_000, 11_024), 10_000);
        assert_eq!(allowed(10_000, 11_023), 9_999);
        assert_eq!(allowed(10_000, 1_024), 512);
        assert_eq!(allowed(10_000, u64::MAX), 10_000);
        assert_eq!(allowed(10_000, 0), 1);
    }
}
