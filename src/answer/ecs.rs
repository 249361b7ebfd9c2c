//! The EDNS Client Subnet option (RFC 7871).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of option code, length, family and prefix lengths.
const FIXED_LEN: usize = 8;
/// Longest option that we write.
pub const MAX_LEN: usize = FIXED_LEN + 16;

/// The prefix of the client on whose behalf a query is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSubnet {
    /// As sent: 1, 2, or 0 where the prefix length is 0 and `dig +subnet=0` names no family.
    family: u16,
    /// SOURCE PREFIX-LENGTH.
    pub source: u8,
    /// Zero behind the prefix.
    pub address: IpAddr,
}

impl ClientSubnet {
    /// Reads the option's data. `None`: malformed, to be answered by FORMERR.
    ///
    /// RFC 7871 §7.1.2 wants in a query a SCOPE PREFIX-LENGTH of 0, and §6 exactly the address octets that cover the
    /// source prefix, zero behind it.
    #[inline]
    pub fn read(data: &[u8]) -> Option<ClientSubnet> {
        let (&[family_hi, family_lo, source, scope], octets) = data.split_first_chunk::<4>()?;
        let family = u16::from_be_bytes([family_hi, family_lo]);
        let bits = match family {
            1 => 32,
            2 => 128,
            0 => 0,
            _ => return None,
        };
        if scope != 0 || source > bits || octets.len() != usize::from(source).div_ceil(8) {
            return None;
        }
        if source % 8 != 0 && octets.last()? & (0xFF >> (source % 8)) != 0 {
            return None;
        }
        let mut whole = [0; 16];
        whole[..octets.len()].copy_from_slice(octets);
        let address = if family == 2 {
            Ipv6Addr::from(whole).into()
        } else {
            Ipv4Addr::new(whole[0], whole[1], whole[2], whole[3]).into()
        };
        Some(ClientSubnet { family, source, address })
    }

    /// Bytes of the option as [`ClientSubnet::write`] writes it.
    pub fn length(&self) -> usize {
        FIXED_LEN + usize::from(self.source).div_ceil(8)
    }

    /// Writes the option with a scope and gives its length. "FAMILY, SOURCE PREFIX-LENGTH, and ADDRESS in the response
    /// MUST match those in the query" (RFC 7871 §7.2.1).
    #[inline]
    pub fn write(&self, scope: u8, out: &mut [u8]) -> usize {
        let octets = usize::from(self.source).div_ceil(8);
        out[..2].copy_from_slice(&8u16.to_be_bytes());
        out[2..4].copy_from_slice(&(4 + octets as u16).to_be_bytes());
        out[4..6].copy_from_slice(&self.family.to_be_bytes());
        (out[6], out[7]) = (self.source, scope);
        let mut whole = [0; 16];
        match self.address {
            IpAddr::V4(address) => whole[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => whole = address.octets(),
        }
        // Where there is room a fixed number of bytes, which costs less than a call; those behind are not sent.
        match out[FIXED_LEN..].first_chunk_mut() {
            Some(room) => *room = whole,
            None => out[FIXED_LEN..FIXED_LEN + octets].copy_from_slice(&whole[..octets]),
        }
        FIXED_LEN + octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_reads_and_is_echoed_with_its_scope() {
        let subnet = ClientSubnet::read(&[0, 1, 23, 0, 203, 0, 112]).unwrap();
        assert_eq!((subnet.address, subnet.source), ("203.0.112.0".parse().unwrap(), 23));
        let mut out = [0; MAX_LEN];
        let length = subnet.write(20, &mut out);
        assert_eq!(out[..length], [0, 8, 0, 7, 0, 1, 23, 20, 203, 0, 112]);
    }

    #[test]
    fn malformed_options_are_refused() {
        for (data, why) in [
            (&[0, 1, 24][..], "cut short"),
            (&[0, 3, 8, 0, 1], "unknown family"),
            (&[0, 1, 33, 0, 1, 2, 3, 4, 0], "IPv4 prefix longer than 32"),
            (&[0, 1, 24, 0, 203, 0], "too few octets"),
            (&[0, 1, 24, 0, 203, 0, 113, 0], "too many octets"),
            (&[0, 1, 23, 0, 203, 0, 113], "bits behind the prefix"),
            (&[0, 1, 24, 1, 203, 0, 113], "a scope in a query"),
            (&[0, 0, 8, 0, 1], "an address without family"),
        ] {
            assert_eq!(ClientSubnet::read(data), None, "{why}");
        }
    }

    #[test]
    fn a_zero_prefix_is_well_formed_in_every_family() {
        for family in 0..=2 {
            assert_eq!(ClientSubnet::read(&[0, family, 0, 0]).map(|subnet| subnet.source), Some(0));
        }
    }
}
