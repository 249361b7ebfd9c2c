//! IPv4 addresses inside IPv6 ones, and the scopes of blocks around an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv6 prefixes whose addresses are found by the IPv4 address they hold. All are blocks of their own: no IPv6 block
/// that reaches over the border of one is ever given as one.
const PREFIXES: [Ipv4Inside; 3] = [
    // IPv4-mapped (RFC 4291 §2.5.5.2).
    Ipv4Inside { prefix: 0xffff << 32, bits: 96 },
    // The well-known prefix of IPv4/IPv6 translation (RFC 6052 §2.1).
    Ipv4Inside { prefix: 0x64_ff9b << 96, bits: 96 },
    // 6to4 (RFC 3056 §2).
    Ipv4Inside { prefix: 0x2002 << 112, bits: 16 },
];

#[derive(Clone, Copy)]
struct Ipv4Inside {
    prefix: u128,
    /// Length of the prefix; the IPv4 address stands right behind it.
    bits: u8,
}

/// An address by the family of the table that knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Located {
    /// The IPv4 address, and how many bits of the whole address stand before it: 0, 96 or 16.
    V4(u32, u8),
    V6(u128),
}

/// Which table to ask for `address`, and with what.
#[inline]
pub fn family_of(address: IpAddr) -> Located {
    match address {
        IpAddr::V4(v4) => Located::V4(v4.to_bits(), 0),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            for inside in PREFIXES {
                if lcp128(bits, inside.prefix) >= inside.bits {
                    return Located::V4((bits >> (96 - inside.bits)) as u32, inside.bits);
                }
            }
            Located::V6(bits)
        }
    }
}

/// The first `length` bits of `address`, zeros behind them.
#[inline]
pub fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & keep).into()
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & keep).into()
        }
    }
}

/// Length of the coarsest IPv4 block around `address` that lies within `first..=last`; at least 1.
pub fn block4(address: u32, first: u32, last: u32) -> u8 {
    let below = first.checked_sub(1).map_or(0, |outside| lcp32(address, outside) + 1);
    let above = last.checked_add(1).map_or(0, |outside| lcp32(address, outside) + 1);
    below.max(above).max(1)
}

/// Length of the coarsest IPv6 block around `address` that lies within `first..=last` and holds no address that is found
/// as IPv4; at least 1. `address` itself is not found as IPv4.
#[inline]
pub fn block6(address: u128, first: u128, last: u128) -> u8 {
    let below = first.checked_sub(1).map_or(0, |outside| lcp128(address, outside) + 1);
    let above = last.checked_add(1).map_or(0, |outside| lcp128(address, outside) + 1);
    // A block holds the prefix when it is no longer than what it shares with it.
    let apart = PREFIXES.map(|inside| lcp128(address, inside.prefix) + 1);
    apart.into_iter().fold(below.max(above).max(1), u8::max)
}

/// Length of the common prefix.
fn lcp32(a: u32, b: u32) -> u8 {
    (a ^ b).leading_zeros() as u8
}

fn lcp128(a: u128, b: u128) -> u8 {
    (a ^ b).leading_zeros() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(address: &str) -> Located {
        family_of(address.parse().unwrap())
    }

    #[test]
    fn ipv4_is_found_inside_mapped_translated_and_6to4_addresses() {
        let v4 = u32::from_be_bytes([192, 0, 2, 33]);
        assert_eq!(family("192.0.2.33"), Located::V4(v4, 0));
        assert_eq!(family("::ffff:192.0.2.33"), Located::V4(v4, 96));
        assert_eq!(family("64:ff9b::192.0.2.33"), Located::V4(v4, 96));
        assert_eq!(family("2002:c000:221::1"), Located::V4(v4, 16));
        for native in ["::192.0.2.33", "64:ff9b:1::192.0.2.33", "2001:db8::1", "2003::", "::fffe:192.0.2.33"] {
            assert!(matches!(family(native), Located::V6(_)), "{native}");
        }
    }

    #[test]
    fn a_block_is_the_coarsest_inside_its_run() {
        let run = |address: [u8; 4], first: [u8; 4], last: [u8; 4]| {
            block4(u32::from_be_bytes(address), u32::from_be_bytes(first), u32::from_be_bytes(last))
        };
        assert_eq!(run([10, 1, 2, 3], [10, 0, 0, 0], [10, 255, 255, 255]), 8);
        assert_eq!(run([10, 1, 2, 3], [10, 1, 0, 0], [10, 255, 255, 255]), 16);
        assert_eq!(run([10, 1, 2, 3], [0, 0, 0, 0], [255, 255, 255, 255]), 1);
        assert_eq!(run([10, 1, 2, 3], [10, 1, 2, 0], [10, 1, 2, 255]), 24);
    }

    #[test]
    fn no_native_block_reaches_over_an_embedding_prefix() {
        let all = |address: &str| block6(address.parse::<Ipv6Addr>().unwrap().to_bits(), 0, u128::MAX);
        assert_eq!(all("2003::"), 16);
        assert_eq!(all("2000::"), 15);
        assert_eq!(all("::1"), 81);
        assert_eq!(all("::fffe:0:0"), 96);
        assert_eq!(all("64:ff9b::1:0:0"), 96);
        assert_eq!(all("8000::"), 1);
    }

    #[test]
    fn masking_keeps_the_first_bits() {
        assert_eq!(masked("192.0.2.33".parse().unwrap(), 24), "192.0.2.0".parse::<IpAddr>().unwrap());
        assert_eq!(masked("192.0.2.33".parse().unwrap(), 0), "0.0.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(masked("2001:db8::1".parse().unwrap(), 128), "2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!(masked("2001:db8::1".parse().unwrap(), 16), "2001::".parse::<IpAddr>().unwrap());
    }
}
