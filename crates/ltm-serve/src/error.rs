//! What a client is told when a request is refused, in the form that clients of completions APIs read.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why the server does not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A model cannot be served.
    Model {
        /// Its name.
        id: String,
        /// Why.
        source: Box<ltm_eval::Error>,
    },
    /// The names of models, or an option, that cannot be used.
    Field {
        /// Which.
        field: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
}

/// The result of starting a server.
pub type Result<T> = std::result::Result<T, Error>;

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model { id, .. } => write!(f, "model `{id}` cannot be served"),
            Self::Field { field, expected, found } => {
                write!(f, "`{field}`: expected {expected}, found {found}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Model { source, .. } => Some(source),
            Self::Field { .. } => None,
        }
    }
}

/// The answer to a request that is refused or fails: `{"error": {"message", "type", "param", "code"}}`.
///
/// Clients repeat a request after 429 and 5xx, so what they did wrong is a 4xx of another number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    message: String,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// The client's fault, in the field `param`.
    pub(crate) fn field(
        param: &'static str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Self {
        let message = format!("`{param}`: expected {expected}, found {found}");
        Self { param: Some(param), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// A field that this server does not have.
    pub(crate) fn unsupported(param: &'static str) -> Self {
        let message = format!("`{param}` is not supported; omit it");
        Self {
            param: Some(param),
            code: Some("unsupported_parameter"),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// The client's fault, in no one field.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A prompt that is longer than the context.
    pub(crate) fn too_long(tokens: usize, context: usize) -> Self {
        let message = format!(
            "this model's context holds {context} tokens, the one that documents begin with among them; the prompt has \
             {tokens}"
        );
        Self {
            param: Some("prompt"),
            code: Some("context_length_exceeded"),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// A model that is not served.
    pub(crate) fn no_model(id: &str) -> Self {
        let message =
            format!("the model `{id}` is not served; GET /v1/models lists those that are");
        Self {
            param: Some("model"),
            code: Some("model_not_found"),
            ..Self::new(StatusCode::NOT_FOUND, message)
        }
    }

    /// A path that does not exist.
    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing at this path")
    }

    /// Another method than the path has.
    pub(crate) fn no_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method")
    }

    /// A request that this server is not for.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// A request without the key that the server asks for.
    pub(crate) fn unauthorized() -> Self {
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "expected `Authorization: Bearer KEY` with this server's key",
            )
        }
    }

    /// A queue without room.
    pub(crate) fn busy() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "the queue is full; try again later")
    }

    /// A server that is about to end.
    pub(crate) fn draining() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down")
    }

    /// The server's fault. What failed is for the log, not for the client.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed on this request")
    }

    /// A status that a layer in front of the routes answered with, such as 413 for a body that is too large.
    pub(crate) fn of_status(status: StatusCode, message: String) -> Self {
        Self::new(status, message)
    }

    /// The object `{"error": …}`.
    pub(crate) fn body(&self) -> serde_json::Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.code,
        } })
    }
}

/// What a library refused: a request's content, which is the client's fault, or anything else, which is not.
impl From<ltm_eval::Error> for ApiError {
    fn from(error: ltm_eval::Error) -> Self {
        Self::from_chain(&error)
    }
}

impl From<ltm_eval::ltm_vi::Error> for ApiError {
    fn from(error: ltm_eval::ltm_vi::Error) -> Self {
        match error {
            ltm_eval::ltm_vi::Error::PromptTooLong { tokens, max_seq_len } => {
                Self::too_long(tokens, max_seq_len)
            }
            error => Self::from_chain(&error),
        }
    }
}

impl ApiError {
    /// Of an error of arguments that the routes did not foresee.
    fn from_chain(error: &dyn std::error::Error) -> Self {
        Self::invalid(ltm_eval::ltm_train::chain(error))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
