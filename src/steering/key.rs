//! Keys of sticky choices: equal on every node and after every restart, so nothing here is seeded.

/// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
#[inline]
pub fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Key of an IPv4 block: the bits behind `length` do not count.
pub fn block4(bits: u32, length: u8) -> u64 {
    let kept = bits & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    mix(u64::from(kept) << 32 ^ mix(u64::from(length) << 8 ^ 1))
}

/// Key of an IPv6 block: the bits behind `length` do not count.
pub fn block6(bits: u128, length: u8) -> u64 {
    let kept = bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    mix((kept >> 64) as u64 ^ mix(kept as u64 ^ u64::from(length) << 8 ^ 2))
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
        let address = 0xC633_6401;
        assert_eq!(block4(address, 24), block4(address | 0xFF, 24));
        assert_ne!(block4(address, 24), block4(address, 23));
        assert_eq!(block4(u32::MAX, 0), block4(0, 0));
        let wide = u128::from(address) << 96;
        assert_eq!(block6(wide, 24), block6(wide | 0xFF << 96, 24));
        assert_ne!(block6(wide, 24), block4(address, 24), "families differ");
        assert_eq!(block6(u128::MAX, 0), block6(0, 0));
    }
}
