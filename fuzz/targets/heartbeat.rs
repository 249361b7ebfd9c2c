//! Packets of heartbeats: no panic, and what is taken is written again as the same bytes.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use meridian::health::beats::keys::Keys;
use meridian::health::beats::packet::Sealed;
use ring::hmac;

static KEY: LazyLock<hmac::Key> = LazyLock::new(|| hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef"));

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = Keys::parse(text);
    }
    let _ = Sealed::read(input).and_then(|sealed| sealed.open(&KEY));
    // Who has the key can send anything.
    let mut signed = input.to_vec();
    signed.extend(hmac::sign(&KEY, input).as_ref());
    if let Ok(sealed) = Sealed::read(&signed)
        && let Ok(packet) = sealed.open(&KEY)
    {
        let mut again = Vec::new();
        packet.seal(sealed.key_name(), &KEY, &mut again);
        assert_eq!(again, signed);
    }
});
