//! Numbers and client subnets that look random and are the same in every run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// SplitMix64.
pub struct Random(u64);

/// First 16 bits of what is given to the registries of the continents, as in `benches/peers/run`.
const HIGH6: [u16; 6] = [0x2001, 0x2400, 0x2600, 0x2800, 0x2A00, 0x2C00];

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// A public IPv4 address.
    pub fn address4(&mut self) -> Ipv4Addr {
        loop {
            let address = Ipv4Addr::from_bits(self.next() as u32);
            if is_public(address) {
                return address;
            }
        }
    }

    /// The first address of a public /24.
    pub fn subnet4(&mut self) -> IpAddr {
        Ipv4Addr::from_bits(self.address4().to_bits() & !0xFF).into()
    }

    /// The first address of a /48 of what is given to registries.
    pub fn subnet6(&mut self) -> IpAddr {
        let high = u64::from(HIGH6[self.below(HIGH6.len())]) << 48;
        // Only the first 20 bits behind vary freely, and the next 12: as in `benches/peers/run`.
        let rest = self.next() >> 32 << 16;
        Ipv6Addr::from_bits(u128::from(high | rest) << 64).into()
    }
}

/// No client on the Internet has another address (IANA's registry of special-purpose addresses).
fn is_public(address: Ipv4Addr) -> bool {
    const SPECIAL: [([u8; 4], u32); 13] = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 0, 2, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([198, 51, 100, 0], 24),
        ([203, 0, 113, 0], 24),
        ([224, 0, 0, 0], 3),
    ];
    SPECIAL.iter().all(|&(first, length)| (address.to_bits() ^ u32::from_be_bytes(first)) >> (32 - length) != 0)
}
