//! Which of many sockets are ready: epoll(7), level-triggered.
//!
//! Unsafe here are three system calls; no memory of ours outlives one of them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Sockets told of by one call. Others wait for the next call.
const EVENTS: usize = 256;

/// What a socket is watched for. Its end and its errors are told in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Nothing,
    Read,
    Write,
}

/// Watches sockets. One that is closed is forgotten by itself.
pub struct Poller(OwnedFd);

/// The tokens of sockets that are ready.
pub struct Ready {
    events: Box<[libc::epoll_event; EVENTS]>,
    length: usize,
}

impl Poller {
    pub fn new() -> io::Result<Poller> {
        // SAFETY: no pointer is passed, and the descriptor that is returned has no other owner.
        let fd = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Poller(fd))
    }

    /// Begins to watch. `token` is what [`Ready`] will tell.
    pub fn add(&self, socket: &impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token, interest)
    }

    /// Changes what a watched socket is watched for.
    pub fn set(&self, socket: &impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, token, interest)
    }

    fn control(&self, operation: i32, socket: &impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let events = match interest {
            Interest::Nothing => 0,
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: both descriptors are open as their owners are borrowed; the event is only read, during the call.
        match unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, socket.as_fd().as_raw_fd(), &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits until a socket is ready, at most so long, to the millisecond. After an error, `ready` is empty.
    pub fn wait(&self, ready: &mut Ready, patience: Duration) -> io::Result<()> {
        ready.length = 0;
        let (events, patience) = (ready.events.as_mut_ptr(), patience.as_millis().min(i32::MAX as u128) as i32);
        // SAFETY: the kernel writes at most EVENTS events, for which there is room.
        let n = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events, EVENTS as i32, patience) };
        ready.length = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        Ok(())
    }
}

impl Ready {
    pub fn new() -> Ready {
        Ready { events: Box::new([libc::epoll_event { events: 0, u64: 0 }; EVENTS]), length: 0 }
    }

    pub fn tokens(&self) -> impl Iterator<Item = u64> {
        self.events[..self.length].iter().map(|event| event.u64)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn ready(poller: &Poller) -> Vec<u64> {
        let mut ready = Ready::new();
        poller.wait(&mut ready, Duration::ZERO).unwrap();
        ready.tokens().collect()
    }

    #[test]
    fn a_socket_is_told_of_until_it_is_read_and_only_for_what_it_is_watched_for() {
        let poller = Poller::new().unwrap();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        poller.add(&ours, 7, Interest::Read).unwrap();
        assert!(ready(&poller).is_empty());
        theirs.write_all(b"ab").unwrap();
        assert_eq!([ready(&poller), ready(&poller)], [[7], [7]]);
        poller.set(&ours, 7, Interest::Nothing).unwrap();
        assert!(ready(&poller).is_empty());
        poller.set(&ours, 1 << 40, Interest::Write).unwrap();
        assert_eq!(ready(&poller), [1 << 40], "tokens have 64 bits");
        poller.set(&ours, 8, Interest::Read).unwrap();
        ours.read_exact(&mut [0; 2]).unwrap();
        assert!(ready(&poller).is_empty());
        drop(theirs);
        assert_eq!(ready(&poller), [8], "the end of a stream");
        drop(ours);
        assert!(ready(&poller).is_empty());
    }

    #[test]
    fn what_is_not_watched_cannot_be_changed() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Poller::new().unwrap().set(&ours, 1, Interest::Read).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
