//! hickory-server with one fixed answer: what the library's own server costs when the handler does nothing.
//!
//!     cargo run --release --example hickory -- ADDRESS:PORT NAME TTL IPV4...
//!
//! UDP and TCP, one thread, and no log. The query's client subnet comes back with a scope of /20, as from servers that
//! steer. Answers are 19 bytes longer than theirs, since the library writes the name once more.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use hickory_net::runtime::Time;
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RData, Record, rdata::A};
use hickory_server::Server;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

const PAYLOAD: u16 = 1232;
const SCOPE: u8 = 20;
const TCP_TIMEOUT: Duration = Duration::from_secs(60);
/// Answers of one TCP connection that may wait to be written.
const TCP_BACKLOG: usize = 1024;

struct Fixed {
    answer: Vec<Record>,
}

impl Fixed {
    async fn respond<R: ResponseHandler>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let edns = request.edns.as_ref().map(|theirs| {
            let mut ours = Edns::new();
            ours.set_max_payload(PAYLOAD);
            if let Some(EdnsOption::Subnet(subnet)) = theirs.option(EdnsCode::Subnet) {
                let mut subnet = *subnet;
                subnet.set_scope_prefix(SCOPE);
                ours.options_mut().insert(EdnsOption::Subnet(subnet));
            }
            ours
        });
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let response = builder.build(metadata, &self.answer, [], [], []);
        handle.send_response(response).await.unwrap_or_else(|_| {
            let mut metadata = Metadata::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
            metadata.response_code = ResponseCode::ServFail;
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        })
    }
}

impl RequestHandler for Fixed {
    // What `async_trait` makes of an async method; the macro itself is no dependency here.
    fn handle_request<'a, 'b, 'c, R, T>(
        &'a self,
        request: &'b Request,
        handle: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'c>>
    where
        R: ResponseHandler + 'c,
        T: Time + 'c,
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.respond(request, handle))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, ttl, addresses @ ..] = arguments.as_slice() else {
        return Err("usage: hickory ADDRESS:PORT NAME TTL IPV4...".into());
    };
    let address: SocketAddr = address.parse()?;
    let (name, ttl) = (Name::from_ascii(format!("{name}."))?, ttl.parse()?);
    let answer = addresses
        .iter()
        .map(|address| Ok(Record::from_rdata(name.clone(), ttl, RData::A(A(address.parse()?)))))
        .collect::<Result<_, Box<dyn Error>>>()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut server = Server::new(Fixed { answer });
        server.register_socket(tokio::net::UdpSocket::bind(address).await?);
        server.register_listener(tokio::net::TcpListener::bind(address).await?, TCP_TIMEOUT, TCP_BACKLOG);
        Ok(server.block_until_done().await?)
    })
}
