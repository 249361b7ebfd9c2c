//! Heartbeats on the wire: one UDP datagram each way, authenticated by HMAC-SHA-256 (RFC 2104, FIPS 180-4).
//!
//! ```text
//! "MB"  version  kind  n  key name (n bytes)  body  HMAC (32 bytes) of all before it
//!
//! beat:      flags  [IPv4]  [IPv6]  instance  nonce  sequence  sent  every  state  load flags  [sessions] [bits/s] [cpu]
//! challenge: instance  sequence  nonce
//! ```
//!
//! Integers are big-endian; instance, sequence, sent, sessions and bits/s have 8 bytes, every and cpu have 2, the nonce has 24
//! (all zero: none yet), what stands in brackets is there when its flag is set. Nothing may follow the HMAC. A
//! challenge is always shorter than the beat it answers, so that nobody is flooded through a node.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ring::hmac;

const MAGIC: [u8; 2] = *b"MB";
const VERSION: u8 = 1;
const BEAT: u8 = 1;
const CHALLENGE: u8 = 2;
const MAC: usize = 32;

/// No sound packet is longer.
pub const MAX_PACKET: usize = 256;

/// A key's name is at most this long.
pub const MAX_KEY_NAME: usize = 32;

/// Key names are 1 to 32 letters, digits, `.`, `_` and `-` of ASCII.
pub fn is_key_name(name: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=MAX_KEY_NAME).contains(&name.len()) && name.iter().all(good)
}

/// The public addresses of one server: at least one, at most one of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// `None` without any.
    pub fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Option<Addresses> {
        (v4.is_some() || v6.is_some()).then_some(Addresses { v4, v6 })
    }

    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::from).into_iter().chain(self.v6.map(IpAddr::from))
    }

    /// The same bytes as in a beat.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.v4.is_some()) | u8::from(self.v6.is_some()) << 1);
        out.extend(self.v4.iter().flat_map(|v4| v4.octets()));
        out.extend(self.v6.iter().flat_map(|v6| v6.octets()));
    }
}

impl From<IpAddr> for Addresses {
    fn from(address: IpAddr) -> Addresses {
        match address {
            IpAddr::V4(v4) => Addresses { v4: Some(v4), v6: None },
            IpAddr::V6(v6) => Addresses { v4: None, v6: Some(v6) },
        }
    }
}

/// What a node gave an agent to prove that its beats are of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce {
    /// On the node's own clock: microseconds since it began to listen.
    pub issued: u64,
    pub tag: [u8; 16],
}

/// What an agent says of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    NotReady = 0,
    Ready = 1,
    /// The agent itself ends, as planned; this says nothing about the server.
    Leaving = 2,
}

/// How busy the server is, as far as its agent knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub sessions: Option<u64>,
    /// Sent, bits per second.
    pub bits_per_s: Option<u64>,
    /// Thousandths of all cores.
    pub cpu_permille: Option<u16>,
}

/// Agent to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    pub server: Addresses,
    /// Random, chosen when the agent's process starts.
    pub instance: u64,
    pub nonce: Option<Nonce>,
    /// Counts up with every packet to this node.
    pub sequence: u64,
    /// On the agent's monotonic clock, in microseconds.
    pub sent: u64,
    /// How often the agent beats, in milliseconds: for people who wonder why a node misses its beats.
    pub every_ms: u16,
    pub state: State,
    pub load: Load,
}

/// Node to agent: the answer to a beat without a nonce that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Of the beat that is answered, so that an old challenge is of no use to anybody.
    pub instance: u64,
    pub sequence: u64,
    pub nonce: Nonce,
}

/// What a packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    Beat(Beat),
    Challenge(Challenge),
}

/// Why a packet is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Not a packet of this form and version.
    Malformed,
    /// The HMAC is not that of the key.
    Forged,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flaw::Malformed => "no packet of this form and version",
            Flaw::Forged => "not authenticated by the key it names",
        })
    }
}

impl std::error::Error for Flaw {}

/// A packet of which only the key's name can be read before the key has been tried on it.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    key_name: &'a str,
    signed: &'a [u8],
    mac: &'a [u8],
    /// Where the body begins in `signed`.
    body: usize,
}

impl<'a> Sealed<'a> {
    /// Errors: [`Flaw::Malformed`].
    pub fn read(bytes: &'a [u8]) -> Result<Sealed<'a>, Flaw> {
        let malformed = Flaw::Malformed;
        if bytes.len() > MAX_PACKET {
            return Err(malformed);
        }
        let (signed, mac) = bytes.split_at_checked(bytes.len().wrapping_sub(MAC)).ok_or(malformed)?;
        let mut reader = Reader(signed);
        if reader.take::<2>()? != MAGIC || reader.byte()? != VERSION {
            return Err(malformed);
        }
        let (_kind, length) = (reader.byte()?, reader.byte()?);
        let name = reader.slice(length.into())?;
        if !is_key_name(name) {
            return Err(malformed);
        }
        let key_name = std::str::from_utf8(name).map_err(|_| malformed)?;
        Ok(Sealed { key_name, signed, mac, body: signed.len() - reader.0.len() })
    }

    pub fn key_name(&self) -> &'a str {
        self.key_name
    }

    /// Errors: [`Flaw::Forged`] before anything of the body is looked at, else [`Flaw::Malformed`].
    pub fn open(&self, key: &hmac::Key) -> Result<Packet, Flaw> {
        hmac::verify(key, self.signed, self.mac).map_err(|_| Flaw::Forged)?;
        let mut reader = Reader(&self.signed[self.body..]);
        let packet = match self.signed[MAGIC.len() + 1] {
            BEAT => Packet::Beat(reader.beat()?),
            CHALLENGE => Packet::Challenge(Challenge {
                instance: reader.u64()?,
                sequence: reader.u64()?,
                nonce: reader.nonce()?.ok_or(Flaw::Malformed)?,
            }),
            _ => return Err(Flaw::Malformed),
        };
        if reader.0.is_empty() { Ok(packet) } else { Err(Flaw::Malformed) }
    }
}

impl Packet {
    /// Replaces what is in `out` by the packet in wire form. `key_name` has to be one ([`is_key_name`]).
    pub fn seal(&self, key_name: &str, key: &hmac::Key, out: &mut Vec<u8>) {
        debug_assert!(is_key_name(key_name.as_bytes()));
        out.clear();
        out.extend(MAGIC);
        out.push(VERSION);
        out.push(match self {
            Packet::Beat(_) => BEAT,
            Packet::Challenge(_) => CHALLENGE,
        });
        out.push(key_name.len() as u8);
        out.extend(key_name.as_bytes());
        match self {
            Packet::Beat(beat) => beat.write(out),
            Packet::Challenge(challenge) => {
                out.extend(challenge.instance.to_be_bytes());
                out.extend(challenge.sequence.to_be_bytes());
                write_nonce(Some(challenge.nonce), out);
            }
        }
        let mac = hmac::sign(key, out);
        out.extend(mac.as_ref());
    }
}

impl Beat {
    fn write(&self, out: &mut Vec<u8>) {
        self.server.write(out);
        out.extend(self.instance.to_be_bytes());
        write_nonce(self.nonce, out);
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.sent.to_be_bytes());
        out.extend(self.every_ms.to_be_bytes());
        out.push(self.state as u8);
        let Load { sessions, bits_per_s, cpu_permille } = self.load;
        let flags = [sessions.is_some(), bits_per_s.is_some(), cpu_permille.is_some()];
        out.push(flags.iter().enumerate().fold(0, |byte, (bit, set)| byte | u8::from(*set) << bit));
        out.extend(sessions.iter().chain(&bits_per_s).flat_map(|value| value.to_be_bytes()));
        out.extend(cpu_permille.iter().flat_map(|value| value.to_be_bytes()));
    }
}

fn write_nonce(nonce: Option<Nonce>, out: &mut Vec<u8>) {
    let Nonce { issued, tag } = nonce.unwrap_or(Nonce { issued: 0, tag: [0; 16] });
    out.extend(issued.to_be_bytes());
    out.extend(tag);
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn slice(&mut self, length: usize) -> Result<&'a [u8], Flaw> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Flaw::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Flaw::Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, Flaw> {
        Ok(self.take::<1>()?[0])
    }

    fn u64(&mut self) -> Result<u64, Flaw> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    fn u16(&mut self) -> Result<u16, Flaw> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    /// Reads `value` where `flag` is set.
    fn given<T>(flag: bool, value: impl FnOnce() -> Result<T, Flaw>) -> Result<Option<T>, Flaw> {
        flag.then(value).transpose()
    }

    fn nonce(&mut self) -> Result<Option<Nonce>, Flaw> {
        let nonce = Nonce { issued: self.u64()?, tag: self.take()? };
        Ok((nonce.issued != 0 || nonce.tag != [0; 16]).then_some(nonce))
    }

    /// A byte of which only the lowest `bits` may be set.
    fn flags(&mut self, bits: u32) -> Result<u8, Flaw> {
        let byte = self.byte()?;
        if byte >> bits == 0 { Ok(byte) } else { Err(Flaw::Malformed) }
    }

    fn beat(&mut self) -> Result<Beat, Flaw> {
        let flags = self.flags(2)?;
        let v4 = Self::given(flags & 1 != 0, || self.take::<4>())?.map(Ipv4Addr::from);
        let v6 = Self::given(flags & 2 != 0, || self.take::<16>())?.map(Ipv6Addr::from);
        Ok(Beat {
            server: Addresses::new(v4, v6).ok_or(Flaw::Malformed)?,
            instance: self.u64()?,
            nonce: self.nonce()?,
            sequence: self.u64()?,
            sent: self.u64()?,
            every_ms: self.u16()?,
            state: match self.byte()? {
                0 => State::NotReady,
                1 => State::Ready,
                2 => State::Leaving,
                _ => return Err(Flaw::Malformed),
            },
            load: self.load()?,
        })
    }

    fn load(&mut self) -> Result<Load, Flaw> {
        let flags = self.flags(3)?;
        Ok(Load {
            sessions: Self::given(flags & 1 != 0, || self.u64())?,
            bits_per_s: Self::given(flags & 2 != 0, || self.u64())?,
            cpu_permille: Self::given(flags & 4 != 0, || self.u16())?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) fn key(secret: &[u8]) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, secret)
    }

    fn nonces() -> impl Strategy<Value = Nonce> {
        (1u64.., any::<[u8; 16]>()).prop_map(|(issued, tag)| Nonce { issued, tag })
    }

    prop_compose! {
        fn loads()(
            sessions in any::<Option<u64>>(),
            bits_per_s in any::<Option<u64>>(),
            cpu_permille in any::<Option<u16>>(),
        ) -> Load {
            Load { sessions, bits_per_s, cpu_permille }
        }
    }

    prop_compose! {
        fn beats()(
            v4 in any::<Ipv4Addr>(),
            v6 in any::<Ipv6Addr>(),
            families in 1u8..4,
            (instance, sequence, sent, every_ms) in any::<(u64, u64, u64, u16)>(),
            nonce in prop::option::of(nonces()),
            state in prop::sample::select(vec![State::NotReady, State::Ready, State::Leaving]),
            load in loads(),
        ) -> Beat {
            let server = Addresses::new((families & 1 != 0).then_some(v4), (families & 2 != 0).then_some(v6));
            Beat { server: server.unwrap(), instance, nonce, sequence, sent, every_ms, state, load }
        }
    }

    fn packets() -> impl Strategy<Value = Packet> {
        let challenges = (any::<u64>(), any::<u64>(), nonces()).prop_map(|(instance, sequence, nonce)| Challenge {
            instance,
            sequence,
            nonce,
        });
        prop_oneof![beats().prop_map(Packet::Beat), challenges.prop_map(Packet::Challenge)]
    }

    fn names() -> impl Strategy<Value = String> {
        "[A-Za-z0-9._-]{1,32}"
    }

    fn open(bytes: &[u8], key: &hmac::Key) -> Result<Packet, Flaw> {
        Sealed::read(bytes)?.open(key)
    }

    proptest! {
        #[test]
        fn a_packet_is_read_as_it_was_written(packet in packets(), name in names(), secret: [u8; 16]) {
            let mut bytes = Vec::new();
            packet.seal(&name, &key(&secret), &mut bytes);
            prop_assert!(bytes.len() <= MAX_PACKET);
            let sealed = Sealed::read(&bytes).unwrap();
            prop_assert_eq!(sealed.key_name(), &name);
            prop_assert_eq!(sealed.open(&key(&secret)), Ok(packet));
        }

        #[test]
        fn a_packet_with_any_bit_changed_is_not_taken(packet in packets(), name in names(), bit: prop::sample::Index) {
            let mut bytes = Vec::new();
            packet.seal(&name, &key(b"0123456789abcdef"), &mut bytes);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open(&bytes, &key(b"0123456789abcdef")).is_err());
        }

        #[test]
        fn a_packet_that_is_cut_or_longer_is_not_taken(packet in packets(), cut: prop::sample::Index, more: u8) {
            let key = key(b"0123456789abcdef");
            let mut bytes = Vec::new();
            packet.seal("k", &key, &mut bytes);
            prop_assert!(open(&bytes[..cut.index(bytes.len())], &key).is_err());
            bytes.push(more);
            prop_assert_eq!(open(&bytes, &key), Err(Flaw::Forged));
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            prop_assert!(open(&bytes, &key(b"0123456789abcdef")).is_err());
        }

        // Who has the key may still send nonsense.
        #[test]
        fn any_body_under_a_sound_mac_is_refused_or_stands_for_itself(kind in 0u8..4, body: Vec<u8>) {
            let key = key(b"0123456789abcdef");
            let mut bytes = [&MAGIC[..], &[VERSION, kind, 1, b'k'], &body].concat();
            let mac = hmac::sign(&key, &bytes);
            bytes.extend(mac.as_ref());
            if let Ok(packet) = open(&bytes, &key) {
                let mut again = Vec::new();
                packet.seal("k", &key, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn a_challenge_is_shorter_than_any_beat_under_the_same_key(beat in beats(), name in names(), nonce in nonces()) {
            let (key, mut asked, mut answered) = (key(b"0123456789abcdef"), Vec::new(), Vec::new());
            Packet::Beat(beat).seal(&name, &key, &mut asked);
            let challenge = Challenge { instance: beat.instance, sequence: beat.sequence, nonce };
            Packet::Challenge(challenge).seal(&name, &key, &mut answered);
            prop_assert!(answered.len() < asked.len());
        }
    }

    #[test]
    fn another_key_does_not_open_a_packet() {
        let challenge = Challenge { instance: 1, sequence: 2, nonce: Nonce { issued: 3, tag: [4; 16] } };
        let mut bytes = Vec::new();
        Packet::Challenge(challenge).seal("k", &key(b"0123456789abcdef"), &mut bytes);
        assert_eq!(open(&bytes, &key(b"0123456789abcdeF")), Err(Flaw::Forged));
    }

    #[test]
    fn key_names_are_short_words() {
        assert!(is_key_name(b"edge-1.fra_2026"));
        assert!(is_key_name(&[b'a'; 32]));
        for name in [&b""[..], &[b'a'; 33], b"a b", b"a\n", "ä".as_bytes(), b"a,b", b"#a"] {
            assert!(!is_key_name(name), "{name:?}");
        }
    }
}
