//! Keys of sticky choices: equal on every node and after every restart, so nothing here is seeded.

/// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
pub fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Key of an address block: the bits behind `length` do not count. IPv4 blocks are given left-aligned, and differ from
/// IPv6 blocks of the same bits by `family`.
pub fn block(bits: u128, length: u8, family: u8) -> u64 {
    let kept = if length == 0 { 0 } else { bits >> (128 - u32::from(length)) << (128 - u32::from(length)) };
    mix((kept >> 64) as u64 ^ mix(kept as u64 ^ u64::from(length) << 8 ^ u64::from(family)))
}

/// Spreads what one block asks: by message id and source port.
pub fn spread(block: u64, id: u16, port: u16) -> u64 {
    mix(block ^ (u64::from(id) << 16 | u64::from(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_behind_the_prefix_do_not_count() {
        let address = 0xC633_6401u128 << 96;
        assert_eq!(block(address, 24, 1), block(address | 0xFF << 96, 24, 1));
        assert_ne!(block(address, 24, 1), block(address, 23, 1));
        assert_ne!(block(address, 24, 1), block(address, 24, 2));
        assert_eq!(block(u128::MAX, 0, 2), block(0, 0, 2));
    }
}
