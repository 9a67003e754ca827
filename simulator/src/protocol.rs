//! AWS JSON 1.1 on the wire: how errors look.
//!
//! <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html>

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What the header `X-Amz-Target` starts with; the operation's name follows.
pub(crate) const TARGET_PREFIX: &str = "AmazonEC2ContainerServiceV20141113.";
/// The same of Service Quotas.
pub(crate) const QUOTAS: &str = "ServiceQuotasV20190624.";
/// The only content type of the protocol.
pub(crate) const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// An error as the API answers it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    /// `ConflictException` alone has them.
    pub(crate) resource_ids: Vec<String>,
}

impl ApiError {
    /// An error of the caller's making: HTTP 400.
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            code: code.to_owned(),
            message: message.into(),
            resource_ids: Vec::new(),
        }
    }

    pub(crate) fn client(message: impl Into<String>) -> Self {
        Self::new("ClientException", message)
    }

    pub(crate) fn invalid_parameter(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterException", message)
    }

    pub(crate) fn cluster_not_found() -> Self {
        Self::new("ClusterNotFoundException", "Cluster not found.")
    }

    /// A bucket is empty.
    pub(crate) fn throttled() -> Self {
        Self::new("ThrottlingException", "Rate exceeded")
    }

    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self { status: 500, ..Self::new("ServerException", message) }
    }
}

/// An answer of HTTP 200.
pub(crate) fn success(body: &Value) -> Response {
    reply(StatusCode::OK, body)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({"__type": self.code, "message": self.message});
        if !self.resource_ids.is_empty() {
            body["resourceIds"] = json!(self.resource_ids);
        }
        reply(StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &body)
    }
}

fn reply(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    let request_id = format!("{:032x}", rand::random::<u128>());
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert("x-amzn-requestid", value);
    }
    response
}
