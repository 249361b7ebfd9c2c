//! The record types that a zone file may hold: their mnemonics, the fields of their data, and why others are refused.

use hickory_proto::rr::RecordType;

use super::super::Fault;

pub(super) const RP: RecordType = RecordType::Unknown(17);
pub(super) const LOC: RecordType = RecordType::Unknown(29);
pub(super) const URI: RecordType = RecordType::Unknown(256);

/// A field of RDATA, in presentation and in wire form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    V4,
    V6,
    U8,
    U16,
    /// Never compressed (RFC 3597 §4 allows compression for the types of RFC 1035 only, and we do without).
    Name,
    /// One character-string.
    String,
    /// One or more character-strings.
    Strings,
    /// A property tag of CAA: a length, and ASCII letters and digits.
    Tag,
    /// Bytes up to the end of the RDATA, written as one string; the flag tells whether it may be empty.
    Text {
        may_be_empty: bool,
    },
    /// Bytes up to the end of the RDATA, at least one, in hexadecimal digits; blanks may stand between them.
    Hex,
    /// The same in Base64 (RFC 4648 §4).
    Base64,
    /// The 16 bytes of LOC.
    Location,
    /// The parameters of SVCB and HTTPS.
    SvcParams,
}

/// How the data of a type is written.
pub(super) struct Form {
    pub mnemonic: &'static str,
    pub rtype: RecordType,
    /// The fields by name, in the order of presentation format and wire.
    pub fields: &'static [(&'static str, Field)],
    pub rfc: &'static str,
    pub example: &'static str,
}

const fn form(
    mnemonic: &'static str,
    rtype: RecordType,
    fields: &'static [(&'static str, Field)],
    rfc: &'static str,
    example: &'static str,
) -> Form {
    Form { mnemonic, rtype, fields, rfc, example }
}

const DIGEST_TEXT: &str = "1 1 123456789abcdef67890123456789abcdef67890";

#[rustfmt::skip]
pub(super) const FORMS: &[Form] = {
    use Field::*;
    &[
        form("A", RecordType::A, &[("address", V4)], "RFC 1035 §3.4.1", "192.0.2.1"),
        form("AAAA", RecordType::AAAA, &[("address", V6)], "RFC 3596 §2", "2001:db8::1"),
        form("NS", RecordType::NS, &[("nsdname", Name)], "RFC 1035 §3.3.11", "ns1.example.net."),
        form("CNAME", RecordType::CNAME, &[("target", Name)], "RFC 1035 §3.3.1", "www.example.net."),
        form("DNAME", RecordType::DNAME, &[("target", Name)], "RFC 6672 §2.1", "other.example.net."),
        form("PTR", RecordType::PTR, &[("ptrdname", Name)], "RFC 1035 §3.3.12", "host.example.net."),
        form("MX", RecordType::MX, &[("preference", U16), ("exchange", Name)], "RFC 1035 §3.3.9", "10 mail.example.net."),
        form("TXT", RecordType::TXT, &[("txt-data", Strings)], "RFC 1035 §3.3.14", "v=spf1 -all"),
        form("SRV", RecordType::SRV, &[("priority", U16), ("weight", U16), ("port", U16), ("target", Name)],
            "RFC 2782", "0 5 443 live.example.net."),
        form("CAA", RecordType::CAA, &[("flags", U8), ("tag", Tag), ("value", Text { may_be_empty: true })],
            "RFC 8659 §4.1", r#"0 issue "ca.example""#),
        form("NAPTR", RecordType::NAPTR,
            &[("order", U16), ("preference", U16), ("flags", String), ("services", String), ("regexp", String), ("replacement", Name)],
            "RFC 3403 §4.1", r#"100 10 "s" "SIP+D2U" "" _sip._udp.example.net."#),
        form("TLSA", RecordType::TLSA, &[("usage", U8), ("selector", U8), ("matching type", U8), ("data", Hex)],
            "RFC 6698 §2.1", "3 1 1 8cb0fc6c527506a053f4f14c8464bebbd6dede2738d11468dd953d7d6a3021f1"),
        form("SMIMEA", RecordType::SMIMEA, &[("usage", U8), ("selector", U8), ("matching type", U8), ("data", Hex)],
            "RFC 8162 §2", "3 1 1 8cb0fc6c527506a053f4f14c8464bebbd6dede2738d11468dd953d7d6a3021f1"),
        form("SSHFP", RecordType::SSHFP, &[("algorithm", U8), ("type", U8), ("fingerprint", Hex)],
            "RFC 4255 §3.1", DIGEST_TEXT),
        form("DS", RecordType::DS, &[("key tag", U16), ("algorithm", U8), ("digest type", U8), ("digest", Hex)],
            "RFC 4034 §5.1", "60485 13 2 d4b7d520e7bb5f0f67674a0cceb1e3e0614b93c4f9e99b8383f6a1e4469da50a"),
        form("HINFO", RecordType::HINFO, &[("cpu", String), ("os", String)], "RFC 1035 §3.3.2", r#""VM" "Linux""#),
        form("RP", RP, &[("mbox-dname", Name), ("txt-dname", Name)], "RFC 1183 §2.2", "admin.example.net. people.example.net."),
        form("LOC", LOC, &[("location", Location)], "RFC 1876 §3", "51 30 12.748 N 0 7 39.611 W 0.00m"),
        form("URI", URI, &[("priority", U16), ("weight", U16), ("target", Text { may_be_empty: false })],
            "RFC 7553 §4", r#"10 1 "https://www.example.net/""#),
        form("CERT", RecordType::CERT, &[("type", U16), ("key tag", U16), ("algorithm", U8), ("certificate", Base64)],
            "RFC 4398 §2", "1 0 0 MIIBszCCARw="),
        form("OPENPGPKEY", RecordType::OPENPGPKEY, &[("key", Base64)], "RFC 7929 §2.1", "mQENBFVHm5sBCAA="),
        form("SVCB", RecordType::SVCB, &[("priority", U16), ("target", Name), ("parameters", SvcParams)],
            "RFC 9460 §2.1", "1 svc.example.net. alpn=h2,h3 port=8443"),
        form("HTTPS", RecordType::HTTPS, &[("priority", U16), ("target", Name), ("parameters", SvcParams)],
            "RFC 9460 §9", "1 . alpn=h2,h3"),
    ]
};

/// Mnemonics of types that are refused; those that have no number at hickory-proto by number.
const REFUSED: &[(&str, u16)] = &[
    ("SOA", 6),
    ("NULL", 10),
    ("SIG", 24),
    ("KEY", 25),
    ("NXT", 30),
    ("OPT", 41),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("NSEC3", 50),
    ("NSEC3PARAM", 51),
    ("CDS", 59),
    ("CDNSKEY", 60),
    ("CSYNC", 62),
    ("ZONEMD", 63),
    ("TKEY", 249),
    ("TSIG", 250),
    ("IXFR", 251),
    ("AXFR", 252),
    ("MAILB", 253),
    ("MAILA", 254),
    ("ANY", 255),
];

/// How the data of `rtype` is written; `None` for types that only the form of RFC 3597 can hold.
pub(super) fn form_of(rtype: RecordType) -> Option<&'static Form> {
    FORMS.iter().find(|form| form.rtype == rtype)
}

/// The type that a key of a zone file names: a mnemonic in upper case, or `TYPE65280` (RFC 3597 §5).
///
/// `None` for a name that is no type, so that it may be told from a type that [`parse`](super::parse) refuses (SOA,
/// RRSIG, ANY…).
pub fn record_type(text: &str) -> Option<RecordType> {
    if let Some(form) = FORMS.iter().find(|form| form.mnemonic == text) {
        return Some(form.rtype);
    }
    if let Some(&(_, number)) = REFUSED.iter().find(|(mnemonic, _)| *mnemonic == text) {
        return Some(RecordType::from(number));
    }
    let digits = text.strip_prefix("TYPE")?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u16>().ok().map(RecordType::from)
}

/// Every mnemonic that a zone file may use, for the nearest known of a mistyped one.
pub fn mnemonics() -> impl Iterator<Item = &'static str> {
    FORMS.iter().map(|form| form.mnemonic)
}

/// The type in the notation of zone files: its mnemonic, else `TYPE65280`.
pub fn mnemonic(rtype: RecordType) -> String {
    let number = u16::from(rtype);
    FORMS
        .iter()
        .map(|form| (form.mnemonic, u16::from(form.rtype)))
        .chain(REFUSED.iter().copied())
        .find(|(_, known)| *known == number)
        .map_or_else(|| format!("TYPE{number}"), |(mnemonic, _)| mnemonic.to_owned())
}

/// Refuses the types that no zone file may hold.
pub(super) fn check_allowed(rtype: RecordType) -> Result<(), Fault> {
    let number = u16::from(rtype);
    let refused =
        |reason: &str| Fault::new(format!("{} cannot be a record of a zone file", mnemonic(rtype))).rule(reason);
    Err(match number {
        6 => refused("the SOA record is made from the zone's own settings")
            .help("drop it; timers and serial are set by `soa = { … }`, the mailbox by `contact`"),
        24 | 25 | 30 | 46 | 47 | 48 | 50 | 51 | 59 | 60 | 62 | 63 => {
            refused("records of signed zones are made when a zone is signed, and zones are not signed yet")
                .help("drop it; a DS record of a child zone may stay")
        }
        10 => refused("NULL records are not allowed in zone files (RFC 1035 §3.3.10)"),
        41 => refused("OPT belongs to a message, not to a zone (RFC 6891 §6.1.1)"),
        128..=255 => refused("types 128 to 255 are for questions and messages, not for data (RFC 6895 §3.1)"),
        0 | 0xffff => refused("the type is reserved (RFC 6895 §3.1)"),
        _ => return Ok(()),
    })
}
