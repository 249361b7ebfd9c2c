//! Datagrams in batches: recvmmsg and sendmmsg of Linux, with the local address copied from query to answer.
//!
//! Unsafe code: no well-kept crate receives *and* sends batches *and* keeps the local address.
//! Everything unsafe is a system call; what the kernel wrote is read as plain bytes. No pointer outlives the
//! function that made it: the headers are built anew for each call, at some 50 ns for the whole batch.

use std::io;
use std::mem::{self, offset_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

use crate::answer::UDP_PAYLOAD;

/// Datagrams a system call. Larger batches measured no faster, 8 some 3 % slower.
pub const BATCH: usize = 32;

/// Bytes of a datagram that are kept: somewhat more than the payload size that we advertise. An odd number of cache
/// lines, so that the first lines of the slots spread over all sets of the first-level cache; 1,024 or 4,096 would
/// crowd them into a few.
pub const SLOT: usize = 21 * 64;
const _: () = assert!(SLOT >= UDP_PAYLOAD);

/// Room for one control message, IP_PKTINFO or the larger IPV6_PKTINFO.
// SAFETY: CMSG_SPACE only computes.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as u32) } as usize;
/// Where the data of the first control message begins.
// SAFETY: CMSG_LEN only computes.
const CONTROL_DATA: usize = unsafe { libc::CMSG_LEN(0) } as usize;

#[repr(C, align(64))]
struct Slot([u8; SLOT]);

/// What came with a datagram besides its bytes.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Envelope {
    /// cmsghdr needs the alignment of its length field, which the struct's own alignment gives to the first field.
    control: [u8; CONTROL],
    /// A sockaddr_in or sockaddr_in6.
    peer: [u8; size_of::<libc::sockaddr_in6>()],
    peer_length: libc::socklen_t,
    control_length: usize,
    length: usize,
    cut: bool,
}

/// Fixed buffers for one socket: [`Batch::receive`], then [`Batch::parts`], then [`Batch::send`].
pub struct Batch {
    queries: Box<[Slot]>,
    answers: Box<[Answer]>,
    envelopes: Box<[Envelope]>,
    received: usize,
}

/// Room for one answer.
#[repr(C, align(64))]
pub struct Answer {
    bytes: [u8; SLOT],
    /// 0: none.
    length: usize,
}

impl Answer {
    /// [`SLOT`] bytes, not cleared.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// To be sent are so many bytes of the room.
    pub fn is(&mut self, length: usize) {
        self.length = length.min(SLOT);
    }
}

/// Nobody can be answered at port 0.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A datagram as it came.
pub struct Datagram<'a> {
    pub bytes: &'a [u8],
    /// The datagram was longer than [`SLOT`]; `bytes` is its beginning.
    pub cut: bool,
    pub peer: SocketAddr,
}

/// Whether [`Batch::receive`] waits for the first datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// As long as the socket's read time-out.
    ForOne,
    No,
}

impl Batch {
    pub fn new() -> Batch {
        let queries = (0..BATCH).map(|_| Slot([0; SLOT])).collect();
        let answers = (0..BATCH).map(|_| Answer { bytes: [0; SLOT], length: 0 }).collect();
        let empty =
            Envelope { control: [0; CONTROL], peer: [0; _], peer_length: 0, control_length: 0, length: 0, cut: false };
        Batch { queries, answers, envelopes: [empty; BATCH].into(), received: 0 }
    }

    /// Takes what waits in the socket, at most [`BATCH`] datagrams, and forgets the batch before. The number is at
    /// least 1.
    ///
    /// Fails with `WouldBlock` when nothing came within the socket's read time-out, with `Interrupted` by a signal.
    pub fn receive(&mut self, socket: &UdpSocket, wait: Wait) -> io::Result<usize> {
        self.received = 0;
        let mut vectors: [libc::iovec; BATCH] = std::array::from_fn(|_| no_vector());
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|_| no_header());
        let slots = self.queries.iter_mut().zip(&mut self.envelopes);
        for (((query, envelope), vector), header) in slots.zip(&mut vectors).zip(&mut headers) {
            vector.iov_base = query.0.as_mut_ptr().cast();
            vector.iov_len = SLOT;
            let header = &mut header.msg_hdr;
            header.msg_name = envelope.peer.as_mut_ptr().cast();
            header.msg_namelen = size_of_val(&envelope.peer) as libc::socklen_t;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = envelope.control.as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
        }
        let flags = match wait {
            Wait::ForOne => libc::MSG_WAITFORONE,
            Wait::No => libc::MSG_DONTWAIT,
        };
        // SAFETY: there are BATCH headers. Each points to an own name, control buffer and vector with their true
        // sizes, in `self` and `vectors`, which live past the call and which nothing else touches meanwhile, since
        // `self` is borrowed mutably. The kernel keeps no pointer. A null time-out is allowed.
        let n = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), BATCH as _, flags as _, ptr::null_mut())
        };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        for ((header, envelope), answer) in headers[..n].iter().zip(&mut self.envelopes).zip(&mut self.answers) {
            envelope.peer_length = header.msg_hdr.msg_namelen;
            // As many bytes as the kernel filled in; a shortened control message can't name an address.
            let whole = header.msg_hdr.msg_flags & libc::MSG_CTRUNC == 0;
            envelope.control_length = if whole { header.msg_hdr.msg_controllen as _ } else { 0 };
            envelope.length = (header.msg_len as usize).min(SLOT);
            envelope.cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            answer.length = 0;
        }
        self.received = n;
        Ok(n)
    }

    /// The received datagrams, each with the room for its answer, which has length 0 so far.
    pub fn parts(&mut self) -> (impl Iterator<Item = Datagram<'_>>, &mut [Answer]) {
        let received = self.envelopes[..self.received].iter().zip(&self.queries);
        let datagrams = received.map(|(envelope, query)| {
            // An address that is neither IPv4 nor IPv6 the kernel does not give on these sockets.
            let peer = envelope.peer().unwrap_or(NOBODY);
            Datagram { bytes: &query.0[..envelope.length], cut: envelope.cut, peer }
        });
        (datagrams, &mut self.answers[..self.received])
    }

    /// Sends the answers, each from the address that its query was sent to. Returns how many could not be sent.
    ///
    /// An error concerns one datagram (no route, forbidden by a filter, an ICMP error of an earlier one), so the rest
    /// goes on; only when the socket stays full for its whole write time-out the rest is given up.
    pub fn send(&mut self, socket: &UdpSocket) -> usize {
        let mut vectors: [libc::iovec; BATCH] = std::array::from_fn(|_| no_vector());
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|_| no_header());
        let answered = self.envelopes[..self.received].iter_mut().zip(&mut self.answers);
        let answered = answered.filter(|(_, answer)| answer.length > 0);
        let mut count = 0;
        for (((envelope, answer), vector), header) in answered.zip(&mut vectors).zip(&mut headers) {
            vector.iov_base = answer.bytes.as_mut_ptr().cast();
            vector.iov_len = answer.length;
            let header = &mut header.msg_hdr;
            header.msg_name = envelope.peer.as_mut_ptr().cast();
            header.msg_namelen = envelope.peer_length;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            if envelope.control_length > 0 {
                envelope.leave_the_interface_to_routing();
                header.msg_control = envelope.control.as_mut_ptr().cast();
                header.msg_controllen = envelope.control_length as _;
            }
            count += 1;
        }
        let (mut next, mut unsent) = (0, 0);
        while next < count {
            let rest = &mut headers[next..count];
            // SAFETY: `rest` is as many headers as told. Each points to an own name, control buffer and vector of the
            // lengths that the kernel itself gave or that were checked against SLOT, in `self` and `vectors`, which
            // live past the call and are not touched meanwhile. The kernel keeps no pointer.
            let n = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as _, 0) };
            match usize::try_from(n) {
                Ok(n) if n > 0 => next += n,
                _ => match io::Error::last_os_error().kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        unsent += count - next;
                        break;
                    }
                    // The error belongs to the first of `rest`.
                    _ => {
                        unsent += 1;
                        next += 1;
                    }
                },
            }
        }
        unsent
    }
}

impl Envelope {
    /// `None` for an address that is neither IPv4 nor IPv6, which the kernel does not give on these sockets.
    fn peer(&self) -> Option<SocketAddr> {
        let bytes = &self.peer;
        let u16_at = |at: usize| [bytes[at], bytes[at + 1]];
        let port = u16::from_be_bytes(u16_at(offset_of!(libc::sockaddr_in6, sin6_port)));
        match libc::c_int::from(u16::from_ne_bytes(u16_at(offset_of!(libc::sockaddr_in6, sin6_family)))) {
            libc::AF_INET => {
                let address: [u8; 4] = *bytes[offset_of!(libc::sockaddr_in, sin_addr)..].first_chunk()?;
                Some(SocketAddr::from((Ipv4Addr::from(address), port)))
            }
            libc::AF_INET6 => {
                let address: [u8; 16] = *bytes[offset_of!(libc::sockaddr_in6, sin6_addr)..].first_chunk()?;
                let scope: [u8; 4] = *bytes[offset_of!(libc::sockaddr_in6, sin6_scope_id)..].first_chunk()?;
                Some(SocketAddrV6::new(Ipv6Addr::from(address), port, 0, u32::from_ne_bytes(scope)).into())
            }
            _ => None,
        }
    }

    /// The control message of a query, sent back as it is, would also force the answer out of the interface that the
    /// query came in by. Routing knows better, except for link-local addresses, which mean nothing without it.
    fn leave_the_interface_to_routing(&mut self) {
        let i32_at = |at: usize| self.control[at..].first_chunk().map(|bytes| libc::c_int::from_ne_bytes(*bytes));
        let level = i32_at(offset_of!(libc::cmsghdr, cmsg_level));
        let kind = i32_at(offset_of!(libc::cmsghdr, cmsg_type));
        let data = &mut self.control[CONTROL_DATA..];
        let index = match (level, kind) {
            (Some(libc::IPPROTO_IP), Some(libc::IP_PKTINFO)) => offset_of!(libc::in_pktinfo, ipi_ifindex),
            (Some(libc::IPPROTO_IPV6), Some(libc::IPV6_PKTINFO)) => {
                let address = data.first_chunk().map(|bytes: &[u8; 16]| Ipv6Addr::from(*bytes));
                if address.is_some_and(|address| address.is_unicast_link_local()) {
                    return;
                }
                offset_of!(libc::in6_pktinfo, ipi6_ifindex)
            }
            _ => return,
        };
        data[index..index + size_of::<libc::c_uint>()].fill(0);
    }
}

fn no_vector() -> libc::iovec {
    libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }
}

fn no_header() -> libc::mmsghdr {
    // SAFETY: the struct holds integers and raw pointers, for which zeros are valid. A literal would not do: some
    // C libraries have private padding in it.
    unsafe { mem::zeroed() }
}

/// Lets the kernel tell the local address of each datagram. Needed on wildcard sockets only: others have one address.
pub fn tell_local_address(socket: &UdpSocket, v6: bool) -> io::Result<()> {
    match v6 {
        false => set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        true => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

/// Sends without the don't-fragment bit and without regard to ICMP reports of a small path MTU: answers fit the
/// smallest path that is common, and forged reports must not make us fragment (as BIND, NSD and Unbound do).
pub fn ignore_path_mtu(socket: &UdpSocket, v6: bool) -> io::Result<()> {
    match v6 {
        false => set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
        true => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT),
    }
}

fn set_option(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointer is to a c_int that lives past the call, with its true size.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let (server, client) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        client.connect(server.local_addr().unwrap()).unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
        }
        (server, client)
    }

    fn echo(batch: &mut Batch) {
        let (datagrams, answers) = batch.parts();
        for (Datagram { bytes, .. }, answer) in datagrams.zip(answers) {
            answer.room()[..bytes.len()].copy_from_slice(bytes);
            answer.is(bytes.len());
        }
    }

    fn received(client: &UdpSocket) -> Vec<Vec<u8>> {
        let mut bytes = [0; 2048];
        std::iter::from_fn(|| client.recv(&mut bytes).ok().map(|n| bytes[..n].to_vec())).collect()
    }

    #[test]
    fn a_batch_holds_what_waits_and_no_more_than_it_can() {
        let (server, client) = pair();
        for i in 0..BATCH as u8 + 5 {
            client.send(&[i; 20]).unwrap();
        }
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&server, Wait::ForOne).unwrap(), BATCH);
        echo(&mut batch);
        assert_eq!(batch.send(&server), 0);
        assert_eq!(batch.receive(&server, Wait::No).unwrap(), 5);
        echo(&mut batch);
        assert_eq!(batch.send(&server), 0);
        let expected: Vec<Vec<u8>> = (0..BATCH as u8 + 5).map(|i| vec![i; 20]).collect();
        assert_eq!(received(&client), expected);
        let none = batch.receive(&server, Wait::No).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        let none = batch.receive(&server, Wait::ForOne).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock, "the read time-out has passed");
        assert_eq!(batch.send(&server), 0, "and nothing of the batch before is sent again");
        assert!(received(&client).is_empty());
    }

    #[test]
    fn answers_that_the_kernel_refuses_are_counted_and_the_others_are_sent() {
        let (server, client) = pair();
        for i in 0..6 {
            client.send(&[i; 20]).unwrap();
        }
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&server, Wait::ForOne).unwrap(), 6);
        echo(&mut batch);
        // Port 0 is EINVAL. First, in the middle in a row, and last.
        for i in [0, 2, 3, 5] {
            batch.envelopes[i].peer[offset_of!(libc::sockaddr_in, sin_port)..][..2].fill(0);
        }
        assert_eq!(batch.send(&server), 4);
        assert_eq!(received(&client), [vec![1; 20], vec![4; 20]]);
    }

    #[test]
    fn datagrams_without_an_answer_are_skipped() {
        let (server, client) = pair();
        for i in 0..4 {
            client.send(&[i; 20]).unwrap();
        }
        let mut batch = Batch::new();
        batch.receive(&server, Wait::ForOne).unwrap();
        let (datagrams, answers) = batch.parts();
        for (Datagram { bytes, .. }, answer) in datagrams.zip(answers) {
            answer.room()[0] = bytes[0];
            answer.is(usize::from(bytes[0] % 2));
        }
        assert_eq!(batch.send(&server), 0);
        assert_eq!(received(&client), [[1], [3]]);
    }

    #[test]
    fn peers_are_read_as_the_standard_library_reads_them() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(server) = UdpSocket::bind(address) else { continue };
            let client = UdpSocket::bind(address).unwrap();
            client.send_to(b"q", server.local_addr().unwrap()).unwrap();
            let mut batch = Batch::new();
            batch.receive(&server, Wait::ForOne).unwrap();
            let peers: Vec<SocketAddr> = batch.parts().0.map(|datagram| datagram.peer).collect();
            assert_eq!(peers, [client.local_addr().unwrap()]);
        }
    }
}
