//! The protocol of a connection, whatever stream carries it: messages behind their length (RFC 1035 §4.2.2), queries
//! pipelined, answers in the order of their queries (RFC 7766).
//!
//! A turn reads what has come, answers the whole messages in it and writes once. The large buffers belong to the worker
//! and are used within a turn only, so an idle connection holds none, and one in the middle of a message holds the
//! bytes that have arrived.

use std::io::{self, Read, Write};

use super::Answers;
use super::tap::Teller;
use crate::answer::{Client, Outcome};

/// "a two-byte length field which gives the message length" (RFC 1035 §4.2.2).
const PREFIX: usize = 2;
/// Longest message (RFC 1035 §4.2.2), in or out.
const MESSAGE: usize = u16::MAX as usize;
/// Bytes read in one turn. With a message that is not whole yet, a connection holds at most 84 KiB.
const READ: usize = 16 << 10;
/// Answers gathered for one write, unless a single one is longer. It bounds what a peer that does not read can make
/// us hold.
const WRITE: usize = 16 << 10;

/// What is held grows by so many bytes.
const PAGE: usize = 4 << 10;

/// Buffers of a worker.
pub(super) struct Scratch {
    input: Box<[u8]>,
    /// Room for one more answer, however long, when [`WRITE`] is not reached.
    output: Box<[u8]>,
}

impl Scratch {
    pub(super) fn new() -> Scratch {
        Scratch { input: vec![0; READ].into(), output: vec![0; WRITE + PREFIX + MESSAGE].into() }
    }
}

/// A connection between two turns.
pub(super) struct Conversation {
    client: Client,
    /// What has arrived of messages that are not answered yet. Without capacity while there is none.
    held: Vec<u8>,
    /// Answers that the stream did not take. Nothing more is read before it has taken them, and nothing answered.
    unsent: Vec<u8>,
    /// The peer does not speak DNS; it gets its answers and no further turn.
    closes: bool,
}

/// What a turn leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing, or a part of a message: the peer is to speak. `answered`: at least one message was, or its answer has
    /// now been sent.
    Rest { answered: bool },
    /// More whole messages are held.
    More,
    /// Answers are held that the stream does not take now.
    Unsent,
    /// The stream is to be closed. So many answers could not be sent.
    Over { unsent: usize },
}

impl Conversation {
    pub(super) fn new(client: Client) -> Conversation {
        Conversation { client, held: Vec::new(), unsent: Vec::new(), closes: false }
    }

    /// A part of a message has come, or more than one turn answers.
    pub(super) fn is_in_message(&self) -> bool {
        !self.held.is_empty()
    }

    /// Answers that the stream did not take.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Does what can be done without waiting. Answers at most `pipeline` messages. `stream` must not block.
    pub(super) fn turn<S: Answers>(
        &mut self,
        stream: &mut (impl Read + Write),
        snapshot: &S,
        pipeline: usize,
        Scratch { input, output }: &mut Scratch,
        teller: &mut Teller,
    ) -> Turn {
        if self.has_unsent() {
            return self.send(stream);
        }
        if whole_message(&self.held).is_some() {
            return self.answer_held(stream, snapshot, pipeline, output, teller);
        }
        let n = match stream.read(input) {
            // "If the client closes", what it sent whole was answered already.
            Ok(0) => return Turn::Over { unsent: 0 },
            Ok(n) => n,
            Err(error) if is_for_later(&error) => return Turn::Rest { answered: false },
            Err(_) => return Turn::Over { unsent: 0 },
        };
        if self.is_in_message() {
            // By pages: neither for each byte that trickles in, nor twice what is needed.
            self.held.reserve_exact((self.held.len() + n).next_multiple_of(PAGE) - self.held.len());
            self.held.extend_from_slice(&input[..n]);
            return self.answer_held(stream, snapshot, pipeline, output, teller);
        }
        // The common case: whole messages, answered where they lie.
        let (consumed, turn) = self.answer(&input[..n], stream, snapshot, pipeline, output, teller);
        self.held.extend_from_slice(&input[consumed..n]);
        turn
    }

    fn send(&mut self, stream: &mut impl Write) -> Turn {
        match stream.write(&self.unsent) {
            Ok(n) if n < self.unsent.len() => {
                self.unsent.drain(..n);
                Turn::Unsent
            }
            Ok(_) => {
                self.unsent = Vec::new();
                if self.closes {
                    Turn::Over { unsent: 0 }
                } else if whole_message(&self.held).is_some() {
                    Turn::More
                } else {
                    Turn::Rest { answered: true }
                }
            }
            Err(error) if is_for_later(&error) => Turn::Unsent,
            Err(_) => Turn::Over { unsent: 1 },
        }
    }

    fn answer_held<S: Answers>(
        &mut self,
        stream: &mut impl Write,
        snapshot: &S,
        pipeline: usize,
        output: &mut [u8],
        teller: &mut Teller,
    ) -> Turn {
        let mut held = std::mem::take(&mut self.held);
        let (consumed, turn) = self.answer(&held, stream, snapshot, pipeline, output, teller);
        if consumed < held.len() {
            held.drain(..consumed);
            // A long message that was answered leaves a large buffer behind.
            if held.capacity() > 2 * held.len().max(READ) {
                held.shrink_to_fit();
            }
            self.held = held;
        }
        turn
    }

    /// Answers the whole messages at the front of `bytes`, as many as one turn may, in one write. Returns the bytes
    /// that are done with.
    fn answer<S: Answers>(
        &mut self,
        bytes: &[u8],
        stream: &mut impl Write,
        snapshot: &S,
        pipeline: usize,
        output: &mut [u8],
        teller: &mut Teller,
    ) -> (usize, Turn) {
        let shard = snapshot.counters().tcp();
        let (mut consumed, mut written, mut answers) = (0, 0, 0);
        teller.begin(snapshot.epoch());
        let turn = loop {
            let Some(query) = whole_message(&bytes[consumed..]) else { break Turn::Rest { answered: answers > 0 } };
            if answers == pipeline || written >= WRITE {
                break Turn::More;
            }
            let outcome = snapshot.respond(query, self.client, &mut output[written + PREFIX..][..MESSAGE]);
            shard.record(outcome);
            consumed += PREFIX + query.len();
            match outcome {
                Outcome::Answered { length, asked, .. } => {
                    teller.tell(asked);
                    let prefix = u16::try_from(length).expect("respond writes at most 65,535 bytes");
                    output[written..written + PREFIX].copy_from_slice(&prefix.to_be_bytes());
                    written += PREFIX + length;
                    answers += 1;
                }
                // No header, or a response: this peer does not speak DNS, or has lost count of its bytes.
                Outcome::Dropped => {
                    self.closes = true;
                    break Turn::Over { unsent: 0 };
                }
            }
        };
        if answers == 0 {
            return (consumed, turn);
        }
        let sent = match stream.write(&output[..written]) {
            Ok(n) => n,
            Err(error) if is_for_later(&error) => 0,
            Err(_) => return (consumed, Turn::Over { unsent: answers }),
        };
        if sent == written {
            return (consumed, turn);
        }
        self.unsent = output[sent..written].to_vec();
        (consumed, Turn::Unsent)
    }
}

/// The first message of `bytes` without its length, if all of it is there.
fn whole_message(bytes: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX>()?;
    rest.get(..u16::from_be_bytes(*prefix) as usize)
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::answer::Transport;
    use crate::server::tap;
    use crate::server::tests::{Toy, query, toy};

    /// A peer: what it has sent, what it has got, and how much more it takes now.
    #[derive(Default)]
    struct Peer {
        sent: VecDeque<u8>,
        got: Vec<u8>,
        room: usize,
        writes: usize,
    }

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.sent.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.sent.read(buffer) }
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            if self.room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let n = bytes.len().min(self.room);
            self.room -= n;
            self.got.extend(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Rig {
        talk: Conversation,
        peer: Peer,
        toy: Toy,
        scratch: Scratch,
        teller: Teller,
    }

    const PIPELINE: usize = 16;
    /// Bytes of a query of the rig, and of its answer.
    const FRAME: usize = 2 + 13;

    fn frames(ids: std::ops::Range<u16>) -> Vec<u8> {
        ids.flat_map(|id| [&[0, 13][..], &query(id, b"q")].concat()).collect()
    }

    impl Rig {
        fn new(sent: &[u8], room: usize) -> Rig {
            let client = Client { address: Ipv4Addr::LOCALHOST.into(), port: 1, transport: Transport::Tcp };
            let peer = Peer { sent: sent.iter().copied().collect(), room, ..Peer::default() };
            Rig {
                talk: Conversation::new(client),
                peer,
                toy: toy(1, 0),
                scratch: Scratch::new(),
                teller: tap::ring().0,
            }
        }

        fn turn(&mut self) -> Turn {
            self.talk.turn(&mut self.peer, &self.toy, PIPELINE, &mut self.scratch, &mut self.teller)
        }

        fn answered_ids(&self) -> Vec<u16> {
            self.peer.got.chunks(FRAME).map(|frame| u16::from_be_bytes([frame[2], frame[3]])).collect()
        }
    }

    #[test]
    fn a_turn_answers_no_more_than_its_share_and_in_one_write() {
        let mut rig = Rig::new(&frames(0..40), usize::MAX);
        assert_eq!(rig.turn(), Turn::More);
        assert_eq!((rig.peer.got.len(), rig.peer.writes), (PIPELINE * FRAME, 1));
        assert_eq!(rig.turn(), Turn::More);
        assert_eq!(rig.turn(), Turn::Rest { answered: true });
        assert_eq!((rig.answered_ids(), rig.peer.writes), ((0..40).collect(), 3));
        assert_eq!(rig.turn(), Turn::Rest { answered: false });
        assert_eq!(rig.talk.held.capacity(), 0, "an idle connection holds nothing");
    }

    #[test]
    fn a_peer_that_pipelines_and_does_not_read_makes_us_hold_little() {
        let mut rig = Rig::new(&frames(0..60_000), 0);
        for _ in 0..1_000 {
            assert_eq!(rig.turn(), Turn::Unsent);
        }
        assert_eq!(rig.talk.unsent.len(), PIPELINE * FRAME);
        assert_eq!(rig.talk.held.len(), READ - PIPELINE * FRAME, "read once");
        assert!(rig.talk.held.capacity() + rig.talk.unsent.capacity() <= 2 * READ + WRITE);
    }

    #[test]
    fn what_is_held_has_a_bound_whatever_the_messages() {
        // The longest, which the toy answers by as long ones.
        let message = query(1, &vec![b'q'; MESSAGE - 12]);
        let mut rig = Rig::new(&[&[0xFF, 0xFF][..], &message].concat().repeat(4), 0);
        while rig.turn() != Turn::Unsent {
            assert!(rig.talk.held.capacity() <= PREFIX + MESSAGE + READ + PAGE);
        }
        assert!(rig.talk.held.capacity() <= 2 * READ && rig.talk.unsent.capacity() <= WRITE + PREFIX + MESSAGE);
    }

    #[test]
    fn a_peer_that_reads_by_little_pieces_gets_all_answers_in_order() {
        let mut rig = Rig::new(&frames(0..500), 0);
        for _ in 0..500 * FRAME / 7 + 1_000 {
            rig.peer.room = 7;
            rig.turn();
        }
        assert_eq!(rig.answered_ids(), (0..500).collect::<Vec<_>>());
        assert!(!rig.talk.has_unsent() && !rig.talk.is_in_message());
    }

    #[test]
    fn answers_before_junk_are_sent_before_the_end() {
        let mut rig = Rig::new(&[frames(0..2), vec![0, 0], frames(2..3)].concat(), FRAME);
        assert_eq!(rig.turn(), Turn::Unsent);
        assert_eq!(rig.turn(), Turn::Unsent);
        rig.peer.room = usize::MAX;
        assert_eq!(rig.turn(), Turn::Over { unsent: 0 });
        assert_eq!(rig.answered_ids(), [0, 1]);
    }
}
