//! The Catalog of hickory-server with the same static zones, as a second opinion.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::StreamExt;
use hickory_net::runtime::{TokioRuntimeProvider, TokioTime};
use hickory_net::xfer::{BufDnsStreamHandle, Protocol};
use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, LowerName, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandle};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use meridian::config::settings::Zone;

use crate::generate::Question;
use crate::reference;

pub struct Oracle {
    catalog: Catalog,
    runtime: tokio::runtime::Runtime,
}

impl Oracle {
    pub fn new(zones: &[Zone], serial: u32) -> Oracle {
        let mut catalog = Catalog::new();
        for zone in zones {
            let mut handler = InMemoryZoneHandler::<TokioRuntimeProvider>::empty(
                zone.name.clone(),
                ZoneType::Primary,
                AxfrPolicy::Deny,
            );
            for record in reference::records_of(zone, serial) {
                let shown = record.to_string();
                assert!(handler.upsert_mut(record, serial), "{shown}");
            }
            catalog.upsert(LowerName::new(&zone.name), vec![Arc::new(handler)]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Oracle { catalog, runtime }
    }

    pub fn ask(&self, query: Vec<u8>) -> Message {
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 4096));
        let request = Request::from_bytes(query, from, Protocol::Tcp).unwrap();
        let (stream, mut answers) = BufDnsStreamHandle::new(from);
        let handle = ResponseHandle::new(from, stream, Protocol::Tcp);
        self.runtime.block_on(async {
            self.catalog.handle_request::<_, TokioTime>(&request, handle).await;
            let answer = answers.next().await.expect("every question is answered");
            Message::from_vec(answer.bytes()).expect("answers can be decoded")
        })
    }
}

/// The Catalog answers class CH as if it were IN, gives transfers, and all records for ANY; and a wildcard does not
/// stand in for names that begin with `*` themselves.
pub fn answers_properly(question: &Question) -> bool {
    let is_common = question.class == DNSClass::IN && !question.name.is_wildcard();
    is_common && !matches!(question.rtype, RecordType::ANY | RecordType::AXFR)
}

/// Sections without order, each record once.
pub fn section(records: &[Record]) -> reference::Section {
    records.iter().map(reference::Rr::from).collect()
}
