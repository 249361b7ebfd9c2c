//! A query as it stands in the packet, read in place.

use super::ecs::ClientSubnet;

/// Bytes of a message header (RFC 1035 §4.1.1).
pub const HEADER_LEN: usize = 12;
/// Longest name on the wire (RFC 1035 §3.1).
pub const MAX_NAME_LEN: usize = 255;
/// A name of 255 bytes has at most 127 labels.
const MAX_LABELS: usize = 127;

const TYPE_OPT: u16 = 41;
const OPTION_ECS: u16 = 8;

/// The fixed part of a query that can be answered at all.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub id: u16,
    pub opcode: u8,
    pub recursion_desired: bool,
    pub checking_disabled: bool,
    counts: [u16; 4],
}

impl Header {
    /// `None` for what must not be answered: too short to hold an id, or itself a response, which answered could make
    /// two servers talk to each other for ever.
    #[inline]
    pub fn read(message: &[u8]) -> Option<Header> {
        let header: &[u8; HEADER_LEN] = message.first_chunk()?;
        if header[2] & 0x80 != 0 {
            return None;
        }
        Some(Header {
            id: u16::from_be_bytes([header[0], header[1]]),
            opcode: header[2] >> 3 & 0xF,
            recursion_desired: header[2] & 1 != 0,
            checking_disabled: header[3] & 0x10 != 0,
            counts: [4, 6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]])),
        })
    }
}

/// A well-formed message with one question.
pub struct Query<'a> {
    /// The question as received, case and all: name, type, class.
    pub question: &'a [u8],
    pub qtype: u16,
    pub qclass: u16,
    pub edns: Option<Edns>,
}

/// What the OPT record asks for (RFC 6891 §6.1).
#[derive(Clone, Copy, Debug)]
pub struct Edns {
    pub payload: u16,
    pub version: u8,
    pub dnssec_ok: bool,
    pub subnet: Option<ClientSubnet>,
    /// An option that breaks its own rules: FORMERR, but the OPT record itself was understood.
    pub malformed: bool,
}

/// The message cannot be read; `question` is the part of it that could.
#[derive(Debug)]
pub struct Malformed<'a> {
    pub question: Option<&'a [u8]>,
}

impl<'a> Query<'a> {
    /// Gives the name apart, in `name`: it is large, and needed only to look it up.
    #[inline]
    pub fn read(message: &'a [u8], header: Header, name: &mut Folded) -> Result<Query<'a>, Malformed<'a>> {
        let [questions, answers, authorities, additionals] = header.counts;
        // "a DNS message with OPCODE = 0 MUST NOT include a QDCOUNT parameter whose value is greater than 1" (RFC 9619
        // §4); without a question there is nothing to answer.
        if questions != 1 {
            return Err(Malformed { question: None });
        }
        let mut at = name.fill(message, HEADER_LEN).ok_or(Malformed { question: None })?;
        let fixed: &[u8; 4] = message[at..].first_chunk().ok_or(Malformed { question: None })?;
        let [qtype, qclass] = [[fixed[0], fixed[1]], [fixed[2], fixed[3]]].map(u16::from_be_bytes);
        at += 4;
        let question = &message[HEADER_LEN..at];
        let malformed = || Malformed { question: Some(question) };
        for _ in 0..u32::from(answers) + u32::from(authorities) {
            let record = Record::read(message, at).ok_or_else(malformed)?;
            if record.rtype == TYPE_OPT {
                return Err(malformed());
            }
            at = record.end;
        }
        let mut edns = None;
        for _ in 0..additionals {
            let record = Record::read(message, at).ok_or_else(malformed)?;
            if record.rtype == TYPE_OPT {
                // "If a query message with more than one OPT RR is received, a FORMERR MUST be returned"; "The OPT RR
                // MAY be placed anywhere within the additional data section", with root as its name (RFC 6891 §6.1.1,
                // §6.1.2).
                if edns.is_some() || message[at] != 0 {
                    return Err(malformed());
                }
                edns = Some(Edns::read(&record));
            }
            at = record.end;
        }
        if at != message.len() {
            return Err(malformed());
        }
        Ok(Query { question, qtype, qclass, edns })
    }
}

/// A record of a query, as far as anyone here cares.
struct Record<'a> {
    rtype: u16,
    class: u16,
    ttl: [u8; 4],
    rdata: &'a [u8],
    end: usize,
}

impl<'a> Record<'a> {
    #[inline]
    fn read(message: &'a [u8], at: usize) -> Option<Record<'a>> {
        let fixed_at = skip_name(message, at)?;
        let fixed: &[u8; 10] = message.get(fixed_at..)?.first_chunk()?;
        let start = fixed_at + 10;
        let end = start + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        Some(Record {
            rtype: u16::from_be_bytes([fixed[0], fixed[1]]),
            class: u16::from_be_bytes([fixed[2], fixed[3]]),
            ttl: [fixed[4], fixed[5], fixed[6], fixed[7]],
            rdata: message.get(start..end)?,
            end,
        })
    }
}

impl Edns {
    #[inline]
    fn read(opt: &Record<'_>) -> Edns {
        let [_, version, flags, _] = opt.ttl;
        let mut edns =
            Edns { payload: opt.class, version, dnssec_ok: flags & 0x80 != 0, subnet: None, malformed: false };
        // The options of versions to come need not look like ours.
        if version == 0 && edns.read_options(opt.rdata).is_none() {
            edns.malformed = true;
            edns.subnet = None;
        }
        edns
    }

    fn read_options(&mut self, mut options: &[u8]) -> Option<()> {
        while !options.is_empty() {
            let (fixed, rest) = options.split_first_chunk::<4>()?;
            let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
            let value = rest.get(..length)?;
            if u16::from_be_bytes([fixed[0], fixed[1]]) == OPTION_ECS {
                if self.subnet.is_some() {
                    return None;
                }
                self.subnet = Some(ClientSubnet::read(value)?);
            }
            options = &rest[length..];
        }
        Some(())
    }
}

/// The position behind a name that may end in a compression pointer. The pointer is not followed.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(length),
            0xC0.. => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
        if at - start >= MAX_NAME_LEN {
            return None;
        }
    }
}

/// A name in wire form and lower case, with the starts of its labels.
pub struct Folded {
    wire: [u8; MAX_NAME_LEN],
    len: u8,
    starts: [u8; MAX_LABELS],
    labels: u8,
}

impl Folded {
    pub fn root() -> Folded {
        Folded { wire: [0; MAX_NAME_LEN], len: 1, starts: [0; MAX_LABELS], labels: 0 }
    }

    /// Reads an uncompressed name and gives the position behind it. A question has nothing before it that a pointer
    /// could point to. When it gives none, what it holds is no name.
    #[inline]
    pub fn fill(&mut self, message: &[u8], start: usize) -> Option<usize> {
        self.labels = 0;
        let mut at = start;
        loop {
            let length = *message.get(at)?;
            if length == 0 {
                break;
            }
            // The root label needs a byte behind.
            if length > 63 || at - start + 1 + usize::from(length) >= MAX_NAME_LEN {
                return None;
            }
            self.starts[usize::from(self.labels)] = (at - start) as u8;
            self.labels += 1;
            at += 1 + usize::from(length);
        }
        let wire = &message[start..=at];
        self.len = wire.len() as u8;
        // Lengths are below 64 and so below 'A': folding them too changes nothing.
        for (to, from) in self.wire.iter_mut().zip(wire) {
            *to = from.to_ascii_lowercase();
        }
        Some(at + 1)
    }

    pub fn wire(&self) -> &[u8] {
        &self.wire[..usize::from(self.len)]
    }

    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// A name is never empty: the root is one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Labels, the root not counted.
    pub fn labels(&self) -> usize {
        usize::from(self.labels)
    }

    /// The name without its first `labels` labels.
    pub fn without(&self, labels: usize) -> &[u8] {
        match self.starts[..self.labels()].get(labels) {
            Some(&start) => &self.wire()[usize::from(start)..],
            None => &self.wire()[self.len() - 1..],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_and_cut_by_label() {
        let mut name = Folded::root();
        let end = name.fill(b"\x03WwW\x07eXample\x00rest", 0).unwrap();
        assert_eq!(name.wire(), b"\x03www\x07example\x00");
        assert_eq!((name.labels(), end), (2, 13));
        assert_eq!(name.without(1), b"\x07example\x00");
        assert_eq!(name.without(2), b"\x00");
    }

    #[test]
    fn a_name_of_255_bytes_is_the_longest() {
        let mut wire: Vec<u8> = std::iter::repeat_n(b"\x01a", 127).flatten().copied().collect();
        wire.push(0);
        assert_eq!(wire.len(), 255);
        let mut name = Folded::root();
        assert_eq!(name.fill(&wire, 0), Some(255));
        assert_eq!(name.labels(), 127);
        wire.splice(0..2, *b"\x02aa");
        assert!(name.fill(&wire, 0).is_none());
    }

    #[test]
    fn pointers_and_reserved_labels_are_no_question_names() {
        for start in [0xC0, 0x40, 0x80] {
            assert!(Folded::root().fill(&[start, 12, 0], 0).is_none());
        }
    }
}
