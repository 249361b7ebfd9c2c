//! The answer, written section by section into a buffer that may be too small.

use super::query::{Edns, HEADER_LEN, Header};

/// The message would be longer than the client takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Clone, Copy, Debug)]
pub enum Section {
    Answer = 0,
    Authority = 1,
    Additional = 2,
}

/// Writes behind a header that is filled in last. Offsets count from the start of the message.
pub struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
    /// Sections end here; what is behind is kept for the OPT record.
    limit: usize,
    question_end: usize,
    counts: [u16; 3],
}

/// RCODE (12 bits, RFC 6891 §6.1.3) and flags of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    pub rcode: u16,
    pub authoritative: bool,
    pub truncated: bool,
}

impl<'a> Writer<'a> {
    /// Begins with the question, which always fits: 12 + 255 + 4 bytes of the 512 that every client takes.
    #[inline]
    pub fn new(out: &'a mut [u8], question: &[u8], limit: usize) -> Writer<'a> {
        let question_end = HEADER_LEN + question.len();
        out[HEADER_LEN..question_end].copy_from_slice(question);
        Writer { out, at: question_end, limit, question_end, counts: [0; 3] }
    }

    /// What is written so far, for names that are pointed to or built upon.
    pub fn written(&self) -> &[u8] {
        &self.out[..self.at]
    }

    /// Appends prepared records and gives the position of the first. Their owners are pointers to the question; where
    /// `owner_at` is another place they are turned there.
    #[inline]
    pub fn records(&mut self, section: Section, wire: &[u8], count: u16, owner_at: usize) -> Result<usize, Full> {
        let start = self.append(section, wire, count)?;
        if owner_at != HEADER_LEN {
            let pointer = (0xC000 | owner_at as u16).to_be_bytes();
            let mut at = start;
            while at < self.at {
                self.out[at..at + 2].copy_from_slice(&pointer);
                at += 12 + usize::from(u16::from_be_bytes([self.out[at + 10], self.out[at + 11]]));
            }
        }
        Ok(start)
    }

    /// Appends records of equal length with their TTL set.
    #[inline]
    pub fn addresses(&mut self, wire: &[u8], record_len: usize, ttl: u32, owner_at: usize) -> Result<(), Full> {
        let count = wire.len() / record_len;
        let start = self.records(Section::Answer, wire, count as u16, owner_at)?;
        for record in self.out[start..self.at].chunks_exact_mut(record_len) {
            record[6..10].copy_from_slice(&ttl.to_be_bytes());
        }
        Ok(())
    }

    /// Appends records whose owners are whole names.
    #[inline]
    pub fn append(&mut self, section: Section, wire: &[u8], count: u16) -> Result<usize, Full> {
        let start = self.at;
        let end = start + wire.len();
        if end > self.limit {
            return Err(Full);
        }
        self.out[start..end].copy_from_slice(wire);
        self.at = end;
        self.counts[section as usize] += count;
        Ok(start)
    }

    /// Takes back all records: an answer that does not fit is given as none, so that no one takes a part for the whole.
    pub fn clear(&mut self) {
        self.at = self.question_end;
        self.counts = [0; 3];
    }

    /// Writes OPT record and header, and gives the length of the message. `edns`: that of the query, and the SCOPE
    /// PREFIX-LENGTH.
    #[inline]
    pub fn finish(mut self, header: Header, flags: Flags, edns: Option<(Edns, u8)>) -> usize {
        if let Some((edns, scope)) = edns {
            self.at += opt::write(&edns, flags.rcode, scope, &mut self.out[self.at..]);
            self.counts[Section::Additional as usize] += 1;
        }
        let questions = u16::from(self.question_end > HEADER_LEN);
        write_header(self.out, header, flags, [questions, self.counts[0], self.counts[1], self.counts[2]]);
        self.at
    }
}

fn write_header(out: &mut [u8], header: Header, flags: Flags, counts: [u16; 4]) {
    let bit = |flag: bool, at: u8| u8::from(flag) << at;
    out[..2].copy_from_slice(&header.id.to_be_bytes());
    out[2] = 0x80
        | header.opcode << 3
        | bit(flags.authoritative, 2)
        | bit(flags.truncated, 1)
        | bit(header.recursion_desired, 0);
    out[3] = bit(header.checking_disabled, 4) | (flags.rcode & 0xF) as u8;
    for (field, count) in out[4..HEADER_LEN].chunks_exact_mut(2).zip(counts) {
        field.copy_from_slice(&count.to_be_bytes());
    }
}

/// The OPT record of an answer (RFC 6891 §6.1.2), last in the message.
pub mod opt {
    use hickory_proto::rr::RecordType;

    use super::super::UDP_PAYLOAD;
    use super::super::query::Edns;

    const FIXED_LEN: usize = 11;

    /// Bytes of the record.
    pub fn length(edns: &Edns) -> usize {
        FIXED_LEN + edns.subnet.map_or(0, |subnet| subnet.length())
    }

    pub(super) fn write(edns: &Edns, rcode: u16, scope: u8, out: &mut [u8]) -> usize {
        let (fixed, options) = out.split_at_mut(FIXED_LEN);
        let length = edns.subnet.map_or(0, |subnet| subnet.write(scope, options));
        // The root as owner.
        fixed[0] = 0;
        fixed[1..3].copy_from_slice(&u16::from(RecordType::OPT).to_be_bytes());
        fixed[3..5].copy_from_slice(&(UDP_PAYLOAD as u16).to_be_bytes());
        // "the DO bit of the query MUST be copied in the response" (RFC 3225 §3).
        fixed[5..9].copy_from_slice(&[(rcode >> 4) as u8, 0, u8::from(edns.dnssec_ok) << 7, 0]);
        fixed[9..11].copy_from_slice(&(length as u16).to_be_bytes());
        FIXED_LEN + length
    }
}
