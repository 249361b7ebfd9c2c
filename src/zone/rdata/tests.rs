//! Records as an operator writes them, and the bytes or the fault that follow.

use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecoder, BinEncodable, BinEncoder, NameEncoding, Restrict};
use proptest::prelude::*;

use super::types::{FORMS, form_of};
use super::*;

fn origin() -> Name {
    Name::from_ascii("example.com.").unwrap()
}

/// `MX 10 mail`: type, blank, data.
fn read(line: &str) -> Result<Box<[u8]>, Fault> {
    let (rtype, text) = line.split_once(' ').unwrap_or((line, ""));
    parse(record_type(rtype).unwrap_or_else(|| panic!("{rtype} is a type")), text, &origin())
}

fn decoded(rtype: RecordType, wire: &[u8]) -> RData {
    RData::read(&mut BinDecoder::new(wire), rtype, Restrict::new(wire.len() as u16)).unwrap()
}

fn generic(wire: &[u8]) -> String {
    wire.iter().fold(format!(r"\# {} ", wire.len()), |text, byte| text + &format!("{byte:02X}"))
}

/// Bytes of a wire form written as text: hexadecimal digits, blanks as one likes, and 'text' in single quotes.
fn bytes(notation: &str) -> Vec<u8> {
    notation
        .split('\'')
        .enumerate()
        .flat_map(|(part, text)| match part % 2 {
            1 => text.as_bytes().to_vec(),
            _ => {
                let digits: Vec<char> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
                digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect()
            }
        })
        .collect()
}

#[test]
fn records_become_the_bytes_of_their_rfc() {
    const EXAMPLE_COM: &str = "07'example' 03'com' 00";
    for (line, wire) in [
        ("A 192.0.2.1", "c0000201"),
        ("A   192.0.2.1\t", "c0000201"),
        ("AAAA 2001:db8::1", "20010db8 00000000 00000000 00000001"),
        ("AAAA ::ffff:192.0.2.1", "00000000 00000000 0000ffff c0000201"),
        ("NS ns1", "03'ns1' ORIGIN"),
        ("CNAME @", "ORIGIN"),
        ("DNAME other.", "05'other' 00"),
        ("PTR Host.Example.NET.", "04'Host' 07'Example' 03'NET' 00"),
        ("MX 10 mail", "000a 04'mail' ORIGIN"),
        ("MX 0 .", "0000 00"),
        ("SRV 0 5 443 live", "0000 0005 01bb 04'live' ORIGIN"),
        (r#"CAA 0 issue "ca.example; policy=ev""#, "00 05'issue' 'ca.example; policy=ev'"),
        ("CAA 128 issue ca.example", "80 05'issue' 'ca.example'"),
        (r#"CAA 0 issue ";""#, "00 05'issue' ';'"),
        (r#"CAA 0 issue """#, "00 05'issue'"),
        (r#"NAPTR 100 10 "u" "E2U+sip" "!^.*$!sip:a@b.c!" ."#, "0064 000a 01'u' 07'E2U+sip' 10'!^.*$!sip:a@b.c!' 00"),
        (r#"NAPTR 1 1 s x "" r"#, "0001 0001 01's' 01'x' 00 01'r' ORIGIN"),
        ("TLSA 3 0 0 abCD ef", "03 00 00 abcdef"),
        ("SMIMEA 3 0 0 ABCDEF", "03 00 00 abcdef"),
        ("SSHFP 4 1 123456789abcdef67890123456789abcdef67890", "04 01 123456789abcdef67890123456789abcdef67890"),
        (
            "DS 60485 5 1 2BB183AF5F22588179A53B0A 98631FAD1A292118", // RFC 4034 §5.4
            "ec45 05 01 2bb183af5f22588179a53b0a98631fad1a292118",
        ),
        (r#"HINFO "Big VM" Linux"#, "06'Big VM' 05'Linux'"),
        ("RP admin .", "05'admin' ORIGIN 00"),
        ("LOC 42 21 54 N 71 06 18 W -24m 30m", "00331613 89172dd0 70be15f0 00988d20"),
        (r#"URI 10 1 "ftp://a.example/b;c""#, "000a 0001 'ftp://a.example/b;c'"),
        ("CERT 1 0 13 AQID BA==", "0001 0000 0d 01020304"),
        ("OPENPGPKEY AQIDBAU=", "0102030405"),
        ("HTTPS 1 .", "0001 00"),
        ("HTTPS 0 live", "0000 04'live' ORIGIN"),
        (
            r#"SVCB 1 svc port=8443 alpn="h2,h3" mandatory=port,alpn"#,
            "0001 03'svc' ORIGIN 0000 0004 0001 0003 0001 0006 02'h2' 02'h3' 0003 0002 20fb",
        ),
        ("HTTPS 1 . ipv4hint=192.0.2.1,192.0.2.2 key667=hello", "0001 00 0004 0008 c0000201c0000202 029b 0005 'hello'"),
        // TXT without a quote is one text, as it stands.
        ("TXT v=DMARC1; p=none", "10 'v=DMARC1; p=none'"),
        (r"TXT a\b  (c) ", "09 'a\\b  (c) '"),
        ("TXT", "00"),
        ("TXT é", "02 c3a9"),
        // With a quote it is presentation format.
        (r#"TXT "a b" c "d""#, "03'a b' 01'c' 01'd'"),
        (r#"TXT "\"q\" \\ \128;""#, "08 '\"q\" \\ ' 80 ';'"),
        (r#"TXT """#, "00"),
        // RFC 3597, for types with and without a notation of their own.
        (r"TYPE65280 \# 4 0A000001", "0a000001"),
        (r"TYPE65280 \# 0", ""),
        (r"A \# 4 C0 00 02 01", "c0000201"),
        (r"TXT \# 3 02 6869", "02'hi'"),
        (r"TYPE1 192.0.2.1", "c0000201"),
        (r"MX \# 5 000a 01 78 00", "000a 01'x' 00"),
    ] {
        let wire = wire.replace("ORIGIN", EXAMPLE_COM);
        match read(line) {
            Ok(read) => assert_eq!(*read, *bytes(&wire), "{line}"),
            Err(fault) => panic!("{line}: {fault}"),
        }
    }
}

#[test]
fn faults_tell_what_is_wrong_and_where() {
    for (line, what, offset) in [
        ("A", "an empty value", Some(0)),
        ("A 192.0.2", "`192.0.2` for the address of A", Some(0)),
        ("A 192.0.2.1 192.0.2.2", "`192.0.2.2` is left over", Some(10)),
        ("A 192.0.2.1/24", "for the address", Some(0)),
        ("A 192.0.2.01", "for the address", Some(0)),
        ("AAAA 192.0.2.1", "for the address of AAAA", Some(0)),
        ("AAAA 2001:db8::1%eth0", "for the address", Some(0)),
        ("NS 192.0.2.1", "an address where a name belongs", Some(0)),
        ("CNAME a..b", "empty label", Some(0)),
        ("MX mail", "`mail` for the preference of MX", Some(0)),
        ("MX 10", "MX ends before its exchange", Some(2)),
        ("MX 65536 mail", "`65536` for the preference", Some(0)),
        ("MX +1 mail", "`+1` for the preference", Some(0)),
        (r#"MX "1" mail"#, "for the preference", Some(1)),
        ("MX 10 mail ; backup", "a `;` outside quotes", Some(8)),
        ("MX 10 mail\n20 mail2", "a newline", Some(7)),
        ("MX (10 mail)", "a `(` outside quotes", Some(0)),
        ("SRV 0 5 live", "`live` for the port", Some(4)),
        ("CAA 256 issue x", "for the flags", Some(0)),
        ("CAA 0 is-sue x", "`is-sue` for the tag", Some(2)),
        ("CAA 0 issue ca.example; x", "a `;` outside quotes", Some(18)),
        (r#"NAPTR 1 1 "$" "" "" ."#, "malformed NAPTR", None),
        ("TLSA 3 1 1 abcd", "a digest of 2 bytes", None),
        ("TLSA 3 0 0 xyz", "not hexadecimal", Some(6)),
        ("TLSA 3 0 0 abc", "half a byte", Some(8)),
        ("SSHFP 4 2 abcd", "a digest of 2 bytes", None),
        ("DS 60485 13 2 00", "a digest of 1 bytes", None),
        ("DS 60485 ECDSAP256SHA256 2 00", "for the algorithm", Some(6)),
        ("DS 60485 13 2", "DS ends before its digest", Some(10)),
        ("LOC 91 N 0 E 0m", "`91` in the latitude", Some(0)),
        (r#"URI 1 1 """#, "for the target", Some(5)),
        ("OPENPGPKEY AQIDBAU", "malformed Base64", Some(0)),
        ("OPENPGPKEY AQID!AU=", "malformed Base64", Some(4)),
        ("OPENPGPKEY AR==", "malformed Base64", Some(0)),
        ("CERT 1 0 13 =", "malformed Base64", Some(7)),
        ("HTTPS 1 . alpn=h2 alpn=h3", "twice", Some(12)),
        ("HTTPS 1 . no-default-alpn", "do not fit together", None),
        ("HTTPS 1 . mandatory=port", "do not fit together", None),
        ("HTTPS 1 . port=70000", "the parameter `port=70000`", Some(4)),
        ("HTTPS 1 . colour=red", "the parameter `colour=red`", Some(4)),
        (r#"TXT "a"#, "without its closing quote", Some(0)),
        (r#"TXT "a" b; c"#, "a `;` outside quotes", Some(5)),
        (r#"TXT "\256""#, "malformed escape", Some(1)),
        (r"A \# 3 C00002", "malformed address", None),
        (r"A \# 5 C000020101", "1 too many", None),
        (r"A \# 4 C00002", "a length of 4 before 3 bytes", Some(3)),
        (r"A \#", "without a length", Some(2)),
        (r"A \# x 00", "`x` for a length", Some(3)),
        (r"MX \# 4 000AC000", "malformed exchange", None),
        (r"TXT \# 0", "malformed txt-data", None),
        (r"CAA \# 4 00012D00", "malformed tag", None),
        ("TYPE65280 10.0.0.1", "not written as bytes", Some(0)),
    ] {
        let fault = read(line).expect_err(line);
        assert!(fault.what.contains(what), "{line}: {fault}");
        assert_eq!(fault.offset, offset, "{line}: {fault}");
        assert!(fault.rule.is_some() || fault.help.is_some(), "{line}: {fault}");
    }
    let long = format!(r#"TXT "{}""#, "x".repeat(256));
    assert!(read(&long).unwrap_err().what.contains("a string of 256 bytes"));
}

#[test]
fn types_that_are_made_and_not_written_are_refused_with_the_mend() {
    for (rtype, says) in [
        ("SOA", "`soa = { … }`"),
        ("RRSIG", "not signed yet"),
        ("NSEC", "not signed yet"),
        ("NSEC3", "not signed yet"),
        ("DNSKEY", "not signed yet"),
        ("CDS", "not signed yet"),
        ("ANY", "not for data"),
        ("AXFR", "not for data"),
        ("IXFR", "not for data"),
        ("TSIG", "not for data"),
        ("OPT", "belongs to a message"),
        ("NULL", "not allowed"),
        ("TYPE6", "`soa = { … }`"),
        ("TYPE46", "not signed yet"),
        ("TYPE128", "not for data"),
        ("TYPE0", "reserved"),
        ("TYPE65535", "reserved"),
    ] {
        let fault = read(&format!(r"{rtype} \# 0")).expect_err(rtype);
        assert!(fault.to_string().contains(says), "{rtype}: {fault}");
    }
}

#[test]
fn type_names_are_upper_case_mnemonics_or_numbers() {
    assert_eq!(record_type("AAAA"), Some(RecordType::AAAA));
    assert_eq!(record_type("TYPE28"), Some(RecordType::AAAA));
    assert_eq!(record_type("URI").map(u16::from), Some(256));
    assert_eq!(record_type("TYPE65280"), Some(RecordType::Unknown(65280)));
    for text in ["", "a", "Mx", "TYPE", "TYPE65536", "TYPE+1", "TYPE-1", "type1", "ANAME", "ZERO", "ttl"] {
        assert_eq!(record_type(text), None, "{text}");
    }
    for number in 0..=u16::MAX {
        let name = mnemonic(RecordType::from(number));
        assert_eq!(record_type(&name).map(u16::from), Some(number), "{name}");
    }
}

#[test]
fn long_texts_are_cut_into_strings_and_end_at_65535_bytes() {
    let wire = read(&format!("TXT {}", "x".repeat(600))).unwrap();
    assert_eq!([wire[0], wire[256], wire[512]], [255, 255, 90]);
    assert!(read(&format!("TXT {}", "x".repeat(65_279))).is_ok(), "65,279 and 256 lengths are 65,535");
    assert!(read(&format!("TXT {}", "x".repeat(65_280))).unwrap_err().what.contains("65536 bytes"));
    assert!(read(&format!("TLSA 3 0 0 {}", "00".repeat(65_533))).is_err());
}

#[test]
fn the_example_of_every_type_can_be_read_and_its_lack_is_a_fault() {
    for form in FORMS {
        let line = format!("{} {}", form.mnemonic, form.example);
        let wire = read(&line).unwrap_or_else(|fault| panic!("{line}: {fault}"));
        assert!(wire::check(form, &wire).is_ok(), "{line}");
        if form.mnemonic != "TXT" {
            assert!(read(form.mnemonic).is_err(), "{}", form.mnemonic);
            assert!(read(&format!("{line} \"extra\"")).is_err(), "{}", form.mnemonic);
        }
        assert!(wire::check(form, &wire[..0]).is_err(), "{} has no empty data", form.mnemonic);
    }
}

/// What hickory-proto makes of our bytes, written again without compression.
fn hickory_again(rtype: RecordType, wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = BinEncoder::new(&mut out);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    decoded(rtype, wire).emit(&mut encoder).unwrap();
    out
}

fn plausible(rtype: RecordType) -> BoxedStrategy<String> {
    let name = "[a-zA-Z0-9_-]{1,12}(\\.[a-z]{1,5}){0,2}\\.?";
    let quoted = r#""([ -!#-\[\]-~é]|\\"|\\\\|\\0[0-9]{2}){0,30}""#;
    let pattern = match rtype {
        RecordType::A => "[0-9]{1,3}\\.[0-9]{1,2}\\.[0-9]\\.[0-9]".into(),
        RecordType::AAAA => "[0-9a-f]{0,4}:[0-9a-f]{0,4}::[0-9a-f]{0,4}".into(),
        RecordType::NS | RecordType::CNAME | RecordType::PTR => name.to_owned(),
        RecordType::MX => format!("[0-9]{{1,5}} {name}"),
        RecordType::SRV => format!("[0-9]{{1,5}} [0-9]{{1,4}} [0-9]{{1,4}} {name}"),
        RecordType::TXT => format!("{quoted}( {quoted}){{0,2}}"),
        RecordType::CAA => format!("[0-9]{{1,3}} [a-z0-9]{{1,9}} {quoted}"),
        RecordType::HINFO => format!("{quoted} {quoted}"),
        RecordType::NAPTR => format!("[0-9]{{1,5}} 1 \"[a-z]?\" {quoted} {quoted} {name}"),
        RecordType::TLSA => "[0-3] [01] 0 ([0-9a-fA-F]{2}){1,40}".into(),
        RecordType::SSHFP => "[0-4] 1 [0-9a-f]{40}".into(),
        other => unreachable!("{other} is not tried"),
    };
    prop::string::string_regex(&pattern).unwrap().boxed()
}

fn tried_type() -> impl Strategy<Value = RecordType> {
    use RecordType::*;
    prop::sample::select(vec![A, AAAA, NS, CNAME, PTR, MX, SRV, TXT, CAA, HINFO, NAPTR, TLSA, SSHFP])
}

proptest! {
    #[test]
    fn no_text_panics_for_any_type(number in any::<u16>(), text in ".*", noisy in r#"[ "\\#;().@=,0-9aFé\n]{0,40}"#) {
        for rtype in FORMS.iter().map(|form| form.rtype).chain([RecordType::from(number)]) {
            for text in [&text, &noisy] {
                if let Err(fault) = parse(rtype, text, &origin()) {
                    prop_assert!(fault.offset.is_none_or(|offset| offset <= text.len()), "{fault:?}");
                }
            }
        }
    }

    #[test]
    fn no_bytes_of_a_known_type_panic_and_what_is_taken_hickory_takes_too(
        wire in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..4], 0..40),
    ) {
        for form in FORMS {
            if let Ok(read) = parse(form.rtype, &generic(&wire), &origin()) {
                prop_assert_eq!(&*read, &*wire);
                decoded(form.rtype, &wire);
            }
        }
    }

    #[test]
    fn hickory_reads_from_our_bytes_what_we_wrote(
        (rtype, text) in tried_type().prop_flat_map(|rtype| (Just(rtype), plausible(rtype))),
    ) {
        if let Ok(wire) = parse(rtype, &text, &origin()) {
            prop_assert_eq!(hickory_again(rtype, &wire), wire.to_vec(), "{} {}", rtype, text);
            // Where its own reader of text is sound, it reads the same. It lower-cases names and has other escapes.
            let sound = !text.contains(['\\', '"']) && text.is_ascii() && !text.contains(|c: char| c.is_ascii_uppercase());
            let nameless = matches!(rtype, RecordType::A | RecordType::AAAA | RecordType::TLSA | RecordType::SSHFP);
            if (sound && text.ends_with('.') || nameless)
                && let Ok(theirs) = RData::try_from_str(rtype, &text)
            {
                prop_assert_eq!(decoded(rtype, &wire), theirs, "{} {}", rtype, text);
            }
        }
    }

    #[test]
    fn the_form_of_rfc_3597_round_trips(
        (rtype, text) in tried_type().prop_flat_map(|rtype| (Just(rtype), plausible(rtype))),
        unknown in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        if let Ok(wire) = parse(rtype, &text, &origin()) {
            prop_assert!(form_of(rtype).is_some());
            prop_assert_eq!(parse(rtype, &generic(&wire), &origin()).unwrap(), wire);
        }
        let read = parse(RecordType::Unknown(65280), &generic(&unknown), &origin()).unwrap();
        prop_assert_eq!(read.to_vec(), unknown);
    }
}
