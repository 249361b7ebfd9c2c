//! One POST of JSON, on a connection of its own.

use std::fmt;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::scale::{Webhook, token};
use crate::health::tls::{self, Connectors};

/// Bytes of a response head, and its header lines.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;

/// Where to, and how.
pub struct Poster {
    webhook: Webhook,
    /// Of an `https://` address. Errors: what is wrong with the private CA.
    connector: Option<Result<TlsConnector, String>>,
    /// The whole request may take so long.
    patience: Duration,
}

impl Poster {
    pub fn new(webhook: Webhook, patience: Duration) -> Poster {
        let connector = webhook.url.tls.then(|| Connectors::default().connector(webhook.ca.as_ref()));
        Poster { webhook, connector, patience }
    }

    pub fn webhook(&self) -> &Webhook {
        &self.webhook
    }

    /// Sends it. Errors, for people: whatever kept it from being taken with a status of 2xx; redirections are not followed,
    /// as a token is for one address.
    pub async fn post(&self, body: String) -> Result<(), String> {
        let sent = async {
            let stream = TcpStream::connect((&*self.webhook.url.host, self.webhook.url.port)).await.map_err(said)?;
            match &self.connector {
                None => self.exchange(stream, body).await,
                Some(connector) => {
                    let connector = connector.as_ref().map_err(Clone::clone)?;
                    let name = tls::server_name(&self.webhook.url.host)?;
                    let shaken = connector.connect(name, stream).await;
                    let stream = shaken.map_err(|error| tls::cause(&error).unwrap_or_else(|| error.to_string()))?;
                    self.exchange(stream, body).await
                }
            }
        };
        timeout(self.patience, sent).await.unwrap_or_else(|_| Err(format!("no answer in {:?}", self.patience)))
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        body: String,
    ) -> Result<(), String> {
        let request = self.request(body).await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(said)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(said)?;
            // The body says nothing that is of use here: it is not read.
            let status = response.status();
            if status.is_success() { Ok(()) } else { Err(format!("status {}", status.as_u16())) }
        };
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // The connection may end before the head was handed over.
            _ = connection => exchange.await,
        }
    }

    async fn request(&self, body: String) -> Result<Request<Full<Bytes>>, String> {
        let url = &self.webhook.url;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&*url.path)
            .header(HOST, &*url.authority)
            .header(USER_AGENT, concat!("meridian/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(said)?;
        if let Some(file) = self.webhook.token.clone() {
            let shown = file.display().to_string();
            let read = spawn_blocking(move || token(&file)).await.map_err(said)?;
            let text = read.map_err(|what| format!("{shown}: {what}"))?;
            let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(said)?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

fn said(error: impl fmt::Display) -> String {
    error.to_string()
}
