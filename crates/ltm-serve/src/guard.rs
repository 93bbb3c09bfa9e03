//! Which requests the server is for, and that every refusal is a JSON error. Knows no route.

use std::sync::atomic::Ordering;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::shared::{BODY_BYTES, Shared};

/// Names of this machine for itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Refuses requests for other hosts, from pages of other hosts, without the key, with too large a body, and after the end
/// was asked for.
pub(crate) async fn check(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let response = match checked(&shared, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    shared.metrics.answered(response.status().as_u16());
    response
}

fn checked(shared: &Shared, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let allowed = |host: &str| {
        let name = without_port(host);
        let names = LOOPBACK.iter().copied().chain(shared.hosts.iter().map(String::as_str));
        names.into_iter().any(|own| own.eq_ignore_ascii_case(name))
    };
    let host = text(headers, header::HOST).or(request.uri().authority().map(|host| host.as_str()));
    if !host.is_some_and(allowed) {
        let message = "this host name is not served here; allow it with --allow-host";
        return Err(ApiError::forbidden(message));
    }
    if headers.contains_key(header::ORIGIN) {
        let origin = text(headers, header::ORIGIN).and_then(|origin| origin.split_once("://"));
        if !origin.is_some_and(|(_, host)| allowed(host)) {
            return Err(ApiError::forbidden("pages of other origins are not served"));
        }
    }
    // One that claims more than is read need not be waited for.
    let claimed =
        text(headers, header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if claimed.is_some_and(|bytes| bytes > BODY_BYTES as u64) {
        let message = format!("expected a body of at most {BODY_BYTES} bytes");
        return Err(ApiError::of_status(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let path = request.uri().path();
    let is_open = matches!(path, "/health" | "/metrics" | "/");
    if let Some(key) = shared.api_key.as_deref().filter(|_| !is_open) {
        let given =
            text(headers, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        if !given.is_some_and(|given| same(given.as_bytes(), key.as_bytes())) {
            return Err(ApiError::unauthorized());
        }
    }
    match shared.is_draining.load(Ordering::Relaxed) && !is_open {
        true => Err(ApiError::draining()),
        false => Ok(()),
    }
}

/// The value of a header that is there once.
fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(value)
}

/// A host without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colons within the brackets of an address are not a port's.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether two texts are equal, in a time that depends on their lengths alone.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// A request's body as JSON, whatever its content type: an error names the field and the place.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| match &error {
            BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
                ApiError::of_status(StatusCode::PAYLOAD_TOO_LARGE, error.body_text())
            }
            _ => ApiError::of_status(StatusCode::REQUEST_TIMEOUT, error.body_text()),
        })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::invalid(format!("the request's JSON: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_no_port() {
        for (host, expected) in [
            ("localhost:8080", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("a:b", "a:b"),
        ] {
            assert_eq!(without_port(host), expected);
        }
        assert!(same(b"key", b"key") && !same(b"key", b"kez") && !same(b"key", b"ke"));
    }
}
