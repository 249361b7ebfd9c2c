//! RDATA from presentation format through hickory-proto.

use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::BinEncodable;

pub struct Fault {
    pub what: String,
    pub rule: Option<String>,
    pub help: Option<String>,
    pub offset: Option<usize>,
}

pub fn record_type(text: &str) -> Option<RecordType> {
    if let Some(number) = text.strip_prefix("TYPE") {
        return number.parse::<u16>().ok().map(RecordType::from);
    }
    text.parse().ok()
}

pub fn parse(rtype: RecordType, text: &str, origin: &Name) -> Result<Box<[u8]>, Fault> {
    let fault = |what: String| Fault { what, rule: None, help: None, offset: None };
    if let Some(hex) = text.strip_prefix("\\# ") {
        let digits: Vec<u8> = hex.split(' ').skip(1).flat_map(str::bytes).collect();
        let bytes = digits.chunks(2).map(|two| u8::from_str_radix(&String::from_utf8_lossy(two), 16));
        return bytes.collect::<Result<_, _>>().map_err(|e| fault(e.to_string()));
    }
    let relative = |n: &str| super::names::relative(n, origin).map_err(|flaw| fault(flaw.what));
    let data = match (rtype, text.rsplit_once(' ')) {
        (RecordType::NS | RecordType::CNAME | RecordType::PTR, _) => relative(text)?.to_ascii(),
        (RecordType::DNAME, _) => return relative(text)?.to_bytes().map(Vec::into).map_err(|e| fault(e.to_string())),
        (RecordType::MX | RecordType::SRV, Some((numbers, name))) => format!("{numbers} {}", relative(name)?),
        (RecordType::TXT, _) if !text.starts_with('"') => {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
        _ => text.to_owned(),
    };
    let rdata = RData::try_from_str(rtype, &data).map_err(|e| fault(e.to_string()))?;
    rdata.to_bytes().map(Vec::into).map_err(|e| fault(e.to_string()))
}
