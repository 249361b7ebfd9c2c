//! The addresses of a region in wire form, and the window of them that one answer holds.

use std::net::IpAddr;

use crate::config::settings::Family;

use super::fleet::Member;

/// The record types of steered addresses, as on the wire.
const TYPE: [u16; 2] = [1, 28];

/// The servers of a region that may be given, in a fixed order; an answer is a window of neighbours.
#[derive(Default)]
pub struct Ring {
    /// Records with the owner pointing at the question and TTL 0; the first ones stand again behind the last, so that
    /// every window is one slice.
    records: Box<[u8]>,
    record_len: usize,
    servers: usize,
    window: usize,
    /// Sums of the weights up to each server; empty where all weigh the same.
    sums: Box<[u32]>,
}

impl Ring {
    pub(super) fn new(family: Family, given: &[&Member], answers: u8) -> Ring {
        let window = usize::from(answers).min(given.len());
        let record_len = if family == Family::V4 { 16 } else { 28 };
        let count = (given.len() + window).saturating_sub(1);
        let mut records = Vec::with_capacity(count * record_len);
        for member in given.iter().cycle().take(count) {
            records.extend_from_slice(&[0xC0, 0x0C]);
            records.extend_from_slice(&TYPE[family as usize].to_be_bytes());
            records.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
            match member.address {
                IpAddr::V4(address) => {
                    records.extend_from_slice(&[0, 4]);
                    records.extend_from_slice(&address.octets());
                }
                IpAddr::V6(address) => {
                    records.extend_from_slice(&[0, 16]);
                    records.extend_from_slice(&address.octets());
                }
            }
        }
        let uneven = given.iter().any(|member| member.weight != given[0].weight);
        let mut sum = 0;
        let sums = given.iter().filter(|_| uneven).map(|member| {
            sum += u32::from(member.weight);
            sum
        });
        let sums = sums.collect();
        Ring { records: records.into(), record_len, servers: given.len(), window, sums }
    }

    /// Position of the first server of the window for `key`: in proportion to the weights.
    #[inline]
    pub fn position(&self, key: u64) -> usize {
        // The upper half times the range, shifted back: a fair share without a division.
        let scaled = |range: u32| (((key >> 32) * u64::from(range)) >> 32) as u32;
        match self.sums.last() {
            None => scaled(self.servers as u32) as usize,
            Some(&total) => {
                let point = scaled(total);
                self.sums.partition_point(|&sum| sum <= point)
            }
        }
    }

    /// The records of the window that begins at a position.
    #[inline]
    pub fn window(&self, position: usize) -> &[u8] {
        &self.records[position * self.record_len..(position + self.window) * self.record_len]
    }

    /// Records in a window.
    pub fn answers(&self) -> usize {
        self.window
    }

    /// Bytes of one record.
    pub fn record_len(&self) -> usize {
        self.record_len
    }

    /// Whether clients of one region get different addresses.
    pub fn is_spread(&self) -> bool {
        self.servers > self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(weights: &[u16]) -> Vec<Member> {
        let member = |(n, &weight): (usize, &u16)| Member {
            address: IpAddr::from([192, 0, 2, n as u8]),
            weight,
            target: None,
            server: n,
        };
        weights.iter().enumerate().map(member).collect()
    }

    fn last_octets(window: &[u8]) -> Vec<u8> {
        window.chunks(16).map(|record| record[15]).collect()
    }

    #[test]
    fn windows_wrap_around_the_ring() {
        let members = members(&[1, 1, 1]);
        let ring = Ring::new(Family::V4, &members.iter().collect::<Vec<_>>(), 2);
        let windows: Vec<_> = (0..3).map(|position| last_octets(ring.window(position))).collect();
        assert_eq!(windows, [[0, 1], [1, 2], [2, 0]]);
        assert!(ring.is_spread());
    }

    #[test]
    fn fewer_servers_than_answers_give_them_all() {
        let members = members(&[1]);
        let ring = Ring::new(Family::V4, &members.iter().collect::<Vec<_>>(), 4);
        assert_eq!((ring.answers(), ring.is_spread()), (1, false));
        assert_eq!(ring.position(u64::MAX), 0);
    }

    #[test]
    fn the_first_address_follows_the_weights() {
        let members = members(&[1, 2, 5]);
        let ring = Ring::new(Family::V4, &members.iter().collect::<Vec<_>>(), 1);
        let mut count = [0; 3];
        for key in 0..80_000 {
            count[ring.position(crate::steering::key::mix(key))] += 1;
        }
        for (server, expected) in [10_000i32, 20_000, 50_000].into_iter().enumerate() {
            assert!((count[server] - expected).abs() < 600, "{count:?}");
        }
    }
}
