//! Bodies of requests: small, JSON, and not waited for without end.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::timeout;

/// No order needs as much.
const BODY_BYTES: usize = 16 * 1024;
/// The whole body must have come by then.
const BODY_TIME: Duration = Duration::from_secs(3);

/// An error as every route tells it.
pub fn refuse(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(json!({ "error": error.into() }))).into_response()
}

/// Reads a body as `T`. Errors: the answer to give. Waits three seconds at most.
pub async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Response> {
    parse(&bytes(body, BODY_BYTES).await?).map_err(|what| refuse(StatusCode::BAD_REQUEST, what))
}

/// Reads a body of at most `most` bytes. Errors: the answer to give. Waits three seconds at most.
pub async fn bytes(body: Body, most: usize) -> Result<Bytes, Response> {
    match timeout(BODY_TIME, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            // Too much is by far the likeliest; who breaks off does not read the answer.
            let what = format!("the body cannot be read, or is longer than {most} bytes: {error}");
            Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, what))
        }
        Err(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("the body is not what is needed: {error}"))
}
