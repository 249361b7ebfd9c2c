//! One question to a running server's admin address.

use std::fmt;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

const WHOLE_TIME: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 4 << 20;

/// An answer of the server, whatever its status.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

#[derive(Debug)]
pub enum AskError {
    /// The URL is not `http://HOST:PORT`.
    Url,
    /// Nobody listens there.
    Refused,
    /// Somebody does, but gave no answer that we understand.
    Failed(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Url => f.write_str("the URL must have the form http://HOST:PORT"),
            AskError::Refused => f.write_str("nobody listens there"),
            AskError::Failed(why) => f.write_str(why),
        }
    }
}

/// GETs `path_and_query` from the server at `base`, such as `http://127.0.0.1:8053`. Blocks for at most five seconds;
/// must not be called within an async runtime.
pub fn get(base: &str, path_and_query: &str) -> Result<Reply, AskError> {
    let base: Uri = base.trim_end_matches('/').parse().map_err(|_| AskError::Url)?;
    let authority = base.authority().filter(|_| base.scheme_str() == Some("http")).ok_or(AskError::Url)?.clone();
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(80);
    let failed = |error: &dyn fmt::Display| AskError::Failed(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(&e))?;
    let asked = async {
        let stream = TcpStream::connect((host, port)).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => AskError::Refused,
            _ => failed(&error),
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        let request = Request::get(path_and_query)
            .header("host", authority.as_str())
            .body(Empty::<Bytes>::new())
            .map_err(|e| failed(&e))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_BYTES).collect().await.map_err(|e| failed(&e))?;
            Ok(Reply { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
        };
        tokio::pin!(exchange);
        tokio::select! {
            reply = &mut exchange => reply,
            // The connection may end before the body was handed over.
            _ = connection => exchange.await,
        }
    };
    runtime.block_on(async { timeout(WHOLE_TIME, asked).await.unwrap_or_else(|elapsed| Err(failed(&elapsed))) })
}

/// A value within a URL's query (RFC 3986 §2.3: only unreserved characters stand for themselves).
pub fn escape(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A server that gives one connection `reply` and closes it.
    fn server(reply: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(reply.as_bytes());
        });
        url
    }

    #[test]
    fn a_reply_is_given_whatever_its_status() {
        let reply = get(&server("HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno\n"), "/v1/explain").unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (404, "no\n"));
    }

    #[test]
    fn a_server_that_is_not_there_and_one_that_talks_nonsense_are_told_apart() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(get(&format!("http://{free}"), "/"), Err(AskError::Refused)));
        for nonsense in ["", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"] {
            assert!(matches!(get(&server(nonsense), "/"), Err(AskError::Failed(_))), "{nonsense:?}");
        }
    }

    #[test]
    fn only_http_urls_are_taken() {
        for url in ["", "127.0.0.1:8053", "https://127.0.0.1:8053", "http://"] {
            assert!(matches!(get(url, "/"), Err(AskError::Url)), "{url}");
        }
    }

    #[test]
    fn values_are_escaped_for_a_query() {
        assert_eq!(escape("2001:db8::/32"), "2001%3Adb8%3A%3A%2F32");
        assert_eq!(escape("a b&c=\\046*"), "a%20b%26c%3D%5C046%2A");
    }
}
