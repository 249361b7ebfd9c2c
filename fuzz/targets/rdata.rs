//! Presentation format of any type: no panic, and what is read can be written in the form of RFC 3597 and read again.
#![no_main]

use hickory_proto::rr::{Name, RecordType};
use libfuzzer_sys::fuzz_target;
use meridian::zone::rdata;

fuzz_target!(|input: (u16, &str)| {
    let (rtype, text) = (RecordType::from(input.0 % 320), input.1);
    let origin = Name::from_ascii("stream.example.").expect("a sound name");
    if let Ok(wire) = rdata::parse(rtype, text, &origin) {
        let digits: String = wire.iter().map(|byte| format!("{byte:02X}")).collect();
        let again = rdata::parse(rtype, &format!("\\# {} {digits}", wire.len()), &origin);
        assert_eq!(again.as_ref(), Ok(&wire));
    }
});
